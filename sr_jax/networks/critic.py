"""Networks that look at whole images: VarSR's critic and the classifier of its tables (Hyun & Heo, 2020)."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.errors import check_choice
from sr_jax.networks.layers import check_norm, conv_norm_act, recomputed
from sr_jax.networks.shuffle import space_to_depth

Array = jax.Array


def reduce_by_two(module: nn.Module, h: Array, widths: Sequence[int], norm: str, train: bool) -> Array:
  """[B, H, W, .] -> [B, H / 2^k, W / 2^k, widths[-1]] in k steps, within a module's `nn.compact` method.

  SRGAN's discriminator in outline. Unlike there, the first convolution is normalised too, and what halves the
  resolution is `space_to_depth` and a 2x2 convolution, whose second derivative a CPU computes several times
  faster than that of a strided convolution.
  """

  def halve(h: Array, width: int) -> Array:
    conv = partial(nn.Conv, width, dtype=h.dtype)
    h = conv_norm_act(h, partial(conv, (3, 3)), norm, "leaky_relu", train=train)
    return conv_norm_act(space_to_depth(h, (2, 2)), partial(conv, (2, 2)), norm, "leaky_relu", train=train)

  for width in widths:
    h = recomputed(module, partial(halve, width=width), h)
  return h


class Critic(nn.Module):
  """Images [B, H, W, C] of one size -> a number each [B], of any size and sign.

  Without batch normalisation, which would mix the images of a gradient penalty.
  """

  dtype: jnp.dtype
  widths: Sequence[int]
  head: int
  norm: str

  def __post_init__(self) -> None:
    check_choice(("instance", "none"), self.norm, "config.networks.critic.norm")
    super().__post_init__()

  @nn.compact
  def __call__(self, y: Array, train: bool) -> Array:
    h = reduce_by_two(self, y.astype(self.dtype), self.widths, self.norm, train)
    h = nn.leaky_relu(nn.Dense(self.head, dtype=self.dtype)(h.reshape(h.shape[0], -1)), 0.2)
    # A constant would cancel between real and generated images.
    return nn.Dense(1, use_bias=False, dtype=self.dtype)(h).astype(jnp.float32)[:, 0]


class Classifier(nn.Module):
  """Images [B, H, W, C] of one size -> logits [B, classes]."""

  dtype: jnp.dtype
  classes: int
  widths: Sequence[int]
  norm: str

  def __post_init__(self) -> None:
    check_norm(self.norm)
    super().__post_init__()

  @nn.compact
  def __call__(self, y: Array, train: bool) -> Array:
    h = reduce_by_two(self, y.astype(self.dtype), self.widths, self.norm, train)
    return nn.Dense(self.classes, dtype=self.dtype)(h.reshape(h.shape[0], -1)).astype(jnp.float32)
