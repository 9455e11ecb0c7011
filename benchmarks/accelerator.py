"""Every full-size config on the device that JAX finds: its train step, its selection and its sampler.

  python benchmarks/accelerator.py [--only prsr,srmap] [--seconds-budget 460] [--json FILE]
      [--jobs 6] [--no-torch] [--tiny]

On random bytes and random weights, so it needs no data; in float32 and in bfloat16. What is timed is what
`sr-jax train` runs: the programs of `parallel.py`, with a batch on the device. Each case in each dtype is a
process of its own, because XLA compiles little at a time in one. --jobs of them compile at once; when all are
ready, each is timed alone, and the next ones begin. Where PyTorch is installed, three of the train steps are
run there too (`torch_peers.py`). A row that fails says why, and one that the budget does not reach "not run".
While it compiles XLA tries kernels on the device itself: with 17 --jobs the largest programs found no memory
for that on an H200.

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
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sr_jax import config as configs
from sr_jax import parallel
from sr_jax.method import State
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
COMPILE_SHARE = 0.6  # of the time that is left, for the compilations of those that begin together


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
  side = (config.data.crop or config.data.resize or config.data.centre)[0]
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


class Worker:
  """A case in one dtype, in a process of its own: `prepare` compiles, then `records` times."""

  def __init__(self, case: Case, dtype: str, keys: Any) -> None:
    self.case, self.keys = case, keys
    self.config, side = make_config(case, dtype, keys.tiny)
    self.mesh, operator = parallel.make_mesh(), make_operator(self.config)
    self.method = make_method(self.config, operator)
    self.batch = make_batch(self.config.train.batch, side)
    self.lr_shape = operator.lr_shape(self.batch["hr"].shape)[1:]
    self.programs: dict[str, Program | str] = {}
    # The CPU makes it, whose compiler is quick.
    host = parallel.make_mesh(jax.local_devices(backend="cpu")[:1])
    self.first = parallel.compile_init(self.method, host, 0)(parallel.put_batch(self.batch, host))

  def prepare(self) -> None:
    """A sentence takes the place of a program that does not compile."""
    method, mesh, count = self.method, self.mesh, slice_size(self.config)
    state = parallel.abstract_state(method, mesh, self.batch)

    def shapes(count: int) -> dict[str, jax.ShapeDtypeStruct]:
      rows = {name: ((count, *v.shape[1:]), v.dtype) for name, v in self.batch.items()}
      return {k: jax.ShapeDtypeStruct(*v, sharding=parallel.sharded(mesh)) for k, v in rows.items()}

    def key(state: State) -> jax.Array:
      return jax.random.fold_in(jax.random.key(1), state.step)

    jobs = {"step": (parallel.compile_step(method, mesh, 0), shapes(len(self.batch["hr"])))}
    for images in self.case.draws if method.sample else ():
      size = (count if not images else min(images, 4) if self.keys.tiny else images, *self.lr_shape)
      x = jax.ShapeDtypeStruct(size, jnp.float32, sharding=parallel.sharded(mesh))
      jobs[f"sample {size[0]}"] = jax.jit(lambda state, x: method.sample(state, x, key(state), n=1)), x
    if self.config.method.name == "srim":
      jobs["select"] = jax.jit(lambda state, b: method.objective(state, b, key(state))), shapes(count)
    for name, (function, argument) in jobs.items():
      try:
        self.programs[name] = program = build(function, state, argument)
        words = f"compiled in {program.seconds:.1f} s"
      except Exception as error:  # whatever it is, the other rows go on
        self.programs[name] = words = sentence(error)
      note(f"{self.case.title} {self.config.dtype} {name}: {words}")

  def records(self) -> Iterator[dict[str, Any]]:
    """One for each line of a table."""
    kinds = {"step": self._train, "sample": self._sample, "select": self._select}
    for name, program in self.programs.items():
      about = {"config": self.case.title, "dtype": self.config.dtype, "program": name}
      if isinstance(program, str):
        yield about | {"error": program}
        continue
      try:
        for record in kinds[name.split()[0]](program, name):
          peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
          yield about | record | {"peak_bytes_so_far": peak}
      except Exception as error:  # such as too little memory
        yield about | {"error": sentence(error)}

  def _start(self) -> State:
    """A copy of the first state, for a program to donate."""
    where = parallel.replicated(self.mesh)
    return jax.tree.map(lambda x: jax.device_put(x, where, may_alias=False), self.first)

  def _numbers(self, program: Program, dear: bool, images: int, took: float) -> dict[str, Any]:
    numbers = {"images": images, "seconds": took, "flops": program.flops[dear]}
    return numbers | {"xla_flops": program.xla_flops, "gib": program.gib, "compile_s": program.seconds}

  def _train(self, program: Program, name: str) -> Iterator[dict[str, Any]]:
    batch, state = parallel.put_batch(self.batch, self.mesh), self._start()
    rounds = {"": 0}
    count, keys = slice_size(self.config), self.config.method
    if keys.name == "srim":
      columns = self.config.train.batch // count
      # A pool's first rounds select; those after them descend. Round 0 would also scale the features.
      rounds = {", descent": columns, f", selection of m = {keys.candidates}": columns + keys.inner_rounds}
    for what, first in rounds.items():
      selects = "selection" in what
      state = state.replace(step=self._place(first))

      def call(first: int = first, selects: bool = selects) -> State:
        nonlocal state
        state = state.replace(step=self._place(first)) if selects else state
        state, _ = program.call(state, batch)
        return state

      took = seconds(call, 1 if selects else self.keys.steps)
      yield {"table": "train", "what": what} | self._numbers(program, selects, count, took)

  def _select(self, program: Program, name: str) -> Iterator[dict[str, Any]]:
    count, state = slice_size(self.config), self._start()
    part = parallel.put_batch({k: v[:count] for k, v in self.batch.items()}, self.mesh)
    took = seconds(lambda: program.call(state, part), 3)
    tried = {"tried": self.config.method.candidates, "whole": configs.load(self.case.name).method.candidates}
    yield {"table": "selection"} | tried | self._numbers(program, True, count, took)

  def _sample(self, program: Program, name: str) -> Iterator[dict[str, Any]]:
    shape = (int(name.split()[1]), *self.lr_shape)
    state, x = self._start(), np.random.default_rng(1).random(shape, np.float32)
    x = parallel.put_batch({"lr": x}, self.mesh)["lr"]
    took = seconds(lambda: program.call(state, x), self.keys.steps)
    yield {"table": "sampler"} | self._numbers(program, True, shape[0], took)

  def _place(self, step: int) -> jax.Array:
    return jax.device_put(np.int32(step), parallel.replicated(self.mesh))


def slice_size(config: ConfigDict) -> int:
  """Images that a round works on: SRIM's batch is a pool."""
  return config.method.get("minibatch", config.train.batch)


