"""The weight of VarSR's KL divergence, on digits: KL, deviation and the best of five beside it.

  sr-jax prepare mnist_idx --from FOLDER_OF_IDX_FILES
  sr-jax sweep --config varsr_kl --workdir runs/varsr_kl

Variants as in varsr_mnist; the sweep is of varsr-aliased, whose inputs leave the digit in doubt. One H100
that 15 trainings share, 3 minutes a trial; two cores, 8 for 1,000 of the 2,500 rounds of two at once
(--jobs 2). To expect: with a weight of 0.01 13.7 nats, best of five 17.89 dB; with 0.03 5.2 nats, 18.07 dB;
with 1 the latent is not used (0.008 nats, 17.49 dB); with 0 samples mean nothing (11.31 dB). The
deterministic network has 17.61 dB.
"""

from collections.abc import Iterator
from typing import Any

from sr_jax.configs import derive, varsr_mnist

get_config = varsr_mnist.get_config


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  weights = (0.0, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
  yield from derive.grid({"method.kl_weight": weights}, "VarSR", "varsr-aliased")
