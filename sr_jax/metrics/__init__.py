"""The metrics by name, and their summary over the samples of an image."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sr_jax.errors import UserError, choose, find, short_name
from sr_jax.metrics.consistency import (
  lr_l1,
  lr_l2,
  lr_mse,
  lr_psnr,
  lr_psnr_8bit,
  lr_psnr_given,
  lr_psnr_truth,
  lr_psnr_worst,
)
from sr_jax.metrics.diversity import deviation, s_n_mse, std
from sr_jax.metrics.embedding import embedding, read_embedding
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
from sr_jax.metrics.lpips import lpips, lpips_diversity, lpips_spatial, read_lpips, s_n
from sr_jax.metrics.protocol import Array, Batch, Protocol, make_protocol
from sr_jax.metrics.sets import NEIGHBOURS, frechet, precision, read_squeeze, recall, squeeze_features

__all__ = [
  "METRICS",
  "Batch",
  "Metric",
  "Protocol",
  "check_count",
  "columns",
  "features",
  "lookup",
  "make_protocol",
  "measure",
  "measure_sets",
  "read_weights",
  "sets_note",
]

SCIENTIFIC = ".2e"


class Metric(NamedTuple):
  """What is measured of samples, and how it is shown.

  Attributes:
    fn: (samples, batch, protocol), and a fourth argument, the weights, if `read` is given. Returns [n, B]; or
      [B] for a metric of the set of an image's samples; or with `over` the features [1 + n, B, D] of the
      truths and of the samples. Samples are float [n, B, H, W, C] in [0, 1], unclipped; for `batch` see
      `measure`.
    better: "higher" | "lower", which tells the best of the samples; "" for a metric about the set.
    format: of its numbers in a table.
    read: config.eval -> the weights of a network that it measures with, read once and passed as arguments of
      the program; None if it has none. Raises UserError where they are missing.
    over: of a metric of all images together: (features of the truths [N, D], of one sample of each [N, D]) ->
      the number. None for a metric of each image.
    least: images that such a metric needs.
  """

  fn: Callable[..., Array]
  better: str
  format: str
  read: Callable[[ConfigDict], Any] | None = None
  over: Callable[[np.ndarray, np.ndarray], float] | None = None
  least: int = 1


METRICS: dict[str, Metric] = {
  "psnr": Metric(psnr, "higher", ".2f"),
  "psnr_y": Metric(psnr_y, "higher", ".2f"),
  "ssim": Metric(ssim, "higher", ".4f"),
  "ssim_y": Metric(ssim_y, "higher", ".4f"),
  "ms_ssim": Metric(ms_ssim, "higher", ".4f"),
  "psnr_uint8_wrapped": Metric(psnr_uint8_wrapped, "higher", ".2f"),
  "mse": Metric(mse, "lower", SCIENTIFIC),
  "mae": Metric(mae, "lower", SCIENTIFIC),
  "lr_psnr": Metric(lr_psnr, "higher", ".2f"),
  "lr_psnr_8bit": Metric(lr_psnr_8bit, "higher", ".2f"),
  "lr_psnr_given": Metric(lr_psnr_given, "higher", ".2f"),
  "lr_psnr_truth": Metric(lr_psnr_truth, "higher", ".2f"),
  "lr_psnr_worst": Metric(lr_psnr_worst, "", ".2f"),
  "lr_mse": Metric(lr_mse, "lower", SCIENTIFIC),
  "lr_l2": Metric(lr_l2, "lower", ".4g"),
  "lr_l1": Metric(lr_l1, "lower", SCIENTIFIC),
  "swiss_roll_nll": Metric(swiss_roll_nll, "lower", ".4g"),
  "std": Metric(std, "", ".2f"),
  "deviation": Metric(deviation, "", ".4g"),
  "lpips": Metric(lpips, "lower", ".4f", read_lpips),
  "lpips_spatial": Metric(lpips_spatial, "lower", ".4f", read_lpips),
  "lpips_diversity": Metric(lpips_diversity, "", ".4f", read_lpips),
  "s_n": Metric(s_n, "", ".2f", read_lpips),
  "s_n_mse": Metric(s_n_mse, "", ".2f"),
  "embedding": Metric(embedding, "lower", ".4f", read_embedding),
  "frechet_squeeze": Metric(squeeze_features, "lower", ".1f", read_squeeze, frechet, 2),
  "precision_squeeze": Metric(squeeze_features, "higher", ".3f", read_squeeze, precision, NEIGHBOURS + 1),
  "recall_squeeze": Metric(squeeze_features, "higher", ".3f", read_squeeze, recall, NEIGHBOURS + 1),
}
BEST = {"higher": jnp.max, "lower": jnp.min}


def lookup(name: str) -> Metric:
  """The metric of that name, perhaps "module:attribute"; raises UserError with the nearest right one."""
  metric = find(METRICS, name, "config.eval.metrics")
  if not isinstance(metric, Metric):
    raise UserError(f"config.eval.metrics has {name!r}, which is no sr_jax.metrics.Metric: correct it.")
  return metric


def columns(names: Sequence[str]) -> dict[str, Metric]:
  """The metrics by the name of their column: of "module:attribute" the attribute."""
  return {short_name(name): lookup(name) for name in names}


def read_weights(names: Sequence[str], settings: ConfigDict) -> dict[str, Any]:
  """The weights of those metrics that have some, by name; settings: `config.eval`."""
  return {name: read(settings) for name in names if (read := lookup(name).read)}


def measure(
  names: Sequence[str],
  samples: Array,
  batch: Batch,
  protocol: Protocol,
  weights: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Array]:
  """The named metrics of every image of a batch; those of all images together are left out.

  Args:
    names: entries of METRICS, or "module:attribute".
    samples: float [n, B, H, W, C] in [0, 1], unclipped.
    batch: `hr` float [B, H, W, C] and `lr` float [B, h, w, C] in [0, 1].
    protocol: how to measure.
    weights: from `read_weights`.

  Returns:
    Float [B] each: "<name>", the mean of the metric over the n samples; "<name>/best", that of the best
    sample, by `protocol.best_by` (but metrics with weights choose their own); with n > 1 "<name>/mean_image",
    the metric of the mean of the samples. For a metric about the set of samples "<name>" alone.

  Raises:
    UserError: for an unknown name, a `best_by` that is not measured, or images too small for the protocol.
  """
  results = {}
  measured = columns(names)
  order: Array | None = None
  if protocol.best_by:
    judge = choose(measured, protocol.best_by, "config.eval.best_by")
    if judge.read or judge.over or not judge.better:
      raise UserError(
        f"config.eval.best_by is {protocol.best_by!r}, which does not rank samples: choose another."
      )
    sign = 1 if judge.better == "higher" else -1
    order = jnp.argmax(sign * judge.fn(samples, batch, protocol), axis=0)
  for name, (column, metric) in zip(names, measured.items(), strict=True):
    if metric.over:
      continue
    given = (weights[name],) if metric.read else ()
    values = metric.fn(samples, batch, protocol, *given)
    if not metric.better:
      results[column] = values
      continue
    results[column] = jnp.mean(values, axis=0)
    if order is None or metric.read:
      results[f"{column}/best"] = BEST[metric.better](values, axis=0)
    else:
      results[f"{column}/best"] = jnp.take_along_axis(values, order[None], axis=0)[0]
    if samples.shape[0] > 1:
      mean_image = jnp.mean(samples, axis=0, keepdims=True)
      results[f"{column}/mean_image"] = metric.fn(mean_image, batch, protocol, *given)[0]
  return results


def features(
  names: Sequence[str],
  samples: Array,
  batch: Batch,
  protocol: Protocol,
  weights: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Array]:
  """What `measure_sets` compares, by a column that is measured of it; arguments as for `measure`.

  Returns:
    Float [1 + n, B, D] each: features of the truths, then of every draw.
  """
  found, seen = {}, _seen_by(names)
  for name, (column, metric) in zip(names, columns(names).items(), strict=True):
    if seen.get(column) == column:
      given = (weights[name],) if metric.read else ()
      found[column] = metric.fn(samples, batch, protocol, *given)
  return found


def _seen_by(names: Sequence[str]) -> dict[str, str]:
  """{column: the first column that compares the same features}, of metrics of all images together."""
  first: dict[Any, str] = {}
  return {
    column: first.setdefault((metric.fn, metric.read), column)
    for column, metric in columns(names).items()
    if metric.over
  }


def measure_sets(names: Sequence[str], found: Mapping[str, np.ndarray]) -> dict[str, float]:
  """The named metrics that are of all images together.

  Each draw of every image makes a set as large as that of the truths; the number is the mean over the draws,
  so that it does not depend on how many there are.

  Args:
    names: as for `measure`.
    found: {name: [1 + n, N, D]} of `features`, of all images; of what is missing there is no number.

  Returns:
    {column: number}; NaN of features that are not finite, and of fewer images than the metric needs.
  """
  results, measured = {}, columns(names)
  for column, source in _seen_by(names).items():
    if source not in found:
      continue
    metric, (truths, *draws) = measured[column], found[source]
    usable = len(truths) >= metric.least and np.isfinite(found[source]).all()
    values = [metric.over(truths, draw) for draw in draws] if metric.over and usable else [np.nan]
    results[column] = float(np.mean(values))
  return results


def sets_note(names: Sequence[str], images: int) -> dict[str, str]:
  """What a table must say beside metrics that are of all images together; {} without any."""
  of_sets = [column for column, metric in columns(names).items() if metric.over]
  text = f"{', '.join(of_sets)} of {images} images and as many truths; they depend on this number"
  return {"sets": text} if of_sets else {}


def check_count(names: Sequence[str], images: int) -> None:
  """Refuse metrics that are of all images together where there are too few; raises UserError."""
  for name in names:
    if (least := lookup(name).least) > images:
      raise UserError(
        f"The metric {name} needs at least {least} images, and config.eval.limit, config.train.eval_limit or "
        f"the test set leaves {images}: give more, or take it out of config.eval.metrics."
      )
