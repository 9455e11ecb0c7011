"""What the verbs do that run many trials, `sweep` and `reproduce`."""

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from sr_jax import config as configs
from sr_jax.commands import begin, join
from sr_jax.errors import STOPPED, Diverged, UserError, printable, tell
from sr_jax.files import as_path
from sr_jax.inspection import refuse

if TYPE_CHECKING:
  from sr_jax.sweep import Planned


def sweep(arguments: argparse.Namespace, overrides: list[str]) -> int:
  from sr_jax import parallel, sweep_table
  from sr_jax import sweep as sweeps

  if arguments.distributed and arguments.trial is None:
    raise UserError("sweep takes --distributed only with --trial N: the processes share one trial.")
  join(arguments.distributed)
  runs = _planned(arguments, overrides)
  if arguments.list:
    reports = sweeps.read_reports(runs)
    for run in runs:
      print(run.entry.number, run.entry.id, sweeps.state(run, reports), sep="\t")
    return 0
  if arguments.table is not None:
    tell(sweep_table.tabulate(runs, arguments.workdir, arguments.command, arguments.table))
    return 0
  chosen = [run for run in runs if arguments.trial in (None, run.entry.number)]
  if not chosen:
    raise UserError(f"--trial {arguments.trial} is none of this sweep: --list tells the numbers.")
  if not _run_trials(runs, chosen, arguments, overrides):
    return STOPPED
  if parallel.process()[0] == 0:
    tell(sweep_table.tabulate(runs, arguments.workdir, arguments.command))
  return _failed(chosen)


def _planned(arguments: argparse.Namespace, overrides: list[str]) -> "list[Planned]":
  """The trials of `--config`, in `--workdir`."""
  from sr_jax import ledger
  from sr_jax import sweep as sweeps

  def placed(value: Any) -> Any:
    """A trial's value, in which {workdir} is the sweep's folder."""
    if isinstance(value, tuple):
      return tuple(map(placed, value))
    return value.replace("{workdir}", str(as_path(arguments.workdir))) if isinstance(value, str) else value

  def configure(trial: ledger.Trial) -> ConfigDict:
    name = arguments.config + (f":{trial.variant}" if trial.variant else "")
    ours = [f"--config.{key}={placed(value)}" for key, value in trial.overrides.items()]
    return configs.override(configs.load(name), [*ours, *overrides])

  listed = configs.call(arguments.config, lambda: list(_sweep_of(arguments.config)()))
  return sweeps.plan(map(ledger.make_trial, listed), configure, arguments.workdir)


def _run_trials(
  runs: "list[Planned]", chosen: "list[Planned]", arguments: argparse.Namespace, overrides: list[str]
) -> bool:
  """Run the chosen trials of a sweep; False, and a line that says so, if a signal stopped it."""
  from sr_jax import ledger, parallel
  from sr_jax import sweep as sweeps
  from sr_jax.stages import Sources

  if arguments.jobs > 1:
    import jax

    jax.config.update("jax_platforms", "cpu")  # the devices are for the trials
  begin()
  sources = Sources()
  sweeps.check(chosen, sources)
  process, count = parallel.process()
  if process == 0:
    ledger.write([run.entry for run in runs], arguments.workdir)
  # Several processes may find different trials finished, but must measure the same baselines.
  reports = sweeps.read_reports(runs if count == 1 else chosen)
  if arguments.trial is not None:
    try:
      done = sweeps.run_trial(chosen[0], reports, sources, arguments.command) is not None
    except Diverged as error:  # a result, which the table marks
      print(printable(f"{chosen[0].entry.id}: {error}"), file=sys.stderr)
      done = True
  elif arguments.jobs > 1:
    words = ["sweep", "--config", arguments.config, "--workdir", arguments.workdir, *overrides]
    done = sweeps.run_programs(chosen, reports, words, arguments.jobs)
  else:
    done = sweeps.run_here(chosen, reports, sources, arguments.command)
  if not done:
    print("Stopped; the same command goes on from there.")
  return done


def _failed(runs: "list[Planned]") -> int:
  """The exit code of a sweep: 1 if a trial failed."""
  from sr_jax import sweep as sweeps

  reports = sweeps.read_reports(runs)
  lost = ("failed", "not begun")  # the second: its program ended before it began
  return 1 if any(sweeps.state(run, reports) in lost for run in runs) else 0


def reproduce(arguments: argparse.Namespace, overrides: list[str]) -> int:
  from sr_jax import reproduce as papers
  from sr_jax import sweep as sweeps
  from sr_jax import sweep_table

  if not arguments.name:
    words = [f"--{name}" for name in ("workdir", "config", "read") if getattr(arguments, name)]
    refuse([*words, *overrides], "reproduce without NAME")
    print(papers.overview(arguments.paper))
    return 0
  entry, arguments.config = papers.find(arguments.paper, arguments.name, arguments.config)
  if not arguments.workdir:
    raise UserError("--workdir is missing: name the folder of its runs, which may be new.")
  runs = _planned(arguments, overrides)
  chosen = papers.needed(entry, runs)
  papers.check(entry, chosen)
  if not arguments.read:
    if not _run_trials(runs, sweeps.with_needed(chosen, runs), arguments, overrides):
      return STOPPED
    sweep_table.tabulate(runs, arguments.workdir, arguments.command)  # its images and its plot
  given = (arguments.paper, arguments.name, arguments.config)
  tell(papers.write(*given, runs, arguments.workdir, arguments.command))
  return 0 if arguments.read else _failed(chosen)


def _sweep_of(name: str) -> Callable[[], Iterable[tuple]]:
  module = configs.load_module(name)
  if "sweep" not in module:
    raise UserError(f"--config {name} defines no sweep(): see configs/amap_swiss_roll.py for one that does.")
  return module["sweep"]
