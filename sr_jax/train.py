"""The training loop. It knows no method: batches go in, rounds come out, the state is all there is."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from clu import parameter_overview, platform, profiler
from ml_collections import ConfigDict

from sr_jax import parallel
from sr_jax.checkpoint import Checkpoints
from sr_jax.data import open_source, train_batches
from sr_jax.errors import UserError
from sr_jax.method import Batch, Metrics
from sr_jax.methods import make_method
from sr_jax.ops import make_operator
from sr_jax.report import Writer, progress_line
from sr_jax.run import Run

log = logging.getLogger(__name__)

PROFILED_ROUNDS = 10


def train(config: ConfigDict, workdir: str | Path) -> Run:
  """Train `config` in `workdir`, from its newest checkpoint if there is one.

  Ctrl-C and SIGTERM end it after the round, with a checkpoint; `run.state.step` tells how far it came.
  A run that was stopped or killed and then resumed equals one that never stopped, bit for bit.

  Raises:
    UserError: a wrong key, missing data, a checkpoint that does not fit, or a loss that is not finite.
  """
  operator = make_operator(config)
  method = make_method(config, operator)
  mesh = parallel.make_mesh()
  parallel.check_batch(config.train.batch, mesh, "config.train.batch")
  source = open_source(config.data)
  process, processes = parallel.process()

  def batches(start: int) -> Iterator[Batch]:
    rows = train_batches(
      source,
      config.data,
      seed=config.seed,
      batch=config.train.batch,
      start=start,
      process=process,
      processes=processes,
    )
    return (parallel.put_batch(r, mesh) for r in rows)

  batch = next(batches(0))
  with (
    Checkpoints(workdir, config.train.keep, create=True) as checkpoints,
    parallel.stop_signals() as asked_to_stop,
  ):
    target = parallel.abstract_state(method, mesh, batch)
    state = checkpoints.restore(target, config)
    if state is None:
      state = parallel.compile_init(method, mesh, config.seed)(batch)
      log.info("Parameters:\n%s", parameter_overview.get_parameter_overview(state.params))
    begin, rounds = int(state.step), config.train.rounds
    if begin:
      log.info("Resuming after round %d of %d.", begin, rounds)
    run_round = parallel.compile_step(method, mesh, config.seed)
    stream, held = batches(begin // method.rounds_per_batch), -1
    profiled = slice(config.train.profile_from, config.train.profile_from + PROFILED_ROUNDS)
    history: list[Metrics] = []
    with Writer(Path(workdir), begin, enabled=process == 0) as writer:
      clock = time.perf_counter()
      for step in range(begin + 1, rounds + 1):
        number = (step - 1) // method.rounds_per_batch
        if number != held:
          batch, held = next(stream), number
        if step == profiled.start:
          profiler.start(str(Path(workdir) / "profile"))
        with jax.transfer_guard("disallow"):
          state, metrics = run_round(state, batch)
        if step == begin + 1:  # compilation is no part of the pace
          jax.block_until_ready(metrics)
          clock = time.perf_counter()
        history.append(metrics)
        # The host stays one round ahead: signals are heard, and no queue grows.
        jax.block_until_ready(history[-2:][0])
        if step == profiled.stop and begin < profiled.start:
          jax.block_until_ready(state)
          profiler.stop()
        stopping = asked_to_stop(step)
        last = stopping or step == rounds
        saves = last or step % config.train.checkpoint_every == 0
        if saves or step % config.train.log_every == 0:
          means = _means(history, step)
          seconds = time.perf_counter() - clock
          images = means.pop("images") * len(history) / max(seconds, 1e-9)
          left = (rounds - step) * seconds / len(history)
          line = progress_line(step, rounds, means, images, left)
          log.info("%s", line)
          platform.work_unit().set_notes(line)  # for clusters that show it
          writer.write(step, means | {"images_per_second": images})
          history, clock = [], time.perf_counter()
        if saves:
          checkpoints.save(state, config, batch)
        if stopping:
          break
  return Run(config, operator, method, state)


def _means(history: list[Metrics], step: int) -> dict[str, float]:
  """Means over the rounds since the last report; a number that is not finite ends the run."""
  rounds = jax.device_get(history)
  means = {name: float(np.mean([r[name] for r in rounds])) for name in rounds[0]}
  for name, value in means.items():
    if not np.isfinite(value):
      raise UserError(
        f"{name} is {value} at round {step}: lower config.optim's learning rate or set its clip; the last "
        "checkpoint is from before, and the same command goes on from it."
      )
  return means
