"""Finished evaluations side by side, image by image: is a difference more than the choice of test images?"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sr_jax import config as configs
from sr_jax.configs import base
from sr_jax.errors import UserError, check_choice, printable
from sr_jax.files import as_path, name_of
from sr_jax.images import SAME_IMAGE
from sr_jax.metrics import METRICS, Metric, columns
from sr_jax.metrics.classes import OF_SETS
from sr_jax.report.tables import ARROWS, markdown, read_per_image, table

RESAMPLES = 2000
# Of `config.eval`, what two evaluations must share for their numbers to mean the same.
PROTOCOL = (
  *(f"data.{key}" for key in ("channels", "centre", "resize")),
  *("border", "luma", "best_by", "classifier", "embedding.function", "embedding.sha256"),
  *(f"lpips.{key}" for key in ("net", "backbone_sha256", "heads_sha256")),
)


class Evaluation(NamedTuple):
  """What `evaluate` or `score` left in a folder.

  Attributes:
    name: the folder's in tables.
    samples: of each image.
    protocol: how it was measured, by key.
    images: names of the test images.
    fingerprints: of these, see `write_per_image`; {} of an earlier version's.
    rows: {kind: {column: [N]}}, where a row's kind is what follows the method's name: "" of single samples,
      ", best of 10", ", tau = 2".
    metrics: those that have columns.
    first_kind: of the single samples at the first temperature.
  """

  name: str
  samples: int
  protocol: dict[str, object]
  images: list[str]
  fingerprints: dict[str, np.ndarray]
  rows: dict[str, dict[str, np.ndarray]]
  metrics: dict[str, Metric]
  first_kind: str


def read_evaluation(folder: str | Path, name: str) -> Evaluation:
  """The evaluation in `folder`/evaluation.

  Raises:
    UserError: there is none, or one without the metrics of each image.
  """
  try:
    meta = json.loads((as_path(folder) / "evaluation" / "table.json").read_text())["meta"]
    images, rows, fingerprints = read_per_image(as_path(folder) / "evaluation")
    # One of an earlier version lacks keys that came later, whose defaults are what it did.
    settings = configs.flatten(base.get_config().eval) | configs.flatten(meta["eval"])
    label, title = next(iter(meta["single"].items()))
    # Whatever is done to a network's output, inputs and measurement are the same.
    operator = re.sub(r" consistency='\w+',", "", meta["operator"])
  except (OSError, ValueError, KeyError, IndexError) as error:
    raise UserError(
      f"{folder} has no evaluation that keeps the metrics of each image: run `sr-jax evaluate --workdir "
      f"{folder}`."
    ) from error
  method = title.removesuffix(f", {label}")
  kinds = {row.removeprefix(method): row for row in rows if row == method or row.startswith(f"{method}, ")}
  protocol = {f"config.eval.{key}": settings.get(key) for key in PROTOCOL} | {"the operator": operator}
  own = {kind: rows[row] for kind, row in kinds.items()}
  known = columns(settings["metrics"])
  return Evaluation(
    name, settings["samples"], protocol, images, fingerprints, own, known, title.removeprefix(method)
  )


def compare(folders: Sequence[str], metric: str = "", count: int = 5, seed: int = 0) -> str:
  """Evaluations of one test set beside each other; the later ones are compared with the first.

  One of a single sample at one temperature, such as a regression's, is compared with all rows of the others.

  Args:
    folders: with an evaluation each.
    metric: by whose differences images are named; "": the first.
    count: how many images are named of each folder.
    seed: of the bootstrap.

  Returns:
    Markdown: the means; the paired differences, each with a 95 % bootstrap interval over the images; and the
    images that differ most.

  Raises:
    UserError: fewer than two folders, one without an evaluation, or evaluations of other images or by another
      protocol.
  """
  if len(folders) < 2:
    raise UserError(f"{folders[0]} is one folder: give two or more to compare.")
  short = [name_of(folder) for folder in folders]
  names = short if len(set(short)) == len(short) else list(folders)
  found = [read_evaluation(*pair) for pair in zip(folders, names, strict=True)]
  if not set.intersection(*(set(e.rows) for e in _of_several_rows(found))):
    found = [_at_first_temperature(e) for e in found]
  first, *others = found
  for other in others:
    _check_alike(first, other)
  shown = METRICS | first.metrics
  # Metrics about a set of samples depend on how many it has.
  alike = all(e.samples == first.samples for e in others)
  left_out = set() if alike else {*OF_SETS, *(name for name, one in shown.items() if not one.better)}
  shared = {
    kind: [c for c in _row(first, kind) if c not in left_out and all(c in _row(e, kind) for e in others)]
    for kind in dict.fromkeys(kind for e in _of_several_rows(found) for kind in e.rows)
  }
  kinds = [kind for kind, names in shared.items() if names]
  if not kinds:
    raise UserError(
      f"{first.name} and the others have no metric in common: evaluate them with the same ones."
    )
  metric = metric or shared[kinds[0]][0]
  check_choice(shared[kinds[0]], metric, "--metric")
  headings = {c: c + ARROWS[shown[c].better if c in shown else ""] for kind in kinds for c in shared[kind]}
  means: dict[str, dict[str, float]] = {}
  differing: dict[str, dict[str, str]] = {}
  for kind in kinds:
    numbers = [np.stack([_row(e, kind)[c] for c in shared[kind]], axis=-1) for e in found]
    for e, values in zip(found, numbers, strict=True):
      row = dict(zip(shared[kind], map(float, values.mean(axis=0)), strict=True))
      means.setdefault(e.name + _kind(e, kind), {}).update(row)
    for e, values in zip(others, numbers[1:], strict=True):
      mean, low, high = paired(values - numbers[0], seed)
      own = _kind(e, kind)
      title = e.name + own if own == kind or len(first.rows) == 1 else f"{e.name}, to {first.name}{kind}"
      for name, ends in zip(shared[kind], zip(mean, low, high, strict=True), strict=True):
        differing.setdefault(title, {})[name] = _interval(*ends, shown.get(name))
  rows = [[title, *(cells.get(c, "") for c in headings)] for title, cells in differing.items()]
  return "\n".join(
    [
      f"# Means over {len(first.images)} images\n",
      table(means, shown),
      f"# Differences to {first.name}, image by image: mean [95 % bootstrap interval]\n",
      markdown([["", *headings.values()], *rows]),
      *_most(first, others, kinds[0], metric, count),
    ]
  )


def _of_several_rows(found: Sequence[Evaluation]) -> list[Evaluation]:
  """Those whose kinds of rows are compared; all, if each has one row."""
  return [e for e in found if len(e.rows) > 1] or list(found)


def _kind(e: Evaluation, kind: str) -> str:
  """Which of its rows stands for `kind`: the only one of a single sample for all kinds, best and mean too."""
  return next(iter(e.rows)) if len(e.rows) == 1 else kind


def _row(e: Evaluation, kind: str) -> dict[str, np.ndarray]:
  return e.rows.get(_kind(e, kind), {})


def _at_first_temperature(e: Evaluation) -> Evaluation:
  """Only the rows of the first temperature, which moves from their kinds into the evaluation's name."""
  rows = {
    kind.removeprefix(e.first_kind): values
    for kind, values in e.rows.items()
    if f"{kind}, ".startswith(f"{e.first_kind}, ")  # ", tau = 1.1" is no ", tau = 1"
  }
  return e._replace(name=e.name + e.first_kind, rows=rows)


