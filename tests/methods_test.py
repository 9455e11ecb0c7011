"""One conformance suite over every entry of METHODS: what the loop and the evaluator rely on."""

import functools
import re

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from small_runs import batch, plain_descent, tiny
from sr_jax import graft, parallel
from sr_jax.config import check
from sr_jax.configs import base
from sr_jax.errors import UserError
from sr_jax.method import Averaged, Latents, Method, State, averaged, drawing_networks, optimiser, run_round
from sr_jax.methods import METHODS, make_method
from sr_jax.ops import Operator, make_operator
from sr_jax.run import Run

BATCH, SIZE = 8, 16
# More than a batch is kept for, so that every kind of round is among them.
ROUNDS = 6
# Whose samples differ.
STOCHASTIC = {"srim", "amap_gan", "pixel_recursive", "pixel_independent", "varsr", "mr_gan", "srmap"}
DRAWING = {"srim", "amap_gan", "denoiser", "density", "varsr", "mr_gan", "srmap"}  # whose rounds draw


@functools.cache
def made(name: str) -> tuple[Method, Operator]:
  config = tiny(name)
  operator = make_operator(config)
  return make_method(config, operator), operator


@functools.cache
def programs(name: str):
  """(init, step, batch): of one device, compiled once, with the key as an argument."""
  method, _ = made(name)
  data = parallel.put_batch(batch(), parallel.make_mesh(jax.devices()[:1]))
  key = jax.random.key(0)
  init = jax.jit(method.init).lower(key, data).compile()
  step = jax.jit(
    functools.partial(run_round, method),
    donate_argnums=0,
    compiler_options=parallel.training_options("cpu"),
  )
  return init, step.lower(init(key, data), data, key).compile(), data


def round_key(step: int, seed: int = 0) -> jax.Array:
  """The key of a round of a run."""
  return jax.random.fold_in(parallel.keys(seed)[1], step)


def run(name: str, rounds: int, seed: int = 0) -> State:
  init, step, data = programs(name)
  state = init(parallel.keys(seed)[0], data)
  for number in range(rounds):
    state, _ = step(state, data, round_key(number, seed))
  return state


def fresh(name: str, method: Method) -> State:
  """`run(name, 0)` with the optimisers of a `method` of plain descent, whose state is zeros."""
  opt = jax.eval_shape(method.init, jax.random.key(0), batch()).opt
  return run(name, 0).replace(opt=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), opt))


def loss_alone(method: Method):
  """The loss of a round, compiled without what only moves the networks."""
  return jax.jit(lambda *arguments: run_round(method, *arguments)[1]["loss"])


def equal(a, b) -> bool:
  return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@functools.cache
def sampler(name: str):
  method, _ = made(name)
  return jax.jit(method.sample, static_argnames=("n", "temperature"))


every_method = pytest.mark.parametrize("name", METHODS)
# Helpers draw nothing.
every_sampler = pytest.mark.parametrize("name", [name for name in METHODS if made(name)[0].sample])


@every_sampler
def test_samples_have_the_shape_of_the_high_resolution_images(name):
  method, operator = made(name)
  assert method.rounds_per_batch < ROUNDS
  x = operator.lr(batch())
  y = sampler(name)(run(name, 1), x, jax.random.key(0), n=2)
  assert y.shape == (2, BATCH, SIZE, SIZE, 3)
  assert y.dtype == jnp.float32
  assert np.isfinite(y).all()


@every_sampler
def test_projected_samples_return_the_input(name):
  _, operator = made(name)
  x = operator.lr(batch())
  y = sampler(name)(run(name, 2), x, jax.random.key(0), n=2)
  assert np.square(operator.A(y) - x).mean() < 1e-12


@every_sampler
def test_sampling_is_deterministic_in_its_key_and_its_spread_is_that_of_the_temperature(name):
  _, operator = made(name)
  x, state, draw = operator.lr(batch()), run(name, 1), sampler(name)
  first = draw(state, x, jax.random.key(0), n=2)
  assert equal(first, draw(state, x, jax.random.key(0), n=2))
  stochastic = not equal(first[0], first[1])
  assert stochastic == (not equal(first, draw(state, x, jax.random.key(1), n=2)))
  assert stochastic == (name in STOCHASTIC) == (not made(name)[0].deterministic)
  cold = draw(state, x, jax.random.key(0), n=2, temperature=0.0)
  assert equal(cold[0], cold[1])
  if latents := made(name)[0].latents:
    mean, half, whole = (latents.draw(state, x, jax.random.key(0), t) for t in (0.0, 0.5, 1.0))
    for low, middle, high in zip(*map(jax.tree.leaves, (mean, half, whole)), strict=True):
      np.testing.assert_allclose(middle - low, (high - low) / 2, atol=1e-6)


