"""Samples in files, scored by NTIRE 2021's protocol."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import small_runs
from sr_jax import cli
from sr_jax import score as scoring
from sr_jax.images import clear_samples, read_image, save_samples
from sr_jax.metrics import METRICS, Protocol, measure
from sr_jax.metrics.diversity import diversity_scores
from sr_jax.ops import Operator, make_operator, to_float, to_uint8
from sr_jax.report.tables import read_per_image

SAMPLES = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """Truths, their samples by number, the same by name, and given inputs that are two grey levels brighter."""
  folder = tmp_path_factory.mktemp("score")
  truth = small_runs.write_images(folder / "truth", 2)
  operator = make_operator(scoring.default_config())
  rng = np.random.default_rng(0)
  for name in ("places", "names", "lr"):
    (folder / name).mkdir()
  for i in range(2):
    hr = read_image(truth / f"{i}.png", 3).astype(np.float32)
    drawn = np.clip(hr + rng.normal(size=(SAMPLES, *hr.shape)) * 12, 0, 255).round().astype(np.uint8)
    save_samples(folder / "places", i, drawn)
    for j in range(SAMPLES):
      shutil.copy(folder / "places" / f"{i:06d}_sample{j:05d}.png", folder / "names" / f"{i}_sample{j}.png")
    low = np.asarray(to_uint8(operator.degrade(jnp.asarray(hr / 255))))
    assert low.max() < 254
    Image.fromarray(low + 2).save(folder / "lr" / f"{i}.png")
  return folder


def rows(out):
  return json.loads((out / "evaluation" / "table.json").read_text())["rows"]


def score(folder, truth, *words):
  return cli.main(["score", str(folder), f"--truth={truth}", *map(str, words)])


def test_s_n_is_how_much_better_the_best_of_each_pixel_is_than_the_best_image():
  maps = np.random.default_rng(0).random((4, 2, 5, 6)).astype(np.float32)
  found = np.asarray(diversity_scores(jnp.asarray(maps)))
  for n in range(1, 5):
    for b in range(2):
      whole = min(maps[i, b].mean() for i in range(n))
      local = np.mean([[min(maps[i, b, y, x] for i in range(n)) for x in range(6)] for y in range(5)])
      assert found[n - 1, b] == pytest.approx(100 * (whole - local) / whole, rel=1e-4, abs=1e-4)
  # Two samples, each right in one half: the best of each pixel is right everywhere.
  halves = jnp.stack([jnp.eye(2)[i][:, None] * jnp.ones((2, 4)) for i in range(2)])
  assert diversity_scores(halves)[-1] == 100


def test_equal_samples_and_perfect_ones_have_no_diversity():
  one = np.random.default_rng(0).random((1, 8, 8)).astype(np.float32)
  assert not np.asarray(diversity_scores(jnp.asarray(np.repeat(one, 4, axis=0)))).any()
  assert not np.asarray(diversity_scores(jnp.zeros((4, 8, 8)))).any()


def test_a_folder_is_scored_as_the_arrays_are_by_place_or_by_name(folders, tmp_path, capsys):
  config = scoring.default_config()
  old = tmp_path / "places" / "evaluation" / "samples.png"  # of what was evaluated there before
  old.parent.mkdir(parents=True)
  old.touch()
  assert score(folders / "places", folders / "truth", f"--out={tmp_path / 'places'}") == 0
  assert not old.exists()
  text = capsys.readouterr().out
  assert score(folders / "names", folders / "truth", f"--out={tmp_path / 'names'}") == 0
  capsys.readouterr()
  found = rows(tmp_path / "places")
  assert {row.replace("names", "places"): v for row, v in rows(tmp_path / "names").items()} == found
  assert list(found) == ["places", "places, best of 3", "places, mean of 3"]
  images, each, _ = read_per_image(tmp_path / "places" / "evaluation")
  assert images == ["0.png", "1.png"]
  names = ("lr_psnr_truth", "lr_psnr_worst", *config.eval.metrics)
  protocol = Protocol(make_operator(config), 0, "bt601")
  once = jax.jit(lambda samples, batch: measure(names, samples, batch, protocol))
  expected = []
  for i in range(2):
    hr = to_float(read_image(folders / "truth" / f"{i}.png", 3))[None]
    drawn = [read_image(folders / "names" / f"{i}_sample{j}.png", 3) for j in range(SAMPLES)]
    batch = {"hr": hr, "lr": protocol.operator.degrade(hr)}
    expected.append(once(to_float(np.stack(drawn))[:, None], batch))
  for name in names:
    ours = [float(one[name][0]) for one in expected]
    np.testing.assert_allclose(each["places"][name], ours, rtol=1e-4)
    assert found["places"][name] == pytest.approx(np.mean(ours), rel=1e-4)
  assert found["places"]["lr_psnr_worst"] < found["places"]["lr_psnr_truth"]
  # The first n samples' scores end with those of all.
  firsts = json.loads((tmp_path / "places" / "evaluation" / "best.json").read_text())["rows"]
  curve = [values["s_n_mse"] for values in firsts.values()]
  assert curve[0] == pytest.approx(0, abs=1e-3)
  assert curve[-1] == pytest.approx(found["places"]["s_n_mse"])
  assert curve[1] > 10
  assert firsts["of the first 3"]["mse"] <= firsts["of the first 1"]["mse"]
  assert "of the first 3" in text
  assert "fails the challenge's 45 dB" in text
  assert "without weights" in text


def test_samples_by_place_are_told_from_truths_whose_own_names_are_numbers(folders, tmp_path, capsys):
  (tmp_path / "truth").mkdir()
  for i in range(2):  # counted from 1
    shutil.copy(folders / "truth" / f"{i}.png", tmp_path / "truth" / f"{i + 1:06d}.png")
  assert score(folders / "places", tmp_path / "truth", f"--out={tmp_path / 'numbers'}") == 0
  assert score(folders / "places", folders / "truth", f"--out={tmp_path / 'names'}") == 0
  assert rows(tmp_path / "numbers") == rows(tmp_path / "names")
  capsys.readouterr()


def test_consistency_is_measured_against_the_given_and_the_reduced_truth(folders, tmp_path, capsys):
  (tmp_path / "samples").mkdir()
  for i in range(2):
    shutil.copy(folders / "truth" / f"{i}.png", tmp_path / "samples")
  words = (f"--lr={folders / 'lr'}", f"--out={tmp_path / 'out'}")
  assert score(tmp_path / "samples", folders / "truth", *words) == 0
  assert "passes the challenge's 45 dB" in capsys.readouterr().out
  found = rows(tmp_path / "out")
  assert list(found) == ["samples"], "one sample has no best and no mean"
  assert found["samples"]["lr_psnr_truth"] == pytest.approx(150)
  assert found["samples"]["lr_psnr_given"] == pytest.approx(20 * np.log10(255 / 2), abs=0.05)


def test_both_are_rounded_as_the_operator_rounds():
  rng = np.random.default_rng(0)
  hr, drawn = rng.random((1, 16, 16, 3)), rng.random((1, 1, 16, 16, 3))
  operator = make_operator(scoring.default_config())
  batch = {"hr": jnp.asarray(hr, jnp.float32), "lr": jnp.zeros((1, 4, 4, 3))}
  ours, theirs = (
    np.asarray(to_uint8(operator.degrade(v / 255))) for v in (np.round(drawn * 255)[0], hr * 255)
  )
  expected = 20 * np.log10(255) - 10 * np.log10(np.mean((ours.astype(float) - theirs) ** 2))
  value = METRICS["lr_psnr_truth"].fn(jnp.asarray(drawn, jnp.float32), batch, Protocol(operator, 2, "bt601"))
  assert float(value[0, 0]) == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (lambda folder: (folder / "000001_sample00001.png").unlink(), "000001_sample00001.png is missing"),
    (lambda folder: [p.unlink() for p in folder.glob("000001*")], "000001_sample00000.png is missing"),
    (lambda folder: Image.new("RGB", (9, 9)).save(folder / "000002_sample00000.png"), "belongs to no truth"),
    (lambda folder: Image.new("RGB", (9, 9)).save(folder / "000001_sample00002.png"), "has 9x9 pixels"),
    (lambda folder: (folder / "000001_sample00002.png").write_text("no"), "cannot be read"),
    (
      lambda folder: shutil.copy(folder / "000001_sample00000.png", folder / "000001.png"),
      "both sample 0 of",
    ),
    (lambda folder: Image.new("RGB", (9, 9)).save(folder / "000001_sample00003.JPG"), "is no PNG file"),
    (
      lambda folder: (folder / "000001_sample00002.png").rename(folder / "000001_sample9876543210.png"),
      "000000_sample00003.png is missing",
    ),
    (shutil.rmtree, "is no folder"),
    (lambda folder: [p.unlink() for p in folder.iterdir()], "000000_sample00000.png is missing"),
  ],
)
def test_files_that_are_missing_or_of_another_size_raise_one_sentence(
  folders, tmp_path, capsys, change, words
):
  shutil.copytree(folders / "places", tmp_path / "samples")
  change(tmp_path / "samples")
  assert score(tmp_path / "samples", folders / "truth", f"--out={tmp_path / 'out'}") == 2
  error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sr-jax: ")]
  assert len(error) == 1
  assert words in error[0]
  assert not (tmp_path / "out").exists()


def test_other_mistakes_raise_one_sentence(folders, tmp_path, capsys):
  samples = folders / "places"
  for words, expected in (
    ((tmp_path / "gone",), f"--truth {tmp_path / 'gone'} is no folder"),
    ((folders / "truth", f"--lr={tmp_path / 'gone'}"), f"--lr {tmp_path / 'gone'} is no folder"),
    ((folders / "truth", "--config.eval.luma=bt2020"), "config.eval.luma"),
    ((folders / "truth", "--config.eval.metrics=('embedding',)"), "config.eval.embedding.function"),
    (
      (folders / "truth", "--config.eval.metrics=('embedding',)", "--config.eval.embedding.function=gone:f"),
      "gone:f",
    ),
    ((folders / "truth", f"--lr={tmp_path}"), "low-resolution images are missing"),
    ((folders / "truth", f"--lr={folders / 'truth'}"), "should have a low-resolution image of 6x8"),
    ((folders / "truth", "--config.train.rounds=3"), "no option of score"),
    ((folders / "truth", "--config.eval.limit=3"), "no option of score"),
    ((folders / "truth", "--config.eval.lpips.heads=x.npz"), "config.eval.lpips.backbone"),
    ((folders / "truth", f"--out={folders / 'truth' / '0.png'}"), "cannot be written"),
  ):
    assert score(samples, *words) == 2
    assert expected in capsys.readouterr().err


def test_a_run_keeps_its_own_evaluation(folders, tmp_path, capsys):
  (tmp_path / "checkpoints").mkdir()
  assert score(folders / "places", folders / "truth", f"--out={tmp_path}") == 2
  assert "is a run's" in capsys.readouterr().err
  assert cli.main(["evaluate", f"--workdir={tmp_path / 'other'}", f"--out={tmp_path}"]) == 2
  assert "is a run's" in capsys.readouterr().err
  assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_saved_samples_of_images_that_are_measured_no_longer_are_deleted_and_nothing_else(tmp_path):
  for number in range(3):
    save_samples(tmp_path, number, np.zeros((2, 4, 4, 3), np.uint8))
  (tmp_path / "mine_sample00000.png").touch()
  clear_samples(tmp_path, {1})
  left = ["000001_sample00000.png", "000001_sample00001.png", "mine_sample00000.png"]
  assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_saved_samples_replace_all_earlier_ones_of_their_image_alone(tmp_path):
  for number, n in ((0, 3), (1, 2), (0, 1)):
    save_samples(tmp_path, number, np.full((n, 2, 2, 3), n, np.uint8))
  names = ["000000_sample00000.png", "000001_sample00000.png", "000001_sample00001.png"]
  assert sorted(path.name for path in tmp_path.iterdir()) == names
  assert read_image(tmp_path / names[0], 3)[0, 0, 0] == 1


def test_a_truth_that_is_no_multiple_of_the_factor_is_cut_as_its_samples_are(tmp_path):
  for name in ("truth", "samples"):
    (tmp_path / name).mkdir()
  pixels = np.random.default_rng(0).integers(0, 256, (22, 27, 3), dtype=np.uint8)
  Image.fromarray(pixels).save(tmp_path / "truth" / "a.png")
  for size in ((22, 27), (20, 24)):
    Image.fromarray(pixels[: size[0], : size[1]]).save(tmp_path / "samples" / "a.png")
    assert score(tmp_path / "samples", tmp_path / "truth", f"--out={tmp_path / 'out'}") == 0
    assert rows(tmp_path / "out")["samples"]["psnr"] == pytest.approx(100)


def test_the_documents_tell_the_convention_of_every_metric():
  text = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
  assert [name for name in METRICS if f"`{name}`" not in text] == []


def test_the_operator_is_ntires():
  assert make_operator(scoring.default_config()) == Operator(border="symmetric", rounding="twice")
