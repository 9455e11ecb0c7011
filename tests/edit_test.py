"""Latents edited by hand: what each function makes of them, and what the verb writes and refuses."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from PIL import Image

import small_runs
from sr_jax import cli, edit
from sr_jax.checkpoint import Checkpoints
from sr_jax.data import open_source
from sr_jax.methods import make_method
from sr_jax.ops import make_operator
from sr_jax.report.grids import labelled_grid
from sr_jax.run import Run, load_run

SMILING = {f"{i}.png": i in (1, 2, 5) for i in range(7)}


class Setting(NamedTuple):
  """A run of VarSR with other than its first weights, its seven test images, and their attributes."""

  workdir: Path
  images: Path
  attributes: Path
  run: Run
  lr: Any
  hr: Any

  codes: np.ndarray  # straight from the method
  generate: Any

  def image(self, i: int, latent: np.ndarray) -> np.ndarray:
    """G(I_L, z) of input i, straight from the method."""
    return np.asarray(self.generate(self.run.state, self.lr[i : i + 1], latent[None])[0])

  def words(self, *words: str) -> list[str]:
    return ["edit", f"--workdir={self.workdir}", *words]


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> Setting:
  folder = tmp_path_factory.mktemp("edit")
  images = small_runs.write_images(folder / "images", 7, (16, 16))
  config = small_runs.tiny("varsr")
  config.method.adversarial_weight = 0.0
  config.init_from = ()
  for source in (config.data, config.eval.data):
    source.update({"name": "folder", "dir": str(images)})
  config.eval.batch = 4  # the second batch is padded
  method = make_method(config, make_operator(config))
  batch = {"hr": np.zeros((2, 16, 16, 3), np.uint8)}
  state = jax.jit(method.init)(jax.random.key(0), batch)
  # The encoders' last layer starts at zero.
  random = np.random.default_rng(0)
  for role in ("posterior", "prior"):
    layer = state.params[role]["Dense_0"]
    layer["kernel"] += 0.2 * random.standard_normal(layer["kernel"].shape, np.float32)
  with Checkpoints(folder / "run", create=True) as checkpoints:
    checkpoints.save(state, config, batch)
  attributes = folder / "attributes.csv"
  lines = [f"{name},{random.integers(2)},{2 * has - 1}" for name, has in SMILING.items()]
  attributes.write_text("\n".join(["image_id,Male,Smiling", *reversed(lines), "other.png,0,-1"]))
  run = load_run(folder / "run")
  lr, hr = edit.first_images(run, open_source(run.config.eval.data), 7)
  assert len(lr) == len(hr) == 7

  @jax.jit
  def generate(state, x, z):
    return run.operator.head(run.method.latents.decode(state, x, z), x)

  codes = np.asarray(jax.jit(run.method.latents.posterior)(run.state, hr)[0])
  return Setting(folder / "run", images, attributes, run, lr, hr, codes, generate)


@pytest.fixture
def loaded(setting, monkeypatch):
  """What is compiled for the run serves the verb too."""
  monkeypatch.setattr("sr_jax.run.load_run", lambda workdir, config: setting.run)


def close(ours, theirs):
  np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_strength_zero_is_the_image_at_temperature_zero_and_others_move_along_the_direction(setting):
  direction = np.linspace(-1, 1, 4, dtype=np.float32)
  images = edit.edit(setting.run, setting.lr, direction, (-2, 0, 0.5))
  assert images.shape == (7, 3, 16, 16, 3)
  close(images[:, 1], setting.run.sampler(0.0)(setting.lr, jax.random.key(0), 1)[0])
  z_lr = np.asarray(setting.run.method.latents.prior(setting.run.state, setting.lr)[0])
  for column, k in enumerate((-2, 0, 0.5)):
    close(images[3, column], setting.image(3, z_lr[3] + k * direction))
  assert np.abs(images[:, 0] - images[:, 1]).max() > 0.01


def test_every_edited_image_reduces_to_its_input(setting):
  """The operator's head, here a projection, stands behind each."""
  codes = edit.encode(setting.run, setting.hr)
  images = edit.transfer(setting.run, setting.lr, codes)
  close(setting.run.operator.A(images), np.broadcast_to(setting.lr[:, None], (7, 7, 4, 4, 3)))


