"""VarSR: its distributions, its critic's penalty and its loss, against mathematics."""

import importlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from small_runs import network, plain_descent, tiny
from sr_jax import losses
from sr_jax.errors import UserError
from sr_jax.method import first_state, run_round
from sr_jax.methods import make_method
from sr_jax.methods.adversary import update_critic
from sr_jax.methods.generator import train_images
from sr_jax.methods.varsr import draw
from sr_jax.networks import init, make_generator, make_network, train_pass
from sr_jax.networks.vgg import vgg_features
from sr_jax.ops import make_operator, to_float

KEY = jax.random.key(0)


def gaussian(seed: int) -> losses.Gaussian:
  keys = jax.random.split(jax.random.key(seed))
  return jax.random.normal(keys[0], (3, 5)), 0.5 * jax.random.normal(keys[1], (3, 5))


def log_density(z, of: losses.Gaussian):
  mean, log_variance = of
  return jax.scipy.stats.norm.logpdf(z, mean, jnp.exp(log_variance / 2)).sum(axis=-1)


def test_kl_is_its_monte_carlo_estimate_and_zero_of_equal_distributions():
  q, p = gaussian(0), gaussian(1)
  z = jax.vmap(partial(draw, q))(jax.random.split(KEY, 200_000))
  estimates = np.asarray(log_density(z, q) - log_density(z, p))
  error = 5 * estimates.std(axis=0) / np.sqrt(len(estimates))
  assert (np.abs(estimates.mean(axis=0) - losses.kl(q, p)) < error).all()
  np.testing.assert_allclose(losses.kl(q, q), 0, atol=1e-6)
  assert not np.allclose(losses.kl(q, p), losses.kl(p, q))


def test_draws_have_the_mean_and_the_deviation_of_their_distribution_and_a_temperature_scales_it():
  q = gaussian(0)
  for temperature in (1.0, 0.5):
    z = jax.vmap(lambda k, t=temperature: draw(q, k, t))(jax.random.split(KEY, 100_000))
    np.testing.assert_allclose(z.mean(axis=0), q[0], atol=0.03)
    np.testing.assert_allclose(z.std(axis=0), temperature * jnp.exp(q[1] / 2), rtol=0.02)


def test_the_penalty_of_a_linear_critic_is_that_of_its_slope():
  slope = jax.random.normal(KEY, (4, 4, 2))
  real, fake = (jax.random.normal(jax.random.key(i), (3, 4, 4, 2)) for i in (1, 2))
  penalty = losses.gradient_penalty(
    lambda y: jnp.vdot(slope, slope) * 0 + (y * slope).sum((1, 2, 3)), real, fake, KEY
  )
  np.testing.assert_allclose(penalty, (jnp.sqrt((slope**2).sum()) - 1) ** 2, rtol=1e-5)


def test_the_penalty_is_taken_between_real_and_fake_images():
  """Of C(y) = y^2 / 2 summed, the gradient is y itself: its norm lies between those of the two ends."""
  real, fake = jnp.full((500, 1, 1, 1), 3.0), jnp.full((500, 1, 1, 1), 5.0)
  penalty = losses.gradient_penalty(lambda y: (y**2).sum((1, 2, 3)) / 2, real, fake, KEY)
  points = jnp.sqrt(penalty) + 1
  assert 3 <= points.min() < 3.1
  assert 4.9 < points.max() <= 5


def images() -> dict[str, np.ndarray]:
  return {"hr": np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)}


def made(**keys):
  config = tiny("varsr")
  config.method.update(keys)
  operator = make_operator(config)
  return make_method(config, operator), operator, config


@pytest.fixture(scope="module")
def trained():
  method, operator, _ = made()
  state = jax.jit(method.init)(KEY, images())
  step = jax.jit(partial(run_round, method))
  for i in range(3):
    state, metrics = step(state, images(), jax.random.key(i))
  return method, operator, state, metrics


def test_the_loss_is_the_weighted_sum_of_its_terms_with_the_kl_averaged_over_the_latent(trained):
  state = trained[2]
  keys = {"pixel_weight": 2.0, "kl_weight": 3.0, "adversarial_weight": 0.5}
  method, _, config = made(**keys)
  metrics = jax.jit(partial(run_round, method))(state, images(), KEY)[1]
  size = config.networks.prior.latent_size
  expected = 2 * metrics["pixel"] + 3 * metrics["kl"] / size + 0.5 * metrics["adversarial"]
  np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
  assert metrics["kl"] > 0