def paired(differences: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The mean of differences [N, C] over N images, and both ends of its 95 % bootstrap interval: [C] each.

  Percentiles of the means of RESAMPLES draws of N images with replacement (Efron & Tibshirani, An
  Introduction to the Bootstrap, 1993, section 13.3). Of few images it is too narrow.
  """
  rng = np.random.default_rng(seed)
  N = len(differences)
  means = np.stack([differences[rng.integers(N, size=N)].mean(axis=0) for _ in range(RESAMPLES)])
  low, high = np.percentile(means, [2.5, 97.5], axis=0)
  return differences.mean(axis=0), low, high


def _interval(mean: float, low: float, high: float, metric: Metric | None) -> str:
  if not math.isfinite(mean):
    return "diverged"
  kind = f"+{metric.format if metric else '.4g'}"
  return f"{mean:{kind}} [{low:{kind}}, {high:{kind}}]"


def _most(first: Evaluation, others: Sequence[Evaluation], kind: str, column: str, count: int) -> list[str]:
  """The images whose `column` differs most from the first evaluation's, in Markdown, of each other one."""
  metric = (METRICS | first.metrics).get(column)
  form = metric.format if metric else ".4g"
  parts = []
  name = first.name + _kind(first, kind)
  for other in others:
    ours, theirs = _row(first, kind)[column], _row(other, kind)[column]
    title = other.name + _kind(other, kind)
    order = np.argsort(-np.nan_to_num(np.abs(theirs - ours), nan=np.inf), stable=True)[:count]
    cells = [["image", name, title, "difference"]]
    for i in order:
      cells.append(
        [
          printable(first.images[i]),
          *(format(v, form) for v in (ours[i], theirs[i])),
          format(theirs[i] - ours[i], f"+{form}"),
        ]
      )
    parts += [f"# Where {column} of {title} differs most\n", markdown(cells)]
  return parts


def _check_alike(first: Evaluation, other: Evaluation) -> None:
  """Refuse to compare numbers that are about other images or measured otherwise."""
  if first.images != other.images:
    raise UserError(
      f"{first.name} was evaluated on {len(first.images)} images and {other.name} on {len(other.images)}, "
      "and they are not the same: evaluate both on one test set."
    )
  for kind in first.fingerprints.keys() & other.fingerprints.keys():
    both = first.fingerprints[kind], other.fingerprints[kind]
    alike = np.isclose(*both, rtol=0, atol=SAME_IMAGE, equal_nan=True)
    if differing := [image for image, same in zip(first.images, alike, strict=True) if not same]:
      raise UserError(
        f"{len(differing)} of {len(first.images)} images have another {kind} in {first.name} than in "
        f"{other.name}, {printable(differing[0])} for one: evaluate both on one test set."
      )
  for key, value in first.protocol.items():
    theirs = other.protocol[key]
    unknown = key.endswith(("sha256", "classifier")) and "" in (value, theirs)
    if theirs != value and not unknown:
      raise UserError(
        f"{key} is {value!r} in {first.name} and {theirs!r} in {other.name}: evaluate both alike."
      )
