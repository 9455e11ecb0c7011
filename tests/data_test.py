"""Sources and batches: what a record is, which rows a batch has, what happens to a bad file."""

import gzip
import io
import itertools
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from ml_collections import ConfigDict
from PIL import Image
from sklearn.datasets import load_digits

# Not `from sr_jax.data import test_batches`: pytest would take it for a test.
from sr_jax import data
from sr_jax.data.builders import PHOTOS
from sr_jax.data.sources import CorruptRecord, Unwanted
from sr_jax.errors import UserError
from sr_jax.images import UnreadableImageError, decode


def config(folder="", **changes):
  keys = {"name": "folder", "split": "train", "dir": str(folder), "channels": 3}
  keys |= {"crop": (8, 6), "flip": True, "max_corrupt": 0, "threads": 2}
  return ConfigDict(keys | changes)


@pytest.fixture
def images(tmp_path):
  """Ten images of 12x10; image i has i in its red channel, the row in green, the column in blue."""
  rows, columns = np.indices((12, 10))
  for i in range(10):
    pixels = np.stack([np.full((12, 10), i), rows, columns], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"{i}.png")
  return tmp_path


def take(folder, count, cfg=None, *, batch=4, start=0, seed=1, **part):
  cfg = cfg or config(folder)
  batches = data.train_batches(data.open_source(cfg), cfg, seed=seed, batch=batch, start=start, **part)
  return list(itertools.islice(batches, count))


def joined(batches, key):
  return np.concatenate([b[key] for b in batches])


def same(a, b):
  assert a.keys() == b.keys()
  for key in a:
    np.testing.assert_array_equal(a[key], b[key])
    assert a[key].dtype == b[key].dtype


def evaluated(source, batch=4, factor=(2, 2), **options):
  return list(data.test_batches(source, config(), batch=batch, factor=factor, **options))


# Parts and frames


def records(folder, **changes):
  source = data.open_source(config(folder, **changes))
  return [int(source[i]["hr"][0, 0, 0]) for i in range(len(source))]


@pytest.mark.parametrize(
  ("split", "expected"),
  [("train", range(10)), ("train[:30%]", range(3)), ("[7:]", range(7, 10)), ("test[-2:]", range(8, 10))],
)
def test_a_split_takes_its_part_of_a_folder(images, split, expected):
  assert records(images, split=split) == list(expected)


@pytest.mark.parametrize("split", ["[3", "train[a:]", "[10:]", "[5:2]"])
def test_a_split_that_is_none_or_empty_raises_a_user_error(images, split):
  with pytest.raises(UserError, match="split"):
    data.open_source(config(images, split=split))


def test_small_files_are_left_out(images):
  sizes = sorted(path.stat().st_size for path in images.iterdir())
  kept = records(images, min_bytes=sizes[5])
  assert len(kept) == sum(size >= sizes[5] for size in sizes)


def test_a_frame_cuts_the_centre_and_resizes_it(images):
  hr = data.open_source(config(images, centre=(4, 2)))[3]["hr"]
  assert hr[..., 1].tolist() == [[r, r] for r in range(4, 8)]
  assert hr[..., 2].tolist() == [[4, 5]] * 4
  assert hr.base is None  # a view would keep the whole image in the cache
  # Without a centre, the largest part of that shape: a square of 12x10 is 10x10.
  hr = data.open_source(config(images, resize=(5, 5)))[3]["hr"]
  assert hr.shape == (5, 5, 3)
  np.testing.assert_allclose(hr[:, 0, 1], [1.5, 3.5, 5.5, 7.5, 9.5], atol=1)
  # Stretched, all of it: 12 rows and 10 columns become 6 and 2.
  hr = data.open_source(config(images, resize=(6, 2), stretch=True))[3]["hr"]
  np.testing.assert_allclose(hr[:, 0, 1], np.arange(0.5, 12, 2), atol=1)
  np.testing.assert_allclose(hr[0, :, 2], [2, 7], atol=1)
  grey = data.open_source(config(images, resize=(5, 5), channels=1))[3]["hr"]
  assert grey.shape == (5, 5, 1)


