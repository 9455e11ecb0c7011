"""Pixel recursive super-resolution with and without the conditioning network's own loss: Eq. 8 and Eq. 7.

  export SR_JAX_DATA_DIR=celeba_10k_89x109/images
  sr-jax sweep --config prsr_ablation --workdir runs/prsr_ablation

Variants as in prsr_celeba, at the size of prsr_celeba_cpu; each trial has a row for every temperature. Two
cores, 50 minutes a trial; not run yet.
"""

from collections.abc import Iterator
from typing import Any

from sr_jax.configs import prsr_celeba_cpu

get_config = prsr_celeba_cpu.get_config


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  for equation, weight in ((7, 0.0), (8, 1.0)):
    yield f"PRSR, Eq. {equation}", "prsr", {"method.conditioning_weight": weight}
