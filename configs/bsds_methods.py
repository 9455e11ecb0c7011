"""The methods that suit photographs beside each other, with one network and from one start; tested on bsd100.

  export SR_JAX_TRAIN_DIR=bsds400:t91 SR_JAX_TEST_DIR=bsd100/hr SR_JAX_TEST_LR_DIR=bsd100/lr
  export SR_JAX_VGG19=vgg19.npz        # normalised weights, conv1_1 to conv2_2: docs/metrics.md, Weight files
  sr-jax sweep --config bsds_methods --workdir runs/bsds --config.eval.limit=25 --config.eval.samples=5 \\
      --config.eval.lpips.backbone=squeezenet1_1.npz --config.eval.lpips.heads=lpips_linear.npz

SRMAP's small generator learns the median first (L1); each method goes on from it. Variants: l1, regression
(phi, the pixels and conv2_2, of one candidate), srim_pixels, srim (phi), affgan, affdg, affll, srmap. A
shared core, 10 to 60 minutes a trial, L1 longer. To expect of 25 images, LPIPS (SqueezeNet's): L1 .276,
regression and srim .245, projected and by means .236 with a deviation of 0.65 grey levels, AffGAN .178
(6 minutes on two cores; its loss stays at log 4), AffDG .308, AffLL .257.
"""

from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict

from sr_jax.configs import base, srmap_bsds
from sr_jax.errors import choose

ROUNDS, RATE = 1500, 2e-4


def _phi(config: ConfigDict, layers: tuple[str, ...] = ("conv2_2",)) -> None:
  features = {"layers": layers, "file": "$SR_JAX_VGG19", "padding": "reflect"}
  config.method.features.update(features)


def _srim(config: ConfigDict, candidates: int = 8) -> None:
  config.method.update({"candidates": candidates, "chunk": min(4, candidates), "minibatch": 8})
  # A pool of 64: 8 rounds choose latents for it, 56 descend.
  config.train.update({"batch": 64, "rounds": ROUNDS * 64 // 56})
  config.method.inner_rounds = 56
  _phi(config)


def _regression(config: ConfigDict) -> None:
  # One candidate leaves nothing to choose: the network learns to do without its latents.
  _srim(config, candidates=1)


def _srim_pixels(config: ConfigDict) -> None:
  _srim(config)
  _phi(config, ())


def _affgan(config: ConfigDict) -> None:
  # SRMAP's critic and rates: with the paper's discriminator, which strides in every layer, and noise from 0.1
  # the images became worse than bicubic.
  gan = srmap_bsds.get_config()
  config.consistency = "project"
  for role, like in (("generator", "generator"), ("discriminator", "critic")):
    config.optim[role] = gan.optim[like]
  config.networks.discriminator.update({**gan.networks.critic})
  config.average = gan.average
  # With the paper's noise of 0.1 this critic's loss stayed at log 4: the images begin close to real ones, and
  # the noise hides the difference.
  config.method.noise.start = 0.0


def _guided(config: ConfigDict, rate: float) -> None:
  """By a prior that a stage trains at this rate."""
  config.consistency = "project"
  config.optim.generator.learning_rate = 1e-4
  config.train.rounds = config.stages.prior.train.rounds = 1000
  config.stages.prior.optim.prior.update({"learning_rate": rate, "schedule": "cosine"})


def _affdg(config: ConfigDict) -> None:
  _guided(config, 1e-3)
  config.networks.prior.update({"widths": (64,) * 3, "norm": "none", "residual": True})
  # With noise from 0.2 to 0.05 and a rate of 2e-4 the generator left the images that its denoiser knows.
  config.method.update({"start": 0.5, "end": 0.1})


def _affll(config: ConfigDict) -> None:
  _guided(config, 2e-3)
  # As on grass, where batch normalisation made densities worse; half of the feature maps, for the time.
  config.networks.prior.update({"width": 32, "norm": "none"})
  config.stages.prior.optim.prior.clip = 1.0


# Row of the table, method, and what changes the keys of all.
VARIANTS: dict[str, tuple[str, str, Callable[[ConfigDict], None]]] = {
  "regression": ("regression, conv2_2", "srim", _regression),
  "srim_pixels": ("SRIM, pixels", "srim", _srim_pixels),
  "srim": ("SRIM, conv2_2", "srim", _srim),
  "affgan": ("AffGAN", "amap_gan", _affgan),
  "affdg": ("AffDG", "amap_dg", _affdg),
  "affll": ("AffLL", "amap_ll", _affll),
}


def _base(method: str) -> ConfigDict:
  networks = {"discriminator": "srmap_critic"} if method == "amap_gan" else {}
  return base.get_config(method, generator="srmap", **networks)


def get_config(variant: str = "srim") -> ConfigDict:
  if variant in ("l1", "srmap"):
    return srmap_bsds.get_config(variant)
  _, method, change = choose(VARIANTS, variant, "--config NAME:VARIANT")
  like, config = srmap_bsds.get_config("l1"), _base(method)
  for section in ("operator", "data", "eval", "train"):
    config[section] = like[section]
  config.networks.generator = like.networks.generator
  config.train.update({"rounds": ROUNDS, "batch": 8})
  for optim in config.optim.values():
    optim.update({"learning_rate": RATE, "schedule": "cosine", "clip": 1.0})
  change(config)
  return config


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  l1 = "generator={workdir}/L1"
  start = {"init_from": (l1,)}
  yield "L1", "l1", {}
  for variant, (row, _, _) in VARIANTS.items():
    yield row, variant, {"init_from": (l1, *get_config(variant).init_from)}
  projected = {"consistency": "project", "method.features.distance": "mean"}
  yield "SRIM, conv2_2 by means, projected", "srim", start | projected
  yield "SRMAP", "srmap", start
