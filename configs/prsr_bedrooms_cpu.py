"""Bedrooms 8x8 to 32x32 on a CPU: Pixel Recursive Super Resolution, small networks, a folder of pictures.

  export SR_JAX_DATA_DIR=bedrooms
  sr-jax sweep --config prsr_bedrooms_cpu --workdir runs/prsr_bedrooms_cpu

Variants as in prsr_bedrooms.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sr_jax.configs import prsr_celeba, prsr_celeba_cpu


def get_config(variant: str = "prsr") -> ConfigDict:
  config = prsr_celeba_cpu.get_config(variant)
  for source, split in ((config.data, "[:-60]"), (config.eval.data, "[-60:]")):
    source.update({"split": split, "centre": ()})
  config.train.rounds = 500
  return config


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  yield from prsr_celeba.sweep()
