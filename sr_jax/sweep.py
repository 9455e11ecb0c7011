"""The trials of a sweep on this machine, one by one or several at once."""

import contextlib
import errno
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from sr_jax import config as configs
from sr_jax import files, graft, parallel
from sr_jax.errors import REMEDIES, STOPPED, TRY_AGAIN, Busy, Diverged, UserError, explain, short_name
from sr_jax.evaluate import Report, conditions_of, read_report
from sr_jax.ledger import Entry, Trial, number_trials
from sr_jax.method import State
from sr_jax.metrics import columns
from sr_jax.run import check_finished
from sr_jax.stages import Sources, check_evaluation, check_stages, plan_stages
from sr_jax.whole_run import train_and_evaluate

log = logging.getLogger(__name__)

FAILURE = "failure.txt"  # in the folder of a trial: why it failed when it was last run


class Planned(NamedTuple):
  """A trial of a sweep, ready to run: its line of the ledger, its config, its folder."""

  entry: Entry
  config: ConfigDict
  folder: Path


def plan(
  trials: Iterable[Trial], configure: Callable[[Trial], ConfigDict], workdir: str | Path
) -> list[Planned]:
  """The trials of a sweep in `workdir`; nothing is written.

  Raises:
    UserError: two trials are the same, or one's config cannot be made or has a wrong value, or one's row has
      the name of a baseline.
  """
  entries, folder = number_trials(trials, workdir), files.as_path(workdir)
  runs = [Planned(entry, configure(entry.trial), folder / entry.id) for entry in entries]
  for run in runs:
    configs.check(run.config)
    if run.entry.trial.row in map(short_name, run.config.eval.baselines):
      raise UserError(
        f"The sweep's row {run.entry.trial.row!r} has the name of a baseline: give it another in sweep()."
      )
    # A flag names it for all trials; the one that it names is not shown beside itself.
    others = (name for name in run.config.eval.beside if _absolute(name) != _absolute(run.folder))
    run.config.eval.beside = tuple(others)
  return runs


def check(runs: Iterable[Planned], sources: Sources) -> None:
  """Refuse what would stop a trial at its beginning, before the first is trained.

  Raises:
    UserError: a config that cannot be run.
  """
  checked: dict[str, State] = {}
  earlier: dict[str, State] = {}
  for run in runs:
    alike = run.config.copy_and_resolve_references()
    alike.seed = 0
    name = alike.to_json()
    if name not in checked:
      check_evaluation(run.config, sources, run.folder, "--workdir", earlier)
      checked[name] = check_stages(plan_stages(run.config, run.folder), sources, earlier)
    earlier[str(run.folder)] = checked[name]


def read_reports(runs: Iterable[Planned]) -> dict[str, Report]:
  """What is measured already of the trials, by their ids."""
  found = {run.entry.id: read_report(run.config, run.folder) for run in runs}
  return {name: report for name, report in found.items() if report}


def state(run: Planned, reports: Mapping[str, Report]) -> str:
  """finished | diverged | failed | unfinished | not begun, as the trial's folder tells."""
  mine = reports.get(run.entry.id)
  if mine and _baselines(run, reports) <= set(map(short_name, mine.baselines)):
    return "finished"
  if reason := failure(run):
    return "diverged" if reason.startswith(Diverged.__name__) else "failed"
  return "unfinished" if run.folder.exists() else "not begun"


def failure(run: Planned) -> str:
  """Why the trial failed when it was last run; "" if it did not."""
  path = run.folder / FAILURE
  return files.read_text(path).strip().splitlines()[0] if path.exists() else ""


def run_trial(run: Planned, reports: Mapping[str, Report], sources: Sources, command: str) -> Report | None:
  """What a trial gave, trained and measured if that was not done before; None if it was stopped.

  Baselines that the other trials' reports have are left out. The reason of a failure is kept in the trial's
  folder until it is run again.
  """
  if state(run, reports) == "finished":
    return reports[run.entry.id]
  config = run.config.copy_and_resolve_references()
  wanted = _baselines(run, reports)
  config.eval.baselines = tuple(name for name in config.eval.baselines if short_name(name) in wanted)
  (run.folder / FAILURE).unlink(missing_ok=True)
  try:
    _check_needed(run)
    check_evaluation(config, sources)  # again, now that earlier trials are there
    report = train_and_evaluate(config, run.folder, sources, command)[1]
    return report and report._replace(images=[], conditions=conditions_of(run.config))
  except Busy:
    raise
  except Exception as error:
    _keep_failure(run, f"{type(error).__name__}: {error}")
    raise


def _check_needed(run: Planned) -> None:
  """Refuse to take from another trial of the sweep what it has not learned to its end."""
  here = files.as_path(_absolute(run.folder)).parent
  for folder in map(files.as_path, _needed(run)):
    if folder.parent == here and folder.exists():
      check_finished(folder, f"The trial {run.entry.id} needs the trial {folder.name}")


def _keep_failure(run: Planned, reason: str) -> None:
  """Why a trial failed, in its folder."""
  with contextlib.suppress(Exception):  # what ended the trial may refuse this too
    files.make(run.folder)
    files.write_text(run.folder / FAILURE, f"{reason}\n")


