"""Where images come from: folders and TFDS data sets, as random-access sequences. No TensorFlow."""

import hashlib
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict
from PIL import Image

from sr_jax.data.arrays import ARRAYS
from sr_jax.data.builders import EMBEDDED
from sr_jax.data.catalogue import prepare, tfds_builder
from sr_jax.data.folder import Folder, check_data_dir
from sr_jax.data.records import CorruptRecord, Record, Unwanted, decode
from sr_jax.errors import UserError
from sr_jax.files import expand

__all__ = ["CorruptRecord", "Record", "Source", "Unwanted", "open_source", "prepare"]


class Source(Protocol):
  """A random-access sequence of images.

  `source[i]` is a dict: `hr` uint8 [H, W, C] (float32 in ARRAYS); `lr` uint8 [h, w, C] if the record has one;
  `label` int if it has one. It raises CorruptRecord, and IndexError past the end. Arrays are read-only.
  """

  def __len__(self) -> int: ...

  def __getitem__(self, i: int) -> Record: ...

  def name(self, i: int) -> str: ...


def open_source(cfg: ConfigDict, key: str = "config.data") -> Source:
  """The source that `config.data` or `config.eval.data` describes.

  Args:
    cfg: `name` ("folder", an entry of ARRAYS or a TFDS data set), `split`, `dir`, `channels`, `min_bytes`,
      `centre`, `resize`; if present `stretch`, `cache_mb` (MiB of decoded images kept in memory) and
      `lr_dir` (of a folder).
    key: where `cfg` stands in the config, for messages.

  Raises:
    UserError: a folder is missing or empty, an environment variable is not set, a data set or split is
      unknown or not prepared.
  """
  if cfg.channels not in (1, 3):
    raise UserError(f"{key}.channels is {cfg.channels}: choose 3 (RGB) or 1 (grey).")
  lr_dir, least = cfg.get("lr_dir", ""), cfg.get("min_bytes", 0)
  if cfg.name in ARRAYS:
    if cfg.channels != 1:
      raise UserError(f"{key}.channels is {cfg.channels}, but {cfg.name} has 1: set it to 1.")
    return ARRAYS[cfg.name](cfg.split)
  for kind, given in (("dir", cfg.dir), ("lr_dir", lr_dir)):
    if "://" in expand(given):
      raise UserError(
        f"{key}.{kind} is {expand(given)!r}, and images are read from folders of this machine alone: mount "
        "it there, gs:// by gcsfuse for example, and give that folder."
      )
  if cfg.name == "folder":
    source: Source = Folder(cfg.dir, lr_dir, cfg.channels, key, cfg.split, least)
  elif lr_dir:
    raise UserError(f"{key}.lr_dir goes with {key}.name='folder', not with {cfg.name!r}: leave it empty.")
  else:
    if cfg.dir:
      check_data_dir(Path(expand(cfg.dir)), cfg, key)
    source = Tfds(cfg.name, cfg.split, expand(cfg.dir), cfg.channels, least)
  centre, size = cfg.get("centre", ()), cfg.get("resize", ())
  if centre or size:
    source = Framed(source, centre, size, cfg.get("stretch", False), key)
  cache_mb = cfg.get("cache_mb", 0)
  return Cached(source, cache_mb * 2**20) if cache_mb else source


class Tfds:
  """A split of a TFDS data set that is prepared as array_record; an embedded one is prepared on first use."""

  def __init__(self, name: str, split: str, data_dir: str, channels: int, min_bytes: int = 0):
    self.dataset, self.split, self.channels, self.min_bytes = name, split, channels, min_bytes
    builder = tfds_builder(name, data_dir)
    if not builder.is_prepared() and builder.name in EMBEDDED:
      prepare(name, data_dir)
      builder = tfds_builder(name, data_dir)
    if not builder.is_prepared():
      words = f" --data-dir {data_dir}" * bool(data_dir)
      words += " --from FOLDER_OF_ITS_FILES" * bool(builder.MANUAL_DOWNLOAD_INSTRUCTIONS)
      raise UserError(
        f"{name} is not prepared in {builder.data_dir_root}: run `sr-jax prepare {name}{words}` once."
      )
    features = builder.info.features
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    self.lr = "lr" if "lr" in images else None
    candidates = [key for key in images if key != "lr"]
    preferred = [key for key in ("image", "hr") if key in candidates] or candidates
    if not preferred or (len(preferred) > 1 and preferred is candidates):
      raise UserError(
        f"{name} has the images {candidates}, none of them called 'image' or 'hr': choose another data set."
      )
    self.hr = preferred[0]
    sizes = sorted(
      (path.name, path.stat().st_size) for path in Path(builder.data_path).glob("*array_record*")
    )
    self.contents = f"version {builder.version}, files and bytes {sizes}"
    self.label = "label" in features and isinstance(features["label"], tfds.features.ClassLabel)
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
      raise UserError(f"{name} in {builder.data_path} is not array_record: use another data.dir.")
    try:
      # The images stay encoded here: PIL decodes those that are wanted, to the wanted channels.
      self.records = builder.as_data_source(split, decoders={k: tfds.decode.SkipDecoding() for k in images})
      len(self.records)  # where train[5:2] fails
    except ValueError as error:
      known = ", ".join(builder.info.splits)
      raise UserError(
        f"{name} has no split {split!r}: choose one of {known}, or a part such as train[:90%]."
      ) from error
    if not len(self.records):
      raise UserError(f"The split {split!r} of {name} has no records: choose another.")

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, i: int) -> Record:
    example = self.records[i]
    if len(example[self.hr]) < self.min_bytes:
      raise Unwanted(self.name(i), f"it has fewer than {self.min_bytes} bytes")
    record: Record = {"hr": decode(io.BytesIO(example[self.hr]), self.name(i), self.channels)}
    if self.lr:
      record["lr"] = decode(io.BytesIO(example[self.lr]), self.name(i), self.channels)
    if self.label:
      record["label"] = int(example["label"])
    return record

  def name(self, i: int) -> str:
    # Without a slash, behind which a name would be that of a file.
    return f"record {i} of {self.dataset.replace('/', ':')}, split {self.split}"


