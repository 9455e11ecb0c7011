"""Tables: the nearest training images, a row for each temperature, and what a model thinks of every row."""

import argparse
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import small_runs
from sr_jax import baselines, evaluate, measurement, parallel
from sr_jax.baselines import nearest, pinv
from sr_jax.config import check
from sr_jax.configs import base
from sr_jax.data import open_source
from sr_jax.data.sources import Unwanted
from sr_jax.errors import UserError
from sr_jax.images import SAME_IMAGE, fingerprint
from sr_jax.methods import make_method
from sr_jax.ops import make_operator, to_float, to_uint8
from sr_jax.report.tables import read_per_image
from sr_jax.run import Run, load_run
from sr_jax.stages import Sources, check_evaluation
from sr_jax.train import train


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  """Pixel recursive super-resolution of ten images of 8x8."""
  folder = small_runs.write_images(tmp_path_factory.mktemp("evaluate") / "images", 10)
  config = small_runs.tiny("pixel_recursive")
  config.consistency = "none"
  config.operator.update({"factor": (2, 2), "rounding": "none"})
  for source in (config.data, config.eval.data):
    source.update({"name": "folder", "dir": str(folder), "resize": (8, 8)})
  config.data.crop = ()
  config.eval.update({"metrics": ("psnr", "lr_mse"), "baselines": ("bicubic", "nearest"), "border": 0})
  config.eval.update({"samples": 1, "batch": 4, "images": 2, "temperatures": (1.0, 0.5, 0.0), "judge": True})
  return config


def regression(config):
  """One round of a method that compiles fast, on the same images."""
  small = small_runs.tiny("regression")
  for key in ("operator", "data", "eval"):
    small[key].update(config[key])
  small.train.rounds = 1
  small.eval.update({"baselines": ("bicubic",), "temperatures": (1.0,), "judge": False})
  return small


def images(config) -> np.ndarray:
  source = open_source(config.data)
  return np.stack([source[i]["hr"] for i in range(len(source))])


def test_a_training_image_is_its_own_nearest_and_further_samples_are_further_away(config):
  operator, hr = make_operator(config), images(config)
  lr = operator.A(to_float(hr))
  draw = jax.jit(nearest(operator, config), static_argnums=2)
  found = np.asarray(draw(lr[:3], jax.random.key(0), 4))
  assert found.shape == (4, 3, 8, 8, 3)
  np.testing.assert_allclose(found[0], hr[:3] / 255, atol=1e-6)
  low = np.asarray(to_float(jnp.round(lr * 255).astype(jnp.uint8)))
  for i in range(3):
    order = np.argsort(((low[i] - low) ** 2).sum(axis=(1, 2, 3)))[:4]
    np.testing.assert_allclose(found[:, i], hr[order] / 255, atol=1e-6)
  with pytest.raises(UserError, match="10 training images"):
    draw(lr[:1], jax.random.key(0), 11)
  with pytest.raises(UserError, match="evaluate images of that size"):
    draw(lr[:1, :2], jax.random.key(0), 1)


def test_the_nearest_are_those_of_all_training_images_however_many_are_compared_at_once(config, monkeypatch):
  operator = make_operator(config)
  lr, found = operator.A(to_float(images(config))), []
  for chunk in (baselines.CHUNK, 3 * lr[0].size):
    monkeypatch.setattr(baselines, "CHUNK", chunk)
    found.append(np.asarray(nearest(operator, config)(lr[:3], jax.random.key(0), 4)))
  np.testing.assert_array_equal(*found)


def test_nearest_needs_images_of_one_size_and_of_bytes(config, tmp_path):
  config = config.copy_and_resolve_references()
  folder = small_runs.write_images(tmp_path / "images", 2)
  Image.new("RGB", (20, 20)).save(folder / "other.png")
  config.data.update({"dir": str(folder), "resize": ()})
  with pytest.raises(UserError, match="one size"):
    nearest(make_operator(config), config)
  config.data.update({"name": "swiss_roll", "channels": 1})
  config.operator.factor = (1, 2)
  with pytest.raises(UserError, match="bytes"):
    nearest(make_operator(config), config)


