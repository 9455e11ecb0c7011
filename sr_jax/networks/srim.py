"""The two-stage network of SRIM (section 2.5)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.errors import UserError
from sr_jax.ops.resize import resize

Array = jax.Array


class SubNetwork(nn.Module):
  """`layers` convolutions and a sigmoid; the skip image is joined to the input of all but the first."""

  width: int
  layers: int
  kernel: int
  channels: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, h: Array, skip: Array, train: bool) -> Array:
    for i in range(self.layers):
      last = i == self.layers - 1
      if i > 0:
        h = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(h)
        h = jnp.concatenate([nn.relu(h), skip], axis=-1)
      # Batch normalisation has the bias of the convolution before it.
      features, size = self.channels if last else self.width, (self.kernel, self.kernel)
      h = nn.Conv(features, size, use_bias=last, dtype=self.dtype)(h)
    return nn.sigmoid(h.astype(jnp.float32))


class SRIM(nn.Module):
  """One sub-network for every doubling; each has its own code, at the resolution of its output.

  Output lies in (0, 1). Source: SRIM, sections 2.3 and 2.5; the noise's shape is that of the authors'
  later code.
  """

  factor: tuple[int, int]
  channels: int
  dtype: jnp.dtype
  width: int = 64
  layers: int = 9
  kernel: int = 5
  noise_channels: int = 5

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

  def stage_codes(self, lr_shape: Sequence[int]) -> list[tuple[int, int, int]]:
    """Shapes of one image's codes for an input [h, w, C]."""
    return [(lr_shape[0] * scale, lr_shape[1] * scale, self.noise_channels) for scale in self.scales]

  def stage(self, s: int, x: Array, previous: Array, code: Array, train: bool) -> Array:
    """Stage s: input x [B, h, w, C], the previous stage's output and a code -> [B, H_s, W_s, C].

    The first stage's previous output is x itself.
    """
    size = (x.shape[1] * self.scales[s], x.shape[2] * self.scales[s])
    skip = resize(x, size, "bilinear").astype(self.dtype)
    enlarged = resize(previous, size, "bilinear")
    h = jnp.concatenate([enlarged, code], axis=-1).astype(self.dtype)
    return self.subnetworks[s](h, skip, train)

  def __call__(self, x: Array, codes: Sequence[Array], train: bool) -> list[Array]:
    """x [B, h, w, C] and one code per stage -> the output of each stage."""
    outputs = [x]
    for s, code in enumerate(codes):
      outputs.append(self.stage(s, x, outputs[-1], code, train))
    return outputs[1:]
