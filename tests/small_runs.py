"""Runs small enough to train in a test."""

from pathlib import Path

import numpy as np
from PIL import Image

from sr_jax.configs import base


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
  config = base.get_config("srim", "srresnet")
  config.network.update({"width": 8, "blocks": 1, "outer_kernel": 3, "tail": "direct", "noise_channels": 1})
  config.method.update({"candidates": 2, "chunk": 2, "minibatch": 4, "inner_rounds": 5})
  config.data.update({"name": "folder", "dir": "$SR_JAX_TRAIN_DIR", "crop": (16, 16)})
  config.eval.data.update({"name": "folder", "dir": "$SR_JAX_TRAIN_DIR"})
  config.eval.update({"samples": 3, "border": 2, "images": 2, "batch": 4})
  config.train.update({"batch": 8, "rounds": 20, "log_every": 5, "checkpoint_every": 4})
  return config
