"""Figure 1b of Amortised MAP Inference from the runs of a sweep over amap_swiss_roll.

  python benchmarks/swiss_roll_figure.py --runs runs/table1 --seed 0 --out figure1.png

The density of the roll in grey; for inputs from -8 to 8 the MAP estimate and what each model answers. Lines
on a grid are the direction of AffDG's last denoiser, the estimated gradient of log p (Eq. 12).
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import ImageDraw, ImageFont

from sr_jax.configs.amap_swiss_roll import ROWS
from sr_jax.methods.amap_priors import denoiser_prior
from sr_jax.ops import swiss_roll
from sr_jax.report.roll import REACH, density_picture, dots, place
from sr_jax.run import Run, load_run

COLOURS = ["#1f77b4", "#17becf", "#d62728", "#ff9f9a", "#2ca02c", "#98df8a"]


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
  dots(draw, grid, "#7f7f7f", 1.5)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--runs", required=True, help="folder of the sweep")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--out", default="figure1.png")
  arguments = parser.parse_args()

  picture = density_picture()
  draw, font = ImageDraw.Draw(picture), ImageFont.load_default(16)

  x = jnp.linspace(-8, 8, 400).reshape(-1, 1, 1, 1)
  curves = {"MAP": (np.asarray(swiss_roll.mode(x)), "black")}
  for (variant, row), colour in zip(ROWS.items(), COLOURS, strict=True):
    run = load_run(Path(arguments.runs) / f"{row}_seed={arguments.seed}")
    curves[row] = (np.asarray(run.sampler()(x, jax.random.key(0), 1)[0]), colour)
    if variant == "affdg":
      draw_directions(draw, run)
  for i, (name, (points, colour)) in enumerate(curves.items()):
    dots(draw, points, colour)
    draw.text((12, 10 + 20 * i), name, fill=colour, font=font)
  picture.save(arguments.out)


if __name__ == "__main__":
  main()
