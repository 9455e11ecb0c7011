"""Regression, the baseline of all papers, and SRResNet (Ledig et al., 2017)."""

METHODS = {
  # The conditional mean or median of the plausible images.
  "regression": {
    "method": {
      "loss": "mse",  # mse | mae
    },
    "networks": {"generator": "srresnet"},
  },
}

NETWORKS = {
  # SRGAN's generator: residual blocks at the input's resolution, then sub-pixel shuffles.
  "srresnet": {
    "width": 64,
    "blocks": 16,
    "kernel": 3,
    "outer_kernel": 9,  # of the first and the last convolution
    "norm": "batch",  # batch | instance | none
    "tail": "shuffle",  # shuffle: a shuffle per doubling, then a convolution; direct: one shuffle at the end
    "noise_channels": 0,  # Gaussian channels at the input's resolution, for implicit models
    "noise_scale": 0.1,  # of the initial weights from the latent, 1: as large as those from the input
    "residual": False,  # add the bicubic enlargement, so that the network learns the difference
    "latent_size": 0,  # of a vector (VarSR), instead of Gaussian channels; 0: none
    "latent_entry": "concatenate",  # that vector tiled over space | film: it scales and shifts feature maps
  },
}