def sentence(error: Exception) -> str:
  return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:120]}".replace("|", "/")


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


class Process:
  """A `Worker` in a process of its own, which says "ready" and is told "go"; it writes a record a line."""

  def __init__(self, case: Case, dtype: str, words: list[str]) -> None:
    self.case, self.dtype, self.ready, self.stopped = case, dtype, threading.Event(), False
    command = [sys.executable, __file__, "--worker", f"{CASES.index(case)} {dtype}", *words]
    self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    threading.Thread(target=self._wait, daemon=True).start()

  def _wait(self) -> None:
    if self.process.stdout.readline():
      self.ready.set()

  def stop_unless_ready(self) -> None:
    """What still compiles would disturb what is timed."""
    if not self.ready.is_set() and self.process.poll() is None:
      self.stopped = True
      self.process.kill()

  def records(self, end: float) -> Iterator[dict[str, Any]]:
    """Until `end`."""
    about = {"config": self.case.title, "dtype": self.dtype}
    if not self.ready.is_set():
      code = self.process.wait()
      yield about | {"error": "not run" if self.stopped else f"failed: exit code {code}"}
      return
    timer = threading.Timer(max(0.0, end - time.perf_counter()), self.process.kill)
    timer.start()
    output, _ = self.process.communicate("go\n")
    timer.cancel()
    lines = output.rpartition("\n")[0].splitlines()  # the last one may be cut off
    yield from (json.loads(line) for line in lines)
    if self.process.returncode:
      yield about | {"error": "the rest was not run"}