def test_transfer_has_a_row_per_input_a_column_per_code_and_reconstructions_on_its_diagonal(setting):
  images = edit.transfer(setting.run, setting.lr, edit.encode(setting.run, setting.hr)[:4])
  assert images.shape == (7, 4, 16, 16, 3)
  for i in range(3):
    close(images[i, i], setting.image(i, setting.codes[i]))
  close(images[0, 3], setting.image(0, setting.codes[3]))
  assert np.abs(images[0, 3] - images[0, 0]).max() > 0.01


def test_an_interpolation_goes_straight_from_one_image_to_the_other(setting):
  rows = edit.interpolation_rows(setting.run, setting.lr, setting.hr, 3)
  assert list(rows[0]) == ["input", "0", "0.5", "1", "truth", "truth at 1"]
  for i, other in ((0, 1), (6, 0)):
    a, b = setting.codes[i], setting.codes[other]
    for heading, latent in (("0", a), ("0.5", (a + b) / 2), ("1", b)):
      close(rows[i][heading], setting.image(i, latent))
    np.testing.assert_array_equal(rows[i]["truth at 1"], setting.hr[other])


def test_an_interpolation_of_draws_has_two_samples_as_its_ends(setting):
  keys = jax.random.split(jax.random.key(5))
  ends = [edit.draw(setting.run, setting.lr, key) for key in keys]
  rows = edit.interpolation_rows(setting.run, setting.lr, setting.hr, 2, seed=5)
  for i in (0, 6):
    for heading, latent in zip("01", ends, strict=True):
      close(rows[i][heading], setting.image(i, latent[i]))
  assert np.abs(ends[0] - ends[1]).max() > 0.1
  assert np.abs(rows[0]["0"] - rows[0]["1"]).max() > 0.01


def test_an_attributes_codes_are_the_means_of_the_images_that_have_it_and_of_the_others(setting):
  has = edit.read_attribute(setting.attributes, "Smiling")
  assert has == SMILING | {"other.png": False}
  ours = edit.mean_codes(setting.run, open_source(setting.run.config.eval.data), has)
  for mean, members in zip(ours, ((1, 2, 5), (0, 3, 4, 6)), strict=True):
    close(mean, sum(setting.codes[i] for i in members) / len(members))
  assert np.abs(ours[0] - ours[1]).max() > 0.01


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("direction", ["mean", "difference"])
def test_the_verb_draws_a_row_per_image_along_the_attributes_direction(setting, tmp_path, capsys, direction):
  words = ["--attribute=Smiling", f"--attributes={setting.attributes}", f"--direction={direction}"]
  words += ["--strengths=-1,0.5", "--count=7", f"--out={tmp_path / 'new'}"]
  assert cli.main(setting.words(*words)) == 0
  file = tmp_path / "new" / "attribute_Smiling.png"
  assert capsys.readouterr().out == f"{file}\n"
  means = [np.mean([setting.codes[i] for i in group], axis=0) for group in ((1, 2, 5), (0, 3, 4, 6))]
  moved = means[0] - means[1] if direction == "difference" else means[0]
  images = edit.edit(setting.run, setting.lr, moved, (-1, 0.5))
  rows = [
    {"input": setting.lr[i], "-1": images[i, 0], "0.5": images[i, 1], "truth": setting.hr[i]}
    for i in range(7)
  ]
  labelled_grid(rows, tmp_path / "expected.png")
  ours, theirs = (np.asarray(Image.open(path)).astype(int) for path in (file, tmp_path / "expected.png"))
  assert ours.shape == theirs.shape
  assert np.abs(ours - theirs).max() <= 1


