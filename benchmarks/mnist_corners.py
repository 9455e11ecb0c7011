"""In which corner do samples put the digit? Pixel Recursive Super Resolution, Figure 2, counted and shown.

  TFDS_DATA_DIR=... python benchmarks/mnist_corners.py --runs runs/corners [runs/...] --out corners.png

One sample for each of the first 2,000 test digits. A corner has a digit if it holds a quarter or more of the
ink that the half-size digit has.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.data import open_source
from sr_jax.images import save_png
from sr_jax.ops import to_float
from sr_jax.run import load_run

DIGITS, BATCH, SHOWN, ENOUGH = 2000, 100, 12, 0.25


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--runs", nargs="+", required=True)
  parser.add_argument("--temperature", type=float, default=1.0)
  parser.add_argument("--out", default="corners.png")
  keys = parser.parse_args()
  strips: list[np.ndarray] = []
  print("| run | left | right | both | none |")
  print("| --- | ---: | ---: | ---: | ---: |")
  for folder in keys.runs:
    run = load_run(folder)
    source = open_source(run.config.eval.data, "config.eval.data")
    records = [source[i] for i in range(DIGITS)]
    draw = jax.jit(run.sampler(keys.temperature), static_argnums=2)
    drawn = []
    for start in range(0, DIGITS, BATCH):
      lr = to_float(jnp.asarray(np.stack([record["lr"] for record in records[start : start + BATCH]])))
      drawn.append(np.asarray(draw(lr, jax.random.fold_in(jax.random.key(0), start), 1)[0]))
    y = np.concatenate(drawn)
    ink = np.array([record["hr"].sum() / 255 for record in records])
    left, right = (
      np.clip(y[:, :14, side], 0, 1).sum(axis=(1, 2, 3)) / ink > ENOUGH for side in (np.s_[:14], np.s_[14:])
    )
    shares = (left & ~right, right & ~left, left & right, ~left & ~right)
    print(
      f"| {Path(folder).name} | " + " | ".join(f"{100 * share.mean():.2f} %" for share in shares) + " |",
      flush=True,
    )
    if not strips:
      strips.append(np.concatenate([record["lr"] / 255 for record in records[:SHOWN]], axis=1))
      strips.append(np.concatenate([record["hr"] / 255 for record in records[:SHOWN]], axis=1))
    strips.append(np.concatenate(list(y[:SHOWN]), axis=1))
  save_png(keys.out, np.repeat(np.repeat(np.concatenate(strips), 2, axis=0), 2, axis=1))


if __name__ == "__main__":
  main()
