"""What each key of precision and size takes: memory beside weights and images, and processor time of a round.

  python benchmarks/precision.py --config srmap_div2k:l1 --crop 96 --batch 8 --set networks.generator.blocks=4

On random bytes, with the programs of `parallel.py`. A batch in parts is timed as all rounds of an update,
each with its part of the images.
"""

import argparse
import time

import jax
import numpy as np

from sr_jax import config as configs
from sr_jax import parallel
from sr_jax.methods import make_method
from sr_jax.ops import make_operator

PARTS = 4
ROWS = {
  "as it is": (),
  "bfloat16": ("dtype=bfloat16",),
  "remat": ("remat=True",),
  "bfloat16, remat": ("dtype=bfloat16", "remat=True"),
  f"accumulate = {PARTS}": (f"optim.generator.accumulate={PARTS}",),
  f"accumulate = {PARTS}, remat": (f"optim.generator.accumulate={PARTS}", "remat=True"),
  "ghost_batch = 2": ("ghost_batch=2",),
}


def measure(name: str, overrides: list[str], batch: int, crop: int) -> str:
  """Cells of the table: MiB of temporary memory, and processor seconds of an update."""
  config = configs.override(configs.load(name), [f"--config.{key}" for key in overrides])
  parts = config.optim.generator.accumulate
  config.train.batch = batch // parts
  config.data.crop = (crop, crop)
  method, mesh = make_method(config, make_operator(config)), parallel.make_mesh()
  hr = np.random.default_rng(0).integers(0, 256, (config.train.batch, crop, crop, 3), dtype=np.uint8)
  data = parallel.put_batch({"hr": hr, "index": np.arange(len(hr)), "mask": np.ones(len(hr), bool)}, mesh)
  state = parallel.compile_init(method, mesh, 0)(data)
  if config.ghost_batch and not jax.tree.leaves(state.stats):
    return "no batch statistics | "
  step = parallel.compile_step(method, mesh, 0).lower(state, data).compile()
  state, _ = step(state, data)
  jax.block_until_ready(state)
  start = time.process_time()
  for _ in range(parts):
    state, _ = step(state, data)
  jax.block_until_ready(state)
  seconds = time.process_time() - start
  return f"{step.memory_analysis().temp_size_in_bytes / 2**20:.1f} | {seconds:.2f}"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--config", default="srmap_div2k:l1")
  parser.add_argument("--batch", type=int, default=8, help="images of an update")
  parser.add_argument("--crop", type=int, default=96)
  parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further keys of the config")
  parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
  keys = parser.parse_args()
  print(f"{keys.config}, {keys.batch} images of {keys.crop}x{keys.crop}, {jax.devices()[0].device_kind}\n")
  print("| | temporary memory, MiB | processor s an update |\n| --- | ---: | ---: |")
  for row in keys.rows:
    cells = measure(keys.config, [*keys.set, *ROWS[row]], keys.batch, keys.crop)
    print(f"| {row} | {cells} |", flush=True)


if __name__ == "__main__":
  main()
