"""From the bytes of an image file to pixels."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


class CorruptRecord(Exception):  # noqa: N818 (it says what it is)
  """A record whose image cannot be decoded.

  Attributes:
    name: the record, as `Source.name` gives it.
    reason: what the decoder says.
  """

  def __init__(self, name: str, reason: str):
    super().__init__(f"{name} cannot be read: {reason}")
    self.name = name
    self.reason = reason


class Unwanted(CorruptRecord):
  """A record that a config leaves out; the next one takes its place, silently."""


def decode(file: Path | io.BytesIO, name: str, channels: int) -> np.ndarray:
  """An image as uint8 [H, W, channels], upright by its EXIF orientation; raises CorruptRecord.

  16-bit grey is divided by 257, so that white stays white; transparency is shown on white.
  """
  try:
    with Image.open(file) as opened:
      image: Image.Image = opened
      ImageOps.exif_transpose(image, in_place=True)
      if image.mode == "F":
        raise ValueError("its values are floating point")
      if image.mode.startswith("I"):  # PIL would clip at 255
        image = Image.fromarray(np.round(np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
      if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
      pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
  except Exception as error:  # PIL's decoders raise nearly anything on foreign bytes
    raise CorruptRecord(name, str(error)) from error
  return pixels.reshape(*pixels.shape[:2], channels)
