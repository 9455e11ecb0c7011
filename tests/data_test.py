"""Sources and batches: what a record is, which rows a batch has, what happens to a bad file."""

import itertools

import numpy as np
import pytest
from PIL import Image

from small_data import config, evaluated, records, take

# Not `from sr_jax.data import test_batches`: pytest would take it for a test.
from sr_jax import data
from sr_jax.data.sources import Unwanted
from sr_jax.errors import UserError


def joined(batches, key):
  return np.concatenate([b[key] for b in batches])


def same(a, b):
  assert a.keys() == b.keys()
  for key in a:
    np.testing.assert_array_equal(a[key], b[key])
    assert a[key].dtype == b[key].dtype


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


def test_the_splits_of_the_swiss_roll_have_points_of_their_own():
  points = [set(data.open_source(roll(split=s)).hr.ravel().tolist()) for s in ("train", "validation", "test")]
  assert all(len(a & b) < 100 for a, b in itertools.combinations(points, 2))


def test_records_in_memory_are_not_cropped():
  with pytest.raises(UserError, match="crop"):
    take("", 1, config(name="swiss_roll", channels=1))


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


def test_an_own_low_resolution_image_is_mirrored_with_its_image(images):
  cfg = config(images, lr_dir=str(images), crop=())
  batches = take(images, 10, cfg)
  np.testing.assert_array_equal(joined(batches, "hr"), joined(batches, "lr"))
  assert len(np.unique(joined(batches, "lr")[:, 0, 0, 2])) == 2


def test_an_own_low_resolution_image_is_turned_with_its_image_or_refused(images):
  batches = take(None, 10, config(images, lr_dir=str(images), crop=(6, 6), turn=True))
  np.testing.assert_array_equal(joined(batches, "hr"), joined(batches, "lr"))
  (images / "lr").mkdir()
  for path in images.glob("*.png"):
    Image.fromarray(np.asarray(Image.open(path))[::2]).save(images / "lr" / path.name)
  for name in ("hr", "lr"):
    (images / name).mkdir(exist_ok=True)
  for path in images.glob("*.png"):
    path.rename(images / "hr" / path.name)
  pairs = config(images / "hr", lr_dir=str(images / "lr"), crop=(6, 4), flip=False)
  for batch in take(None, 10, pairs):
    np.testing.assert_array_equal(batch["lr"], batch["hr"][:, ::2])  # factors of their own in both directions
  with pytest.raises(UserError, match=r"own lr is 2x1 times smaller: set config\.data\.turn=False"):
    take(None, 1, config(images / "hr", lr_dir=str(images / "lr"), crop=(6, 6), turn=True))


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


def test_whole_images_of_two_sizes_raise_one_sentence(images):
  assert take(images, 1, config(images, crop=()))[0]["hr"].shape == (4, 12, 10, 3)
  Image.new("RGB", (9, 12)).save(images / "odd.png")
  with pytest.raises(UserError, match=r"odd\.png has hr of 12x9, others have 12x10"):
    take(images, 6, config(images, crop=()))


def test_a_batch_that_processes_cannot_share_raises_one_sentence(images):
  with pytest.raises(UserError, match="4 cannot be divided among 3"):
    take(images, 1, processes=3)


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


def test_each_test_record_comes_once_and_in_order(images):
  batches = evaluated(data.open_source(config(images)))
  assert [b["mask"].tolist() for b in batches] == [[True] * 4, [True] * 4, [True] * 2]
  assert joined(batches, "index").tolist() == list(range(10))
  assert joined(batches, "hr")[:, 0, 0, 0].tolist() == list(range(10))


def test_processes_share_the_test_records(images):
  source = data.open_source(config(images))
  parts = [joined(evaluated(source, process=p, processes=2, limit=7), "index").tolist() for p in range(2)]
  assert parts == [[0, 2, 4, 6], [1, 3, 5, 5]]  # the last 5 is padding


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
