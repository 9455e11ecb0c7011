"""One table, one grid of images and one plot of what is finished of a sweep."""

import contextlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sr_jax import files
from sr_jax.errors import UserError, check_choice, short_name
from sr_jax.evaluate import Report
from sr_jax.images import SAME_IMAGE
from sr_jax.metrics import METRICS, columns
from sr_jax.report.grids import comparison_grid, read_images, samples_grid, shared_images
from sr_jax.report.plots import plot
from sr_jax.report.tables import read_per_image, write_report
from sr_jax.sweep import Planned, failure, read_reports, state

Rows = dict[str, dict[str, float]]


def tabulate(runs: Iterable[Planned], workdir: str | Path, command: str = "", metric: str = "") -> str:
  """Write sweep.md, sweep.json, sweep_plot.png and, of the first trial of each row, sweep.png (a sample of
  each image) and sweep_samples.png (all samples of the first image).

  The table: the mean of each row's finished trials, of single samples, of the best and of the mean image,
  and, where there are several, their standard deviation; baselines as `collect` has them. If trials of a row
  diverged, a further row says how many. Trials that are missing are named below the table, with their state
  or the reason of their failure.

  Args:
    runs: the trials.
    workdir: of the sweep.
    command: kept in the JSON file.
    metric: the column that is plotted; "": the first.

  Returns:
    The table as text.

  Raises:
    UserError: `metric` is no column, or there is no such folder.
  """
  folder = files.as_path(workdir)
  if not folder.is_dir():
    raise UserError(f"--workdir {workdir} does not exist: give the folder of a sweep.")
  # Of two programs that end at once, the second must see the first one's trial.
  with files.locked(folder, wait=True):
    return _tabulate(list(runs), folder, command, metric)


def collect(
  runs: Iterable[Planned], reports: Mapping[str, Report]
) -> tuple[Rows, dict[str, list[dict[str, float]]]]:
  """What the finished trials measured: rows of the baselines, and of each other row those of its trials.

  Each column of a baseline is that of the first trial that has it; of trials with another operator, other
  images or another way to measure they have rows of their own, which name the trial's. What models judge
  differently, "sample_loss_...", is left out of the one row that trials share.
  """
  baselines: Rows = {}
  first: dict[str, str] = {}
  mixed: dict[str, set[str]] = {}
  measured: dict[str, list[dict[str, float]]] = {}
  for run in runs:
    if report := reports.get(run.entry.id):
      for name in map(short_name, run.config.eval.baselines):
        if name in report.rows:
          alike = first.setdefault(name, report.conditions) == report.conditions
          row = name if alike else f"{name} ({run.entry.trial.row})"
          values, before = report.rows[name], baselines.get(row, {})
          judged = {c for c in values.keys() & before.keys() if c.startswith("sample_loss_")}
          mixed.setdefault(row, set()).update(c for c in judged if values[c] != before[c])
          baselines[row] = values | before
      for kind, values in report.own.items():
        measured.setdefault(run.entry.trial.row + kind, []).append(values)
  for row, left_out in mixed.items():
    baselines[row] = {c: v for c, v in baselines[row].items() if c not in left_out}
  return baselines, measured


def _other_images(runs: list[Planned], reports: Mapping[str, Report]) -> list[str]:
  """The trials that were measured on other images than the first one of the same test set."""
  first: dict[str, tuple[list[str], np.ndarray]] = {}
  others = []
  for run in runs:
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
      if report := reports.get(run.entry.id):
        names, _, fingerprints = read_per_image(run.folder / "evaluation")
        truth = fingerprints["truth"]
        known, there = first.setdefault(report.conditions, (names, truth))
        if known != names or not np.allclose(truth, there, rtol=0, atol=SAME_IMAGE):
          others.append(run.entry.id)
  return others


def _tabulate(runs: list[Planned], workdir: Path, command: str, metric: str) -> str:
  reports = read_reports(runs)
  means, measured = collect(runs, reports)
  first: dict[str, Path] = {}
  for run in runs:
    if run.entry.id in reports:
      first.setdefault(run.entry.trial.row, run.folder)
  table, spreads = dict(means), Rows()
  for row, trials in measured.items():
    shared = [c for c in trials[0] if all(c in v for v in trials)]
    numbers = {c: np.array([v[c] for v in trials], float) for c in shared}
    table[row] = means[row] = {c: float(v.mean()) for c, v in numbers.items()}
    if len(trials) > 1:
      spreads[row] = {c: float(v.std(ddof=1)) for c, v in numbers.items()}
      table[f"{row}, +- over {len(trials)}"] = spreads[row]
  names = list(dict.fromkeys(c for values in means.values() for c in values))
  if metric:
    check_choice(names, metric, "--table")
  metric = metric or next(iter(names), "")
  missing = [(run, found) for run in runs if (found := state(run, reports)) != "finished"]
  diverged = [run.entry.trial.row for run, found in missing if found == "diverged"]
  for row in dict.fromkeys(diverged):
    table[f"{row}, {diverged.count(row)} diverged"] = dict.fromkeys(names[:1], math.nan)
  meta: dict[str, Any] = {"command": command, "trials": len(runs)}
  if missing:
    meta["missing"] = "; ".join(f"{run.entry.id} ({failure(run) or found})" for run, found in missing)
  if others := _other_images(runs, reports):
    meta["other images"] = (
      f"{', '.join(others)} had other test images than the first trial, so compare no rows with them: give "
      "the sweep another --workdir"
    )
  shown = {**METRICS, **{k: v for run in runs for k, v in columns(run.config.eval.metrics).items()}}
  images = {row: read_images(folder / "evaluation" / "images.npz") for row, folder in first.items()}
  images = shared_images({row: found for row, found in images.items() if found})
  comparison_grid(images, workdir / "sweep.png")
  samples_grid({row: found[0] for row, found in images.items() if found}, workdir / "sweep_samples.png")
  points = {
    row: (values[metric], spreads.get(row, {}).get(metric, 0.0))
    for row, values in means.items()
    if metric in values
  }
  plot(points, metric, workdir / "sweep_plot.png")
  return write_report(workdir, "sweep", table, meta, shown)
