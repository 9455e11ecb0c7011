"""Tables: the nearest training pictures, a row for each temperature, and what a model thinks of every row."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import small_runs
from sr_jax import parallel
from sr_jax.baselines import nearest
from sr_jax.configs import base
from sr_jax.data import open_source
from sr_jax.errors import UserError
from sr_jax.evaluate import evaluate_run
from sr_jax.methods import make_method
from sr_jax.ops import make_operator, to_float
from sr_jax.run import Run, check_config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  """Pixel recursive super-resolution of ten pictures of 16x16."""
  folder = small_runs.write_pictures(tmp_path_factory.mktemp("evaluate") / "pictures", 10)
  config = base.get_config("pixel_recursive", "conditioning")
  config.operator.update({"factor": (2, 2), "rounding": "none"})
  config.network.update({"width": 6, "blocks": 1})
  config.method.prior.update({"width": 6, "layers": 1, "kernel": 3, "first_kernel": 3, "head": 8})
  for source in (config.data, config.eval.data):
    source.update({"name": "folder", "dir": str(folder), "resize": (16, 16)})
  config.data.crop = ()
  config.eval.update({"metrics": ("psnr", "lr_mse"), "baselines": ("bicubic", "nearest"), "border": 0})
  config.eval.update(
    {"samples": 1, "batch": 4, "pictures": 2, "temperatures": (1.0, 0.5, 0.0), "judge": True}
  )
  return config


def pictures(config) -> np.ndarray:
  source = open_source(config.data)
  return np.stack([source[i]["hr"] for i in range(len(source))])


def test_a_training_picture_is_its_own_nearest_and_further_samples_are_further_away(config):
  operator, hr = make_operator(config), pictures(config)
  lr = operator.A(to_float(hr))
  draw = jax.jit(nearest(operator, config), static_argnums=2)
  found = np.asarray(draw(lr[:3], jax.random.key(0), 4))
  assert found.shape == (4, 3, 16, 16, 3)
  np.testing.assert_allclose(found[0], hr[:3] / 255, atol=1e-6)
  low = np.asarray(to_float(jnp.round(lr * 255).astype(jnp.uint8)))
  for i in range(3):
    order = np.argsort(((low[i] - low) ** 2).sum(axis=(1, 2, 3)))[:4]
    np.testing.assert_allclose(found[:, i], hr[order] / 255, atol=1e-6)
  with pytest.raises(UserError, match="10 training pictures"):
    draw(lr[:1], jax.random.key(0), 11)
  with pytest.raises(UserError, match="evaluate pictures of that size"):
    draw(lr[:1, :4], jax.random.key(0), 1)


def test_nearest_needs_pictures_of_one_size_and_of_bytes(config, tmp_path):
  config = config.copy_and_resolve_references()
  folder = small_runs.write_pictures(tmp_path / "pictures", 2)
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
  state = jax.jit(method.init)(jax.random.key(0), {"hr": pictures(config)[:4]})
  # A model that prefers dark values.
  state.params["generator"]["conditioning"]["Dense_0"]["bias"] = jnp.tile(-jnp.arange(256) / 20.0, 3)
  folder = tmp_path_factory.mktemp("report")
  return evaluate_run(Run(config, operator, method, parallel.localise(state)), folder), folder


def test_every_temperature_has_a_row_by_the_papers_name(report):
  found, folder = report
  rows = json.loads((folder / "evaluation" / "table.json").read_text())["rows"]
  ours = ["pixel_recursive, tau = 1", "pixel_recursive, tau = 2", "pixel_recursive, greedy"]
  assert list(rows) == ["bicubic", "nearest", *ours]
  assert list(found.single) == ["tau = 1", "tau = 2", "greedy"]
  assert found.single["tau = 2"] == found.rows["pixel_recursive, tau = 2"]
  assert rows["nearest"]["psnr"] == pytest.approx(100)
  with Image.open(folder / "evaluation" / "rows.png") as grid:
    assert grid.width > 7 * 16


def test_a_model_judges_what_every_row_draws_and_the_truth_is_the_objective(report):
  rows = report[0].rows
  # The nearest of a training picture is itself, and judged as the truth is.
  truth = rows["pixel_recursive, tau = 1"]["bits_per_dim"]
  assert rows["nearest"]["sample_bits_per_dim"] == pytest.approx(truth, rel=1e-4)
  assert "bits_per_dim" not in rows["bicubic"]
  judged = [
    rows[f"pixel_recursive, {term}"]["sample_bits_per_dim"] for term in ("greedy", "tau = 2", "tau = 1")
  ]
  assert judged == sorted(judged)
  assert judged[-1] < truth


def test_temperatures_are_checked(config):
  config = config.copy_and_resolve_references()
  for wrong in ((), (1.0, -0.5)):
    config.eval.temperatures = wrong
    with pytest.raises(UserError, match="temperatures"):
      check_config(config)
