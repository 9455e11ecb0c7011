"""TFDS data sets of our own; importing this file registers them. None of them needs TensorFlow."""

import gzip
import zlib
from collections.abc import Iterator
from importlib import resources
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from sr_jax.images import decode, image_suffixes

# Package, folder and files inside the wheels, by split. A split holds whole images of its own, so
# that no crop of a test image is trained on. The validation images were looked at while the
# configs were tuned, the test images were not.
SKIMAGE, SKLEARN = ("skimage", "data"), ("sklearn", "datasets", "images")
PHOTOS: dict[str, list[tuple[tuple[str, ...], str]]] = {
  "train": [
    (SKIMAGE, "ihc.png"),
    (SKIMAGE, "hubble_deep_field.jpg"),
    (SKIMAGE, "retina.jpg"),
    (SKIMAGE, "motorcycle_left.png"),
    (SKIMAGE, "rocket.jpg"),
    (SKLEARN, "flower.jpg"),
    (SKIMAGE, "brick.png"),
    (SKIMAGE, "grass.png"),
    (SKIMAGE, "gravel.png"),
    (SKIMAGE, "camera.png"),
    (SKIMAGE, "moon.png"),
    (SKIMAGE, "coins.png"),
  ],
  "validation": [(SKIMAGE, "astronaut.png"), (SKIMAGE, "coffee.png")],
  "test": [(SKIMAGE, "chelsea.png"), (SKLEARN, "china.jpg")],
}


# What is embedded in a dependency: prepared on first use.
EMBEDDED = ("photos", "digits")


class Photos(tfds.core.GeneratorBasedBuilder):
  """Photographs inside the scikit-image and scikit-learn wheels: `image` uint8 [H, W, 3], `name`."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description="Sixteen photographs, split by image; grey ones are repeated over the three channels.",
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
          "name": tfds.features.Text(),
        }
      ),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    return {split: self._generate_examples(files) for split, files in PHOTOS.items()}

  def _generate_examples(self, files: list[tuple[tuple[str, ...], str]]) -> Iterator[tuple[str, dict]]:
    for (package, *folders), file in files:
      with resources.files(package).joinpath(*folders, file).open("rb") as stream:
        yield file, {"image": Image.open(stream).convert("RGB"), "name": file}


class Digits(tfds.core.GeneratorBasedBuilder):
  """Digits inside the scikit-learn wheel: `image` uint8 [8, 8, 1], `label`.

  1,797 of them; their 17 grey levels are spread over 0 to 255. A fifth, chosen by a digest of the bytes, is
  the test set, so that no image is in both. Source: the test part of the UCI's "Optical Recognition of
  Handwritten Digits" (Alpaydin & Kaynak, 1998).
  """

  VERSION = tfds.core.Version("1.0.0")

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description="Handwritten digits of 8x8, from scikit-learn.",
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
          "label": tfds.features.ClassLabel(num_classes=10),
        }
      ),
      supervised_keys=("image", "label"),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    return {split: self._generate_examples(split) for split in ("train", "test")}

  def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
    from sklearn.datasets import load_digits  # takes a second to import

    found = load_digits()
    images = np.round(found.images * (255 / 16)).astype(np.uint8)
    for i, (image, label) in enumerate(zip(images, found.target, strict=True)):
      if (zlib.crc32(image.tobytes()) % 5 == 0) == (split == "test"):
        yield i, {"image": Image.fromarray(image), "label": int(label)}


class MnistIdx(tfds.core.GeneratorBasedBuilder):
  """MNIST from its four original files: `image` uint8 [28, 28, 1], `label`, as in TFDS's own `mnist`."""

  VERSION = tfds.core.Version("3.0.1")
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    "Put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
    "t10k-labels-idx1-ubyte.gz into one folder."
  )

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description="The MNIST database of handwritten digits, from its idx files.",
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(28, 28, 1)),
          "label": tfds.features.ClassLabel(num_classes=10),
        }
      ),
      supervised_keys=("image", "label"),
      homepage="http://yann.lecun.com/exdb/mnist/",
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    folder = dl_manager.manual_dir
    return {
      "train": self._generate_examples(folder, "train"),
      "test": self._generate_examples(folder, "t10k"),
    }

  def _generate_examples(self, folder: Any, part: str) -> Iterator[tuple[int, dict]]:
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
      yield i, {"image": Image.fromarray(image), "label": int(label)}


