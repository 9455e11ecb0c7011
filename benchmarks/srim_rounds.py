"""Where the time and the memory of SRIM go: selection, search, training; hierarchical and flat; m.

  python benchmarks/srim_rounds.py [--width 64] [--crop 64] [--minibatch 4] [--candidates 10]

Prints one Markdown table per question. Everything is measured in one run on the device JAX finds.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax import parallel
from sr_jax.configs import base
from sr_jax.method import Method, State, run_round
from sr_jax.methods import make_method
from sr_jax.networks import make_generator, train_pass, zero_latent
from sr_jax.networks.features import make_features
from sr_jax.ops import make_operator, to_float


def make_config(arguments: argparse.Namespace, **keys):
  config = base.get_config("srim")
  config.method.features.layers = ()
  config.networks.generator.width = arguments.width
  config.data.crop = (arguments.crop, arguments.crop)
  config.train.batch = arguments.minibatch
  config.method.update({"minibatch": arguments.minibatch, "candidates": arguments.candidates, "chunk": 1})
  config.method.update(keys)
  return config


def seconds(call: Callable[[], object], repeats: int = 5) -> float:
  """Median of `repeats` calls after one that compiles."""
  jax.block_until_ready(call())
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(call())
    times.append(time.perf_counter() - start)
  return statistics.median(times)


def prepare(config) -> tuple[Method, State, dict[str, jax.Array]]:
  method = make_method(config, make_operator(config))
  mesh = parallel.make_mesh()
  shape = (config.train.batch, *config.data.crop, 3)
  hr = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
  rows = {"hr": hr, "index": np.arange(len(hr), dtype=np.int32), "mask": np.ones(len(hr), bool)}
  batch = parallel.put_batch(rows, mesh)
  return method, parallel.compile_init(method, mesh, 0)(batch), batch


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--width", type=int, default=64)
  parser.add_argument("--crop", type=int, default=64)
  parser.add_argument("--minibatch", type=int, default=4)
  parser.add_argument("--candidates", type=int, default=10)
  parser.add_argument(
    "--rounds", type=int, default=30, help="of training before flat and hierarchical are compared"
  )
  arguments = parser.parse_args()
  print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {arguments}\n")

  config = make_config(arguments)
  method, state, batch = prepare(config)
  key, m, b = jax.random.key(1), config.method.candidates, config.method.minibatch
  # As the trainer compiles it.
  step = jax.jit(
    partial(run_round, method), compiler_options=parallel.training_options(jax.default_backend())
  )
  # The pool is one slice: round 0 selects, the others descend.
  descending = state.replace(step=jnp.int32(1))
  descent = seconds(lambda: step(descending, batch, key))
  select = jax.jit(method.objective)
  selection = seconds(lambda: select(state, batch, key))

  net, operator = make_generator(config), make_operator(config)
  features = make_features(config.method.features, 3)
  x, y = operator.lr(batch), to_float(batch["hr"])

  @partial(jax.jit, compiler_options=parallel.training_options(jax.default_backend()))
  def network_alone(params, stats, x, y):
    def loss(p):
      image, _ = train_pass(net, p, stats, x, zero_latent(net, x))
      return jnp.square(image - y).sum()

    return jax.grad(loss)(params)

  network = seconds(lambda: network_alone(state.params["generator"], state.stats["generator"], x, y))
  images = jax.random.uniform(key, (b, m, *y.shape[1:]))

  @jax.jit
  def search_alone(candidates):
    return features.squared_distance(state.aux.alpha, [candidates], [y[:, None]]).argmin(axis=1)

  search = seconds(lambda: search_alone(images))
  print("| part | seconds |\n| --- | ---: |")
  print(f"| train step of {b} images ({1 / descent:.2f} a second) | {descent:.4f} |")
  print(f"| the network's forward and backward pass, compiled alone | {network:.4f} |")
  print(f"| selection of {b} images, m = {m} (two stages of m) | {selection:.4f} |")
  print(f"| of which the nearest-neighbour search ({search / selection:.2%}) | {search:.5f} |\n")

  print("| pool of 640, b = 16, m = 100 | M = 1,000 | M = 20,000 |\n| --- | ---: | ---: |")
  select_pool = selection / b / m * 640 * 100
  shares = {M: (select_pool, descent * 16 / b * M) for M in (1_000, 20_000)}
  print("| selection's share | " + " | ".join(f"{s / (s + t):.1%}" for s, t in shares.values()) + " |")
  search_pool = search / b / m * 640 * 100 * 2
  print("| the search's share | " + " | ".join(f"{search_pool / sum(v):.3%}" for v in shares.values()) + " |")
  print("\nThe shares scale the times above per image and candidate; they were not run at that size.\n")

  for _ in range(arguments.rounds):
    state, _ = step(state, batch, key)
  print(f"| m = 32, after {arguments.rounds} rounds | seconds | mean distance of the chosen |")
  print("| --- | ---: | ---: |")
  for hierarchical in (True, False):
    keys = make_config(arguments, hierarchical=hierarchical, candidates=32)
    choose = jax.jit(prepare(keys)[0].objective)
    distance = float(choose(state, batch, key)["imle"].mean())
    took = seconds(lambda choose=choose: choose(state, batch, key), 2)
    print(f"| {'hierarchical' if hierarchical else 'flat'} | {took:.3f} | {distance:.2f} |")

  print("\n| m (chunk 1) | temporary memory of a selection, MiB |\n| --- | ---: |")
  for count in (10, 100, 1000):
    objective = prepare(make_config(arguments, candidates=count))[0].objective
    analysis = jax.jit(objective).lower(state, batch, key).compile().memory_analysis()
    print(f"| {count} | {analysis.temp_size_in_bytes / 2**20:.1f} |")


if __name__ == "__main__":
  main()
