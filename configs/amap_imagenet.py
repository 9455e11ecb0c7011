"""ImageNet 32x32 to 128x128, Amortised MAP Inference section 5.5 and Figures 5 and 8, at the paper's sizes.

  sr-jax prepare imagenet2012                 # needs TensorFlow and ImageNet's archives, once
  sr-jax train --config amap_imagenet --workdir runs/amap_imagenet

Variants as in amap_celeba. For one GPU; two rounds and the GPU benchmark were run. The paper shows images and
no numbers, and gives no batch size, learning rate or length of training: those here are ours. It used 10,000
images of its own choice to test; here they are TFDS's validation split.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sr_jax.configs import amap_celeba


def get_config(variant: str = "affgan") -> ConfigDict:
  config = amap_celeba.get_config(variant)
  config.networks.generator.update({"widths": (128,) * 4 + (256,) * 4, "skip": 2})
  for source in (config.data, config.eval.data):
    source.update(
      {"name": "imagenet2012", "dir": "", "min_bytes": 20_000, "centre": (), "resize": (128, 128)}
    )
  config.data.split, config.eval.data.split = "train", "validation[:10000]"
  config.train.rounds = 300_000
  return config


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  yield "AffGAN", "affgan", {}
