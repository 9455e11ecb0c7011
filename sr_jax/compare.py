"""Finished evaluations side by side, image by image: is a difference more than the choice of test images?"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sr_jax import config as configs
from sr_jax.errors import UserError, choose
from sr_jax.metrics import METRICS, Metric, columns
from sr_jax.report.tables import ARROWS, markdown, read_per_image, table

RESAMPLES = 2000
# Of `config.eval`, what two evaluations must share for their numbers to be about the same thing.
PROTOCOL = (
  *(f"data.{key}" for key in ("name", "split", "channels", "centre", "resize")),
  *("border", "luma", "best_by"),
  *(f"lpips.{key}" for key in ("net", "backbone_sha256", "heads_sha256")),
)


class Evaluation(NamedTuple):
  """What `evaluate` or `score` left in a folder.

  Attributes:
    name: the folder's in tables.
    protocol: how it was measured.
    images: names of the test images.
    rows: {what stands behind the method's name in the table: {column: [N]}}: "" of single samples,
      ", best of 10", or with temperatures ", tau = 2".
    metrics: those that have columns.
  """

  name: str
  protocol: dict[str, object]
  images: list[str]
  rows: dict[str, dict[str, np.ndarray]]
  metrics: dict[str, Metric]


def read_evaluation(folder: str | Path, name: str) -> Evaluation:
  """The evaluation in `folder`/evaluation.

  Raises:
    UserError: there is none, or one without the metrics of each image.
  """
  try:
    meta = json.loads((Path(folder) / "evaluation" / "table.json").read_text())["meta"]
    images, rows = read_per_image(Path(folder) / "evaluation")
    settings = configs.flatten(meta["eval"])
    protocol = {f"config.eval.{key}": settings.get(key) for key in PROTOCOL}
    label, title = next(iter(meta["single"].items()))
    method = title.removesuffix(f", {label}")
    # What is done to a network's output changes neither the inputs nor the measurement.
    operator = re.sub(r"consistency='\w+'", "", meta["operator"])
    metrics = columns(meta["eval"]["metrics"])
  except (OSError, ValueError, KeyError, IndexError, StopIteration) as error:
    raise UserError(
      f"{folder} has no evaluation that keeps the metrics of each image: run `sr-jax evaluate --workdir {folder}`."
    ) from error
  own = {row.removeprefix(method): v for row, v in rows.items() if re.match(re.escape(method) + "(,|$)", row)}
  return Evaluation(name, {**protocol, "the operator": operator}, images, own, metrics)


def compare(folders: Sequence[str], metric: str = "", images: int = 5, seed: int = 0) -> str:
  """Evaluations of the same test set in one text.

  Args:
    folders: with an evaluation each; the others are compared with the first.
    metric: by whose differences images are named; "": the first that all have.
    images: how many are named of each folder.
    seed: of the bootstrap.

  Returns:
    Markdown: means; the paired differences to the first folder, each with a 95 % bootstrap interval over the
    images; and the images that differ most.

  Raises:
    UserError: fewer than two folders, one without an evaluation, or evaluations of other images or by another
      protocol.
  """
  if len(folders) < 2:
    raise UserError(f"There is one folder to compare, {folders[0]}: give two or more.")
  short = [Path(folder).resolve().name for folder in folders]
  names = short if len(set(short)) == len(short) else list(folders)
  first, *others = found = [read_evaluation(*pair) for pair in zip(folders, names, strict=True)]
  for other in others:
    _check_alike(first, other)
  kinds = {
    kind: [c for c in first.rows[kind] if all(c in e.rows[kind] for e in found)]
    for kind in first.rows
    if all(kind in e.rows for e in found)
  }
  if not kinds:
    raise UserError(
      f"{first.name} and the others share no row ({', '.join(first.rows)}): evaluate them at the same temperatures."
    )
  shown = METRICS | first.metrics
  means = {
    e.name + kind: {c: float(e.rows[kind][c].mean()) for c in shared}
    for kind, shared in kinds.items()
    for e in found
  }
  return ""
