"""Devices, meshes and processes: the only file that knows them.

A method's functions are compiled by `jax.jit` over a one-dimensional mesh: the batch is sharded, the state
replicated and donated. XLA inserts the collectives, so batch statistics, selections and gradients are those
of the global batch whatever the number of devices.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sr_jax.errors import UserError
from sr_jax.method import Batch, Key, Method, Metrics, State

AXIS = "batch"


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
      jax.distributed.initialize()
    except ValueError as error:
      raise UserError("--distributed finds no cluster here: give it HOST:PORT,NUMBER,COUNT.") from error
    return
  try:
    address, number, count = where.split(",")
    place = int(number), int(count)
  except ValueError as error:
    raise UserError(f"--distributed is {where!r}: give nothing, or HOST:PORT,NUMBER,COUNT.") from error
  jax.distributed.initialize(address, num_processes=place[1], process_id=place[0])


def process() -> tuple[int, int]:
  """This process's number and how many there are."""
  return jax.process_index(), jax.process_count()


def make_mesh(devices: list[Any] | None = None) -> Mesh:
  """All devices of all processes in one line, or those given."""
  found = jax.devices() if devices is None else devices
  return jax.make_mesh((len(found),), (AXIS,), axis_types=(AxisType.Auto,), devices=found)


def check_shared(rows: int, mesh: Mesh) -> None:
  """Refuse a number of examples worked on at once that the devices can't share equally."""
  if rows % mesh.size:
    raise UserError(
      f"{rows} examples at once cannot be shared equally by {mesh.size} devices: make config.train.batch, "
      "or the method's minibatch, a multiple."
    )


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec(AXIS))


def put_batch(rows: dict[str, np.ndarray], mesh: Mesh) -> Batch:
  """This process's rows of a batch -> the global arrays, sharded along the first axis."""
  return {k: jax.make_array_from_process_local_data(sharded(mesh), v) for k, v in rows.items()}


def put_local(rows: dict[str, np.ndarray], mesh: Mesh) -> Batch:
  """Rows for the devices of this process alone: shared among them if they can be, else on each."""
  even = all(len(v) % mesh.size == 0 for v in rows.values())
  return jax.device_put(rows, sharded(mesh) if even else replicated(mesh))


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
    return method.step(state, batch, jax.random.fold_in(keys(seed)[1], state.step))

  everywhere = replicated(mesh)
  return jax.jit(
    step, in_shardings=(everywhere, sharded(mesh)), out_shardings=(everywhere, everywhere), donate_argnums=0
  )


def check_networks(state: State, params: dict[str, Any], stats: dict[str, Any]) -> None:
  """Refuse networks, by name, that `state` does not have or has in other shapes; abstract ones will do.

  Raises:
    UserError: naming the first difference.
  """
  for name, tree in params.items():
    if name not in state.params:
      raise UserError(f"There is no network {name!r} to be set, but {', '.join(state.params)}: choose one.")
    ours = {"params": state.params[name], "batch_stats": state.stats.get(name, {})}
    here, there = (
      {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(t)}
      for t in (ours, {"params": tree, "batch_stats": stats.get(name, {})})
    )
    for path in sorted(here.keys() | there.keys()):
      if here.get(path) != there.get(path):
        raise UserError(
          f"What is given for the network {name!r} is not its own: {path} has the shape "
          f"{there.get(path, 'missing')} there and {here.get(path, 'missing')} here; give one made alike."
        )


def put_networks(state: State, params: dict[str, Any], stats: dict[str, Any], mesh: Mesh) -> State:
  """The state with networks (host arrays, by name) in the place of its own; their optimisers start anew.

  Raises:
    UserError: as `check_networks`.
  """
  check_networks(state, params, stats)

  def put(ours: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    # A file may hold them in half precision; a state keeps its own.
    cast = {
      k: jax.tree.map(lambda o, g: np.asarray(g, o.dtype), ours[k], v) for k, v in given.items() if k in ours
    }
    return ours | jax.device_put(cast, replicated(mesh))

  return state.replace(params=put(state.params, params), stats=put(state.stats, stats))


def gather_sums(totals: dict[str, Any]) -> dict[str, Any]:
  """Sum host numbers over the processes."""
  if jax.process_count() == 1:
    return totals
  return jax.tree.map(lambda v: v.sum(axis=0), multihost_utils.process_allgather(totals))


@contextmanager
def stop_signals() -> Iterator[Callable[[int], bool]]:
  """Inside, Ctrl-C and SIGTERM do not end the process: the yielded `asked_to_stop(step)` turns true.

  A second Ctrl-C interrupts at once. With several processes JAX itself catches SIGTERM, and all of them are
  told at the same step; Ctrl-C ends them as ever.
  """
  if jax.process_count() > 1:
    yield multihost_utils.reached_preemption_sync_point
    return
  asked = False

  def note(number: int, frame: Any) -> None:
    nonlocal asked
    if asked and number == signal.SIGINT:
      raise KeyboardInterrupt
    asked = True

  previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
  try:
    yield lambda step: asked
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
