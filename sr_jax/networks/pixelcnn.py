"""Masked convolutions, and a PixelCNN density of images with real values."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax.errors import UserError
from sr_jax.networks.layers import CONV_LAYOUT, check_norm, conv_norm_act, recomputed
from sr_jax.networks.mcgsm import MCGSM

Array = jax.Array


def colour_group(n: int, groups: int) -> np.ndarray:
  """The colour group of each of n units: `groups` contiguous parts, [n] of 0 to groups - 1."""
  return np.arange(n) * groups // n


def causal_mask(
  kernel: tuple[int, int], inputs: int, outputs: int, groups: int, first: bool, parts: int = 1
) -> np.ndarray:
  """Ones where a pixel may look: [k_y // 2 + 1, k_x, in, out], the rows of a kernel down to its centre.

  Of a kernel of one row only the columns up to the centre are left: [1, k_x // 2 + 1, in, out].
  At the centre a unit of colour group g sees the groups below g, and with `first` False (mask B) g itself
  too: the first layer (mask A) sees the image, whose colour g is to be predicted; in later layers the units
  of group g do not depend on colour g.
  The outputs are `parts` equal parts, each with all the groups: a gate's two halves.
  """
  rows, centre = kernel[0] // 2 + 1, kernel[1] // 2
  seen = colour_group(inputs, groups)[:, None]
  seeing = np.tile(colour_group(outputs // parts, groups), parts)
  mask = np.ones((rows, kernel[1], inputs, outputs), np.float32)
  mask[-1, centre + 1 :] = 0
  mask[-1, centre] = seen < seeing if first else seen <= seeing
  return mask[:, : centre + 1] if kernel[0] == 1 else mask


def initial(stddev: float) -> nn.initializers.Initializer:
  """Normal weights of that deviation, cut at two deviations; 0: LeCun's variance."""
  return nn.initializers.truncated_normal(stddev) if stddev else nn.initializers.lecun_normal()


class MaskedConv(nn.Module):
  """Convolution of a pixel's units with what comes before them in raster and colour order, as in PixelCNN.

  `kernel` gives the odd sizes (k_y, k_x) of the whole kernel, of which only the rows down to the centre
  exist; (1, k) looks to the left alone, and of it only the columns up to the centre exist. `first` chooses
  mask A, otherwise B; for `parts` see `causal_mask`.
  Weights start as LeCun's, or with `stddev` as `initial` says.
  Source: van den Oord, Kalchbrenner and Kavukcuoglu, 2016, section 3.4.
  """

  features: int
  kernel: tuple[int, int]
  groups: int
  first: bool
  dtype: jnp.dtype
  use_bias: bool = True
  parts: int = 1
  stddev: float = 0.0

  def __post_init__(self) -> None:
    if not all(size % 2 for size in self.kernel):
      raise UserError(f"The kernel of a masked convolution is {self.kernel}: take odd sizes.")
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, H, W, in] -> [B, H, W, features]."""
    up, side = self.kernel[0] // 2, self.kernel[1] // 2
    right = side if up else 0
    mask = causal_mask(self.kernel, x.shape[-1], self.features, self.groups, self.first, self.parts)

    def init(key: Array, shape: tuple[int, ...]) -> Array:
      if self.stddev:
        return initial(self.stddev)(key, shape)
      # LeCun's variance of 1 / fan-in, with a fan-in of its own for each output: the weights that it has.
      fan_in = np.maximum(mask.sum(axis=(0, 1, 2)), 1)
      return nn.initializers.lecun_normal()(key, shape) * np.sqrt(mask[..., 0].size / fan_in)

    kernel = (self.param("kernel", init, mask.shape) * mask).astype(self.dtype)
    x = x.astype(self.dtype)
    if self.kernel == (1, 1):  # a product's gradient is several times faster on a CPU than a convolution's
      y = x @ kernel[0, 0]
    else:
      pads = ((up, 0), (side, right))
      y = jax.lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=CONV_LAYOUT)
    if self.use_bias:
      y += self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
    return y


class PixelDensity(nn.Module):
  """log p(y) of an image as the sum of log p(y_j | y_<j), j in raster order and within a pixel by colour.

  `layers` masked convolutions with batch normalisation and ReLU, each but the first added to its input, as
  in PixelCNN; then one MCGSM for each colour on the features that this colour may see. The order holds
  exactly in evaluation mode; in training mode batch statistics mix all pixels.
  Source: Sonderby et al., arXiv 1610.04490, section 3.4 and appendix D (AffLL).
  """

  channels: int
  dtype: jnp.dtype
  width: int
  layers: int
  kernel: int
  first_kernel: int
  components: int
  quadratic: int
  scales: int
  norm: str

  def __post_init__(self) -> None:
    check_norm(self.norm)
    super().__post_init__()

  @nn.compact
  def __call__(self, y: Array, train: bool) -> Array:
    """y [B, H, W, C], values about [0, 1] -> log p(y_j | y_<j) [B, H, W, C], nats per unit of y, float32."""

    def layer(h: Array, kernel: int, first: bool) -> Array:
      conv = partial(MaskedConv, self.width, (kernel, kernel), self.channels, first, self.dtype)
      act = partial(conv_norm_act, conv=conv, norm=self.norm, activation="relu", train=train)
      return recomputed(self, act, h)

    h = layer(y, self.first_kernel, first=True)
    for _ in range(self.layers - 1):
      h = h + layer(h, self.kernel, first=False)
    group, densities = colour_group(self.width, self.channels), []
    for c in range(self.channels):
      mixture = MCGSM(self.components, self.quadratic, self.scales, name=f"colour_{c}")
      seen = np.sum(group <= c)
      densities.append(recomputed(self, mixture, h[..., :seen], y[..., c]))
    return jnp.stack(densities, axis=-1)
