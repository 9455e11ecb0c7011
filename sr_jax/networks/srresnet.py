"""SRResNet, the generator of SRGAN (Ledig et al., 2017), with room for a latent at its input."""

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from math import ceil
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.errors import UserError, check_choice
from sr_jax.networks.layers import check_norm, conv_norm_act, noise_plane, recomputed
from sr_jax.networks.shuffle import depth_to_space, enlargements
from sr_jax.ops.resize import reach as resize_reach
from sr_jax.ops.resize import resize

Array = jax.Array


class SRResNet(nn.Module):
  """Residual blocks at the input's resolution, then sub-pixel shuffles.

  With `tail = "direct"` a single shuffle makes the image (as in ESPCN): all the work is done at the
  input's resolution, which is what a CPU can afford. With `residual` the network adds to the bicubic
  enlargement and starts close to it. Keys: `configs/papers/regression.py`.
  """

  factor: tuple[int, int]
  channels: int
  dtype: jnp.dtype
  width: int
  blocks: int
  kernel: int
  outer_kernel: int
  norm: str
  tail: str
  noise_channels: int
  noise_scale: float
  residual: bool
  latent_size: int
  latent_entry: str

  def latent(self, lr_shape: Sequence[int]) -> Any:
    """A vector, or noise at the resolution of an input [h, w, C]."""
    if self.latent_size:
      return jax.ShapeDtypeStruct((self.latent_size,), jnp.float32)
    return noise_plane(lr_shape, self.noise_channels)

  @property
  def reach(self) -> int | None:
    """See `Latents.reach`."""
    if self.norm == "instance":
      return None
    outer, inner = self.outer_kernel // 2, self.kernel // 2

    def along(axis: int) -> Fraction:
      reach, scale = Fraction(outer + (2 * self.blocks + 1) * inner), 1
      if self.tail == "direct":
        return reach + inner
      for step in enlargements(*self.factor):
        reach, scale = reach + Fraction(inner, scale), scale * step[axis]
      return reach + Fraction(outer, scale)

    paths = [along(0), along(1)]
    if self.residual:
      paths += [resize_reach(factor, "bicubic") for factor in self.factor]
    return ceil(max(paths))

  def __post_init__(self) -> None:
    check_norm(self.norm)
    check_choice(("shuffle", "direct"), self.tail, "tail of the network srresnet")
    check_choice(("concatenate", "film"), self.latent_entry, "latent_entry of the network srresnet")
    if self.latent_size and self.noise_channels:
      raise UserError("The network srresnet has latent_size and noise_channels: set one of them to 0.")
    if self.noise_channels and self.latent_entry == "film":
      raise UserError(
        "The network srresnet has latent_entry=film, which is for a vector, and noise_channels: set one to "
        "concatenate or the other to 0."
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Array, latent: Any, train: bool) -> Array:
    """x [B, h, w, C] and a latent -> [B, H, W, C]."""

    def conv(features: int, kernel: int, **keys) -> nn.Conv:
      return nn.Conv(features, (kernel, kernel), dtype=self.dtype, **keys)

    inner = partial(conv, self.width, self.kernel)
    h = conv(self.width, self.outer_kernel)(x.astype(self.dtype))
    if self.latent_size or self.noise_channels:
      # The latent enters through weights of its own that may start small: an implicit model first learns the
      # mean, and noise at full strength would undo it. A vector tiled over space and concatenated is a 1x1
      # convolution; FiLM (Perez et al., 2018) scales and shifts each feature map by it.
      small = nn.initializers.variance_scaling(self.noise_scale**2, "fan_in", "truncated_normal")
      own: dict[str, Any] = {"use_bias": False, "kernel_init": small}
      z = latent.astype(self.dtype)
      if self.latent_entry == "film":
        factor, shift = jnp.split(
          nn.Dense(2 * self.width, dtype=self.dtype, **own)(z)[:, None, None], 2, axis=-1
        )
        h = h * (1 + factor) + shift
      elif self.latent_size:
        h += nn.Dense(self.width, dtype=self.dtype, **own)(z)[:, None, None]
      else:
        h += conv(self.width, self.outer_kernel, **own)(z)
    first = h = nn.PReLU()(h)

    def block(h: Array) -> Array:
      inside = nn.PReLU()(conv_norm_act(h, inner, self.norm, "none", train=train))
      return h + conv_norm_act(inside, inner, self.norm, "none", train=train)

    for _ in range(self.blocks):
      h = recomputed(self, block, h)
    h = first + conv_norm_act(h, inner, self.norm, "none", train=train)
    # A small last layer lets a residual network start at the enlargement it adds to.
    scale = 1e-2 if self.residual else 1.0
    last = {"kernel_init": nn.initializers.variance_scaling(scale, "fan_in", "truncated_normal")}
    fy, fx = self.factor
    if self.tail == "direct":
      y = depth_to_space(conv(self.channels * fy * fx, self.kernel, **last)(h), self.factor)
    else:
      for step in enlargements(fy, fx):

        def enlarge(h: Array, step: tuple[int, int] = step) -> Array:
          return nn.PReLU()(depth_to_space(conv(self.width * step[0] * step[1], self.kernel)(h), step))

        h = recomputed(self, enlarge, h)
      y = conv(self.channels, self.outer_kernel, **last)(h)
    y = y.astype(jnp.float32)
    return y + resize(x, (y.shape[1], y.shape[2]), "bicubic") if self.residual else y
