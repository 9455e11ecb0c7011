"""What a round computes in and with how much memory: each key leaves the mathematics as it says."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from small_runs import network, tiny
from sr_jax import cli, parallel
from sr_jax.config import check
from sr_jax.configs import base
from sr_jax.errors import UserError
from sr_jax.method import optimiser, run_round
from sr_jax.methods import make_method
from sr_jax.networks import eval_pass, init, normal_latent, train_pass
from sr_jax.networks.layers import BatchNorm, Training
from sr_jax.ops import make_operator

close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-6)


def batch(count: int = 8, seed: int = 0, side: int = 16) -> dict[str, np.ndarray]:
  hr = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
  return {"hr": hr, "index": np.arange(count, dtype=np.int32), "mask": np.ones(count, bool)}


def method_of(config):
  return make_method(config, make_operator(config))


def temporary(config) -> int:
  """Bytes that a compiled round needs beside its arguments and results."""
  method, mesh = method_of(config), parallel.make_mesh(jax.devices()[:1])
  shapes = {k: (v.shape, v.dtype) for k, v in batch(config.train.batch, side=config.data.crop[0]).items()}
  data = parallel.abstract_batch(mesh, shapes)
  step = parallel.compile_step(method, mesh, 0).lower(parallel.abstract_state(method, mesh, data), data)
  return step.compile().memory_analysis().temp_size_in_bytes


# AdamW


def test_adamw_shrinks_kernels_alone_and_beside_adam():
  """Two steps by hand: the decay is not part of the moments, and follows the rate's schedule."""
  config = base.get_config().optim.generator
  config.update({"name": "adamw", "learning_rate": 0.1, "weight_decay": 0.5, "b1": 0.8, "b2": 0.9})
  config.update({"schedule": "halve", "halve_at": (1,)})
  names = ("kernel", "bias", "scale", "noise_weight", "pinv")
  params = {"layer": {name: jnp.float32(2.0) for name in names}}
  tx = optimiser(config, 10)
  state, expected = tx.init(params), dict.fromkeys(names, 2.0)
  m = v = 0.0
  for number, gradient in enumerate((1.0, -3.0)):
    updates, state = tx.update(jax.tree.map(lambda _, g=gradient: jnp.float32(g), params), state, params)
    params = optax.apply_updates(params, updates)
    m, v = 0.8 * m + 0.2 * gradient, 0.9 * v + 0.1 * gradient**2
    step = m / (1 - 0.8 ** (number + 1)) / (np.sqrt(v / (1 - 0.9 ** (number + 1))) + 1e-8)
    for name in names:
      decay = 0.5 * expected[name] if name == "kernel" else 0.0
      expected[name] -= 0.1 / 2**number * (step + decay)
  close([params["layer"][name] for name in names], list(expected.values()), rtol=1e-5)


def test_adamw_leaves_a_projection_that_does_not_move_where_it_is():
  config = tiny("regression")
  config.consistency = "learned"
  config.projection.start = "random"
  config.optim.generator.update({"name": "adamw", "weight_decay": 0.5})
  method = method_of(config)
  before = jax.jit(method.init)(jax.random.key(0), batch())
  after, _ = jax.jit(method.step)(before, batch(), jax.random.key(0))
  ours, theirs = (state.params["generator"] for state in (before, after))
  np.testing.assert_array_equal(ours["pinv"], theirs["pinv"])
  assert not np.allclose(ours["net"]["Conv_0"]["kernel"], theirs["net"]["Conv_0"]["kernel"])


# Computing again instead of keeping

NETS = {
  "srresnet": {"width": 8, "blocks": 1, "outer_kernel": 3, "noise_channels": 1},
  "srim": {"width": 8, "layers": 3, "kernel": 3},
  "convnet": {"widths": (8, 8)},
}


def gradients(name: str):
  """Gradients and batch statistics of a generator without and with remat, and the programs' equations."""
  net = network(name, **NETS[name])
  x = jax.random.uniform(jax.random.key(0), (4, 4, 4, 3))
  z = normal_latent(net, x, jax.random.key(1))
  params, stats = jax.jit(functools.partial(init, net))(jax.random.key(2), x, z)

  def loss(params):
    y, after = train_pass(net, params, stats, x, z)
    return jnp.sum(jnp.sin(9 * y)), after

  functions = [jax.jit(jax.value_and_grad(Training(remat).of(loss), has_aux=True)) for remat in (False, True)]
  return [f(params) for f in functions], [str(jax.make_jaxpr(f)(params)) for f in functions]


@pytest.mark.parametrize("name", NETS)
def test_gradients_and_statistics_do_not_depend_on_what_is_computed_again(name):
  values, equations = gradients(name)
  assert [bool(re.search("remat|checkpoint", text)) for text in equations] == [False, True]
  jax.tree.map(functools.partial(close, rtol=1e-3, atol=1e-3), *values)


