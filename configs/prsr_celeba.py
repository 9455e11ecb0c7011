"""Faces 8x8 to 32x32 at the paper's sizes: Pixel Recursive Super Resolution, Table 1 and Figures 1, 5 and 6.

  export SR_JAX_TRAIN_DIR=celeba/train SR_JAX_TEST_DIR=celeba/test    # aligned images, 178x218
  sr-jax sweep --config prsr_celeba --workdir runs/prsr_celeba

Variants: prsr, regression, cross_entropy. For GPUs (the paper: 8, 200,000 rounds); a few rounds were run on a
CPU, its steps timed on a GPU. The paper's Table 1, wrapped PSNR / SSIM / MS-SSIM / consistency: bicubic 28.92
/ 0.84 / 0.76 / 0.006, regression 29.16 / 0.90 / 0.90 / 0.004, tau = 1.1 29.08 / 0.84 / 0.85 / 0.008.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sr_jax.configs import prsr

# Rows of Table 1.
ROWS = {"prsr": "PRSR", "regression": "Regression"}


def get_config(variant: str = "prsr") -> ConfigDict:
  config = prsr.get_config(variant)
  # The centre of a 178x218 image that holds the face.
  for source in (config.data, config.eval.data):
    source.update({"name": "folder", "centre": (128, 128), "resize": (32, 32)})
  config.data.update({"dir": "$SR_JAX_TRAIN_DIR", "crop": ()})
  config.eval.data.dir = "$SR_JAX_TEST_DIR"
  config.eval.update({"batch": 32, "baselines": ("bicubic", "nearest")})
  config.train.log_every = 500
  return config


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  for variant, row in ROWS.items():
    yield row, variant, {}
