"""The conditioning network of Pixel Recursive Super Resolution (Dahl et al., 2017), Table 2, in two uses.

ResNet blocks, and between them a transposed convolution of stride 2 and a ReLU for every doubling, 32 feature
maps throughout, after a 1x1 convolution of the input. `Conditioning` ends in the logits A_i(x) of Eq. 6;
`ResidualNet`, the regression that the paper compares with (section 5), in three channels, tanh, and the
bicubic enlargement.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.errors import UserError, choose
from sr_jax.networks.pixelcnn import initial
from sr_jax.ops.resize import resize

Array = jax.Array
NORMS = {"batch": 0, "none": 0}


class Trunk(nn.Module):
  """x [B, h, w, C] in [0, 1] -> features [B, H, W, width].

  Attributes:
    factor: of rows and columns alike, a power of two.
    width: feature maps.
    blocks: ResNet blocks at each size.
    norm: "batch" (He et al., 2016; Table 2 names none) | "none".
    whole: hidden units of a fully connected path beside the first convolution, which can move things across
      the image; inputs then have one size. 0: none, as in the paper.
    stddev: of the normal numbers that the initial weights of convolutions are, cut at two deviations as
      TensorFlow does; 0: LeCun's variance.
  """

  factor: tuple[int, int]
  dtype: jnp.dtype
  width: int
  blocks: int
  norm: str
  whole: int
  stddev: float

  def __post_init__(self) -> None:
    choose(NORMS, self.norm, "config.network.norm")
    if self.factor[0] != self.factor[1] or self.factor[0].bit_count() != 1:
      raise UserError(
        f"config.operator.factor is {self.factor}: the conditioning network enlarges by a power of two, "
        "alike in rows and columns."
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    start = initial(self.stddev)

    def conv(h: Array, normed: bool) -> Array:
      batch_norm = normed and self.norm == "batch"
      h = nn.Conv(self.width, (3, 3), use_bias=not batch_norm, dtype=self.dtype, kernel_init=start)(h)
      if batch_norm:
        h = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(h)
      return h

    def blocks(h: Array) -> Array:
      for _ in range(self.blocks):
        h = nn.relu(h + conv(nn.relu(conv(h, True)), True))
      return h

    x = (2 * x - 1).astype(self.dtype)
    h = nn.Dense(self.width, dtype=self.dtype, kernel_init=start)(x)
    if self.whole:
      if self.has_variable("params", "Dense_1") and (
        self.get_variable("params", "Dense_1")["kernel"].shape[0] != x[0].size
      ):
        raise UserError(
          f"With config.network.whole a network is of inputs of one size, and not of {x.shape[1:3]}: give it "
          "images of the size it was trained on."
        )
      seen = nn.relu(nn.Dense(self.whole, dtype=self.dtype)(x.reshape(x.shape[0], -1)))
      h += nn.Dense(h[0].size, dtype=self.dtype)(seen).reshape(h.shape)
    h = blocks(h)
    for _ in range(self.factor[0].bit_length() - 1):
      h = nn.ConvTranspose(self.width, (3, 3), (2, 2), dtype=self.dtype, kernel_init=start)(h)
      h = blocks(nn.relu(h))
    return h


class Conditioning(nn.Module):
  """x [B, h, w, C] in [0, 1] -> logits A_i(x) [B, H, W, C, levels] of each sub-pixel's value, float32."""

  trunk: Trunk
  channels: int
  levels: int

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    h = self.trunk(x, train)
    outputs = self.channels * self.levels
    logits = nn.Dense(outputs, dtype=h.dtype, kernel_init=initial(self.trunk.stddev))(h)
    return logits.reshape(*h.shape[:3], self.channels, self.levels).astype(jnp.float32)


class ResidualNet(nn.Module):
  """Generator of one stage without a code: bicubic(x) + tanh of the conditioning network's three channels."""

  factor: tuple[int, int]
  channels: int
  dtype: jnp.dtype
  width: int = 32
  blocks: int = 6
  norm: str = "batch"
  whole: int = 0
  stddev: float = 0.1

  def stage_codes(self, lr_shape: Sequence[int]) -> list[tuple[int, int, int]]:
    """Shape of one image's code for an input [h, w, C]: it is empty."""
    return [(lr_shape[0], lr_shape[1], 0)]

  @nn.compact
  def stage(self, s: int, x: Array, previous: Array, code: Array, train: bool) -> Array:
    """The only stage: x [B, h, w, C] -> [B, H, W, C]."""
    del s, previous, code
    trunk = Trunk(self.factor, self.dtype, self.width, self.blocks, self.norm, self.whole, self.stddev)
    h = trunk(x, train)
    residual = nn.Dense(self.channels, dtype=self.dtype, kernel_init=initial(self.stddev))(h)
    enlarged = resize(x, (h.shape[1], h.shape[2]), "bicubic")
    return enlarged + jnp.tanh(residual.astype(jnp.float32))

  def __call__(self, x: Array, codes: Sequence[Array], train: bool) -> list[Array]:
    """x [B, h, w, C] and one code -> [the image [B, H, W, C]]."""
    return [self.stage(0, x, x, codes[0], train)]