@pytest.mark.parametrize("name", ["srmap", "pixel_recursive", "density"])
def test_a_round_of_a_method_does_not_depend_on_what_is_computed_again(name):
  """Of SRMAP with the second derivatives of its critic; of the autoregressive networks."""
  config, state, after = tiny(name), None, []
  for optim in config.optim.values():
    optim.name = "sgd"
  for config.remat in (False, True):
    method = method_of(config)
    state = state or jax.jit(method.init)(jax.random.key(0), batch())
    after.append(jax.jit(functools.partial(run_round, method))(state, batch(), jax.random.key(0)))
  jax.tree.map(functools.partial(close, rtol=1e-3, atol=1e-5), *after)


@pytest.mark.parametrize(
  ("name", "keys", "most"),
  [
    ("srresnet", {"width": 16, "blocks": 8, "tail": "direct"}, 0.6),
    ("srmap", {"stem": 8, "width": 16, "stages": 1, "blocks": 8, "widths": (4, 4)}, 0.7),
  ],
)
def test_a_round_takes_less_memory_when_blocks_are_computed_again(name, keys, most):
  config = base.get_config("regression", generator=name)
  config.networks.generator.update(keys)
  config.data.crop = (64, 64)
  config.train.batch = 4
  sizes = [temporary(config) for config.remat in (False, True)]
  assert sizes[1] < most * sizes[0]


# A batch in parts


def unnormalised(batch_size: int, parts: int):
  """A regression without batch statistics."""
  config = tiny("regression")
  config.networks.generator.norm = "none"
  config.train.batch = batch_size
  config.optim.generator.update({"accumulate": parts, "schedule": "cosine", "warmup": 1, "clip": 1e-3})
  config.train.rounds = 2 * parts
  return config