def run_here(runs: Iterable[Planned], reports: Mapping[str, Report], sources: Sources, command: str) -> bool:
  """Run the trials one after another in this program; a failure does not stop the others.

  Args:
    runs: the trials.
    reports: of all trials of the sweep that are finished, see `run_trial`.
    sources, command: as for `run_trial`.

  Returns:
    False if Ctrl-C or SIGTERM stopped it.

  Raises:
    Exception: what the machine refuses to all trials alike, such as room on a full disk.
  """
  runs, reports = list(runs), dict(reports)
  for number, run in enumerate(runs):
    log.info("Trial %d of %d: %s", number + 1, len(runs), run.entry.id)
    try:
      report = run_trial(run, reports, sources, command)
    except Exception as error:
      refusal = explain(error)
      if refusal.what and refusal.remedy != REMEDIES[errno.ENOMEM]:  # another trial may need less memory
        raise
      if isinstance(error, UserError) or refusal.what:
        log.warning("%s: %s", run.entry.id, error if isinstance(error, UserError) else refusal.what)
      else:
        log.exception("%s failed.", run.entry.id)
    else:
      if report is None:
        return False
      reports[run.entry.id] = report
  return True


def run_programs(
  runs: Iterable[Planned], reports: Mapping[str, Report], words: Sequence[str], jobs: int
) -> bool:
  """Run the trials as programs of their own, `jobs` at once, whose output goes into `<id>.log`.

  Args:
    runs: the trials; those that are finished are left out.
    reports: of all trials of the sweep that are finished.
    words: the command line, to which `--trial N` is added.
    jobs: how many at once; the GPUs of this machine are shared out among them.

  Returns:
    False if Ctrl-C or SIGTERM stopped it; the programs were stopped too.

  Raises:
    UserError: trials wait for each other.
  """
  waiting = [run for run in runs if state(run, reports) != "finished"]
  if not waiting:
    return True
  running: dict[int, tuple[Planned, subprocess.Popen]] = {}
  told = False
  logs = {run.entry.id: f"{run.entry.id}.log" for run in waiting}
  with (
    parallel.stop_signals() as asked_to_stop,
    files.growing(waiting[0].folder.parent, *logs.values()) as (here, copy),
  ):
    while running or (waiting and not told):
      for slot in range(jobs) if not told else ():
        unfinished = {_absolute(run.folder) for run in (*waiting, *(one for one, _ in running.values()))}
        ready = [run for run in waiting if not unfinished & _needed(run)]
        if slot not in running and ready:
          run = ready[0]
          waiting.remove(run)
          argv = [sys.executable, "-m", "sr_jax.cli", *words, f"--trial={run.entry.number}"]
          with (here / logs[run.entry.id]).open("a") as out:
            program = subprocess.Popen(
              argv, stdout=out, stderr=out, env=os.environ | parallel.share_of_gpus(slot, jobs)
            )
          running[slot] = run, program
          log.info("Trial %s begins.", run.entry.id)
      if waiting and not running and not told:
        names = ", ".join(run.entry.id for run in waiting)
        raise UserError(
          f"Each of the trials {names} waits for another of them: correct config.init_from, "
          "config.eval.classifier or config.eval.beside."
        )
      if asked_to_stop() and not told:
        told = True
        for _, program in running.values():
          program.terminate()
      time.sleep(0.1)
      with contextlib.suppress(Exception):  # what cannot be copied now is copied later, or at the end
        copy(files.PAUSE)
      for slot, (run, program) in list(running.items()):
        if program.poll() is not None:
          del running[slot]
          log.info("Trial %s ends with exit code %d.", run.entry.id, program.returncode)
          code = program.returncode
          if code < 0 and not told:
            _keep_failure(run, f"Killed: signal {-code} ended its program.")
          elif code not in (0, STOPPED, TRY_AGAIN) and not failure(run):
            _keep_failure(run, f"Its program ended with exit code {code}: see {logs[run.entry.id]}.")
  return not told


def with_needed(chosen: Iterable[Planned], runs: Iterable[Planned]) -> list[Planned]:
  """Trials of a sweep, and before each those of the sweep that it needs."""
  by_folder = {_absolute(run.folder): run for run in runs}
  seen: set[str] = set()
  found: list[Planned] = []

  def add(run: Planned) -> None:
    if run.entry.id in seen:
      return
    seen.add(run.entry.id)
    for folder in sorted(_needed(run) & by_folder.keys()):
      add(by_folder[folder])
    found.append(run)

  for run in chosen:
    add(run)
  return found


def _needed(run: Planned) -> set[str]:
  """The folders of other runs that a trial needs, for its networks or its evaluation, as absolute paths."""
  config = run.config
  named = {config.eval.classifier, *config.eval.beside, *(graft.parse(e)[1] for e in config.init_from)}
  return {_absolute(folder) for folder in named if folder} - {_absolute(run.folder)}


def _absolute(folder: str | Path) -> str:
  return str(files.absolute(folder, "A run's folder"))


def _baselines(run: Planned, reports: Mapping[str, Report]) -> set[str]:
  """The baselines that this trial must measure: with `eval.judge` all, else those not yet measured alike."""
  wanted = set(map(short_name, run.config.eval.baselines))
  if run.config.eval.judge:
    return wanted
  conditions, asked = conditions_of(run.config), set(columns(run.config.eval.metrics))
  others = [report for name, report in reports.items() if name != run.entry.id]
  alike = [report.rows for report in others if report.conditions == conditions]
  return {name for name in wanted if not any(name in rows and asked <= rows[name].keys() for rows in alike)}
