"""Every full-size config on the device that JAX finds: its train step, its selection and its sampler.

  python benchmarks/accelerator.py [--only prsr] [--seconds-budget 460] [--json FILE] [--no-torch] [--tiny]

On random bytes and random weights, so it needs no data; in float32 and in bfloat16. What is timed is what
`sr-jax train` runs: the programs of `parallel.py`, with a batch on the device. All programs are compiled
first, several at a time, then each is timed alone. Where PyTorch is installed, three of the train steps are
run there too (`torch_peers.py`). A row that fails says why, and one that the budget does not reach "not run".

GFLOP are those of the convolutions and products that the program's equations ask for, at 2 a multiply-add
(XLA's own count, in the JSON file, takes a loop once). Memory is what the compiler plans for the program:
arguments, results and temporaries. A selection is timed with a few candidates and scaled to the config's m;
VGG-19 computes in float32 in both dtypes.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sr_jax import config as configs
from sr_jax import parallel
from sr_jax.method import Method, State
from sr_jax.methods import make_method
from sr_jax.ops import make_operator

DTYPES = ("float32", "bfloat16")
# Dense TFLOP/s by the makers' data sheets: bfloat16, TF32, float32. A TPU multiplies in bfloat16 alone.
PEAKS = {
  "H100 PCIe": (756, 378, 51),
  "H100": (989, 495, 67),
  "H200": (989, 495, 67),
  "A100": (312, 156, 19.5),
  "TPU v5 lite": (197, 197, 197),
  "TPU v5": (459, 459, 459),
  "TPU v6 lite": (918, 918, 918),
}
PRECISIONS = ("bfloat16", "tf32", "float32")
COMPILE_SHARE = 0.6  # of the budget, after which no compilation begins


class Case(NamedTuple):
  """A config with what is timed of it.

  Attributes:
    name: of the config, with its variant.
    stage: one of its stages, "" for the run itself.
    pixels: SRIM with pixels as its only features.
    draws: images of one call of the sampler, 0 for the training batch; () where another case has the same.
  """

  name: str
  stage: str = ""
  pixels: bool = False
  draws: tuple[int, ...] = (0,)

  @property
  def title(self) -> str:
    return self.name + (f", {self.stage}" if self.stage else "") + (", pixels alone" if self.pixels else "")


# The first are compiled first.
CASES = (
  Case("srim_imagenet:srim"),
  Case("prsr_celeba:prsr", draws=(8, 64)),
  Case("amap_celeba:affgan"),
  Case("srim_imagenet:regression"),
  Case("srim_imagenet:srim", pixels=True, draws=()),
  Case("amap_imagenet:affgan"),
  Case("prsr_bedrooms:prsr", draws=(64,)),
  Case("amap_grass:affgan"),
  Case("amap_grass:affdg", stage="prior", draws=()),
  Case("amap_grass:affdg", draws=()),
  Case("amap_grass:affll", stage="prior", draws=()),
  Case("amap_grass:affll", draws=()),
  Case("prsr_celeba:regression"),
  Case("amap_celeba:affmse", draws=()),
  Case("varsr_celeba:adversarial", draws=(64,)),
  Case("srmap_div2k:scratch", draws=(4,)),
  Case("srmap_div2k:l1", draws=()),
)
# The train steps that torch_peers.py has too.
PEERS = {"srim": "srim_imagenet:regression", "prsr": "prsr_celeba:prsr", "amap": "amap_celeba:affgan"}


class Program(NamedTuple):
  """A compiled program; `flops` where its conditions take the cheapest branch and the dearest."""

  call: Callable[..., Any]
  flops: tuple[float, float]
  xla_flops: float
  gib: float
  seconds: float


class Prepared(NamedTuple):
  """A case in one dtype; `programs` has a sentence where there is no program."""

  config: ConfigDict
  batch: dict[str, np.ndarray]
  lr_shape: tuple[int, ...]
  programs: dict[str, Program | str]


def count_flops(jaxpr: Any, choose: Callable[..., float]) -> float:
  """Of the convolutions and products of a jaxpr; `choose` is min or max, of a condition's branches."""
  jaxpr, total = getattr(jaxpr, "jaxpr", jaxpr), 0.0
  for equation in jaxpr.eqns:
    name, keys = equation.primitive.name, equation.params
    if name in ("conv_general_dilated", "dot_general"):
      left, right = (v.aval.shape for v in equation.invars[:2])
      size = math.prod(equation.outvars[0].aval.shape)
      if name == "dot_general":
        each = math.prod(left[axis] for axis in keys["dimension_numbers"][0][0])
      else:  # zeros between the inputs of a transposed convolution are no work
        features = right[keys["dimension_numbers"].rhs_spec[0]]
        each = math.prod(right) / features / math.prod(keys["lhs_dilation"])
      total += 2.0 * size * each
    elif name == "cond":
      total += choose(count_flops(branch, choose) for branch in keys["branches"])
    else:
      inner = [v for v in keys.values() if hasattr(v, "eqns") or hasattr(v, "jaxpr")]
      total += keys.get("length", 1) * sum(count_flops(v, choose) for v in inner)
  return total


