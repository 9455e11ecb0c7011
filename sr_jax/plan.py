"""What a config would take on a machine that is not here: its programs, compiled for it and never run.

The time is the roofline's: the longest of arithmetic, memory and links between chips at their makers' rates,
each perfectly hidden behind the others. No program is faster; how much slower it is, only a run tells.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sr_jax import config as configs
from sr_jax import hlo, parallel
from sr_jax.data.arrays import ARRAYS
from sr_jax.errors import UserError
from sr_jax.method import Key, State
from sr_jax.methods import make_method
from sr_jax.ops import make_operator
from sr_jax.stages import plan_stages
from sr_jax.targets import Chip, Target

HEAD = (
  "| program | images | memory, GiB | GFLOP | moved, MB | weights, MB | collectives, MB | ms | images/s "
  "| limit | input, images/s |\n| --- |" + " ---: |" * 5 + " --- | ---: | ---: | --- | ---: |"
)


class Program(NamedTuple):
  """One program; all but `images` and `input_rate` are of one device.

  Attributes:
    name: the stage, if any, and "step", "selection" or "sample".
    images: that it works on at once, over all devices.
    weights: bytes of the trained parameters and batch statistics of a step; 0 of other programs.
    memory: bytes that it needs; `capacity`: bytes that there are.
    cost: FLOPs, bytes and collectives; None of a program that the compiler gave up because it is too large.
    seconds: by the roofline.
    limit: what takes that long, or "too large".
    input_rate: new images a second that a step at that pace takes in; 0 of other programs.
  """

  name: str
  images: int
  weights: int
  memory: float
  capacity: float
  cost: hlo.Cost | None
  seconds: float
  limit: str
  input_rate: float

  @property
  def too_large(self) -> bool:
    return self.memory > self.capacity


def roofline(cost: hlo.Cost, chip: Chip, dtype: str, devices: int) -> tuple[float, str]:
  """The seconds that a program takes at least, and which of the chip's rates makes them."""
  # Every device sends and receives this part of what is reduced, twice, or gathered, once.
  share = (devices - 1) / devices
  sent = {k: size * share * (2 if k == "all-reduce" else 1) for k, (_, size) in cost.collectives.items()}
  seconds = {
    "arithmetic": cost.flops / chip.flops[dtype],
    "memory": cost.bytes / chip.bandwidth,
    "links": sum(sent.values()) / chip.link,
  }
  limit = max(seconds, key=lambda name: seconds[name])
  return seconds[limit], limit


def image_shape(config: ConfigDict, given: tuple[int, ...] = ()) -> tuple[tuple[int, int, int], Any]:
  """The shape and type of a training image, without the data.

  Args:
    config: whose `data` may crop, resize or cut out the middle.
    given: rows and columns of whole images, of which it says nothing.

  Raises:
    UserError: neither says how large an image is, or both do.
  """
  data = config.data
  if data.name in ARRAYS:
    hr = ARRAYS[data.name](data.split)[0]["hr"]
    return hr.shape, hr.dtype
  known = data.crop or data.resize or data.centre
  if known and given:
    raise UserError(f"--hr-shape is for whole images, but config.data makes them {known}: leave it out.")
  if not (known or given):
    raise UserError(
      "config.data neither crops nor resizes, so only the data tells how large an image is: give --hr-shape "
      "ROWS,COLUMNS."
    )
  rows, columns = known or given
  return (rows, columns, data.channels), jnp.uint8


def plan(config: ConfigDict, target: Target, hr_shape: tuple[int, ...] = ()) -> Iterator[Program]:
  """The programs of a config and of its stages on a machine, in the order in which they run.

  Args:
    config: of a run, see `config.load`.
    target: the machine, see `targets.prepare`.
    hr_shape: rows and columns of whole images, see `image_shape`.

  Raises:
    UserError: a config that cannot be run, images of unknown size, or a batch that the chips cannot share.
  """
  mesh = parallel.described_mesh(target.platform, target.topology, **target.description)
  for stage in plan_stages(config, ""):
    yield from plan_stage(stage.config, stage.name, mesh, target, hr_shape)


