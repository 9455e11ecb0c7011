"""Distance between a sample and the truth. Every function: samples [n, B, H, W, C] -> [n, B].

The peak of PSNR and the range of SSIM are 1, which is 255 in 8 bits, for the luma too although studio
swing uses less of it. Everything is float32: differences of uint8 would wrap modulo 256.
"""

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.errors import UserError
from sr_jax.losses import IMAGE_AXES
from sr_jax.metrics.protocol import Array, Batch, Protocol, as_saved, as_saved_luma, crop, decibels
from sr_jax.ops import swiss_roll

FLOOR = 1e-10  # of the mean squared error: a perfect image has 100 dB
WINDOW = 11  # pixels across the Gaussian of SSIM
SIGMA = 1.5  # of it
# Of the five scales of MS-SSIM, from fine to coarse.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def psnr(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """Peak signal-to-noise ratio in dB over all channels, of 8-bit images without the border."""
  images, truths = as_saved(samples, batch, protocol)
  return decibels(jnp.mean((images - truths) ** 2, IMAGE_AXES), FLOOR)


def psnr_y(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """`psnr` of the luma as MATLAB's scripts take it: bicubic enlargement has 28.42 dB on Set5 x4, border 4."""
  images, truths = as_saved_luma(samples, batch, protocol)
  return decibels(jnp.mean((images - truths) ** 2, IMAGE_AXES), FLOOR)


def ssim(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """Structural similarity, mean over the channels, of 8-bit images without the border.

  Wang et al., Image quality assessment: from error visibility to structural similarity, 2004: Gaussian
  window of 11 pixels, sigma 1.5, K1 0.01, K2 0.03, only where the window fits. Raises UserError for
  images smaller than the window.
  """
  return _ssim(*as_saved(samples, batch, protocol))


def ssim_y(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """`ssim` of the luma."""
  return _ssim(*as_saved_luma(samples, batch, protocol))


def ms_ssim(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """Multi-scale SSIM, mean over the channels, of 8-bit images of any size without the border.

  Wang, Simoncelli & Bovik, 2003: contrast and structure at five scales, halved by 2x2 means, and luminance at
  the last. The Gaussian shrinks with the image, window and sigma alike, as in the evaluation code that
  TensorFlow's model zoo had in 2016: the last scale of a 32x32 image is one window of 2x2. A negative
  contrast counts as 0. Raises UserError for images smaller than 16 pixels.
  """
  images, truths = as_saved(samples, batch, protocol)
  if min(truths.shape[-3:-1]) < 2 ** (len(SCALE_WEIGHTS) - 1):
    raise UserError(
      "MS-SSIM halves images four times and needs 16 pixels a side, but config.eval.border leaves "
      f"{truths.shape[-3:-1]} of one: set a smaller border, or take ms_ssim out of config.eval.metrics."
    )
  result = jnp.ones(images.shape[:-3])
  for scale, weight in enumerate(SCALE_WEIGHTS):
    value = _local_similarity(images, truths, luminance=scale == len(SCALE_WEIGHTS) - 1)
    result *= jnp.maximum(value, 0) ** weight
    images, truths = (_halved(v) for v in (images, truths))
  return result


def psnr_uint8_wrapped(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """Not a PSNR: what comes out when squared differences are taken in uint8, where they wrap modulo 256.

  For comparison with tables that were made so (Table 1 of Pixel Recursive Super Resolution: 28 to 29 dB in
  every row). `psnr` is the right one.
  """
  images, truths = (jnp.round(v * 255).astype(jnp.int32) for v in as_saved(samples, batch, protocol))
  wrapped = (images - truths) ** 2 % 256
  return decibels(jnp.mean(wrapped / 255**2, IMAGE_AXES), FLOOR)


def mse(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """Mean squared error on the [0, 1] scale, of clipped but unrounded samples without the border."""
  return jnp.mean((_clipped(samples, protocol) - crop(batch["hr"], protocol)) ** 2, IMAGE_AXES)


def mae(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """Mean absolute error on the [0, 1] scale, of clipped but unrounded samples without the border."""
  return jnp.mean(jnp.abs(_clipped(samples, protocol) - crop(batch["hr"], protocol)), IMAGE_AXES)


def swiss_roll_nll(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """-log p(sample) in nats under the density of the Swiss roll; its mean is the cross-entropy H[q, p_Y]."""
  if samples.shape[-3:] != swiss_roll.SHAPE:
    raise UserError(
      f"The metric swiss_roll_nll needs the data set swiss_roll, but images are {samples.shape[-3:]}: take "
      "it out of config.eval.metrics."
    )
  return -swiss_roll.log_density(samples)


def _clipped(samples: Array, protocol: Protocol) -> Array:
  return jnp.clip(crop(samples, protocol), 0, 1)


def _ssim(images: Array, truths: Array) -> Array:
  H, W = truths.shape[-3:-1]
  if min(H, W) < WINDOW:
    raise UserError(
      f"SSIM needs {WINDOW}x{WINDOW} pixels and config.eval.border leaves {H}x{W} of an image: "
      "set a smaller border, or take ssim and ssim_y out of config.eval.metrics."
    )
  return jax.vmap(lambda one: dm_pix.ssim(one, truths, filter_size=WINDOW))(images)


def _halved(v: Array) -> Array:
  """2x2 means of [..., H, W, C]; an odd last row or column is mirrored."""
  pads = [(0, 0)] * (v.ndim - 3) + [(0, v.shape[-3] % 2), (0, v.shape[-2] % 2), (0, 0)]
  v = jnp.pad(v, pads, mode="symmetric")
  return (v[..., ::2, ::2, :] + v[..., 1::2, ::2, :] + v[..., ::2, 1::2, :] + v[..., 1::2, 1::2, :]) / 4


def _local_similarity(images: Array, truths: Array, *, luminance: bool) -> Array:
  """Mean of SSIM's contrast and structure, with `luminance` of SSIM itself, in a window that fits: [n, B]."""
  size = min(WINDOW, *truths.shape[-3:-1])
  offsets = (np.arange(size) - (size - 1) / 2) * WINDOW / (size * SIGMA)
  weights = np.exp(-(offsets**2) / 2)
  weights /= weights.sum()

  def blur(v: Array) -> Array:
    for axis in (-3, -2):
      count = v.shape[axis] - size + 1
      v = sum(w * jax.lax.slice_in_dim(v, i, i + count, axis=axis) for i, w in enumerate(weights))
    return v

  c1, c2 = 0.01**2, 0.03**2
  means = blur(images), blur(truths)
  variances = (
    blur(images**2) - means[0] ** 2,
    blur(truths**2) - means[1] ** 2,
    blur(images * truths) - means[0] * means[1],
  )
  value = (2 * variances[2] + c2) / (variances[0] + variances[1] + c2)
  if luminance:
    value *= (2 * means[0] * means[1] + c1) / (means[0] ** 2 + means[1] ** 2 + c1)
  return jnp.mean(value, IMAGE_AXES)