@every_method
def test_trained_networks_move_and_frozen_ones_do_not(name):
  before, after = run(name, 0), run(name, ROUNDS)
  for network, params in before.params.items():
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), params, after.params[network])
    trained = network in before.opt
    method = made(name)[0]
    # Snapshots are copies of a trained network, made by the helper that needs none.
    copied = network == "snapshots" and not method.needs
    assert trained != (network in method.weights or network in method.needs or copied)
    if copied:
      moved, trained = moved["net"], True
    assert all(m == trained for m in jax.tree.leaves(moved)), network


@every_method
def test_the_same_key_gives_the_same_run_and_no_state_is_kept_outside_state(name):
  assert equal(run(name, ROUNDS), run(name, ROUNDS))


@every_method
def test_another_seed_gives_another_start_and_another_round_of_a_method_that_draws(name):
  assert not equal(run(name, 0).params, run(name, 0, seed=1).params)
  _, step, data = programs(name)
  rounds = [step(run(name, 0), data, round_key(0, seed))[0] for seed in (0, 1)]
  assert equal(*rounds) == (name not in DRAWING)


def test_the_programs_of_a_run_take_their_keys_from_its_seed_and_round():
  mesh = parallel.make_mesh(jax.devices()[:1])
  method, data = made("denoiser")[0], programs("denoiser")[2]
  state = parallel.compile_init(method, mesh, 1)(data)
  assert equal(state, run("denoiser", 0, seed=1))
  step = parallel.compile_step(method, mesh, 1)
  for _ in range(2):
    state, _ = step(state, data)
  assert equal(state, run("denoiser", 2, seed=1))


@every_method
def test_a_state_that_went_through_the_host_goes_on_as_if_it_had_not(name):
  _, step, data = programs(name)
  state = run(name, 0)
  for number in range(ROUNDS):
    state = jax.device_put(jax.tree.map(np.array, jax.device_get(state)))
    state, metrics = step(state, data, round_key(number))
  assert equal(state, run(name, ROUNDS))
  assert {v.dtype for v in metrics.values()} == {np.dtype(np.float32)}
  assert {v.shape for v in metrics.values()} == {()}
  assert int(state.step) == ROUNDS


@every_method
def test_one_device_equals_four(name):
  config = plain_descent(name)
  method = make_method(config, make_operator(config))
  moves, rest = [], []
  for count in (1, 4):
    mesh = parallel.make_mesh(jax.devices()[:count])
    data = parallel.put_batch(batch(), mesh)
    start = jax.device_get(fresh(name, method))
    state = jax.device_put(start, parallel.replicated(mesh))
    step = parallel.compile_step(method, mesh, 0).lower(state, data).compile()
    assert "collective-permute" not in step.as_text()  # images stay where they are
    for _ in range(ROUNDS):
      state, _ = step(state, data)
    end = jax.device_get(state)
    trained = [[state.params[network] for network in end.opt] for state in (end, start)]
    moved = jax.tree.map(np.subtract, *trained)
    moves.append(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(moved)]))
    rest.append(jax.tree.leaves((end.stats, end.aux)))
  assert np.linalg.norm(moves[0]) > 1e-4
  assert np.linalg.norm(moves[0] - moves[1]) < 1e-3 * np.linalg.norm(moves[0])
  for one, four in zip(*rest, strict=True):
    np.testing.assert_allclose(one, four, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("amap_gan", "srmap")])
def test_the_objective_is_one_finite_number_per_example_and_falls_in_training(name):
  """But of those whose opponent learns too."""
  method, _ = made(name)
  objective = jax.jit(method.objective)
  data = programs(name)[2]
  before = objective(run(name, 0), data, jax.random.key(0))
  after = objective(run(name, 40), data, jax.random.key(0))
  for key, value in before.items():
    assert value.shape == (BATCH,)
    assert np.isfinite(value).all()
    assert np.isfinite(after[key]).all()
    assert key in ("lr_l1", "kl") or after[key].mean() < value.mean()


