"""Instance noise of Amortised MAP Inference (section 3.2.1, appendix C), on and off, on the Swiss roll.

  sr-jax sweep --config amap_instance_noise --workdir runs/instance_noise

Variants as in amap_swiss_roll, whose own anneal is exponential. Two cores, 16 runs of about a minute. To
expect, nats above the MAP value: without noise 0.9 to 5.2, for training is unstable; linear 1.4; linear to 0
1.5; constant loss 0.8; amap_swiss_roll's exponential 0.9.
"""

from collections.abc import Iterator
from typing import Any

from sr_jax.configs import amap_swiss_roll

get_config = amap_swiss_roll.get_config

ANNEALS: dict[str, dict[str, Any]] = {
  "none": {"start": 0.0, "end": 0.0, "anneal": "linear"},
  "linear": {"anneal": "linear"},  # to Table 1's 0.1
  "linear to 0": {"anneal": "linear", "end": 0.0},
  "constant loss": {"anneal": "constant_loss", "target": 0.8, "rate": 0.002},
}
SEEDS = 4


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  for seed in range(SEEDS):
    for name, keys in ANNEALS.items():
      noise = {f"method.noise.{key}": value for key, value in keys.items()}
      yield f"AffGAN, noise {name}", "affgan", {"seed": seed, **noise}
