"""Amortised MAP Inference: projections, adversary, priors and the Swiss roll, against mathematics."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import small_runs
from sr_jax.config import stage_config
from sr_jax.configs import amap_swiss_roll, base
from sr_jax.data import open_source
from sr_jax.errors import UserError
from sr_jax.method import State, run_round
from sr_jax.methods import make_method
from sr_jax.methods.amap_gan import make_anneal
from sr_jax.methods.amap_priors import denoiser_prior, density_prior
from sr_jax.networks import init, make_generator, train_pass, zero_latent
from sr_jax.networks.projection import apply_kernels, pinv_losses
from sr_jax.ops import Operator, make_operator, swiss_roll, to_float
from sr_jax.stages import plan_stages

GAUSSIAN = Operator("gaussian", (4, 4))


# The learned projection (appendix B).


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
  """Of the learned A+, by a program of its own: compiled as tests are, it would take minutes."""
  path = tmp_path_factory.mktemp("learned") / "kernels.npy"
  script = f"""
import sys
import numpy
from sr_jax.networks.projection import learn_pinv
from sr_jax.ops import Operator
numpy.save(sys.argv[1], learn_pinv({GAUSSIAN}))
"""
  environment = os.environ | {"XLA_FLAGS": ""}
  subprocess.run([sys.executable, "-c", script, str(path)], check=True, env=environment)
  return jnp.asarray(np.load(path))


@pytest.fixture
def learnt(kernels, monkeypatch):
  """Runs of these tests take A+ from there."""
  monkeypatch.setattr("sr_jax.networks.projection.learn_pinv", lambda operator, kernel: kernels)


def test_the_learned_pseudo_inverse_solves_equation_23_at_sizes_it_was_not_trained_on(kernels):
  assert kernels.shape == (5, 5, 1, 16)
  x = jax.random.normal(jax.random.key(0), (4, 13, 20, 3))
  y = jax.random.normal(jax.random.key(1), (4, 52, 80, 3))
  l1, l2 = pinv_losses(kernels, GAUSSIAN, y, x)
  assert l1 < 1e-9
  assert l2 < 1e-6
  np.testing.assert_allclose(GAUSSIAN.A(apply_kernels(kernels, x, (4, 4))), x, atol=1e-3)
  untrained = pinv_losses(jnp.zeros_like(kernels).at[2, 2].set(1.0), GAUSSIAN, y, x)
  assert untrained[0] > 1e-4


def learned(trainable: bool, start: str):
  config = base.get_config("regression", generator="convnet")
  config.networks.generator.update({"widths": (8,), "norm": "none"})
  config.operator.update({"kernel": "gaussian", "rounding": "none"})
  config.consistency = "learned"
  config.projection.update({"trainable": trainable, "start": start})
  net = make_generator(config)
  x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))
  return net, x, *init(net, jax.random.key(1), x, zero_latent(net, x))


@pytest.mark.usefixtures("learnt")
@pytest.mark.parametrize("trainable", [True, False])
def test_a_learned_projection_moves_only_if_it_is_trainable(trainable):
  net, x, params, stats = learned(trainable, "trained")

  def loss(p):
    return jnp.sum(jnp.square(train_pass(net, p, stats, x, zero_latent(net, x))[0]))

  moves = np.abs(jax.grad(loss)(params)["pinv"]).max() > 0
  assert moves == trainable


@pytest.mark.usefixtures("learnt")
def test_a_trained_projection_starts_consistent_and_a_random_one_does_not():
  for start, bound in (("trained", 1e-6), ("random", np.inf)):
    net, x, params, stats = learned(False, start)
    y = train_pass(net, params, stats, x, zero_latent(net, x))[0]
    miss = float(jnp.square(GAUSSIAN.A(y) - x).mean())
    assert miss < bound
  assert miss > 1e-3  # the random one


def test_the_gradient_through_the_projection_is_its_high_pass_part():
  """Appendix B.2: d project(f, x) / df = I - A+A, a symmetric projector for the Moore-Penrose inverse."""
  operator = Operator("gaussian", (4, 4), consistency="project")
  f, x = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(1, 16, 12, 1), (1, 4, 3, 1)]))
  g = jax.random.normal(jax.random.key(2), f.shape)
  gradient = jax.grad(lambda f: jnp.vdot(operator.head(f, x), g))(f)
  np.testing.assert_allclose(gradient, g - operator.pinv(operator.A(g)), atol=1e-5)
  assert np.abs(operator.A(gradient)).max() < 1e-5


@pytest.mark.parametrize(("name", "distance"), [("mse", np.square), ("mae", np.abs)])
def test_regression_descends_on_the_error_that_it_is_named_after(name, distance):
  """Eq. 1, for p = 2 and p = 1; without batch normalisation a round's loss is the held-out one."""
  config = amap_swiss_roll.get_config(name)
  operator = make_operator(config)
  method = make_method(config, operator)
  batch = {"hr": jnp.asarray(swiss_roll.draw(np.random.default_rng(0), 40))}
  state = jax.jit(method.init)(jax.random.key(0), batch)
  y = method.sample(state, operator.lr(batch), jax.random.key(0), n=1)[0]
  errors = distance(np.asarray(y - batch["hr"])).mean(axis=(1, 2, 3))
  np.testing.assert_allclose(
    jax.jit(method.objective)(state, batch, jax.random.key(0))[name], errors, rtol=1e-5
  )
  loss = jax.jit(method.step)(state, batch, jax.random.key(0))[1]["loss"]
  np.testing.assert_allclose(loss, errors.mean(), rtol=1e-5)