def build(function: Any, *arguments: Any) -> Program:
  """Compile a jitted function for arguments or their shapes."""
  start = time.perf_counter()
  traced = function.trace(*arguments)
  compiled = traced.lower().compile()
  took = time.perf_counter() - start
  memory, xla = compiled.memory_analysis(), compiled.cost_analysis()
  size = 0
  if memory is not None:
    size = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    size -= memory.alias_size_in_bytes
  flops = count_flops(traced.jaxpr, min), count_flops(traced.jaxpr, max)
  return Program(compiled, flops, (xla or {}).get("flops", math.nan), size / 2**30, took)


def narrow(keys: ConfigDict) -> None:
  """A network for --tiny."""
  most = {"width": 6, "layers": 2, "blocks": 1, "head": 6, "components": 2, "quadratic": 2, "scales": 2}
  for key, value in keys.items():
    if isinstance(value, ConfigDict):
      narrow(value)
    elif key in ("widths", "strides"):
      keys[key] = tuple(min(v, 6) for v in value[:2])
    elif key in most:
      keys[key] = min(value, most[key])


def make_config(case: Case, dtype: str, tiny: bool) -> tuple[ConfigDict, int]:
  """The config as it is timed, and the side of its images."""
  config = configs.load(case.name)
  if case.stage:
    config = configs.stage_config(config, case.stage)
  config.dtype = dtype
  # What srim_imagenet trains on are whole images of 256x256.
  side = (config.data.crop or config.data.resize or (256,))[0]
  if tiny:
    side = max(8, side // 8)
    config.train.batch = 2
    for network in config.networks.values():
      narrow(network)
  if config.method.name == "srim":
    keys = config.method
    if tiny:
      keys.update({"minibatch": 2, "chunk": 2})
      keys.features.width = 4
    # Two selecting rounds a pool; a whole pool is no other program, only longer.
    config.train.batch, keys.candidates = 2 * keys.minibatch, 2 * keys.chunk
    if case.pixels:
      keys.features.layers = ()
    keys.features.file = "random"  # never read: the weights stay the placeholders of `init`
  return config, side


def make_batch(count: int, side: int) -> dict[str, np.ndarray]:
  hr = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
  return {"hr": hr, "index": np.arange(count, dtype=np.int32), "mask": np.ones(count, bool)}


def prepare(case: Case, dtype: str, tiny: bool, deadline: float) -> Prepared | str:
  """Compile all programs of a case in one dtype; none is begun after the deadline."""
  if time.perf_counter() > deadline:
    return "not run"
  config, side = make_config(case, dtype, tiny)
  operator, mesh = make_operator(config), parallel.make_mesh()
  method = make_method(config, operator)
  batch = make_batch(config.train.batch, side)
  state = parallel.abstract_state(method, mesh, batch)
  lr_shape = operator.lr_shape(batch["hr"].shape)[1:]

  def shapes(count: int) -> dict[str, jax.ShapeDtypeStruct]:
    rows = {name: ((count, *v.shape[1:]), v.dtype) for name, v in batch.items()}
    return {k: jax.ShapeDtypeStruct(*v, sharding=parallel.sharded(mesh)) for k, v in rows.items()}

  jobs: dict[str, Callable[[], Program]] = {}
  if dtype == DTYPES[0]:  # parameters are float32 in both
    jobs["init"] = lambda: build(parallel.compile_init(method, mesh, 0), shapes(len(batch["hr"])))
  jobs["step"] = lambda: build(parallel.compile_step(method, mesh, 0), state, shapes(len(batch["hr"])))
  if method.sample:
    for count in case.draws:
      size = (slice_size(config) if not count else min(count, 4) if tiny else count, *lr_shape)
      x = jax.ShapeDtypeStruct(size, jnp.float32, sharding=parallel.sharded(mesh))
      jobs[f"sample {size[0]}"] = lambda x=x: build(jax.jit(make_sampler(method)), state, x)
  if config.method.name == "srim":
    jobs["select"] = lambda: build(jax.jit(make_selection(method)), state, shapes(slice_size(config)))

  programs: dict[str, Program | str] = {}
  for name, job in jobs.items():
    try:
      programs[name] = job() if time.perf_counter() < deadline else "not run"
    except Exception as error:  # whatever it is, the other rows go on
      programs[name] = sentence(error)
    note(f"{case.title} {dtype} {name}: {outcome(programs[name])}")
  return Prepared(config, batch, lr_shape, programs)


def make_sampler(method: Method) -> Callable[[State, jax.Array], jax.Array]:
  return lambda state, x: method.sample(state, x, jax.random.fold_in(jax.random.key(1), state.step), n=1)


def make_selection(method: Method) -> Callable[[State, dict[str, jax.Array]], dict[str, jax.Array]]:
  return lambda state, b: method.objective(state, b, jax.random.fold_in(jax.random.key(1), state.step))


def slice_size(config: ConfigDict) -> int:
  """Images that a round works on: SRIM's batch is a pool."""
  return config.method.get("minibatch", config.train.batch)


def sentence(error: Exception) -> str:
  return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:120]}".replace("|", "/")


