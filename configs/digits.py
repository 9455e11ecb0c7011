"""Every paper's method on the 8x8 digits inside scikit-learn, from inputs of 2x2: minutes, no data.

  sr-jax sweep --config digits --workdir runs/digits

Variants: classifier (the judge of the others' samples), regression, srim, affgan (stochastic, Amortised MAP's
appendix F), prsr, varsr, srmap (with a term that asks two samples to differ). Two idle cores, 9 min
37 s. To expect: regression 14.4 dB, SRIM's best of 5 14.1 to 14.5; 2.6 to 3.1 classes among five samples;
PRSR 1.73 bits.
"""

from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict

from sr_jax.configs import base, derive
from sr_jax.errors import choose


def get_config(variant: str = "srim") -> ConfigDict:
  _, method, change = choose(VARIANTS, variant, "--config NAME:VARIANT")
  networks = {"generator": "srresnet"} if method == "srim" else {}
  config = base.get_config(method, **networks)
  for source in (config.data, config.eval.data):
    source.update({"name": "digits", "channels": 1})
  config.data.update({"crop": (8, 8), "flip": False})
  config.eval.update(
    {
      "metrics": ("psnr", "lr_psnr_8bit", "std", "s_n_mse"),
      "baselines": ("bicubic", "nearest"),
      "samples": 5,
      "border": 0,
      "batch": 128,
      "losses": False,
    }
  )
  config.train.update({"rounds": 1500, "batch": 64, "log_every": 250, "checkpoint_every": 2000})
  for optim in config.optim.values():
    optim.update({"learning_rate": 2e-3, "schedule": "cosine", "clip": 1.0})
  if "generator" in config.networks and config.networks.generator.name == "srresnet":
    # All that it computes is at 2x2, where it costs little.
    config.networks.generator.update(
      {"width": 32, "blocks": 2, "outer_kernel": 3, "norm": "none", "tail": "direct", "noise_scale": 1.0}
    )
  change(config)
  return config


def _classifier(config: ConfigDict) -> None:
  config.networks.classifier.widths = (32, 64)
  config.eval.update({"metrics": ("mse",), "baselines": (), "images": 0, "losses": True})
  config.train.rounds = 600


def _srim(config: ConfigDict) -> None:
  config.networks.generator.noise_channels = 8
  config.method.update({"candidates": 16, "chunk": 16, "minibatch": 64, "inner_rounds": 120})
  config.method.features.layers = ()
  config.train.update({"rounds": 3072, "batch": 512})


def _affgan(config: ConfigDict) -> None:
  config.consistency = "project"
  config.networks.generator.update({"widths": (64, 64, 64, 64), "noise_channels": 8, "noise_scale": 1.0})
  config.networks.discriminator.update(
    {"widths": (32, 64, 64), "strides": (2, 2, 1), "activation": "leaky_relu"}
  )
  config.method.noise.update({"start": 0.3, "end": 0.05})
  for optim in config.optim.values():
    optim.update({"learning_rate": 1e-3, "b1": 0.5})


def _prsr(config: ConfigDict) -> None:
  config.networks.generator.conditioning.update({"width": 16, "blocks": 1, "stddev": 0.0, "norm": "none"})
  config.networks.generator.prior.update(
    {"width": 16, "layers": 4, "kernel": 3, "first_kernel": 5, "head": 64, "stddev": 0.0}
  )
  config.eval.losses = True  # bits per dimension
  config.train.update({"rounds": 2000, "batch": 32})


def _varsr(config: ConfigDict) -> None:
  config.networks.generator.latent_size = 16
  for role, fold in (("posterior", (4, 4)), ("prior", (1, 1))):
    config.networks[role].update({"latent_size": 16, "fold": fold, "norm": "none", "layers": 2})
  config.networks.critic.update({"widths": (32, 64), "head": 64})
  config.method.kl_weight = 0.005
  config.method.features.layers = ()  # VGG-19 sees RGB
  derive.keep_optimisers(config, "pixel")
  config.stages.pixel.train.rounds = 1200
  config.train.rounds = 300
  for optim in config.optim.values():
    optim.learning_rate = 2e-4


def _srmap(config: ConfigDict) -> None:
  config.networks.generator.update(
    {"stem": 32, "width": 32, "stages": 1, "blocks": 3, "ratio": 1, "widths": (16, 16)}
  )
  config.networks.critic.update({"widths": (16, 32), "ratio": 1, "head": 64})
  derive.keep_optimisers(config, "l1", "generator")
  config.stages.l1.train.rounds = 500
  config.train.rounds = 1200
  config.method.update({"fidelity_weight": 10.0, "r1_weight": 0.1, "r1_every": 4, "diversity_weight": 0.1})
  for optim in config.optim.values():
    optim.update({"learning_rate": 1e-3, "b1": 0.5, "b2": 0.99})


# Row of the table, method, and what changes the keys of all.
VARIANTS: dict[str, tuple[str, str, Callable[[ConfigDict], None]]] = {
  "classifier": ("classifier", "classifier", _classifier),
  "regression": ("regression", "regression", lambda config: None),
  "srim": ("SRIM", "srim", _srim),
  "affgan": ("AffGAN", "amap_gan", _affgan),
  "prsr": ("PRSR", "pixel_recursive", _prsr),
  "varsr": ("VarSR", "varsr", _varsr),
  "srmap": ("SRMAP", "srmap", _srmap),
}


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  for variant, (row, _, _) in VARIANTS.items():
    yield row, variant, {} if variant == "classifier" else {"eval.classifier": "{workdir}/classifier"}
