"""What a round computes in and with how much memory: each key leaves the mathematics as it says."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from small_runs import get_config as small_srim
from small_runs import network, tiny
from sr_jax import cli, losses, parallel
from sr_jax.config import check
from sr_jax.configs import base
from sr_jax.errors import UserError
from sr_jax.method import optimiser, run_round
from sr_jax.methods import make_method
from sr_jax.networks import NETWORKS, eval_pass, init, normal_latent, train_pass, zero_latent
from sr_jax.networks.gated_pixelcnn import GatedPixelCNN
from sr_jax.networks.layers import BatchNorm, Training
from sr_jax.ops import make_operator

close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-6)


def batch(count: int = 8, seed: int = 0, side: int = 8) -> dict[str, np.ndarray]:
  hr = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
  return {"hr": hr, "index": np.arange(count, dtype=np.int32), "mask": np.ones(count, bool)}


def method_of(config):
  return make_method(config, make_operator(config))


def small_regression(**generator):
  """One with a network that compiles fast."""
  config = base.get_config("regression", generator="convnet")
  config.networks.generator.update({"widths": (4,), "kernel": 3, **generator})
  config.data.crop = (8, 8)
  config.train.update({"batch": 8, "rounds": 2})
  return config


@functools.cache
def temporary(images: int = 4, remat: bool = False, parts: int = 1) -> int:
  """Bytes that a compiled round of four residual blocks needs beside its arguments and results."""
  config = base.get_config("regression", generator="srmap")
  config.networks.generator.update(
    {"stem": 8, "width": 16, "stages": 1, "blocks": 4, "ratio": 1, "widths": (4,)}
  )
  config.operator.factor = (2, 2)
  config.data.crop, config.remat, config.optim.generator.accumulate = (64, 64), remat, parts
  config.train.update({"batch": images, "rounds": parts})
  method, mesh = method_of(config), parallel.make_mesh(jax.devices()[:1])
  data = parallel.abstract_batch(mesh, {k: (v.shape, v.dtype) for k, v in batch(images, side=64).items()})
  step = parallel.compile_step(method, mesh, 0).lower(parallel.abstract_state(method, mesh, data), data)
  return step.compile().memory_analysis().temp_size_in_bytes


# AdamW


def test_adamw_shrinks_kernels_alone_and_beside_adam():
  """Two steps by hand: the decay is not part of the moments, and follows the rate's schedule.

  Parameters of another package may be in lists.
  """
  optim = base.get_config().optim
  optim.generator.update({"name": "adamw", "learning_rate": 0.1, "weight_decay": 0.5, "b1": 0.8, "b2": 0.9})
  optim.generator.update({"schedule": "halve", "halve_at": (1,)})
  names = ("kernel", "bias", "scale", "noise_weight", "pinv")
  params = {"layer": {name: jnp.float32(2.0) for name in names}, "own": [jnp.float32(2.0)]}
  tx = optimiser(optim, "generator", 10)
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
  close(params["own"][0], expected["bias"], rtol=1e-5)


def test_adamw_leaves_a_projection_that_does_not_move_where_it_is():
  config = small_regression()
  config.consistency = "learned"
  config.projection.start = "random"
  config.optim.generator.update({"name": "adamw", "learning_rate": 1e-2, "weight_decay": 0.5})
  method = method_of(config)
  before = jax.jit(method.init)(jax.random.key(0), batch())
  after, _ = jax.jit(method.step)(before, batch(), jax.random.key(0))
  ours, theirs = (state.params["generator"] for state in (before, after))
  np.testing.assert_array_equal(ours["pinv"], theirs["pinv"])
  assert not np.allclose(ours["net"]["Conv_0"]["kernel"], theirs["net"]["Conv_0"]["kernel"])


# Computing again instead of keeping

# Keys of each small network, and how many blocks it computes again.
NETS: dict[str, tuple[dict, int]] = {
  "srresnet": ({"width": 8, "blocks": 1, "outer_kernel": 3, "noise_channels": 1}, 1 + 2),
  "srim": ({"width": 4, "layers": 3, "kernel": 3}, 2 * 3),
  "convnet": ({"widths": (4, 4)}, 2),
  "discriminator": ({"widths": (4, 4), "strides": (2, 2)}, 2),
  "denoiser": ({"widths": (4,)}, 1),
  "density": ({"width": 6, "layers": 2, "components": 2, "quadratic": 2, "scales": 2}, 2 + 3),
  "conditioning": ({"width": 4, "blocks": 1}, 3),
  "tanh_residual": ({"width": 4, "blocks": 1}, 3),
  "pixel_recursive": ({}, 2),
  "encoder": ({"width": 4, "layers": 2, "latent_size": 4}, 2),
  "critic": ({"widths": (4, 4), "head": 4}, 2),
  "classifier": ({"widths": (4, 4)}, 2),
  "srmap": ({"stem": 4, "width": 4, "stages": 2, "blocks": 1, "widths": (4, 4)}, 2),
  "srmap_critic": ({"widths": (4,), "blocks": 2, "head": 4}, 2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_computes_its_blocks_again_and_has_the_same_layers(name):
  """Traced alone; of the pixel recursive network its prior, whose conditioning has a line of its own."""
  keys, blocks = NETS[name]
  x, train = jnp.zeros((2, 8, 8, 3)), {"train": True}
  if name == "pixel_recursive":
    net, train = GatedPixelCNN(3, jnp.dtype("float32"), 6, 2, 3, 3, 8, 0.0, levels=4), {}
  else:
    net = network(name, **keys)
  inputs = (x, zero_latent(net, x)) if hasattr(net, "latent") else (x,)

  def trace(remat: bool):
    step = Training(remat).of(lambda key: net.init_with_output(key, *inputs, **train))
    equations, shapes = jax.make_jaxpr(step, return_shape=True)(jax.random.key(0))
    return len(re.findall(r"\b(?:remat2?|checkpoint)\[", str(equations))), shapes

  (none, plain), (found, again) = trace(False), trace(True)
  assert (none, found) == (0, blocks)
  assert plain == again


@pytest.mark.parametrize("name", ["convnet", "srmap", "srmap_critic"])
def test_gradients_and_statistics_do_not_depend_on_what_is_computed_again(name):
  """Of a critic those of R1, which is a derivative itself."""
  net, x = network(name, **NETS[name][0]), jax.random.uniform(jax.random.key(0), (2, 4, 4, 3))
  latent = (normal_latent(net, x, jax.random.key(1)),) if hasattr(net, "latent") else ()
  params, stats = jax.jit(functools.partial(init, net))(jax.random.key(2), x, *latent)
  params = jax.tree.map(lambda p: p + 0.1, params)  # so that noise, which begins with 0, has an effect

  def loss(params):
    if not latent:
      return losses.r1(lambda y: train_pass(net, params, stats, y)[0], x).sum(), stats
    y, after = train_pass(net, params, stats, x, *latent)
    return jnp.sum(jnp.sin(9 * y)), after

  found = [jax.jit(jax.grad(Training(remat).of(loss), has_aux=True))(params) for remat in (False, True)]
  jax.tree.map(functools.partial(close, rtol=1e-3, atol=1e-3), *found)
  assert any(np.any(leaf) for leaf in jax.tree.leaves(found[0][0]))


def test_a_round_takes_less_memory_when_blocks_are_computed_again():
  assert temporary(remat=True) < 0.7 * temporary()


# A batch in parts


def unnormalised(batch_size: int, parts: int):
  """A regression without batch statistics."""
  config = small_regression(norm="none")
  config.train.update({"batch": batch_size, "rounds": 2 * parts})
  config.optim.generator.update({"accumulate": parts, "schedule": "cosine", "warmup": 1, "clip": 1e-3})
  return config


def test_the_parts_of_a_batch_are_worth_the_batch():
  """Two updates with a schedule and a clipped norm: of four rounds each, or of one with the same images."""
  whole, mesh, ends = batch(16), parallel.make_mesh(), []
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


def steps(config, count: int) -> dict[str, list[bool]]:
  """Whether each network moved, round by round."""
  method, moves = method_of(config), {}
  step = jax.jit(functools.partial(run_round, method))
  state = jax.jit(method.init)(jax.random.key(0), batch())
  for number in range(count):
    before = state
    state, _ = step(state, batch(), jax.random.key(number))
    for role in state.opt:
      same = all(map(np.array_equal, *(jax.tree.leaves(s.params[role]) for s in (before, state))))
      moves.setdefault(role, []).append(not same)
  return moves


def test_players_accumulate_too_and_gradients_count_not_rounds():
  config = tiny("amap_gan")  # two updates of the discriminator a round
  config.data.crop, config.consistency = (8, 8), "none"
  config.networks.generator.update({"widths": (4,), "kernel": 3, "norm": "none"})
  config.networks.discriminator.update({"widths": (4,), "strides": (2,), "norm": "none"})
  for optim in config.optim.values():
    optim.accumulate = 2
  assert steps(config, 2) == {"generator": [False, True], "discriminator": [True, True]}


def test_rounds_in_which_srim_selects_have_no_gradients():
  config = small_srim()
  config.data.crop, config.train.rounds = (8, 8), 60
  config.networks.generator.update({"width": 4, "norm": "none"})
  config.method.inner_rounds, config.optim.generator.accumulate = 2, 2
  selecting = method_of(config).rounds_per_batch - 2
  assert steps(config, selecting + 2) == {"generator": [*[False] * (selecting + 1), True]}


def test_parts_take_the_memory_of_a_part():
  assert temporary(images=1, parts=4) < 0.35 * temporary()


@pytest.mark.parametrize("calls", [3, 10])
def test_gradients_that_would_make_no_update_are_refused(calls):
  optim = base.get_config().optim
  optim.generator.accumulate = 4
  with pytest.raises(
    UserError, match=f"config.optim.generator.accumulate is 4, .* {calls} gradients .* last {calls % 4} "
  ):
    optimiser(optim, "generator", calls)


# Statistics of groups


X = np.random.default_rng(0).uniform(size=(8, 4, 4, 3)).astype(np.float32)
X *= np.arange(1, 9)[:, None, None, None]  # so that groups differ


@functools.cache
def ghost(size: int, devices: int = 1, outputs: int = 2):
  """A network, and the compiled program of its training pass over X in groups: images and new statistics."""
  net = network("convnet", widths=(4, 4), kernel=3)
  params, stats = jax.jit(functools.partial(init, net))(jax.random.key(0), X, ())
  mesh = parallel.make_mesh(jax.devices()[:devices])
  everywhere, shared = parallel.replicated(mesh), parallel.sharded(mesh)
  run = jax.jit(
    Training(ghost_batch=size).of(lambda p, s, x: train_pass(net, p, s, x, ())[:outputs]),
    in_shardings=(everywhere, everywhere, shared),
    out_shardings=(shared, everywhere)[:outputs],
  )
  return run.lower(params, stats, X).compile(), (net, params, stats)


def moved(size: int, devices: int = 1):
  """Images and new statistics."""
  run, (_, params, stats) = ghost(size, devices)
  return jax.device_get(run(params, stats, X))


def test_a_group_of_the_whole_batch_is_the_batch_and_smaller_ones_are_batches_of_their_own():
  plain, plain_stats = moved(0)
  jax.tree.map(close, (plain, plain_stats), moved(8))
  _, (net, params, start) = ghost(2)
  grouped, stats = moved(2)
  assert not np.allclose(plain, grouped, rtol=1e-2)
  alone = jax.jit(lambda x: train_pass(net, params, start, x, ()))
  alone = [alone(X[i : i + 2]) for i in range(0, 8, 2)]
  close(grouped, jnp.concatenate([y for y, _ in alone]), atol=1e-5)
  jax.tree.map(close, stats, jax.tree.map(lambda *s: sum(s) / 4, *(s for _, s in alone)))


def test_groups_are_of_training_alone():
  _, (net, params, stats) = ghost(0)
  grouped = Training(ghost_batch=3).of(functools.partial(eval_pass, net))
  np.testing.assert_array_equal(grouped(params, stats, X, ()), eval_pass(net, params, stats, X, ()))


@pytest.mark.parametrize("size", [2, 4])
def test_groups_do_not_depend_on_the_number_of_devices(size):
  """Groups of one device (2 of its 2 images), and groups that two devices share."""
  jax.tree.map(functools.partial(close, atol=1e-5), moved(size), moved(size, devices=4))


def test_groups_within_devices_need_no_other_device():
  """Global statistics are reduced over the devices in every layer; only running ones of groups are."""
  alone, grouped = (ghost(size, 4, outputs=1)[0].as_text() for size in (0, 2))
  assert "all-reduce" in alone
  assert not re.search("all-reduce|all-gather|all-to-all|collective-permute", grouped)


def test_a_round_in_groups_gathers_no_activations():
  config = small_regression()
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
  keys = {"momentum": 0.9, "dtype": jnp.bfloat16}
  theirs, ours = nn.BatchNorm(**keys), BatchNorm(**keys)
  variables = theirs.init(jax.random.key(0), x, True)
  for size, running in ((0, False), (4, False), (2, True)):
    expected, expected_stats = theirs.apply(variables, x, running, mutable=["batch_stats"])
    apply = functools.partial(ours.apply, variables, x, running, mutable=["batch_stats"])
    y, stats = Training(ghost_batch=size).of(apply)()
    assert (y.dtype, y.shape) == (expected.dtype, expected.shape)
    close(np.float32(y), np.float32(expected), rtol=1e-2)
    jax.tree.map(close, stats, expected_stats)


def test_groups_refuse_what_they_do_not_have():
  x = jnp.ones((4, 3))
  for keys, given in (({"use_bias": False}, {}), ({"axis": 0}, {}), ({}, {"mask": x > 0})):
    norm = BatchNorm(use_running_average=False, **keys)
    variables = norm.init(jax.random.key(0), x)
    apply = functools.partial(norm.apply, variables, x, mutable=["batch_stats"], **given)
    with pytest.raises(UserError, match=r"config\.ghost_batch does not go with a BatchNorm"):
      Training(ghost_batch=2).of(apply)()


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


def test_a_key_without_effect_is_named_in_the_log_once(caplog):
  warned = []
  for norm in ("batch", "none"):
    config = small_regression(norm=norm)
    config.ghost_batch, config.remat = 2, True
    method = method_of(config)
    state = jax.eval_shape(method.init, jax.random.key(0), batch())
    for _ in range(2):
      jax.eval_shape(functools.partial(run_round, method), state, batch(), jax.random.key(0))
    warned.append([record.message for record in caplog.records])
  words = "config.ghost_batch has no effect: no network of method 'regression' normalises by batches"
  assert warned == [[], [f"{words} in training."]]


def test_a_compiler_option_that_is_not_known_takes_no_other_with_it(monkeypatch):
  first, second = parallel.training_options("cpu").items()

  def jit(function, compiler_options):
    if first[0] in compiler_options:
      raise jax.errors.JaxRuntimeError("No such compile option")
    return unchanged(function, compiler_options=compiler_options)

  unchanged = jax.jit
  monkeypatch.setattr(jax, "jit", jit)
  assert parallel.training_options.__wrapped__("cpu") == dict([second])
