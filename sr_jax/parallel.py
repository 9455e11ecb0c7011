"""Devices and meshes, the job's processes and their signals, and the compiler's options.

A method's functions are compiled by `jax.jit` over a one-dimensional mesh: the batch is sharded, the state
replicated and donated. XLA inserts the collectives, so batch statistics, selections and gradients are those
of the global batch whatever the number of devices.
"""

import functools
import glob
import itertools
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils, topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sr_jax.errors import TRY_AGAIN, Stopped, TryAgain, UserError
from sr_jax.method import Batch, Key, Method, Metrics, State, run_round

AXIS = "batch"
JOIN = 300  # seconds in which all processes must have started
NOTICE = 2  # seconds until all processes know of a signal: JAX looks for one once a second
HEARTBEAT = 30  # seconds without a sign of life after which JAX takes a process for dead, and ends the others


def start_processes(where: str) -> None:
  """Join the other processes of a job.

  Args:
    where: "auto", for a cluster that JAX knows (SLURM, TPU, Open MPI, ...); or "HOST:PORT,NUMBER,COUNT", the
      address of process 0, this process's number and how many there are.

  Raises:
    UserError: `where` is neither, or there is no cluster.
  """
  if where == "auto":
    try:
      _initialize()
    except (ValueError, KeyError) as error:
      hint = " (on Kubernetes it needs an extra: in the checkout, pip install -e '.[k8s]')"
      hint *= "KUBERNETES_SERVICE_HOST" in os.environ
      raise UserError(
        f"--distributed finds neither SLURM, nor a TPU, Open MPI or Kubernetes here{hint}: start it by the "
        "cluster's launcher (srun, mpirun), or give it HOST:PORT,NUMBER,COUNT."
      ) from error
    return
  found = re.fullmatch(r"([^,]+:(\d{1,5})),(\d{1,9}),(\d{1,9})", where)
  if not found or not 0 < int(found[2]) < 2**16:
    raise UserError(f"--distributed is {where!r}: give nothing, or HOST:PORT,NUMBER,COUNT.")
  address, process_id, num_processes = found[1], int(found[3]), int(found[4])
  if process_id >= num_processes:
    raise UserError(
      f"--distributed is {where!r}, but {num_processes} processes have the numbers from 0 to "
      f"{num_processes - 1}: correct NUMBER or COUNT."
    )
  _initialize(coordinator_address=address, num_processes=num_processes, process_id=process_id)


def _initialize(**job: Any) -> None:
  """Join the others, or end with a sentence: where JAX gives up waiting, it aborts the process."""

  def late() -> None:
    print(
      f"sr-jax: the processes of --distributed did not find each other within {JOIN} seconds: start all of "
      "them, with an address of process 0 that all can reach.",
      file=sys.stderr,
      flush=True,
    )
    os._exit(TRY_AGAIN)

  timer = threading.Timer(JOIN, late)
  timer.daemon = True
  timer.start()
  try:
    jax.distributed.initialize(**job, initialization_timeout=2 * JOIN, heartbeat_timeout_seconds=HEARTBEAT)
  except RuntimeError as error:
    reason = str(error).splitlines()[0].rstrip(".")
    raise TryAgain(f"--distributed cannot join the other processes ({reason}): fix that.") from error
  finally:
    timer.cancel()


def process() -> tuple[int, int]:
  """This process's number and how many there are."""
  return jax.process_index(), jax.process_count()


def make_mesh(devices: list[Any] | None = None) -> Mesh:
  """All devices of all processes in one line, or those given."""
  found = jax.devices() if devices is None else devices
  return jax.make_mesh((len(found),), (AXIS,), axis_types=(AxisType.Auto,), devices=found)


def described_mesh(platform: str, name: str, **options: Any) -> Mesh:
  """The devices of a machine that need not be here: programs are compiled for them, not run.

  Args:
    platform: "tpu" or "cuda", whose compiler must be installed.
    name: of the machine for the compiler, such as "v5e:2x4".
    options: what else the compiler wants to know.
  """
  found = topologies.get_topology_desc(name, platform, **options)
  return make_mesh(list(found.devices))


def check_shared(examples: int, mesh: Mesh) -> None:
  """Refuse a number of examples worked on at once that the devices can't share equally."""
  if examples % mesh.size:
    raise UserError(
      f"{examples} examples at once cannot be shared equally by {mesh.size} devices: make "
      "config.train.batch, or the method's minibatch, a multiple."
    )


def replicated(mesh: Mesh) -> NamedSharding:
  """Of arrays that every device has whole: the state."""
  return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
  """Of arrays whose first axis the devices share: a batch."""
  return NamedSharding(mesh, PartitionSpec(AXIS))


def abstract_batch(mesh: Mesh, shapes: dict[str, tuple[tuple[int, ...], Any]]) -> dict[str, Any]:
  """Shapes and types of the global arrays, with their shardings; there are no arrays."""
  return {k: jax.ShapeDtypeStruct(*v, sharding=sharded(mesh)) for k, v in shapes.items()}


def put_batch(part: dict[str, np.ndarray], mesh: Mesh) -> Batch:
  """This process's part of a batch -> the global arrays, sharded along the first axis."""
  return {k: jax.make_array_from_process_local_data(sharded(mesh), v) for k, v in part.items()}


