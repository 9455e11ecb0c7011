"""Runs one after another on this machine: the stages of a run, and the trials of a sweep in one table."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sr_jax import parallel
from sr_jax.errors import Diverged, UserError, short_name
from sr_jax.evaluate import Images, Report, evaluate_run, make_watch, read_report
from sr_jax.metrics import METRICS, columns
from sr_jax.report.grids import comparison_grid
from sr_jax.report.tables import write_report
from sr_jax.run import Run
from sr_jax.stages import Sources, check_evaluation, check_stages, plan_stages
from sr_jax.train import train

log = logging.getLogger(__name__)


def train_stages(config: ConfigDict, workdir: str | Path, sources: Sources | None = None) -> Run:
  """Train the stages of `config` in folders of `workdir` of their names, then `config` itself in `workdir`.

  Stages that `config.init_from` does not ask for are left out; one that is done is not done again. Returns
  the last run, which a stop may have left unfinished.

  Raises:
    UserError: as `train`; all stages are checked before the first begins.
  """
  sources = sources or Sources()
  stages = plan_stages(config, workdir)
  check_stages(stages, sources)
  for stage in stages:
    own = stage.config
    test = sources(own.eval.data, "config.eval.data")
    watch = make_watch(own, test) if own.train.eval_every else None
    run = train(own, stage.folder, watch, stage.earlier, sources(own.data))
    if int(run.state.step) < own.train.rounds:
      break
  return run


class Trial(NamedTuple):
  """One run of a sweep: what the sweep() of a config file yields, as a tuple.

  Attributes:
    row: its row in the table; trials that share a row (other seeds) are averaged.
    variant: what get_config is called with; "" for nothing.
    overrides: {"seed": 3, "optim.generator.learning_rate": 1e-3}, as --config.KEY=VALUE would set them.
  """

  row: str
  variant: str = ""
  overrides: Mapping[str, Any] = {}


def sweep(
  trials: Iterable[Trial], configure: Callable[[Trial], ConfigDict], workdir: str | Path, command: str = ""
) -> str:
  """Train and evaluate every trial in a folder of its own; go on where an earlier call stopped.

  Args:
    trials: what to run; all are checked before the first is.
    configure: trial -> its config.
    workdir: where the runs, sweep.md, sweep.json and sweep.png (the first trial of each row) go.
    command: kept in the JSON file.

  Returns:
    The table: the mean of each row's trials and, where there are several, their standard deviation; baselines
    as in the first trial that has them. A row of which trials diverged says how many, and is the mean of the
    others. "" if Ctrl-C or SIGTERM stopped it.

  Raises:
    UserError: a config that cannot be run, or two trials that are the same.
  """
  runs = {name: (trial, configure(trial)) for name, trial in _folders(list(trials)).items()}
  sources = Sources()
  checked: set[str] = set()
  for name, (_, config) in runs.items():
    alike = config.copy_and_resolve_references()
    alike.seed = 0
    if alike.to_json() not in checked:
      check_evaluation(config, sources)
      check_stages(plan_stages(config, Path(workdir) / name), sources)
      checked.add(alike.to_json())
  measured: dict[str, list[dict[str, float]]] = {}
  diverged: dict[str, int] = {}
  baselines: dict[str, dict[str, float]] = {}
  images: dict[str, Images] = {}
  for number, (name, (trial, config)) in enumerate(runs.items()):
    log.info("Trial %d of %d: %s", number + 1, len(runs), name)
    # Baselines do not depend on the trial: once is enough, where no model judges them.
    known = () if config.eval.judge else baselines
    config.eval.baselines = tuple(name for name in config.eval.baselines if short_name(name) not in known)
    try:
      report = _report(config, Path(workdir) / name, sources, command)
    except Diverged as error:
      log.warning("%s diverged: %s", name, error)
      diverged[trial.row] = diverged.get(trial.row, 0) + 1
      continue
    if report is None:
      return ""
    for label, values in report.single.items():
      measured.setdefault(trial.row + (label and f", {label}"), []).append(values)
    images.setdefault(trial.row, report.images)
    ours = {row: report.rows[row] for row in map(short_name, config.eval.baselines) if row in report.rows}
    baselines = ours | baselines
  table = dict(baselines)
  for row, trials_of_row in measured.items():
    numbers = {c: np.array([v[c] for v in trials_of_row], float) for c in trials_of_row[0]}
    table[row] = {c: float(v.mean()) for c, v in numbers.items()}
    if len(trials_of_row) > 1:
      table[f"{row}, +- over {len(trials_of_row)}"] = {c: float(v.std(ddof=1)) for c, v in numbers.items()}
  first = next(iter(table.values()), {})
  for row, count in diverged.items():
    table[f"{row}, {count} diverged"] = dict.fromkeys(list(first)[:1], math.nan)
  comparison_grid(images, Path(workdir) / "sweep.png")
  shown = {
    **METRICS,
    **{k: v for _, config in runs.values() for k, v in columns(config.eval.metrics).items()},
  }
  return write_report(workdir, "sweep", table, {"command": command, "trials": len(runs)}, shown)


def _report(config: ConfigDict, folder: Path, sources: Sources, command: str) -> Report | None:
  """What a trial gave, trained and measured if that was not done before; None if it was stopped."""
  if report := read_report(config, folder):
    return report
  run = train_stages(config, folder, sources)
  if int(run.state.step) < run.config.train.rounds:
    return None
  run = run._replace(state=parallel.localise(run.state))
  return evaluate_run(run, folder, command, sources(config.eval.data, "config.eval.data"))


def _folders(trials: list[Trial]) -> dict[str, Trial]:
  """The trials by the names of their folders: the row, and the overrides that tell apart its trials.

  Raises:
    UserError: two are the same.
  """
  folders: dict[str, Trial] = {}
  for trial in trials:
    alike = [other for other in trials if other.row == trial.row]
    differing = [
      key
      for key, value in trial.overrides.items()
      if any(str(other.overrides.get(key)) != str(value) for other in alike)
    ]
    words = [trial.row, *([trial.variant] if any(o.variant != trial.variant for o in alike) else [])]
    words += [f"{key.rsplit('.', 1)[-1]}={trial.overrides[key]}" for key in differing]
    name = "_".join("".join(c if c.isalnum() or c in "=.-" else "-" for c in word) for word in words)
    if name in folders:
      raise UserError(f"sweep() lists {name} twice: give each trial its row or its own overrides.")
    folders[name] = trial
  return folders