def test_a_frame_that_does_not_fit_raises_a_corrupt_record(images):
  with pytest.raises(UserError, match="centre"):
    take(images, 1, config(images, centre=(40, 2)))
  with pytest.raises(UserError, match="resize"):
    data.open_source(config(images, resize=(4,)))


# Records in memory


def roll(**changes):
  return config(name="swiss_roll", channels=1, crop=(), flip=False, **changes)


def test_records_in_memory_come_once_an_epoch_and_resume_where_they_were():
  whole = take("", 100, roll(), batch=1250)
  values = joined(whole, "hr")[:, 0, 0, 0]
  first, second = values[:50_000], values[50_000:100_000]
  records = data.open_source(roll()).hr[:, 0, 0, 0]
  np.testing.assert_array_equal(np.sort(first), np.sort(records))
  np.testing.assert_array_equal(np.sort(second), np.sort(records))
  assert (first != second).mean() > 0.9
  assert whole[0]["hr"].dtype == np.float32
  same(take("", 1, roll(), batch=1250, start=61)[0], whole[61])
  # Batches that lie across two epochs, shared by two processes.
  odd = take("", 60, roll(), batch=2002)
  halves = [take("", 60, roll(), batch=2002, process=p, processes=2) for p in (0, 1)]
  for i in (0, 24, 25, 59):
    np.testing.assert_array_equal(np.concatenate([h[i]["hr"] for h in halves]), odd[i]["hr"])
  assert not np.array_equal(odd[0]["hr"], take("", 1, roll(), batch=2002, seed=2)[0]["hr"])


def test_records_in_memory_are_not_cropped():
  with pytest.raises(UserError, match="crop"):
    take("", 1, config(name="swiss_roll", channels=1))


# Training batches


def test_each_record_appears_once_an_epoch_in_an_order_of_its_own(images):
  epochs = joined(take(images, 10), "hr")[:, 0, 0, 0].reshape(4, 10)
  assert all(sorted(epoch) == list(range(10)) for epoch in epochs.tolist())
  assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4
  assert epochs.tolist() != joined(take(images, 10, seed=2), "hr")[:, 0, 0, 0].reshape(4, 10).tolist()


def test_a_training_batch_has_the_contracts_keys(images):
  batch = take(images, 2)[1]
  assert {k: (v.dtype.name, v.shape) for k, v in batch.items()} == {
    "hr": ("uint8", (4, 8, 6, 3)),
    "index": ("int32", (4,)),
    "mask": ("bool", (4,)),
  }
  assert batch["index"].tolist() == [4, 5, 6, 7]
  assert batch["mask"].all()


def test_a_resumed_stream_equals_the_uninterrupted_one(images):
  for a, b in zip(take(images, 9)[5:], take(images, 4, start=5), strict=True):
    same(a, b)


def test_a_stream_starts_late_and_its_index_wraps_within_int32(images):
  (batch,) = take(images, 1, start=2**29 + 2**28)
  assert batch["index"].tolist() == [2**30, 2**30 + 1, 2**30 + 2, 2**30 + 3]


@pytest.mark.parametrize("processes", [2, 4])
def test_rows_do_not_depend_on_the_number_of_processes(images, processes):
  parts = [take(images, 6, process=p, processes=processes, start=1) for p in range(processes)]
  for whole, *shares in zip(take(images, 6, start=1), *parts, strict=True):
    same(whole, {key: joined(shares, key) for key in whole})


def test_rows_do_not_depend_on_threads_or_the_cache(images):
  plain = take(images, 6)
  for cfg in (config(images, threads=1), config(images, cache_mb=1)):
    for a, b in zip(plain, take(images, 6, cfg), strict=True):
      same(a, b)


