"""A classifier's opinion of what other runs draw, from training to the table."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import small_runs
from sr_jax import cli
from sr_jax.data import open_source
from sr_jax.measurement import evaluate
from sr_jax.run import load_run


class Stripes(tfds.core.GeneratorBasedBuilder):
  """Images of 16x16 whose class is the direction of their stripes."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    features = {
      "image": tfds.features.Image(shape=(16, 16, 3)),
      "label": tfds.features.ClassLabel(num_classes=2),
    }
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples(0, 64), "test": self._generate_examples(64, 16)}

  def _generate_examples(self, start, count):
    for i in range(start, start + count):
      rng = np.random.default_rng(i)
      bright = np.add.outer(np.arange(16), rng.integers(0, 4) + np.zeros(16, int)) // 4 % 2
      pixels = 60 + 120 * (bright if i % 2 else bright.T)[..., None] + rng.integers(0, 40, (16, 16, 3))
      yield i, {"image": Image.fromarray(pixels.astype(np.uint8)), "label": i % 2}


CONFIG = """
import small_runs


def get_config(variant):
  config = small_runs.tiny(variant)
  for source in (config.data, config.eval.data):
    source.name = "stripes"
  config.data.crop = ()
  config.eval.update({"samples": 3, "border": 0, "batch": 8, "images": 1, "metrics": ("psnr",)})
  rounds = 40 if variant == "classifier" else 2
  config.train.update({"rounds": rounds, "log_every": 20, "checkpoint_every": 20})
  return config


def sweep():
  yield "judge", "classifier", {}
  yield "MSE", "regression", {"eval.baselines": ("bicubic",), "eval.classifier": "{workdir}/judge"}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """A trained classifier, and the config file of it and of others."""
  folder = tmp_path_factory.mktemp("stripes")
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("TFDS_DATA_DIR", str(folder / "tfds"))
    Stripes(data_dir=str(folder / "tfds")).download_and_prepare(file_format="array_record")
    (folder / "config.py").write_text(CONFIG)
    patch.syspath_prepend(str(small_runs.__file__).rpartition("/")[0])
    words = ["train", f"--config={folder / 'config.py'}:classifier", f"--workdir={folder / 'classifier'}"]
    for source in ("data", "eval.data"):
      words.append(f"--config.{source}.dir={folder / 'tfds'}")
    assert cli.main(words) == 0
    yield folder


def train(runs, *more: str) -> int:
  words = ["train", f"--config={runs / 'config.py'}:regression", f"--workdir={runs / 'regression'}"]
  return cli.main([*words, *(f"--config.{s}.dir={runs / 'tfds'}" for s in ("data", "eval.data")), *more])


def rows(folder):
  return json.loads((folder / "evaluation" / "table.json").read_text())["rows"]


def test_a_classifier_learns_its_labels_and_its_error_is_that_of_its_most_probable_class(runs):
  assert rows(runs / "classifier")["classifier"]["loss_error"] == 0
  assert rows(runs / "classifier")["classifier"]["loss_cross_entropy"] < 0.5


def test_what_it_sees_in_the_samples_of_every_row_becomes_columns(runs, capsys):
  assert train(runs, f"--config.eval.classifier={runs / 'classifier'}") == 0
  table = rows(runs / "regression")
  for row in ("bicubic", "pinv", "regression"):
    assert table[row]["classes"] == 1
    assert table[row]["class_best"] == table[row]["class_mean"]
    assert 0 <= table[row]["class_probability"] <= 1
  # Most stripes, four pixels wide, survive a reduction by four.
  assert table["pinv"]["class_best"] > 0.6
  capsys.readouterr()


def test_it_sees_samples_of_8_bits(runs):
  run = load_run(runs / "classifier")
  source = open_source(run.config.eval.data)

  def between_two_grey_levels(lr, key, n):
    return jnp.full((n, len(lr), 16, 16, 3), 76.4 / 255)

  def probability_of_bytes(images):
    """1 for either class if the images are whole grey levels, else 0."""
    whole = jnp.abs(255 * images - jnp.round(255 * images)).max(axis=(1, 2, 3)) < 1e-3
    return jnp.repeat(whole[:, None], 2, axis=1).astype(jnp.float32)

  sampler, judge = map(jax.tree_util.Partial, (between_two_grey_levels, probability_of_bytes))
  found = evaluate(sampler, source, run.config, run.operator, samples=2, classify=judge)
  assert found.means["class_probability"] == 1


def test_a_run_that_is_no_classifier_raises_a_user_error(runs, tmp_path, capsys):
  assert train(runs) == 0
  words = ["evaluate", f"--workdir={runs / 'regression'}", f"--out={tmp_path}"]
  assert cli.main([*words, f"--config.eval.classifier={runs / 'regression'}"]) == 2
  assert "no classifier" in capsys.readouterr().err


def test_a_classifier_whose_training_was_stopped_raises_a_user_error(runs, tmp_path, capsys):
  shutil.copytree(runs / "classifier", tmp_path / "stopped")
  shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "40")
  assert train(runs, f"--config.eval.classifier={tmp_path / 'stopped'}") == 2
  assert "stopped after round 20 of 40" in capsys.readouterr().err


def sweep(runs, name, workdir) -> int:
  words = ["sweep", f"--config={runs / name}", f"--workdir={workdir}"]
  return cli.main([*words, *(f"--config.{source}.dir={runs / 'tfds'}" for source in ("data", "eval.data"))])


def test_an_earlier_trial_of_a_sweep_judges_a_later_one(runs, tmp_path):
  assert sweep(runs, "config.py", tmp_path) == 0
  table = json.loads((tmp_path / "sweep.json").read_text())["rows"]
  assert list(table) == ["bicubic", "judge", "MSE"]
  assert table["MSE"] == rows(tmp_path / "MSE")["regression"]
  assert table["MSE"]["classes"] == 1
  assert table["judge"]["loss_error"] == 0
  with Image.open(tmp_path / "sweep_samples.png") as image:
    assert image.width > 4 * 64


@pytest.mark.parametrize(
  ("old", "new", "words", "code"),
  [
    # Before anything is trained, or as soon as the other trial is there.
    ("{workdir}/judge", "{workdir}/nobody", "nobody", 2),
    ('yield "judge", "classifier"', 'yield "judge", "regression"', "no classifier", 1),
  ],
)
def test_a_sweep_refuses_a_judge_that_is_no_earlier_trial_or_no_classifier(
  runs, tmp_path, capsys, old, new, words, code
):
  (runs / "bad.py").write_text(CONFIG.replace(old, new))
  assert sweep(runs, "bad.py", tmp_path) == code
  assert words in "".join(capsys.readouterr())
  assert [path.parent.name for path in tmp_path.glob("*/checkpoints")] == ["judge"] * (code == 1)
