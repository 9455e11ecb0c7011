"""One conformance suite over every entry of METHODS: what the loop and the evaluator rely on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr_jax import parallel
from sr_jax.configs import base
from sr_jax.method import Method, State, optimiser
from sr_jax.methods import METHODS, make_method
from sr_jax.ops import Operator, make_operator

BATCH, SIZE = 8, 16
# More than a batch is kept for, so that every kind of round is among them.
ROUNDS = 6
STOCHASTIC = {"srim", "amap_gan", "pixel_recursive", "pixel_independent"}  # whose samples differ
DRAWING = {"srim", "amap_gan", "denoiser", "density"}  # whose rounds draw


def tiny(name: str):
  """A preset of each method that compiles in seconds; a new method adds its own line."""
  networks = {"regression": "srresnet", "srim": "srim"}
  if name.startswith("pixel"):
    networks[name] = "conditioning"
  config = base.get_config(name, networks.get(name, "convnet"))
  config.data.crop = (SIZE, SIZE)
  config.train.batch = BATCH
  config.train.rounds = ROUNDS
  config.consistency = "project"
  for optim in config.optim.values():
    optim.learning_rate = 1e-2
  config.network.update(
    {
      "srresnet": {"width": 8, "blocks": 1, "outer_kernel": 3},
      "srim": {"width": 8, "layers": 3, "kernel": 3},
      "convnet": {"widths": (8, 8)},
      "conditioning": {"width": 6, "blocks": 1},
    }[config.network.name]
  )
  if name == "srim":
    config.method.update({"minibatch": 4, "inner_rounds": 3, "candidates": 4, "chunk": 2})
    # A frozen network, narrow and with its placeholder weights: the file is not read here.
    config.method.features.update({"file": "vgg.npz", "width": 2, "layers": ("conv2_2",)})
  if name == "amap_gan":
    config.network.noise_channels = 1
    config.method.discriminator_updates = 2
    config.method.discriminator.update({"widths": (4, 4), "strides": (2, 2)})
  if name == "pixel_recursive":
    config.method.prior.update({"width": 6, "layers": 1, "kernel": 3, "first_kernel": 3, "head": 8})
  elif "prior" in config.method:
    config.method.prior.snapshots = 2
    config.method.prior.network.update(
      {"width": 6, "layers": 2, "components": 2, "quadratic": 2, "scales": 2}
      if name in ("density", "amap_ll")
      else {"widths": (8,)}
    )
  return config


@functools.cache
def made(name: str) -> tuple[Method, Operator]:
  config = tiny(name)
  operator = make_operator(config)
  return make_method(config, operator), operator


def batch(seed: int = 0) -> dict[str, np.ndarray]:
  hr = np.random.default_rng(seed).integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
  return {"hr": hr, "index": np.arange(BATCH, dtype=np.int32), "mask": np.ones(BATCH, bool)}


@functools.cache
def programs(name: str, devices: int, seed: int = 0):
  """(compiled init, compiled step, batch on the mesh)."""
  method, _ = made(name)
  mesh = parallel.make_mesh(jax.devices()[:devices])
  init, step = parallel.compile_init(method, mesh, seed), parallel.compile_step(method, mesh, seed)
  return init, step, parallel.put_batch(batch(), mesh)


def run(name: str, rounds: int, devices: int = 1, seed: int = 0) -> State:
  init, step, data = programs(name, devices, seed)
  state = init(data)
  for _ in range(rounds):
    state, _ = step(state, data)
  return state


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
  assert stochastic == (name in STOCHASTIC)
  cold = draw(state, x, jax.random.key(0), n=2, temperature=0.0)
  assert equal(cold[0], cold[1])


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
  data = programs(name, 1)[2]
  rounds = [programs(name, 1, seed)[1](run(name, 0), data)[0] for seed in (0, 1)]
  assert equal(*rounds) == (name not in DRAWING)


@every_method
def test_a_state_that_went_through_the_host_goes_on_as_if_it_had_not(name):
  init, step, data = programs(name, 1)
  state = init(data)
  for _ in range(ROUNDS):
    state = jax.device_put(jax.tree.map(np.array, jax.device_get(state)))
    state, metrics = step(state, data)
  assert equal(state, run(name, ROUNDS))
  assert {v.dtype for v in metrics.values()} == {np.dtype(np.float32)}
  assert {v.shape for v in metrics.values()} == {()}
  assert int(state.step) == ROUNDS


@every_method
def test_one_device_equals_four(name):
  """With plain gradient descent: Adam would hide a gradient that is too large, and magnify rounding."""
  config = tiny(name)
  rates = {"srim": 1e-3, "amap_dg": 1e-6, "amap_ll": 1e-6}
  for optim in config.optim.values():
    optim.update({"name": "sgd", "learning_rate": rates.get(name, 1e-2)})
  method = make_method(config, make_operator(config))
  moves, rest = [], []
  for count in (1, 4):
    mesh = parallel.make_mesh(jax.devices()[:count])
    data = parallel.put_batch(batch(), mesh)
    state = parallel.compile_init(method, mesh, 0)(data)
    start = jax.device_get(state)
    step = parallel.compile_step(method, mesh, 0)
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


@pytest.mark.parametrize("name", [name for name in METHODS if name != "amap_gan"])  # its opponent learns too
def test_the_objective_is_one_finite_number_per_example_and_falls_in_training(name):
  method, _ = made(name)
  objective = jax.jit(method.objective)
  data = programs(name, 1)[2]
  before = objective(run(name, 0), data, jax.random.key(0))
  after = objective(run(name, 40), data, jax.random.key(0))
  for key, value in before.items():
    assert value.shape == (BATCH,)
    assert key == "lr_mae" or after[key].mean() < value.mean()


@pytest.mark.parametrize(
  ("keys", "last"), [({}, 0.0), ({"final": 0.1}, 0.1), ({"schedule": "constant"}, 1.0)]
)
def test_a_cosine_ends_at_its_final_part_of_the_rate(keys, last):
  config = base.get_config().optim.generator
  config.update({"name": "sgd", "learning_rate": 1.0, "schedule": "cosine", **keys})
  tx = optimiser(config, 10)
  state, steps = tx.init(jnp.zeros(())), []
  for _ in range(11):
    update, state = tx.update(jnp.ones(()), state)
    steps.append(-float(update))
  assert steps[0] == 1.0
  assert steps[10] == pytest.approx(last, abs=1e-6)
