"""The conditioning network of Pixel Recursive Super Resolution (Dahl et al., 2017), Table 2, in two uses.

ResNet blocks, and between them a transposed convolution of stride 2 and a ReLU for every doubling, 32 feature
maps throughout, after a 1x1 convolution of the input. `Conditioning` ends in the logits A_i(x) of Eq. 6;
`TanhResidual`, the regression that the paper compares with (section 5), adds tanh of one output for each
colour to the bicubic enlargement. Keys: `configs/papers/pixel_recursive.py`.

Section 5 suggests that a ReLU ends the network: here it ends the last block, before the logits, which are
linear, because a ReLU on logits would stop the gradient of every value that is less probable than another.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from math import ceil

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.errors import UserError
from sr_jax.networks.layers import check_norm, conv_norm_act, recomputed
from sr_jax.networks.pixelcnn import initial
from sr_jax.ops.resize import reach as resize_reach
from sr_jax.ops.resize import resize

Array = jax.Array


class _ConditioningFields(nn.Module):
  """What the networks of this file have in common.

  Attributes:
    factor: of rows and columns alike, a power of two.
    channels: C, colours of an image.
    width: feature maps.
    blocks: ResNet blocks at each size.
    norm: "batch" (He et al., 2016; Table 2 names none) | "instance" | "none".
    whole: hidden units of a fully connected path beside the first convolution, which can move things across
      the image; inputs then have one size. 0: none, as in the paper.
    stddev: of the normal numbers that the initial weights of convolutions are, cut at two deviations as
      TensorFlow does; 0: LeCun's variance.
  """

  factor: tuple[int, int]
  channels: int
  dtype: jnp.dtype
  width: int
  blocks: int
  norm: str
  whole: int
  stddev: float

  def __post_init__(self) -> None:
    check_norm(self.norm)
    if self.factor[0] != self.factor[1] or self.factor[0].bit_count() != 1:
      raise UserError(
        f"config.operator.factor is {self.factor}: the conditioning network enlarges by a power of two, "
        "alike in rows and columns."
      )
    super().__post_init__()

  def trunk(self, x: Array, train: bool) -> Array:
    """The features of Table 2, of a module called "trunk"."""
    names = ("factor", "channels", "dtype", "width", "blocks", "norm", "whole", "stddev")
    return ConditioningTrunk(**{name: getattr(self, name) for name in names}, name="trunk")(x, train)


class ConditioningTrunk(_ConditioningFields):
  """x [B, h, w, C] in [0, 1] -> features [B, H, W, width]."""

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    start = initial(self.stddev)
    conv = partial(nn.Conv, self.width, (3, 3), dtype=self.dtype, kernel_init=start)

    def block(h: Array) -> Array:
      inside = conv_norm_act(h, conv, self.norm, "relu", train=train)
      return nn.relu(h + conv_norm_act(inside, conv, self.norm, "none", train=train))

    def blocks(h: Array) -> Array:
      for _ in range(self.blocks):
        h = recomputed(self, block, h)
      return h

    x = (2 * x - 1).astype(self.dtype)
    h = nn.Dense(self.width, dtype=self.dtype, kernel_init=start)(x)
    if self.whole:
      seen = nn.relu(nn.Dense(self.whole, dtype=self.dtype)(x.reshape(x.shape[0], -1)))
      h += nn.Dense(h[0].size, dtype=self.dtype)(seen).reshape(h.shape)
    h = blocks(h)
    for _ in range(self.factor[0].bit_length() - 1):
      h = nn.ConvTranspose(self.width, (3, 3), (2, 2), dtype=self.dtype, kernel_init=start)(h)
      h = blocks(nn.relu(h))
    return h


class Conditioning(_ConditioningFields):
  """x [B, h, w, C] in [0, 1] -> logits A_i(x) [B, H, W, C, levels] of each sub-pixel's value, float32."""

  levels: int = 256

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    h = self.trunk(x, train)
    logits = nn.Dense(self.channels * self.levels, dtype=h.dtype, kernel_init=initial(self.stddev))(h)
    return logits.reshape(*h.shape[:3], self.channels, self.levels).astype(jnp.float32)


class TanhResidual(_ConditioningFields):
  """Generator without a latent: bicubic(x) + tanh of the conditioning network's C output channels."""

  def latent(self, lr_shape: Sequence[int]) -> tuple[()]:
    """It draws nothing."""
    return ()

  @property
  def reach(self) -> int | None:
    """See `Latents.reach`."""
    if self.whole or self.norm == "instance":
      return None
    reach, scale = Fraction(2 * self.blocks), 1
    while scale < self.factor[0]:
      scale *= 2
      # Of the transposed convolution one pixel, backwards.
      reach += Fraction(1 + 2 * self.blocks, scale)
    return ceil(max(reach, resize_reach(self.factor[0], "bicubic")))

  @nn.compact
  def __call__(self, x: Array, latent: tuple[()], train: bool) -> Array:
    """x [B, h, w, C] -> [B, H, W, C]."""
    h = self.trunk(x, train)
    residual = nn.Dense(self.channels, dtype=self.dtype, kernel_init=initial(self.stddev))(h)
    enlarged = resize(x, (h.shape[1], h.shape[2]), "bicubic")
    return enlarged + jnp.tanh(residual.astype(jnp.float32))
