"""What the affine projection costs beside the generator whose output it projects.

  python benchmarks/amap_projection.py [--batch 16] [--repeats 20]

The generator of amap_grass (the paper's) on noise of 64x64, in one run on the device JAX finds.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from sr_jax.configs import amap_grass
from sr_jax.networks import init, make_generator
from sr_jax.networks.projection import apply_kernels, learn_pinv
from sr_jax.ops import make_operator


def seconds(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
  """Median time of each call after one that compiles; they take turns, so that all meet the same machine."""
  times: dict[str, list[float]] = {name: [] for name in calls}
  for i in range(repeats + 1):
    for name, call in calls.items():
      start = time.perf_counter()
      jax.block_until_ready(call())
      if i:
        times[name].append(time.perf_counter() - start)
  return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--batch", type=int, default=16)
  parser.add_argument("--repeats", type=int, default=20)
  arguments = parser.parse_args()

  config = amap_grass.get_config("affgan")
  operator, net = make_operator(config), make_generator(config)
  y = jax.random.uniform(jax.random.key(0), (arguments.batch, 64, 64, 3))
  x = operator.A(y)
  params, stats = init(net, jax.random.key(1), x, ())
  variables = {"params": params, "batch_stats": stats}

  kernels = jnp.asarray(learn_pinv(operator))
  forward = jax.jit(lambda v, x: net.apply(v, x, (), train=False))
  exact = jax.jit(operator.project)
  learned = jax.jit(lambda y, x: y + apply_kernels(kernels, x - operator.A(y), operator.factor))
  calls = {
    "the generator's forward pass": lambda: forward(variables, x),
    "exact projection": lambda: exact(y, x),
    "learned projection": lambda: learned(y, x),
  }
  times = seconds(calls, arguments.repeats)
  network = times["the generator's forward pass"]
  print(
    f"{arguments.batch} images of 64x64 on {jax.devices()[0].device_kind}\n\n| part | ms | of the network |"
  )
  print("| --- | ---: | ---: |")
  for name, value in times.items():
    print(f"| {name} | {1e3 * value:.2f} | {value / network:.1%} |")


if __name__ == "__main__":
  main()
