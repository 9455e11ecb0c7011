"""MR-GAN: the moment loss against SciPy's density, and what it pulls samples to."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import small_runs
from sr_jax.config import check
from sr_jax.errors import UserError
from sr_jax.methods import make_method
from sr_jax.methods.mr_gan import moment_loss
from sr_jax.ops import make_operator


def images(seed: int, *shape: int) -> np.ndarray:
  return np.random.default_rng(seed).random((*shape, 4, 4, 1)).astype(np.float32)


def test_two_moments_are_the_log_density_of_the_truth_under_the_samples_gaussian():
  drawn, y = images(0, 3, 5), images(1, 3)
  deviation = np.sqrt(drawn.var(axis=1, ddof=1) + 0.01)
  density = stats.norm.logpdf(y, drawn.mean(axis=1), deviation) + np.log(2 * np.pi) / 2
  ours = moment_loss(jnp.asarray(drawn), jnp.asarray(y), 2, 0.01)
  np.testing.assert_allclose(ours, -density.mean((1, 2, 3)), rtol=1e-5)


def test_one_moment_is_the_distance_of_the_mean_and_does_not_ask_samples_to_be_alike():
  y = jnp.asarray(images(1, 3))
  spread = jnp.asarray(images(0, 3, 1)) * jnp.array([1.0, -1.0])[:, None, None, None]
  assert moment_loss(y[:, None] + spread, y, 1, 0.0) == pytest.approx(0, abs=1e-6)


def test_of_two_plausible_truths_samples_get_the_mean_and_the_deviation():
  """Half of the truths are 0, half are 1: the loss is least for mean 1/2 and deviation 1/2."""
  truths = jnp.array([0.0, 1.0])[:, None, None, None]

  def loss(mean: float, deviation: float) -> float:
    pair = mean + deviation / np.sqrt(2) * jnp.array([-1.0, 1.0])  # of that deviation, with n - 1
    return float(
      moment_loss(jnp.tile(pair[None, :, None, None, None], (2, 1, 1, 1, 1)), truths, 2, 0.0).mean()
    )

  best = loss(0.5, 0.5)
  assert best < min(loss(0.4, 0.5), loss(0.6, 0.5), loss(0.5, 0.45), loss(0.5, 0.55))


MODULE = importlib.import_module("sr_jax.methods.mr_gan")  # sr_jax.methods.mr_gan is the function


def test_a_rounds_loss_has_the_moments_of_each_inputs_own_images_and_the_adversarys(monkeypatch):
  config = small_runs.tiny("mr_gan")
  config.method.update({"moment_weight": 2.0, "variance_floor": 0.05, "samples": 3})
  operator, seen = make_operator(config), []

  def noted(drawn, y, *keys):
    jax.debug.callback(lambda a: seen.append((np.asarray(a), keys)), drawn)
    return moment_loss(drawn, y, *keys)

  monkeypatch.setattr(MODULE, "moment_loss", noted)
  method, batch = make_method(config, operator), small_runs.batch()
  state = jax.jit(method.init)(jax.random.key(0), batch)
  metrics = jax.device_get(jax.jit(method.step)(state, batch, jax.random.key(1))[1])
  jax.effects_barrier()
  assert {"critic_loss", "critic_penalty"} <= set(metrics)
  expected = 2 * metrics["moments"] + config.method.adversarial_weight * metrics["adversarial"]
  assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
  drawn, keys = seen[0]
  assert keys == (2, 0.05)
  assert drawn.shape[1] == 3
  for k in range(3):  # projected, so that each shows the input that it was drawn for
    np.testing.assert_allclose(operator.A(drawn[:, k]), operator.lr(batch), atol=1e-4)


@pytest.mark.parametrize(("moments", "number"), [("mean", 1), ("mean_variance", 2)])
def test_as_many_moments_are_fitted_as_the_key_says(moments, number, monkeypatch):
  config, seen = small_runs.tiny("mr_gan"), []
  config.method.moments = moments
  monkeypatch.setattr(MODULE, "moment_loss", lambda *given: seen.append(given[2]) or moment_loss(*given))
  method, batch = make_method(config, make_operator(config)), small_runs.batch()
  state = jax.eval_shape(method.init, jax.random.key(0), batch)
  jax.eval_shape(method.step, state, batch, jax.random.key(1))
  assert set(seen) == {number}


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"method.samples": 1}, "make it 2 or more"),
    ({"method.moments": "variance"}, "config.method.moments"),
    ({"networks.generator.latent_size": 0}, "draws nothing"),
  ],
)
def test_moments_that_cannot_be_taken_are_refused(change, message):
  config = small_runs.tiny("mr_gan")
  config.update_from_flattened_dict(change)

  def checked():
    check(config)
    return make_method(config, make_operator(config))

  with pytest.raises(UserError, match=message):
    checked()
