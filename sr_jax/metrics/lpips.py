"""LPIPS, the learned perceptual distance (Zhang et al., arXiv 1801.03924), from plain weight files.

Samples and truths are taken as 8-bit files would hold them, without the border. LPIPS is the squared
difference of features of unit length, weighted by channel, averaged over positions and summed over layers.
Lower is more alike.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sr_jax.errors import UserError, choose
from sr_jax.metrics.diversity import diversity_scores
from sr_jax.metrics.protocol import Array, Batch, Protocol, as_saved, crop
from sr_jax.networks.backbones import BACKBONES, Backbone, make_backbone
from sr_jax.networks.weights import read_arrays
from sr_jax.ops.colour import quantise

KEY = "config.eval.lpips"
WITHOUT = "take lpips, s_n, frechet_squeeze and their like out of config.eval.metrics"
# Normalisation of RGB in [-1, 1], as in the authors' code.
SHIFT, SCALE = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])


def read_lpips(settings: ConfigDict) -> dict[str, Any]:
  """The weights that `config.eval.lpips` names: {"backbone": a `Backbone`, "heads": [C] of each layer}.

  Raises:
    UserError: a file is not named, missing, another than its digest says, or holds something else.
  """
  settings = settings.lpips
  backbone = read_backbone(settings)
  heads = read_arrays(settings.heads, f"{KEY}.heads", settings.heads_sha256, WITHOUT)
  try:
    prefix = f"v0.1/{settings.net}/lin"
    count = sum(name.startswith(prefix) for name in heads)
    rows = [heads[f"{prefix}{i}.model.1.weight"].astype(np.float32).reshape(-1) for i in range(count)]
    if not rows:
      raise KeyError(prefix)
  except KeyError as error:
    raise _lacking(settings, error) from error
  return {"backbone": backbone, "heads": rows}


def read_backbone(settings: ConfigDict) -> Backbone:
  """The network that `settings`, here `config.eval.lpips`, names; raises UserError as `read_lpips`."""
  choose(BACKBONES, settings.net, f"{KEY}.net")
  arrays = read_arrays(settings.backbone, f"{KEY}.backbone", settings.backbone_sha256, WITHOUT)
  try:
    return make_backbone(settings.net, arrays)
  except KeyError as error:
    raise _lacking(settings, error) from error


def _lacking(settings: ConfigDict, error: KeyError) -> UserError:
  return UserError(
    f"The files of config.eval.lpips lack {error}: give {settings.net}'s weights under torchvision's "
    "names, and LPIPS's heads as v0.1/NET/linN.model.1.weight."
  )


def standardise(images: Array) -> Array:
  """RGB in [0, 1] as the networks were trained on it."""
  return (2 * images - 1 - SHIFT) / SCALE


def lpips_distance(weights: dict[str, Any], a: Array, b: Array) -> Array:
  """LPIPS of images [B, H, W, 3] in [0, 1] -> [B]."""
  return jnp.stack([part.mean((1, 2)) for part in _layers(weights, a, b)]).sum(axis=0)


def lpips_map(weights: dict[str, Any], a: Array, b: Array) -> Array:
  """LPIPS at every pixel: images [B, H, W, 3] in [0, 1] -> [B, H, W].

  Each layer's distances are enlarged bilinearly to the image (pixel centres at halves, edges repeated) and
  added up, as with `spatial=True` in the authors' code. Its mean is not quite `lpips_distance`, because
  enlarging does not give every position of a layer the same weight.
  """
  parts = _layers(weights, a, b)
  return jnp.stack([jax.image.resize(part, a.shape[:3], "bilinear") for part in parts]).sum(axis=0)


def _layers(weights: dict[str, Any], a: Array, b: Array) -> list[Array]:
  """The weighted squared distances [B, h, w] of each layer's features."""
  if a.shape[-1] != 3:
    raise UserError(
      "LPIPS sees RGB: take lpips out of config.eval.metrics, or set config.data.channels to 3."
    )
  backbone: Backbone = weights["backbone"]
  if min(a.shape[1:3]) < backbone.least:
    raise UserError(
      f"LPIPS needs {backbone.least}x{backbone.least} pixels and eval.border leaves "
      f"{a.shape[1]}x{a.shape[2]}: set a smaller border or take lpips out of config.eval.metrics."
    )
  layers = [backbone.features(standardise(v)) for v in (a, b)]
  unit = [[f / (jnp.linalg.norm(f, axis=-1, keepdims=True) + 1e-10) for f in part] for part in layers]
  return [jnp.sum(head * (p - q) ** 2, axis=-1) for head, p, q in zip(weights["heads"], *unit, strict=True)]


def lpips(samples: Array, batch: Batch, protocol: Protocol, weights: dict[str, Any]) -> Array:
  """LPIPS between a sample and the truth: samples [n, B, H, W, 3] -> [n, B]."""
  images, truths = as_saved(samples, batch, protocol)
  return jax.lax.map(lambda one: lpips_distance(weights, one, truths), images)


def lpips_diversity(samples: Array, batch: Batch, protocol: Protocol, weights: dict[str, Any]) -> Array:
  """Mean LPIPS between all pairs of an input's samples (Zhu et al., BicycleGAN, 2017) -> [B]; of one 0."""
  images = quantise(crop(samples, protocol))
  pairs = list(itertools.combinations(range(len(samples)), 2))
  if not pairs:
    return jnp.zeros(samples.shape[1])
  first, second = jnp.asarray(pairs).T
  return jax.lax.map(lambda ij: lpips_distance(weights, images[ij[0]], images[ij[1]]), (first, second)).mean(
    0
  )


def lpips_maps(samples: Array, batch: Batch, protocol: Protocol, weights: dict[str, Any]) -> Array:
  """`lpips_map` between each sample and the truth: samples [n, B, H, W, 3] -> [n, B, H', W'], no border."""
  images, truths = as_saved(samples, batch, protocol)
  return jax.lax.map(lambda one: lpips_map(weights, one, truths), images)


def lpips_spatial(samples: Array, batch: Batch, protocol: Protocol, weights: dict[str, Any]) -> Array:
  """Mean of `lpips_map` -> [n, B]: what NTIRE 2021 calls LPIPS, with AlexNet and no border."""
  return lpips_maps(samples, batch, protocol, weights).mean((-2, -1))


def s_n(samples: Array, batch: Batch, protocol: Protocol, weights: dict[str, Any]) -> Array:
  """Diversity score of the NTIRE 2021 challenge on learning the super-resolution space, in percent -> [B].

  See `diversity_scores`. The challenge takes 10 samples, AlexNet's LPIPS and no border.
  """
  return diversity_scores(lpips_maps(samples, batch, protocol, weights))[-1]
