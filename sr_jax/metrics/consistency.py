"""Distance in low resolution between A of a sample and the input: does Ay = x hold?

Samples [n, B, H, W, C] -> [n, B] if not said otherwise; the whole image counts, no border is cut. The
sample is unclipped unless the name says 8bit: clipping moves it off {y : Ay = x} by itself.
"""

import jax.numpy as jnp

from sr_jax import losses
from sr_jax.losses import IMAGE_AXES
from sr_jax.metrics.protocol import Array, Batch, Protocol, decibels
from sr_jax.ops.colour import quantise

FLOOR = 1e-15  # of the mean squared error: 150 dB, where float32 itself ends


def lr_psnr(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """PSNR in dB between A(sample) and the input."""
  return decibels(lr_mse(samples, batch, protocol), FLOOR)


def lr_psnr_8bit(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """`lr_psnr` of the sample as an 8-bit file would hold it: clipped and rounded first."""
  return lr_psnr(quantise(samples), batch, protocol)


def lr_psnr_given(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """PSNR in dB between the 8-bit sample, reduced and rounded as the operator rounds, and the input."""
  return _lr_psnr_rounded(samples, batch["lr"], protocol)


def lr_psnr_truth(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """As `lr_psnr_given`, but against the truth reduced in the same way, which is NTIRE 2021's LR-PSNR.

  It says less where the given input was made otherwise. The challenge asks for 45 dB.
  """
  return _lr_psnr_rounded(samples, protocol.operator.degrade(batch["hr"]), protocol)


def lr_psnr_worst(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """`lr_psnr_truth` of the worst of an input's samples: [B]."""
  return lr_psnr_truth(samples, batch, protocol).min(axis=0)


def _lr_psnr_rounded(samples: Array, lr: Array, protocol: Protocol) -> Array:
  reduced = protocol.operator.degrade(quantise(samples))
  return decibels(jnp.mean((reduced - lr) ** 2, IMAGE_AXES), FLOOR)


def lr_mse(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """Mean squared distance between A(sample) and the input, on the [0, 1] scale."""
  return jnp.mean((protocol.operator.A(samples) - batch["lr"]) ** 2, IMAGE_AXES)


def lr_l2(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """Euclidean distance between A(sample) and the input: the root of the sum over all sub-pixels."""
  return jnp.sqrt(jnp.sum((protocol.operator.A(samples) - batch["lr"]) ** 2, IMAGE_AXES))


def lr_l1(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """Mean absolute distance between A(sample) and the input, on the [0, 1] scale."""
  return losses.lr_l1(protocol.operator, samples, batch["lr"])