@pytest.fixture(scope="module")
def report(config, tmp_path_factory):
  operator = make_operator(config)
  method = make_method(config, operator)
  state = jax.jit(method.init)(jax.random.key(0), {"hr": images(config)[:4]})
  # A model that prefers dark values.
  dark = jnp.tile(-jnp.arange(256) / 20.0, 3)
  logits = jax.tree.map(lambda v: dark if v.shape == (768,) else v, state.params["generator"]["conditioning"])
  state.params["generator"]["conditioning"] = logits
  folder = tmp_path_factory.mktemp("report")
  run = Run(config, operator, method, parallel.localise(state))
  return evaluate.evaluate_run(run, folder), folder, run


def test_every_temperature_has_a_row_by_the_papers_name(report):
  found, folder, _ = report
  rows = json.loads((folder / "evaluation" / "table.json").read_text())["rows"]
  ours = ["pixel_recursive, tau = 1", "pixel_recursive, tau = 2", "pixel_recursive, greedy"]
  assert list(rows) == ["bicubic", "nearest", *ours]
  assert list(found.own) == [", tau = 1", ", tau = 2", ", greedy"]
  assert found.own[", tau = 2"] == found.rows["pixel_recursive, tau = 2"]
  assert rows["nearest"]["psnr"] == pytest.approx(100)
  # Two images with a line of text below each, in a column for each row of the table, beside input and truth.
  with Image.open(folder / "evaluation" / "rows.png") as image:
    assert image.height > 2 * (8 + 10)
    assert image.width > (2 + len(rows)) * 8


def test_a_model_judges_what_every_row_draws_and_the_truth_is_the_objective(report):
  rows = report[0].rows
  # The nearest of a training image is itself, and judged as the truth is.
  truth = rows["pixel_recursive, tau = 1"]["loss_bits_per_dim"]
  assert rows["nearest"]["sample_loss_bits_per_dim"] == pytest.approx(truth, rel=1e-4)
  assert "loss_bits_per_dim" not in rows["bicubic"]
  judged = [
    rows[f"pixel_recursive, {term}"]["sample_loss_bits_per_dim"] for term in ("greedy", "tau = 2", "tau = 1")
  ]
  assert judged == sorted(judged)
  assert judged[-1] < truth


def test_every_image_is_drawn_with_a_key_of_its_own_whatever_the_batch(config):
  config = regression(config)
  source, operator = open_source(config.eval.data), make_operator(config)

  def noise(lr, key, n):
    return jax.random.uniform(key, (n, len(lr), 8, 8, 3))

  drawn = []
  for size in (4, 1):
    config.eval.batch = size
    found = measurement.evaluate(jax.tree_util.Partial(noise), source, config, operator, samples=2)
    drawn.append([image["samples"] for image in found.images])
  np.testing.assert_array_equal(*drawn)
  assert not np.any(np.isclose(drawn[0][0], drawn[0][1], atol=1e-6))
  config.eval.seed = 1
  other = measurement.evaluate(jax.tree_util.Partial(noise), source, config, operator, samples=2).images
  assert not np.any(np.isclose(other[0]["samples"], drawn[0][0], atol=1e-6))


def test_what_is_shown_and_saved_is_of_the_first_temperature_and_equal_samples_are_one(
  report, config, tmp_path
):
  run = report[2]
  config = config.copy_and_resolve_references()
  config.eval.update({"samples": 2, "losses": False, "judge": False, "baselines": (), "limit": 2})
  config.eval.temperatures = (1.0, 0.0)
  found = evaluate.evaluate_run(run._replace(config=config), tmp_path, save=str(tmp_path / "saved"))
  assert not any(column.startswith("loss_") for row in found.rows.values() for column in row)
  assert "pixel_recursive, tau = 1, best of 2" in found.rows
  assert not any(name.startswith("pixel_recursive, greedy, ") for name in found.rows)
  source = open_source(config.eval.data)
  first = measurement.evaluate(run.sampler(1.0), source, config, run.operator, samples=2)
  shown = found.images[0]["samples"]
  np.testing.assert_array_equal(shown, first.images[0]["samples"])
  assert first.fingerprints["input"][0] == pytest.approx(
    fingerprint(first.images[0]["input"]), abs=SAME_IMAGE
  )
  for number in range(2):
    saved = np.asarray(Image.open(tmp_path / "saved" / f"000000_sample0000{number}.png"))
    np.testing.assert_array_equal(saved, np.asarray(to_uint8(shown[number])))


