"""Distance between a sample and the truth. Every function: samples [n, B, H, W, C] -> [n, B].

The peak of PSNR and the range of SSIM are 1, which is 255 in 8 bits, for the luma too although studio
swing uses less of it. Everything is float32: differences of uint8 would wrap modulo 256.
"""

import dm_pix
import jax
import jax.numpy as jnp

from sr_jax.errors import UserError
from sr_jax.metrics.protocol import Array, Batch, Protocol, as_saved, as_saved_luma, crop, decibels
from sr_jax.ops import swiss_roll

FLOOR = 1e-10  # of the mean squared error: a perfect picture has 100 dB
WINDOW = 11  # pixels across the Gaussian of SSIM
PIXELS = (-3, -2, -1)


def psnr(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """Peak signal-to-noise ratio in dB over all channels, of 8-bit pictures without the border."""
  pictures, truths = as_saved(samples, batch, protocol)
  return decibels(jnp.mean((pictures - truths) ** 2, PIXELS), FLOOR)


def psnr_y(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """`psnr` of the luma as MATLAB's scripts take it: bicubic enlargement has 28.42 dB on Set5 x4, border 4."""
  pictures, truths = as_saved_luma(samples, batch, protocol)
  return decibels(jnp.mean((pictures - truths) ** 2, PIXELS), FLOOR)


def ssim(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """Structural similarity, mean over the channels, of 8-bit pictures without the border.

  Wang et al., Image quality assessment: from error visibility to structural similarity, 2004: Gaussian
  window of 11 pixels, sigma 1.5, K1 0.01, K2 0.03, only where the window fits. Raises UserError for
  pictures smaller than the window.
  """
  return _ssim(*as_saved(samples, batch, protocol))


def ssim_y(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """`ssim` of the luma."""
  return _ssim(*as_saved_luma(samples, batch, protocol))


def mse(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """Mean squared error on the [0, 1] scale, of clipped but unrounded samples without the border."""
  return jnp.mean((_clipped(samples, protocol) - crop(batch["hr"], protocol)) ** 2, PIXELS)


def mae(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """Mean absolute error on the [0, 1] scale, of clipped but unrounded samples without the border."""
  return jnp.mean(jnp.abs(_clipped(samples, protocol) - crop(batch["hr"], protocol)), PIXELS)


def swiss_roll_nll(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """-log p(sample) in nats under the density of the Swiss roll; its mean is the cross-entropy H[q, p_Y]."""
  if samples.shape[-3:] != swiss_roll.SHAPE:
    raise UserError(f"swiss_roll_nll is of the data set swiss_roll, not of pictures of {samples.shape[-3:]}.")
  return -swiss_roll.log_density(samples)


def _clipped(samples: Array, protocol: Protocol) -> Array:
  return jnp.clip(crop(samples, protocol), 0, 1)


def _ssim(pictures: Array, truths: Array) -> Array:
  H, W = truths.shape[-3:-1]
  if min(H, W) < WINDOW:
    raise UserError(
      f"SSIM needs {WINDOW}x{WINDOW} pixels and eval.border leaves {H}x{W} of a picture; "
      "set a smaller border or take ssim and ssim_y out of eval.metrics."
    )
  return jax.vmap(lambda one: dm_pix.ssim(one, truths, filter_size=WINDOW))(pictures)
