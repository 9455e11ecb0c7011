"""Pixel Recursive Super Resolution (Dahl, Norouzi & Shlens, arXiv 1702.00783)."""

# The conditioning network of Table 2.
CONDITIONING = {
  "width": 32,
  "blocks": 6,  # at each size; 10 for bedrooms
  "norm": "batch",  # batch (a ResNet's; Table 2 names none) | none
  "whole": 0,  # hidden units of a fully connected path that sees the whole image, 0: none
  "stddev": 0.1,  # of the initial weights, truncated normal; 0: LeCun's variance
}

METHODS = {
  "pixel_recursive": {
    "method": {
      "conditioning_weight": 1.0,  # of the conditioning network's own cross-entropy in Eq. 8; 0: Eq. 7
    },
    "networks": {"generator": "pixel_recursive"},
  },
  # The conditioning network alone, each sub-pixel on its own (Eq. 2 and 4).
  "pixel_independent": {"method": {}, "networks": {"generator": "conditioning"}},
}

NETWORKS = {
  "conditioning": CONDITIONING,
  # For regression: tanh of three channels, over the bicubic enlargement.
  "tanh_residual": CONDITIONING,
  # The conditioning network and a gated PixelCNN, whose logits are added.
  "pixel_recursive": {
    "conditioning": CONDITIONING,
    # Table 2 (its text says 32 feature maps).
    "prior": {
      "width": 64,
      "layers": 20,
      "kernel": 5,
      "first_kernel": 7,
      "head": 1024,
      "stddev": 0.1,  # as of the conditioning network
    },
  },
}
