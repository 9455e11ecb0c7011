"""The plain networks of Amortised MAP Inference (arXiv 1610.04490), appendix D: generator, critic, denoiser.

Each is a trunk of convolutions with batch normalisation and a nonlinearity in all layers but the output. With
`kernel = 1` and images folded into a single pixel they are the fully connected networks of its Swiss roll.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.errors import UserError, choose
from sr_jax.networks.shuffle import depth_to_space, space_to_depth

Array = jax.Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  "relu": nn.relu,
  "leaky_relu": lambda h: nn.leaky_relu(h, 0.2),
  "softplus": nn.softplus,
  "swish": nn.swish,
  "tanh": nn.tanh,
}
OUTPUTS: dict[str, Callable[[Array], Array]] = {"sigmoid": nn.sigmoid, "linear": lambda y: y}
NORMS = {"batch": 0, "none": 0}


class Trunk(nn.Module):
  """Convolutions [B, H, W, .] -> [B, H', W', widths[-1]].

  Attributes:
    widths: feature maps of each layer.
    kernel: side of the kernels.
    strides: of each layer; () for 1 everywhere.
    skip: after every so many layers their input is added to their output, through a 1x1 convolution where the
      number of feature maps differs; 0: never. (The paper's "similar to Huang et al., 2016" says no more.)
    norm: "batch" | "none".
    activation: see ACTIVATIONS.
  """

  widths: Sequence[int]
  kernel: int
  strides: Sequence[int]
  skip: int
  norm: str
  activation: str
  dtype: jnp.dtype

  def __post_init__(self) -> None:
    choose(NORMS, self.norm, "norm of a network")
    choose(ACTIVATIONS, self.activation, "activation of a network")
    if self.strides and (len(self.strides) != len(self.widths) or min(self.strides) < 1):
      raise UserError(
        f"A network has widths {self.widths} and strides {self.strides}: give one for each layer."
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, h: Array, train: bool) -> Array:
    act = ACTIVATIONS[self.activation]
    held = h = h.astype(self.dtype)
    for i, (width, stride) in enumerate(
      zip(self.widths, self.strides or (1,) * len(self.widths), strict=True)
    ):
      conv = nn.Conv(width, (self.kernel,) * 2, stride, use_bias=self.norm == "none", dtype=self.dtype)
      h = conv(h)
      if self.norm == "batch":
        h = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(h)
      h = act(h)
      if self.skip and (i + 1) % self.skip == 0:
        if held.shape != h.shape:
          held = nn.Conv(width, (1, 1), use_bias=False, dtype=self.dtype)(held)
        held = h = h + held
    return h


class ConvNet(nn.Module):
  """Generator of one stage: a trunk at the input's resolution, then one sub-pixel shuffle (Shi et al., 2016).

  A code enters through weights of its own, small ones, as in SRResNet.
  """

  factor: tuple[int, int]
  channels: int
  dtype: jnp.dtype
  widths: Sequence[int] = (32, 32, 64, 64, 128)
  kernel: int = 3
  skip: int = 2
  norm: str = "batch"
  activation: str = "relu"
  output: str = "sigmoid"
  scale: float = 1.0
  noise_channels: int = 0
  noise_scale: float = 0.1

  def stage_codes(self, lr_shape: Sequence[int]) -> list[tuple[int, int, int]]:
    """Shape of one image's code for an input [h, w, C]."""
    return [(lr_shape[0], lr_shape[1], self.noise_channels)]

  def __post_init__(self) -> None:
    choose(OUTPUTS, self.output, "config.network.output")
    super().__post_init__()

  @nn.compact
  def stage(self, s: int, x: Array, previous: Array, code: Array, train: bool) -> Array:
    """The only stage: x [B, h, w, C] and a code [B, h, w, noise channels] -> [B, H, W, C]."""
    del s, previous
    h = x / self.scale
    if self.noise_channels:
      h = jnp.concatenate([h, self.noise_scale * code], axis=-1)
    h = Trunk(self.widths, self.kernel, (), self.skip, self.norm, self.activation, self.dtype)(h, train)
    fy, fx = self.factor
    y = nn.Conv(self.channels * fy * fx, (self.kernel,) * 2, dtype=self.dtype)(h)
    return OUTPUTS[self.output](depth_to_space(y, self.factor).astype(jnp.float32)) * self.scale

  def __call__(self, x: Array, codes: Sequence[Array], train: bool) -> list[Array]:
    """x [B, h, w, C] and one code -> [the image [B, H, W, C]]."""
    return [self.stage(0, x, x, codes[0], train)]


class Critic(nn.Module):
  """Images [B, H, W, C] -> the logit of their being real [B]; the last layer sees all positions.

  `fold` merges blocks of pixels into channels first; inputs are divided by `scale`.
  """

  widths: Sequence[int]
  kernel: int
  strides: Sequence[int]
  norm: str
  activation: str
  fold: tuple[int, int]
  scale: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, y: Array, train: bool) -> Array:
    h = space_to_depth(y / self.scale, self.fold)
    h = Trunk(self.widths, self.kernel, self.strides, 0, self.norm, self.activation, self.dtype)(h, train)
    return nn.Dense(1, dtype=self.dtype)(h.reshape(h.shape[0], -1)).astype(jnp.float32)[:, 0]


class Denoiser(nn.Module):
  """Noisy images [B, H, W, C] -> clean ones, of any size that `fold` divides."""

  widths: Sequence[int]
  kernel: int
  norm: str
  activation: str
  residual: bool
  fold: tuple[int, int]
  scale: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, y: Array, train: bool) -> Array:
    h = space_to_depth(y / self.scale, self.fold)
    channels = h.shape[-1]
    h = Trunk(self.widths, self.kernel, (), 0, self.norm, self.activation, self.dtype)(h, train)
    h = nn.Conv(channels, (self.kernel,) * 2, dtype=self.dtype)(h)
    clean = depth_to_space(h, self.fold).astype(jnp.float32) * self.scale
    return y + clean if self.residual else clean