def plan_stage(
  config: ConfigDict, name: str, mesh: Mesh, target: Target, hr_shape: tuple[int, ...] = ()
) -> Iterator[Program]:
  """The programs of one stage on the devices of a mesh, see `plan`."""
  configs.check(config)
  operator = make_operator(config)
  method = make_method(config, operator)
  at_once = method.minibatch or config.train.batch
  parallel.check_shared(at_once, mesh)
  shape, dtype = image_shape(config, hr_shape)

  def batch(count: int) -> dict[str, Any]:
    # With a label, which methods that need none leave alone.
    rows = {"hr": ((count, *shape), dtype), "mask": ((count,), jnp.bool_)}
    return parallel.abstract_batch(mesh, rows | dict.fromkeys(("index", "label"), ((count,), jnp.int32)))

  whole = batch(config.train.batch)
  state = parallel.abstract_state(method, mesh, whole)
  jobs: dict[str, tuple[Any, Any]] = {"step": (parallel.compile_step(method, mesh, 0), whole)}
  # A batch that is kept for several rounds is a pool, of whose slices `objective` selects the latents.
  if method.rounds_per_batch > 1:
    jobs["selection"] = jax.jit(lambda s, b: method.objective(s, b, _key(s))), batch(at_once)
  if sample := method.sample:
    lr = {"lr": ((at_once, *operator.lr_shape(shape)), jnp.float32)}
    jobs["sample"] = jax.jit(lambda s, b: sample(s, b["lr"], _key(s), n=1)), parallel.abstract_batch(mesh, lr)

  for job, (function, images) in jobs.items():
    title = f"{name} {job}".strip()
    cost, needed, there = _compile(function.lower(state, images), target.options)
    there = there or target.chip.memory
    seconds, limit = roofline(cost, target.chip, config.dtype, mesh.size) if cost else (0.0, "")
    rate = config.train.batch / method.rounds_per_batch / seconds if job == "step" and cost else 0.0
    limit = "too large" if needed > there else limit
    weights = _weights(state) if job == "step" else 0
    yield Program(title, at_once, weights, needed, there, cost, seconds, limit, rate)


def _key(state: State) -> Key:
  return jax.random.fold_in(jax.random.key(0), state.step)


def _weights(state: State) -> int:
  trained = [(state.params[role], state.stats[role]) for role in state.opt]
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trained))


def _compile(lowered: Any, options: dict[str, Any]) -> tuple[hlo.Cost | None, float, float]:
  """What a program costs, and the bytes it needs; of one that the compiler refuses, those that there are."""
  try:
    compiled = lowered.compile(options)
  except jax.errors.JaxRuntimeError as error:
    # A TPU's says "... HLO temporaries (96.00G) exceeds available HBM (15.75G)" and means all together.
    found = re.search(r"([\d.]+)([KMG])\)? exceeds available HBM \(([\d.]+)([KMG])\)", str(error))
    if not found:
      raise
    needed, there = (float(found[i]) * 2.0 ** {"K": 10, "M": 20, "G": 30}[found[i + 1]] for i in (1, 3))
    return None, needed, there
  memory = compiled.memory_analysis()
  needed = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
  needed += memory.generated_code_size_in_bytes - memory.alias_size_in_bytes
  return hlo.cost(compiled.as_text()), needed, 0.0


def row(p: Program) -> str:
  """A program as a line of a Markdown table below HEAD."""
  cells = [p.name, f"{p.images:,}", f"{_short(p.memory / 2**30)} of {_short(p.capacity / 2**30)}"]
  if p.cost:
    kinds = [f"{count} {kind} {_short(size / 1e6)}" for kind, (count, size) in p.cost.collectives.items()]
    cells += [_short(p.cost.flops / 1e9), _short(p.cost.bytes / 1e6)]
    cells += [_short(p.weights / 1e6) if p.weights else "", ", ".join(kinds) or "none"]
    cells += [_short(1e3 * p.seconds), _short(p.images / p.seconds)]
  else:
    cells += [""] * 6
  cells += [p.limit, _short(p.input_rate) if p.input_rate else ""]
  return f"| {' | '.join(cells)} |"


def _short(value: float) -> str:
  """Three digits."""
  return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