def time_cases(cases: list[Case], keys: Any, words: list[str], end: float) -> Iterator[dict[str, Any]]:
  """The records of all cases in both dtypes, --jobs of them at a time."""
  rest = [(case, dtype) for case in cases for dtype in DTYPES]
  while rest:
    chosen, rest = rest[: keys.jobs], rest[keys.jobs :]
    left = end - time.perf_counter()
    if left <= 0:
      yield from ({"config": case.title, "dtype": dtype, "error": "not run"} for case, dtype in chosen)
      continue
    begun, processes = time.perf_counter(), [Process(*one, words) for one in chosen]
    deadline = begun + COMPILE_SHARE * left
    while time.perf_counter() < deadline:
      if all(one.ready.is_set() or one.process.poll() is not None for one in processes):
        break
      time.sleep(0.1)
    note(f"{len(chosen)} compiled in {time.perf_counter() - begun:.0f} s")
    for one in processes:
      one.stop_unless_ready()
    for one in processes:
      yield from one.records(end)


class Report:
  """Keeps records, in the JSON file too, and prints them as tables."""

  def __init__(self, file: str, peaks: dict[str, float], about: dict[str, Any]) -> None:
    self.file, self.peaks, self.about = file, peaks, about
    self.rows: list[dict[str, Any]] = []

  def add(self, record: dict[str, Any]) -> None:
    self.rows.append(record)
    if self.file:
      Path(self.file).write_text(json.dumps(self.about | {"rows": self.rows}, indent=1))

  def print(self) -> None:
    tables: dict[str, tuple[str, ...]] = {
      "train": ("train step", "dtype", "images", "images/s", "ms"),
      "selection": ("selection", "dtype", "m", "candidates/s", "s a slice at the config's m"),
      "sampler": ("sampler", "dtype", "images", "images/s", "s an image"),
    }
    for table, columns in tables.items():
      print_head(*columns, "GFLOP", "of peak", "GiB", "compile s")
      for row in (row for row in self.rows if row.get("table") == table):
        count, took, tried = row["images"], row["seconds"], row.get("tried", 1)
        each = {"train": 1e3 * took, "selection": took * row.get("whole", 1) / tried, "sampler": took / count}
        share = row["flops"] / took / 1e12 / (self.peaks[row["dtype"]] * self.about["count"])
        cells = [
          row["config"] + row.get("what", ""),
          row["dtype"],
          f"{tried if table == 'selection' else count}",
        ]
        cells += [f"{count * tried / took:,.4g}", f"{each[table]:,.4g}", f"{row['flops'] / 1e9:,.3g}"]
        print_row(*cells, f"{share:.1%}", f"{row['gib']:.3g}", f"{row['compile_s']:.0f}")
    print()
    for row in (row for row in self.rows if "table" not in row):
      print(f"{row['config']}, {row['dtype']} {row.get('program', '')}: {row['error']}", flush=True)


def print_head(*columns: str) -> None:
  print()
  print_row(*columns)
  print(f"| --- | --- |{' ---: |' * (len(columns) - 2)}")


def print_row(*cells: str) -> None:
  print(f"| {' | '.join(cells)} |", flush=True)


