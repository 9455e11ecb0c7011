"""Every key of a run, explained once. The other configs change what their paper or machine changes."""

from ml_collections import ConfigDict

# The keys of each method, under `config.method`.
METHODS = {
  # Mean or median of the plausible pictures: the baseline every paper compares with.
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
}

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
}


def get_config(method: str = "regression", network: str = "srresnet") -> ConfigDict:
  """A complete config for `method` with generator `network`; a key that it has not cannot be added."""
  picture_source = {
    # "folder", or a TFDS data set by name: "photos" is embedded, others are prepared once with
    # `sr-jax prepare NAME`.
    "name": "photos",
    "split": "train",  # of a TFDS data set, sub-splits such as train[:90%] too; a folder has none
    # folder: where the pictures are, several folders joined by ":"; TFDS: its data_dir, "" for TFDS's
    # own default. Environment variables are expanded: no config names a place.
    "dir": "",
    "channels": 3,  # 3: RGB, 1: grey
  }
  return ConfigDict(
    {
      "seed": 0,
      "method": {"name": method, **METHODS[method]},
      "network": {"name": network, **NETWORKS[network]},
      "dtype": "float32",  # what the networks compute in: float32 | bfloat16; parameters stay float32
      "consistency": "none",  # none | project: the output is projected onto {y : Ay = x}
      # A, the linear downsampling that makes x from y.
      "operator": {
        "kernel": "bicubic",  # bicubic (antialiased, a = -0.5) | area | bilinear | gaussian (9x9, sigma 1.5)
        "factor": (4, 4),  # rows, columns
        "border": "replicate",  # replicate (older MATLAB) | symmetric (newer) | renormalise (PIL)
        # How test inputs are rounded: none | once (to 8 bits) | twice (after rows and after columns, MATLAB)
        "rounding": "twice",
      },
      "data": {
        **picture_source,
        "crop": (48, 48),  # HR rows and columns of a training example
        "flip": True,  # mirror left and right at random
        "max_corrupt": 10,  # records that cannot be read are named, counted and replaced, up to this many
        "cache_mb": 1024,  # decoded pictures kept in memory
        "threads": 8,
      },
      "eval": {
        # "lr_dir": for a folder, the folder of the given low-resolution pictures of the same names;
        # "": they are made by the operator.
        "data": {**picture_source, "split": "test", "lr_dir": ""},
        "limit": 0,  # evaluate only this many pictures, 0: all
        "samples": 10,  # per picture
        "temperature": 1.0,  # 1 is the model, 0 its mode, larger is more diverse
        "seed": 0,
        "batch": 8,  # pictures of one size evaluated together
        "border": 4,  # pixels cut from every side before PSNR and SSIM
        "luma": "bt601",  # bt601 (MATLAB's studio swing) | bt709: the Y of psnr_y and ssim_y
        "metrics": ("psnr", "psnr_y", "ssim", "ssim_y", "lr_psnr", "lr_psnr_8bit", "lr_l1", "std"),
        "baselines": ("bicubic", "pinv"),
        "objective": True,  # the method's own loss on the test set, as a column
        "pictures": 4,  # rows of the picture grid
      },
      "train": {
        "rounds": 100_000,  # a round is one call of the method's step
        "batch": 16,  # images of one batch, over all devices and processes
        "log_every": 100,  # rounds between two progress lines
        "checkpoint_every": 5_000,  # rounds between two checkpoints
        "keep": 2,  # checkpoints kept
        "profile_from": 0,  # round at which a profile of 10 rounds begins, 0: none
      },
      # One optimiser per trained network.
      "optim": {
        "generator": {
          "name": "adam",  # adam | sgd
          "learning_rate": 1e-4,
          "b1": 0.9,
          "b2": 0.999,
          "schedule": "constant",  # constant | cosine (to 0 over the run) | halve
          "halve_at": (),  # updates after the warm-up at which the rate halves, with schedule = "halve"
          "warmup": 0,  # updates of linear warm-up
          "clip": 0.0,  # global gradient norm, 0: none
        },
      },
    }
  ).lock()


def without_noise(config: ConfigDict, batch: int = 16) -> ConfigDict:
  """Regression (MSE) with everything else as in `config`, its network without noise; one sample is all."""
  ours = get_config("regression", config.network.name)
  for section in set(ours.keys()) - {"method"}:
    ours[section] = config[section]
  ours.network.noise_channels = 0
  ours.eval.samples = 1
  ours.train.batch = batch
  return ours
