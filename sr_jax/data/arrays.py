"""Data sets that lie in memory as one array."""

import itertools
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from sr_jax.errors import choose
from sr_jax.ops import swiss_roll

Batch = dict[str, np.ndarray]

# Records of each split, and the seed they are drawn with.
SPLITS = {"train": (50_000, 1), "validation": (10_000, 2), "test": (10_000, 3)}


class Arrays:
  """Records `hr` of one array [N, H, W, C], as they are: floats stay floats."""

  def __init__(self, hr: np.ndarray, title: str):
    self.hr, self.title = hr, title
    self.hr.setflags(write=False)

  def __len__(self) -> int:
    return len(self.hr)

  def __getitem__(self, i: int) -> Batch:
    return {"hr": self.hr[i]}

  def name(self, i: int) -> str:
    return f"record {i} of {self.title}"


def open_swiss_roll(split: str) -> Arrays:
  """The Swiss roll (`ops/swiss_roll.py`): 50,000 training points, 10,000 to validate and 10,000 to test."""
  count, seed = choose(SPLITS, split, "split of swiss_roll")
  return Arrays(swiss_roll.draw(np.random.default_rng(seed), count), f"swiss_roll, split {split}")


ARRAYS: dict[str, Callable[[str], Arrays]] = {"swiss_roll": open_swiss_roll}


def array_batches(
  source: Arrays, *, seed: int, batch: int, start: int, process: int, processes: int
) -> Iterator[Batch]:
  """Training batches as `train_batches` makes them, by indexing: a record costs nanoseconds, not a call.

  The same promises: one global order, shuffled anew in each epoch by `seed`; batch s is its examples s*batch
  to (s+1)*batch, of which each process has its contiguous part.
  """
  n = len(source)

  @lru_cache(maxsize=2)  # a batch may lie across two epochs
  def order(epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(n)

  part = batch // processes
  for s in itertools.count(start):
    examples = s * batch + process * part + np.arange(part)
    records = np.empty(part, np.int64)
    for epoch in np.unique(examples // n):
      inside = examples // n == epoch
      records[inside] = order(int(epoch))[examples[inside] % n]
    yield {
      "hr": source.hr[records],
      "index": (examples % 2**31).astype(np.int32),
      "mask": np.ones(part, bool),
    }
