"""A paper's figure, drawn from what runs have written."""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.configs.papers.figures import BICUBIC, Figure
from sr_jax.files import replacing
from sr_jax.ops.operator import Operator
from sr_jax.report.grids import comparison_grid, labelled_grid, read_images, samples_grid, shared_images
from sr_jax.report.log import curve, read_history
from sr_jax.report.plots import plot_curves
from sr_jax.report.roll import illustration

SIDE = 7  # low-resolution pixels of an image that has one bright pixel, odd


def draw(figure: Figure, runs: Mapping[str, Path], operator: Operator, path: Path) -> None:
  """Writes a figure as a PNG.

  Args:
    figure: what it shows.
    runs: {name of a row: the folder of its run}, in the order of the figure; one or more if it has rows.
    operator: of the runs.
    path: of the file.
  """
  if figure.kind == "kernels":
    shown = {name: _around_grey(kernel) for name, kernel in kernels(operator).items()}
    labelled_grid([shown], path)
  elif figure.kind == "posterior":
    illustration(path)
  elif figure.kind == "curves":
    histories = {name: read_history(folder) for name, folder in runs.items()}
    panels = {
      heading: {name: curve(history, key) for name, history in histories.items()}
      for heading, key in figure.curves.items()
    }
    plot_curves(panels, path)
  elif figure.kind == "evaluation":
    (folder,) = runs.values()
    with replacing(path) as temporary:
      temporary.write_bytes((folder / "evaluation" / "rows.png").read_bytes())
  else:
    found = {name: read_images(folder / "evaluation" / "images.npz") for name, folder in runs.items()}
    images = {}
    for name, row in figure.rows.items():
      if row == BICUBIC:  # it stands beside the samples of every run
        images[name] = [_bicubic(image) for image in next(iter(found.values()))]
      elif name in found:
        images[name] = found[name]
    images = shared_images(images)
    if figure.kind == "samples":
      samples_grid({name: own[0] for name, own in images.items() if own}, path, deviations=True)
    else:
      comparison_grid(images, path)


def _bicubic(image: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """An image of a run with its bicubic enlargement for a sample, without what the run says of its own."""
  kept = {name: image[name] for name in ("place", "input", "bicubic", "truth") if name in image}
  return {**kept, "samples": image["bicubic"][None]}


def kernels(operator: Operator) -> dict[str, np.ndarray]:
  """The weights with which A sums into its middle pixel, and the image that A+ makes of that pixel alone.

  Returns:
    {"A": [H, W, 1], "A+": [H, W, 1]}, with factor times SIDE rows and columns.
  """
  low = jnp.zeros((SIDE, SIDE, 1)).at[SIDE // 2, SIDE // 2].set(1.0)
  _, transposed = jax.vjp(operator.A, jnp.zeros(operator.hr_shape(low.shape)))
  return {"A": np.asarray(transposed(low)[0]), "A+": np.asarray(operator.pinv(low))}


def _around_grey(values: np.ndarray) -> np.ndarray:
  """Numbers of both signs as an image: 0 is grey, the largest of either sign black or white."""
  return 0.5 + 0.5 * values / np.abs(values).max()
