"""SRResNet, the generator of SRGAN (Ledig et al., 2017), with room for a code at its input."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.errors import choose
from sr_jax.networks.shuffle import depth_to_space
from sr_jax.ops.resize import resize

Array = jax.Array


class SRResNet(nn.Module):
  """Residual blocks at the input's resolution, then sub-pixel shuffles; one stage.

  With `tail = "direct"` a single shuffle makes the image (as in ESPCN): all the work is done at the
  input's resolution, which is what a CPU can afford. With `residual` the network adds to the bicubic
  enlargement and starts close to it.
  """

  factor: tuple[int, int]
  channels: int
  dtype: jnp.dtype
  width: int = 64
  blocks: int = 16
  kernel: int = 3
  outer_kernel: int = 9
  norm: str = "batch"
  tail: str = "shuffle"
  noise_channels: int = 0
  noise_scale: float = 0.1
  residual: bool = False

  def stage_codes(self, lr_shape: Sequence[int]) -> list[tuple[int, int, int]]:
    """Shape of one image's code for an input [h, w, C]."""
    return [(lr_shape[0], lr_shape[1], self.noise_channels)]

  def __post_init__(self) -> None:
    choose({"batch": 0, "none": 0}, self.norm, "config.network.norm")
    choose({"shuffle": 0, "direct": 0}, self.tail, "config.network.tail")
    super().__post_init__()

  @nn.compact
  def stage(self, s: int, x: Array, previous: Array, code: Array, train: bool) -> Array:
    """The only stage: x [B, h, w, C] and a code [B, h, w, noise channels] -> [B, H, W, C]."""
    del s, previous

    def conv(features: int, kernel: int, **keys) -> nn.Conv:
      return nn.Conv(features, (kernel, kernel), dtype=self.dtype, **keys)

    def inner_conv(h: Array) -> Array:
      if self.norm == "none":
        return conv(self.width, self.kernel)(h)
      # Batch normalisation has the bias of the convolution before it.
      h = conv(self.width, self.kernel, use_bias=False)(h)
      return nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(h)

    h = conv(self.width, self.outer_kernel)(x.astype(self.dtype))
    if self.noise_channels:
      # The code enters through weights of its own that start small: an implicit model first learns the
      # mean, and noise at full strength would undo it.
      small = nn.initializers.variance_scaling(self.noise_scale**2, "fan_in", "truncated_normal")
      h += conv(self.width, self.outer_kernel, use_bias=False, kernel_init=small)(code.astype(self.dtype))
    first = h = nn.PReLU()(h)
    for _ in range(self.blocks):
      h = h + inner_conv(nn.PReLU()(inner_conv(h)))
    h = first + inner_conv(h)
    # A small last layer lets a residual network start at the enlargement it adds to.
    scale = 1e-2 if self.residual else 1.0
    last = {"kernel_init": nn.initializers.variance_scaling(scale, "fan_in", "truncated_normal")}
    fy, fx = self.factor
    if self.tail == "direct":
      y = depth_to_space(conv(self.channels * fy * fx, self.kernel, **last)(h), self.factor)
    else:
      for step in _shuffles(fy, fx):
        h = depth_to_space(conv(self.width * step[0] * step[1], self.kernel)(h), step)
        h = nn.PReLU()(h)
      y = conv(self.channels, self.outer_kernel, **last)(h)
    y = y.astype(jnp.float32)
    return y + resize(x, (y.shape[1], y.shape[2]), "bicubic") if self.residual else y

  def __call__(self, x: Array, codes: Sequence[Array], train: bool) -> list[Array]:
    """x [B, h, w, C] and one code -> [the image [B, H, W, C]]."""
    return [self.stage(0, x, x, codes[0], train)]


def _shuffles(fy: int, fx: int) -> list[tuple[int, int]]:
  """The factor as doublings of both sides, with what is left over in one last step."""
  steps = []
  while fy % 2 == 0 and fx % 2 == 0:
    steps.append((2, 2))
    fy, fx = fy // 2, fx // 2
  return steps + ([(fy, fx)] if fy * fx > 1 else [])