# The adversary (Eq. 10, appendix C).


def noise(**keys):
  config = base.get_config("amap_gan", generator="convnet").method.noise
  config.update(keys)
  return config


@pytest.mark.parametrize(("anneal", "middle"), [("linear", 1.05), ("exponential", np.sqrt(0.2))])
def test_instance_noise_falls_from_start_to_end(anneal, middle):
  sigma = make_anneal(noise(anneal=anneal, start=2.0, end=0.1, until=0.5), rounds=100)
  at = [float(sigma(jnp.int32(step), jnp.float32(0), jnp.float32(0))) for step in (0, 25, 50, 100)]
  np.testing.assert_allclose(at, [2.0, middle, 0.1, 0.1], rtol=1e-5)


def test_the_constant_loss_heuristic_adds_noise_when_the_discriminator_wins_and_stays_in_its_bounds():
  sigma = make_anneal(noise(anneal="constant_loss", start=1.0, end=0.01, target=1.0, rate=0.1), rounds=100)
  step, now = jnp.int32(5), jnp.float32(0.5)
  assert sigma(step, now, jnp.float32(0.2)) > now
  assert sigma(step, now, jnp.float32(1.3)) < now
  np.testing.assert_allclose(sigma(step, now, jnp.float32(1.0)), now)
  assert sigma(step, jnp.float32(1.0), jnp.float32(0.0)) == 1.0
  np.testing.assert_allclose(sigma(step, jnp.float32(0.01), jnp.float32(9.0)), 0.01)


def test_a_trained_discriminator_estimates_the_log_ratio_that_the_generator_descends_on():
  """Appendix A: at the optimum of Eq. 10 the logit is log p / q; here N(0, s^2) and N(d, s^2)."""
  config = amap_swiss_roll.get_config("affgan")
  config.train.update({"rounds": 600, "batch": 1024})
  config.method.discriminator_updates = 1
  config.method.noise.update({"start": 0.5, "end": 0.5, "anneal": "linear"})
  config.optim.generator.learning_rate = 0.0
  config.optim.discriminator.learning_rate = 1e-2
  operator = make_operator(config)
  method = make_method(config, operator)
  # y = 0 everywhere, so that x = 0, G(x) = (d, -d), and with noise p = N(0, I / 4), q = N((d, -d), I / 4).
  batch = {"hr": jnp.zeros((1024, 1, 2, 1)), "index": jnp.arange(1024)}
  state = jax.jit(method.init)(jax.random.key(0), batch)
  outputs = jnp.array([0.35, -0.35])  # the last layer's bias is the only leaf of that shape
  generator = jax.tree.map(lambda v: outputs if v.shape == (2,) else v, state.params["generator"])
  state = state.replace(params=state.params | {"generator": generator})
  step = jax.jit(partial(run_round, method))
  for i in range(600):
    state, metrics = step(state, batch, jax.random.key(i))
  y = method.sample(state, operator.lr(batch), jax.random.key(0), n=1)[0]
  np.testing.assert_allclose(y[0].ravel(), [0.35, -0.35], atol=0.02)
  # log q / p at the point itself is d^2 / s^2 = 0.49.
  log_ratio = jax.jit(method.objective)(state, batch, jax.random.key(0))["log_ratio"]
  assert abs(float(log_ratio.mean()) - 0.49) < 0.1
  assert abs(float(metrics["loss"]) - 0.49) < 0.25  # KL[q || p], of noisy images


