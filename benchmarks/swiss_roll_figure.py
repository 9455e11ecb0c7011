"""Figure 1 of Amortised MAP Inference from the runs of a sweep over amap_swiss_roll.

  python benchmarks/swiss_roll_figure.py --runs runs/table1 --seed 0 --out figure1.png

The density of the roll in grey; for inputs from -8 to 8 the MAP estimate and what each model answers. Lines
on a grid are the direction of AffDG's last denoiser, the estimated gradient of log p (Eq. 12).
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sr_jax.configs.amap_swiss_roll import ROWS
from sr_jax.methods.amap_priors import denoiser_prior
from sr_jax.ops import swiss_roll
from sr_jax.run import Run, load_run

REACH, PIXELS = 10.0, 900  # half the side of the square shown, and its pixels
COLOURS = ["#1f77b4", "#17becf", "#d62728", "#ff9f9a", "#2ca02c", "#98df8a"]


def place(points: np.ndarray) -> list[tuple[float, float]]:
  """Points [n, 2] -> pixels; y1 to the right, y2 upwards."""
  x = (points[:, 0] + REACH) / (2 * REACH) * PIXELS
  y = (REACH - points[:, 1]) / (2 * REACH) * PIXELS
  return list(zip(x.tolist(), y.tolist(), strict=True))


def draw_directions(draw: ImageDraw.ImageDraw, run: Run) -> None:
  """The last denoiser's f(y) - y on a grid."""
  prior = denoiser_prior(run.config)
  params = jax.tree.map(lambda v: v[-1], run.state.params["snapshots"]["net"])
  side = np.linspace(-REACH, REACH, 26)[1:-1].astype(np.float32)
  grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 1, 2, 1)
  ends = prior.net.apply({"params": params}, grid, False)
  moves = np.array(ends - grid).reshape(-1, 2)
  # As long as a cell at most: far from the roll a denoiser makes large steps.
  moves /= np.maximum(np.linalg.norm(moves, axis=1, keepdims=True) / 0.7, 1)
  starts = place(grid.reshape(-1, 2))
  for start, end in zip(starts, place(grid.reshape(-1, 2) + moves), strict=True):
    draw.line([start, end], fill="#7f7f7f")
    draw.ellipse([start[0] - 1.5, start[1] - 1.5, start[0] + 1.5, start[1] + 1.5], fill="#7f7f7f")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--runs", required=True, help="folder of the sweep")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--out", default="figure1.png")
  arguments = parser.parse_args()

  side = ((np.arange(PIXELS) + 0.5) / PIXELS * 2 - 1) * REACH
  grid = np.stack(np.meshgrid(side, -side), axis=-1).astype(np.float32)[:, :, None, :, None]
  density = np.stack([jnp.exp(jax.jit(swiss_roll.log_density)(row)) for row in grid])
  canvas = Image.fromarray((255 - 150 * density / density.max()).astype(np.uint8)).convert("RGB")
  draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(16)

  x = jnp.linspace(-8, 8, 400).reshape(-1, 1, 1, 1)
  curves = {"MAP": (np.asarray(swiss_roll.mode(x)), "black")}
  for (variant, row), colour in zip(ROWS.items(), COLOURS, strict=True):
    run = load_run(Path(arguments.runs) / f"{row}_seed={arguments.seed}")
    curves[row] = (np.asarray(run.sampler()(x, jax.random.key(0), 1)[0]), colour)
    if variant == "affdg":
      draw_directions(draw, run)
  for i, (name, (points, colour)) in enumerate(curves.items()):
    for px, py in place(points.reshape(-1, 2)):
      draw.ellipse([px - 2, py - 2, px + 2, py + 2], fill=colour)
    draw.text((12, 10 + 20 * i), name, fill=colour, font=font)
  canvas.save(arguments.out)


if __name__ == "__main__":
  main()
