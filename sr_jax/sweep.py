"""Runs one after another on this machine: the stages of a run, and the trials of a sweep in one table."""

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sr_jax import parallel
from sr_jax.errors import UserError
from sr_jax.evaluate import Images, check_eval, evaluate_run, make_watch
from sr_jax.report import comparison_grid, write_report
from sr_jax.run import Run
from sr_jax.stages import check_stages, plan_stages
from sr_jax.train import Watch, train

log = logging.getLogger(__name__)


MakeWatch = Callable[[ConfigDict], Watch]


def train_stages(config: ConfigDict, workdir: str | Path, watch: MakeWatch | None = None) -> Run:
  """Train the stages of `config` in folders of `workdir` of their names, then `config` itself in `workdir`.

  Stages that `config.init_from` does not ask for are left out; one that is done is not done again. Returns
  the last run, which a stop may have left unfinished.

  Raises:
    UserError: as `train`; all stages are checked before the first begins.
  """
  stages = plan_stages(config, workdir)
  check_stages(stages)
  for stage in stages:
    measure = watch(stage.config) if watch and stage.config.train.eval_every else None
    run = train(stage.config, stage.folder, measure, stage.places, stage.before)
    if int(run.state.step) < stage.config.train.rounds:
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
    as in the first trial that has them. "" if Ctrl-C or SIGTERM stopped it.

  Raises:
    UserError: a config that cannot be run, or two trials that are the same.
  """
  trials = list(trials)
  runs = {_folder(trial): (trial, configure(trial)) for trial in trials}
  if len(runs) < len(trials):
    raise UserError("sweep() lists a trial twice: give each its row or its own overrides.")
  checked: set[str] = set()
  for name, (_, config) in runs.items():
    alike = config.copy_and_resolve_references()
    alike.seed = 0
    if alike.to_json() not in checked:
      check_eval(config)
      check_stages(plan_stages(config, Path(workdir) / name))
      checked.add(alike.to_json())
  measured: dict[str, list[dict[str, float]]] = {}
  baselines: dict[str, dict[str, float]] = {}
  images: dict[str, Images] = {}
  for number, (name, (trial, config)) in enumerate(runs.items()):
    folder = Path(workdir) / name
    log.info("Trial %d of %d: %s", number + 1, len(runs), name)
    run = train_stages(config, folder, make_watch)
    if int(run.state.step) < run.config.train.rounds:
      return ""
    # Baselines know no seed: once is enough, where no model judges them.
    known = () if config.eval.judge else baselines
    run.config.eval.baselines = tuple(name for name in config.eval.baselines if name not in known)
    report = evaluate_run(run._replace(state=parallel.localise(run.state)), folder, command)
    for term, values in report.single.items():
      measured.setdefault(trial.row + (term and f", {term}"), []).append(values)
    images.setdefault(trial.row, report.images)
    ours = {name: report.rows[name] for name in run.config.eval.baselines if name in report.rows}
    baselines = ours | baselines
  table = dict(baselines)
  for row, trials_of_row in measured.items():
    columns = {c: np.array([v[c] for v in trials_of_row], float) for c in trials_of_row[0]}
    table[row] = {c: float(v.mean()) for c, v in columns.items()}
    if len(trials_of_row) > 1:
      table[f"{row}, +- over {len(trials_of_row)}"] = {c: float(v.std(ddof=1)) for c, v in columns.items()}
  comparison_grid(images, Path(workdir) / "sweep.png")
  return write_report(workdir, "sweep", table, {"command": command, "trials": len(runs)})


def _folder(trial: Trial) -> str:
  """The name of a trial's folder: its row and what it overrides."""
  words = [trial.row, *(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in trial.overrides.items())]
  return "_".join("".join(c if c.isalnum() or c in "=.-" else "-" for c in word) for word in words)
