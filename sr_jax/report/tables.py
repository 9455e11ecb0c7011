"""Tables of metrics, for people and for programs."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sr_jax import files
from sr_jax.metrics import METRICS, Metric

Rows = Mapping[str, Mapping[str, float]]
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
  widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
  rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
  lines = []
  for name, *numbers in [cells[0], rule, *cells[1:]]:
    padded = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
    lines.append(f"| {' | '.join([name.ljust(widths[0]), *padded])} |\n")
  return "".join(lines)


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
  folder = Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  facts = "".join(f"- {key}: {value}\n" for key, value in meta.items() if not isinstance(value, dict))
  text = f"# {name}\n\n{table(rows, metrics)}\n{facts}"
  content = {"meta": dict(meta), "rows": {row: finite(values) for row, values in rows.items()}}
  files.write_text(folder / f"{name}.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
  files.write_text(folder / f"{name}.md", text)
  return text


def finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
  """Numbers as JSON can hold them: it has no NaN, and null is read by everything."""
  return {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}
