"""Metrics of all images together: the Frechet distance, precision and recall, in SqueezeNet's features."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg
from scipy.spatial.distance import cdist

import small_runs
from sr_jax import cli, measurement
from sr_jax.configs import base
from sr_jax.data import open_source
from sr_jax.errors import UserError
from sr_jax.images import save_samples
from sr_jax.metrics import Protocol, check_count, features, measure, measure_sets, read_weights, sets
from sr_jax.ops import Operator, make_operator, quantise
from sr_jax.stages import Sources, check_evaluation

NAMES = ("frechet_squeeze", "precision_squeeze", "recall_squeeze")
KEY = NAMES[0]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> str:
  path = tmp_path_factory.mktemp("nets") / "squeezenet.npz"
  np.savez(path, **small_runs.squeezenet(np.random.default_rng(0)))
  return str(path)


@pytest.fixture(scope="module")
def weights(backbone):
  settings = base.get_config().eval
  settings.lpips.backbone = backbone
  return read_weights(NAMES, settings)


def test_sets_are_seen_by_squeezenet_alone(backbone):
  settings = base.get_config().eval
  settings.lpips.update({"backbone": backbone, "net": "alex"})
  with pytest.raises(UserError, match=r"see by SqueezeNet, but config\.eval\.lpips\.net is 'alex'"):
    read_weights(NAMES, settings)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
  return small_runs.write_images(tmp_path_factory.mktemp("sets") / "images", 6)


@pytest.fixture
def config(images, backbone):
  """Bicubic enlargement of six images; the method is never asked."""
  config = base.get_config()
  config.eval.data.update({"name": "folder", "dir": str(images)})
  config.eval.update({"metrics": ("psnr", *NAMES), "border": 2, "batch": 4, "images": 0})
  config.eval.lpips.backbone = backbone
  return config


@jax.tree_util.Partial
def noisy(lr, key, n):
  """Enlarged, each draw brighter than the one before."""
  del key
  enlarged = jnp.repeat(jnp.repeat(lr, 4, axis=1), 4, axis=2)
  return jnp.clip(enlarged + 0.2 * jnp.arange(n)[:, None, None, None, None], 0, 1)


def test_identical_sets_have_distance_0_and_all_lie_in_each_other():
  for count in (6, 40):  # fewer than dimensions, and more
    given = np.random.default_rng(0).normal(size=(count, 16)) * 30
    assert sets.frechet(given, given.copy()) < 1e-9
    assert sets.precision(given, given.copy()) == sets.recall(given, given.copy()) == 1


def test_the_distance_is_that_of_gaussians_and_of_scipys_root():
  rng = np.random.default_rng(1)
  truths, samples = rng.normal(size=(500, 4)), rng.normal(size=(400, 4))
  # Whitened, so that means and covariances are known exactly.
  truths, samples = (
    (part - part.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(part.T)).T)
    for part in (truths, samples)
  )
  deviations, shift = np.array([1.0, 2.0, 0.5, 3.0]), np.array([0.0, 1.0, -2.0, 0.5])
  expected = (shift**2).sum() + ((deviations - 2) ** 2).sum()
  assert sets.frechet(2 * truths, samples * deviations + shift) == pytest.approx(expected, rel=1e-9)
  mixed = samples @ rng.normal(size=(4, 4)) + shift
  first, second = np.cov(truths.T), np.cov(mixed.T)
  root = linalg.sqrtm(first @ second).real
  expected = (mixed.mean(axis=0) ** 2).sum() + np.trace(first + second - 2 * root)
  assert sets.frechet(truths, mixed) == pytest.approx(expected, rel=1e-9)
  assert sets.frechet(mixed, truths) == pytest.approx(expected, rel=1e-9)


def test_precision_and_recall_are_the_papers_written_out():
  rng = np.random.default_rng(2)
  truths, samples = rng.normal(size=(60, 3)), 0.7 * rng.normal(size=(50, 3)) + 0.8

  def covered(of, by):
    radii = np.sort(cdist(by, by), axis=1)[:, 3]
    return (cdist(of, by) <= radii).any(axis=1).mean()

  assert sets.precision(truths, samples) == covered(samples, truths)
  assert sets.recall(truths, samples) == covered(truths, samples)
  assert 0 < covered(samples, truths) != covered(truths, samples) < 1


def test_features_that_are_not_finite_and_too_few_images_have_no_number():
  rng = np.random.default_rng(0)
  found = rng.normal(size=(2, 6, 3))
  assert all(np.isfinite(value) for value in measure_sets(NAMES, {KEY: found}).values())
  broken = found.copy()
  broken[1, 2] = np.nan
  assert all(np.isnan(value) for value in measure_sets(NAMES, {KEY: broken}).values())
  few = measure_sets(NAMES, {KEY: found[:, :3]})
  assert [bool(np.isnan(few[name])) for name in NAMES] == [False, True, True]


def test_what_is_far_off_has_no_precision_and_what_collapses_no_recall():
  truths = np.random.default_rng(3).normal(size=(100, 5))
  assert sets.precision(truths, truths + 100) == sets.recall(truths, truths + 100) == 0
  narrow = 0.05 * np.random.default_rng(4).normal(size=(100, 5))
  assert sets.precision(truths, narrow) > 0.9
  assert sets.recall(truths, narrow) < 0.1
  shifts = [sets.precision(truths, truths[::-1] + shift) for shift in (0, 0.5, 1, 2)]
  assert shifts == sorted(shifts, reverse=True)
  assert shifts[0] == 1 > shifts[-1]


def test_features_are_of_8_bit_images_without_border_enlarged_and_averaged(weights):
  rng = np.random.default_rng(5)
  hr = jnp.asarray(rng.random((2, 70, 84, 3), np.float32))
  samples = jnp.asarray(rng.normal(0.5, 0.5, (3, 2, 70, 84, 3)), jnp.float32)
  protocol, batch = Protocol(Operator(factor=(1, 1)), 3, "bt601"), {"hr": hr, "lr": hr}
  found = features(NAMES, samples, batch, protocol, weights)
  assert list(found) == [KEY]
  assert found[KEY].shape == (4, 2, 512)
  assert measure(NAMES, samples, batch, protocol, weights) == {}
  images = jnp.concatenate([hr[None], quantise(samples)])[:, :, 3:-3, 3:-3]
  mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
  for draw, ours in zip(images, found[KEY], strict=True):
    last = weights[NAMES[0]].features((draw - mean) / deviation)[-1]
    np.testing.assert_allclose(ours, last.mean((1, 2)), rtol=1e-3, atol=1e-4)
  # A small grey image is one of 64 rows and three equal channels.
  grey = jnp.asarray(rng.random((1, 8, 12, 1), np.float32))
  small = features(NAMES, grey[None], {"hr": grey}, protocol._replace(border=0), weights)[KEY]
  large = jnp.repeat(quantise(grey), 3, axis=-1)
  large = jnp.clip(jnp.asarray(_bilinear(np.asarray(large), (64, 96))), 0, 1)
  last = weights[NAMES[0]].features((large - mean) / deviation)[-1]
  np.testing.assert_allclose(small[1], last.mean((1, 2)), rtol=1e-3, atol=1e-4)


def _bilinear(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  for axis, length in zip((1, 2), size, strict=True):
    places = (np.arange(length) + 0.5) * images.shape[axis] / length - 0.5
    interpolate = lambda v, x=places: np.interp(x, np.arange(len(v)), v)  # noqa: E731
    images = np.apply_along_axis(interpolate, axis, images)
  return images


def test_an_evaluation_measures_the_mean_over_the_draws_of_all_images(config, weights):
  operator, source = make_operator(config), open_source(config.eval.data)
  found = measurement.evaluate(noisy, source, config, operator, samples=2)
  assert [name.split("/")[0] for name in found.means] == ["psnr"] * 3 + list(NAMES)
  assert not found.values.keys() & set(NAMES)
  hr = jnp.stack([source[i]["hr"] for i in range(6)]) / 255
  lr = operator.degrade(hr)
  batch, protocol = {"hr": hr, "lr": lr}, Protocol(operator, 2, "bt601")
  each = [features(NAMES, noisy(lr, None, 2)[i : i + 1], batch, protocol, weights)[KEY] for i in range(2)]
  values = [measure_sets(NAMES, {KEY: np.asarray(part)}) for part in each]
  assert values[0]["frechet_squeeze"] < values[1]["frechet_squeeze"]
  for name in NAMES:
    assert found.means[name] == pytest.approx(np.mean([v[name] for v in values]), rel=1e-3), name


def test_processes_gather_the_features_of_all_images(config, monkeypatch):
  """Two threads stand for processes."""
  operator, source = make_operator(config), open_source(config.eval.data)
  alone = measurement.evaluate(noisy, source, config, operator, samples=2)
  mine, meet = threading.local(), threading.Barrier(2, timeout=100)
  parts: dict = {}

  def gather(part):
    parts[mine.number] = jax.tree.map(np.copy, part)
    meet.wait()
    total = jax.tree.map(np.add, parts[0], parts[1])
    meet.wait()
    return total

  def measured(number: int):
    mine.number = number
    return measurement.evaluate(noisy, source, config, operator, samples=2)

  monkeypatch.setattr(measurement.parallel, "process", lambda: (mine.number, 2))
  monkeypatch.setattr(measurement.parallel, "gather_sums", gather)
  with ThreadPoolExecutor(2) as pool:
    for found in pool.map(measured, range(2)):
      assert found.means == pytest.approx(alone.means, rel=1e-4)


def test_the_distance_rises_with_fewer_images_of_one_distribution():
  rng = np.random.default_rng(6)
  distances = [sets.frechet(*rng.normal(size=(2, count, 32))) for count in (16, 64, 1024)]
  assert distances == sorted(distances, reverse=True)


def test_too_few_images_and_missing_weights_are_refused_in_a_sentence(config, tmp_path, images, capsys):
  with pytest.raises(UserError, match="frechet_squeeze needs at least 2 images, and"):
    check_count(NAMES, 1)
  config.eval.limit = 3
  with pytest.raises(UserError, match="precision_squeeze needs at least 4 images"):
    check_evaluation(config, Sources())
  config.eval.limit = 0
  check_evaluation(config, Sources())
  config.train.update({"eval_every": 5, "eval_limit": 1})
  with pytest.raises(UserError, match="leaves 1"):
    check_evaluation(config, Sources())
  config.eval.lpips.backbone = ""
  with pytest.raises(UserError, match=r"config\.eval\.lpips\.backbone is empty: name .*, or take lpips"):
    check_evaluation(config, Sources())
  config.eval.best_by = "recall_squeeze"
  with pytest.raises(UserError, match="does not rank"):
    measure(("recall_squeeze",), *[None] * 2, Protocol(Operator(), 0, "bt601", "recall_squeeze"))
  words = ["score", str(images), f"--truth={images}", "--config.eval.metrics=('frechet_squeeze',)"]
  assert cli.main(words) == 2
  assert "config.eval.lpips.backbone" in capsys.readouterr().err


def test_a_score_and_its_table_say_of_how_many_images(images, backbone, tmp_path, capsys):
  source = open_source(_folder(images))
  rng = np.random.default_rng(7)
  (tmp_path / "samples").mkdir()
  for i in range(6):
    hr = source[i]["hr"].astype(int)
    drawn = [hr, np.clip(hr + rng.integers(-60, 60, hr.shape), 0, 255)]
    save_samples(tmp_path / "samples", i, np.stack(drawn).astype(np.uint8))
  metrics = f"--config.eval.metrics={('psnr', *NAMES)}"
  words = ["score", str(tmp_path / "samples"), f"--truth={images}", f"--out={tmp_path}", metrics]
  assert cli.main([*words, f"--config.eval.lpips.backbone={backbone}"]) == 0
  text = capsys.readouterr().out
  assert "frechet_squeeze ↓" in text
  assert f"- sets: {', '.join(NAMES)} of 6 images and as many truths" in text
  rows = json.loads((tmp_path / "evaluation" / "table.json").read_text())["rows"]
  # The first sample is the truth itself: the mean is half of what the second has.
  assert rows["samples"]["frechet_squeeze"] > 0
  assert 0.5 <= rows["samples"]["precision_squeeze"] <= 1
  assert NAMES[0] not in rows["samples, best of 2"]


def _folder(images):
  settings = base.get_config().eval.data
  settings.update({"name": "folder", "dir": str(images)})
  return settings
