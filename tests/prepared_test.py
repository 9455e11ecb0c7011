"""Prepared data sets: what each has in its splits, how it is prepared, and what is refused."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from small_data import config, evaluated, take
from sr_jax import data
from sr_jax.data.builders import PHOTOS
from sr_jax.data.sources import Unwanted
from sr_jax.errors import UserError


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  folder = tmp_path_factory.mktemp("photos")
  data.open_source(config(folder, name="photos"))
  return folder


def test_photos_prepare_themselves(photos):
  source = data.open_source(config(photos, name="photos", split="test"))
  assert sorted(source[i]["hr"].shape for i in range(len(source))) == [(300, 451, 3), (427, 640, 3)]
  assert len(data.open_source(config(photos, name="photos", split="train[:50%]"))) == 6


def test_small_records_of_a_prepared_set_are_left_out(photos):
  with pytest.raises(Unwanted):
    data.open_source(config(photos, name="photos", split="test", min_bytes=10**9))[0]


def test_no_test_photo_is_a_training_photo(photos):
  names = {}
  for split in PHOTOS:
    examples = tfds.builder("photos", data_dir=photos).as_data_source(
      split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    names[split] = {example["name"].decode() for example in examples}
    assert names[split] == {file for _, file in PHOTOS[split]}
  assert names["test"] == {"chelsea.png", "china.jpg"}
  assert len(set.union(*names.values())) == sum(map(len, names.values())) == 16


@pytest.mark.parametrize(("folder", "words"), [("nested", "name=folder"), ("nowhere", "does not exist")])
def test_photographs_are_not_replaced_by_the_embedded_ones(tmp_path, folder, words):
  (tmp_path / "nested" / "album").mkdir(parents=True)
  Image.new("RGB", (2, 2)).save(tmp_path / "nested" / "album" / "IMG_1.JPG")
  with pytest.raises(UserError, match=words):
    data.open_source(config(str(tmp_path / folder), name="photos"))
  assert [path.name for path in tmp_path.iterdir()] == ["nested"]


def test_embedded_digits_prepare_themselves_and_no_test_digit_is_a_training_digit(tmp_path):
  found = {}
  for split in ("train", "test"):
    source = data.open_source(config(tmp_path, name="digits", split=split, channels=1))
    found[split] = [source[i] for i in range(len(source))]
  assert sum(map(len, found.values())) == 1797
  assert 300 < len(found["test"]) < 400
  pictures = {split: {record["hr"].tobytes() for record in records} for split, records in found.items()}
  assert not pictures["train"] & pictures["test"]
  together = load_digits()
  expected = {
    (np.round(image * 255 / 16).astype(np.uint8).tobytes(), int(label))
    for image, label in zip(together.images, together.target, strict=True)
  }
  for records in found.values():
    assert {record["label"] for record in records} == set(range(10))
    assert {(record["hr"].tobytes(), record["label"]) for record in records} <= expected
    assert {record["hr"].shape for record in records} == {(8, 8, 1)}
    assert max(record["hr"].max() for record in records) == 255


def test_an_unknown_split_names_the_known_ones(photos):
  with pytest.raises(UserError, match="no split 'tset': choose one of train, validation, test"):
    data.open_source(config(photos, name="photos", split="tset"))


def test_a_part_of_a_tfds_split_that_ends_before_it_begins_raises_a_user_error():
  with pytest.raises(UserError, match=r"train\[5:2\]"):
    data.open_source(config(name="photos", split="train[5:2]"))


def test_an_unprepared_data_set_names_the_command(tmp_path):
  with pytest.raises(UserError, match=f"run `sr-jax prepare cifar10 --data-dir {tmp_path}` once"):
    data.open_source(config(tmp_path, name="cifar10"))


def test_an_unknown_data_set_raises_one_sentence(tmp_path):
  with pytest.raises(UserError, match="no data set 'nosuch'") as error:
    data.prepare("nosuch", str(tmp_path))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["photos:9.9.9", "photos:x"])
def test_a_version_that_tfds_does_not_have_raises_a_user_error(name):
  with pytest.raises(UserError, match="TFDS knows no data set"):
    data.open_source(config(name=name))


def write_idx(path, array):
  header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
  path.write_bytes(gzip.compress(header + array.tobytes()))


def test_mnist_from_idx_files_has_the_schema_of_tfds_mnist(tmp_path):
  idx = tmp_path / "idx"
  idx.mkdir()
  rng = np.random.default_rng(0)
  written = {}
  for part, count in (("train", 5), ("t10k", 3)):
    images = rng.integers(256, size=(count, 28, 28), dtype=np.uint8)
    labels = rng.integers(10, size=count, dtype=np.uint8)
    write_idx(idx / f"{part}-images-idx3-ubyte.gz", images)
    write_idx(idx / f"{part}-labels-idx1-ubyte.gz", labels)
    written[part] = {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}
  words = f"--data-dir {tmp_path} --from FOLDER_OF_ITS_FILES"
  with pytest.raises(UserError, match=f"run `sr-jax prepare mnist_idx {words}` once"):
    data.open_source(config(tmp_path, name="mnist_idx", channels=1))
  with pytest.raises(UserError, match=r"mnist_idx needs its original files.*--from.*train-images"):
    data.prepare("mnist_idx", str(tmp_path), str(tmp_path / "nowhere"))
  folder = data.prepare("mnist_idx", str(tmp_path), str(idx))
  assert folder.startswith(str(tmp_path / "mnist_idx"))
  ours, theirs = (tfds.builder(name, data_dir=tmp_path).info.features for name in ("mnist_idx", "mnist"))
  assert repr(ours) == repr(theirs)
  for part, split in (("train", "train"), ("t10k", "test")):
    cfg = config(tmp_path, name="mnist_idx", split=split, channels=1, crop=(), flip=False)
    source = data.open_source(cfg)
    records = [source[i] for i in range(len(source))]
    assert {(record["hr"].tobytes(), record["label"]) for record in records} == written[part]
  (batch,) = take(tmp_path, 1, cfg, batch=3)
  assert batch["hr"].shape == (3, 28, 28, 1)
  assert batch["label"].dtype == np.int32
  assert evaluated(source, batch=2)[1]["label"].shape == (1,)


def test_a_prepared_set_of_another_format_raises_one_sentence(tmp_path):
  write_idx(tmp_path / "digits.gz", np.zeros((2, 28, 28), np.uint8))
  for part in ("train", "t10k"):
    (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes((tmp_path / "digits.gz").read_bytes())
    write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.zeros(2, np.uint8))
  folder = data.prepare("mnist_idx", str(tmp_path), str(tmp_path))
  info = Path(folder) / "dataset_info.json"
  info.write_text(info.read_text().replace("array_record", "tfrecord"))
  with pytest.raises(UserError, match="not array_record"):
    data.open_source(config(tmp_path, name="mnist_idx", channels=1))


def test_mnist_corners_has_each_digit_at_half_its_size_in_one_corner_left_as_often_as_right(tmp_path):
  rng = np.random.default_rng(0)
  digits = {
    part: rng.integers(1, 256, size=(count, 28, 28), dtype=np.uint8)
    for part, count in (("train", 40), ("t10k", 10))
  }
  for part, images in digits.items():
    write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(len(images), dtype=np.uint8) % 10)
  for name in ("grey", "binary"):
    data.prepare(f"mnist_corners/{name}", str(tmp_path), str(tmp_path))
  sides = []
  for part, split in (("train", "train"), ("t10k", "test")):
    source, binary = (
      data.open_source(config(tmp_path, name=f"mnist_corners{name}", split=split, channels=1))
      for name in ("", "/binary")
    )
    assert binary.name(3) == f"record 3 of mnist_corners:binary, split {split}"
    for i in range(len(source)):
      record = source[i]
      np.testing.assert_array_equal(binary[i]["hr"], np.where(record["hr"] >= 128, 255, 0))
      np.testing.assert_array_equal(binary[i]["lr"], record["lr"])
      lr, hr = (record[key][..., 0].astype(float) for key in ("lr", "hr"))
      assert any(np.array_equal(lr, digit) for digit in digits[part])
      half = lr.reshape(14, 2, 14, 2).mean(axis=(1, 3))
      left, right = hr[:14, :14], hr[:14, 14:]
      filled, empty = (left, right) if left.any() else (right, left)
      assert np.abs(filled - half).max() <= 1  # PIL rounds after each axis
      assert not empty.any()
      assert not hr[14:].any()
      sides.append(filled is left)
    assert np.mean(sides[-len(source) :]) == 0.5
  # A digit's side does not follow from its number.
  builder = tfds.builder("mnist_corners", data_dir=tmp_path)
  examples = [example for _, example in builder._generate_examples(tmp_path, "train")]
  lefts = [np.asarray(example["image"])[:, :14].any() for example in examples[::2]]
  assert 0 < np.mean(lefts) < 1


def test_plate_characters_are_split_by_their_bytes_and_keep_their_class(tmp_path):
  rng, written = np.random.default_rng(0), {}
  for name in "0AZ":
    (tmp_path / "chars" / name).mkdir(parents=True)
    for i in range(40):
      image = rng.integers(256, size=(6, 5), dtype=np.uint8)
      Image.fromarray(image).save(tmp_path / "chars" / name / f"{i}.png")
      written[image.tobytes()] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(name)
  deep = 257 * rng.integers(256, size=(6, 5), dtype=np.uint16)  # 16 bits a pixel
  Image.fromarray(deep).save(tmp_path / "chars" / "Z" / "deep.png")
  written[(deep // 257).astype(np.uint8).tobytes()] = 35
  twin = tmp_path / "chars" / "0" / "twin.png"
  twin.write_bytes((tmp_path / "chars" / "0" / "0.png").read_bytes())
  (tmp_path / "chars" / "0" / "Thumbs.db").write_bytes(b"no image")
  with pytest.raises(UserError, match=r"plate_chars needs its original files.*--from.*folder of its name"):
    data.prepare("plate_chars", str(tmp_path), str(tmp_path / "nowhere"))
  data.prepare("plate_chars", str(tmp_path), str(tmp_path / "chars"))
  found = {}
  for split in ("train", "test"):
    cfg = config(tmp_path, name="plate_chars", split=split, channels=1, crop=(), flip=False)
    source = data.open_source(cfg)
    found[split] = [source[i] for i in range(len(source))]
  labels = {record["hr"].tobytes(): record["label"] for records in found.values() for record in records}
  assert labels == written
  assert {r["label"] for r in found["train"]} == {r["label"] for r in found["test"]} == {0, 10, 35}
  assert len(found["train"]) + len(found["test"]) == 122
  assert not {r["hr"].tobytes() for r in found["train"]} & {r["hr"].tobytes() for r in found["test"]}
  assert 3 <= len(found["test"]) <= 30


class Pairs(tfds.core.GeneratorBasedBuilder):
  """Two pairs of a 4x4 and a 2x2 image."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    image = tfds.features.Image(shape=(None, None, 3))
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict({"hr": image, "lr": image})
    )

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    for i in range(2):
      yield i, {"hr": Image.new("RGB", (4, 4)), "lr": Image.new("RGB", (2, 2))}


