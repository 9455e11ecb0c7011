"""The generator and the critic of SRMAP (Explicit MAP Optimization for Photo-Realistic Super Resolution)."""

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from math import ceil
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.errors import UserError
from sr_jax.networks.layers import noise_plane, recomputed
from sr_jax.networks.shuffle import depth_to_space, enlargements
from sr_jax.ops.resize import reach as resize_reach
from sr_jax.ops.resize import resize

Array = jax.Array


HE = nn.initializers.he_normal()  # keeps the size of activations behind a rectifier


def act(h: Array) -> Array:
  """The nonlinearity of both networks."""
  return nn.leaky_relu(h, 0.2)


class Block(nn.Module):
  """Convolution, noise, nonlinearity, convolution, residual, nonlinearity: [B, h, w, width] -> the same.

  Attributes:
    ratio: the inner width is width / ratio (the paper's "compression factor").
    kernel: side of the kernels.
    attention: weigh the channels by what is in the whole image (RCAN, Zhang et al., 2018).
    dtype: what it computes in.
  """

  ratio: int
  kernel: int
  attention: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, h: Array, noise: Array | None = None) -> Array:
    width, inner = h.shape[-1], max(1, h.shape[-1] // self.ratio)
    conv = partial(nn.Conv, kernel_size=(self.kernel, self.kernel), dtype=self.dtype)

    def block(h: Array) -> Array:
      inside = conv(inner)(h)
      if noise is not None:
        # Learned, one for each channel; at 0 the network begins as a deterministic one.
        weight = self.param("noise_weight", nn.initializers.zeros, (inner,), jnp.float32)
        inside += noise.astype(self.dtype) * weight.astype(self.dtype)
      # Small, so that a chain of 64 blocks without normalisation begins close to the identity.
      small = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")
      inside = conv(width, kernel_init=small)(act(inside))
      if self.attention:
        mean = inside.mean((1, 2), keepdims=True)
        squeezed = nn.relu(nn.Dense(inner, dtype=self.dtype)(mean))
        inside *= nn.sigmoid(nn.Dense(width, dtype=self.dtype)(squeezed))
      return act(h + inside)

    return recomputed(self, block, h)


class SRMAP(nn.Module):
  """Figure 1, left, and the appendix; one plane of noise for each block is its latent.

  Stages of residual blocks at the input's resolution, each added to its input; then enlarging blocks, each of
  which adds to the bilinear enlargement of the image so far. Of what the appendix leaves open, a 1x1
  convolution makes the stem's 256 channels the stages' 512, and a convolution with a pixel shuffle is the
  "reverse of a convolution". Keys: `configs/papers/srmap.py`.
  """

  factor: tuple[int, int]
  channels: int
  dtype: jnp.dtype
  stem: int
  width: int
  stages: int
  blocks: int
  ratio: int
  widths: Sequence[int]
  kernel: int
  attention: bool

  def __post_init__(self) -> None:
    if len(enlargements(*self.factor)) != len(self.widths):
      raise UserError(
        f"config.networks.generator.widths is {tuple(self.widths)}, but config.operator.factor "
        f"{tuple(self.factor)} is enlarged in {len(enlargements(*self.factor))} steps: give a width for each."
      )
    super().__post_init__()

  def latent(self, lr_shape: Sequence[int]) -> Any:
    """A plane for each block, at the resolution of an input [h, w, C]."""
    return noise_plane(lr_shape, self.stages * self.blocks)

  @property
  def reach(self) -> int | None:
    """See `Latents.reach`."""
    if self.attention:
      return None
    side = self.kernel // 2

    def along(axis: int) -> Fraction:
      # The stem and two convolutions a block; then each step's own, at its resolution before and after.
      features, image, scale = Fraction(side * (1 + 2 * self.stages * self.blocks)), Fraction(0), 1
      for step in enlargements(*self.factor):
        features += Fraction(side, scale)
        image += resize_reach(step[axis], "bilinear") / scale
        scale *= step[axis]
        image = max(image, features + Fraction(side, scale))
      return image

    return ceil(max(along(0), along(1)))

  @nn.compact
  def __call__(self, x: Array, latent: Any, train: bool) -> Array:
    """x [B, h, w, C] and a latent [B, h, w, planes] -> [B, H, W, C]."""
    del train
    conv = partial(nn.Conv, kernel_size=(self.kernel, self.kernel), dtype=self.dtype)
    block = partial(Block, self.ratio, self.kernel, self.attention, self.dtype)
    h = act(conv(self.stem)(x.astype(self.dtype)))
    h = nn.Conv(self.width, (1, 1), dtype=self.dtype)(h)
    for stage in range(self.stages):
      first = h
      for number in range(stage * self.blocks, (stage + 1) * self.blocks):
        h = block()(h, latent[..., number : number + 1])
      h = first + h
    image = x
    small = nn.initializers.variance_scaling(1e-2, "fan_in", "truncated_normal")
    for step, width in zip(enlargements(*self.factor), self.widths, strict=True):
      h = act(depth_to_space(conv(width * step[0] * step[1])(h), step))
      # So that a reference to the input is kept to the end.
      image = resize(image, (h.shape[1], h.shape[2]), "bilinear")
      image += conv(self.channels, kernel_init=small)(h).astype(jnp.float32)
    return image


def blur_halve(h: Array) -> Array:
  """[B, H, W, C] -> [B, H / 2, W / 2, C] by the binomial filter (1, 3, 3, 1) / 8, so that it does not alias.

  Sums of slices: a strided convolution's second derivative, which R1 needs, is slow on a CPU.
  """
  # Not jnp.pad, whose gradient moves images between devices.
  h = jnp.concatenate([h[:, :1], h, h[:, -1:]], axis=1)
  h = jnp.concatenate([h[:, :, :1], h, h[:, :, -1:]], axis=2)
  rows = (h[:, :-2:2] + 3 * h[:, 1:-1:2] + 3 * h[:, 2::2] + h[:, 3::2]) / 8
  return (rows[:, :, :-2:2] + 3 * rows[:, :, 1:-1:2] + 3 * rows[:, :, 2::2] + rows[:, :, 3::2]) / 8


def _band_pass(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
  """Kernels [h, w, C, features] that answer 0 to flat images.

  What tells real images from generated ones is fine detail, a small part of an image's values: behind the
  others' response a rectifier would hardly see it, and the reduction would blur it away.
  """
  kernel = HE(key, shape, dtype)
  return kernel - kernel.mean((0, 1), keepdims=True)


class SRMAPCritic(nn.Module):
  """Figure 1, right: images [B, H, W, C] of one size -> a number each [B].

  Stages that halve the resolution without aliasing, each followed by residual blocks; a depthwise
  convolution of the size of the last feature maps; dense layers. No batch normalisation, which would mix the
  images of R1.
  """

  dtype: jnp.dtype
  widths: Sequence[int]
  blocks: int
  ratio: int
  head: int

  @nn.compact
  def __call__(self, y: Array, train: bool) -> Array:
    del train
    # Natural images have a mean of about 1/2 and a deviation of about 1/4.
    h = (4 * (y - 0.5)).astype(self.dtype)
    start: Any = _band_pass
    for width in self.widths:
      if min(h.shape[1:3]) < 2 or h.shape[1] % 2 or h.shape[2] % 2:
        raise UserError(
          f"Network srmap_critic halves its images of {y.shape[1]}x{y.shape[2]} {len(self.widths)} times: "
          f"take fewer widths, or a config.data.crop that {2 ** len(self.widths)} divides."
        )
      h = blur_halve(act(nn.Conv(width, (3, 3), dtype=self.dtype, kernel_init=start)(h)))
      start = HE
      for _ in range(self.blocks):
        h = Block(self.ratio, 3, False, self.dtype)(h)
    # The global depthwise convolution: a weight for each position and channel. It begins as a mean: with
    # random signs the gradients of all positions cancel in the layers before, and nothing is learned.
    mean = nn.initializers.constant(1 / (h.shape[1] * h.shape[2]))
    weight = self.param("depthwise", mean, h.shape[1:], jnp.float32)
    h = act(jnp.sum(h * weight.astype(self.dtype), axis=(1, 2)))
    h = act(nn.Dense(self.head, dtype=self.dtype, kernel_init=HE)(h))
    # A constant would cancel between real and generated images.
    return nn.Dense(1, use_bias=False, dtype=self.dtype)(h).astype(jnp.float32)[:, 0]
