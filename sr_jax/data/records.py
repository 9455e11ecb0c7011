"""Records, those that cannot be used, and reading the image of one."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from sr_jax import images

Record = dict[str, Any]


class CorruptRecord(Exception):  # noqa: N818 (it says what it is)
  """A record that cannot be used: its image cannot be decoded, or has a size that does not fit.

  Attributes:
    name: the record, as `Source.name` gives it.
    reason: what the decoder says, or what is wrong with the size.
  """

  def __init__(self, name: str, reason: str):
    super().__init__(f"{name} cannot be used: {reason}")
    self.name = name
    self.reason = reason


class Unwanted(CorruptRecord):
  """A record that a config leaves out; the next one takes its place, silently."""


def decode(file: Path | io.BytesIO, name: str, channels: int) -> np.ndarray:
  """The image of a record as uint8 [H, W, channels], see `images.decode`; raises CorruptRecord."""
  try:
    return images.decode(file, channels)
  except images.UnreadableImageError as error:
    raise CorruptRecord(name, str(error)) from error
