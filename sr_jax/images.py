"""Image files: decoding and encoding."""

import io
import itertools
import os
import re
from collections.abc import Collection
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps

from sr_jax.errors import UserError
from sr_jax.files import as_path, in_bucket, replacing
from sr_jax.ops import to_uint8

# Decoding takes up to 20 bytes a pixel; a file that claims more is refused before it is decoded.
MAX_PIXELS = 50_000_000
SAME_IMAGE = 1e-4  # between the fingerprints of equal images, at most


def image_suffixes() -> set[str]:
  """The endings, with a dot and in lower case, of the files that PIL reads as images."""
  # Without the MIME type, PIL's list has HDF5, MPEG and PostScript in it too.
  return {
    suffix
    for suffix, kind in Image.registered_extensions().items()
    if kind in Image.OPEN and Image.MIME.get(kind, "").startswith("image/")
  }


class UnreadableImageError(Exception):
  """A file that is no image, or too large a one; the message says why."""


def decode(file: Path | io.BytesIO, channels: int, max_pixels: int = MAX_PIXELS) -> np.ndarray:
  """An image file as uint8 [H, W, channels], upright by its EXIF orientation.

  16-bit grey is divided by 257, so that white stays white, more bits are refused; transparency is shown on
  white.

  Raises:
    UnreadableImageError: it cannot be decoded, or has more than `max_pixels`, which its header tells.
  """
  try:
    with Image.open(file) as opened:
      image: Image.Image = opened
      if image.width * image.height > max_pixels:
        raise ValueError(f"its {image.width}x{image.height} pixels are more than {max_pixels:,}")
      ImageOps.exif_transpose(image, in_place=True)
      if image.mode == "F":
        raise ValueError("its values are floating point")
      if image.mode.startswith("I"):  # PIL would clip at 255
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
          raise ValueError("its values have more than 16 bits")
        if image.mode == "I" and image.format != "PNG" and values.max() < 256:
          raise ValueError(f"its values of 32 bits end at {values.max()}, so it should be saved with 8")
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
      if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
      pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
  except Exception as error:  # PIL's decoders raise nearly anything on foreign bytes
    raise UnreadableImageError(str(error)) from error
  return pixels.reshape(*pixels.shape[:2], channels)


def read_image(path: str | Path, channels: int, max_pixels: int = MAX_PIXELS) -> np.ndarray:
  """An image file of a user's -> uint8 [h, w, channels], turned as its camera says.

  Raises:
    UserError: there is no such file, or `decode` cannot read it.
  """
  file = as_path(path)
  if not file.is_file():
    what = "is a folder" if file.is_dir() else "does not exist"
    raise UserError(f"{path} {what}: give the path of an image.")
  try:
    return decode(io.BytesIO(file.read_bytes()) if in_bucket(file) else file, channels, max_pixels)
  except UnreadableImageError as error:
    raise UserError(
      f"{path} cannot be read ({error}): give a PNG, a JPEG or the like, of fewer pixels if it is too large."
    ) from error


def save_png(path: str | os.PathLike, image: np.ndarray) -> None:
  """Writes an image [H, W, 3] or [H, W, 1], uint8 or float in [0, 1] (clipped and rounded), as PNG."""
  with replacing(as_path(path)) as temporary:
    pixels = as_bytes(image)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(temporary, format="PNG")


def save_samples(folder: str | os.PathLike, number: int, samples: np.ndarray) -> None:
  """Writes samples [n, H, W, C] as NTIRE 2021 names those of a test set's image: 000012_sample00003.png.

  Further samples that are there from an earlier time are deleted.
  """
  paths = (as_path(folder) / f"{number:06d}_sample{i:05d}.png" for i in itertools.count())
  for sample, path in zip(samples, paths, strict=False):
    save_png(path, sample)
  for path in itertools.takewhile(lambda path: path.exists(), paths):
    path.unlink()


def clear_samples(folder: str | os.PathLike, numbers: Collection[int]) -> None:
  """Delete what `save_samples` wrote at an earlier time of images without these numbers."""
  for path in as_path(folder).glob("*_sample*.png"):
    if (named := re.fullmatch(r"(\d{6,})_sample\d{5,}", path.stem)) and int(named[1]) not in numbers:
      path.unlink()


def fingerprint(image: np.ndarray) -> float:
  """A number by which images [H, W, C] are told apart, of bytes or of floats in [0, 1].

  The sum of the values times a pattern like noise, over the root of their number, so that it changes alike in
  images of any size: `SAME_IMAGE` is far above what rounding on other hardware changes, and far below what
  compression or another picture does.
  """
  values = np.ravel(image) / (255 if image.dtype == np.uint8 else 1)
  return float(np.sum(values * np.cos(np.square(np.arange(values.size, dtype=float)))) / np.sqrt(values.size))


def as_bytes(image: np.ndarray) -> np.ndarray:
  """The image as uint8: floats in [0, 1] are clipped and rounded."""
  return image if image.dtype == np.uint8 else np.asarray(to_uint8(jnp.asarray(image)))
