"""The metrics by name, and their summary over the samples of an image."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax.numpy as jnp

from sr_jax.errors import choose
from sr_jax.metrics.consistency import lr_l1, lr_l2, lr_mse, lr_psnr, lr_psnr_8bit
from sr_jax.metrics.diversity import std
from sr_jax.metrics.fidelity import (
  mae,
  ms_ssim,
  mse,
  psnr,
  psnr_uint8_wrapped,
  psnr_y,
  ssim,
  ssim_y,
  swiss_roll_nll,
)
from sr_jax.metrics.protocol import Array, Batch, Protocol

__all__ = ["METRICS", "Batch", "Metric", "Protocol", "lookup", "measure"]


class Metric(NamedTuple):
  """A function of samples, batch and protocol.

  Attributes:
    fn: samples float [n, B, H, W, C] in [0, 1], unclipped; -> [n, B], or [B] if it is about the set.
    best: jnp.max or jnp.min, which takes the best of the samples; None for a metric about the set.
  """

  fn: Callable[[Array, Batch, Protocol], Array]
  best: Callable[..., Array] | None


METRICS: dict[str, Metric] = {
  "psnr": Metric(psnr, jnp.max),
  "psnr_y": Metric(psnr_y, jnp.max),
  "ssim": Metric(ssim, jnp.max),
  "ssim_y": Metric(ssim_y, jnp.max),
  "ms_ssim": Metric(ms_ssim, jnp.max),
  "psnr_uint8_wrapped": Metric(psnr_uint8_wrapped, jnp.max),
  "mse": Metric(mse, jnp.min),
  "mae": Metric(mae, jnp.min),
  "lr_psnr": Metric(lr_psnr, jnp.max),
  "lr_psnr_8bit": Metric(lr_psnr_8bit, jnp.max),
  "lr_mse": Metric(lr_mse, jnp.min),
  "lr_l2": Metric(lr_l2, jnp.min),
  "lr_l1": Metric(lr_l1, jnp.min),
  "swiss_roll_nll": Metric(swiss_roll_nll, jnp.min),
  "std": Metric(std, None),
}


def lookup(name: str) -> Metric:
  """The metric of that name; raises UserError with the nearest right one."""
  return choose(METRICS, name, "config.eval.metrics")


def measure(names: Iterable[str], samples: Array, batch: Batch, protocol: Protocol) -> dict[str, Array]:
  """The named metrics of every image of a batch.

  Args:
    names: entries of METRICS.
    samples: float [n, B, H, W, C] in [0, 1], unclipped.
    batch: `hr` float [B, H, W, C] and `lr` float [B, h, w, C] in [0, 1].
    protocol: how to measure.

  Returns:
    Float [B] each: "<name>", the mean of the metric over the n samples; "<name>/best", its best over
    the samples; with n > 1 "<name>/mean_image", the metric of the mean of the samples. For a metric
    about the set of samples "<name>" alone.

  Raises:
    UserError: for an unknown name, or images too small for the protocol.
  """
  results = {}
  for name in names:
    fn, best = lookup(name)
    values = fn(samples, batch, protocol)
    if best is None:
      results[name] = values
      continue
    results[name] = jnp.mean(values, axis=0)
    results[f"{name}/best"] = best(values, axis=0)
    if samples.shape[0] > 1:
      mean_image = jnp.mean(samples, axis=0, keepdims=True)
      results[f"{name}/mean_image"] = fn(mean_image, batch, protocol)[0]
  return results
