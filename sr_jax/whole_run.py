"""A whole run: its stages one after another, then its evaluation."""

import logging
from pathlib import Path

from ml_collections import ConfigDict

from sr_jax import files, parallel, processes
from sr_jax.data.sources import Source
from sr_jax.errors import TRY_AGAIN, TryAgain, UserError, exit_code
from sr_jax.evaluate import Report, evaluate_run, make_watch
from sr_jax.run import Run
from sr_jax.stages import Sources, check_stages, facts, plan_stages
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
  if parallel.process()[1] > 1:
    images: dict[str, Source] = {}
    for stage in stages:
      key = f"config.stages.{stage.name}." * bool(stage.name) or "config."
      images[f"{key}data"] = sources(stage.config.data)
      images[f"{key}eval.data"] = sources(stage.config.eval.data)
    processes.agree(facts(config, images), files.absolute(workdir, "--workdir"))
  for stage in stages:
    own = stage.config
    test = sources(own.eval.data, "config.eval.data")
    shared = _shared(own, sources(own.data), test)
    if shared and parallel.process()[0] == 0:
      log.warning(
        "%d of the %d test images are trained on: take parts by config.data.split=[:90%%] and "
        "config.eval.data.split=[90%%:].",
        *(shared, len(test)),
      )
    watch = make_watch(own, test) if own.train.eval_every else None
    run = train(own, stage.folder, watch, stage.earlier, sources(own.data))
    if int(run.state.step) < own.train.rounds:
      break
  return run


def _shared(config: ConfigDict, train_images: Source, test_images: Source) -> int:
  """How many files of the test set are in the training set too; 0 if they are not both folders."""
  if not config.data.name == config.eval.data.name == "folder":
    return 0
  names = ({source.name(i) for i in range(len(source))} for source in (train_images, test_images))
  return len(set.intersection(*names))


def train_and_evaluate(
  config: ConfigDict, workdir: str | Path, sources: Sources, command: str
) -> tuple[Run, Report | None]:
  """`train_stages`, then `evaluate_run`; the run, and None for a report if a stop left it unfinished."""
  run = train_stages(config, workdir, sources)
  if int(run.state.step) < config.train.rounds:
    return run, None
  processes.end_on_sigterm()
  run = run._replace(state=parallel.localise(run.state))
  test = sources(config.eval.data, "config.eval.data")
  try:
    return run, evaluate_run(run, workdir, command, test)
  except UserError as error:  # such as a test image that there was no time to read before
    kind = TryAgain if exit_code(error) == TRY_AGAIN else UserError
    reason = str(error).rstrip(".")
    raise kind(
      f"{reason}; the training is saved, and the same command then goes on with the evaluation."
    ) from error