@pytest.mark.parametrize("devices", [1, 4])
def test_the_parts_of_a_batch_are_worth_the_batch(devices):
  """Two updates with a schedule and a clipped norm: of four rounds each, or of one with the same images."""
  whole, mesh, ends = batch(16), parallel.make_mesh(jax.devices()[:devices]), []
  for parts in (1, 4):
    method = method_of(unnormalised(16 // parts, parts))
    # Parts are columns: image 4 i + j is in part j.
    rounds = [{name: value[part::parts] for name, value in whole.items()} for part in range(parts)]
    rounds = [parallel.put_batch(part, mesh) for part in rounds]
    state = parallel.compile_init(method, mesh, 0)(rounds[0])
    step, start = parallel.compile_step(method, mesh, 0), jax.device_get(state.params)
    for number, part in enumerate(rounds * 2):
      state, _ = step(state, part)
      moved = not all(map(np.array_equal, *map(jax.tree.leaves, (start, jax.device_get(state.params)))))
      assert moved == (number >= 2 * parts - 1)  # the warm-up's first rate is 0
    ends.append(jax.device_get(state.params))
  jax.tree.map(functools.partial(close, atol=1e-6), *ends)


@pytest.mark.parametrize("name", ["srmap", "srim"])
def test_players_and_rounds_of_selection_accumulate_too(name):
  """Each network moves when it has seen its rounds; those in which SRIM selects do not count."""
  config = tiny(name)
  for optim in config.optim.values():
    optim.accumulate = 2
  method = method_of(config)
  step = jax.jit(functools.partial(run_round, method))
  state = jax.jit(method.init)(jax.random.key(0), batch())
  selecting = method.rounds_per_batch - config.method.inner_rounds if name == "srim" else 0
  for number in range(selecting + 2):
    before = state
    state, _ = step(state, batch(), jax.random.key(number))
    for role in state.opt:
      moved = not all(map(np.array_equal, *(jax.tree.leaves(s.params[role]) for s in (before, state))))
      assert moved == (number == selecting + 1), (role, number)


def test_parts_take_the_memory_of_a_part():
  config = base.get_config("regression")
  config.networks.generator.update({"width": 16, "blocks": 1, "tail": "direct"})
  config.data.crop, config.train.batch = (64, 64), 8
  whole = temporary(config)
  config.train.batch, config.optim.generator.accumulate = 2, 4
  assert temporary(config) < 0.35 * whole


# Statistics of groups


@functools.cache
def ghost(size: int, count: int = 8, devices: int = 1):
  """A trained network's step in groups: images, statistics, and the compiled program of the images."""
  net = network("srresnet", **NETS["srresnet"] | {"noise_channels": 0})
  x = np.random.default_rng(0).uniform(size=(count, 4, 4, 3)).astype(np.float32)
  x *= np.arange(1, count + 1)[:, None, None, None]  # so that groups differ
  params, stats = jax.jit(functools.partial(init, net))(jax.random.key(0), x, ())
  mesh = parallel.make_mesh(jax.devices()[:devices])
  everywhere, shared = parallel.replicated(mesh), parallel.sharded(mesh)
  run = Training(ghost_batch=size).of(functools.partial(train_pass, net))
  placed = (everywhere, everywhere, shared)
  both = jax.jit(lambda p, s, x: run(p, s, x, ()), in_shardings=placed)
  alone = jax.jit(lambda p, s, x: run(p, s, x, ())[0], in_shardings=placed, out_shardings=shared)
  return both(params, stats, x), alone.lower(params, stats, x).compile().as_text(), (net, params, stats, x)


def test_a_group_of_the_whole_batch_is_the_batch_and_smaller_ones_are_batches_of_their_own():
  (plain, plain_stats), _, _ = ghost(0)
  jax.tree.map(close, (plain, plain_stats), ghost(8)[0])
  (grouped, stats), _, (net, params, start, x) = ghost(2)
  assert not np.allclose(plain, grouped, rtol=1e-2)
  alone = jax.jit(lambda x: train_pass(net, params, start, x, ()))
  alone = [alone(x[i : i + 2]) for i in range(0, 8, 2)]
  close(grouped, jnp.concatenate([y for y, _ in alone]), atol=1e-5)
  jax.tree.map(close, stats, jax.tree.map(lambda *s: sum(s) / 4, *(s for _, s in alone)))


def test_groups_are_of_training_alone():
  _, _, (net, params, stats, x) = ghost(0)
  grouped = Training(ghost_batch=3).of(functools.partial(eval_pass, net))
  np.testing.assert_array_equal(grouped(params, stats, x, ()), eval_pass(net, params, stats, x, ()))


@pytest.mark.parametrize("size", [2, 4])
def test_groups_do_not_depend_on_the_number_of_devices(size):
  """Groups of one device (2 of its 2 images), and groups that two devices share."""
  one, four = (ghost(size, devices=devices)[0] for devices in (1, 4))
  jax.tree.map(functools.partial(close, atol=1e-5), one, four)


def test_groups_within_devices_need_no_other_device():
  """Global statistics are reduced over the devices in every layer; only running ones of groups are."""
  assert "all-reduce" in ghost(0, devices=4)[1]
  local = ghost(2, devices=4)[1]
  assert not re.search("all-reduce|all-gather|all-to-all|collective-permute", local)


def test_a_round_in_groups_gathers_no_activations():
  config = tiny("regression")
  config.ghost_batch = 2
  mesh = parallel.make_mesh()
  data = parallel.put_batch(batch(), mesh)
  method = method_of(config)
  state = parallel.compile_init(method, mesh, 0)(data)
  hlo = parallel.compile_step(method, mesh, 0).lower(state, data).compile().as_text()
  assert not re.search("all-gather|all-to-all|collective-permute", hlo)
  reduced = re.findall(r"= (.*?) all-reduce(?:-start)?\(", hlo)
  shapes = [tuple(map(int, dims.split(","))) for s in reduced for dims in re.findall(r"\[([\d,]+)\]", s)]
  largest = max(leaf.size for leaf in jax.tree.leaves(state.params))
  assert max(map(np.prod, shapes)) <= largest  # gradients, no images


def test_flax_normalises_alike_outside_of_groups():
  x = jax.random.normal(jax.random.key(0), (4, 3, 3, 2), jnp.bfloat16)
  keys = {"use_running_average": False, "momentum": 0.9, "dtype": jnp.bfloat16}
  theirs, ours = nn.BatchNorm(**keys), BatchNorm(**keys)
  variables = theirs.init(jax.random.key(0), x)
  expected, expected_stats = theirs.apply(variables, x, mutable=["batch_stats"])
  for size in (0, 4):
    y, stats = Training(ghost_batch=size).of(lambda: ours.apply(variables, x, mutable=["batch_stats"]))()
    assert (y.dtype, y.shape) == (expected.dtype, expected.shape)
    close(np.float32(y), np.float32(expected), rtol=1e-2)
    jax.tree.map(close, stats, expected_stats)


# Keys


@pytest.mark.parametrize(
  ("key", "value"),
  [("ghost_batch", -1), ("optim.generator.accumulate", 0), ("optim.generator.weight_decay", -0.1)],
)
def test_numbers_out_of_their_range_raise_a_user_error(key, value):
  config = tiny("regression")
  with config.unlocked():
    config.update_from_flattened_dict({key: value})
  with pytest.raises(UserError, match=re.escape(f"config.{key}")):
    check(config)


def test_groups_that_do_not_divide_a_batch_are_refused_before_a_training(tmp_path, capsys):
  words = ["train", "--config", "srim_demo:regression", "--workdir", str(tmp_path / "run")]
  assert cli.main([*words, "--config.networks.generator.norm=batch", "--config.ghost_batch=3"]) == 2
  assert "config.ghost_batch is 3, but a round normalises 16 images" in capsys.readouterr().err
  assert not (tmp_path / "run").exists()
