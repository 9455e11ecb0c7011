"""Grass 16x16 to 64x64, Amortised MAP Inference section 5.3 and Figures 3 and 7, with the paper's networks.

  export SR_JAX_TRAIN_DIR=grass/train SR_JAX_TEST_DIR=grass/test      # photographs of grass
  sr-jax train --config amap_grass:affgan --workdir runs/amap_grass

Variants: affinit (untrained), affmse, affgan, affdg, affll. `sr-jax sweep --config amap_grass --workdir
FOLDER` runs them all, amap_grass_cpu a shorter version.

For one GPU; its networks were timed there, not trained. The paper shows images, AffGAN's being the sharpest,
and a density of 4.10 bits per dimension. It gives no batch size, learning rate or length of training: those
here are ours.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sr_jax.configs import amap

# Panels of Figure 3.
ROWS = {"affinit": "AffInit", "affmse": "AffMSE", "affgan": "AffGAN", "affdg": "AffDG", "affll": "AffLL"}


def get_config(variant: str = "affgan") -> ConfigDict:
  config = amap.get_config("affmse" if variant == "affinit" else variant)
  config.operator.update({"kernel": "gaussian", "rounding": "none"})
  for source in (config.data, config.eval.data):
    source.name = "folder"
  config.data.update({"dir": "$SR_JAX_TRAIN_DIR", "crop": (64, 64)})
  config.eval.data.dir = "$SR_JAX_TEST_DIR"
  config.eval.update({"border": 0, "samples": 1, "metrics": ("ssim", "psnr", "mse", "lr_mse")})
  config.train.update({"rounds": 50_000, "log_every": 500})
  if variant == "affinit":
    config.train.rounds = 1
    config.optim.generator.learning_rate = 0.0
  if config.method.name == "amap_gan":
    config.optim.generator.b1 = config.optim.discriminator.b1 = 0.5
  return config


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  for variant, row in ROWS.items():
    yield row, variant, {}
