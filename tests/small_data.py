"""Small sources for tests: a folder's config, its records and its batches."""

import itertools

from ml_collections import ConfigDict

from sr_jax import data


def config(folder="", **changes):
  keys = {"name": "folder", "split": "train", "dir": str(folder), "channels": 3}
  keys |= {"crop": (8, 6), "flip": True, "max_corrupt": 0, "threads": 2}
  return ConfigDict(keys | changes)


def take(folder, count, cfg=None, *, batch=4, start=0, seed=1, **part):
  cfg = cfg or config(folder)
  batches = data.train_batches(data.open_source(cfg), cfg, seed=seed, batch=batch, start=start, **part)
  return list(itertools.islice(batches, count))


def evaluated(source, batch=4, factor=(2, 2), **options):
  return list(data.test_batches(source, config(), batch=batch, factor=factor, **options))


def records(folder, **changes):
  source = data.open_source(config(folder, **changes))
  return [int(source[i]["hr"][0, 0, 0]) for i in range(len(source))]