def test_both_players_see_their_images_with_the_instance_noise_of_the_round():
  config = small_runs.tiny("amap_gan")
  config.optim.discriminator.learning_rate = 0.0  # so that the generator's loss has its own noise alone
  method, batch = make_method(config, make_operator(config)), small_runs.batch()
  state = jax.jit(method.init)(jax.random.key(0), batch)
  step = jax.jit(partial(run_round, method))
  lr = np.asarray(make_operator(config).lr(batch))

  def losses(sigma: float, **changed) -> np.ndarray:
    noisy = state.replace(aux={"noise": jnp.float32(sigma)})
    metrics = step(noisy, {**batch, "lr": lr, **changed}, jax.random.key(1))[1]
    return np.array([metrics[name] for name in ("lr_l1", "loss", "discriminator_loss")])

  clean, noisy = losses(0.0), losses(1.0)
  assert clean[0] == noisy[0]  # the same images
  assert np.all(clean[1:] != noisy[1:])
  # Where noise is all that can be seen, neither real images nor those of other inputs make a difference.
  for changed in ({"hr": 255 - batch["hr"]}, {"lr": 1 - lr}):
    assert abs(losses(0.0, **changed) - clean)[2] > 1e-2
    np.testing.assert_allclose(losses(1e4, **changed)[1:], losses(1e4)[1:], rtol=1e-2)


@pytest.mark.parametrize(
  "keys", [{"start": 0.1, "end": 0.2}, {"start": 0.1, "end": -0.1}, {"end": 0.0, "anneal": "exponential"}]
)
def test_noise_that_does_not_fall_raises_a_user_error(keys):
  with pytest.raises(UserError, match="must fall"):
    make_anneal(noise(**keys), rounds=10)


def test_the_discriminator_judges_the_centre_of_larger_images():
  config = base.get_config("amap_gan", generator="convnet")
  config.networks.generator.widths = (4,)
  config.networks.discriminator.update({"widths": (4, 4), "strides": (2, 2)})
  config.data.crop = (16, 16)
  config.train.batch = 4
  method = make_method(config, make_operator(config))
  batch = {size: {"hr": jnp.zeros((4, size, size, 3), jnp.uint8)} for size in (16, 24)}
  state = jax.jit(method.init)(jax.random.key(0), batch[16])
  for value in jax.jit(method.objective)(state, batch[24], jax.random.key(0)).values():
    assert value.shape == (4,)


@pytest.mark.parametrize("variant", ["softgan", "softdg"])
def test_soft_consistency_is_the_mean_absolute_error_in_low_resolution(variant):
  config = amap_swiss_roll.get_config(variant)
  config.train.batch = 40
  if variant == "softgan":
    config.method.discriminator_updates = 1
  config.optim.generator.learning_rate = 0.0
  operator = make_operator(config)
  batch = {"hr": jnp.asarray(swiss_roll.draw(np.random.default_rng(0), 40)), "index": jnp.arange(40)}
  losses = {}
  for weight in (0.0, 10.0):
    config.method.soft_weight = weight
    method = make_method(config, operator)
    state = jax.jit(method.init)(jax.random.key(0), batch)
    _, losses[weight] = jax.jit(partial(run_round, method))(state, batch, jax.random.key(0))
  np.testing.assert_allclose(losses[10.0]["loss"] - losses[0.0]["loss"], 10 * losses[0.0]["lr_l1"], rtol=1e-4)
  x = operator.lr(batch)
  y = method.sample(state, x, jax.random.key(0), n=1)[0]
  # One update of the discriminator a round: its only part is the whole batch.
  np.testing.assert_allclose(losses[0.0]["lr_l1"], np.abs(y.mean(axis=2) - x[:, :, 0]).mean(), rtol=1e-4)
  objective = jax.jit(method.objective)(state, batch, jax.random.key(0))["lr_l1"]
  np.testing.assert_allclose(objective, np.abs(y.mean(axis=2) - x[:, :, 0])[:, 0, 0], rtol=1e-5)