def test_crops_are_windows_at_every_place_and_half_are_mirrored(images):
  hr = joined(take(images, 100), "hr").astype(int)
  top, left = hr[:, 0, 0, 1], np.minimum(hr[:, 0, 0, 2], hr[:, 0, -1, 2])
  mirrored = hr[:, 0, 0, 2] > hr[:, 0, -1, 2]
  columns = np.where(mirrored[:, None], np.arange(6)[::-1], np.arange(6)) + left[:, None]
  np.testing.assert_array_equal(
    hr[..., 1], np.broadcast_to((top[:, None] + np.arange(8))[..., None], (400, 8, 6))
  )
  np.testing.assert_array_equal(hr[..., 2], np.broadcast_to(columns[:, None], (400, 8, 6)))
  assert set(zip(top, left, strict=True)) == set(itertools.product(range(5), range(5)))
  assert 150 < mirrored.sum() < 250


def test_a_record_gets_a_new_crop_in_each_epoch(images):
  hr = joined(take(images, 50), "hr")
  assert len({image.tobytes() for image in hr if image[0, 0, 0] == 3}) > 5


def test_nothing_is_mirrored_without_flip(images):
  hr = joined(take(images, 25, config(images, flip=False)), "hr").astype(int)
  assert (np.diff(hr[..., 2], axis=2) == 1).all()


def test_an_own_low_resolution_image_is_mirrored_with_its_image(images):
  cfg = config(images, lr_dir=str(images), crop=())
  batches = take(images, 10, cfg)
  np.testing.assert_array_equal(joined(batches, "hr"), joined(batches, "lr"))
  assert len(np.unique(joined(batches, "lr")[:, 0, 0, 2])) == 2


def test_whole_images_of_two_sizes_raise_one_sentence(images):
  assert take(images, 1, config(images, crop=()))[0]["hr"].shape == (4, 12, 10, 3)
  Image.new("RGB", (9, 12)).save(images / "odd.png")
  with pytest.raises(UserError, match=r"odd\.png has hr of 12x9, others have 12x10"):
    take(images, 6, config(images, crop=()))


def test_a_batch_that_processes_cannot_share_raises_one_sentence(images):
  with pytest.raises(UserError, match="4 cannot be divided among 3"):
    take(images, 1, processes=3)


# Bad records


