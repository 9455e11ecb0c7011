"""Does every method train in two processes what it trains in one?

Two processes of one device each form a job on this machine and train the tests' tiny preset of every method
for six rounds of plain gradient descent, which hides no wrong factor; then one process does so alone.

  python benchmarks/two_processes.py [METHOD ...]

It prints of each method how far the parameters lie apart at the end, over how far training has moved them,
and ends with 1 if that is more than 1e-3 anywhere.
"""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ |= {
  "JAX_PLATFORMS": "cpu",
  "XLA_FLAGS": "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0",
}
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import jax
import numpy as np

import small_runs
from sr_jax import parallel
from sr_jax.configs.papers import METHODS
from sr_jax.methods import make_method
from sr_jax.ops import make_operator

ROUNDS, FAR = 6, 1e-3


def train(name: str) -> tuple[np.ndarray, np.ndarray]:
  """All trained parameters of a method in one row, before and after."""
  config = small_runs.plain_descent(name)
  method = make_method(config, make_operator(config))
  mesh, (process, processes) = parallel.make_mesh(), parallel.process()
  whole = small_runs.batch()
  part = {key: np.split(value, processes)[process] for key, value in whole.items()}
  data = parallel.put_batch(part, mesh)
  state = parallel.compile_init(method, mesh, 0)(data)

  def row() -> np.ndarray:
    leaves = jax.tree.leaves([state.params[network] for network in sorted(state.opt)])
    return np.concatenate([np.ravel(jax.device_get(leaf)) for leaf in leaves])

  start, step = row(), parallel.compile_step(method, mesh, 0)
  for _ in range(ROUNDS):
    state, _ = step(state, data)
  return start, row()


def work(where: str, file: str, names: list[str]) -> None:
  """What each process does; the first one writes what it found."""
  if where:
    parallel.start_processes(where)
  found = {}
  for name in names:
    found[f"{name}/start"], found[f"{name}/end"] = train(name)
  if parallel.process()[0] == 0:
    np.savez(file, **found)


def main(names: list[str]) -> int:
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    address = f"localhost:{probe.getsockname()[1]}"
  with tempfile.TemporaryDirectory() as folder:
    for file, places in (("two", [f"{address},{number},2" for number in range(2)]), ("one", [""])):
      words = [sys.executable, __file__, "--work"]
      job = [subprocess.Popen([*words, place, f"{folder}/{file}.npz", *names]) for place in places]
      codes = [process.wait() for process in job]
      if any(codes):
        return 1
    one, two = (dict(np.load(f"{folder}/{file}.npz")) for file in ("one", "two"))
  worst = 0.0
  for name in names:
    moved = np.linalg.norm(one[f"{name}/end"] - one[f"{name}/start"])
    apart = np.linalg.norm(two[f"{name}/end"] - one[f"{name}/end"]) / moved
    worst = max(worst, apart)
    print(f"{name:20} moved {moved:9.3g}, apart {apart:.1e} of it")
  return int(not worst <= FAR)


if __name__ == "__main__":
  if sys.argv[1:2] == ["--work"]:
    work(sys.argv[2], sys.argv[3], sys.argv[4:])
  else:
    sys.exit(main(sys.argv[1:] or list(METHODS)))