class MnistCorners(MnistIdx):
  """MNIST corners: `lr` is a digit, `image` the same at half the size in the upper left or right corner.

  uint8 [28, 28, 1] both, and `label`. Half of the digits of each split, chosen at random, go to the left:
  p(image | lr) has two modes. mnist_corners/grey, the default, has MNIST's grey levels; in
  mnist_corners/binary `image` is black and white, 128 and more becoming 255. Source: Dahl et al., Pixel
  Recursive Super Resolution, section 3.2.
  """

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name) for name in ("grey", "binary")]

  def _info(self) -> tfds.core.DatasetInfo:
    image = {key: tfds.features.Image(shape=(28, 28, 1)) for key in ("image", "lr")}
    return tfds.core.DatasetInfo(
      builder=self,
      description="MNIST digits, and the same digits at half the size in one of the two upper corners.",
      features=tfds.features.FeaturesDict({**image, "label": tfds.features.ClassLabel(num_classes=10)}),
    )

  def _generate_examples(self, folder: Any, part: str) -> Iterator[tuple[int, dict]]:
    for i, example in super()._generate_examples(folder, part):
      # Pairs of digits, one to each side; CRC-32 is a draw that every machine and version repeats.
      right = (zlib.crc32(f"{part} {i // 2}".encode()) + i) % 2
      half = example["image"].resize((14, 14), Image.Resampling.BOX)
      if self.builder_config.name == "binary":
        half = half.point(lambda level: 255 * (level >= 128))
      canvas = Image.new("L", (28, 28))
      canvas.paste(half, (14 * right, 0))
      yield i, {"image": canvas, "lr": example["image"], "label": example["label"]}


class PlateChars(tfds.core.GeneratorBasedBuilder):
  """Characters of licence plates from a folder for each of 0 to 9, A to Z: `image` uint8 [H, W, 1], `label`.

  A tenth of the images is the test set, chosen by a digest of their bytes, so that every class is in both and
  no file is, under two names, in both. Characters as in VarSR (Hyun & Heo, 2020), section 4.1.
  """

  VERSION = tfds.core.Version("1.0.0")
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    "Put the images of each character into a folder of its name, all of these folders into one."
  )
  CLASSES = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description="Characters of licence plates, a folder for each.",
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(None, None, 1)),
          "label": tfds.features.ClassLabel(names=list(self.CLASSES)),
        }
      ),
      supervised_keys=("image", "label"),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    folder = dl_manager.manual_dir
    return {split: self._generate_examples(folder, split) for split in ("train", "test")}

  def _generate_examples(self, folder: Any, split: str) -> Iterator[tuple[str, dict]]:
    files = (path for name in self.CLASSES for path in sorted((folder / name).glob("*")))
    suffixes = image_suffixes()
    found = [path for path in files if path.suffix.lower() in suffixes and path.is_file()]
    if not found:
      raise FileNotFoundError(f"{folder} has no folder named by a character, with images in it")
    for path in found:
      if (zlib.crc32(path.read_bytes()) % 10 == 0) == (split == "test"):
        yield (
          f"{path.parent.name}/{path.name}",
          {"image": Image.fromarray(decode(path, 1)[..., 0]), "label": path.parent.name},
        )


def read_idx(path: Any) -> np.ndarray:
  """The uint8 array in a gzipped idx file (LeCun's MNIST page); ValueError if it holds something else.

  An idx file begins with the bytes 0, 0, the type (8: uint8) and the number of dimensions, then each
  dimension as a big-endian int32, then the data in row-major order.
  """
  data = gzip.decompress(path.read_bytes())
  if data[:3] != b"\0\0\x08":
    raise ValueError(f"{path} is not an idx file of bytes")
  dimensions = data[3]
  shape = np.frombuffer(data, ">i4", dimensions, 4)
  return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
