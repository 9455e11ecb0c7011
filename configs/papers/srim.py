"""SRIM: conditional implicit maximum likelihood estimation (Li*, Peng* et al.)."""

METHODS = {
  "srim": {
    # Algorithm 1. The paper gives no number for m, b, |S| and M: these are its authors' later choice.
    "method": {
      "candidates": 100,  # m: latents tried per image and stage
      "minibatch": 16,  # b: images of one descent step; train.batch is the pool |S|, a multiple of it
      "inner_rounds": 20_000,  # M: descent steps for which a pool and its chosen latents are kept
      # Choose latents stage by stage (section 2.4), of a network that has several; False: all at once.
      "hierarchical": True,
      # Weight of the lower stages' distances in the loss. The paper trains the last stage's output alone (0):
      # a lower stage's latents are then chosen by a distance that its output is never trained on.
      "stage_weight": 0.0,
      "chunk": 10,  # candidates of one forward pass in the selection; divides m; memory grows with it
      # Rounds at the start in which the latents are zero, so that the network first learns the mean.
      # The paper has none (0); short trainings need it, or a single sample barely beats A+x.
      "warmup_rounds": 0,
      # phi (section 2.2.2): the pixels and some layers of VGG-19.
      "features": {
        "layers": ("conv2_2", "conv4_4"),  # pre-activations compared, besides the pixels; (): pixels alone
        "file": "",  # VGG-19 weights (.npz), read when a run begins; environment variables are expanded
        "width": 64,  # channels of the first block in the file, VGG-19's own
        "sha256": "",  # checked when given
        "padding": "zero",  # zero, as VGG was trained, or reflect
        # Of squared differences of a part: sum (the paper), by which conv2_2 counts 10.7 times as much as the
        # pixels because it has so many more values, or mean, by which all parts count alike.
        "distance": "sum",
      },
    },
    "networks": {"generator": "srim"},
  },
}

NETWORKS = {
  # Section 2.5: two sub-networks of 9 convolutions of 5x5.
  "srim": {
    "width": 64,
    "layers": 9,
    "kernel": 5,
    "noise_channels": 5,  # Gaussian channels per stage, at the stage's output resolution; 0: none
  },
}
