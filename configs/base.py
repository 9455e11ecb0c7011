"""Every key of a run, explained once. The other configs change what their paper or machine changes."""

import copy

from ml_collections import ConfigDict

# Priors that guide a generator (Amortised MAP Inference, sections 3.3 and 3.4), under `config.method.prior`.
PRIORS = {
  "denoiser": {
    "snapshots": 8,  # kept while the prior is trained, used from coarse to fine while the generator is
    "start": 0.5,  # standard deviation of the noise of the first snapshot,
    "end": 0.01,  # and of the last
    "anneal": "exponential",  # linear | exponential: how it falls from one to the next
    "input": "clean",  # clean (Eq. 12) | noisy (Eq. 29): what the denoiser sees while it guides
    "network": {
      "widths": (128, 128, 128),  # the paper's four layers of convolution, with the output
      "kernel": 3,
      "norm": "batch",  # batch | none
      "activation": "relu",  # as in convnet
      "residual": False,  # predict the difference between clean and noisy
      "fold": (1, 1),  # blocks of pixels that become channels
      "scale": 1.0,  # inputs are divided by it
    },
  },
  "density": {
    "snapshots": 8,
    # PixelCNN with MCGSM likelihood: four layers of 64, kernels of 5, the first of 7; 32 components and
    # features.
    "network": {
      "width": 64,
      "layers": 4,
      "kernel": 5,
      "first_kernel": 7,
      "components": 32,
      "quadratic": 32,
      "scales": 4,  # the paper gives none
      "norm": "batch",  # batch | none
    },
  },
}

# The keys of each method, under `config.method`.
METHODS = {
  # Mean or median of the plausible images: the baseline every paper compares with.
  "regression": {
    "loss": "mse",  # mse | mae
  },
  # Conditional implicit maximum likelihood estimation (SRIM, Algorithm 1).
  "srim": {
    "candidates": 100,  # m: codes tried per image and stage
    "minibatch": 16,  # b: images of one descent step; train.batch is the pool |S|, a multiple of it
    "inner_rounds": 20_000,  # M: descent steps for which a pool and its chosen codes are kept
    "hierarchical": True,  # choose codes stage by stage (section 2.4); False: all stages at once
    "chunk": 10,  # candidates of one forward pass in the selection; divides m; memory grows with it
    # Rounds at the start in which the codes are zero, so that the network first learns the mean.
    # The paper has none (0); short trainings need it, or a single sample barely beats A+x.
    "warmup_rounds": 0,
    # phi (section 2.2.2). Without a weight file the features are the pixels alone.
    "features": {
      "file": "",  # VGG-19 weights (.npz), read when a run begins; environment variables are expanded
      "width": 64,  # channels of the first block in the file, VGG-19's own
      "sha256": "",  # checked when given
      "layers": ("conv2_2", "conv4_4"),  # pre-activations compared, besides the pixels
      "padding": "zero",  # zero, as VGG was trained, or reflect
      "distance": "sum",  # of squared differences per part: sum (the paper) or mean
    },
  },
  # AffGAN, SoftGAN and their stochastic kind (Amortised MAP Inference, Eq. 10, appendices C and F).
  "amap_gan": {
    "soft_weight": 0.0,  # of MAE(x, Ay) in the generator's loss, for SoftGAN; 0 with consistency = "project"
    # Updates of the discriminator in a round, each on its own part of the batch, which is shared by them.
    "discriminator_updates": 1,
    "discriminator": {
      "widths": (32, 64, 128, 256),  # the paper's grass network
      "strides": (2, 2, 2, 2),
      "kernel": 3,  # the paper gives none
      "norm": "batch",  # batch | none
      "activation": "relu",  # as in convnet
      "fold": (1, 1),  # blocks of pixels that become channels
      "scale": 1.0,  # inputs are divided by it
    },
    # Instance noise: standard deviation, added to real and generated images.
    "noise": {
      "start": 0.1,  # 0 with end = 0: none
      "end": 0.0,
      "anneal": "linear",  # linear | exponential | constant_loss (appendix C: holds the discriminator's loss)
      "until": 1.0,  # part of the rounds after which `end` is reached
      "target": 1.0,  # constant_loss: the discriminator's loss, log 4 = 1.386 when it sees no difference
      "rate": 0.01,  # constant_loss: relative change of the noise in a round, per nat
    },
  },
  # AffDG, SoftDG (Eq. 11 and 12) and AffLL (Eq. 32), after a stage that trains the prior.
  "amap_dg": {"soft_weight": 0.0, "prior": PRIORS["denoiser"]},
  "amap_ll": {"soft_weight": 0.0, "prior": PRIORS["density"]},
  # Pixel Recursive Super Resolution.
  "pixel_recursive": {
    "conditioning_weight": 1.0,  # of the conditioning network's own cross-entropy in Eq. 8; 0: Eq. 7
    "sampler": "cached",  # cached | naive, which is the same and hundreds of times slower
    # Table 2 (its text says 32 feature maps).
    "prior": {
      "width": 64,
      "layers": 20,
      "kernel": 5,
      "first_kernel": 7,
      "head": 1024,
      "stddev": 0.1,  # of the initial weights, truncated normal; 0: LeCun's variance
    },
  },
  "pixel_independent": {},  # its conditioning network alone (Eq. 2 and 4)
  # Those stages alone.
  "denoiser": {"prior": PRIORS["denoiser"]},
  "density": {"prior": PRIORS["density"]},
}