# Priors (Eq. 12, appendix D).


def denoiser_config(widths: tuple[int, ...] = (8,), rounds: int = 6, **keys):
  """The stage of a denoiser of the Swiss roll with one level of noise, 0.5."""
  config = amap_swiss_roll.get_config("affdg")
  config.method.update({"start": 0.5, "end": 0.5, "snapshots": 1, **keys})
  config.networks.prior.widths = widths
  config.stages.prior.train.rounds = rounds
  config.stages.prior.optim.prior.learning_rate = 1e-2
  return stage_config(config, "prior")


def test_the_optimal_denoisers_direction_is_the_score_of_a_gaussian():
  """For y ~ N(0, s^2) the best denoiser is y s^2 / (s^2 + sigma^2), the score -y / (s^2 + sigma^2)."""
  s, sigma = 1.5, 0.5
  prior = denoiser_prior(denoiser_config())
  y = jax.random.normal(jax.random.key(0), (5, 1, 2, 1))

  def energy(y):
    return prior.energy(lambda v: v * s**2 / (s**2 + sigma**2), y, jax.random.key(0), sigma).sum()

  np.testing.assert_allclose(-jax.grad(energy)(y), -y / (s**2 + sigma**2), rtol=1e-5)


@pytest.mark.parametrize("seen", ["clean", "noisy"])
def test_the_denoiser_sees_noise_while_it_guides_only_if_asked(seen):
  """Eq. 29 against Eq. 12, for f(v) = v / 4: the noise moves the score by e / (4 sigma)."""
  config = amap_swiss_roll.get_config("affdg")
  config.method.update({"start": 0.5, "end": 0.5, "snapshots": 1, "input": seen})
  prior, sigma = denoiser_prior(config), 0.5
  y = jnp.ones((4000, 1, 2, 1))
  score = -jax.grad(lambda y: prior.energy(lambda v: v / 4, y, jax.random.key(0), sigma).sum())(y)
  assert float(score.mean()) == pytest.approx(-0.75 / sigma**2, abs=0.05)
  assert float(score.std()) == pytest.approx(0.25 / sigma if seen == "noisy" else 0.0, abs=0.02)


def test_a_generator_is_guided_by_the_coarsest_snapshot_first_and_the_finest_last():
  config = amap_swiss_roll.get_config("affdg")
  config.method.snapshots = 2
  config.networks.prior.widths = (4,)
  config.train.rounds = 4
  assert np.all(np.diff(denoiser_prior(config).sigmas) < 0)
  method = make_method(config, make_operator(config))
  batch = {"hr": jnp.ones((8, 1, 2, 1))}
  state = jax.jit(method.init)(jax.random.key(0), batch)

  def at(step: int, changed: int | None = None) -> State:
    """Before round `step`, perhaps with other weights in one snapshot."""
    snapshots = state.params["snapshots"]
    if changed is not None:
      net = jax.tree.map(lambda v: v.at[changed].add(1.0), snapshots["net"])
      snapshots = snapshots | {"net": net}
    return state.replace(step=jnp.int32(step), params=state.params | {"snapshots": snapshots})

  def loss(state: State) -> float:
    return float(jax.jit(method.step)(state, batch, jax.random.key(1))[1]["loss"])

  for step, guide in ((0, 0), (1, 0), (2, 1), (3, 1)):
    assert loss(at(step, guide)) != loss(at(step))
    assert loss(at(step, 1 - guide)) == loss(at(step))
  judged = [method.objective(at(0, i), batch, jax.random.key(1))["score_norm"] for i in (None, 0, 1)]
  np.testing.assert_array_equal(judged[0], judged[1])  # by the finest alone, whatever the round
  assert not np.any(judged[0] == judged[2])


