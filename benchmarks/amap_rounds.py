"""What the affine projection costs, and one program for the two players of AffGAN against two.

  python benchmarks/amap_rounds.py [--batch 16] [--repeats 20]

The networks of amap_grass (the paper's) on noise of 64x64, in one run on the device JAX finds.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from sr_jax.configs import amap_grass
from sr_jax.method import optimiser
from sr_jax.methods.amap_gan import amap_gan, make_players
from sr_jax.networks import eval_pass, zero_latent
from sr_jax.networks.projection import apply_kernels, learn_pinv
from sr_jax.ops import make_operator, to_float


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
  config.train.batch = arguments.batch
  operator = make_operator(config)
  method = amap_gan(config, operator)
  tx = {name: optimiser(keys, config.train.rounds) for name, keys in config.optim.items()}
  net, _, update_discriminator, update_generator = make_players(config, operator, tx)
  hr = jax.random.randint(jax.random.key(0), (arguments.batch, 64, 64, 3), 0, 256).astype(jnp.uint8)
  batch = {"hr": hr, "index": jnp.arange(arguments.batch)}
  state = jax.jit(method.init)(jax.random.key(0), batch)
  y, x = to_float(hr), operator.lr(batch)

  kernels = jnp.asarray(learn_pinv(operator))
  forward = jax.jit(
    lambda s, x: eval_pass(net, s.params["generator"], s.stats["generator"], x, zero_latent(net, x))[-1]
  )
  exact = jax.jit(operator.project)
  learned = jax.jit(lambda y, x: y + apply_kernels(kernels, x - operator.A(y), operator.factor))
  calls = {
    "the generator's forward pass": lambda: forward(state, x),
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

  key = jax.random.key(1)
  draws = jax.random.split(jax.random.fold_in(key, 0), 4)
  whole = jax.jit(method.step).lower(state, batch, key).compile()
  first = jax.jit(update_discriminator).lower(state, y, x, draws).compile()
  second = jax.jit(update_generator).lower(state, x, draws).compile()
  times = seconds(
    {
      "one program": lambda: whole(state, batch, key),
      "two programs": lambda: second(first(state, y, x, draws)[0], x, draws),
    },
    arguments.repeats,
  )
  flops = {"one program": whole, "two programs": first}
  counts = {
    name: (program.cost_analysis() or {}).get("flops", float("nan")) for name, program in flops.items()
  }
  counts["two programs"] += (second.cost_analysis() or {}).get("flops", float("nan"))
  print("\n| a round of both players | ms | GFLOP |\n| --- | ---: | ---: |")
  for name, value in times.items():
    print(f"| {name} | {1e3 * value:.1f} | {counts[name] / 1e9:.2f} |")


if __name__ == "__main__":
  main()