def test_a_watch_measures_the_first_temperature_and_as_few_images_as_either_limit_says(
  report, config, monkeypatch
):
  seen: dict = {}

  def noted(sampler, source, config, operator, **keys):
    seen.update(keys, sampler=sampler, limit=config.eval.limit)
    return argparse.Namespace(means={"psnr": 1.0})

  monkeypatch.setattr(evaluate, "evaluate", noted)
  monkeypatch.setattr(evaluate, "_budget", lambda *_: None)
  state, method = report[2].state, report[2].method
  run = argparse.Namespace(state=state, method=method, operator=None, sampler=lambda t, _: t)
  run._replace = lambda **_: run
  config = config.copy_and_resolve_references()
  config.train.eval_limit = 2
  for losses in (False, True):
    config.eval.update({"temperatures": (0.5, 0.0), "limit": 3, "losses": losses})
    assert evaluate.make_watch(config, None)(run) == {"psnr": 1.0}
    assert (seen["sampler"], seen["limit"], seen["samples"]) == (0.5, 2, 1)
    assert (seen["objective"] is not None) == losses


def test_each_image_is_judged(report, config):
  rows, run = report[0].rows, report[2]
  own = jax.tree_util.Partial(run.method.objective, run.state)
  source = open_source(config.eval.data)
  means, found, *_ = measurement.evaluate(run.sampler(), source, config, run.operator, samples=1, judge=own)
  # The number that stands below the first of several samples is that sample's, and the table has their mean.
  two = measurement.evaluate(run.sampler(), source, config, run.operator, samples=2, judge=own)
  below = float(two.images[0]["sample_loss_bits_per_dim"])
  assert abs(below - two.values["sample_loss_bits_per_dim"][0]) > 1e-3
  assert below == pytest.approx(float(found[0]["sample_loss_bits_per_dim"]), rel=1e-4)
  assert means["sample_loss_bits_per_dim"] == pytest.approx(
    rows["pixel_recursive, tau = 1"]["sample_loss_bits_per_dim"]
  )
  values = [image["sample_loss_bits_per_dim"] for image in found]
  assert np.ptp(values) > 0
  objective = jax.jit(run.method.objective)
  for image, value in zip(found, values, strict=True):
    drawn = np.round(image["samples"] * 255).astype(np.uint8)
    alone = objective(run.state, {"hr": drawn, "lr": image["input"][None]}, jax.random.key(0))
    assert float(alone["bits_per_dim"][0]) == pytest.approx(float(value), rel=1e-3)


def test_a_run_is_measured_beside_another_and_nearest_neighbours_are_checked_before(config, tmp_path):
  small = regression(config)
  train(small, tmp_path / "other")
  small.eval.update({"beside": (str(tmp_path / "other"),), "baselines": ()})
  check_evaluation(small, Sources())
  found = evaluate.evaluate_run(load_run(tmp_path / "other", small), tmp_path)
  assert list(found.rows) == ["other", "regression"]
  # Folders of one name, and of another row's, are told apart.
  folders = [str(tmp_path / name) for name in ("a/other", "b/other", "bicubic", "regression")]
  for folder in folders:
    shutil.copytree(tmp_path / "other", folder)
  small.eval.update({"beside": tuple(folders), "baselines": ("bicubic",)})
  found = evaluate.evaluate_run(load_run(tmp_path / "other", small), tmp_path)
  assert list(found.rows) == ["bicubic", *folders, "regression"]
  small.consistency = "project"  # what a network's output goes through does not matter
  check_evaluation(small, Sources())
  small.operator.factor = (4, 4)
  with pytest.raises(UserError, match="beside"):
    check_evaluation(small, Sources())
  small.eval.update({"beside": (), "baselines": ("nearest",)})
  small.eval.data.resize = (24, 24)
  with pytest.raises(UserError, match="nearest"):
    check_evaluation(small, Sources())


def test_losses_are_columns_beside_the_metrics_of_their_name(config, tmp_path):
  small = base.get_config("regression", generator="tanh_residual")
  small.networks.generator.update({"width": 6, "blocks": 1})
  small.data.update(config.data.to_dict())
  small.eval.data.update(config.eval.data.to_dict())
  small.eval.update({"metrics": ("mse",), "baselines": (), "samples": 5, "border": 2})
  operator = make_operator(small)
  method = make_method(small, operator)
  state = jax.jit(method.init)(jax.random.key(0), {"hr": images(config)[:4]})
  rows = evaluate.evaluate_run(Run(small, operator, method, parallel.localise(state)), tmp_path).rows
  assert {"mse", "loss_mse"} <= rows["regression"].keys()
  assert list(rows) == ["regression"], "no best or mean of samples that are all equal"
  # Unclipped and with its border.
  assert rows["regression"]["loss_mse"] != rows["regression"]["mse"]


