"""What a run leaves behind is whole, readable and says what happened."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2

from sr_jax import files
from sr_jax.errors import UserError
from sr_jax.images import save_png
from sr_jax.metrics.diversity import std
from sr_jax.metrics.protocol import Protocol
from sr_jax.report import grids, log, plots, roll, tables


def scalars(folder):
  """(file, step, tag, value) of every scalar in the event files: length, crc, bytes, crc per record."""
  found = []
  for path in sorted(folder.glob("*tfevents*")):
    data, at = path.read_bytes(), 0
    while at < len(data):
      size = int.from_bytes(data[at : at + 8], "little")
      event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
      found += [(path.name, event.step, v.tag, v.simple_value) for v in event.summary.value]
      at += size + 16
  return found


def lines(folder):
  return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_reach_json_lines_and_tensorboard(tmp_path):
  with log.Writer(tmp_path, start=0) as writer:
    writer.write(10, {"loss": np.float32(0.5), "gradient_norm": 2.0})
    assert lines(tmp_path)[0]["loss"] == 0.5, "a line is on disk once it is written"
    writer.write(20, {"loss": 0.25, "images_per_second": np.nan})
  first, second = lines(tmp_path)
  assert (first["step"], first["gradient_norm"], second["loss"]) == (10, 2.0, 0.25)
  assert second["images_per_second"] is None
  assert 0 <= second["time"] - first["time"] < 60
  found = [event[1:] for event in scalars(tmp_path / "events")]
  assert found == [(10, "loss", 0.5), (10, "gradient_norm", 2.0), (20, "loss", 0.25)]


def test_a_resumed_run_drops_the_rounds_that_it_does_again_and_a_half_line(tmp_path):
  with log.Writer(tmp_path, start=0) as writer:
    for step in (10, 20, 30):
      writer.write(step, {"loss": 1.0})
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 4')
  with log.Writer(tmp_path, start=20) as writer:
    writer.write(30, {"loss": 2.0})
  assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(10, 1.0), (20, 1.0), (30, 2.0)]
  events = scalars(tmp_path / "events")
  assert [event[1:] for event in events] == [(s, "loss", v) for s, v in ((10, 1), (20, 1), (30, 1), (30, 2))]
  assert len({event[0] for event in events}) == 2, "the events of the killed run are kept"


def test_a_writer_that_is_not_enabled_or_not_used_writes_nothing(tmp_path):
  with log.Writer(tmp_path / "silent", start=0, enabled=False) as writer:
    writer.write(1, {"loss": 1.0})
  with log.Writer(tmp_path / "unused", start=0):
    pass
  assert list(tmp_path.iterdir()) == []


def test_a_profile_that_was_not_made_is_told_where_rounds_were_trained(tmp_path, caplog):
  for first, steps in ((0, [5]), (3, []), (3, [5, 6])):
    with log.Profile(tmp_path, first) as profile:
      for step in steps:
        profile.before(step)
        profile.after(step, ())
  assert caplog.messages == ["No profile was made: round 3 was not among those of this training."]


def test_a_number_that_is_not_finite_is_null(tmp_path):
  with log.Writer(tmp_path, start=0) as writer:
    writer.write(1, {"loss": float("nan")})
  assert lines(tmp_path)[0]["loss"] is None


def test_the_progress_line_tells_round_losses_speed_and_time_left():
  line = log.progress_line(1200, 100_000, {"loss": 0.0123456, "gradient_norm": 3.0}, 24.46, 3725.4)
  assert line == "round   1,200/100,000  loss 0.012346  24.5 images/s  1:02:05 left"
  assert log.progress_line(0, 10, {}, 0.0, float("inf")).endswith("? left")


ROWS = {
  "bicubic": {"psnr": 28.4188, "ssim_y": 0.811261, "lr_mse": 2.8e-4},
  "srim": {"psnr": 30.0, "ssim_y": 0.9, "lr_mse": float("nan"), "std": 31.236, "loss_mse": 0.012346},
}


def test_a_table_is_aligned_and_rounds_by_kind():
  assert tables.table(ROWS).splitlines() == [
    "|         | psnr ↑ | ssim_y ↑ | lr_mse ↓ |   std | loss_mse |",
    "| ------- | -----: | -------: | -------: | ----: | -------: |",
    "| bicubic |  28.42 |   0.8113 | 2.80e-04 |       |          |",
    "| srim    |  30.00 |   0.9000 | diverged | 31.24 |  0.01235 |",
  ]


def test_a_report_is_json_with_all_digits_and_markdown(tmp_path):
  text = tables.write_report(tmp_path / "new", "set5", ROWS, {"step": 7, "command": "sr-jax evaluate"})
  assert (tmp_path / "new" / "set5.md").read_text() == text
  assert tables.table(ROWS) in text
  assert "- command: sr-jax evaluate\n" in text
  content = json.loads((tmp_path / "new" / "set5.json").read_text())
  assert content["meta"]["step"] == 7
  assert content["rows"]["bicubic"] == ROWS["bicubic"]
  assert content["rows"]["srim"]["lr_mse"] is None


def test_a_write_that_fails_leaves_the_old_file_whole_and_nothing_else(tmp_path, monkeypatch):
  tables.write_report(tmp_path, "set5", ROWS, {})
  before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

  def half_written(path, text, **_):
    with path.open("w") as file:
      file.write(text[: len(text) // 2])
    raise OSError("disk full")

  monkeypatch.setattr("pathlib.Path.write_text", half_written)
  with pytest.raises(OSError, match="disk full"):
    tables.write_report(tmp_path, "set5", {"other": {"psnr": 1.0}}, {})
  assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def pixels(path):
  with Image.open(path) as image:
    return np.asarray(image)


def test_a_png_holds_the_rounded_image(tmp_path):
  save_png(tmp_path / "colour.png", np.array([[[-1.0, 0.5, 2.0]]]))
  assert pixels(tmp_path / "colour.png").tolist() == [[[0, 128, 255]]]
  grey = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
  save_png(tmp_path / "grey.png", grey)
  np.testing.assert_array_equal(pixels(tmp_path / "grey.png"), grey[..., 0])


def images(height, width, channels, n):
  random, large = np.random.default_rng(height), (height, width, channels)
  return {
    "input": random.random((height // 4, width // 4, channels), np.float32),
    "bicubic": random.random(large, np.float32),
    "samples": 1.4 * random.random((n, *large), np.float32) - 0.2,
    "truth": random.random(large, np.float32),
  }


def test_a_grid_shows_every_column_once_and_crops_large_images(tmp_path):
  rows = [images(120, 100, 3, 6), images(280, 400, 1, 6)]
  grids.image_grid(rows, tmp_path / "grid.png")
  grid = pixels(tmp_path / "grid.png")
  gap, cell, columns = grids.MARGIN, grids.CELL, 8
  assert grid.shape[1:] == (gap + columns * (cell + gap), 3)
  below = (120 + gap) + (cell + gap)
  heading = grid.shape[0] - below
  assert 15 < heading < 40
  lefts = [gap + i * (cell + gap) for i in range(columns)]
  for top, height, width in ((heading, 120, 100), (heading + 120 + gap, cell, cell)):
    cells = [grid[top : top + height, left : left + width] for left in lefts]
    assert len({one.tobytes() for one in cells}) == columns
  assert all((grid[:heading, left : left + cell] < 128).any() for left in lefts), "a heading per column"
  truth = np.floor(rows[1]["truth"][12:268, 72:328] * 255 + 0.5)
  np.testing.assert_array_equal(cells[-1], np.broadcast_to(truth, (cell, cell, 3)))


def test_a_grid_enlarges_the_input_without_interpolation_and_scales_the_deviation(tmp_path):
  row = images(40, 80, 3, 2)
  grids.image_grid([row], tmp_path / "grid.png")
  grid = pixels(tmp_path / "grid.png")
  cells = grid[-40 - grids.MARGIN : -grids.MARGIN]
  enlarged = np.floor(row["input"].repeat(4, 0).repeat(4, 1) * 255 + 0.5)
  np.testing.assert_array_equal(cells[:, grids.MARGIN : grids.MARGIN + 80], enlarged)
  truth_left = grid.shape[1] - grids.MARGIN - 80
  np.testing.assert_array_equal(cells[:, truth_left : truth_left + 80], np.floor(row["truth"] * 255 + 0.5))
  deviation = row["samples"].clip(0, 1).std(0, ddof=1).mean(-1)
  scaled = (deviation / np.percentile(deviation, 99)).clip(0, 1)
  expected = np.floor(scaled * 255 + 0.5)[..., None]
  assert any(
    np.abs(cells[:, left : left + 80].astype(float) - expected).max() <= 1 for left in range(truth_left - 80)
  )


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_deviation_that_is_shown_is_the_metric(n):
  row = images(8, 8, 3, n)
  protocol = Protocol(None, border=0, luma="bt601")
  (shown,), _ = grids.deviation([row])
  (measured,) = std(jnp.asarray(row["samples"])[:, None], {}, protocol)
  assert 255 * shown.mean() == pytest.approx(float(measured), rel=1e-5)


def test_a_grid_without_rows_is_not_written(tmp_path):
  grids.image_grid([], tmp_path / "none.png")
  assert list(tmp_path.iterdir()) == []


def test_a_labelled_grid_shows_all_cells_in_their_order_at_the_size_of_the_last(tmp_path):
  random = np.random.default_rng(0)
  rows = [{name: random.random((size, size, 3)) for name, size in (("a", 8), ("b", 40))} for _ in range(2)]
  grids.labelled_grid(rows, tmp_path / "grid.png")
  grid, gap = pixels(tmp_path / "grid.png"), grids.MARGIN
  for top, row in zip((-2 * (40 + gap), -40 - gap), rows, strict=True):
    cells = grid[top : top + 40]
    for left, image in ((gap, row["a"].repeat(5, 0).repeat(5, 1)), (2 * gap + 40, row["b"])):
      np.testing.assert_array_equal(cells[:, left : left + 40], np.floor(image * 255 + 0.5))


def test_a_grid_of_one_sample_has_no_deviation(tmp_path):
  grids.image_grid([images(120, 160, 3, 1)], tmp_path / "one.png")
  assert pixels(tmp_path / "one.png").shape[1] == grids.MARGIN + 4 * (160 + grids.MARGIN)


def test_a_small_image_is_enlarged_by_a_whole_number_and_no_other(tmp_path):
  for size, shown in ((8, 64), (24, 48), (33, 33), (64, 64)):
    image = np.random.default_rng(0).random((size, size, 3))
    grids.labelled_grid([{"a": image}], tmp_path / "grid.png")
    cell = pixels(tmp_path / "grid.png")[-shown - grids.MARGIN : -grids.MARGIN, grids.MARGIN :][:, :shown]
    bytes_ = np.floor(image * 255 + 0.5)
    np.testing.assert_array_equal(cell, bytes_.repeat(shown // size, 0).repeat(shown // size, 1))


def test_a_grid_of_samples_has_a_named_row_for_each_model_and_room_for_those_it_did_not_draw(tmp_path):
  one, many = images(64, 64, 1, 1), images(64, 64, 1, 5)
  grids.samples_grid({"one": one, "many": many}, tmp_path / "grid.png")
  grid, gap = pixels(tmp_path / "grid.png"), grids.MARGIN
  lefts = [grid.shape[1] - (i + 1) * (64 + gap) for i in range(8)][::-1]
  assert lefts[0] > 20, "the names stand to the left"
  for image, top in ((one, -2 * (64 + gap)), (many, -64 - gap)):
    row = grid[grid.shape[0] + top :][:64]
    assert (row[:, : lefts[0]] < 128).any(), "a name"
    cells = [row[:, left : left + 64, 0] for left in lefts]
    drawn = [*image["samples"], *[np.ones((64, 64, 1))] * (5 - len(image["samples"]))]
    shown = [image["input"].repeat(4, 0).repeat(4, 1), image["bicubic"], *drawn, image["truth"]]
    for cell, expected in zip(cells, shown, strict=True):
      np.testing.assert_array_equal(cell, np.floor(expected[..., 0].clip(0, 1) * 255 + 0.5))
  grids.samples_grid({}, tmp_path / "none.png")
  assert not (tmp_path / "none.png").exists()


def test_each_models_deviation_stands_in_its_own_row(tmp_path):
  still, wild = images(64, 64, 1, 3), images(64, 64, 1, 3)
  still["samples"] = np.broadcast_to(still["samples"][:1], still["samples"].shape)
  grids.samples_grid({"still": still, "wild": wild}, tmp_path / "grid.png", deviations=True)
  grid, gap = pixels(tmp_path / "grid.png"), grids.MARGIN
  left = grid.shape[1] - 2 * (64 + gap)  # before the truth
  rows = [grid[grid.shape[0] + top :][:64, left : left + 64] for top in (-2 * (64 + gap), -64 - gap)]
  assert np.median(rows[0]) == 0 < np.median(rows[1])


def test_a_curve_that_rises_is_drawn_rising(tmp_path):
  plots.plot_curves({"a": {"x": [(0, 0.0), (10, 1.0)]}}, tmp_path / "curve.png")
  drawn = pixels(tmp_path / "curve.png").astype(int)
  red, green, blue = (int(plots.COLOURS[0][i : i + 2], 16) for i in (1, 3, 5))
  y, x = np.nonzero((np.abs(drawn - [red, green, blue]) < 8).all(axis=-1))
  inside = y < drawn.shape[0] * 0.7  # without the legend below
  assert np.corrcoef(x[inside], y[inside])[0, 1] < -0.9


def test_points_of_the_swiss_roll_lie_on_its_density():
  assert roll.place(np.array([[0.0, roll.REACH], [roll.REACH, 0.0]])) == [
    (roll.PIXELS / 2, 0),
    (roll.PIXELS, roll.PIXELS / 2),
  ]


def test_a_rounds_metrics_count_by_its_images():
  rounds = [{"loss": np.float32(loss), "images": np.float32(n)} for loss, n in ((1, 0), (3, 4), (6, 8))]
  assert log.mean_metrics(rounds, 2) == ({"loss": 5.0}, 4.0)


def test_a_comparison_shows_every_models_sample_between_input_and_truth(tmp_path):
  rng = np.random.default_rng(0)
  shared = {"input": rng.random((4, 4, 3)), "truth": rng.random((16, 16, 3))}
  models = {name: [shared | {"samples": np.full((2, 16, 16, 3), v)}] for name, v in (("a", 0.0), ("b", 1.0))}
  grids.comparison_grid(models, tmp_path / "grid.png")
  grid = np.asarray(Image.open(tmp_path / "grid.png"))
  cells = {(0, 0, 0), (255, 255, 255)} & {tuple(pixel) for pixel in grid[-12].tolist()}
  assert len(cells) == 2
  truth = np.floor(shared["truth"] * 255 + 0.5).astype(np.uint8).repeat(4, 0).repeat(4, 1)
  assert any(np.array_equal(grid[-68:-4, i : i + 64], truth) for i in range(grid.shape[1]))
  grids.comparison_grid({"a": []}, tmp_path / "none.png")
  assert not (tmp_path / "none.png").exists()


def test_models_share_the_images_of_equal_place_whoever_kept_others(tmp_path):
  def kept(*places):
    return [{"place": np.int32(place), "truth": np.full((2, 2, 3), place)} for place in places]

  old = [{"truth": np.full((2, 2, 3), i)} for i in range(3)]  # of a run that did not note the place
  found = grids.shared_images({"one process": kept(0, 1, 2), "the first of two": kept(0, 2, 4), "old": old})
  assert {name: [int(image["truth"][0, 0, 0]) for image in own] for name, own in found.items()} == {
    name: [0, 2] for name in ("one process", "the first of two", "old")
  }
  assert grids.shared_images({}) == {}


@pytest.mark.parametrize("content", [b"", b"PK no archive"])
def test_damaged_images_of_an_evaluation_raise_a_user_error(tmp_path, content):
  (tmp_path / "images.npz").write_bytes(content)
  with pytest.raises(UserError, match=r"is damaged .*evaluate that run again"):
    grids.read_images(tmp_path / "images.npz")


def test_text_is_utf8_whatever_the_locale_and_names_keep_their_bytes(tmp_path):
  files.write_text(tmp_path / "a.md", "psnr ↑ of \udcff")
  assert (tmp_path / "a.md").read_bytes() == "psnr ↑ of ".encode() + b"\xff"
  assert files.read_text(tmp_path / "a.md") == "psnr ↑ of \udcff"