# The keys of one network's optimiser, under `config.optim`.
OPTIMISER = {
  "name": "adam",  # adam | sgd | rmsprop
  "learning_rate": 1e-4,
  "b1": 0.9,
  "b2": 0.999,
  "decay": 0.95,  # rmsprop: of the mean square; all three as in Pixel Recursive Super Resolution
  "momentum": 0.9,  # rmsprop
  "eps": 1e-8,  # rmsprop
  "schedule": "constant",  # constant | cosine (to `final` over the run) | halve
  "final": 0.0,  # part of the rate that a cosine ends at
  "halve_at": (),  # updates after the warm-up at which the rate halves, with schedule = "halve"
  "warmup": 0,  # updates of linear warm-up
  "clip": 0.0,  # global gradient norm, 0: none
}

# The networks that a method trains besides or instead of the generator.
TRAINED = {"amap_gan": ("generator", "discriminator"), "denoiser": ("prior",), "density": ("prior",)}

# The stages that come before a method's own rounds, and what it takes from them.
STAGES = {
  "amap_dg": {
    "prior": {"method": {"name": "denoiser"}, "optim": {"prior": OPTIMISER}, "train": {"rounds": 100_000}}
  },
  "amap_ll": {
    "prior": {"method": {"name": "density"}, "optim": {"prior": OPTIMISER}, "train": {"rounds": 100_000}}
  },
}
INIT_FROM = {"amap_dg": ("snapshots=prior",), "amap_ll": ("snapshots=prior",)}

# The keys of each generator, under `config.network`.
NETWORKS = {
  # SRIM, section 2.5: two sub-networks of 9 convolutions of 5x5.
  "srim": {
    "width": 64,
    "layers": 9,
    "kernel": 5,
    "noise_channels": 5,  # Gaussian channels per stage, at the stage's output resolution; 0: none
  },
  # SRResNet without its GAN: residual blocks at the input's resolution, then sub-pixel shuffles.
  "srresnet": {
    "width": 64,
    "blocks": 16,
    "kernel": 3,
    "outer_kernel": 9,  # of the first and the last convolution
    "norm": "batch",  # batch | none
    "tail": "shuffle",  # shuffle: a shuffle per doubling, then a convolution; direct: one shuffle at the end
    "noise_channels": 0,  # Gaussian channels at the input's resolution, for implicit models
    "noise_scale": 0.1,  # of the initial weights from the code, 1: as large as those from the input
    "residual": False,  # add the bicubic enlargement, so that the network learns the difference
  },
  # Amortised MAP Inference, appendix D: all convolutions at the input's resolution, one shuffle at the end.
  "convnet": {
    "widths": (32, 32, 64, 64, 128),  # feature maps of each layer but the output (the paper's grass network)
    "kernel": 3,  # the paper gives none
    "skip": 2,  # layers between skip connections, 0: none
    "norm": "batch",  # batch | none
    "activation": "relu",  # relu | leaky_relu | softplus | swish | tanh
    "output": "sigmoid",  # sigmoid | linear
    "scale": 1.0,  # inputs are divided and outputs multiplied by it, for data without a range
    "noise_channels": 0,  # as in srresnet
    "noise_scale": 0.1,
  },
  # Pixel Recursive Super Resolution, Table 2; for regression, with tanh over the bicubic enlargement.
  "conditioning": {
    "width": 32,
    "blocks": 6,  # at each size; 10 for bedrooms
    "norm": "batch",  # batch (a ResNet's; Table 2 names none) | none
    "whole": 0,  # hidden units of a fully connected path that sees the whole image, 0: none
    "stddev": 0.1,  # of the initial weights, truncated normal; 0: LeCun's variance
  },
}