@pytest.mark.usefixtures("loaded")
def test_the_verb_draws_transfers_and_interpolations_of_a_folder(setting, tmp_path, capsys):
  shutil.copytree(setting.images, tmp_path / "images")
  other = Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8))
  other.save(tmp_path / "images" / "0.png")
  where = [f"--images={tmp_path / 'images'}", "--count=7", f"--out={tmp_path}"]
  for words in (["--transfer"], ["--interpolate=posterior"], ["--interpolate=prior"]):
    assert cli.main(setting.words(*words, *where)) == 0
  assert {path.name for path in tmp_path.glob("*.png")} == {
    *("transfer.png", "interpolation_posterior.png", "interpolation_prior.png")
  }
  for file in tmp_path.glob("*.png"):
    grid = np.asarray(Image.open(file))
    # Grids enlarge 16 pixels to 64.
    places = np.ndindex(grid.shape[0] - 60, grid.shape[1] - 60)
    shown = {grid[y : y + 64 : 4, x : x + 64 : 4].tobytes() for y, x in places}
    assert other.tobytes() in shown
    assert Image.open(setting.images / "0.png").tobytes() not in shown
    assert Image.open(setting.images / "6.png").tobytes() in shown
  capsys.readouterr()


def test_a_run_without_a_posterior_is_refused_but_its_draws_are_interpolated(setting, tmp_path, capsys):
  saved = shutil.copytree(Path(__file__).with_name("saved_run"), tmp_path / "run")
  words = ["edit", f"--workdir={saved}", f"--images={setting.images}", f"--out={tmp_path / 'out'}"]
  assert cli.main([*words, "--transfer"]) == 2
  assert "'srim' of this run learns no posterior" in capsys.readouterr().err
  assert not (tmp_path / "out").exists()
  assert cli.main([*words, "--interpolate=prior"]) == 0
  assert (tmp_path / "out" / "interpolation_prior.png").exists()
  capsys.readouterr()


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
  ("words", "content", "expected"),
  [
    (["--attribute=Smilling"], None, "did you mean 'Smiling'?"),
    (["--attribute="], None, "which does not exist"),
    (["--attribute=", "--attributes="], None, "go together"),
    (["--attribute=image_id"], None, "which does not exist"),
    (["--attribute=Smiling"], "id,Smiling\n0.png,1\n1.png,yes\n", "no 0, 1 or -1 for Smiling of 1.png"),
    (["--attribute=Smiling"], "id,Male,Smiling\n0.png,1\n", "no 0, 1 or -1 for Smiling of 0.png"),
    (["--attribute=Smiling"], "202599\nSmiling\n", "names no attributes in its first line"),
    (["--attribute=Smiling"], "", "names no attributes in its first line"),
    (["--attribute=Smiling"], "id,Smiling\n0.png,1\n", "no line for 1.png"),
    (["--attribute=Smiling", "--attributes=/nowhere.csv"], None, "No such file"),
    (["--attribute=Smiling", "--attributes="], None, "go together"),
    (["--transfer"], None, "go together"),
    (["--interpolate=prior", "--attributes=", "--steps=1"], None, "two ends"),
    (["--interpolate=posterior", "--attributes=", "--count=1"], None, "Only one image"),
    (["--transfer", "--attributes=", "--images=/nowhere"], None, "there is no folder"),
  ],
)
def test_a_mistake_costs_one_sentence_and_no_file(setting, tmp_path, capsys, words, content, expected):
  attributes = setting.attributes
  if content is not None:
    attributes = tmp_path / "attributes.csv"
    attributes.write_text(content)
  assert cli.main(setting.words(f"--attributes={attributes}", *words, f"--out={tmp_path / 'out'}")) == 2
  captured = capsys.readouterr()
  (line,) = captured.err.strip().splitlines()
  assert expected in line
  assert not captured.out
  assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("loaded")
def test_an_attribute_of_all_images_and_images_of_another_size_are_refused(setting, tmp_path, capsys):
  everybody = tmp_path / "everybody.csv"
  everybody.write_text("\n".join(["id,Human", *(f"{i}.png,1" for i in range(7))]))
  words = ["--attribute=Human", f"--attributes={everybody}", f"--out={tmp_path / 'out'}"]
  assert cli.main(setting.words(*words)) == 2
  assert "7 images have the attribute and 0 do not" in capsys.readouterr().err
  larger = small_runs.write_images(tmp_path / "larger", 2, (32, 32))
  assert cli.main(setting.words("--transfer", f"--images={larger}", f"--out={tmp_path / 'out'}")) == 2
  assert "was trained on images of another size" in capsys.readouterr().err
  assert not (tmp_path / "out").exists()
