"""Runs small enough to train in a test."""

import contextlib
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_jax.configs import base
from sr_jax.configs.papers import NETWORKS
from sr_jax.networks import make_network

# Environment of a program with one of the devices that conftest.py simulates.
ONE_DEVICE = {"XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=1")}
# (input, squeeze, expand) of each Fire module of SqueezeNet 1.1, by its number.
FIRES = {
  **{3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)},
  **{9: (256, 48, 192), 10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)},
}


# A config file of a user's, the Swiss roll cut to seconds, to which a test adds its sweep().
ROLL = """
from sr_jax.configs import amap_swiss_roll


def get_config(variant="mse"):
  config = amap_swiss_roll.get_config(variant)
  config.networks.generator.widths = (8,)
  config.train.update({"rounds": 4, "batch": 20, "log_every": 2, "checkpoint_every": 2})
  config.eval.update({"limit": 8, "batch": 8})
  return config


"""


def squeezenet(rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Random weights of SqueezeNet 1.1 under torchvision's names."""

  def conv(inputs: int, outputs: int, size: int) -> np.ndarray:
    return (rng.normal(size=(outputs, inputs, size, size)) / np.sqrt(inputs * size**2)).astype(np.float32)

  arrays = {"features.0.weight": conv(3, 64, 3), "features.0.bias": rng.normal(size=64).astype(np.float32)}
  for i, (inputs, squeeze, expand) in FIRES.items():
    for part, shape in (
      ("squeeze", (inputs, squeeze, 1)),
      ("expand1x1", (squeeze, expand, 1)),
      ("expand3x3", (squeeze, expand, 3)),
    ):
      arrays[f"features.{i}.{part}.weight"] = conv(*shape)
      arrays[f"features.{i}.{part}.bias"] = 0.1 * rng.normal(size=shape[1]).astype(np.float32)
  return arrays


def replace_python(script: str, folder: Path, monkeypatch) -> None:
  """Let this shell script, written into the folder, run instead of the Python that starts programs."""
  program = folder / "python"
  program.write_text(f"#!/bin/sh\n{script}\n")
  program.chmod(0o755)
  monkeypatch.setattr("sys.executable", str(program))


@contextlib.contextmanager
def largest_file(size: int):
  """As on a full disk, writing more raises an error, of this process alone and without a disk of its own."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_images(folder: Path, count: int = 6, size: tuple[int, int] = (24, 32)) -> Path:
  """Smooth random images as PNG files."""
  folder.mkdir(parents=True)
  rng = np.random.default_rng(0)
  for i in range(count):
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    small.resize(size[::-1], Image.Resampling.BICUBIC).save(folder / f"{i}.png")
  return folder


def get_config():
  """A tiny SRIM run; `dir` comes from the environment."""
  config = base.get_config("srim", generator="srresnet")
  config.networks.generator.update(
    {"width": 8, "blocks": 1, "outer_kernel": 3, "tail": "direct", "noise_channels": 1}
  )
  config.method.features.layers = ()
  config.method.update({"candidates": 2, "chunk": 2, "minibatch": 4, "inner_rounds": 5})
  config.data.update({"name": "folder", "dir": "$SR_JAX_TRAIN_DIR", "crop": (16, 16)})
  config.eval.data.update({"name": "folder", "dir": "$SR_JAX_TRAIN_DIR"})
  config.eval.update({"samples": 3, "border": 2, "images": 2, "batch": 4})
  # These compile fast; a test that is about tables asks for what it needs.
  config.eval.update({"metrics": ("psnr", "lr_psnr", "std"), "baselines": ()})
  config.train.update({"batch": 8, "rounds": 20, "log_every": 5, "checkpoint_every": 4})
  return config


def tiny(name: str):
  """A preset of each method that compiles in seconds; a new method adds its own lines."""
  config = base.get_config(name)
  config.data.crop = (16, 16)
  config.train.update({"batch": 8, "rounds": 6})
  config.consistency = "project"
  for optim in config.optim.values():
    optim.learning_rate = 1e-2
  if "snapshots" in config.method:
    config.method.snapshots = 2
  small = {
    "srresnet": {"width": 8, "blocks": 1, "outer_kernel": 3},
    "srim": {"width": 8, "layers": 3, "kernel": 3},
    "convnet": {"widths": (8, 8)},
    "discriminator": {"widths": (4, 4), "strides": (2, 2)},
    "denoiser": {"widths": (8,)},
    "density": {"width": 6, "layers": 2, "components": 2, "quadratic": 2, "scales": 2},
    "encoder": {"width": 6, "layers": 1, "latent_size": 4},
    "critic": {"widths": (4,), "head": 4},
    "classifier": {"widths": (4,)},
    "srmap": {"stem": 4, "width": 8, "stages": 1, "blocks": 2, "widths": (4, 4)},
    "srmap_critic": {"widths": (4, 4), "head": 4},
    "conditioning": {"width": 6, "blocks": 1},
    "pixel_recursive": {
      "conditioning": {"width": 6, "blocks": 1},
      "prior": {"width": 6, "layers": 1, "kernel": 3, "first_kernel": 3, "head": 8},
    },
  }
  for network in config.networks.values():
    network.update(small[network.name])
  if name == "srim":
    config.method.update({"minibatch": 4, "inner_rounds": 3, "candidates": 4, "chunk": 2})
    # A frozen network, narrow and with its placeholder weights: the file is not read here.
    config.method.features.update({"file": "vgg.npz", "width": 2, "layers": ("conv2_2",)})
  if name in ("varsr", "mr_gan"):
    config.networks.generator.norm = "batch"  # with which images can be made in tiles
  if name == "mr_gan":
    config.method.samples = 3
    config.networks.generator.latent_size = 4
  if name == "varsr":
    config.method.features.layers = ()
    config.networks.generator.latent_size = 4
    config.networks.posterior.fold = (4, 4)
  if name == "amap_gan":
    config.networks.generator.noise_channels = 1
    config.method.discriminator_updates = 2
  return config


def plain_descent(name: str):
  """`tiny` with plain gradient descent: Adam would hide a gradient too large, and magnify rounding."""
  config = tiny(name)
  rates = {"srim": 1e-3, "amap_dg": 1e-6, "amap_ll": 1e-6, "varsr": 1e-3, "mr_gan": 1e-5, "srmap": 1e-3}
  for optim in config.optim.values():
    optim.update({"name": "sgd", "learning_rate": rates.get(name, 1e-2)})
  return config


def same_numbers(ours: dict[str, float], theirs: dict[str, float]) -> bool:
  """Whether two rows of metrics agree; the lr_psnr of A+x is rounding alone, which differs by program."""
  loose = {"lr_psnr": {"rel": 1e-2}, "lr_l1": {"rel": 1e-3, "abs": 1e-7}}
  return ours.keys() == theirs.keys() and all(
    ours[name] == pytest.approx(value, **loose.get(name, {"rel": 1e-3, "abs": 1e-6}))
    for name, value in theirs.items()
  )


def batch(seed: int = 0) -> dict[str, np.ndarray]:
  """What `tiny` trains on: 8 images of 16x16."""
  hr = np.random.default_rng(seed).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
  numbers = np.arange(len(hr), dtype=np.int32)
  return {"hr": hr, "index": numbers, "mask": np.ones(len(hr), bool), "label": numbers % 10}


def network(name: str, factor=(4, 4), channels: int = 3, dtype: str = "float32", **keys):
  """The network of that name with its papers' keys but for those given."""
  config = base.get_config(network={"name": name, **NETWORKS[name], **keys})
  config.operator.factor = factor
  config.data.channels = channels
  config.dtype = dtype
  return make_network(config, "network")
