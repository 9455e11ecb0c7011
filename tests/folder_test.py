"""Folders of images: which files are read, of what modes and sizes, and what is refused."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from small_data import config, records, take
from sr_jax import data
from sr_jax.configs import base
from sr_jax.data.sources import CorruptRecord, summary
from sr_jax.errors import UserError
from sr_jax.images import UnreadableImageError, decode


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


def test_folders_that_are_links_are_read_too_but_not_around_in_a_circle(images, tmp_path_factory):
  folder = tmp_path_factory.mktemp("linked")
  (folder / "a").symlink_to(images)
  (folder / "back").symlink_to(folder)
  assert records(folder) == list(range(10))


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


def test_small_files_are_left_out(images):
  sizes = sorted(path.stat().st_size for path in images.iterdir())
  kept = records(images, min_bytes=sizes[5])
  assert len(kept) == sum(size >= sizes[5] for size in sizes)


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


def test_the_cache_keeps_what_fits(images):
  source = data.open_source(config(images, cache_mb=1000 / 2**20))  # two images of 360 bytes
  kept = [source[i]["hr"] for i in range(10)]
  assert [source[i]["hr"] is kept[i] for i in range(10)] == [True] * 2 + [False] * 8


def test_of_several_folders_each_has_its_part_and_its_own_low_resolution(tmp_path):
  for k in range(2):
    for kind in ("hr", "lr"):
      (tmp_path / f"{kind}{k}").mkdir()
      for i in range(4):
        Image.new("RGB", (4, 4), (10 * k + i, 0, 0)).save(tmp_path / f"{kind}{k}" / f"{i}.png")
  hr, lr = (f"{tmp_path}/{kind}0:{tmp_path}/{kind}1" for kind in ("hr", "lr"))
  assert records(hr, split="[:3]") == [0, 1, 2, 10, 11, 12]
  assert records(hr, split="[3:]") == [3, 13]
  source = data.open_source(config(hr, lr_dir=lr))
  assert all(source[i]["lr"][0, 0, 0] == source[i]["hr"][0, 0, 0] for i in range(8))


def test_a_config_trains_on_pairs_of_two_folders_and_its_log_tells_them_from_images_alone(tmp_path):
  for kind, size in (("hr", 8), ("lr", 4)):
    (tmp_path / kind).mkdir()
    for i in range(4):
      Image.new("RGB", (size, size), (i, 0, 0)).save(tmp_path / kind / f"{i}.png")
  keys = base.get_config().data
  keys.update({"name": "folder", "dir": str(tmp_path / "hr"), "lr_dir": str(tmp_path / "lr"), "crop": (4, 4)})
  pairs = data.open_source(keys)
  batch = next(data.train_batches(pairs, keys, seed=0, batch=4, start=0))
  assert batch["lr"].shape == (4, 2, 2, 3)
  np.testing.assert_array_equal(batch["lr"][:, 0, 0], batch["hr"][:, 0, 0])
  keys.lr_dir = ""
  alone = data.open_source(keys)
  assert summary(pairs).replace(", with their low-resolution images", "") == summary(alone) != summary(pairs)
