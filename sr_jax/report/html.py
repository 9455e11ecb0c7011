"""Runs as one HTML page that needs no other file and no network, for a screen or a phone."""

import base64
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sr_jax import config as configs
from sr_jax.errors import UserError
from sr_jax.files import as_path, name_of, read_text
from sr_jax.images import as_bytes
from sr_jax.report.grids import SAMPLES, deviation, read_images
from sr_jax.report.log import curve, read_history
from sr_jax.report.plots import COLOURS, scale_of

WIDTH, HEIGHT = 320, 160  # of a curve
POINTS = 300  # of a curve, at most
LEGIBLE = 256  # pixels that a small image is enlarged to at first

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 0 .8rem 3rem; }
.wide, .frame { overflow: auto; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .15rem .6rem; border-bottom: 1px solid #8884; text-align: right; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; }
.keys td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.curves, .images { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; max-width: 100%; }
svg { max-width: 100%; height: auto; }
.frame { max-height: 85vh; cursor: pointer; }
.frame img { display: block; image-rendering: pixelated; }
.frame img[hidden] { display: none; }
button { padding: .4rem .6rem; }
button[aria-pressed=true] { outline: 2px solid; }
"""

# A tap on an image flips between the truth and what was shown before.
SCRIPT = """
for (const figure of document.querySelectorAll('.viewer')) {
  const images = [...figure.querySelectorAll('img')], buttons = [...figure.querySelectorAll('button')];
  const zoom = figure.querySelector('input'), truth = images.length - 1;
  let shown = 0, before = 0;
  const show = i => {
    if (shown !== truth) before = shown;
    shown = i;
    images.forEach((image, j) => { image.hidden = j !== i; });
    buttons.forEach((button, j) => button.setAttribute('aria-pressed', j === i));
  };
  buttons.forEach((button, i) => { button.onclick = () => show(i); });
  figure.querySelector('.frame').onclick = () => show(shown === truth ? before : truth);
  const scale = () => images.forEach(image => {
    image.style.width = zoom.value * image.dataset.width + 'px';
  });
  zoom.oninput = scale;
  scale();
  show(0);
}
"""


class Material(NamedTuple):
  """What the folder of a run holds; what it has not is empty.

  Attributes:
    name: of the run on the page.
    config: its values by their dotted keys.
    history: the lines of metrics.jsonl.
    table: of its evaluation, Markdown without a heading.
    images: of its evaluation, as for `image_grid`.
  """

  name: str
  config: dict[str, Any]
  history: list[dict[str, Any]]
  table: str
  images: list[dict[str, np.ndarray]]


def read_material(folder: str | Path) -> Material:
  """What the page of the run in `folder`, or of what `score` wrote there, is made of.

  Raises:
    UserError: there is neither a run nor an evaluation, or a file that cannot be read.
  """
  root = as_path(folder)
  try:
    texts = {
      name: read_text(root / name) if (root / name).exists() else ""
      for name in ("config.json", "evaluation/table.md", "evaluation/best.md")
    }
    images = root / "evaluation" / "images.npz"
    material = Material(
      name_of(root),
      configs.flatten(configs.from_json(texts["config.json"])) if texts["config.json"] else {},
      read_history(root),
      # Each begins with a heading of its own; `score` writes a second table, of the first samples.
      "\n".join(texts[f"evaluation/{name}.md"].partition("\n")[2] for name in ("table", "best")),
      read_images(images) if images.exists() else [],
    )
  except (OSError, ValueError, KeyError) as error:
    raise UserError(f"{folder} cannot be read ({error}): is it the folder of a run?") from error
  if not material.config and not material.table.strip():
    raise UserError(f"{folder} is no folder of a run, a sweep or a score: give one that is.")
  return material


def page(title: str, runs: Sequence[Material], texts: Sequence[str] = (), samples: int = SAMPLES) -> str:
  """The whole page.

  Args:
    title: its heading.
    runs: what it shows.
    texts: Markdown that stands before them: a sweep's table, a comparison.
    samples: of an image, the first ones, at most.
  """
  parts = [f"<h1>{escape(title)}</h1>", *map(_markdown, texts)]
  if curves := _curves(runs):
    parts += ["<h2>Training</h2>", curves]
  for run in runs:
    parts.append(f"<h2>{escape(run.name)}</h2>")
    parts.append(_markdown(run.table))
    if any("samples" in image for image in run.images):
      parts.append(_viewers(run.images, samples))
  parts += _configs(runs)
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
    + "\n".join(parts)
    + f"\n<script>{SCRIPT}</script>\n</body></html>\n"
  )


def _markdown(text: str) -> str:
  """The Markdown that this package writes: headings, tables, lists and lines."""
  parts = []
  for start, group in itertools.groupby(text.splitlines(), key=lambda line: line[:1]):
    lines = list(group)
    if start == "|":
      heading, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
      parts.append(_table(heading, rows))
    elif start == "#":
      parts += [f"<h2>{escape(line.lstrip('# '))}</h2>" for line in lines]
    elif start == "-":
      parts.append(f"<ul>{''.join(f'<li>{escape(line[2:])}</li>' for line in lines)}</ul>")
    else:
      parts += [f"<p>{escape(line)}</p>" for line in lines if line]
  return "\n".join(parts)


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
  top = "".join(f"<th>{escape(cell)}</th>" for cell in heading)
  body = "".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in row)}</tr>\n" for row in rows)
  return f'<div class="wide"><table class="{kind}">\n<tr>{top}</tr>\n{body}</table></div>'


def _configs(runs: Sequence[Material]) -> list[str]:
  """The keys in which the runs differ, and all keys of each."""
  runs = [run for run in runs if run.config]
  keys = list(dict.fromkeys(key for run in runs for key in run.config))
  values = {key: [repr(run.config[key]) if key in run.config else "" for run in runs] for key in keys}
  differing = [[key, *row] for key, row in values.items() if len(set(row)) > 1]
  parts = ["<h2>Configuration</h2>"] if runs else []
  if differing:
    names = [run.name for run in runs]
    parts += ["<p>Keys that differ:</p>", _table(["", *names], differing, "keys")]
  for run in runs:
    rows = [[key, repr(value)] for key, value in run.config.items()]
    summary = f"<summary>All keys of {escape(run.name)}</summary>"
    parts.append(f"<details>{summary}{_table(['', ''], rows, 'keys')}</details>")
  return parts


def _curves(runs: Sequence[Material]) -> str:
  """A figure for each metric of the trainings, with a line for each run."""
  names = dict.fromkeys(name for run in runs for line in run.history for name in line)
  figures = []
  for name in names:
    if name in ("step", "time"):
      continue
    lines = [curve(run.history, name) for run in runs]
    if any(len(line) > 1 for line in lines):
      figures.append(f"<figure>{_curve(lines)}<figcaption>{escape(name)}</figcaption></figure>")
  legend = " ".join(
    f'<span style="color: {COLOURS[i % len(COLOURS)]}">&#9632; {escape(run.name)}</span>'
    for i, run in enumerate(runs)
    if run.history
  )
  return f'<p>{legend}</p><div class="curves">{"".join(figures)}</div>' if figures else ""


def _curve(lines: Sequence[Sequence[tuple[float, float]]]) -> str:
  """An SVG of lines of (round, value), logarithmic where the values span more than a hundredfold."""
  values = [value for line in lines for _, value in line]
  low, high, last = min(values), max(values), max(step for line in lines for step, _ in line)
  scale = scale_of(low, high)
  bottom, span = scale(low), scale(high) - scale(low) or 1.0
  drawn = []
  for i, line in enumerate(lines):
    shown = line[:: max(1, len(line) // POINTS)]
    places = (
      f"{WIDTH * step / (last or 1):.1f},{HEIGHT * (1 - (scale(v) - bottom) / span):.1f}" for step, v in shown
    )
    colour = COLOURS[i % len(COLOURS)]
    drawn.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{" ".join(places)}"/>')
  texts = [(0, 12, f"{high:.4g}"), (0, HEIGHT - 4, f"{low:.4g}{', logarithmic' * (scale is math.log)}")]
  labels = "".join(
    f'<text x="{x}" y="{y}" font-size="11" fill="currentColor">{t}</text>' for x, y, t in texts
  )
  return (
    f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="-2 -2 {WIDTH + 4} {HEIGHT + 4}" role="img">'
    f'<rect width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#8884"/>{"".join(drawn)}{labels}</svg>'
  )


def _viewers(images: Sequence[Mapping[str, np.ndarray]], samples: int) -> str:
  """A figure for each test image, which shows one of its variants at a time, at any size."""
  spreads, white = deviation(images)
  figures = []
  for image, spread in zip(images, spreads, strict=True):
    variants = {f"sample {i + 1}": sample for i, sample in enumerate(image["samples"][:samples])}
    variants |= {"input": image["input"], "bicubic": image["bicubic"]}
    if len(image["samples"]) > 1:
      variants[f"deviation, white {255 * white:.3g}"] = spread / (white or 1)
    variants["truth"] = image["truth"]
    width = image["truth"].shape[1]
    shown = "".join(
      f'<img alt="{escape(name)}" data-width="{width}" src="{_png(pixels)}"{" hidden" * (i > 0)}>'
      for i, (name, pixels) in enumerate(variants.items())
    )
    buttons = "".join(f"<button>{escape(name)}</button>" for name in variants)
    most, start = max(8, 2 * LEGIBLE // width), max(1, LEGIBLE // width)
    zoom = f'<label>Size <input type="range" min="1" max="{most}" value="{start}"></label>'
    frame = f'<div class="frame">{shown}</div><div>{buttons}</div>'
    figures.append(f'<figure class="viewer">{frame}{zoom}</figure>')
  text = "<p>A tap on an image flips between it and the truth.</p>"
  return f'{text}<div class="images">{"".join(figures)}</div>'


def _png(image: np.ndarray) -> str:
  """An image [H, W, 1] or [H, W, 3] as a data URL."""
  pixels, file = as_bytes(image), io.BytesIO()
  Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, format="PNG", optimize=True)
  return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
