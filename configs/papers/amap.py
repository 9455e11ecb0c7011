"""Amortised MAP Inference for Image Super-resolution (Sonderby et al., arXiv 1610.04490)."""

# A prior is trained in snapshots, which guide a generator from coarse to fine (appendix E).
SNAPSHOTS = 8
# Of the denoiser's noise: standard deviations of the first snapshot and of the last, and the steps between.
NOISE_LEVELS = {
  "start": 0.5,
  "end": 0.01,
  "anneal": "exponential",  # linear | exponential
}
SOFT_WEIGHT = 0.0  # of lr_l1 = MAE(x, Ay) in the generator's loss, for SoftGAN and SoftDG
# Its snapshots, which guide, are of the weights themselves: an average of them would be measured in vain.
PRIOR_STAGE = {"train": {"rounds": 100_000}, "average": 0.0}

METHODS = {
  # AffGAN, SoftGAN and their stochastic kind (Eq. 10, appendices C and F).
  "amap_gan": {
    "method": {
      "soft_weight": SOFT_WEIGHT,
      # Updates of the discriminator in a round, each on its own part of the batch, which is shared by them.
      "discriminator_updates": 1,
      # Instance noise: standard deviation, added to real and generated images.
      "noise": {
        "start": 0.1,  # 0 with end = 0: none
        "end": 0.0,
        "anneal": "linear",  # linear | exponential | constant_loss (appendix C)
        "until": 1.0,  # part of the rounds after which `end` is reached
        "target": 1.0,  # constant_loss: the discriminator's loss, log 4 = 1.386 when it sees no difference
        "rate": 0.01,  # constant_loss: relative change of the noise in a round, per nat
      },
    },
    "networks": {"generator": "convnet", "discriminator": "discriminator"},
    "trained": ("generator", "discriminator"),
  },
  # AffDG and SoftDG (Eq. 11 and 12), guided by a denoiser that a stage trains.
  "amap_dg": {
    "method": {
      "soft_weight": SOFT_WEIGHT,
      "snapshots": SNAPSHOTS,
      **NOISE_LEVELS,
      "input": "clean",  # clean (Eq. 12) | noisy (Eq. 29): what the denoiser sees while it guides
    },
    "networks": {"generator": "convnet", "prior": "denoiser"},
    "stages": {"prior": {"method": {"name": "denoiser"}, **PRIOR_STAGE}},
    "init_from": ("snapshots=prior",),
  },
  # AffLL (Eq. 32), guided by a density that a stage trains.
  "amap_ll": {
    "method": {"soft_weight": SOFT_WEIGHT, "snapshots": SNAPSHOTS},
    "networks": {"generator": "convnet", "prior": "density"},
    "stages": {"prior": {"method": {"name": "density"}, **PRIOR_STAGE}},
    "init_from": ("snapshots=prior",),
  },
  # Those stages (appendix D, before Eq. 28, and Eq. 31). They draw no images.
  "denoiser": {
    "method": {"snapshots": SNAPSHOTS, **NOISE_LEVELS},
    "networks": {"prior": "denoiser"},
    "trained": ("prior",),
  },
  "density": {
    "method": {"snapshots": SNAPSHOTS},
    "networks": {"prior": "density"},
    "trained": ("prior",),
  },
}

NETWORKS = {
  # Appendix D: all convolutions at the input's resolution, one shuffle at the end.
  "convnet": {
    "widths": (32, 32, 64, 64, 128),  # feature maps of each layer but the output (the paper's grass network)
    "kernel": 3,  # the paper gives none
    "skip": 2,  # layers between skip connections, 0: none
    "norm": "batch",  # batch | none
    "activation": "relu",  # relu | leaky_relu | softplus | swish | tanh
    "output": "sigmoid",  # sigmoid | linear
    "scale": 1.0,  # inputs are divided and outputs multiplied by it, for data without a range
    "noise_channels": 0,  # Gaussian channels at the input's resolution (appendix F)
    "noise_scale": 0.1,  # of the latent where it enters
  },
  "discriminator": {
    "widths": (32, 64, 128, 256),  # the paper's grass network
    "strides": (2, 2, 2, 2),
    "kernel": 3,  # the paper gives none
    "norm": "batch",  # batch | none
    "activation": "relu",  # as in convnet
    "fold": (1, 1),  # blocks of pixels that become channels
    "scale": 1.0,  # inputs are divided by it
  },
  "denoiser": {
    "widths": (128, 128, 128, 128),  # the paper's for grass; then an output layer
    "kernel": 3,
    "norm": "batch",  # batch | none
    "activation": "relu",  # as in convnet
    "residual": False,  # predict the difference between clean and noisy
    "fold": (1, 1),  # blocks of pixels that become channels
    "scale": 1.0,  # inputs are divided by it
  },
  # PixelCNN with MCGSM likelihood: four layers of 64, kernels of 5, the first of 7; 32 components, 32
  # features.
  "density": {
    "width": 64,
    "layers": 4,
    "kernel": 5,
    "first_kernel": 7,
    "components": 32,
    "quadratic": 32,
    "scales": 4,  # the paper gives none
    "norm": "batch",  # batch | none
  },
}
