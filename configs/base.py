"""What every run has, explained once; `papers/` has the keys of each method and network.

The other configs change what their paper or machine changes. A method of your own brings its own keys.
"""

import copy
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from sr_jax.configs.papers import METHODS, NETWORKS
from sr_jax.errors import choose

# The keys of one network's optimiser, under `config.optim`.
OPTIMISER = {
  "name": "adam",  # adam | adamw | sgd | rmsprop
  "learning_rate": 1e-4,
  "b1": 0.9,
  "b2": 0.999,
  "weight_decay": 0.01,  # adamw: times the rate, of the kernels of convolutions and dense layers alone
  "decay": 0.95,  # rmsprop: of the mean square; all three as in Pixel Recursive Super Resolution
  "momentum": 0.9,  # rmsprop
  "eps": 1e-8,  # rmsprop
  "schedule": "constant",  # constant | cosine (to `final` over the run) | halve
  "final": 0.0,  # part of the rate that a cosine ends at
  "halve_at": (),  # updates after the warm-up at which the rate halves, with schedule = "halve"
  "warmup": 0,  # updates of linear warm-up
  "clip": 0.0,  # global gradient norm, 0: none
  # Gradients that are averaged into one update of this network, as of a larger batch. A round has one, of a
  # discriminator perhaps several; their number in the run must be a multiple of this. The schedule and `clip`
  # count updates; an `average` and SRIM's `inner_rounds` count rounds; batch statistics are of a round.
  "accumulate": 1,
}


SOURCE = {
  # "folder", "swiss_roll" (points as images of 1x2 unbounded pixels), or a TFDS data set by name:
  # "photos" and "digits" are embedded, others are prepared once with `sr-jax prepare NAME`.
  "name": "photos",
  "split": "train",  # of a TFDS data set, or a part of it such as train[:90%]; a folder has only parts
  # folder: where the images are, several folders joined by ":"; TFDS: its data_dir, "" for TFDS's default.
  # Environment variables are expanded: no config names a place.
  "dir": "",
  # folder: where low-resolution images of the same names are, a folder for each of `dir`; "": the operator
  # makes them. Where they are not A of the high-resolution images, set consistency = "none".
  "lr_dir": "",
  "channels": 3,  # 3: RGB, 1: grey
  "min_bytes": 0,  # encoded images with fewer bytes are left out
  "centre": (),  # rows and columns cut from the middle; (): the largest part of the aspect ratio of `resize`
  "resize": (),  # rows and columns to which that is resized; (): as it is
  "stretch": False,  # without a centre: resize all of the image, whatever its shape
}