def outcome(program: Program | str) -> str:
  return program if isinstance(program, str) else f"compiled in {program.seconds:.1f} s"


def note(text: str) -> None:
  print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def seconds(call: Callable[[], object], most: int) -> float:
  """A call's time: the median of three runs of up to `most` calls, after two that warm up.

  Of a call of more than a second there is one run.
  """
  jax.block_until_ready(call())
  start = time.perf_counter()
  jax.block_until_ready(call())
  once = time.perf_counter() - start
  count = min(most, max(1, int(0.5 / once)))
  times = []
  for _ in range(3 if once < 1 else 1):
    start = time.perf_counter()
    for _ in range(count):
      result = call()
    jax.block_until_ready(result)
    times.append((time.perf_counter() - start) / count)
  return statistics.median(times)


def float32_precision() -> tuple[str, float]:
  """What a float32 convolution computes in here, and the relative error by which it is told."""
  draw = np.random.default_rng(0)
  x, kernel = draw.normal(size=(8, 34, 34, 64)), draw.normal(size=(3, 3, 64, 64))
  exact = sum(x[:, i : i + 32, j : j + 32] @ kernel[i, j] for i in range(3) for j in range(3))
  dimensions = ("NHWC", "HWIO", "NHWC")
  ours = jax.jit(
    lambda a, b: jax.lax.conv_general_dilated(a, b, (1, 1), "VALID", dimension_numbers=dimensions)
  )(jnp.float32(x), jnp.float32(kernel))
  error = float(np.linalg.norm(np.asarray(ours) - exact) / np.linalg.norm(exact))
  return ("float32" if error < 2e-5 else "tf32" if error < 1e-3 else "bfloat16"), error