@every_sampler
def test_what_a_method_thinks_of_images_depends_on_them(name):
  method, operator = made(name)
  x, others = operator.lr(batch()), batch(1)["hr"]
  judge = jax.jit(method.judge or method.objective)
  judged = [
    judge(run(name, 1), {**batch(), "hr": hr, "lr": x}, jax.random.key(0)) for hr in (batch()["hr"], others)
  ]
  differ = {key: bool(np.any(judged[0][key] != judged[1][key])) for key in judged[0]}
  assert all(differ.values()), differ


@pytest.mark.parametrize("name", sorted(STOCHASTIC))
def test_images_of_a_batch_are_drawn_with_noise_of_their_own(name):
  """One input twice in a batch: a stochastic method gives it two answers in one draw."""
  _, operator = made(name)
  x = jnp.repeat(operator.lr(batch())[:1], 2, axis=0)
  y = sampler(name)(run(name, 1), x, jax.random.key(0), n=1)[0]
  assert not np.allclose(y[0], y[1])


@every_sampler
def test_the_projection_is_part_of_training(name):
  """A likelihood of bytes aside: there only samples are projected."""
  config, state = tiny(name), run(name, 0)
  config.consistency = "none"
  method = make_method(config, make_operator(config))
  free = loss_alone(method)(state, batch(), round_key(0))
  _, step, data = programs(name)
  projected = step(run(name, 0), data, round_key(0))[1]["loss"]
  assert (abs(float(free) - float(projected)) > 1e-4 * abs(float(free))) == (not name.startswith("pixel"))


@every_method
def test_metrics_name_the_number_of_images_that_a_round_learned_from(name):
  _, step, data = programs(name)
  state, counts = run(name, 0), []
  for number in range(ROUNDS):
    state, metrics = step(state, data, round_key(number))
    counts.append(float(metrics["images"]))
  expected = {"srim": {0.0, float(tiny("srim").method.minibatch)}, "srmap": {BATCH / 2}}
  assert set(counts) == expected.get(name, {float(BATCH)})


@every_method
def test_bfloat16_keeps_float32_parameters_and_is_close_to_float32(name):
  config = tiny(name)
  config.dtype = "bfloat16"
  operator = make_operator(config)
  method = make_method(config, operator)
  state = run(name, 0)
  shapes = jax.eval_shape(method.init, jax.random.key(0), batch())
  assert jax.tree.map(lambda v: (v.shape, v.dtype), shapes) == jax.tree.map(
    lambda v: (v.shape, v.dtype), state
  )
  after, _ = jax.eval_shape(functools.partial(run_round, method), state, batch(), round_key(0))
  assert jax.tree.map(lambda v: v.dtype, after) == jax.tree.map(lambda v: v.dtype, state)
  program = loss_alone(method).lower(state, batch(), round_key(0))
  assert re.search("convolution.*xbf16>", program.as_text())
  loss = program.compile()(state, batch(), round_key(0))
  _, step, data = programs(name)
  exact = step(run(name, 0), data, round_key(0))[1]["loss"]
  assert float(loss) == pytest.approx(float(exact), rel=0.1, abs=0.1)
  if method.sample:
    y = jax.jit(method.sample, static_argnames="n")(state, operator.lr(batch()), jax.random.key(0), n=2)
    assert y.dtype == jnp.float32
    assert np.isfinite(y).all()


def test_training_in_bfloat16_moves_the_network_as_in_float32():
  moved = []
  for dtype in ("float32", "bfloat16"):
    config = plain_descent("regression")
    config.dtype = dtype
    method = make_method(config, make_operator(config))
    state = start = jax.jit(method.init)(jax.random.key(0), batch())
    step = jax.jit(functools.partial(run_round, method))
    for number in range(ROUNDS):
      state, _ = step(state, batch(), round_key(number))
    moved.append(jax.flatten_util.ravel_pytree(jax.tree.map(jnp.subtract, state.params, start.params))[0])
  assert np.linalg.norm(moved[0]) > 1e-4
  assert np.linalg.norm(moved[0] - moved[1]) < 0.1 * np.linalg.norm(moved[0])


# The optimiser


