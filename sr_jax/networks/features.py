"""phi of SRIM (section 2.2.2): an image's pixels beside scaled activations of VGG-19."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sr_jax.errors import UserError, check_choice, choose
from sr_jax.networks.vgg import PADDINGS, load_vgg, random_vgg, vgg_features

Array = jax.Array


class FeatureSpace(NamedTuple):
  """Where images are compared: the pixels, and some layers of VGG-19.

  Attributes:
    weights: {"vgg": a function that reads the weights}, or {}; as of `Method`.
    width: channels of VGG-19's first block.
    layers: VGG-19 layers whose pre-activations are parts of phi, besides the pixels.
    padding: of VGG-19, "zero" | "reflect".
    distance: of a part: the "sum" (SRIM) or "mean" of its squared differences.
  """

  weights: Mapping[str, Callable[[], Any]]
  width: int
  layers: tuple[str, ...]
  padding: str
  distance: str

  def placeholders(self, key: Array) -> dict[str, tuple[Any, Any]]:
    """Random networks in the shapes of `weights`, to stand among those of a state."""
    return {"vgg": (random_vgg(key, self.layers, self.width), {})} if self.weights else {}

  def parts(self, params: dict[str, Any], images: Array) -> list[Array]:
    """phi_k of images [B, H, W, C], unscaled: the images, then [B, H_k, W_k, C_k] of each layer."""
    if not self.weights:
      return [images]
    return [images, *vgg_features(params["vgg"], images, self.layers, self.padding)]

  def squared_distance(self, alpha: Array, a: list[Array], b: list[Array]) -> Array:
    """sum_k alpha_k^2 || a_k - b_k ||^2 over the last three axes; leading axes broadcast."""
    reduce = {"sum": jnp.sum, "mean": jnp.mean}[self.distance]
    terms = [s**2 * reduce(jnp.square(p - q), axis=(-3, -2, -1)) for s, p, q in zip(alpha, a, b, strict=True)]
    return jnp.stack(terms).sum(axis=0)

  def scales(self, params: dict[str, Any], images: Array) -> Array:
    """alpha that gives every part the pixels' mean squared value per element, over images [S, B, H, W, C].

    The slices [B, ...] go through the network one by one.
    """
    energies = jax.lax.map(
      lambda part: jnp.stack([jnp.square(p).mean() for p in self.parts(params, part)]), images
    ).mean(axis=0)
    return jnp.sqrt(energies[0] / energies)


def make_features(settings: ConfigDict, channels: int) -> FeatureSpace:
  """The feature space of `config.method.features`, for images of `channels` colours.

  Raises:
    UserError: a value that is not allowed, or layers of VGG-19 without its weights.
  """
  check_choice(("sum", "mean"), settings.distance, "config.method.features.distance")
  choose(PADDINGS, settings.padding, "config.method.features.padding")
  layers = tuple(settings.layers)
  if layers and not settings.file:
    raise UserError(
      f"config.method.features compares the VGG-19 layers {', '.join(layers)} but has no weights: name their "
      "file in config.method.features.file, or set config.method.features.layers=() to compare pixels alone."
    )
  if layers and channels != 3:
    raise UserError(
      f"config.data.channels is {channels}, but VGG-19 sees RGB: set it to 3, or "
      "config.method.features.layers=() to compare pixels alone."
    )
  weights = {"vgg": partial(load_vgg, settings.file, layers, settings.sha256)} if layers else {}
  return FeatureSpace(weights, settings.width, layers, settings.padding, settings.distance)