def is_chosen(title: str, only: str) -> bool:
  return any(words in title for words in only.split(","))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--only", default="", help="cases whose name contains one of these, after commas")
  parser.add_argument("--tiny", action="store_true", help="narrow networks, small images: to test the script")
  parser.add_argument("--steps", type=int, default=20, help="timed calls of a program, at most")
  parser.add_argument("--seconds-budget", type=float, default=460.0)
  parser.add_argument(
    "--jobs", type=int, default=min(6, os.cpu_count() or 1), help="processes that compile at a time"
  )
  parser.add_argument("--no-torch", action="store_true")
  parser.add_argument("--json", default="", metavar="FILE", help="where all numbers go too")
  parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
  keys = parser.parse_args()
  begun = time.perf_counter()
  end = begun + keys.seconds_budget
  # JAX would take most of the memory, and other processes have their part in it.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  if keys.tiny:  # compiling is all that takes time
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
  if keys.worker:
    number, dtype = keys.worker.split()
    worker = Worker(CASES[int(number)], dtype, keys)
    worker.prepare()
    print("ready", flush=True)
    if sys.stdin.readline():
      for record in worker.records():
        print(json.dumps(record), flush=True)
    return

  kind, flags = jax.devices()[0].device_kind, os.environ.get("XLA_FLAGS", "")
  precision, error = float32_precision()
  side = 1024 if jax.default_backend() == "cpu" else 8192
  rates = {dtype: product_rate(dtype, side) for dtype in DTYPES}
  known = next((values for name, values in PEAKS.items() if name in kind), None)
  peaks = dict(rates)
  if known:
    peaks = {"bfloat16": known[0], "float32": known[PRECISIONS.index(precision)]}
  words = ", ".join(f"{dtype} {value:.4g}" for dtype, value in peaks.items())
  print(f"{jax.device_count()} x {kind}, jax {jax.__version__}, Python {sys.version.split()[0]}")
  print(f"XLA_FLAGS: {flags or 'none'}.")
  print(f"A float32 convolution here has a relative error of {error:.1e}: it computes in {precision}.")
  print(f"TFLOP/s of a product of {side}x{side}: {', '.join(f'{d} {v:.4g}' for d, v in rates.items())}.")
  print(f"Shares are of TFLOP/s {words}, {'by the data sheet' if known else 'which are those, measured'}.")

  about = {"device": kind, "count": jax.device_count(), "jax": jax.__version__, "xla_flags": flags}
  report = Report(keys.json, peaks, about | {"float32": precision, "peaks": peaks, "products": rates})
  cases = [case for case in CASES if is_chosen(case.title, keys.only)]
  try:
    for record in time_cases(cases, keys, ["--steps", str(keys.steps), *["--tiny"] * keys.tiny], end):
      report.add(record)
  finally:
    report.print()
  if not keys.no_torch and find_spec("torch"):
    compare(report, keys, precision, end)
  print(f"\n{time.perf_counter() - begun:.0f} s in all.")


def compare(report: Report, keys: Any, precision: str, end: float) -> None:
  """Run the train steps of torch_peers.py in a process of its own, and compare those of equal precision."""
  peers: dict[str, Any] = {}
  for name, title in PEERS.items():
    case = next(case for case in CASES if case.title == title)
    config, side = make_config(case, "float32", keys.tiny)
    if is_chosen(title, keys.only):
      networks = {role: net.to_dict() for role, net in config.networks.items()}
      peers[name] = {"batch": config.train.batch, "side": side, "networks": networks}
  if not peers:
    return
  columns = ("images", "images/s", "ms", "GiB", "JAX images/s", "JAX / PyTorch")
  print_head("train step in PyTorch", "precision", *columns)
  speeds = {
    (row["config"], row["dtype"]): row["images"] / row["seconds"]
    for row in report.rows
    if row.get("table") == "train"
  }
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
      print_row(title, row["precision"], f"failed: {row['error']}")
      report.add({"table": "torch", "config": title} | row)
      continue
    dtype = "bfloat16" if row["precision"] == "bfloat16" else "float32"
    ours = speeds.get((title, dtype)) if row["precision"] in ("bfloat16", precision) else None
    speed = row["images"] / row["seconds"]
    cells = [title, row["precision"], f"{row['images']}", f"{speed:,.4g}", f"{1e3 * row['seconds']:,.4g}"]
    cells += [f"{row['gib']:.2f}", *([f"{ours:,.4g}", f"{ours / speed:.2f}"] if ours else ["", ""])]
    print_row(*cells)
    report.add({"table": "torch", "config": title, "jax_images_per_second": ours} | row)
  if problem:
    print(f"| {problem.strip().splitlines()[-1][:150]} |")


if __name__ == "__main__":
  main()