def steps(updates: int = 11, gradient: float = 1.0, rounds: int = 10, **keys) -> list[float]:
  """What plain gradient descent at a rate of 1 takes off a number at each update."""
  optim = base.get_config().optim
  optim.generator.update({"name": "sgd", "learning_rate": 1.0, **keys})
  tx = optimiser(optim, "generator", rounds)
  state, taken = tx.init(jnp.zeros(())), []
  for _ in range(updates):
    update, state = tx.update(jnp.float32(gradient), state)
    taken.append(-float(update))
  return taken


@pytest.mark.parametrize(
  ("keys", "last"), [({}, 0.0), ({"final": 0.1}, 0.1), ({"schedule": "constant"}, 1.0)]
)
def test_a_cosine_ends_at_its_final_part_of_the_rate(keys, last):
  taken = steps(**{"schedule": "cosine", **keys})
  assert taken[0] == 1.0
  assert taken[5] == pytest.approx((1 + last) / 2, abs=1e-6)
  assert taken[10] == pytest.approx(last, abs=1e-6)


def test_a_rate_rises_linearly_in_the_warm_up_and_a_cosine_begins_after_it():
  taken = steps(schedule="cosine", warmup=4)
  assert taken[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
  assert taken[7] == pytest.approx(0.5, abs=1e-6)
  assert taken[10] == pytest.approx(0, abs=1e-6)


def test_a_rate_halves_at_the_updates_it_names():
  assert steps(schedule="halve", halve_at=(3, 5), updates=7) == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25, 0.25])
  after_warmup = steps(schedule="halve", warmup=2, halve_at=(3,), updates=7)
  assert after_warmup == pytest.approx([0, 0.5, 1, 1, 1, 0.5, 0.5])


def test_a_gradient_is_clipped_to_its_norm():
  assert steps(schedule="constant", clip=0.5, gradient=3.0, updates=1) == pytest.approx([0.5])
  assert steps(schedule="constant", clip=0.5, gradient=0.3, updates=1) == pytest.approx([0.3])
  slow = steps(schedule="constant", learning_rate=0.1, clip=0.5, gradient=3.0, updates=1)
  assert slow == pytest.approx([0.05])  # the gradient, not what the rate makes of it


def test_adam_is_that_of_its_paper():
  taken = steps(name="adam", learning_rate=0.1, schedule="constant", b1=0.8, b2=0.9, gradient=2.0, updates=2)
  assert taken == pytest.approx([0.1, 0.1], rel=1e-4)
  optim = base.get_config().optim
  optim.generator.update({"b1": 0.8, "b2": 0.9, "learning_rate": 0.1})
  ours, theirs = optimiser(optim, "generator", 10), optax.adam(0.1, 0.8, 0.9)
  states = [ours.init(jnp.zeros(())), theirs.init(jnp.zeros(()))]
  for gradient in (1.0, -3.0, 0.5):
    updates = [tx.update(jnp.float32(gradient), s) for tx, s in zip((ours, theirs), states, strict=True)]
    states = [s for _, s in updates]
    assert float(updates[0][0]) == float(updates[1][0])


# The average of the weights


def test_an_average_follows_the_weights_and_is_what_draws():
  """Against the recursion by hand; training itself goes on as without it."""
  config = plain_descent("amap_gan")
  config.average = 0.5
  operator = make_operator(config)
  method, plain = make_method(config, operator), make_method(plain_descent("amap_gan"), operator)
  begun = state = jax.jit(method.init)(parallel.keys(0)[0], batch())
  step = jax.jit(functools.partial(run_round, method))
  expected = state.params
  assert state.aux.params.keys() == state.opt.keys()
  for number in range(8):
    state, _ = step(state, batch(), jax.random.key(number))
    kept = min(0.5, (1 + number) / (10 + number))
    expected = jax.tree.map(lambda a, b, k=kept: k * a + (1 - k) * b, expected, state.params)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, state.aux.params, expected)
  assert not equal(state.aux.params, state.params)
  x = operator.lr(batch())
  draw = jax.jit(method.sample, static_argnames="n")(state, x, jax.random.key(0), n=2)
  swapped = state.replace(params=state.aux.params, stats=state.aux.stats, aux=state.aux.own)
  np.testing.assert_allclose(draw, sampler("amap_gan")(swapped, x, jax.random.key(0), n=2), atol=1e-6)
  after, _ = jax.jit(functools.partial(run_round, plain))(
    fresh("amap_gan", plain), batch(), jax.random.key(0)
  )
  ours, _ = step(begun, batch(), jax.random.key(0))
  jax.tree.map(close, ours.params, after.params)