def get_config(method: str = "regression", network: str = "srresnet") -> ConfigDict:
  """A complete config for `method` with generator `network`; a key that it has not cannot be added."""
  image_source = {
    # "folder", "swiss_roll" (points as images of 1x2 unbounded pixels), or a TFDS data set by name:
    # "photos" is embedded, others are prepared once with `sr-jax prepare NAME`.
    "name": "photos",
    "split": "train",  # of a TFDS data set, or a part of it such as train[:90%]; a folder has only parts
    # folder: where the images are, several folders joined by ":"; TFDS: its data_dir, "" for TFDS's
    # own default. Environment variables are expanded: no config names a place.
    "dir": "",
    "channels": 3,  # 3: RGB, 1: grey
    "min_bytes": 0,  # encoded images with fewer bytes are left out
    "centre": (),  # rows and columns cut from the middle; (): as much as has the shape of `resize`
    "resize": (),  # rows and columns to which that is resized; (): as it is
  }
  return ConfigDict(
    {
      "seed": 0,
      "method": {"name": method, **METHODS[method]},
      "network": {"name": network, **NETWORKS[network]},
      "dtype": "float32",  # what the networks compute in: float32 | bfloat16; parameters stay float32
      # none | project: the output is projected onto {y : Ay = x} | learned: by the network, with an A+ of its
      # own
      "consistency": "none",
      # That A+ (Amortised MAP Inference, appendix B), with consistency = "learned".
      "projection": {
        "kernel": 5,  # side of its kernels
        "start": "trained",  # trained by SGD (Eq. 21 to 23), some seconds when a run begins | random
        "trainable": False,  # let it move with the generator
      },
      # A, the linear downsampling that makes x from y.
      "operator": {
        "kernel": "bicubic",  # bicubic (antialiased, a = -0.5) | area | bilinear | gaussian (9x9, sigma 1.5)
        "factor": (4, 4),  # rows, columns
        "border": "replicate",  # replicate (older MATLAB) | symmetric (newer) | renormalise (PIL)
        # How test inputs are rounded: none | once (to 8 bits) | twice (after rows and after columns, MATLAB)
        "rounding": "twice",
      },
      "data": {
        **image_source,
        "crop": (48, 48),  # HR rows and columns of a training example
        "flip": True,  # mirror left and right at random
        "max_corrupt": 10,  # records that cannot be read are named, counted and replaced, up to this many
        "cache_mb": 1024,  # decoded images kept in memory
        "threads": 8,
      },
      "eval": {
        # "lr_dir": for a folder, the folder of the given low-resolution images of the same names;
        # "": they are made by the operator.
        "data": {**image_source, "split": "test", "lr_dir": ""},
        "limit": 0,  # evaluate only this many images, 0: all
        "samples": 10,  # per image
        # A row of the table each; 1 is the model, 0 its mode, larger is more diverse.
        "temperatures": (1.0,),
        "seed": 0,
        "batch": 8,  # images of one size evaluated together
        "border": 4,  # pixels cut from every side before PSNR and SSIM
        "luma": "bt601",  # bt601 (MATLAB's studio swing) | bt709: the Y of psnr_y and ssim_y
        "metrics": ("psnr", "psnr_y", "ssim", "ssim_y", "lr_psnr", "lr_psnr_8bit", "lr_l1", "std"),
        "baselines": ("bicubic", "pinv"),  # bicubic | pinv | nearest (of the training set) | swiss_roll_map
        # Folders of other runs, of the same kind of images; each is a row of single samples.
        "beside": (),
        "objective": True,  # the method's own loss on the test set, as a column
        # The same of the images that every row draws, in columns "sample_...": what the model itself thinks
        # of them and of the baselines'.
        "judge": False,
        "images": 4,  # rows of the image grid
      },
      "train": {
        "rounds": 100_000,  # a round is one call of the method's step
        "batch": 16,  # images of one batch, over all devices and processes
        "log_every": 100,  # rounds between two progress lines
        "checkpoint_every": 5_000,  # rounds between two checkpoints
        "keep": 2,  # checkpoints kept
        "eval_every": 0,  # rounds between two evaluations of held-out images, into the metrics; 0: none
        "eval_limit": 64,  # of the first images of the test set
        "profile_from": 0,  # round at which a profile of 10 rounds begins, 0: none
      },
      # One optimiser per trained network.
      "optim": {name: dict(OPTIMISER) for name in TRAINED.get(method, ("generator",))},
      # Stages that run before, each in a folder of its own: name -> the keys that differ from this config.
      "stages": copy.deepcopy(STAGES.get(method, {})),
      # Where networks come from when a run begins: "NETWORK=SOURCE" or "NETWORK=SOURCE:ITS_NETWORK", the
      # source a stage, the folder of a run, or an .npz file of "params/..." and "batch_stats/..." leaves.
      "init_from": INIT_FROM.get(method, ()),
    }
  ).lock()


def add_stage(config: ConfigDict, name: str, **keys: dict) -> None:
  """Add a stage before the config's own rounds: the sections and keys in which it differs."""
  with config.unlocked():
    config.stages[name] = keys


def without_noise(config: ConfigDict, batch: int = 16) -> ConfigDict:
  """Regression (MSE) with everything else as in `config`, its network without noise; one sample is all."""
  ours = get_config("regression", config.network.name)
  for section in set(ours.keys()) - {"method"}:
    ours[section] = config[section]
  ours.network.noise_channels = 0
  ours.eval.samples = 1
  ours.train.batch = batch
  return ours
