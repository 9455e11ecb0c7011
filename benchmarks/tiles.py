"""An image in tiles: how far from the whole one, by the margin; and one of 12 megapixels.

  python benchmarks/tiles.py [--config srim_demo] [--workdir RUN] [--rows 750] [--columns 1000]

Without a run the network has the weights that it begins with. Prints Markdown.
"""

import argparse
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax import config as configs
from sr_jax.methods import make_method
from sr_jax.ops import make_operator
from sr_jax.run import Run, load_run
from sr_jax.tiles import MEMORY, Budget
from sr_jax.upscaling import upscale

SIDE = 96  # of the input that is also made whole
FORCED = 0  # a budget of nothing: the smallest tiles


def fresh(name: str) -> Run:
  config = configs.load(name)
  operator = make_operator(config)
  method = make_method(config, operator)
  batch = {"hr": np.zeros((1, 64, 64, config.data.channels), np.uint8)}
  return Run(config, operator, method, jax.jit(method.init)(jax.random.key(0), batch))


def photograph(rows: int, columns: int, channels: int) -> np.ndarray:
  """Something with the spectrum of a photograph: noise of all scales, uint8 [rows, columns, channels]."""
  rng, image = np.random.default_rng(0), np.zeros((rows, columns, channels))
  for level in range(8):
    side = 2**level
    noise = rng.normal(size=(-(-rows // side), -(-columns // side), channels))
    image += side / 128 * noise.repeat(side, 0)[:rows].repeat(side, 1)[:, :columns]
  return (255 * (0.5 + image / 6)).clip(0, 255).astype(np.uint8)


def margins(run: Run) -> None:
  """Differences to the whole image, in grey levels of 255."""
  x = jnp.asarray(photograph(SIDE, SIDE, run.config.data.channels)[None] / np.float32(255))
  key, latents = jax.random.key(0), run.method.latents
  assert latents is not None
  assert latents.reach is not None
  whole = jax.jit(run.sampler(), static_argnums=2)(x, key, 1)
  print(f"| margin (reach {latents.reach}) | largest difference | mean difference |\n| ---: | ---: | ---: |")
  for margin in range(latents.reach + 1):
    drawn = jax.jit(run.sampler(budget=Budget(FORCED, margin)), static_argnums=2)(x, key, 1)
    error = 255 * np.abs(np.asarray(drawn - whole))
    print(f"| {margin} | {error.max():.2g} | {error.mean():.2g} |")


def enlarge(run: Run, rows: int, columns: int, memory: int) -> None:
  """Time and peak memory of a large image; and how it differs from the one with its seams elsewhere."""
  image = photograph(rows, columns, run.config.data.channels)
  before = peak()
  start = time.perf_counter()
  first = upscale(run, image, samples=1, memory=memory)
  seconds = time.perf_counter() - start
  print(
    f"\n{columns}x{rows} -> {first.shape[2]}x{first.shape[1]}, {memory} MiB: {seconds:.1f} s with "
    f"compilation, peak resident memory {peak():,} MiB ({before:,} before)"
  )
  error = np.abs(first.astype(int) - upscale(run, image, samples=1, memory=2 * memory // 3))
  print(
    f"seams elsewhere: largest difference {error.max()} of 255, {np.mean(error > 0):.1e} of the bytes differ"
  )


def peak() -> int:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--config", default="srim_demo")
  parser.add_argument("--workdir", default="", help="a trained run, in the place of a fresh config")
  parser.add_argument("--rows", type=int, default=750)
  parser.add_argument("--columns", type=int, default=1000)
  parser.add_argument("--memory", type=int, default=MEMORY)
  arguments = parser.parse_args()
  run = load_run(arguments.workdir) if arguments.workdir else fresh(arguments.config)
  print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {run}\n")
  margins(run)
  enlarge(run, arguments.rows, arguments.columns, arguments.memory)


if __name__ == "__main__":
  main()