def get_config(
  method: str | Mapping[str, Any] = "regression", **networks: str | Mapping[str, Any]
) -> ConfigDict:
  """A complete, locked config: a key that it has not cannot be added.

  Args:
    method: an entry of `papers.METHODS`, or for a method of your own what such an entry holds, its "method"
      keys with a "name" of the form "module:function".
    networks: for a role another network than the method's default: an entry of `papers.NETWORKS`, or the keys
      of your own with a "name" of the form "module:class".
  """
  return ConfigDict(
    {
      "seed": 0,
      **_method_sections(method, networks),
      "dtype": "float32",  # what the networks compute in: float32 | bfloat16; parameters stay float32
      # Compute the inside of networks' blocks again in the backward pass: less memory, more time.
      "remat": False,
      # Images that batch normalisation in training takes together, 0: all of a batch, over all devices.
      "ghost_batch": 0,
      # Decay per round of an exponential moving average of the weights, used for sampling; 0: none.
      "average": 0.0,
      # none | project: the output is projected onto {y : Ay = x} | learned: by the network, with its own A+
      "consistency": "none",
      # That A+ (Amortised MAP Inference, appendix B), with consistency = "learned".
      "projection": {
        "kernel": 5,  # side of its kernels
        "start": "trained",  # trained by SGD (Eq. 21 to 23), some seconds when a run begins | random
        "trainable": False,  # let it move with the generator
      },
      # A, the linear downsampling that makes x from y.
      "operator": {
        # bicubic (antialiased, a = -0.5) | area | bilinear | gaussian (9x9, sigma 1.5) | module:function
        "kernel": "bicubic",
        "factor": (4, 4),  # rows, columns
        "antialias": True,  # False: bicubic by four taps however much it shrinks, as in many older papers
        "border": "replicate",  # replicate (older MATLAB) | symmetric (newer) | renormalise (PIL)
        # How inputs are rounded, in training too: none | once (to 8 bits) | twice (after each axis, MATLAB)
        "rounding": "twice",
      },
      "data": {
        **SOURCE,
        "crop": (48, 48),  # HR rows and columns of a training example
        # Mirror left and right at random. Of the papers only SRMAP's says so; photographs, faces and textures
        # are as plausible in a mirror, digits are not.
        "flip": True,
        "turn": False,  # turn by 0, 90, 180 or 270 degrees at random
        "max_corrupt": 10,  # records that cannot be read are named, counted and replaced, up to this many
        "cache_mb": 1024,  # decoded images kept in memory
        "threads": 8,
      },
      "eval": {
        "data": {**SOURCE, "split": "test"},
        "limit": 0,  # evaluate only this many images, 0: all
        "samples": 10,  # per image
        # Each has its row in the table: 1 is the model, larger is more diverse. 0 is greedy decoding of a
        # pixel recursive model; other generators get the latent's mean (0, or VarSR's learned prior mean).
        "temperatures": (1.0,),
        "seed": 0,
        "batch": 8,  # images of one size evaluated together
        "border": 4,  # pixels cut from every side before PSNR and SSIM
        "luma": "bt601",  # bt601 (MATLAB's studio swing) | bt709: the Y of psnr_y and ssim_y
        "metrics": ("psnr", "psnr_y", "ssim", "ssim_y", "lr_psnr", "lr_psnr_8bit", "lr_l1", "std"),
        # "best of n" is the sample that is best by this metric; "": each metric takes its own best. Metrics
        # with weights always do.
        "best_by": "",
        # Weights of the metrics lpips, lpips_spatial, lpips_diversity and s_n, and the backbone alone of
        # frechet_squeeze, precision_squeeze and recall_squeeze: files (.npz), and their
        # digests, checked when given.
        "lpips": {
          "net": "squeeze",  # squeeze | alex (NTIRE's) | vgg
          "backbone": "",  # torchvision's SqueezeNet 1.1, AlexNet or VGG-16, under its names
          "backbone_sha256": "",
          "heads": "",  # LPIPS's own linear layers, v0.1/NET/lin0.model.1.weight, ...
          "heads_sha256": "",
        },
        # What the metric embedding sees by: "module:function" of yours, (arrays of the file, images
        # [B, H, W, C] in [0, 1], RGB or grey) -> [B, D], and its .npz file.
        "embedding": {"function": "", "file": "", "sha256": ""},
        # Folder of a run of the method "classifier", whose opinion of the samples becomes columns; "": none.
        "classifier": "",
        "baselines": ("bicubic", "pinv"),  # bicubic | pinv | nearest (of the training set) | swiss_roll_map
        # Folders of other runs with the same operator; each is a row of single samples.
        "beside": (),
        "losses": True,  # the method's own losses on the test set, as columns "loss_..."
        # The same losses with each row's images, the baselines' too, in the place of the truth: columns
        # "sample_loss_...".
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
        "eval_limit": 64,  # how many images these evaluations take, from the first of the test set
        "profile_from": 0,  # round at which a profile of 10 rounds begins, 0: none
        # Of several processes: seconds without a round after which a process prints its stacks and ends the
        # job, 6 times as many while it starts, saves or measures a batch; 0: never.
        "watchdog": 300,
      },
    }
  ).lock()


def _method_sections(
  method: str | Mapping[str, Any], networks: Mapping[str, str | Mapping[str, Any]]
) -> dict[str, Any]:
  """The sections that depend on the method."""
  if isinstance(method, str):
    entry = choose(METHODS, method, "the method")
    keys = {"name": method, **entry["method"]}
  else:
    entry, keys = method, dict(method["method"])
  stages = copy.deepcopy(entry.get("stages", {}))
  for stage in stages.values():
    if "name" in stage["method"]:  # another method, with optimisers of its own
      stage["optim"] = _optimisers(METHODS[stage["method"]["name"]])
  return {
    "method": copy.deepcopy(keys),
    # Which network plays which role, and its keys.
    "networks": {role: _network(net) for role, net in {**entry["networks"], **networks}.items()},
    # One optimiser per trained network, by the same role.
    "optim": _optimisers(entry),
    # Stages that run before, each in a folder of its own: name -> the keys that differ from this config.
    "stages": stages,
    # Where networks come from when a run begins: "ROLE=SOURCE" or "ROLE=SOURCE:ITS_ROLE", the source a stage,
    # the folder of a run, or an .npz file of "params/..." and "batch_stats/..." leaves.
    "init_from": entry.get("init_from", ()),
  }


def _optimisers(entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """Of the networks that a method trains, with the keys that its paper gives."""
  return {role: {**OPTIMISER, **entry.get("optim", {})} for role in entry.get("trained", ("generator",))}


def _network(network: str | Mapping[str, Any]) -> dict[str, Any]:
  if isinstance(network, str):
    return copy.deepcopy({"name": network, **choose(NETWORKS, network, "the network")})
  return copy.deepcopy(dict(network))