def product_rate(dtype: str, n: int) -> float:
  """TFLOP/s of a matrix product of n x n."""
  a = jax.random.normal(jax.random.key(0), (n, n), dtype)
  product = jax.jit(jnp.matmul)
  return 2 * n**3 / seconds(lambda: product(a, a), 20) / 1e12


class Report:
  """Prints rows of tables as they come, and keeps them for the JSON file."""

  def __init__(self, file: str, peaks: dict[str, float], about: dict[str, Any]) -> None:
    self.file, self.peaks, self.about, self.rows = file, peaks, about, []

  def head(self, *columns: str) -> None:
    print(f"\n| {' | '.join(columns)} |\n| --- | --- |{' ---: |' * (len(columns) - 2)}", flush=True)

  def row(self, cells: list[str], **record: Any) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)
    stats = jax.local_devices()[0].memory_stats() or {}
    self.rows.append(record | {"peak_bytes_so_far": stats.get("peak_bytes_in_use")})
    if self.file:
      Path(self.file).write_text(json.dumps(self.about | {"rows": self.rows}, indent=1))

  def timed(self, table: str, title: str, dtype: str, program: Program, dear: bool, count: int, took: float):
    """The cells and the record that every table has."""
    flops = program.flops[dear]
    share = flops / took / 1e12 / (self.peaks[dtype] * jax.device_count())
    cells = [f"{flops / 1e9:,.3g}", f"{share:.1%}", f"{program.gib:.3g}", f"{program.seconds:.0f}"]
    record = {"table": table, "config": title, "dtype": dtype, "images": count, "seconds": took}
    record |= {"flops": flops, "xla_flops": program.xla_flops, "gib": program.gib, "peak_share": share}
    return cells, record | {"compile_seconds": program.seconds}


class Bench:
  """The tables. A prepared case is timed alone, after all have been compiled."""

  def __init__(self, report: Report, prepared: dict[tuple[Case, str], Prepared | str], keys: Any, end: float):
    self.report, self.prepared, self.steps, self.end = report, prepared, keys.steps, end
    self.speed: dict[tuple[str, str], float] = {}  # images/s of train steps, for the peers

  def each(self, kind: str, time_one: Callable[..., None]) -> None:
    """`time_one(case, dtype, prepared, program, its name)` for all programs whose name begins with `kind`."""
    for (case, dtype), ready in self.prepared.items():
      if isinstance(ready, str):
        if kind == "step":
          self.report.row([case.title, dtype, ready], config=case.title, dtype=dtype, error=ready)
        continue
      for name in (name for name in ready.programs if name.startswith(kind)):
        program = ready.programs[name] if time.perf_counter() < self.end else "not run"
        try:
          if not isinstance(program, str):
            time_one(case, dtype, ready, program, name)
            continue
        except Exception as error:  # such as too little memory
          program = sentence(error)
        cells = [f"{case.title}, {name}", dtype, program]
        self.report.row(cells, table=kind, config=case.title, dtype=dtype, program=name, error=program)

  def start(self, case: Case) -> State:
    """A first state of its own."""
    ready = self.prepared[case, DTYPES[0]]
    if isinstance(ready, str) or isinstance(ready.programs["init"], str):
      raise RuntimeError("its first state was not made")
    return ready.programs["init"].call(parallel.put_batch(ready.batch, parallel.make_mesh()))

  def train(self, case: Case, dtype: str, ready: Prepared, program: Program, name: str) -> None:
    mesh, count, config = parallel.make_mesh(), slice_size(ready.config), ready.config
    batch, state = parallel.put_batch(ready.batch, mesh), self.start(case)
    rounds: dict[str, int | None] = {"": None}
    if config.method.name == "srim":
      columns, inner = config.train.batch // count, config.method.inner_rounds
      # A pool's first rounds select; those after them descend. Round 0 would also scale the features.
      tried = config.method.candidates
      rounds = {", descent": columns, f", selection of m = {tried}": columns + inner}
    for what, first in rounds.items():
      selects = "selection" in what
      if first is not None:
        state = state.replace(step=place_step(first, mesh))

      def call(first: int | None = first, selects: bool = selects) -> State:
        nonlocal state
        state = state.replace(step=place_step(first, mesh)) if selects else state
        state, _ = program.call(state, batch)
        return state

      took = seconds(call, 1 if selects else self.steps)
      cells, record = self.report.timed("train", case.title + what, dtype, program, selects, count, took)
      speed = count / took
      self.speed[case.title + what, dtype] = speed
      head = [case.title + what, dtype, f"{count}", f"{speed:,.4g}", f"{1e3 * took:,.4g}"]
      self.report.row(head + cells, **record)

  def select(self, case: Case, dtype: str, ready: Prepared, program: Program, name: str) -> None:
    count, mesh, state = slice_size(ready.config), parallel.make_mesh(), self.start(case)
    part = parallel.put_batch({k: v[:count] for k, v in ready.batch.items()}, mesh)
    took = seconds(lambda: program.call(state, part), 3)
    tried, whole = ready.config.method.candidates, configs.load(case.name).method.candidates
    cells, record = self.report.timed("selection", case.title, dtype, program, True, count, took)
    head = [case.title, dtype, f"{tried}", f"{count * tried / took:,.4g}", f"{took * whole / tried:,.4g}"]
    self.report.row(head + cells, candidates=tried, **record)

  def sample(self, case: Case, dtype: str, ready: Prepared, program: Program, name: str) -> None:
    shape = (int(name.split()[1]), *ready.lr_shape)
    state, x = self.start(case), np.random.default_rng(1).random(shape, np.float32)
    x = parallel.put_batch({"lr": x}, parallel.make_mesh())["lr"]
    took = seconds(lambda: program.call(state, x), self.steps)
    cells, record = self.report.timed("sampler", case.title, dtype, program, True, shape[0], took)
    head = [case.title, dtype, f"{shape[0]}", f"{shape[0] / took:,.4g}", f"{took / shape[0]:.4g}"]
    self.report.row(head + cells, **record)


