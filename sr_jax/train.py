"""The training loop. It knows no method: batches go in, rounds come out, the state is all there is."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

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
from sr_jax.run import Run, check_config
from sr_jax.stages import read_networks

log = logging.getLogger(__name__)

PROFILED_ROUNDS = 10

Watch = Callable[[Run], dict[str, float]]


def train(
  config: ConfigDict,
  workdir: str | Path,
  watch: Watch | None = None,
  places: Mapping[str, Path] = MappingProxyType({}),
  before: int = 0,
) -> Run:
  """Train `config` in `workdir`, from its newest checkpoint if there is one.

  `watch` measures the run every `config.train.eval_every` rounds; its numbers join the metrics as "eval/...".
  `places` are the folders of its stages, which must be done, and `before` their rounds: processes agree on
  where to stop by a count of rounds that never falls.

  Ctrl-C and SIGTERM end it after the round, with a checkpoint; `run.state.step` tells how far it came.
  A run that was stopped or killed and then resumed equals one that never stopped, bit for bit.

  Raises:
    UserError: a wrong key, missing data, a checkpoint that does not fit, or a loss that is not finite.
  """
  check_config(config)
  operator = make_operator(config)
  method = make_method(config, operator)
  mesh = parallel.make_mesh()
  parallel.check_shared(method.rows or config.train.batch, mesh)
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

  stream, held = batches(0), 0
  batch = next(stream)
  target = parallel.abstract_state(method, mesh, batch)
  with (
    parallel.stop_signals() as asked_to_stop,  # until the last checkpoint is written
    Checkpoints(workdir, config.train.keep, create=True) as checkpoints,
  ):
    state = checkpoints.restore(target, config)
    if state is None:
      state = parallel.compile_init(method, mesh, config.seed)(batch)
      params, stats = read_networks(config, places)
      params |= {name: read() for name, read in method.weights.items()}
      state = parallel.put_networks(state, params, stats, mesh)
      log.info("Parameters:\n%s", parameter_overview.get_parameter_overview(state.params))
    begin, rounds = int(state.step), config.train.rounds
    if begin:
      log.info("Resuming after round %d of %d.", begin, rounds)
      held = begin // method.rounds_per_batch
      stream = batches(held)
      batch = next(stream)
    run_round = parallel.compile_step(method, mesh, config.seed)
    profile = config.train.profile_from
    history: list[Metrics] = []
    with Writer(Path(workdir), begin, enabled=process == 0) as writer:
      clock, clocked = time.perf_counter(), begin
      for step in range(begin + 1, rounds + 1):
        if held != (step - 1) // method.rounds_per_batch:
          batch, held = next(stream), held + 1
        if step == profile:
          profiler.start(str(Path(workdir) / "profile"))
        with jax.transfer_guard("disallow"):
          state, metrics = run_round(state, batch)
        history.append(metrics)
        # The host stays one round ahead: signals are heard, and no queue grows.
        jax.block_until_ready(history[-2:][0])
        if step == begin + 1:  # compilation is no part of the pace
          clock, clocked = time.perf_counter(), step
        if begin < profile == step - PROFILED_ROUNDS + 1:
          jax.block_until_ready(state)
          profiler.stop()
        stopping = asked_to_stop(before + step)
        saves = stopping or step == rounds or step % config.train.checkpoint_every == 0
        if saves or step % config.train.log_every == 0:
          means, images = _means(history, step)
          pace = (step - clocked) / (time.perf_counter() - clock) or math.nan  # rounds a second
          line = progress_line(step, rounds, means, images * pace, (rounds - step) / pace)
          log.info("%s", line)
          platform.work_unit().set_notes(line)  # for clusters that show it
          writer.write(step, means | {"images_per_second": images * pace})
          history, clock, clocked = [], time.perf_counter(), step
        if watch and step % config.train.eval_every == 0:
          writer.write(step, {f"eval/{k}": v for k, v in watch(Run(config, operator, method, state)).items()})
          clock, clocked = time.perf_counter(), step
        if saves:
          checkpoints.save(state, config, batch)
        if stopping:
          break
  return Run(config, operator, method, state)


def _means(history: list[Metrics], step: int) -> tuple[dict[str, float], float]:
  """Means over the images since the last report, and the images of a round.

  Raises:
    UserError: one is not finite.
  """
  rounds = jax.device_get(history)
  images = np.array([r.pop("images") for r in rounds])
  weights = images if images.any() else np.ones_like(images)
  means = {name: float(np.average([r[name] for r in rounds], weights=weights)) for name in rounds[0]}
  for name, value in means.items():
    if not np.isfinite(value):
      raise UserError(
        f"{name} is {value} at round {step}: nothing of it was saved, so lower the learning rate in "
        "config.optim or set its clip, and start anew in another --workdir."
      )
  return means, float(images.mean())