@pytest.mark.parametrize("name", ["varsr", "mr_gan"])
def test_the_critic_learns_to_tell_images_apart_and_the_generator_to_be_taken_for_real(name):
  """Of one player that moves and one that stands, each pulls E C(fake) - E C(real) its own way."""

  def gap(moving: str) -> list[float]:
    config = plain_descent(name)
    others = [key for key in config.method if key.endswith("_weight") and key != "adversarial_weight"]
    config.method.update({**dict.fromkeys(others, 0.0), "adversarial_weight": 1.0})
    for role, optim in config.optim.items():
      optim.learning_rate = 1e-3 if (role == "critic") == (moving == "critic") else 0.0
    method = make_method(config, make_operator(config))
    step, state, gaps = jax.jit(partial(run_round, method)), jax.jit(method.init)(KEY, images()), []
    for _ in range(2):
      state, metrics = step(state, images(), KEY)
      gaps.append(float(metrics["critic_loss"]))
    return gaps

  before, after = gap("critic")
  assert after < before
  before, after = gap("generator")
  assert after > before


def test_the_critics_loss_has_the_penalty_by_its_weight():
  """Equation 8, of one critic with two weights; both methods hand it theirs."""
  critic = network("critic", widths=(4,), head=4)
  real, fake = (jax.random.uniform(jax.random.key(i), (2, 4, 4, 3)) for i in (1, 2))
  tx = {"critic": optax.sgd(0.0)}
  state = first_state({"critic": init(critic, KEY, real)}, tx)
  update = jax.jit(lambda weight: update_critic(critic, state, real, fake, KEY, weight, tx["critic"])[1])
  of = [update(0.0), update(10.0)]
  penalty = of[1]["critic_penalty"]
  assert penalty > 0
  np.testing.assert_allclose(of[1]["critic_loss"] - of[0]["critic_loss"], 10 * penalty, rtol=1e-3)


@pytest.mark.parametrize("name", ["varsr", "mr_gan"])
def test_a_critics_update_gets_the_penalty_weight_of_its_method(name, monkeypatch):
  config, seen = tiny(name), []
  config.method.penalty_weight = 7.0
  module = importlib.import_module(f"sr_jax.methods.{name}")
  update = module.update_critic
  monkeypatch.setattr(module, "update_critic", lambda *given: seen.append(given[5]) or update(*given))
  method = make_method(config, make_operator(config))
  state = jax.eval_shape(method.init, KEY, images())
  jax.eval_shape(method.step, state, images(), KEY)
  assert seen == [7.0]


def test_the_kl_of_a_round_is_that_of_the_posterior_from_the_prior(trained):
  method, operator, config = made(adversarial_weight=0.0)
  state = trained[2]
  state = state.replace(params={k: v for k, v in state.params.items() if k != "critic"})
  metrics = jax.jit(partial(run_round, method))(state, images(), KEY)[1]
  seen = {"posterior": to_float(images()["hr"]), "prior": operator.lr(images())}
  q, p = (
    train_pass(make_network(config, role), state.params[role], state.stats[role], image)[0]
    for role, image in seen.items()
  )
  np.testing.assert_allclose(metrics["kl"], losses.kl(q, p).mean(), rtol=1e-4)
  assert not np.isclose(losses.kl(q, p).mean(), losses.kl(p, q).mean(), rtol=1e-2)


def test_kl_trains_both_encoders_and_a_run_without_adversary_has_no_critic(trained):
  method, _, _ = made(pixel_weight=0.0, adversarial_weight=0.0, kl_weight=1.0)
  state = trained[2]
  state = state.replace(params={k: v for k, v in state.params.items() if k != "critic"})
  after, _ = jax.jit(partial(run_round, method))(state, images(), KEY)
  for role in ("posterior", "prior"):
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state.params[role], after.params[role])
    assert max(jax.tree.leaves(moved)) > 0
  fresh = jax.jit(method.init)(KEY, images())
  assert fresh.params.keys() == fresh.opt.keys() == {"generator", "posterior", "prior"}


def test_samples_are_of_the_prior_and_reconstructions_of_the_posterior(trained):
  method, operator, state, _ = trained
  x = operator.lr(images())
  mean, log_variance = method.latents.prior(state, x)
  drawn = jax.vmap(lambda key: method.latents.draw(state, x, key, 1.0))(jax.random.split(KEY, 2000))  # Eq. 4
  np.testing.assert_allclose(drawn.mean(0), mean, atol=0.15)
  np.testing.assert_allclose(drawn.std(0), jnp.exp(log_variance / 2), rtol=0.1)
  # The posterior sees the high-resolution image.
  other = images()["hr"][::-1].copy()
  losses_of = [method.objective(state, {"hr": hr, "lr": x}, KEY)["kl"] for hr in (images()["hr"], other)]
  assert not np.allclose(*losses_of)


def test_the_objective_is_the_reconstruction_from_the_posterior(trained):
  method, operator, state, _ = trained
  y, x = to_float(images()["hr"]), operator.lr(images())
  errors = {}
  for name in ("posterior", "prior"):
    latent = draw(getattr(method.latents, name)(state, y if name == "posterior" else x), KEY)
    image = operator.head(method.latents.decode(state, x, latent), x)
    errors[name] = np.square(image - y).mean((1, 2, 3))
  objective = method.objective(state, images(), KEY)["pixel"]
  np.testing.assert_allclose(objective, errors["posterior"], rtol=1e-4)
  assert not np.allclose(objective, errors["prior"], rtol=1e-3)