def test_a_denoiser_trained_on_a_gaussian_points_along_its_score():
  config = denoiser_config((32, 32), 400, start=2.0, end=2.0)
  method = make_method(config, make_operator(config))
  draw = jax.random.normal(jax.random.key(9), (400, 256, 1, 2, 1))
  state = jax.jit(method.init)(jax.random.key(0), {"hr": draw[0]})
  step = jax.jit(partial(run_round, method))
  for i in range(400):
    state, _ = step(state, {"hr": draw[i]}, jax.random.key(i))
  prior = denoiser_prior(config)
  y = jnp.stack([jnp.linspace(-3, 3, 7), jnp.linspace(2, -2, 7)], axis=1)[:, None, :, None]

  def energy(y):
    net = lambda v: prior.net.apply({"params": state.params["prior"]}, v, False)  # noqa: E731
    return prior.energy(net, y, jax.random.key(0), 2.0).sum()

  np.testing.assert_allclose(-jax.grad(energy)(y), -y / (1 + 2.0**2), atol=0.04)
  # The last snapshot is the trained denoiser.
  kept = jax.tree.map(lambda v: v[-1], state.params["snapshots"]["net"])
  assert all(
    np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (kept, state.params["prior"])), strict=True)
  )


def test_a_priors_training_loss_is_the_mean_of_its_objective():
  """With one noise level and without batch normalisation both are the same function."""
  config = denoiser_config()
  method = make_method(config, make_operator(config))
  batch = {"hr": jax.random.normal(jax.random.key(3), (8, 1, 2, 1))}
  state = jax.jit(method.init)(jax.random.key(0), batch)
  _, metrics = jax.jit(method.step)(state, batch, jax.random.key(1))
  losses = jax.jit(method.objective)(state, batch, jax.random.key(1))["denoising_mse"]
  np.testing.assert_allclose(metrics["loss"], losses.mean(), rtol=1e-5)


def test_a_snapshot_is_the_network_at_the_end_of_its_part_of_the_rounds():
  config = denoiser_config((4,), start=2.0, end=0.5, snapshots=2)
  method = make_method(config, make_operator(config))
  batch = {"hr": jnp.ones((8, 1, 2, 1))}
  state = jax.jit(method.init)(jax.random.key(0), batch)
  step, at = jax.jit(partial(run_round, method)), []
  for i in range(6):
    state, _ = step(state, batch, jax.random.key(i))
    at.append(jax.tree.leaves(state.params["prior"]))
  kept = state.params["snapshots"]
  for number, round_of_it in ((0, 2), (1, 5)):
    ours = [leaf[number] for leaf in jax.tree.leaves(kept["net"])]
    assert all(np.array_equal(a, b) for a, b in zip(ours, at[round_of_it], strict=True))
  np.testing.assert_allclose(kept["sigmas"], [2.0, 0.5])
  # The snapshots are what guides, so an average of the weights would be measured in vain.
  config.average = 0.9
  with pytest.raises(UserError, match=r"config\.average is 0\.9, but the snapshots"):
    make_method(config, make_operator(config))
  config = base.get_config("amap_dg", generator="convnet")
  config.average = 0.9
  assert [stage.config.average for stage in plan_stages(config, "run")] == [0.0, 0.9]


def test_bits_per_dimension_count_grey_levels():
  config = base.get_config("amap_ll", generator="convnet")
  prior = density_prior(config)
  batch = {"hr": jnp.zeros((3, 4, 4, 3), jnp.uint8)}
  # A density of 1 on [0, 1] gives each of 255 steps the same.
  bits = prior.objective(jnp.zeros_like, batch, jax.random.key(0), jnp.float32(1))["bits_per_dim"]
  np.testing.assert_allclose(bits, np.log2(255), rtol=1e-6)
  # One of e is 1 / log 2 bits less, for real images and for those that are judged.
  nat = prior.objective(jnp.ones_like, batch, jax.random.key(0), jnp.float32(1))["bits_per_dim"]
  judged = prior.judge(jnp.ones_like, jnp.zeros((3, 4, 4, 3)), jax.random.key(0), jnp.float32(1))[
    "bits_per_dim"
  ]
  for bits in (nat, judged):
    np.testing.assert_allclose(bits, np.log2(255) - 1 / np.log(2), rtol=1e-6)