def place_step(step: int, mesh: jax.sharding.Mesh) -> jax.Array:
  return jax.device_put(np.int32(step), parallel.replicated(mesh))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--only", default="", help="cases whose name contains this")
  parser.add_argument("--tiny", action="store_true", help="narrow networks, small images: to test the script")
  parser.add_argument("--steps", type=int, default=20, help="timed calls of a program, at most")
  parser.add_argument("--seconds-budget", type=float, default=460.0)
  parser.add_argument(
    "--threads", type=int, default=min(8, os.cpu_count() or 1), help="compilations at a time"
  )
  parser.add_argument("--no-torch", action="store_true")
  parser.add_argument("--json", default="", metavar="FILE", help="where all numbers go too")
  keys = parser.parse_args()
  begun = time.perf_counter()
  end = begun + keys.seconds_budget
  # JAX would take most of the memory, and PyTorch comes after it.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  if keys.tiny:  # compiling is all that takes time
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

  kind = jax.devices()[0].device_kind
  precision, error = float32_precision()
  side = 1024 if jax.default_backend() == "cpu" else 8192
  rates = {dtype: product_rate(dtype, side) for dtype in DTYPES}
  known = next((values for name, values in PEAKS.items() if name in kind), None)
  peaks = dict(rates)
  if known:
    peaks = {"bfloat16": known[0], "float32": known[PRECISIONS.index(precision)]}
  words = ", ".join(f"{dtype} {value:.4g}" for dtype, value in peaks.items())
  print(f"{jax.device_count()} x {kind}, jax {jax.__version__}, Python {sys.version.split()[0]}")
  print(f"A float32 convolution here has a relative error of {error:.1e}: it computes in {precision}.")
  print(f"TFLOP/s of a product of {side}x{side}: {', '.join(f'{d} {v:.4g}' for d, v in rates.items())}.")
  print(f"Shares are of TFLOP/s {words}, {'by the data sheet' if known else 'which are those, measured'}.")

  cases = [case for case in CASES if keys.only in case.title]
  deadline = begun + COMPILE_SHARE * keys.seconds_budget
  with ThreadPoolExecutor(keys.threads) as pool:
    futures: dict[tuple[Case, str], Future[Prepared | str]] = {
      (case, dtype): pool.submit(prepare, case, dtype, keys.tiny, deadline)
      for case in cases
      for dtype in DTYPES
    }
  prepared: dict[tuple[Case, str], Prepared | str] = {}
  for place, future in futures.items():
    problem = future.exception()
    prepared[place] = sentence(problem) if isinstance(problem, Exception) else future.result()
  note(f"compiled after {time.perf_counter() - begun:.0f} s")

  about = {"device": kind, "jax": jax.__version__, "float32": precision, "peaks": peaks, "products": rates}
  report = Report(keys.json, peaks, about)
  bench = Bench(report, prepared, keys, end)
  tail = ("GFLOP", "of peak", "GiB", "compile s")
  report.head("train step", "dtype", "images", "images/s", "ms", *tail)
  bench.each("step", bench.train)
  report.head("selection", "dtype", "m", "candidates/s", "s a slice at the config's m", *tail)
  bench.each("select", bench.select)
  report.head("sampler", "dtype", "images", "images/s", "s an image", *tail)
  bench.each("sample", bench.sample)
  if not keys.no_torch and find_spec("torch"):
    compare(report, bench, keys, precision, end)
  stats = jax.local_devices()[0].memory_stats() or {}
  if "peak_bytes_in_use" in stats:
    print(f"\nMost memory in use on one device at any time: {stats['peak_bytes_in_use'] / 2**30:.2f} GiB.")
  print(f"\n{time.perf_counter() - begun:.0f} s in all.")