def test_an_average_draws_with_the_averages_of_its_batch_statistics_too():
  config = tiny("regression")
  config.average = 0.9
  operator = make_operator(config)
  method = make_method(config, operator)
  state = jax.jit(method.init)(jax.random.key(0), batch())
  step = jax.jit(functools.partial(run_round, method))
  for number in range(4):
    state, _ = step(state, batch(number), jax.random.key(number))
  params, stats = drawing_networks(state)
  assert not equal(stats, state.stats)
  swapped = state.replace(params=params, stats=stats, aux=state.aux.own)
  x = operator.lr(batch())
  draw = jax.jit(method.sample, static_argnames="n")(state, x, jax.random.key(0), n=1)
  np.testing.assert_allclose(draw, sampler("regression")(swapped, x, jax.random.key(0), n=1), atol=1e-6)
  # Tiles and losses are of the average too.
  decoded = method.latents.decode(state, x, method.latents.draw(state, x, jax.random.key(0), 1.0))
  np.testing.assert_allclose(operator.head(decoded, x), draw[0], atol=1e-5)
  error = np.square(draw[0] - batch()["hr"] / np.float32(255)).mean((1, 2, 3))
  loss = method.objective(state, batch(), jax.random.key(0))["mse"]
  np.testing.assert_allclose(loss, error, rtol=1e-4)


def test_all_that_draws_or_judges_of_an_averaged_method_sees_the_averages():
  def see(state):
    return state.params, state.stats, state.aux

  latents = Latents(see, see, prior=see, posterior=see)
  plain = Method(see, see, objective=see, sample=see, latents=latents, classify=see, judge=see)
  method = averaged(plain, 0.5)
  networks = {"params": {"generator": 1, "vgg": 2}, "stats": {"generator": 3, "vgg": 4}}
  state = State(
    step=1, **networks, opt={"generator": ()}, aux=Averaged({"generator": 5}, {"generator": 6}, 7)
  )
  of_run = (method.objective, method.sample, method.classify, method.judge)
  of_latents = (method.latents.draw, method.latents.decode, method.latents.prior, method.latents.posterior)
  for function in of_run + of_latents:
    assert function(state) == ({"generator": 5, "vgg": 2}, {"generator": 6, "vgg": 4}, 7)


def test_networks_from_elsewhere_are_where_an_average_begins_and_an_averaged_run_gives_its_averages(
  tmp_path, monkeypatch
):
  config = tiny("regression")
  config.average = 0.9
  method = make_method(config, make_operator(config))
  state = jax.jit(method.init)(jax.random.key(0), batch())
  given = run("regression", 3)
  begun = graft.put(state, (given.params, given.stats))
  assert equal((begun.aux.params, begun.aux.stats), (given.params, given.stats))
  assert equal(drawing_networks(begun), (given.params, given.stats))
  moved, _ = jax.jit(functools.partial(run_round, method))(begun, batch(), jax.random.key(0))
  assert not equal(drawing_networks(moved)[0], moved.params)
  # A run takes an averaged run's averages, and batch statistics as well as weights.
  monkeypatch.setattr(graft, "load_run", lambda folder: Run(config, None, method, moved))
  config.init_from = (f"generator={tmp_path}",)
  assert equal(graft.read(config, {}), drawing_networks(moved))
  plain = graft.put(run("regression", 0), (given.params, given.stats))
  assert equal((plain.params, plain.stats), (given.params, given.stats))
  assert not equal(given.stats, run("regression", 0).stats)


@pytest.mark.parametrize("name", ["denoiser", "density", "amap_dg", "amap_ll", "amap_gan", "regression"])
def test_rounds_that_depend_on_how_many_there_are_are_those_of_annealed_noise_and_snapshots(name):
  config = tiny(name)
  expected = name != "regression"
  if name == "amap_gan":
    expected = config.method.noise.anneal != "constant_loss"
  assert make_method(config, make_operator(config)).fixed_length == expected


@pytest.mark.parametrize("decay", [1.0, -0.1, 2.0])
def test_an_average_that_never_forgets_or_is_no_average_raises_a_user_error(decay):
  config = tiny("regression")
  config.average = decay
  with pytest.raises(UserError, match=r"config\.average"):
    check(config)