def test_a_density_is_learned_of_grey_levels_spread_evenly_over_their_step():
  prior = density_prior(base.get_config("amap_ll", generator="convnet"))
  batch = {"hr": jnp.full((3, 32, 32, 3), 128, jnp.uint8)}
  for power, moment in ((1, 0), (2, 1 / 12)):  # of the uniform distribution from -1/2 to 1/2
    loss, _ = prior.loss(
      lambda y, power=power: ((255 * y - 128) ** power, None), batch, jax.random.key(0), jnp.float32(0)
    )
    np.testing.assert_allclose(-loss.mean(), moment, atol=0.01)


def test_a_densitys_energy_is_the_negative_log_probability_of_the_whole_image():
  """Eq. 32 sums over the sub-pixels: a mean would give a soft model's consistency a weight of its own."""
  prior = density_prior(base.get_config("amap_ll", generator="convnet"))
  y = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
  energy = prior.energy(jax.scipy.stats.norm.logpdf, y, jax.random.key(1), jnp.float32(0))
  np.testing.assert_allclose(energy, -jax.scipy.stats.norm.logpdf(y).sum((1, 2, 3)), rtol=1e-5)


# The Swiss roll (section 5.1).


def test_the_swiss_rolls_density_integrates_to_one():
  side = np.arange(-13, 13, 0.1, dtype=np.float32)
  grid = np.stack(np.meshgrid(side, side), axis=-1)[:, :, None, :, None]
  total = sum(float(jnp.exp(swiss_roll.log_density(row)).sum()) for row in grid) * 0.1**2
  assert abs(total - 1) < 1e-3


def test_the_swiss_rolls_density_is_what_the_papers_estimate_tends_to():
  """A kernel density of 50,000 noiseless draws with bandwidth 0.2 (appendix D)."""
  rng = np.random.default_rng(0)
  angle = rng.normal(10, 3, 50_000)
  centres = 0.4 * angle[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
  points = swiss_roll.draw(rng, 300)
  squared = ((points[:, 0, None, :, 0] - centres) ** 2).sum(axis=-1)
  estimate = np.log(np.exp(-squared / 0.08).mean(axis=1) / (2 * np.pi * 0.04))
  ours = np.asarray(swiss_roll.log_density(points))
  assert abs(estimate.mean() - ours.mean()) < 0.02
  assert np.median(np.abs(estimate - ours)) < 0.05


def test_the_swiss_rolls_draws_have_the_deviations_of_equations_33_to_35():
  y = swiss_roll.draw(np.random.default_rng(0), 20_000)[:, 0, :, 0]
  radius, angle = np.hypot(*y.T), np.arctan2(y[:, 1], y[:, 0])
  np.testing.assert_allclose([radius.mean(), radius.std()], [4, np.hypot(0.4 * 3, 0.2)], rtol=0.02)
  turn = 0.4 * 2 * np.pi  # between two turns, far more than the noise
  noise = (radius - 0.4 * angle + turn / 2) % turn - turn / 2
  np.testing.assert_allclose(noise.std(), 0.2, rtol=0.03)


def test_the_mode_is_consistent_and_nothing_on_its_line_is_more_probable():
  x = jnp.linspace(-6, 6, 9).reshape(-1, 1, 1, 1)
  y = swiss_roll.mode(x)
  np.testing.assert_allclose(y.mean(axis=2, keepdims=True), x, atol=1e-5)
  t = np.linspace(-14, 14, 5001, dtype=np.float32)
  for mean, best in zip(x.ravel(), swiss_roll.log_density(y), strict=True):
    line = jnp.stack([mean + t, mean - t], axis=-1)[:, None, :, None]
    assert swiss_roll.log_density(line).max() < best + 1e-3


def test_the_swiss_roll_is_unbounded_float_data_of_one_by_two_pixels():
  config = amap_swiss_roll.get_config("mse")
  source = open_source(config.data)
  assert len(source) == 50_000
  record = source[0]["hr"]
  assert record.shape == (1, 2, 1)
  assert record.dtype == np.float32
  np.testing.assert_array_equal(to_float(record), record)
  assert np.abs(source.hr).max() > 5
  config.data.split = "trian"
  with pytest.raises(UserError, match="train"):
    open_source(config.data)
