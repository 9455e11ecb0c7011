"""Tables of metrics, for people and for programs."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sr_jax import files
from sr_jax.metrics import METRICS, Metric

T = TypeVar("T")
Rows = Mapping[str, Mapping[str, float]]
# {row: {column: a number for each image}}.
PerImage = Mapping[str, Mapping[str, np.ndarray]]
PER_IMAGE = "per_image.jsonl"
ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}


def table(rows: Rows, metrics: Mapping[str, Metric] = METRICS) -> str:
  """A Markdown table that is aligned on a console too.

  Args:
    rows: {row: {column: number}}; a missing number leaves its cell empty, one that is not finite is
      "diverged".
    metrics: say of their columns how numbers look and which are better, as an arrow; other columns are
      losses.

  Returns:
    The lines, with a newline at the end.
  """
  columns = list(dict.fromkeys(column for row in rows.values() for column in row))

  def heading(column: str) -> str:
    return column + ARROWS[metrics[column].better if column in metrics else ""]

  def number(column: str, value: float) -> str:
    if not math.isfinite(value):
      return "diverged"
    return format(value, metrics[column].format if column in metrics else ".4g")

  cells = [["", *map(heading, columns)]]
  cells += [
    [name, *(number(column, row[column]) if column in row else "" for column in columns)]
    for name, row in rows.items()
  ]
  return markdown(cells)


def markdown(cells: Sequence[Sequence[str]]) -> str:
  """A Markdown table, the first row its heading, all columns but the first aligned to the right."""
  widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
  rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
  lines = []
  for name, *numbers in [cells[0], rule, *cells[1:]]:
    padded = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
    lines.append(f"| {' | '.join([name.ljust(widths[0]), *padded])} |\n")
  return "".join(lines)


def rows_of(title: str, samples: int, values: Mapping[str, T]) -> dict[str, dict[str, T]]:
  """The rows of a table that `measure`'s columns "<name>/<kind>" make.

  Args:
    title: of the row of a single sample.
    samples: how many there were; with one there is no row of the best or of the mean image.
    values: a value of any type for each column.
  """
  titles = {"": title, "best": f"{title}, best of {samples}", "mean_image": f"{title}, mean of {samples}"}
  rows: dict[str, dict[str, T]] = {}
  for column, value in values.items():
    name, _, kind = column.partition("/")
    if samples > 1 or not kind:
      rows.setdefault(titles[kind], {})[name] = value
  return rows


def clear_report(folder: Path) -> None:
  """Delete what an earlier evaluation or score left in `evaluation`, but table.*, which is overwritten."""
  for name in ("images.npz", PER_IMAGE, "best.md", "best.json", "samples.png", "rows.png"):
    (folder / name).unlink(missing_ok=True)


def write_report(
  folder: str | os.PathLike,
  name: str,
  rows: Rows,
  meta: Mapping[str, Any],
  metrics: Mapping[str, Metric] = METRICS,
) -> str:
  """Writes `<name>.json` (all digits, {"meta", "rows"}) and `<name>.md` into `folder`.

  Args:
    folder: made if it does not exist.
    name: of both files, without an ending.
    rows, metrics: as for `table`.
    meta: what the numbers depend on (step, seed, samples, command), anything JSON can hold.

  Returns:
    The Markdown text.
  """
  folder = files.as_path(folder)
  files.make(folder)
  text = report_text(name, rows, meta, metrics)
  content = {"meta": dict(meta), "rows": {row: finite(values) for row, values in rows.items()}}
  files.write_text(folder / f"{name}.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
  files.write_text(folder / f"{name}.md", text)
  return text


def report_text(
  name: str, rows: Rows, meta: Mapping[str, Any], metrics: Mapping[str, Metric] = METRICS
) -> str:
  """The Markdown text of `write_report`."""
  facts = "".join(f"- {key}: {value}\n" for key, value in meta.items() if not isinstance(value, dict))
  return f"# {name}\n\n{table(rows, metrics)}\n{facts}"


def write_per_image(
  folder: str | os.PathLike,
  names: Sequence[str],
  rows: PerImage,
  fingerprints: Mapping[str, Sequence[float] | np.ndarray],
) -> None:
  """Writes `per_image.jsonl` into `folder`: {"image": name, "rows": {row: {column: number}}} a line.

  Args:
    folder: exists.
    names: of the images.
    rows: {row: {column: [N]}} in the order of the names.
    fingerprints: of the images, {"truth" or "input": [N]}, which stand in the lines too.
  """
  lines = []
  for i, name in enumerate(names):
    # All the digits that a float32 has.
    values = {
      row: finite({c: float(f"{v[i]:.8g}") for c, v in columns.items()}) for row, columns in rows.items()
    }
    known = finite({key: float(f"{numbers[i]:.8g}") for key, numbers in fingerprints.items()})
    lines.append(json.dumps({"image": name, **known, "rows": values}) + "\n")
  files.write_text(files.as_path(folder) / PER_IMAGE, "".join(lines))


def read_per_image(
  folder: str | os.PathLike,
) -> tuple[list[str], dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
  """Names, rows and fingerprints that `write_per_image` wrote, NaN where a number was not finite.

  Raises:
    OSError: there is no such file.
    ValueError, KeyError, IndexError: it is damaged or empty.
  """
  lines = [json.loads(line) for line in (files.as_path(folder) / PER_IMAGE).read_text().splitlines()]
  rows = {
    row: {column: np.array([line["rows"][row][column] for line in lines], float) for column in columns}
    for row, columns in lines[0]["rows"].items()
  }
  fingerprints = {
    key: np.array([line[key] for line in lines], float) for key in ("truth", "input") if key in lines[0]
  }
  return [line["image"] for line in lines], rows, fingerprints


def finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
  """Numbers as JSON can hold them: it has no NaN, and null is read by everything."""
  return {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}
