"""The weight of VarSR's KL divergence, on digits: KL, deviation and the best of five beside it.

  sr-jax prepare mnist_idx --from FOLDER_OF_IDX_FILES
  sr-jax sweep --config varsr_kl --workdir runs/varsr_kl

Inputs by four taps (varsr_mnist:varsr-aliased), which leave the digit in doubt. Two cores, 8 minutes for two
trials at once (--jobs 2). To expect after 1,000 rounds: with a weight of 0.01 12.9 nats, best of five 17.16
dB; with 1 the latent is not used (0.02 nats, 16.61 dB); with 0 samples mean nothing (10.61 dB).
"""

from collections.abc import Iterator
from typing import Any

from sr_jax.configs import derive, varsr_mnist

get_config = varsr_mnist.get_config


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  weights = (0.0, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
  yield from derive.grid({"method.kl_weight": weights}, "VarSR", "varsr-aliased")