def test_a_round_descends_on_the_reconstruction_from_the_posterior(trained):
  """Equation 6, whose latent is drawn from q(z | I_H)."""
  method, operator, state, _ = trained
  config = made()[2]
  y, x = to_float(images()["hr"]), operator.lr(images())
  latent_key, errors = jax.random.split(KEY)[1], {}
  for role, seen in (("posterior", y), ("prior", x)):
    of, _ = train_pass(make_network(config, role), state.params[role], state.stats[role], seen)
    net, latent = make_generator(config), draw(of, latent_key)
    image, _ = train_images(net, operator, state, state.params["generator"], x, latent)
    errors[role] = np.square(image - y).mean()
  pixel = jax.jit(method.step)(state, images(), KEY)[1]["pixel"]
  np.testing.assert_allclose(pixel, errors["posterior"], rtol=1e-4)
  assert not np.allclose(pixel, errors["prior"], rtol=1e-3)


@pytest.mark.parametrize("distance", ["mean", "sum"])
def test_the_perceptual_loss_is_the_mean_or_summed_squared_distance_of_vggs_layers(distance):
  layers, weights = ("conv1_2", "conv2_2"), {"pixel_weight": 2.0, "perceptual_weight": 3.0}
  config = tiny("varsr")
  config.method.update({"adversarial_weight": 0.0, **weights})
  config.method.features.update({"layers": layers, "file": "grafted by the loop", "width": 4})
  config.method.features.distance = distance
  config.networks.generator.latent_size = 0
  operator = make_operator(config)
  method = make_method(config, operator)
  state = jax.jit(method.init)(KEY, images())
  y, x = to_float(images()["hr"]), operator.lr(images())
  image, _ = train_images(make_generator(config), operator, state, state.params["generator"], x, ())
  ours, theirs = (
    vgg_features(state.params["vgg"], v, layers, config.method.features.padding) for v in (image, y)
  )
  count = {"mean": lambda v: v.size, "sum": len}[distance]  # "sum" is of an image
  expected = sum(np.square(a - b).sum() / count(a) for a, b in zip(ours, theirs, strict=True))
  metrics = jax.jit(method.step)(state, images(), KEY)[1]
  np.testing.assert_allclose(metrics["perceptual"], expected, rtol=1e-4)
  np.testing.assert_allclose(metrics["loss"], 2 * metrics["pixel"] + 3 * metrics["perceptual"], rtol=1e-5)


def test_without_a_latent_it_is_regression():
  config = tiny("varsr")
  config.method.adversarial_weight = 0.0
  config.networks.generator.latent_size = 0
  operator = make_operator(config)
  method = make_method(config, operator)
  assert method.deterministic
  state = jax.jit(method.init)(KEY, images())
  assert state.params.keys() == {"generator"}
  plain = tiny("regression")
  plain.networks.generator, plain.optim.generator = config.networks.generator, config.optim.generator
  regression = make_method(plain, operator)
  found = [jax.jit(one.step)(state, images(), KEY)[1]["loss"] for one in (method, regression)]
  np.testing.assert_allclose(*found, rtol=1e-6)


def test_encoders_of_another_size_than_the_generators_latent_raise_a_user_error():
  config = tiny("varsr")
  config.networks.prior.latent_size = 3
  with pytest.raises(UserError, match="latent_size"):
    make_method(config, make_operator(config))


def test_instance_normalisation_is_of_each_map_of_each_image_and_leaves_single_pixels_as_they_are():
  net = network("encoder", width=3, layers=1, latent_size=2, fold=(1, 1), norm="instance")
  assert "InstanceNorm_0" not in init(net, KEY, jax.random.uniform(KEY, (2, 1, 1, 3)))[0]
  wide = jax.random.uniform(KEY, (2, 4, 4, 3))
  params, stats = init(net, KEY, wide)
  assert not stats
  dense = params["Dense_0"]  # which starts at zero
  params["Dense_0"] = dense | {"kernel": jax.random.normal(KEY, dense["kernel"].shape)}

  def means(images, scales=(1.0, 1.0, 1.0)):
    scaled = params | {"Conv_0": {name: leaf * jnp.array(scales) for name, leaf in params["Conv_0"].items()}}
    return train_pass(net, scaled, {}, images)[0][0]

  both = means(wide)
  assert np.abs(both[0] - both[1]).max() > 0.1
  np.testing.assert_allclose(jnp.concatenate([means(wide[:1]), means(wide[1:])]), both, atol=1e-5)
  np.testing.assert_allclose(means(wide, (3.0, 1.0, 0.5)), both, atol=1e-2)  # but for the epsilon
