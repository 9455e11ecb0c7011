"""The two-stage network of SRIM (section 2.5)."""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.errors import UserError
from sr_jax.networks.layers import noise_plane, normalise, recomputed
from sr_jax.ops.resize import reach as resize_reach
from sr_jax.ops.resize import resize

Array = jax.Array


class SubNetwork(nn.Module):
  """`layers` convolutions and a sigmoid; the skip image is joined to the input of all but the first.

  h [B, H, W, C'], skip [B, H, W, C] -> [B, H, W, channels] in (0, 1).
  """

  width: int
  layers: int
  kernel: int
  channels: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, h: Array, skip: Array, train: bool) -> Array:
    for i in range(self.layers):

      def layer(h: Array, skip: Array, i: int = i) -> Array:
        if i > 0:
          h = jnp.concatenate([nn.relu(normalise(h, "batch", train, self.dtype)), skip], axis=-1)
        # Batch normalisation has the bias of the convolution before it.
        last = i == self.layers - 1
        features, size = self.channels if last else self.width, (self.kernel, self.kernel)
        return nn.Conv(features, size, use_bias=last, dtype=self.dtype)(h)

      h = recomputed(self, layer, h, skip)
    return nn.sigmoid(h.astype(jnp.float32))


class SRIM(nn.Module):
  """Generator in stages: a sub-network for every doubling, with its own latent at its output's resolution.

  Output lies in (0, 1). Keys: `configs/papers/srim.py`. Source: SRIM, sections 2.3 and 2.5; the noise's shape
  is that of the authors' later code.
  """

  factor: tuple[int, int]
  channels: int
  dtype: jnp.dtype
  width: int
  layers: int
  kernel: int
  noise_channels: int

  def setup(self) -> None:
    self.subnetworks = [
      SubNetwork(self.width, self.layers, self.kernel, self.channels, self.dtype) for _ in self.scales
    ]

  @property
  def scales(self) -> list[int]:
    """The enlargement after each stage: [2, 4] for x4."""
    rows, columns = self.factor
    if rows != columns or rows < 2 or rows & (rows - 1):
      raise UserError(
        f"config.operator.factor is {self.factor}, but the network 'srim' enlarges both sides by the same "
        "power of two: choose (2, 2), (4, 4), ... or another network."
      )
    return [2**s for s in range(1, rows.bit_length())]

  @property
  def latent_stages(self) -> int:
    """How many there are."""
    return len(self.scales)

  @property
  def reach(self) -> int:
    """See `Latents.reach`: of two paths through each stage, its previous output's and its skip image's."""
    side, reach, before = self.kernel // 2, Fraction(0), 1
    for scale in self.scales:
      previous = (
        reach + resize_reach(scale // before, "bilinear") / before + Fraction(self.layers * side, scale)
      )
      skip = resize_reach(scale, "bilinear") + Fraction((self.layers - 1) * side, scale)
      reach, before = max(previous, skip if self.layers > 1 else previous), scale
    return ceil(reach)

  def latent(self, lr_shape: Sequence[int]) -> list[Any]:
    """Noise for each stage of an input [h, w, C]."""
    h, w = lr_shape[:2]
    return [noise_plane((h * scale, w * scale), self.noise_channels) for scale in self.scales]

  def stage(self, s: int, x: Array, previous: Array, latent: Any, train: bool) -> Array:
    """Stage s: input x [B, h, w, C], the previous stage's output and its own latent -> [B, H_s, W_s, C].

    The first stage's previous output is x itself.
    """
    size = (x.shape[1] * self.scales[s], x.shape[2] * self.scales[s])
    skip = resize(x, size, "bilinear").astype(self.dtype)
    h = resize(previous, size, "bilinear")
    if self.noise_channels:
      h = jnp.concatenate([h, latent], axis=-1)
    return self.subnetworks[s](h.astype(self.dtype), skip, train)

  def __call__(self, x: Array, latent: list[Any], train: bool) -> Array:
    """x [B, h, w, C] and a latent for each stage -> [B, H, W, C]."""
    return self.outputs(x, latent, train)[-1]

  def outputs(self, x: Array, latent: list[Any], train: bool) -> list[Array]:
    """The images of all stages, [B, H_s, W_s, C] each; the last is the network's output."""
    images = [x]
    for s, own in enumerate(latent):
      images.append(self.stage(s, x, images[-1], own, train))
    return images[1:]