def compare(report: Report, bench: Bench, keys: Any, precision: str, end: float) -> None:
  """Run the train steps of torch_peers.py in a process of its own, and compare those of equal precision."""
  peers: dict[str, Any] = {}
  for name, title in PEERS.items():
    case = next(case for case in CASES if case.title == title)
    config, side = make_config(case, "float32", keys.tiny)
    if keys.only in title:
      networks = {role: net.to_dict() for role, net in config.networks.items()}
      peers[name] = {"batch": config.train.batch, "side": side, "networks": networks}
  if not peers:
    return
  columns = ("images", "images/s", "ms", "GiB", "JAX images/s", "JAX / PyTorch")
  report.head("train step in PyTorch", "precision", *columns)
  script = Path(__file__).with_name("torch_peers.py")
  command = [sys.executable, str(script), "--steps", str(keys.steps), json.dumps(peers)]
  left = max(1.0, end - time.perf_counter())
  try:
    run = subprocess.run(command, capture_output=True, text=True, timeout=left, check=False)
    output, problem = run.stdout, run.stderr if run.returncode else ""
  except subprocess.TimeoutExpired as error:
    output, problem = (error.stdout or b"").decode(), "the rest was not run"
  for line in output.splitlines():
    row = json.loads(line)
    title = PEERS[row["peer"]]
    if "error" in row:
      report.row([title, row["precision"], f"failed: {row['error']}"], table="torch", config=title, **row)
      continue
    dtype = "bfloat16" if row["precision"] == "bfloat16" else "float32"
    ours = bench.speed.get((title, dtype)) if row["precision"] in ("bfloat16", precision) else None
    speed = row["images"] / row["seconds"]
    cells = [title, row["precision"], f"{row['images']}", f"{speed:,.4g}", f"{1e3 * row['seconds']:,.4g}"]
    cells += [f"{row['gib']:.2f}", *([f"{ours:,.4g}", f"{ours / speed:.2f}"] if ours else ["", ""])]
    report.row(cells, table="torch", config=title, **row, jax_images_per_second=ours)
  if problem:
    print(f"| {problem.strip().splitlines()[-1][:150]} |")


if __name__ == "__main__":
  main()