def put_local(batch: dict[str, np.ndarray], mesh: Mesh) -> Batch:
  """A batch for the devices of this process alone: shared among them if it can be, else on each."""
  even = all(len(v) % mesh.size == 0 for v in batch.values())
  return jax.device_put(batch, sharded(mesh) if even else replicated(mesh))


def localise(tree: Any) -> Any:
  """A replicated state on the devices of this process alone."""
  return jax.device_put(jax.device_get(tree), replicated(local_mesh()))


def local_mesh() -> Mesh:
  """The devices of this process: evaluation needs no other."""
  return make_mesh(jax.local_devices())


def keys(seed: int) -> tuple[Key, Key]:
  """The keys of a run: one for `init`, one from which that of each round is folded."""
  first, second = jax.random.split(jax.random.key(seed))
  return first, second


def compile_init(method: Method, mesh: Mesh, seed: int) -> Callable[[Batch], State]:
  """batch -> the first state. Compiled, because donation needs every leaf to own its memory."""
  return jax.jit(lambda batch: method.init(keys(seed)[0], batch), out_shardings=replicated(mesh))


def abstract_state(method: Method, mesh: Mesh, batch: dict[str, Any]) -> State:
  """Shapes, types and shardings of the state, from those of a batch; nothing is computed."""
  state = jax.eval_shape(lambda b: method.init(keys(0)[0], b), batch)
  return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=replicated(mesh)), state)


def compile_step(method: Method, mesh: Mesh, seed: int) -> Callable[[State, Batch], tuple[State, Metrics]]:
  """One round as a program over the mesh. Its key is a function of (seed, step); the state is donated."""

  def step(state: State, batch: Batch) -> tuple[State, Metrics]:
    return run_round(method, state, batch, jax.random.fold_in(keys(seed)[1], state.step))

  everywhere = replicated(mesh)
  return jax.jit(
    step,
    in_shardings=(everywhere, sharded(mesh)),
    out_shardings=(everywhere, everywhere),
    donate_argnums=0,
    compiler_options=training_options(mesh.devices.flat[0].platform),
  )


@functools.cache
def training_options(platform: str) -> dict[str, str]:
  """Compiler options with which training rounds run faster; programs without gradients run slower with them.

  XLA's default on a CPU gives the weight gradients of convolutions to a slow library. Options may go with a
  later version: one that the compiler does not know is left out.
  """
  if platform != "cpu":
    return {}
  options = {
    "xla_cpu_experimental_ynn_fusion_type": "",
    # Else it merges what `config.remat` computes again with what it computed first, and keeps that.
    "xla_disable_hlo_passes": "cse_barrier_expander",
  }

  def known(name: str) -> bool:
    try:
      jax.jit(lambda: 0, compiler_options={name: options[name]}).lower().compile()
    except jax.errors.JaxRuntimeError:
      return False
    return True

  return {name: value for name, value in options.items() if known(name)}


def share_of_gpus(slot: int, jobs: int) -> dict[str, str]:
  """Environment of one of `jobs` programs that run on this machine at once: its GPUs, or its part of one."""
  visible = os.environ.get("CUDA_VISIBLE_DEVICES")
  if visible is None:
    gpus = [str(i) for i in range(len(glob.glob("/dev/nvidia[0-9]*")))]
  else:
    gpus = [gpu for gpu in visible.split(",") if gpu]
  if not gpus:
    return {}
  if each := len(gpus) // jobs:
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[slot * each : (slot + 1) * each])}
  # JAX takes three quarters of a GPU's memory, which leaves too little for a second program.
  share = 0.9 / math.ceil(jobs / len(gpus))
  return {
    "CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)],
    "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{share:.2f}",
  }


def gather_sums(totals: Any) -> Any:
  """Sum a tree of host arrays over the processes."""
  if jax.process_count() == 1:
    return totals
  return jax.tree.map(lambda v: v.sum(axis=0), multihost_utils.process_allgather(totals))


# How often this process has asked whether to stop. All processes ask equally often, so that the count names
# the same moment in each of them, over all the trainings of one program.
_asked = itertools.count()


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
  """Inside, Ctrl-C and SIGTERM do not end the process: the yielded `asked_to_stop()` turns true.

  A second Ctrl-C interrupts at once. With several processes JAX itself catches SIGTERM, and all of them are
  told in the same round, whichever process had it; Ctrl-C is passed on as SIGTERM.

  Raises:
    Stopped: at the end, in every process, if a signal came after `asked_to_stop` was last called.
  """
  several = jax.process_count() > 1
  asked = heard = False

  def note(number: int, frame: Any) -> None:
    nonlocal asked
    if asked and number == signal.SIGINT:
      raise KeyboardInterrupt
    asked = True
    if several:
      signal.raise_signal(signal.SIGTERM)

  def asked_to_stop() -> bool:
    nonlocal heard
    heard = multihost_utils.reached_preemption_sync_point(next(_asked)) if several else asked
    return heard

  caught = (signal.SIGINT,) if several else (signal.SIGINT, signal.SIGTERM)
  previous = {number: signal.signal(number, note) for number in caught}
  try:
    yield asked_to_stop
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
  if heard:
    return
  if several:  # until all are here, they have asked equally often
    multihost_utils.sync_global_devices("sr_jax: the end of a training")
    time.sleep(NOTICE)
    # The moment that a signal names lies one question ahead, or two if it came between the first ones.
    asked = any([asked_to_stop(), asked_to_stop()])
  if asked:
    raise Stopped
