"""What people see of a run: metrics over time, tables and images. Files appear whole or not at all."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tensorboardX import SummaryWriter

from sr_jax.ops.colour import to_uint8

Rows = Mapping[str, Mapping[str, float]]
CELL = 256  # pixels of a grid's image at most; the centre of a larger one is shown
SAMPLES = 4  # of an image in a grid, at most
MARGIN = 4  # pixels around the cells of a grid


class Writer:
  """Metrics over the rounds: `metrics.jsonl`, one object a line, and TensorBoard files in `events/`.

  Nothing is opened before the first `write`. A run that was killed after its last checkpoint does some
  rounds again: their old lines, and a half-written one, are dropped when the file is opened.
  """

  def __init__(self, workdir: str | os.PathLike, start: int, enabled: bool = True):
    """Writes into `workdir` from round `start` + 1 on; with `enabled` False `write` does nothing."""
    self._workdir, self._start, self._enabled = Path(workdir), start, enabled
    self._files = contextlib.ExitStack()
    self._lines: Any = None
    self._events: Any = None

  def __enter__(self) -> "Writer":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Adds the metrics of round `step`. A number that is not finite is null in the JSON line."""
    if not self._enabled:
      return
    if self._lines is None:
      self._open()
    now = time.time()
    self._lines.write(json.dumps({"step": step, "time": round(now, 3), **_finite(metrics)}) + "\n")
    for name, value in metrics.items():
      self._events.add_scalar(name, float(value), step, now)

  def close(self) -> None:
    """Closes what is open; a later `write` is an error."""
    self._files.close()

  def _open(self) -> None:
    self._workdir.mkdir(parents=True, exist_ok=True)
    path = self._workdir / "metrics.jsonl"
    if path.exists():
      lines = path.read_text().splitlines(keepends=True)
      _write_text(path, "".join(line for line in lines if _is_before(line, self._start)))
    self._lines = self._files.enter_context(path.open("a", buffering=1))
    # tensorboardX names its files by the second and overwrites: the suffix keeps two apart.
    self._events = self._files.enter_context(
      SummaryWriter(
        str(self._workdir / "events"),
        purge_step=self._start + 1,
        flush_secs=10,
        filename_suffix=f".{time.time_ns()}",
      )
    )


def _is_before(line: str, start: int) -> bool:
  try:
    return line.endswith("\n") and json.loads(line)["step"] <= start
  except (json.JSONDecodeError, KeyError):
    return False


def progress_line(
  step: int, rounds: int, metrics: Mapping[str, float], images_per_second: float, seconds_left: float
) -> str:
  """One line about a running training: round, losses, speed, time left ("?" while it is not known)."""
  pace = f"{images_per_second:.1f}" if math.isfinite(images_per_second) else "?"
  left = str(timedelta(seconds=round(seconds_left))) if math.isfinite(seconds_left) else "?"
  losses = [f"{name} {float(value):.5g}" for name, value in metrics.items() if "loss" in name]
  place = f"round {step:>{len(f'{rounds:,}')},}/{rounds:,}"
  return "  ".join([place, *losses, f"{pace} images/s", f"{left} left"])


def table(rows: Rows, columns: Sequence[str] | None = None) -> str:
  """A Markdown table that is aligned on a console too.

  Args:
    rows: {row: {column: number}}; a missing number leaves its place empty.
    columns: which to show, in order; None: all, in the order in which the rows bring them.

  Returns:
    The lines, with a newline at the end. PSNR and std have 2 decimals, SSIM 4, distances are scientific.
  """
  if columns is None:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
  cells = [["", *columns]]
  for name, row in rows.items():
    cells.append([name, *(_number(column, row[column]) if column in row else "" for column in columns)])
  widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
  rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
  lines = []
  for name, *numbers in [cells[0], rule, *cells[1:]]:
    padded = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
    lines.append(f"| {' | '.join([name.ljust(widths[0]), *padded])} |\n")
  return "".join(lines)


def _number(column: str, value: float) -> str:
  name = column.split("/", maxsplit=1)[0]
  if "psnr" in name or name == "std":
    return f"{value:.2f}"
  if "ssim" in name:
    return f"{value:.4f}"
  if name.endswith(("mse", "mae", "l1")):
    return f"{value:.2e}"
  return f"{value:.4g}"