def summary(source: Source) -> str:
  """The number of images and a digest of their names, and of a TFDS data set's version and file sizes.

  A folder's images may bring their low-resolution images, which it says too.
  """
  inner = source
  while isinstance(inner, Framed | Cached):
    inner = inner.source
  # Records of prepared data sets all have the same names.
  names = hashlib.sha256((inner.contents if isinstance(inner, Tfds) else "").encode())
  for i in range(len(source)):
    names.update(f"{source.name(i).rpartition('/')[2]}\n".encode(errors="surrogateescape"))
  own = ", with their low-resolution images" if isinstance(inner, Folder) and inner.lr_files else ""
  return f"{len(source)} images{own}, digest of their names {names.hexdigest()[:12]}"


class Readable:
  """A source without the records that cannot be read, which the training has passed over too."""

  def __init__(self, source: Source) -> None:
    self.source, self.name = source, source.name

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, i: int) -> Record:
    try:
      return self.source[i]
    except CorruptRecord as error:
      raise Unwanted(error.name, error.reason) from error


class Framed:
  """The images of a source, cut to their centre and resized.

  Args:
    centre: (rows, columns) cut from the middle; () for the largest part with the aspect ratio of `resize`.
    resize: (rows, columns) to which that is resized (PIL's bicubic, antialiased); () to leave it.
    stretch: without a `centre`, resize the whole image, whatever its shape, and not the largest part.
  """

  def __init__(
    self, source: Source, centre: tuple[int, ...], resize: tuple[int, ...], stretch: bool, key: str
  ):
    for name, size in (("centre", centre), ("resize", resize)):
      if size and (len(size) != 2 or min(size) < 1):
        raise UserError(f"{key}.{name} is {size}: give (rows, columns), or () for none.")
    self.source, self.centre, self.resize, self.stretch, self.key = source, centre, resize, stretch, key
    self.name: Callable[[int], str] = source.name

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, i: int) -> Record:
    record = self.source[i]
    if "lr" in record:
      raise UserError(
        f"{self.name(i)} brings its own lr, which is not cut or resized with it: set {self.key}.centre=() "
        f"and {self.key}.resize=()."
      )
    hr = record["hr"]
    height, width = hr.shape[:2]
    rows, columns = self.centre or self.resize
    if not self.centre and self.stretch:
      rows, columns = height, width
    elif not self.centre:
      scale = min(height / rows, width / columns)
      rows, columns = round(rows * scale), round(columns * scale)
    if height < rows or width < columns:
      raise CorruptRecord(self.name(i), f"{height}x{width} is smaller than its centre of {rows}x{columns}")
    top, left = (height - rows) // 2, (width - columns) // 2
    # A copy, because a view would keep all of the image in memory.
    hr = hr[top : top + rows, left : left + columns].copy()
    if self.resize:
      image = Image.fromarray(hr[..., 0] if hr.shape[-1] == 1 else hr)
      resized = image.resize((self.resize[1], self.resize[0]), Image.Resampling.BICUBIC)
      hr = np.asarray(resized).reshape(*self.resize, -1)
    return record | {"hr": hr}


class Cached:
  """Keeps the first records that were asked for, up to a number of bytes; safe with threads."""

  # In a shuffled epoch every record comes once, so that evicting the oldest would evict what comes next.

  def __init__(self, source: Source, size: int):
    self.source = source
    self.name: Callable[[int], str] = source.name
    self.left = size
    self.records: dict[int, Record] = {}
    self.lock = threading.Lock()

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, i: int) -> Record:
    if (record := self.records.get(i)) is not None:
      return record
    record = self.source[i]
    size = sum(value.nbytes for value in record.values() if isinstance(value, np.ndarray))
    with self.lock:
      if i not in self.records and size <= self.left:
        self.records[i] = record
        self.left -= size
    return record