def spoil(folder):
  """A text file, a truncated image and one smaller than the crop in the places of 2, 3 and 7."""
  (folder / "2.png").write_text("not an image")
  Image.effect_noise((64, 64), 50).convert("RGB").save(folder / "whole.jpg")
  (folder / "3.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:900])
  (folder / "3.png").unlink()
  (folder / "whole.jpg").unlink()
  Image.new("RGB", (5, 12)).save(folder / "7.png")


def test_a_corrupt_record_is_named_and_replaced(images, caplog):
  before = joined(take(images, 5), "hr")[:, 0, 0, 0]
  spoil(images)
  after = joined(take(images, 5, config(images, max_corrupt=3)), "hr")[:, 0, 0, 0]
  replacement = {2: 4, 3: 4, 7: 8}
  assert after.tolist() == [replacement.get(i, i) for i in before.tolist()]
  messages = [record.getMessage() for record in caplog.records]
  assert len(messages) == 3
  for name in ("2.png", "3.jpg", "7.png"):
    assert sum(str(images / name) in message for message in messages) == 1


def test_replacements_are_the_same_after_a_resume(images):
  spoil(images)
  cfg = config(images, max_corrupt=3)
  for a, b in zip(take(images, 9, cfg)[5:], take(images, 4, cfg, start=5), strict=True):
    same(a, b)


def test_too_many_corrupt_records_raise_one_sentence(images):
  spoil(images)
  with pytest.raises(
    UserError, match=r"3 records cannot be used, more than data\.max_corrupt=2: .* The last: .*\d\."
  ):
    take(images, 5, config(images, max_corrupt=2))
  for path in images.iterdir():
    path.write_text("")
  with pytest.raises(UserError, match="None of the 10 records"):
    take(images, 1, config(images, max_corrupt=10))


def test_an_unreadable_test_image_raises_one_sentence(images):
  spoil(images)
  with pytest.raises(UserError, match=r"2\.png cannot be used"):
    evaluated(data.open_source(config(images)))


# Test batches


def test_each_test_record_comes_once_and_in_order(images):
  batches = evaluated(data.open_source(config(images)))
  assert [b["mask"].tolist() for b in batches] == [[True] * 4, [True] * 4, [True] * 2]
  assert joined(batches, "index").tolist() == list(range(10))
  assert joined(batches, "hr")[:, 0, 0, 0].tolist() == list(range(10))


def test_processes_share_the_test_records(images):
  source = data.open_source(config(images))
  parts = [joined(evaluated(source, process=p, processes=2, limit=7), "index").tolist() for p in range(2)]
  assert parts == [[0, 2, 4, 6], [1, 3, 5, 5]]  # the last 5 is padding


def test_padding_repeats_the_last_row_up_to_a_power_of_two(images):
  (batch,) = evaluated(data.open_source(config(images)), batch=8, limit=3)
  assert batch["mask"].tolist() == [True, True, True, False]
  assert batch["index"].tolist() == [0, 1, 2, 2]
  np.testing.assert_array_equal(batch["hr"][3], batch["hr"][2])
  (batch,) = evaluated(data.open_source(config(images)), batch=6, limit=5)
  assert batch["mask"].tolist() == [True] * 5 + [False]


def test_a_test_batch_holds_images_of_one_size_cut_to_the_factor(images):
  Image.new("RGB", (31, 20)).save(images / "4.png")
  batches = evaluated(data.open_source(config(images)), batch=8, factor=(5, 3))
  assert [b["hr"].shape for b in batches] == [(4, 10, 9, 3), (1, 20, 30, 3), (8, 10, 9, 3)]
  assert batches[0]["hr"][0, -1, -1].tolist() == [0, 9, 8]
  with pytest.raises(UserError, match="12x10, smaller than the factor 16x2"):
    evaluated(data.open_source(config(images)), factor=(16, 2))


def test_given_low_resolution_images_go_with_their_names(images, tmp_path_factory):
  lr = tmp_path_factory.mktemp("lr")
  for i in range(10):
    Image.new("RGB", (5, 6), (i, 0, 0)).save(lr / f"{i}.png")
  source = data.open_source(config(images, lr_dir=str(lr)))
  batch = evaluated(source)[1]
  assert batch["lr"].shape == (4, 6, 5, 3)
  np.testing.assert_array_equal(batch["lr"][:, 0, 0, 0], batch["hr"][:, 0, 0, 0])
  with pytest.raises(UserError, match=r"0\.png should have a low-resolution image of 3x2 .* own is 6x5"):
    evaluated(source, factor=(4, 4))
  (lr / "6.png").unlink()
  with pytest.raises(UserError, match=r"missing, the first is .*6\.png"):
    data.open_source(config(images, lr_dir=str(lr)))


# Folders


def test_a_folder_lists_only_images_by_relative_path(tmp_path):
  for name in (
    "b/1.PNG",
    "a/2.jpg",
    "a/10.bmp",
    "c.tif",
    "a/notes.txt",
    "a/.hidden.png",
    "d.h5",
    ".thumbnails/e.png",
  ):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    if name.endswith(("txt", "h5")):
      (tmp_path / name).write_text("x")
    else:
      Image.new("RGB", (2, 2)).save(tmp_path / name)
  source = data.open_source(config(tmp_path))
  names = ["a/10.bmp", "a/2.jpg", "b/1.PNG", "c.tif"]
  assert [source.name(i) for i in range(len(source))] == [str(tmp_path / name) for name in names]
  two = data.open_source(config(f"{tmp_path}/b:{tmp_path}/a"))
  assert [two.name(i)[-5:] for i in range(3)] == ["1.PNG", "0.bmp", "2.jpg"]
  (tmp_path / "b").rename(tmp_path / "10:30")
  assert len(data.open_source(config(str(tmp_path / "10:30")))) == 1


@pytest.mark.parametrize(("folder", "words"), [("nested", "name=folder"), ("nowhere", "does not exist")])
def test_photographs_are_not_replaced_by_the_embedded_ones(tmp_path, folder, words):
  (tmp_path / "nested" / "album").mkdir(parents=True)
  Image.new("RGB", (2, 2)).save(tmp_path / "nested" / "album" / "IMG_1.JPG")
  with pytest.raises(UserError, match=words):
    data.open_source(config(str(tmp_path / folder), name="photos"))
  assert [path.name for path in tmp_path.iterdir()] == ["nested"]


def test_a_missing_folder_raises_one_sentence(tmp_path):
  with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
    data.open_source(config(tmp_path / "nowhere"))
  with pytest.raises(UserError, match="there is no folder ''"):
    data.open_source(config(""))
  with pytest.raises(UserError, match="has no images"):
    data.open_source(config(tmp_path))


def test_an_unset_variable_raises_one_sentence_with_both_remedies(images, monkeypatch):
  monkeypatch.setenv("PICTURES_PLACE", str(images))
  assert len(data.open_source(config("${PICTURES_PLACE}/"))) == 10
  monkeypatch.delenv("PICTURES_PLACE")
  with pytest.raises(UserError, match=r"PICTURES_PLACE .* is not set.*export PICTURES_PLACE=.* config"):
    data.open_source(config("$PICTURES_PLACE/x"))


def test_images_of_every_mode_become_eight_bits_of_the_channels_asked_for(tmp_path):
  grey16 = np.array([[0, 51400, 65535]], np.uint16)
  Image.fromarray(grey16).save(tmp_path / "grey16.png")
  clear = Image.new("RGBA", (3, 1), (200, 0, 0, 255))
  clear.putpixel((0, 0), (9, 9, 9, 0))
  clear.save(tmp_path / "alpha.png")
  Image.new("RGB", (3, 1), (200, 0, 0)).quantize(4).save(tmp_path / "palette.png")
  turned = Image.new("RGB", (1, 3), (200, 0, 0))
  turned.getexif()[0x0112] = 6
  turned.save(tmp_path / "turned.png", exif=turned.getexif())
  Image.new("1", (3, 1), 1).save(tmp_path / "bits.png")
  Image.new("F", (3, 1), 0.5).save(tmp_path / "float.tif")
  source = data.open_source(config(tmp_path))
  got = {source.name(i).rsplit("/")[-1]: source[i]["hr"] for i in range(6) if "float" not in source.name(i)}
  assert {pixels.shape for pixels in got.values()} == {(1, 3, 3)}
  assert got["grey16.png"][0, :, 0].tolist() == [0, 200, 255]
  assert got["alpha.png"][0, :2].tolist() == [[255, 255, 255], [200, 0, 0]]
  assert got["palette.png"][0, 0].tolist() == [200, 0, 0]
  assert got["turned.png"][0, 0].tolist() == [200, 0, 0]
  assert got["bits.png"][0, 0].tolist() == [255, 255, 255]
  with pytest.raises(CorruptRecord, match=r"float\.tif cannot be used: .*floating point"):
    source[2]
  grey = data.open_source(config(tmp_path, channels=1))
  assert grey[0]["hr"].shape == (1, 3, 1)


def test_the_cache_keeps_what_fits(images):
  source = data.open_source(config(images, cache_mb=1000 / 2**20))  # two images of 360 bytes
  kept = [source[i]["hr"] for i in range(10)]
  assert [source[i]["hr"] is kept[i] for i in range(10)] == [True] * 2 + [False] * 8


# TFDS


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  folder = tmp_path_factory.mktemp("photos")
  data.open_source(config(folder, name="photos"))
  return folder


def test_photos_prepare_themselves(photos):
  source = data.open_source(config(photos, name="photos", split="test"))
  assert sorted(source[i]["hr"].shape for i in range(len(source))) == [(300, 451, 3), (427, 640, 3)]
  assert len(data.open_source(config(photos, name="photos", split="train[:50%]"))) == 6


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


def test_an_unprepared_data_set_names_the_command(tmp_path):
  with pytest.raises(UserError, match=f"run `sr-jax prepare cifar10 --data-dir {tmp_path}` once"):
    data.open_source(config(tmp_path, name="cifar10"))


def test_an_unknown_data_set_raises_one_sentence(tmp_path):
  with pytest.raises(UserError, match="no data set 'nosuch'") as error:
    data.prepare("nosuch", str(tmp_path))
  assert "\n" not in str(error.value)


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


def test_a_crop_of_records_with_their_own_lr_takes_the_same_place_of_both(images):
  """`lr` is hr enlarged from the middle of each 2x2 block, so that a crop's own blocks are its lr."""
  (images / "lr").mkdir()
  (images / "hr").mkdir()
  for path in sorted(images.glob("*.png")):
    hr = np.asarray(Image.open(path))
    Image.fromarray(hr[::2, ::2]).save(images / "lr" / path.name)
    path.rename(images / "hr" / path.name)
  cfg = config(images / "hr", lr_dir=str(images / "lr"), crop=(8, 6))
  batches = take(None, 10, cfg)
  corners = set()
  for batch in batches:
    assert batch["hr"].shape == (4, 8, 6, 3)
    assert batch["lr"].shape == (4, 4, 3, 3)
    for hr, lr in zip(batch["hr"], batch["lr"], strict=True):
      mirrored = hr[0, 0, 2] > hr[0, -1, 2]
      np.testing.assert_array_equal(lr, hr[::2, 1::2] if mirrored else hr[::2, ::2])
      corners.add((int(hr[0, 0, 1]), int(hr[..., 2].min())))
  assert {top % 2 for top, _ in corners} == {left % 2 for _, left in corners} == {0}
  assert {top for top, _ in corners} == {0, 2, 4}
  Image.new("RGB", (9, 12)).save(images / "hr" / "3.png")  # not twice its lr of 5x6
  with pytest.raises(UserError, match=r"12x9 is not 2x2 times its lr of 6x5"):
    take(None, 10, cfg)
  with pytest.raises(
    UserError, match=r"brings its own lr, 2x2 times smaller: make config\.data\.crop a multiple"
  ):
    take(None, 1, config(images / "hr", lr_dir=str(images / "lr"), crop=(7, 6)))
  with pytest.raises(UserError, match=r"own lr, which is not cut or resized with it: set .*centre=\(\)"):
    take(None, 1, config(images / "hr", lr_dir=str(images / "lr"), centre=(8, 6)))


def test_quarter_turns_come_equally_often_and_need_squares(images):
  cfg = config(images, crop=(6, 6), flip=False, turn=True)
  found = []
  for batch in take(None, 100, cfg):
    for hr in batch["hr"].astype(int):
      # The row is in green: it grows down, right, up or left.
      found.append((np.sign(hr[-1, 0, 1] - hr[0, 0, 1]), np.sign(hr[0, -1, 1] - hr[0, 0, 1])))
  counts = [found.count(way) for way in ((1, 0), (0, 1), (-1, 0), (0, -1))]
  assert sum(counts) == 400
  assert min(counts) > 60
  still = joined(take(None, 100, config(images, crop=(6, 6), flip=False)), "hr")
  turned = joined(take(None, 100, cfg), "hr")
  for a, b in zip(still, turned, strict=True):
    assert any(np.array_equal(np.rot90(a, k), b) for k in range(4))
  with pytest.raises(UserError, match=r"config\.data\.crop square"):
    take(None, 1, config(images, crop=(8, 6), turn=True))


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


def test_the_size_of_an_image_is_checked_before_it_is_decoded(tmp_path):
  """A PNG that claims more pixels than it holds: whoever decoded it would fail otherwise."""
  Image.new("1", (8, 8)).save(tmp_path / "claims.png")
  data_of_it = bytearray((tmp_path / "claims.png").read_bytes())
  header = data_of_it[12:29]
  header[4:12] = (13_000).to_bytes(4, "big") * 2
  data_of_it[12:29] = header
  data_of_it[29:33] = zlib.crc32(header).to_bytes(4, "big")
  (tmp_path / "claims.png").write_bytes(bytes(data_of_it))
  with pytest.warns(Image.DecompressionBombWarning), pytest.raises(UnreadableImageError, match="13000x13000"):
    decode(tmp_path / "claims.png", 3)
  with pytest.warns(Image.DecompressionBombWarning), pytest.raises(UserError, match="13000x13000 pixels"):
    take(tmp_path, 1, config(tmp_path, crop=(4, 4)))


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


def test_a_process_without_a_record_gets_a_masked_one(images):
  cfg = config(images)
  parts = [
    list(
      data.test_batches(
        data.open_source(cfg), cfg, batch=4, factor=(2, 2), limit=1, process=process, processes=2
      )
    )
    for process in range(2)
  ]
  assert [part[0]["mask"].tolist() for part in parts] == [[True], [False]]


def test_folders_that_are_links_are_read_too_but_not_around_in_a_circle(images, tmp_path_factory):
  folder = tmp_path_factory.mktemp("linked")
  (folder / "a").symlink_to(images)
  (folder / "back").symlink_to(folder)
  assert records(folder) == list(range(10))


def test_the_first_test_image_is_one_that_is_wanted(images):
  source = data.open_source(config(images))

  class Picky:
    name = source.name

    def __len__(self):
      return len(source)

    def __getitem__(self, i):
      if i < least:
        raise Unwanted(self.name(i), "small")
      return source[i]

  least = 3
  assert data.first_test_batch(Picky(), config(images), factor=(2, 2))["index"].tolist() == [3]
  # A process whose records are all left out has a masked batch.
  least = 9
  parts = [
    list(data.test_batches(Picky(), config(images), batch=4, factor=(2, 2), process=p, processes=2))
    for p in (0, 1)
  ]
  assert [[(b["index"].tolist(), b["mask"].tolist()) for b in part] for part in parts] == [
    [([9], [False])],
    [([9], [True])],
  ]
  least = 10
  with pytest.raises(UserError, match="leaves out all 10 images"):
    data.first_test_batch(Picky(), config(images), factor=(2, 2))


def test_a_part_of_a_tfds_split_that_ends_before_it_begins_raises_a_user_error():
  with pytest.raises(UserError, match=r"train\[5:2\]"):
    data.open_source(config(name="photos", split="train[5:2]"))


@pytest.mark.parametrize("name", ["photos:9.9.9", "photos:x"])
def test_a_version_that_tfds_does_not_have_raises_a_user_error(name):
  with pytest.raises(UserError, match="TFDS knows no data set"):
    data.open_source(config(name=name))


def tiff_of_integers(values) -> io.BytesIO:
  file = io.BytesIO()
  Image.fromarray(np.array(values, np.int32)).save(file, format="TIFF")
  return file


@pytest.mark.parametrize("values", [[[0, 70_000]], [[-1, 5]]])
def test_integers_of_more_than_16_bits_are_refused(values):
  with pytest.raises(UnreadableImageError, match="more than 16 bits"):
    decode(tiff_of_integers(values), 3)


def test_integers_of_32_bits_that_would_all_be_black_are_refused():
  with pytest.raises(UnreadableImageError, match="32 bits end at 255"):
    decode(tiff_of_integers([[0, 255]]), 3)
  np.testing.assert_array_equal(decode(tiff_of_integers([[0, 65535]]), 1)[..., 0], [[0, 255]])
