"""How samples and truths are made ready for a metric: one place for border, luma and rounding."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sr_jax.errors import UserError
from sr_jax.ops.colour import luma, quantise
from sr_jax.ops.operator import Operator

Array = jax.Array
# `hr` float [B, H, W, C] and `lr` float [B, h, w, C], both in [0, 1].
Batch = dict[str, Array]


class Protocol(NamedTuple):
  """What must be said beside a number for it to mean anything.

  Attributes:
    operator: the A that the low-resolution inputs were made with.
    border: pixels cut from every side before a sample is compared with the truth.
    luma: "bt601" (MATLAB's studio swing) or "bt709", the Y of psnr_y and ssim_y.
    best_by: the metric whose best sample is the best for the others too; "": each metric has its own.
  """

  operator: Operator
  border: int
  luma: str
  best_by: str = ""


def make_protocol(operator: Operator, settings: ConfigDict) -> Protocol:
  """The protocol of `config.eval`."""
  return Protocol(operator, settings.border, settings.luma, settings.best_by)


def crop(x: Array, protocol: Protocol) -> Array:
  """[..., H, W, C] without the border; raises UserError where nothing would be left."""
  H, W, border = x.shape[-3], x.shape[-2], protocol.border
  if min(H, W) <= 2 * border:
    raise UserError(
      f"config.eval.border = {border} leaves nothing of an image of {H}x{W} pixels: "
      "set a smaller border or evaluate larger images."
    )
  return x[..., border : H - border, border : W - border, :]


def as_saved(samples: Array, batch: Batch, protocol: Protocol) -> tuple[Array, Array]:
  """Samples [n, B, H', W', C] as an 8-bit file would hold them, and truths [B, H', W', C]; no border."""
  return quantise(crop(samples, protocol)), crop(batch["hr"], protocol)


def as_saved_luma(samples: Array, batch: Batch, protocol: Protocol) -> tuple[Array, Array]:
  """The Y of `as_saved`: [n, B, H', W', 1] and [B, H', W', 1], float in [0, 1].

  Rounded to 8 bits, as MATLAB's rgb2ycbcr returns bytes for bytes: it makes 0.013 dB on Set5 x4. A grey
  image is its own Y, full swing, as in the MATLAB scripts of the field.
  """
  images, truths = as_saved(samples, batch, protocol)
  return quantise(luma(images, protocol.luma)), quantise(luma(truths, protocol.luma))


def decibels(mse: Array, floor: float) -> Array:
  """PSNR of peak 1 in dB from a mean squared error, at most -10 log10(floor): a table holds no infinity."""
  return -10 * jnp.log10(jnp.maximum(mse, floor))
