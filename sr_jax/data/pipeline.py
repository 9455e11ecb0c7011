"""Batches of images, the same whatever the number of processes and wherever a run resumes."""

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grain
import numpy as np
from ml_collections import ConfigDict

from sr_jax.data.arrays import Arrays, array_batches
from sr_jax.data.sources import CorruptRecord, Record, Source, Unwanted
from sr_jax.errors import UserError

Batch = dict[str, np.ndarray]


def train_batches(
  source: Source, cfg: ConfigDict, *, seed: int, batch: int, start: int, process: int = 0, processes: int = 1
) -> Iterator[Batch]:
  """Endless training batches number start, start + 1, ...

  There is one global order of records: shuffled anew in each epoch by `seed`, each record once an epoch.
  Batch number s is its examples s*batch to (s+1)*batch, of which process p has the p-th of `processes` equal
  contiguous parts. Crop and mirroring of example i are functions of (seed, i) alone.

  Args:
    source: the images.
    cfg: `config.data`: `crop` (rows, columns; () for whole images, which then share one size), `flip`,
      `max_corrupt`, and if present `turn` (by quarters) and `threads`.
    seed: at least 0.
    batch: B, examples of a batch over all processes; a multiple of `processes`.
    start: number of the first batch.
    process, processes: which part of each batch this is.

  Yields:
    hr uint8 [B/P, h, w, C] (float32 if the source's are); lr uint8 if the records bring their own; index
    int32, i modulo 2^31; mask bool, all True; label int32 if there is one.

  Raises:
    UserError: the batch cannot be divided; whole images of several sizes; quarter turns of what is not
      square; a crop that does not fit records with their own lr; or, while iterating, more than `max_corrupt`
      records that cannot be used.
  """
  if batch % processes:
    raise UserError(
      f"config.train.batch of {batch} cannot be divided among {processes} processes: make it a multiple."
    )
  if seed < 0:
    raise UserError(f"config.seed is {seed}: make it 0 or more.")
  turn = cfg.get("turn", False)
  if isinstance(source, Arrays):
    if cfg.crop or cfg.flip or turn:
      raise UserError(
        f"{source.title} is neither cropped, mirrored nor turned: set config.data.crop=(), "
        "config.data.flip=False and config.data.turn=False."
      )
    return array_batches(source, seed=seed, batch=batch, start=start, process=process, processes=processes)
  usable = _Usable(source, tuple(cfg.crop), cfg.max_corrupt)
  rows, columns = usable.crop or usable.first["hr"].shape[:2]
  if turn and rows != columns:
    raise UserError(
      f"config.data.turn turns images by 90 degrees, but they are {rows}x{columns}: make config.data.crop "
      "square."
    )
  fy, fx = _factor(usable.first)
  if turn and fy != fx:
    raise UserError(
      f"config.data.turn turns images by 90 degrees, but their own lr is {fy}x{fx} times smaller: set "
      "config.data.turn=False."
    )

  def augment(element: tuple[int, Record], rng: np.random.Generator) -> Record:
    i, record = element
    example = _augment(record, usable.crop, cfg.flip, turn, rng)
    return example | {"index": np.int32(i % 2**31), "mask": np.True_}

  examples = grain.MapDataset.source(usable).seed(seed).shuffle().repeat()
  examples = examples.map_with_index(lambda i, record: (i, record)).random_map(augment)
  # A slice of batches, not of examples, keeps each process's examples contiguous.
  parts = examples.batch(batch // processes, drop_remainder=True)[process::processes][start:]
  # A thread makes a whole batch: as many are made ahead as there are threads, but few of a large pool.
  ahead = max(1, min(cfg.get("threads", 8), 512 * processes // batch))
  return iter(parts.to_iter_dataset(grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)))


def _factor(record: Record) -> tuple[int, int]:
  """How many times smaller its lr is, rows and columns; 1 where it brings none."""
  height, width = record["hr"].shape[:2]
  rows, columns = record["lr" if "lr" in record else "hr"].shape[:2]
  return round(height / rows), round(width / columns)


def _augment(
  record: Record, crop: tuple[int, ...], flip: bool, turn: bool, rng: np.random.Generator
) -> Record:
  """A random crop, mirrored left-right half of the time, turned. The draws do not depend on the image's size.

  A record with its own lr is cropped where its pixels begin.
  """
  u, v, mirror, quarters = rng.random(4)
  example, images = dict(record), [key for key in ("hr", "lr") if key in record]
  if crop:
    # A crop begins at a pixel of the smallest image (lr if there is one), which is fy x fx pixels of hr.
    small = record[images[-1]].shape[:2]
    fy, fx = _factor(record)
    top, left = int(u * (small[0] - crop[0] // fy + 1)), int(v * (small[1] - crop[1] // fx + 1))
    for key, (sy, sx) in zip(images, ((fy, fx), (1, 1)), strict=False):
      rows, columns = crop[0] * sy // fy, crop[1] * sx // fx
      example[key] = record[key][top * sy : top * sy + rows, left * sx : left * sx + columns]
  if flip and mirror < 0.5:
    example |= {key: example[key][:, ::-1] for key in images}
  if turn:
    example |= {key: np.rot90(example[key], int(4 * quarters)) for key in images}
  if "label" in example:
    example["label"] = np.int32(example["label"])
  return example


class _Usable:
  """A source in which the next usable record takes the place of one that cannot be used."""

  def __init__(self, source: Source, crop: tuple[int, ...], max_corrupt: int):
    self.source, self.crop, self.max_corrupt = source, crop, max_corrupt
    self.corrupt: set[int] = set()
    self.lock = threading.Lock()
    self.first: Record = {}  # nothing to compare the first record with
    self.first = self[0]
    factor = _factor(self.first)
    if any(part % f for part, f in zip(crop, factor, strict=False)):
      raise UserError(
        f"{source.name(0)} brings its own lr, {_size(factor)} times smaller: make config.data.crop a "
        f"multiple of {_size(factor)}."
      )

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: Any) -> Record:
    # The replacement depends on the record alone, never on what was read before: a resumed run agrees.
    reason: Exception | None = None
    for k in range(len(self)):
      i = (int(index) + k) % len(self)
      try:
        return self._checked(i)
      except CorruptRecord as error:
        reason = error
        self._count(i, error)
    raise UserError(
      f"None of the {len(self)} records can be used: choose other images or a smaller config.data.crop. "
      f"The last: {reason}"
    )

  def _checked(self, i: int) -> Record:
    record = self.source[i]
    shape = record["hr"].shape
    if self.crop:
      if shape[0] < self.crop[0] or shape[1] < self.crop[1]:
        raise CorruptRecord(
          self.source.name(i), f"{_size(shape)} is smaller than the crop {_size(self.crop)}"
        )
      fy, fx = _factor(self.first or record)
      if "lr" in record and shape[:2] != (fy * record["lr"].shape[0], fx * record["lr"].shape[1]):
        raise CorruptRecord(
          self.source.name(i), f"{_size(shape)} is not {fy}x{fx} times its lr of {_size(record['lr'].shape)}"
        )
      return record
    for key in ("hr", "lr"):
      if key in self.first and record[key].shape != self.first[key].shape:
        raise UserError(
          f"{self.source.name(i)} has {key} of {_size(record[key].shape)}, others have "
          f"{_size(self.first[key].shape)}: set config.data.crop or resize, so that all have one size."
        )
    return record

  def _count(self, i: int, error: CorruptRecord) -> None:
    with self.lock:
      if i in self.corrupt or isinstance(error, Unwanted):
        return
      self.corrupt.add(i)
      if len(self.corrupt) > self.max_corrupt:
        raise UserError(
          f"{len(self.corrupt)} records cannot be used, more than data.max_corrupt={self.max_corrupt}: "
          f"replace them, or raise the limit. The last: {error}"
        )
      logging.getLogger(__name__).warning("%s; the next record takes its place", error)


def test_batches(
  source: Source,
  cfg: ConfigDict,
  *,
  batch: int,
  factor: tuple[int, int],
  limit: int = 0,  # noqa: PT028 (not a pytest function)
  process: int = 0,  # noqa: PT028
  processes: int = 1,  # noqa: PT028
) -> Iterator[Batch]:
  """Each record once and in order; record i belongs to process i % processes.

  Images are cropped from the top left to a multiple of `factor`. Consecutive ones of one size share a
  batch. A batch that is not full is padded to the next power of two, not to `batch`: a set in which every
  image has a size of its own then costs no empty examples, and few batch sizes need to be compiled.

  Args:
    source: the images.
    cfg: `config.eval.data`, whose `name` stands in messages.
    batch: most examples of a batch.
    factor: of the super-resolution, (rows, columns).
    limit: only the first `limit` records, 0: all.
    process, processes: which records these are.

  Yields:
    hr uint8 [B, H, W, C]; lr uint8 [B, h, w, C] if the records bring their own; index int32 [B], the
    record's number; mask bool [B], False on padding (which repeats the last example); label int32 [B] if any.

  Raises:
    UserError: while iterating, an image that cannot be read, is smaller than the factor, or whose own
      lr is not its size divided by the factor.
  """
  end = min(limit or len(source), len(source))
  examples = _test_examples(source, cfg, range(process, end, processes), factor)
  empty = True
  for _, run in itertools.groupby(examples, key=lambda example: example["hr"].shape):
    while part := list(itertools.islice(run, batch)):
      empty, size = False, min(batch, 1 << (len(part) - 1).bit_length())
      padding = [part[-1] | {"mask": np.False_}] * (size - len(part))
      yield {key: np.stack([example[key] for example in part + padding]) for key in part[0]}
  if empty and processes > 1:  # every process has some batch, at least a masked one
    yield first_test_batch(source, cfg, factor=factor) | {"mask": np.zeros(1, bool)}


def first_test_batch(source: Source, cfg: ConfigDict, *, batch: int = 1, factor: tuple[int, int]) -> Batch:
  """The first of `test_batches`. Raises UserError if the config leaves out all records."""
  for found in test_batches(source, cfg, batch=batch, factor=factor):
    return found
  raise UserError(
    f"config.eval.data.min_bytes leaves out all {len(source)} images of {cfg.name}, split {cfg.split!r}: "
    "lower it."
  )


def check_test_images(
  source: Source, cfg: ConfigDict, *, factor: tuple[int, int], limit: int, seconds: float = 10
) -> None:
  """Read the test images as `test_batches` will, by threads, as many as `seconds` allow.

  Raises:
    UserError: as `test_batches`.
  """
  if isinstance(source, Arrays):
    return
  count, deadline = min(limit or len(source), len(source)), time.monotonic() + seconds

  def read(i: int) -> bool:
    if time.monotonic() > deadline:
      return False
    with contextlib.suppress(Unwanted):
      _test_example(source, cfg, i, factor)
    return True

  with ThreadPoolExecutor(8) as pool:
    done = sum(pool.map(read, range(count)))
  if done < count:
    logging.getLogger(__name__).info(
      "%d of %d test images were read before the training, in %g seconds.", done, count, seconds
    )


def _test_examples(
  source: Source, cfg: ConfigDict, numbers: Iterable[int], factor: tuple[int, int]
) -> Iterator[Record]:
  for i in numbers:
    with contextlib.suppress(Unwanted):
      yield _test_example(source, cfg, i, factor)


def _test_example(source: Source, cfg: ConfigDict, i: int, factor: tuple[int, int]) -> Record:
  try:
    record = source[i]
  except Unwanted:
    raise
  except CorruptRecord as error:
    raise UserError(f"{error}; replace it or take it out of the test set ({cfg.name}).") from error
  h, w = (side // f for side, f in zip(record["hr"].shape, factor, strict=False))
  if not h or not w:
    raise UserError(
      f"{source.name(i)} is {_size(record['hr'].shape)}, smaller than the factor {_size(factor)}: take it "
      "out of the test set, or choose a smaller config.operator.factor."
    )
  example = record | {
    "index": np.int32(i),
    "mask": np.True_,
    "hr": record["hr"][: h * factor[0], : w * factor[1]],
  }
  if "lr" in example and example["lr"].shape[:2] != (h, w):
    raise UserError(
      f"{source.name(i)} should have a low-resolution image of {_size((h, w))} by the factor "
      f"{_size(factor)}, but its own is {_size(example['lr'].shape)}: give one of that size, or set "
      "config.operator.factor."
    )
  if "label" in example:
    example["label"] = np.int32(example["label"])
  return example


def _size(shape: tuple[int, ...]) -> str:
  return f"{shape[0]}x{shape[1]}"
