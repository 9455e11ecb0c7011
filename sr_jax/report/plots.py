"""Plots as PNG: a number of each row of a table with the spread of its trials, and curves over the rounds."""

import math
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sr_jax.images import save_png

WIDTH = 480  # pixels of the axis
LINE = 24  # pixels from one row to the next
DOT = 4
COLOURS = ("#3366cc", "#dc3912", "#109618", "#ff9900", "#990099", "#0099c6", "#dd4477", "#66aa00")
PANEL = 320, 200  # columns and rows of a panel of curves


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


def scale_of(low: float, high: float) -> Callable[[float], float]:
  """How curves show numbers from `low` to `high`: logarithmic where they span more than a hundredfold."""
  return math.log if low > 0 and high > 100 * low else float


def plot_curves(
  panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], path: str | os.PathLike
) -> None:
  """Writes a PNG with a panel for each heading, side by side, and below them whose colour is whose.

  Args:
    panels: {heading: {row: points (round, finite number)}}, the same rows in each; of a panel without a point
      only the frame is drawn.
    path: of the file.
  """
  font, (width, height) = ImageFont.load_default(), PANEL
  names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
  canvas = Image.new("RGB", (LINE + (width + LINE) * len(panels), height + LINE * (3 + len(names))), "white")
  draw = ImageDraw.Draw(canvas)
  for number, (heading, lines) in enumerate(panels.items()):
    left, top = LINE + (width + LINE) * number, LINE
    draw.text((left, DOT), heading, fill="black", font=font)
    draw.rectangle([left, top, left + width, top + height], outline="lightgrey")
    points = [point for line in lines.values() for point in line]
    if not points:
      continue
    low, high = min(value for _, value in points), max(value for _, value in points)
    last = max(step for step, _ in points) or 1
    scale = scale_of(low, high)
    span = (scale(high) - scale(low)) or 1.0
    for name, line in lines.items():
      colour = COLOURS[names.index(name) % len(COLOURS)]
      places = [
        (left + width * step / last, top + height * (1 - (scale(value) - scale(low)) / span))
        for step, value in line
      ]
      draw.line(places, fill=colour, width=2)
      if places:
        draw.ellipse([*(v - 2 for v in places[-1]), *(v + 2 for v in places[-1])], fill=colour)
    draw.text((left + DOT, top + DOT), f"{high:.4g}", fill="black", font=font)
    words = f"{low:.4g}" + ", logarithmic" * (scale is math.log)
    draw.text((left + DOT, top + height - DOT), words, fill="black", font=font, anchor="ld")
    draw.text((left + width, top + height + DOT), f"round {last:,}", fill="black", font=font, anchor="ra")
  for number, name in enumerate(names):
    y = height + LINE * (2.5 + number)
    draw.line([LINE, y, 2 * LINE, y], fill=COLOURS[number % len(COLOURS)], width=3)
    draw.text((2 * LINE + DOT, y), name, fill="black", font=font, anchor="lm")
  save_png(path, np.asarray(canvas))