def test_a_feature_called_lr_is_the_low_resolution_image(tmp_path):
  data.prepare("pairs", str(tmp_path))
  (batch,) = evaluated(data.open_source(config(tmp_path, name="pairs")))
  assert batch["lr"].shape == (2, 2, 2, 3)


def test_processes_that_prepare_at_once_leave_one_copy(tmp_path, monkeypatch):
  alone = Pairs._generate_examples

  def while_another_process_finishes(builder):
    monkeypatch.setattr(Pairs, "_generate_examples", alone)
    data.prepare("pairs", str(tmp_path))
    return alone(builder)

  monkeypatch.setattr(Pairs, "_generate_examples", while_another_process_finishes)
  assert data.prepare("pairs", str(tmp_path)) == data.prepare("pairs", str(tmp_path))
  assert [path.name for path in (tmp_path / "pairs").iterdir()] == ["1.0.0"]
  assert len(data.open_source(config(tmp_path, name="pairs"))) == 2


def test_a_data_set_that_needs_tensorflow_says_how_to_install_it(tmp_path, monkeypatch):
  def needs_tensorflow(builder):
    raise ModuleNotFoundError("No module named 'tensorflow'")

  monkeypatch.setattr(Pairs, "_generate_examples", needs_tensorflow)
  with pytest.raises(
    UserError, match=r"Preparing pairs needs TensorFlow, once: .* pip install -e '\.\[tf\]'"
  ):
    data.prepare("pairs", str(tmp_path))


def test_reading_imports_no_tensorflow(photos):
  code = f"""
import sys
from ml_collections import ConfigDict
from sr_jax import data
cfg = ConfigDict(dict(name="photos", split="test", dir={str(photos)!r}, channels=3))
assert next(data.test_batches(data.open_source(cfg), cfg, batch=1, factor=(4, 4)))
sys.exit("tensorflow" in sys.modules)
"""
  subprocess.run([sys.executable, "-c", code], check=True)
