"""One number of each row of a table, as dots with the spread of its trials."""

import math
import os
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sr_jax.images import save_png

WIDTH = 480  # pixels of the axis
LINE = 24  # pixels from one row to the next
DOT = 4


def plot(points: Mapping[str, tuple[float, float]], title: str, path: str | os.PathLike) -> None:
  """Writes a PNG with a line for each row: its mean as a dot, one standard deviation to each side.

  Args:
    points: {row: (mean, standard deviation or 0)}; rows whose mean is not finite are left out.
    title: what the numbers are.
    path: of the file; without a finite number nothing is written.
  """
  points = {row: (mean, spread) for row, (mean, spread) in points.items() if math.isfinite(mean)}
  if not points:
    return
  font = ImageFont.load_default()
  low = min(mean - spread for mean, spread in points.values())
  high = max(mean + spread for mean, spread in points.values())
  left = max(int(font.getlength(row)) for row in points) + LINE
  scale = WIDTH / ((high - low) or 1)
  place = lambda value: left + (value - low) * scale  # noqa: E731
  canvas = Image.new("RGB", (left + WIDTH + 4 * LINE, LINE * (len(points) + 3)), "white")
  draw = ImageDraw.Draw(canvas)
  draw.text((left, DOT), title, fill="black", font=font)
  bottom = LINE * (len(points) + 1)
  for value in np.linspace(low, high, 5) if high > low else [low]:
    draw.line([place(value), LINE, place(value), bottom], fill="lightgrey")
    draw.text((place(value), bottom + DOT), f"{value:.4g}", fill="black", font=font, anchor="ma")
  for number, (row, (mean, spread)) in enumerate(points.items()):
    y = LINE * (number + 1.5)
    draw.text((left - LINE // 2, y), row, fill="black", font=font, anchor="rm")
    draw.line([place(mean - spread), y, place(mean + spread), y], fill="black", width=2)
    draw.ellipse([place(mean) - DOT, y - DOT, place(mean) + DOT, y + DOT], fill="black")
  save_png(path, np.asarray(canvas))
