"""Evaluations of one test set beside each other."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import small_runs
from sr_jax import cli
from sr_jax.compare import compare, paired
from sr_jax.configs import base
from sr_jax.errors import UserError
from sr_jax.images import SAME_IMAGE, fingerprint
from sr_jax.report.tables import read_per_image, write_per_image, write_report

SHIFT = 0.3
RNG = np.random.default_rng(0)
PSNR, STD = RNG.normal(30, 3, 40), RNG.random(40)
CHANGE = SHIFT + RNG.normal(0, 0.2, 40)
CHANGE[17] = -4


NAMES = tuple(f"{i}.png" for i in range(40))


def write(folder, rows, consistency="none", names=NAMES, first="", fingerprints=None, **settings):
  """What an evaluation of a method "m" leaves, with rows {kind: {column: [N]}}."""
  config = base.get_config()
  config.eval.metrics = ("psnr", "std")
  config.eval.update_from_flattened_dict(settings)
  rows = {"bicubic": {"psnr": np.zeros(len(names))}, **{f"m{kind}": values for kind, values in rows.items()}}
  means = {row: {column: float(v.mean()) for column, v in values.items()} for row, values in rows.items()}
  meta = {
    "operator": f"Operator(factor=(4, 4), consistency='{consistency}', antialias=True)",
    "single": {first.removeprefix(", "): f"m{first}"},
    "eval": json.loads(config.eval.to_json()),
  }
  write_report(folder / "evaluation", "table", means, meta)
  write_per_image(folder / "evaluation", names, rows, fingerprints or {})
  return str(folder)


@pytest.fixture
def runs(tmp_path):
  best = {"psnr": PSNR + 1}
  return [
    write(tmp_path / "a", {"": {"psnr": PSNR, "loss_x": PSNR}, ", best of 10": best}),
    write(tmp_path / "b", {"": {"psnr": PSNR + CHANGE}, ", best of 10": best}, consistency="project"),
  ]


def test_the_interval_of_a_known_shift_covers_it_has_the_right_width_and_is_deterministic():
  rng = np.random.default_rng(1)
  covered, widths = 0, []
  for trial in range(40):
    ours = rng.normal(30, 3, (60, 1))
    theirs = ours + SHIFT + rng.normal(0, 0.2, (60, 1))
    mean, low, high = paired(theirs - ours, seed=trial)
    covered += int(low[0] < SHIFT < high[0])
    assert low < mean < high
    widths.append(high - low)
  assert covered >= 35
  # 1.96 standard errors on either side: those of the differences, not of the values.
  assert np.mean(widths) == pytest.approx(2 * 1.96 * 0.2 / np.sqrt(60), rel=0.07)
  assert paired(theirs - ours, seed=trial) == (mean, low, high)
  assert paired(theirs - ours, seed=trial + 1) != (mean, low, high)


def test_one_sample_is_compared_with_the_best_and_the_mean_of_many(tmp_path):
  best, mean = PSNR + CHANGE, PSNR - CHANGE
  many = {"": {"psnr": PSNR}, ", best of 3": {"psnr": best}, ", mean of 3": {"psnr": mean}}
  one = write(tmp_path / "one", {"": {"psnr": PSNR}})
  several = write(tmp_path / "many", many)
  means, differences, _ = compare([one, several]).split("\n# ")
  assert re.findall(r"^\| (\w+)", means, re.MULTILINE) == ["one", "many", "many", "many"]
  for name, sign in ((", best of 3", 1), (", mean of 3", -1)):
    assert f"| many{name} | {sign * CHANGE.mean():+.2f} [" in differences
  assert f"| one, to many, mean of 3 | {CHANGE.mean():+.2f} [" in compare([several, one])
  other = write(tmp_path / "other", {"": {"psnr": PSNR}, ", mean of 5": {"psnr": PSNR}})
  assert "mean of" not in compare([several, other])


def test_means_differences_and_the_images_that_differ_most_are_told(runs):
  text = compare(runs, count=2)
  means, differences, most = text.split("\n# ")
  assert f"| a, best of 10 | {PSNR.mean() + 1:6.2f} |" in means
  assert "bicubic" not in text
  assert "loss_x" not in text, "not of both"
  mean, low, high = (float(v[0]) for v in paired(CHANGE[:, None], 0))
  assert f"| b             | {mean:+.2f} [{low:+.2f}, {high:+.2f}] |" in differences
  assert "| b, best of 10 | +0.00 [+0.00, +0.00] |" in differences
  named = re.findall(r"^\| (\d+)\.png", most, re.MULTILINE)
  assert named == [str(i) for i in np.argsort(-np.abs(CHANGE))[:2]]
  assert f"| {PSNR[17]:.2f} | {PSNR[17] - 4:.2f} |      -4.00 |" in most
  assert compare(runs, count=2) == text


@pytest.mark.parametrize("side", [48, 1200])
def test_a_fingerprint_tells_compression_and_single_grey_levels_from_rounding(side):
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "JPEG", quality=95)
  compressed = np.asarray(Image.open(file))
  own, floats = fingerprint(pixels), pixels / np.float32(255)
  assert abs(fingerprint(floats + np.float32(1e-7)) - own) < SAME_IMAGE
  assert abs(fingerprint(compressed) - own) > 10 * SAME_IMAGE
  assert abs(fingerprint(pixels[::-1]) - own) > 10 * SAME_IMAGE
  # By a single grey level here and there; a few of such changes may leave the number as it is.
  others = [fingerprint(pixels + (rng.random(pixels.shape) < 0.5)) for _ in range(5)]
  assert np.median(np.abs(np.array(others) - own)) > 2 * SAME_IMAGE


@pytest.mark.parametrize("kind", ["truth", "input"])
def test_other_pictures_of_the_same_names_are_no_pairs(tmp_path, kind):
  others = [*range(39), 7]
  fingerprints = {"a": {kind: range(40)}, "b": {kind: others}, "unknown": {}}
  a, b, unknown = (write(tmp_path / n, {"": {"psnr": PSNR}}, fingerprints=p) for n, p in fingerprints.items())
  with pytest.raises(UserError, match=f"1 of 40 images have another {kind} in a than in b, 39.png for one"):
    compare([a, b])
  assert compare([a, unknown])


def test_names_of_images_reach_the_terminal_without_their_control_characters(tmp_path, capsys):
  names = tuple(f"\x1b[2J\n{i}.png" for i in range(40))
  folders = [write(tmp_path / name, {"": {"psnr": PSNR}}, names=names) for name in "ab"]
  assert cli.main(["compare", *folders]) == 0
  shown = capsys.readouterr().out
  assert "\x1b" not in shown
  assert r"| \x1b[2J\n0.png |" in shown


def test_metrics_of_a_set_of_samples_are_compared_only_between_sets_of_equal_size(tmp_path):
  rows = {"": {"psnr": PSNR, "std": STD, "class_best": STD}}
  a, b = write(tmp_path / "a", rows), write(tmp_path / "b", rows)
  assert "std" in compare([a, b])
  fewer = compare([a, write(tmp_path / "c", rows, samples=5)])
  assert "std" not in fewer
  assert "class_best" not in fewer


def test_an_image_that_diverged_is_named_first_and_the_others_are_still_ordered(tmp_path):
  broken = PSNR + CHANGE
  broken[3] = np.nan
  folders = [write(tmp_path / name, {"": {"psnr": v}}) for name, v in (("a", PSNR), ("b", broken))]
  text = compare(folders, count=2)
  assert "diverged" in text
  assert text.index("| 3.png") < text.index("| 17.png")


def test_names_of_folders_that_are_alike_are_told_apart(tmp_path):
  folders = [write(tmp_path / name / "run", {"": {"psnr": PSNR}}) for name in "ab"]
  assert f"| {folders[1]} |" in compare(folders)


def test_runs_at_other_temperatures_are_compared_by_the_first_ones(runs, tmp_path):
  def difference(text, name):
    """The cell of PSNR in the table of differences."""
    return next(row.split("|")[2] for row in text.splitlines() if row.startswith(f"| {name} ") and "[" in row)

  greedy = write(
    tmp_path / "c", {", greedy": {"psnr": PSNR + CHANGE}, ", greedy 2": {"psnr": PSNR}}, first=", greedy"
  )
  expected = difference(compare(runs, count=0), "b")
  text = compare([runs[0], greedy], count=0)
  assert difference(text, "c, greedy") == expected
  assert "greedy 2" not in text
  # What else has the kind that the first ones are given is left out.
  cold = write(tmp_path / "d", {", tau = 3": {"psnr": PSNR}, "": {"psnr": PSNR + 100}}, first=", tau = 3")
  assert difference(compare([cold, greedy], count=0), "c, greedy") == expected
  assert "greedy 2" not in compare([greedy, cold], count=0)


def test_one_sample_at_one_temperature_is_compared_with_every_temperature_of_another(tmp_path):
  cold, warm = PSNR + CHANGE, PSNR + 2 * CHANGE
  rows = {
    ", t = 1": {"psnr": warm},
    ", t = 1, best of 3": {"psnr": warm + 1},
    ", t = 0.5": {"psnr": cold, "loss_x": cold},
    ", t = 0": {"psnr": PSNR},
  }
  many = write(tmp_path / "many", rows, first=", t = 1")
  one = write(tmp_path / "one", {", t = 0": {"psnr": PSNR, "loss_x": PSNR}}, first=", t = 0")
  also = write(tmp_path / "also", {"": {"psnr": PSNR + 5, "loss_x": PSNR + 6}})
  means, differences, most = compare([one, many, also], count=1).split("\n# ")[:3]
  titles = ["one, t = 0", "many, t = 1", "many, t = 1, best of 3", "many, t = 0.5", "many, t = 0", "also"]
  assert sorted(re.findall(r"^\| (\w.*?) +\|", means, re.MULTILINE)) == sorted(titles)
  assert sorted(re.findall(r"^\| (\w.*?) +\|", differences, re.MULTILINE)) == sorted(titles[1:])
  for name, shift in (("t = 1 ", 2 * CHANGE), ("t = 1, best of 3", 2 * CHANGE + 1), ("t = 0.5", CHANGE)):
    assert re.search(rf"\| many, {re.escape(name)} +\| {re.escape(f'{shift.mean():+.2f}')} \[", differences)
  assert re.search(r"\| also +\| \+5\.00 \[.*\| +\+6 \[", differences), "loss_x too, of one temperature alone"
  assert most.startswith("Where psnr of many, t = 1 differs most"), "its first temperature"
  assert re.search(rf"\| 17\.png \| +{PSNR[17]:.2f} \| +{PSNR[17] - 8:.2f} \|", most)
  backwards = compare([many, one])
  assert re.search(rf"\| one, to many, t = 0\.5 +\| {re.escape(f'{-CHANGE.mean():+.2f}')} \[", backwards)


def test_what_cannot_be_compared_raises_one_sentence(runs, tmp_path):
  single = {"": {"psnr": PSNR}}
  for other, words in (
    (write(tmp_path / "c", single, border=0), "border is 4 in a and 0 in c"),
    (write(tmp_path / "d", single, names=tuple(f"{i}.jpg" for i in range(40))), "not the same"),
    (write(tmp_path / "e", {"": {"std": STD}}), "no metric in common"),
    (write(tmp_path / "none", {}), "no metric in common"),
    (str(tmp_path / "gone"), "run `sr-jax evaluate"),
  ):
    with pytest.raises(UserError, match=re.escape(words)):
      compare([runs[0], other])
  (Path(runs[1]) / "evaluation" / "per_image.jsonl").unlink()
  with pytest.raises(UserError, match="keeps the metrics of each image"):
    compare(runs)
  with pytest.raises(UserError, match="two or more"):
    compare(runs[:1])


def test_a_run_evaluated_and_its_samples_scored_are_the_same(tmp_path, monkeypatch, capsys):
  """From the command line: what `evaluate` saves, `score` reads, and `compare` finds no difference."""
  images = small_runs.write_images(tmp_path / "images")
  monkeypatch.setenv("SR_JAX_TRAIN_DIR", str(images))
  shutil.copytree(Path(__file__).with_name("saved_run"), tmp_path / "run")
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.chdir(tmp_path / "run")
  run, metrics = tmp_path / "run", "--config.eval.metrics=('psnr','lr_psnr_truth','lr_psnr_worst','std')"
  saving = [f"--workdir={run}", "--save-samples=~/samples", metrics]
  others = ["--config.eval.baselines=()", "--config.eval.beside=('.',)"]
  assert cli.main(["evaluate", *saving, *others]) == 0
  assert len(list((tmp_path / "samples").iterdir())) == 6 * 3
  names, rows, _ = read_per_image(run / "evaluation")
  table = json.loads((run / "evaluation" / "table.json").read_text())["rows"]
  assert rows.pop("run").keys() == table.pop("run").keys()  # what is beside it
  assert names == [f"{i}.png" for i in range(6)]
  assert list(rows) == list(table)
  for row, values in table.items():
    for column, mean in values.items():
      assert np.ptp(rows[row][column]) > 0, "of each image"
      assert rows[row][column].mean() == pytest.approx(mean, rel=1e-6)
  words = [f"--truth={images}", f"--out={tmp_path / 'scored'}", metrics]
  keys = ["--config.eval.border=2", "--config.operator.border=replicate"]
  assert cli.main(["score", str(tmp_path / "samples"), *words, *keys]) == 0
  _, scored, _ = read_per_image(tmp_path / "scored" / "evaluation")
  for kind in ("", ", best of 3"):
    for column in ("psnr", "lr_psnr_truth"):
      np.testing.assert_allclose(scored["samples" + kind][column], rows["srim" + kind][column], atol=0.02)
  capsys.readouterr()
  assert (
    cli.main(["compare", str(run), str(tmp_path / "scored"), "--metric=lr_psnr_truth", "--images=1"]) == 0
  )
  assert "| scored, best of 3 |" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("luma", "bt709"),
    ("best_by", "psnr"),
    ("data.channels", 1),
    ("data.resize", (8, 8)),
    ("data.centre", (8, 8)),
    ("embedding.function", "a:b"),
    ("lpips.net", "alex"),
  ],
)
def test_evaluations_by_another_protocol_are_refused(runs, tmp_path, key, value):
  other = write(tmp_path / "c", {"": {"psnr": PSNR}}, **{key: value})
  with pytest.raises(UserError, match=rf"config\.eval\.{key} is .*evaluate both alike"):
    compare([runs[0], other])


@pytest.mark.parametrize(
  "key", ["lpips.heads_sha256", "lpips.backbone_sha256", "embedding.sha256", "classifier"]
)
def test_known_weights_that_differ_are_refused_and_unknown_ones_are_not(tmp_path, key):
  a, b, unknown = (
    write(tmp_path / name, {"": {"psnr": PSNR}}, **{key: value})
    for name, value in (("a", "x"), ("b", "y"), ("c", ""))
  )
  with pytest.raises(UserError, match=key):
    compare([a, b])
  assert compare([a, unknown])


def test_an_evaluation_of_an_earlier_version_lacks_keys_and_is_compared(runs):
  path = Path(runs[1]) / "evaluation" / "table.json"
  content = json.loads(path.read_text())
  for key in ("best_by", "embedding"):
    del content["meta"]["eval"][key]
  path.write_text(json.dumps(content))
  assert compare(runs)


def test_images_are_named_by_the_metric_that_is_asked_for_and_the_seed_is_the_bootstraps(tmp_path):
  rows = ({"psnr": PSNR, "std": STD}, {"psnr": PSNR + 50 * CHANGE, "std": STD + np.arange(40)})
  folders = [write(tmp_path / name, {"": row}) for name, row in zip("ab", rows, strict=True)]
  assert "| 39.png" in compare(folders, metric="std", count=1)
  assert compare(folders, seed=1) != compare(folders)