def test_temperatures_are_checked(config):
  config = config.copy_and_resolve_references()
  for wrong in ((), (1.0, -0.5), (1.0, float("nan")), (0.5, 0.5)):
    config.eval.temperatures = wrong
    with pytest.raises(UserError, match="temperature"):
      check(config)


def test_an_evaluation_that_ends_while_it_writes_leaves_none_that_looks_finished(
  config, tmp_path, monkeypatch
):
  run = train(regression(config), tmp_path)
  evaluate.evaluate_run(run, tmp_path)
  assert evaluate.read_report(run.config, tmp_path)
  run.config.eval.limit = 3

  def die(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(evaluate, "write_per_image", die)
  with pytest.raises(KeyboardInterrupt):
    evaluate.evaluate_run(run, tmp_path)
  assert evaluate.read_report(run.config, tmp_path) is None


def test_values_stand_beside_the_names_of_their_images_where_one_is_left_out(config, tmp_path, monkeypatch):
  small = regression(config)
  small.eval.update({"baselines": (), "limit": 4})
  run, source = train(small, tmp_path), open_source(small.eval.data)
  read = type(source).__getitem__

  def without_one(self, i):
    if i == 1:
      raise Unwanted(self.name(i), "it has few bytes")
    return read(self, i)

  monkeypatch.setattr(type(source), "__getitem__", without_one)
  evaluate.evaluate_run(run, tmp_path, source=source)
  names, rows, _ = read_per_image(tmp_path / "evaluation")
  assert names == ["0.png", "2.png", "3.png"]
  monkeypatch.undo()
  evaluate.evaluate_run(run, tmp_path, source=source)
  names, whole, _ = read_per_image(tmp_path / "evaluation")
  assert names == ["0.png", "1.png", "2.png", "3.png"]
  for row, values in rows.items():
    np.testing.assert_allclose(values["psnr"], whole[row]["psnr"][[0, 2, 3]], rtol=1e-5)


def test_nearest_passes_over_the_training_images_that_training_passed_over(config, tmp_path):
  small = config.copy_and_resolve_references()
  folder = small_runs.write_images(tmp_path / "images", 4)
  (folder / "0.png").write_bytes(b"no image")
  small.data.dir = str(folder)
  check_evaluation(small, Sources())
  operator = make_operator(small)
  draw = jax.jit(nearest(operator, small), static_argnums=2)
  hr = images(config)[1:4]
  found = np.asarray(draw(operator.A(to_float(hr)), jax.random.key(0), 1))
  np.testing.assert_allclose(found[0], hr / 255, atol=1e-6)


def test_a_metric_that_is_given_twice_raises_one_sentence(config):
  small = config.copy_and_resolve_references()
  small.eval.metrics = ("psnr", "lr_mse", "psnr")
  with pytest.raises(UserError, match="give each column once"):
    check_evaluation(small, Sources())


@pytest.mark.parametrize(
  ("baselines", "row"),
  [(("bicubic", "small_runs:bicubic"), "bicubic"), (("small_runs:pixel_recursive",), "pixel_recursive")],
)
def test_a_baseline_that_would_take_anothers_row_raises_one_sentence(config, monkeypatch, baselines, row):
  monkeypatch.setattr(small_runs, row, pinv, raising=False)
  small = config.copy_and_resolve_references()
  small.eval.baselines = baselines
  with pytest.raises(UserError, match=f"two rows would be called '{row}'"):
    check_evaluation(small, Sources())


def test_the_images_that_a_process_keeps_say_their_place_in_the_test_set(config, monkeypatch):
  operator, source = make_operator(config), open_source(config.eval.data)
  monkeypatch.setattr(parallel, "process", lambda: (1, 2))
  monkeypatch.setattr(parallel, "gather_sums", lambda values: values)
  found = measurement.evaluate(nearest(operator, config), source, config, operator, samples=1)
  assert [int(image["place"]) for image in found.images] == [1, 3]
