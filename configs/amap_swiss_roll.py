"""The Swiss roll of Amortised MAP Inference (section 5.1): Table 1 by one command, without any data.

  sr-jax sweep --config amap_swiss_roll --workdir runs/table1

Variants: mse, mae, affgan, softgan, affdg, softdg, stochastic (appendix F). Two cores, 10 seeds, 40 to 70
minutes; one run 10 to 60 seconds. To expect, cross-entropy above the MAP value of 2.90 nats: MSE 5.0, MAE
2.2, AffGAN 0.9, SoftGAN 0.6, AffDG 0.5, SoftDG 0.1.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sr_jax.configs import amap

# Rows of Table 1.
ROWS = {
  "mse": "MSE",
  "mae": "MAE",
  "affgan": "AffGAN",
  "softgan": "SoftGAN",
  "affdg": "AffDG",
  "softdg": "SoftDG",
}
SEEDS = 10


def get_config(variant: str = "affgan") -> ConfigDict:
  config = amap.get_config(variant)
  config.networks.generator.update(
    {"widths": (64, 64), "kernel": 1, "skip": 0, "norm": "none", "output": "linear"}
  )
  config.operator.update({"kernel": "area", "factor": (1, 2), "rounding": "none"})
  source = {"name": "swiss_roll", "channels": 1}
  config.data.update({**source, "crop": (), "flip": False})
  config.eval.data.update(source)
  config.eval.update(
    {
      "metrics": ("swiss_roll_nll", "lr_mse", "deviation"),
      "baselines": ("swiss_roll_map",),
      "samples": 10 if variant == "stochastic" else 1,
      "batch": 1000,
      "images": 0,
      "border": 0,
      "losses": False,
    }
  )
  config.train.update({"rounds": 12_000, "batch": 256, "log_every": 1000, "checkpoint_every": 20_000})
  # The paper's rates and nonlinearity are not given. With relu a denoiser leads points far out without end.
  config.networks.generator.activation = "tanh"
  config.optim.generator.update({"learning_rate": 1e-2, "schedule": "cosine", "final": 0.05})
  if config.method.name == "amap_dg":
    # The paper anneals from 0.5: too near for points that begin far from the roll.
    config.method.update({"start": 2.0, "end": 0.25})
    config.networks.prior.update(
      {"widths": (256, 256), "kernel": 1, "norm": "none", "activation": "tanh", "fold": (1, 2)}
    )
    config.stages.prior.train.rounds = 16_000
    config.stages.prior.optim.prior.update({"learning_rate": 1e-3, "schedule": "cosine", "final": 0.05})
    config.optim.generator.learning_rate = 5e-3
  if config.method.name == "amap_gan":
    config.train.update({"rounds": 10_000, "batch": 5 * 256})
    config.method.discriminator_updates = 5
    config.networks.discriminator.update(
      {"widths": (64, 64), "strides": (), "kernel": 1, "norm": "none", "activation": "tanh", "fold": (1, 2)}
    )
    config.method.noise.update({"start": 2.0, "end": 0.1, "anneal": "exponential"})
    config.optim.discriminator.update({"learning_rate": 2e-3, "b1": 0.5})
    config.optim.generator.update({"learning_rate": 2e-3 if variant == "softgan" else 1e-3, "b1": 0.5})
  return config


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  for seed in range(SEEDS):
    for variant, row in ROWS.items():
      yield row, variant, {"seed": seed}
  yield "AffGAN, stochastic", "stochastic", {}
