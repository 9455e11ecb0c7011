"""The training loop. It knows no method: batches go in, rounds come out, the state is all there is."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import jax
from clu import parameter_overview, platform
from ml_collections import ConfigDict

from sr_jax import config as configs
from sr_jax import graft, parallel
from sr_jax.checkpoint import Checkpoints
from sr_jax.data import open_source, train_batches
from sr_jax.data.sources import Source, summary
from sr_jax.errors import TryAgain
from sr_jax.files import as_path
from sr_jax.method import Batch, Metrics
from sr_jax.methods import make_method
from sr_jax.ops import make_operator
from sr_jax.processes import SLOW, agree, meet, watchdog
from sr_jax.report.log import Profile, Writer, mean_metrics, progress_line
from sr_jax.run import Run
from sr_jax.versions import begin_part, write_versions

log = logging.getLogger(__name__)

Watch = Callable[[Run], dict[str, float]]


def train(
  config: ConfigDict,
  workdir: str | Path,
  watch: Watch | None = None,
  folders: Mapping[str, Path] = MappingProxyType({}),
  source: Source | None = None,
) -> Run:
  """Train `config` in `workdir`, from its newest checkpoint if there is one.

  Ctrl-C and SIGTERM end it after the round, with a checkpoint; `run.state.step` tells how far it came.
  A run that was stopped or killed and then resumed equals one that never stopped, on a CPU bit for bit.

  Args:
    config: what to train.
    workdir: the folder of the run, which no other training may use meanwhile.
    watch: measures the run every `config.train.eval_every` rounds; its numbers join the metrics as
      "eval/...".
    folders: of the run's stages, by name, which must be done.
    source: the training images, if they are open already.

  Raises:
    UserError: a wrong key, missing data, a checkpoint that does not fit, a folder that cannot be written any
      more, or a loss that is not finite.
    TryAgain: another process does not come or sees another checkpoint; Busy: another training uses `workdir`.
    Stopped: Ctrl-C or SIGTERM came after the last round; it is saved.
  """
  configs.check(config)
  operator = make_operator(config)
  method = make_method(config, operator)
  mesh = parallel.make_mesh()
  parallel.check_shared(method.minibatch or config.train.batch, mesh)
  images = source or open_source(config.data)
  process, processes = parallel.process()

  def batches(start: int) -> Iterator[Batch]:
    parts = train_batches(
      images,
      config.data,
      seed=config.seed,
      batch=config.train.batch,
      start=start,
      process=process,
      processes=processes,
    )
    return (parallel.put_batch(part, mesh) for part in parts)

  stream, held = batches(0), 0
  batch = next(stream)
  target = parallel.abstract_state(method, mesh, batch)
  # A run whose rounds depend on how many there are cannot become longer.
  fixed_length = method.fixed_length or configs.fixed_length(config)
  free = [key for key in configs.RESUMING if not (fixed_length and key == "train.rounds")]
  with (
    watchdog(config.train.watchdog) as alive,
    parallel.stop_signals() as asked_to_stop,  # until the last checkpoint is written
    Checkpoints(workdir, config.train.keep, create=True, lock=process == 0) as checkpoints,
    checkpoints.explaining_divergence(target),
  ):
    meet()
    alive(times=SLOW)
    state = checkpoints.restore(target, config, free)
    if state is None:
      state = parallel.compile_init(method, mesh, config.seed)(batch)
      params, stats = graft.read(config, folders)
      params |= {role: read() for role, read in method.weights.items()}
      state = graft.put(state, (params, stats))
      log.info("Parameters:\n%s", parameter_overview.get_parameter_overview(state.params))
    begin, rounds = int(state.step), config.train.rounds
    damaged = checkpoints.newer_than(begin)  # of which a file system that is late shows some processes others
    agree({"the round of the newest whole checkpoint": begin, "damaged newer ones": damaged}, kind=TryAgain)
    checkpoints.delete(damaged)
    part = begin_part(as_path(workdir), begin, summary(images))
    if begin:
      log.info("Resuming after round %d of %d.", begin, rounds)
      held = begin // method.rounds_per_batch
      stream = batches(held)
      batch = next(stream)
    run_round = parallel.compile_step(method, mesh, config.seed)
    history: list[Metrics] = []
    check, first = checkpoints.check_lock, config.train.profile_from
    with Writer(workdir, begin, process == 0, check) as writer, Profile(workdir, first, check) as profile:
      clock, clocked = time.perf_counter(), begin
      for step in range(begin + 1, rounds + 1):
        if held != (step - 1) // method.rounds_per_batch:
          batch, held = next(stream), held + 1
        profile.before(step)
        with jax.transfer_guard("disallow"):
          state, metrics = run_round(state, batch)
        history.append(metrics)
        # The host stays one round ahead: signals are heard, and no queue grows.
        jax.block_until_ready(history[-2:][0])
        if step == begin + 1:  # compilation is no part of the pace
          clock, clocked = time.perf_counter(), step
        profile.after(step, state)
        stopping = step < rounds and asked_to_stop()
        saves = stopping or step == rounds or step % config.train.checkpoint_every == 0
        alive(times=SLOW if saves else 1)
        if saves or step % config.train.log_every == 0:
          means, count = mean_metrics(history, step)
          pace = (step - clocked) / (time.perf_counter() - clock) or math.nan  # rounds a second
          line = progress_line(step, rounds, means, count * pace, (rounds - step) / pace)
          log.info("%s", line)
          platform.work_unit().set_notes(line)  # for clusters that show it
          writer.write(step, means | {"images_per_second": count * pace})
          history, clock, clocked = [], time.perf_counter(), step
        if watch and step % config.train.eval_every == 0:
          alive(times=SLOW)
          writer.write(step, {f"eval/{k}": v for k, v in watch(Run(config, operator, method, state)).items()})
          clock, clocked = time.perf_counter(), step
        if saves:
          writer.flush()  # what a checkpoint knows is in the metrics, wherever they are
          checkpoints.save(state, config, batch)
          if process == 0:
            write_versions(config, as_path(workdir), part)
        if stopping:
          break
  return Run(config, operator, method, state)