def write_report(folder: str | os.PathLike, name: str, rows: Rows, meta: Mapping[str, Any]) -> str:
  """Writes `<name>.json` (all digits, {"meta", "rows"}) and `<name>.md` into `folder`.

  Args:
    folder: made if it does not exist.
    name: of both files, without an ending.
    rows: as for `table`.
    meta: what the numbers depend on (step, seed, samples, command), anything JSON can hold.

  Returns:
    The Markdown text.
  """
  folder = Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  facts = "".join(f"- {key}: {value}\n" for key, value in meta.items())
  text = f"# {name}\n\n{table(rows)}\n{facts}"
  content = {"meta": dict(meta), "rows": {row: _finite(values) for row, values in rows.items()}}
  _write_text(folder / f"{name}.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
  _write_text(folder / f"{name}.md", text)
  return text


def save_png(path: str | os.PathLike, image: np.ndarray) -> None:
  """Writes an image [H, W, 3] or [H, W, 1], uint8 or float in [0, 1] (clipped and rounded), as PNG."""
  with _replacing(Path(path)) as temporary:
    pixels = _bytes(image)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(temporary, format="PNG")


def image_grid(rows: Sequence[Mapping[str, np.ndarray]], path: str | os.PathLike) -> None:
  """Writes a PNG with one row per test image, in columns with a heading.

  Columns: the input, enlarged without interpolation; bicubic; up to 4 samples; with more than one
  sample their standard deviation, mean over the channels, where white is its 99th percentile over all
  rows, told in grey levels by the heading; the truth. Of an image larger than CELL the centre is shown.
  Without rows nothing is written.

  Args:
    rows: floats in [0, 1], samples may leave it: "input" [h, w, C], "bicubic" [H, W, C], "samples"
      [n, H, W, C] with the same n in every row, "truth" [H, W, C]; C is 1 or 3; sizes may differ by row.
    path: of the file.
  """
  if not rows:
    return
  grid: list[dict[str, np.ndarray]] = []
  spreads = [np.std(np.clip(row["samples"], 0, 1), axis=0).mean(axis=-1, keepdims=True) for row in rows]
  # The largest would leave the rest black.
  white = float(np.percentile(np.concatenate([spread.ravel() for spread in spreads]), 99))
  for row, spread in zip(rows, spreads, strict=True):
    columns = {"input": _enlarged(row), "bicubic": _rgb(row["bicubic"])}
    samples = list(row["samples"])
    columns |= {f"sample {i + 1}": _rgb(sample) for i, sample in enumerate(samples[:SAMPLES])}
    if len(samples) > 1:
      columns[f"std, white {255 * white:.3g}"] = _rgb(spread / (white or 1))
    columns["truth"] = _rgb(row["truth"])
    grid.append({name: _centre(image) for name, image in columns.items()})
  save_png(path, _paste(grid))


def comparison_grid(rows: Mapping[str, Sequence[Mapping[str, np.ndarray]]], path: str | os.PathLike) -> None:
  """Writes a PNG with one row per test image: the input, the first sample of each model, the truth.

  Args:
    rows: {model: images as for `image_grid`}, the same ones of each; without any nothing is written. A
      number called "sample_bits_per_dim" stands below the image.
    path: of the file.
  """
  grid = []
  for images in zip(*rows.values(), strict=True):
    samples = {name: _rgb(image["samples"][0]) for name, image in zip(rows, images, strict=True)}
    columns = {"input": _enlarged(images[0]), **samples, "truth": _rgb(images[0]["truth"])}
    cells = {name: _centre(image) for name, image in columns.items()}
    for name, image in zip(rows, images, strict=True):
      if "sample_bits_per_dim" in image:
        cells[name] = _captioned(cells[name], f"{float(image['sample_bits_per_dim']):.2f}")
    grid.append(cells)
  if grid:
    save_png(path, _paste(grid))


def _enlarged(row: Mapping[str, np.ndarray]) -> np.ndarray:
  """The input at the size of the truth, without interpolation."""
  height, width = row["truth"].shape[:2]
  return np.asarray(Image.fromarray(_rgb(row["input"])).resize((width, height), Image.Resampling.NEAREST))


def _captioned(cell: np.ndarray, text: str) -> np.ndarray:
  """A cell [h, w, 3] with a line of text below it."""
  font = ImageFont.load_default()
  height, width = int(font.getbbox("Ag")[3]) + MARGIN, max(cell.shape[1], int(font.getlength(text)) + 1)
  canvas = Image.new("RGB", (width, cell.shape[0] + height), "white")
  canvas.paste(Image.fromarray(cell), (0, 0))
  ImageDraw.Draw(canvas).text((0, cell.shape[0]), text, fill="black", font=font)
  return np.asarray(canvas)


def _paste(grid: list[dict[str, np.ndarray]]) -> np.ndarray:
  """The rows of cells [h, w, 3] under their headings, uint8 [H, W, 3] on white."""
  font = ImageFont.load_default()
  box = font.getbbox("Ag")
  heading = int(box[3]) + 2 * MARGIN
  widths = [
    max(int(font.getlength(name)) + 1, *(row[name].shape[1] for row in grid)) + MARGIN for name in grid[0]
  ]
  heights = [max(cell.shape[0] for cell in row.values()) + MARGIN for row in grid]
  canvas = Image.new("RGB", (MARGIN + sum(widths), heading + sum(heights)), "white")
  draw = ImageDraw.Draw(canvas)
  left = MARGIN
  for name, width in zip(grid[0], widths, strict=True):
    draw.text((left, MARGIN), name, fill="black", font=font)
    top = heading
    for row, height in zip(grid, heights, strict=True):
      canvas.paste(Image.fromarray(row[name]), (left, top))
      top += height
    left += width
  return np.asarray(canvas)


def _bytes(image: np.ndarray) -> np.ndarray:
  return image if image.dtype == np.uint8 else np.asarray(to_uint8(jnp.asarray(image)))


def _rgb(image: np.ndarray) -> np.ndarray:
  return np.broadcast_to(_bytes(image), (*image.shape[:2], 3))


def _centre(image: np.ndarray) -> np.ndarray:
  top, left = (max(0, size - CELL) // 2 for size in image.shape[:2])
  return image[top : top + CELL, left : left + CELL]


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
  # JSON has no NaN; null is read by everything.
  return {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}


def _write_text(path: Path, text: str) -> None:
  with _replacing(path) as temporary:
    temporary.write_text(text)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
  """A temporary file beside `path` that takes its place once the block has ended well."""
  temporary = path.with_name(f".{path.name}.{os.getpid()}")
  try:
    yield temporary
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
