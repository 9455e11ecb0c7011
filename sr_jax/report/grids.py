"""Grids of images: test images beside their samples, and models beside each other."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sr_jax.errors import UserError
from sr_jax.files import as_path, read_npz, replacing
from sr_jax.images import as_bytes, save_png

CELL = 256  # pixels of a grid's image at most; the centre of a larger one is shown
LEAST = 64  # a smaller one is enlarged, by a whole number, as far as its shorter side stays within it
SAMPLES = 4  # of an image in a grid, at most
MARGIN = 4  # pixels around the cells of a grid


def save_images(images: Sequence[Mapping[str, np.ndarray]], path: str | os.PathLike) -> None:
  """Writes images as for `image_grid`, as they are, to an .npz file that `read_images` reads."""
  flat = {f"{i}/{name}": array for i, image in enumerate(images) for name, array in image.items()}
  with replacing(as_path(path)) as temporary, temporary.open("wb") as file:
    np.savez(file, allow_pickle=False, **flat)


def read_images(path: str | os.PathLike) -> list[dict[str, np.ndarray]]:
  """What `save_images` wrote. Raises OSError if it cannot be read, UserError if it is damaged."""
  images: list[dict[str, np.ndarray]] = []
  try:
    for key, array in read_npz(as_path(path)).items():
      number, _, name = key.partition("/")
      images += [{} for _ in range(int(number) + 1 - len(images))]
      images[int(number)][name] = array
  except ValueError as error:
    raise UserError(f"{path} is damaged ({error}): evaluate that run again.") from error
  return images


def shared_images(
  images: Mapping[str, list[dict[str, np.ndarray]]],
) -> dict[str, list[dict[str, np.ndarray]]]:
  """The images of each model that all models have, by their place in the test set.

  One of several processes keeps images of its own part of the test set alone.
  """
  placed = {
    name: {int(image.get("place", i)): image for i, image in enumerate(own)} for name, own in images.items()
  }
  common = sorted(set.intersection(*map(set, placed.values()))) if placed else []
  return {name: [own[place] for place in common] for name, own in placed.items()}


def deviation(images: Sequence[Mapping[str, np.ndarray]]) -> tuple[list[np.ndarray], float]:
  """Standard deviation of each image's samples, mean over the channels, [H, W, 1] in [0, 1], and its white.

  It is that of the metric `std`, divided by n - 1; one sample has none: 0. White is the 99th percentile over
  all images, because the largest would leave the rest black.
  """

  def spread(samples: np.ndarray) -> np.ndarray:
    return np.std(np.clip(samples, 0, 1), axis=0, ddof=min(len(samples) - 1, 1)).mean(axis=-1, keepdims=True)

  spreads = [spread(row["samples"]) for row in images]
  return spreads, float(np.percentile(np.concatenate([spread.ravel() for spread in spreads]), 99))


def image_grid(rows: Sequence[Mapping[str, np.ndarray]], path: str | os.PathLike) -> None:
  """Writes a PNG with one row per test image, in columns with a heading.

  Columns: the input, enlarged without interpolation; bicubic; up to 4 samples; with more than one
  sample their standard deviation, mean over the channels, where white is its 99th percentile over all
  rows, told in grey levels by the heading; the truth. Of an image larger than CELL the centre is shown, one
  smaller than LEAST is enlarged without interpolation.
  Without rows nothing is written.

  Args:
    rows: floats in [0, 1], samples may leave it: "input" [h, w, C], "bicubic" [H, W, C], "samples"
      [n, H, W, C] with the same n in every row, "truth" [H, W, C]; C is 1 or 3; sizes may differ by row.
    path: of the file.
  """
  if not rows:
    return
  grid: list[dict[str, np.ndarray]] = []
  spreads, white = deviation(rows)
  for row, spread in zip(rows, spreads, strict=True):
    columns = {"input": _enlarged(row["input"], row["truth"]), "bicubic": _rgb(row["bicubic"])}
    samples = list(row["samples"])
    columns |= {f"sample {i + 1}": _rgb(sample) for i, sample in enumerate(samples[:SAMPLES])}
    if len(samples) > 1:
      columns[f"std, white {255 * white:.3g}"] = _rgb(spread / (white or 1))
    columns["truth"] = _rgb(row["truth"])
    grid.append({name: _cell(image) for name, image in columns.items()})
  save_png(path, _paste(grid))


def comparison_grid(rows: Mapping[str, Sequence[Mapping[str, np.ndarray]]], path: str | os.PathLike) -> None:
  """Writes a PNG with one row per test image: the input, the first sample of each model, the truth.

  Args:
    rows: {model: images as for `image_grid`}, the same ones of each; without any nothing is written. A
      number called "sample_loss_bits_per_dim", of the first sample, stands below it.
    path: of the file.
  """
  grid = []
  for images in zip(*rows.values(), strict=True):
    samples = {name: _rgb(image["samples"][0]) for name, image in zip(rows, images, strict=True)}
    truth = images[0]["truth"]
    columns = {"input": _enlarged(images[0]["input"], truth), **samples, "truth": _rgb(truth)}
    cells = {name: _cell(image) for name, image in columns.items()}
    for name, image in zip(rows, images, strict=True):
      if "sample_loss_bits_per_dim" in image:
        cells[name] = _captioned(cells[name], f"{float(image['sample_loss_bits_per_dim']):.2f}")
    grid.append(cells)
  if grid:
    save_png(path, _paste(grid))


def samples_grid(
  models: Mapping[str, Mapping[str, np.ndarray]], path: str | os.PathLike, deviations: bool = False
) -> None:
  """Writes a PNG of one test image, a row per model: its name, the input, bicubic, all samples, the truth.

  Args:
    models: {name: image as for `image_grid`}; without any nothing is written. The numbers of samples may
      differ.
    path: of the file.
    deviations: show the samples' standard deviation too, as `image_grid` does, white the same for all models.
  """
  count = max((len(image["samples"]) for image in models.values()), default=0)
  rows = []
  spreads, white = deviation(list(models.values())) if deviations else ([None] * len(models), 0.0)
  for image, spread in zip(models.values(), spreads, strict=True):
    samples = [*image["samples"], *[np.ones_like(image["truth"])] * (count - len(image["samples"]))]
    columns = {f"sample {i + 1}": sample for i, sample in enumerate(samples)}
    if spread is not None:
      columns[f"std, white {255 * white:.3g}"] = spread / (white or 1)
    rows.append({"input": image["input"], "bicubic": image["bicubic"], **columns, "truth": image["truth"]})
  if rows:
    labelled_grid(rows, path, list(models))


def labelled_grid(
  rows: Sequence[Mapping[str, np.ndarray]], path: str | os.PathLike, names: Sequence[str] = ()
) -> None:
  """Writes a PNG with a row for each mapping and a column for each of its keys, its heading.

  Args:
    rows: one or more with the same keys; floats in [0, 1], clipped, [H, W, C] with C 1 or 3. The last image
      gives its size to all of the row, enlarged without interpolation; of a large one the centre is shown.
    path: of the file.
    names: of the rows, to their left; (): none.
  """
  grid = []
  for number, row in enumerate(rows):
    *_, last = row.values()
    cells = {"": _text(names[number])} if names else {}
    grid.append(cells | {name: _cell(_enlarged(image, last)) for name, image in row.items()})
  save_png(path, _paste(grid))


def _enlarged(image: np.ndarray, like: np.ndarray) -> np.ndarray:
  """The image at the size of another, without interpolation."""
  height, width = like.shape[:2]
  return np.asarray(Image.fromarray(_rgb(image)).resize((width, height), Image.Resampling.NEAREST))


def _captioned(cell: np.ndarray, text: str) -> np.ndarray:
  """A cell [h, w, 3] with a line of text below it."""
  line, (height, width) = _text(text), cell.shape[:2]
  canvas = np.full((height + line.shape[0], max(width, line.shape[1]), 3), 255, np.uint8)
  canvas[:height, :width] = cell
  canvas[height:, : line.shape[1]] = line
  return canvas


def _text(text: str) -> np.ndarray:
  """A line of text, uint8 [h, w, 3]."""
  font = ImageFont.load_default()
  canvas = Image.new("RGB", (int(font.getlength(text)) + 1, int(font.getbbox("Ag")[3]) + MARGIN), "white")
  ImageDraw.Draw(canvas).text((0, 0), text, fill="black", font=font)
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


def _rgb(image: np.ndarray) -> np.ndarray:
  return np.broadcast_to(as_bytes(image), (*image.shape[:2], 3))


def _cell(image: np.ndarray) -> np.ndarray:
  """An image as a grid shows it: the centre of a large one, a small one enlarged without interpolation."""
  top, left = (max(0, size - CELL) // 2 for size in image.shape[:2])
  image = image[top : top + CELL, left : left + CELL]
  times = max(1, LEAST // min(image.shape[:2]))
  return image.repeat(times, axis=0).repeat(times, axis=1)
