"""The plain networks of Amortised MAP Inference (arXiv 1610.04490), appendix D.

Each is a trunk of convolutions with batch normalisation and a nonlinearity in all layers but the output. With
`kernel = 1` and images folded into a single pixel they are the fully connected networks of its Swiss roll.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.errors import UserError, choose
from sr_jax.networks.layers import ACTIVATIONS, check_norm, conv_norm_act, noise_plane, recomputed
from sr_jax.networks.shuffle import depth_to_space, space_to_depth

Array = jax.Array

OUTPUTS: dict[str, Callable[[Array], Array]] = {"sigmoid": nn.sigmoid, "linear": lambda y: y}


class Trunk(nn.Module):
  """Convolutions [B, H, W, .] -> [B, H', W', widths[-1]].

  Attributes:
    widths: feature maps of each layer.
    kernel: side of the kernels.
    strides: of each layer; () for 1 everywhere.
    skip: after every so many layers their input is added to their output, through a 1x1 convolution where the
      number of feature maps differs; 0: never. (The paper's "similar to Huang et al., 2016" says no more.)
    norm: "batch" | "none".
    activation: an entry of ACTIVATIONS.
  """

  widths: Sequence[int]
  kernel: int
  strides: Sequence[int]
  skip: int
  norm: str
  activation: str
  dtype: jnp.dtype

  def __post_init__(self) -> None:
    check_norm(self.norm)
    choose(ACTIVATIONS, self.activation, "config.networks.*.activation")
    if self.strides and (len(self.strides) != len(self.widths) or min(self.strides) < 1):
      raise UserError(
        f"A network has widths {self.widths} and strides {self.strides}: give one for each layer."
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, h: Array, train: bool) -> Array:
    strides = self.strides or (1,) * len(self.widths)
    held = h = h.astype(self.dtype)
    for i, (width, stride) in enumerate(zip(self.widths, strides, strict=True)):
      conv = partial(nn.Conv, width, (self.kernel,) * 2, (stride,) * 2, dtype=self.dtype)
      layer = partial(conv_norm_act, conv=conv, norm=self.norm, activation=self.activation, train=train)
      h = recomputed(self, layer, h)
      if self.skip and (i + 1) % self.skip == 0:
        if held.shape != h.shape:
          held = nn.Conv(width, (1, 1), use_bias=False, dtype=self.dtype)(held)
        held = h = h + held
    return h


class ConvNet(nn.Module):
  """Generator: a trunk at the input's resolution, then one sub-pixel shuffle (Shi et al., 2016).

  A latent is joined to the input, scaled by `noise_scale`. Keys: `configs/papers/amap.py`.
  """

  factor: tuple[int, int]
  channels: int
  dtype: jnp.dtype
  widths: Sequence[int]
  kernel: int
  skip: int
  norm: str
  activation: str
  output: str
  scale: float
  noise_channels: int
  noise_scale: float

  def latent(self, lr_shape: Sequence[int]) -> Any:
    """Noise at the resolution of an input [h, w, C]."""
    return noise_plane(lr_shape, self.noise_channels)

  @property
  def reach(self) -> int | None:
    """See `Latents.reach`."""
    return None if self.norm == "instance" else (len(self.widths) + 1) * (self.kernel // 2)

  def __post_init__(self) -> None:
    choose(OUTPUTS, self.output, "config.networks.*.output")
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Array, latent: Any, train: bool) -> Array:
    """x [B, h, w, C] and a latent -> [B, H, W, C]."""
    h = x / self.scale
    if self.noise_channels:
      h = jnp.concatenate([h, self.noise_scale * latent], axis=-1)
    h = Trunk(self.widths, self.kernel, (), self.skip, self.norm, self.activation, self.dtype)(h, train)
    fy, fx = self.factor
    y = nn.Conv(self.channels * fy * fx, (self.kernel,) * 2, dtype=self.dtype)(h)
    return OUTPUTS[self.output](depth_to_space(y, self.factor).astype(jnp.float32)) * self.scale


class Discriminator(nn.Module):
  """Images [B, H, W, C] -> the logit of their being real [B]; the last layer sees all positions.

  `fold` merges blocks of pixels into channels first; inputs are divided by `scale`.
  """

  dtype: jnp.dtype
  widths: Sequence[int]
  strides: Sequence[int]
  kernel: int
  norm: str
  activation: str
  fold: tuple[int, int]
  scale: float

  @nn.compact
  def __call__(self, y: Array, train: bool) -> Array:
    h = space_to_depth(y / self.scale, self.fold)
    h = Trunk(self.widths, self.kernel, self.strides, 0, self.norm, self.activation, self.dtype)(h, train)
    return nn.Dense(1, dtype=self.dtype)(h.reshape(h.shape[0], -1)).astype(jnp.float32)[:, 0]


class Denoiser(nn.Module):
  """Noisy images [B, H, W, C] -> clean ones, of any size that `fold` divides."""

  dtype: jnp.dtype
  widths: Sequence[int]
  kernel: int
  norm: str
  activation: str
  residual: bool
  fold: tuple[int, int]
  scale: float

  @nn.compact
  def __call__(self, y: Array, train: bool) -> Array:
    h = space_to_depth(y / self.scale, self.fold)
    channels = h.shape[-1]
    h = Trunk(self.widths, self.kernel, (), 0, self.norm, self.activation, self.dtype)(h, train)
    h = nn.Conv(channels, (self.kernel,) * 2, dtype=self.dtype)(h)
    clean = depth_to_space(h, self.fold).astype(jnp.float32) * self.scale
    return y + clean if self.residual else clean
