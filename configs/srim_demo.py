"""SRIM on the embedded photographs, small enough for a first try on a laptop.

  sr-jax train --config srim_demo --workdir runs/demo

Variants: srim, regression (the same network without its noise). Two cores, 5 minutes. To expect on the test
images: RGB PSNR 25.94 dB for a single sample, bicubic 25.56; standard deviation 1.2 grey levels; regression
26.03 dB. With --config.eval.data.split=validation: 26.69 and 25.57 dB.

Everything but the objective is smaller than the paper's: a network that works at the input's resolution,
8 candidates, pixels as features, crops of 48, and a first part without noise.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sr_jax.configs import base, derive
from sr_jax.errors import choose

VARIANTS = {"srim": lambda config: config, "regression": derive.regression_of}


def get_config(variant: str = "srim") -> ConfigDict:
  change = choose(VARIANTS, variant, "--config NAME:VARIANT")
  config = base.get_config("srim", generator="srresnet")
  config.networks.generator.update(
    {"blocks": 3, "outer_kernel": 3, "norm": "none", "tail": "direct", "residual": True, "noise_channels": 3}
  )
  config.consistency = "project"
  config.method.update(
    {"candidates": 8, "chunk": 8, "minibatch": 16, "inner_rounds": 56, "warmup_rounds": 3200}
  )
  config.method.features.layers = ()
  config.train.update({"batch": 128, "rounds": 8000, "log_every": 200, "checkpoint_every": 1600})
  config.optim.generator.update({"learning_rate": 1e-3, "schedule": "cosine"})
  return change(config)


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  yield "SRIM", "srim", {}
