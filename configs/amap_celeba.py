"""Faces 16x16 to 64x64 at the paper's sizes: Amortised MAP Inference, Table 2 and Figures 2 and 4.

  export SR_JAX_TRAIN_DIR=celeba/train SR_JAX_TEST_DIR=celeba/test    # aligned images, 178x218
  sr-jax train --config amap_celeba:affgan --workdir runs/amap_celeba

Variants: mse, affmse, softgan, affgan (Table 2); stochastic (appendix F); affmse_fixed_random,
affmse_trainable_trained, affmse_trainable_random, affmse_fixed_trained (Figure 2, with the learned A+).
`sr-jax sweep --config amap_celeba --workdir FOLDER` runs Table 2, amap_celeba_cpu a smaller version of it.

For one GPU; three rounds and the GPU benchmark were run. The paper's Table 2: SSIM 0.90, 0.91, 0.76, 0.81
and PSNR 26.30, 26.53, 21.11, 23.02 dB for MSE, AffMSE, SoftGAN and AffGAN. It gives no batch size, learning
rate, length of training or soft weight: those here are ours.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sr_jax.configs import amap

# Rows of Table 2.
ROWS = {"mse": "MSE", "affmse": "AffMSE", "softgan": "SoftGAN", "affgan": "AffGAN"}


def get_config(variant: str = "affgan") -> ConfigDict:
  config = amap.get_config(variant)
  config.networks.generator.update({"widths": (128,) * 4 + (256,) * 4 + (512,) * 4, "skip": 4})
  config.operator.update({"kernel": "gaussian", "rounding": "none"})
  # The centre of a 178x218 image that holds the face.
  for source in (config.data, config.eval.data):
    source.update({"name": "folder", "centre": (128, 128), "resize": (64, 64)})
  config.data.update({"dir": "$SR_JAX_TRAIN_DIR", "crop": ()})
  config.eval.data.dir = "$SR_JAX_TEST_DIR"
  config.eval.update({"border": 0, "samples": 1, "batch": 16, "metrics": ("ssim", "psnr", "mse", "lr_mse")})
  config.train.update({"rounds": 100_000, "log_every": 500})
  if config.method.name == "amap_gan":
    config.networks.discriminator.update(
      {"widths": (128, 128, 256, 256, 512, 512, 1024, 1024), "strides": (1, 2) * 4}
    )
    config.optim.generator.b1 = config.optim.discriminator.b1 = 0.5
  return config


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  for variant, row in ROWS.items():
    yield row, variant, {}
