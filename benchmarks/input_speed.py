"""How many training images a second one host's input pipeline brings, by format, with and without the cache.

  python benchmarks/input_speed.py [--seconds 8] [--size 480] [--images 64] [--crops 48 192 256]

Parts of the embedded photographs as JPEG and PNG files and as the PNG records of a TFDS array_record, in
batches of 16 random crops with mirroring. `sr-jax plan` prints how many images a second a training takes.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict
from PIL import Image

from sr_jax.configs import base
from sr_jax.data import open_source, train_batches

BATCH = 16


def photographs(count: int, size: int) -> list[np.ndarray]:
  """Parts of size x size of the embedded photographs, which are enlarged where they are smaller."""
  config = base.get_config().data
  config.split = "train"
  source = open_source(config)
  rng, parts = np.random.default_rng(0), []
  for i in range(count):
    image = Image.fromarray(source[i % len(source)]["hr"])
    scale = max(1, size / min(image.size))
    image = image.resize([max(size, round(side * scale)) for side in image.size])
    left, top = (int(rng.integers(0, side - size + 1)) for side in image.size)
    parts.append(np.asarray(image.crop((left, top, left + size, top + size))))
  return parts


class Parts(tfds.core.GeneratorBasedBuilder):
  """The same images as a TFDS data set."""

  VERSION = tfds.core.Version("1.0.0")
  images: ClassVar[list[np.ndarray]] = []

  def _info(self) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(None, None, 3))})
    return tfds.core.DatasetInfo(builder=self, features=features)

  def _split_generators(self, dl_manager):
    del dl_manager
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    for i, image in enumerate(self.images):
      yield i, {"image": Image.fromarray(image)}


def write(images: list[np.ndarray], folder: Path) -> dict[str, ConfigDict]:
  """The images in each format, and the `config.data` that reads them."""
  configs = {}
  for kind, keys in (("jpg", {"quality": 90}), ("png", {})):
    (folder / kind).mkdir()
    for i, image in enumerate(images):
      Image.fromarray(image).save(folder / kind / f"{i:04}.{kind}", **keys)
    configs[kind] = {"name": "folder", "dir": str(folder / kind)}
  Parts.images = images
  tfds.disable_progress_bar()
  Parts(data_dir=folder, file_format="array_record").download_and_prepare()
  configs["array_record of PNG"] = {"name": "parts", "dir": str(folder), "split": "train"}
  return {name: ConfigDict({**base.get_config().data, **keys}) for name, keys in configs.items()}


def speed(config: ConfigDict, seconds: float) -> float:
  """Images a second, after what the pipeline has made ahead is gone."""
  stream = train_batches(open_source(config), config, seed=0, batch=BATCH, start=0)
  for _ in range(2 * config.threads):
    next(stream)
  count, begin = 0, time.perf_counter()
  while (took := time.perf_counter() - begin) < seconds:
    next(stream)
    count += BATCH
  return count / took


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--seconds", type=float, default=8)
  parser.add_argument("--size", type=int, default=480)
  parser.add_argument("--images", type=int, default=64)
  parser.add_argument("--crops", type=int, nargs="+", default=[48, 192, 256])
  arguments = parser.parse_args()
  print(f"{os.cpu_count()} cores, {arguments.images} images of {arguments.size}x{arguments.size}\n")
  print("| format | cached | " + " | ".join(f"crops of {crop}" for crop in arguments.crops) + " |")
  print("| --- | --- |" + " ---: |" * len(arguments.crops))
  with tempfile.TemporaryDirectory() as folder:
    for name, config in write(photographs(arguments.images, arguments.size), Path(folder)).items():
      for cache in (0, 1024):
        row = []
        for crop in arguments.crops:
          config.update({"cache_mb": cache, "crop": (crop, crop)})
          row.append(f"{speed(config, arguments.seconds):,.0f}")
        print(f"| {name} | {'yes' if cache else 'no'} | " + " | ".join(row) + " |", flush=True)
  return 0


if __name__ == "__main__":
  sys.exit(main())
