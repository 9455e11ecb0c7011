"""SRIM: conditional IMLE does its job, on problems small enough to know the answer."""

import functools
import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr_jax import config as configs
from sr_jax import graft, parallel
from sr_jax.configs import base
from sr_jax.errors import UserError
from sr_jax.method import optimiser
from sr_jax.methods import make_method
from sr_jax.methods.srim import draw_latents, minibatch_columns
from sr_jax.networks import eval_pass, make_generator, train_pass
from sr_jax.networks.features import FeatureSpace
from sr_jax.networks.vgg import random_vgg, vgg_features
from sr_jax.ops import make_operator

POOL, MINIBATCH = 32, 16
# Added to or taken from a grey image: A of it is zero, so that both sums have one and the same input.
PATTERN = 60 * (-1) ** np.add.outer(np.arange(4), np.arange(4))[..., None]


def config_of(name: str, **keys):
  config = base.get_config(name, generator="srresnet")
  config.networks.generator.update(
    {"width": 16, "blocks": 1, "outer_kernel": 3, "norm": "none", "tail": "direct"}
  )
  config.networks.generator.update({"residual": True, "noise_channels": 2, "noise_scale": 1.0})
  config.operator.update({"kernel": "area", "factor": (2, 2), "rounding": "none"})
  config.data.update({"channels": 1, "crop": (4, 4)})
  config.train.update({"batch": POOL, "rounds": 800})
  config.optim.generator.learning_rate = 1e-2
  if name == "srim":
    config.method.features.layers = ()
    config.method.update({"candidates": 8, "chunk": 4, "minibatch": MINIBATCH, "inner_rounds": 8, **keys})
  return config


def two_modes() -> dict[str, np.ndarray]:
  sign = np.where(np.arange(POOL) % 2, 1, -1)[:, None, None, None]
  hr = (128 + sign * PATTERN).astype(np.uint8)
  return {"hr": hr, "index": np.arange(POOL, dtype=np.int32), "mask": np.ones(POOL, bool)}


def make(config, devices: int = 1):
  operator = make_operator(config)
  method = make_method(config, operator)
  mesh = parallel.make_mesh(jax.devices()[:devices])
  batch = parallel.put_batch(two_modes(), mesh)
  return method, mesh, batch, operator


def mode_of_samples(config, n: int) -> np.ndarray:
  """Trains on the two modes and tells for each of n samples how much of the pattern it has: -1 to 1."""
  method, mesh, batch, operator = make(config)
  state = parallel.compile_init(method, mesh, 0)(batch)
  step = parallel.compile_step(method, mesh, 0)
  for _ in range(config.train.rounds):
    state, _ = step(state, batch)
  x = operator.lr(batch)[:1]
  y = jax.jit(functools.partial(method.sample, n=n))(state, x, jax.random.key(1))
  return (np.asarray(y[:, 0]) * PATTERN).sum(axis=(1, 2, 3)) / np.square(PATTERN).sum() * 255


def test_samples_cover_both_modes_where_regression_gives_their_mean():
  config = config_of("srim")
  config.networks.generator.noise_channels = 1  # with two, whose space is larger, 800 rounds are too few
  srim = mode_of_samples(config, 200)
  assert np.mean(np.abs(np.abs(srim) - 1) < 0.4) > 0.8
  assert 0.25 < np.mean(srim > 0) < 0.75
  regression = mode_of_samples(config_of("regression"), 1)
  assert np.abs(regression).max() < 0.1


@pytest.fixture(scope="module")
def first_state():
  config = config_of("srim")
  method, mesh, batch, _ = make(config)
  return parallel.compile_init(method, mesh, 0)(batch)


@functools.cache
def selection(**keys):
  """A round of the run with these keys, compiled once, and its batch."""
  method, mesh, batch, _ = make(config_of("srim", **keys))
  return parallel.compile_step(method, mesh, 0), batch


def selected(state, rounds: int = 2, **keys):
  """The state after the first rounds of selection, and their mean distance."""
  step, batch = selection(**keys)
  state = jax.tree.map(jnp.copy, state)
  for _ in range(rounds):
    state, metrics = step(state, batch)
  return state, float(metrics["selected"])


def test_more_candidates_give_a_nearer_one(first_state):
  keys = ({"candidates": 1, "chunk": 1}, {}, {"candidates": 64, "chunk": 4})  # 8 by default
  distances = [selected(first_state, **given)[1] for given in keys]
  assert distances[0] > distances[1] > distances[2]


def test_the_choice_does_not_depend_on_the_chunk_and_moves_no_weight(first_state):
  (a, _), (b, _) = (selected(first_state, **given) for given in ({"chunk": 8}, {}))  # 4 by default
  np.testing.assert_array_equal(a.aux.choice, b.aux.choice)
  for before, after in zip(jax.tree.leaves(first_state.params), jax.tree.leaves(a.params), strict=True):
    np.testing.assert_array_equal(before, after)


def test_the_chosen_candidate_is_the_nearest_of_all(first_state):
  """Against all m candidates of every image, drawn and compared one by one."""
  state, _ = selected(first_state)
  _, _, batch, operator = make(config_of("srim"))
  net = make_generator(config_of("srim"))
  x, y = operator.lr(batch), np.asarray(batch["hr"]) / 255
  key, ids = jax.random.wrap_key_data(state.aux.key), jnp.arange(POOL)
  distances = []
  for j in range(8):
    latent = draw_latents(key, ids, jnp.full(POOL, j), net.latent(x.shape[1:]))
    image = eval_pass(net, state.params["generator"], {}, x, latent)
    distances.append(np.square(np.asarray(image) - y).sum(axis=(1, 2, 3)))
  np.testing.assert_array_equal(state.aux.choice[:, 0], np.argmin(distances, axis=0))


def test_the_loss_is_the_mean_distance_of_the_chosen(first_state):
  """One slice that is the whole pool: what is descended on first is what was chosen."""
  method, mesh, batch, _ = make(config_of("srim", minibatch=POOL))
  step, state = parallel.compile_step(method, mesh, 0), jax.tree.map(jnp.copy, first_state)
  state, selecting = step(state, batch)
  _, descending = step(state, batch)
  np.testing.assert_allclose(descending["loss"], selecting["selected"], rtol=1e-4)


def test_a_pool_keeps_its_key_and_the_next_one_has_another(first_state):
  method, mesh, batch, _ = make(config_of("srim", inner_rounds=2))
  step, state, keys = parallel.compile_step(method, mesh, 0), jax.tree.map(jnp.copy, first_state), []
  for _ in range(2 * method.rounds_per_batch):
    state, _ = step(state, batch)
    keys.append(np.asarray(state.aux.key).tobytes())
  first, second = keys[: len(keys) // 2], keys[len(keys) // 2 :]
  assert len(set(first)) == len(set(second)) == 1
  assert first[0] != second[0]


def test_in_the_warm_up_nothing_is_chosen_and_latents_are_zero(first_state):
  _, distance = selected(first_state, warmup_rounds=1)
  assert distance == 0
  ends = []
  for m in (4, 8):
    method, mesh, batch, _ = make(config_of("srim", warmup_rounds=1, candidates=m))
    state, step = jax.tree.map(jnp.copy, first_state), parallel.compile_step(method, mesh, 0)
    for _ in range(4):
      state, _ = step(state, batch)
    ends.append(state)
  assert not np.any(ends[0].aux.choice)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)  # two programs round apart
  jax.tree.map(close, ends[0].params, ends[1].params)
  # No gradient reaches the weights of a latent that is zero, whose kernel is the one of two channels.
  weights = [jax.tree.leaves(s.params["generator"]) for s in (first_state, ends[0])]
  moved = {w.shape: not np.array_equal(w, after) for w, after in zip(*weights, strict=True) if w.ndim == 4}
  assert [shape for shape in moved if not moved[shape]] == [(3, 3, 2, 16)]


def test_a_minibatch_takes_one_image_of_each_row_and_an_epoch_takes_all():
  rows, columns = 4, 3
  draws = [minibatch_columns(jax.random.key(0), rows, columns, jnp.int32(q)) for q in range(2 * columns)]
  for epoch in (draws[:columns], draws[columns:]):
    np.testing.assert_array_equal(np.sort(epoch, axis=0), np.tile(np.arange(columns)[:, None], rows))
  assert not np.array_equal(draws[:columns], draws[columns:])


def test_a_latent_is_fixed_by_key_image_leaf_and_candidate():
  ids, js = jnp.array([0, 1, 0]), jnp.array([5, 5, 6])
  shape = jax.ShapeDtypeStruct((2, 2, 3), jnp.float32)
  drawn = draw_latents(jax.random.key(0), ids, js, shape)
  alone = draw_latents(jax.random.key(0), ids[1:2], js[1:2], shape)
  np.testing.assert_array_equal(drawn[1], alone[0])
  other = [*drawn, draw_latents(jax.random.key(0), ids, js, shape, first=1)[0]]
  assert len({np.asarray(z).tobytes() for z in other}) == 4
  # A leaf is drawn alike in the whole latent and in a part of it.
  whole = draw_latents(jax.random.key(0), ids, js, {"a": shape, "b": [shape, shape]})
  part = draw_latents(jax.random.key(0), ids, js, [shape, shape], first=1)
  jax.tree.map(np.testing.assert_array_equal, whole["b"], part)


def srim_network(**keys):
  config = base.get_config("srim")
  config.method.features.layers = ()
  config.networks.generator.update({"width": 4, "layers": 3, "kernel": 3})
  config.train.update({"batch": 8})
  config.data.crop = (16, 16)
  config.method.update({"candidates": 6, "chunk": 3, "minibatch": 4, "inner_rounds": 4, **keys})
  return config


def random_batch(size: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
  hr = np.random.default_rng(seed).integers(0, 256, (size, 16, 16, 3), dtype=np.uint8)
  return {"hr": hr, "index": np.arange(size, dtype=np.int32), "mask": np.ones(size, bool)}


def test_flat_sampling_chooses_one_number_for_all_stages_and_hierarchical_one_each():
  flat, staged = (srim_network(hierarchical=hierarchical) for hierarchical in (False, True))
  method = make_method(flat, make_operator(flat))
  assert jax.eval_shape(method.init, jax.random.key(0), random_batch()).aux.choice.shape == (8, 1)
  method = make_method(staged, make_operator(staged))
  mesh = parallel.make_mesh(jax.devices()[:1])
  batch = parallel.put_batch(random_batch(), mesh)
  state = parallel.compile_init(method, mesh, 0)(batch)
  step = parallel.compile_step(method, mesh, 0)
  for _ in range(2):
    state, _ = step(state, batch)
  chosen = np.asarray(state.aux.choice)
  assert chosen.shape == (8, 2)
  assert (chosen[:, 0] != chosen[:, 1]).any()


def first_descent(config):
  """The states before and after the first round that descends, and its metrics; a slice is the whole pool."""
  method = make_method(config, make_operator(config))
  mesh = parallel.make_mesh(jax.devices()[:1])
  batch = parallel.put_batch(random_batch(), mesh)
  step = parallel.compile_step(method, mesh, 0)
  state = parallel.compile_init(method, mesh, 0)(batch)
  state, _ = step(graft.put(state, ({role: read() for role, read in method.weights.items()}, {})), batch)
  before = jax.tree.map(jnp.copy, state)
  return before, *step(state, batch)


def test_each_stage_chooses_the_nearest_to_the_truth_at_its_own_resolution():
  """Section 2.4, against all candidates of a stage one by one; the second goes on from the first's."""
  config = srim_network(minibatch=8)
  config.consistency = "project"
  before, _, metrics = first_descent(config)
  net, operator, batch = make_generator(config), make_operator(config), random_batch()
  y = batch["hr"] / np.float32(255)
  x, key = operator.lr(batch), jax.random.wrap_key_data(before.aux.key)
  params, stats = before.params["generator"], before.stats["generator"]
  previous, distances = x, np.zeros(())
  shapes, truths = net.latent(x.shape[1:]), (operator.with_factor((2, 2)).A(y), y)
  for s, (shape, truth) in enumerate(zip(shapes, truths, strict=True)):
    outputs = []
    for j in range(6):
      (latent,) = draw_latents(key, jnp.arange(8), jnp.full(8, j), [shape], s)
      output = eval_pass(net, params, stats, s, x, previous, latent, method="stage")
      outputs.append(operator.head(output, x) if s else output)
    distances = np.stack([np.square(output - truth).sum(axis=(1, 2, 3)) for output in outputs])
    np.testing.assert_array_equal(before.aux.choice[:, s], distances.argmin(axis=0))
    previous = np.stack(outputs)[distances.argmin(axis=0), np.arange(8)]
  np.testing.assert_allclose(metrics["selected"], distances.min(axis=0).mean(), rtol=1e-4)


@pytest.mark.parametrize(("rounds", "warmup"), [(20, 0), (20, 3), (21, 0), (19, 100)])
def test_the_schedule_of_the_rate_is_as_long_as_the_run_has_descents(monkeypatch, rounds, warmup):
  lengths = []

  def noted(optim, role, calls):
    lengths.append(calls)
    return optimiser(optim, role, calls)

  monkeypatch.setattr(importlib.import_module("sr_jax.methods.srim"), "optimiser", noted)
  config = config_of("srim", inner_rounds=4, warmup_rounds=warmup)  # 2 rounds of selection, then 4 of descent
  config.train.rounds = rounds
  method, mesh, batch, _ = make(config)
  state, step = parallel.compile_init(method, mesh, 0)(batch), parallel.compile_step(method, mesh, 0)
  descents = 0
  for _ in range(rounds):
    state, metrics = step(state, batch)
    descents += bool(metrics["images"])
  assert lengths == [descents]


def test_lower_stages_descend_on_their_own_distance_by_the_stage_weight():
  config = srim_network(minibatch=8, stage_weight=0.5)
  config.consistency = "project"
  before, _, metrics = first_descent(config)
  net, operator, batch = make_generator(config), make_operator(config), random_batch()
  y = batch["hr"] / np.float32(255)
  x, key = operator.lr(batch), jax.random.wrap_key_data(before.aux.key)
  latent = [
    draw_latents(key, jnp.arange(8), before.aux.choice[:, s], [shape], s)[0]
    for s, shape in enumerate(net.latent(x.shape[1:]))
  ]
  params, stats = before.params["generator"], before.stats["generator"]
  (lower, last), _ = train_pass(net, params, stats, x, latent, method="outputs")

  def distance(image, truth):
    return float(before.aux.alpha[0]) * np.square(image - truth).sum(axis=(1, 2, 3)).mean()

  low = operator.with_factor((2, 2)).A(y)
  expected = distance(operator.head(last, x), y) + 0.5 * distance(lower, low)
  np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)


def test_a_stage_weight_of_a_network_without_stages_raises_one_sentence():
  with pytest.raises(UserError, match="stage_weight is for a network that works in stages"):
    make(config_of("srim", stage_weight=1.0))


@pytest.mark.parametrize("method", ["srim", "amap_gan"])
def test_the_generator_of_srmap_is_trained_by_other_methods(method):
  config = base.get_config(method, generator="srmap")
  config.networks.generator.update({"stem": 4, "width": 8, "stages": 2, "blocks": 1, "widths": (4, 4)})
  config.data.crop = (16, 16)
  config.train.batch = 8
  if method == "srim":
    config.method.features.layers = ()
    config.method.update({"candidates": 2, "chunk": 2, "minibatch": 8, "inner_rounds": 4})
  else:
    config.networks.discriminator.update({"widths": (4,), "strides": (2,)})
  before, after, metrics = first_descent(config)
  assert np.isfinite(metrics["loss"])
  moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), before.params, after.params)
  assert all(distance > 0 for distance in jax.tree.leaves(moved["generator"]))


@pytest.fixture
def vgg_file(tmp_path):
  """A narrow VGG-19 up to conv2_2, in torchvision's layout."""
  rng, arrays, width = np.random.default_rng(0), {}, 3
  for number, features in zip((0, 2, 5, 7), (4, 4, 8, 8), strict=True):
    arrays[f"features.{number}.weight"] = rng.normal(size=(features, width, 3, 3)).astype(np.float32)
    arrays[f"features.{number}.bias"] = np.zeros(features, np.float32)
    width = features
  path = tmp_path / "vgg.npz"
  np.savez(path, **arrays)
  return str(path)


@pytest.mark.parametrize(("distance", "reduce"), [("sum", np.sum), ("mean", np.mean)])
def test_the_distance_of_phi_is_that_of_its_scaled_parts(distance, reduce):
  rng, alpha = np.random.default_rng(0), np.array([1.0, 3.0, 0.5])
  a, b = ([rng.normal(size=(2, 8 >> k, 6, 3 + k)) for k in range(3)] for _ in range(2))
  expected = [
    sum(reduce((s * p[i] - s * q[i]) ** 2) for s, p, q in zip(alpha, a, b, strict=True)) for i in (0, 1)
  ]
  found = FeatureSpace({}, 64, (), "zero", distance).squared_distance(jnp.asarray(alpha), a, b)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_regression_of_srim_worth_never_chooses_latents_however_long_it_trains():
  for variant in configs.load_module("srim_worth")["VARIANTS"]:
    config = configs.override(configs.load(f"srim_worth:{variant}"), ["--config.train.rounds=50000"])
    assert (config.method.warmup_rounds >= config.train.rounds) == ("regression" in variant)


def test_alpha_gives_every_part_of_phi_the_same_mean_square_and_stays(vgg_file):
  config = srim_network()
  config.method.features.update({"file": vgg_file, "layers": ("conv1_2", "conv2_2"), "width": 4})
  method = make_method(config, make_operator(config))
  mesh = parallel.make_mesh(jax.devices()[:1])
  batch = parallel.put_batch(random_batch(), mesh)
  state = parallel.compile_init(method, mesh, 0)(batch)
  state = graft.put(state, ({"vgg": method.weights["vgg"]()}, {}))
  step = parallel.compile_step(method, mesh, 0)
  frozen = jax.device_get(state.params["vgg"])
  state, _ = step(state, batch)
  alpha = np.asarray(state.aux.alpha)
  pixels = batch["hr"] / 255
  parts = [pixels, *vgg_features(frozen, pixels, ("conv1_2", "conv2_2"))]
  energies = [float(jnp.square(a * p).mean()) for a, p in zip(alpha, parts, strict=True)]
  np.testing.assert_allclose(energies, energies[0], rtol=1e-4)
  assert alpha[0] == 1
  other = parallel.put_batch(random_batch(seed=1), mesh)
  for _ in range(method.rounds_per_batch):
    state, _ = step(state, other)
  np.testing.assert_array_equal(alpha, state.aux.alpha)
  jax.tree.map(np.testing.assert_array_equal, frozen, jax.device_get(state.params["vgg"]))


def test_candidates_are_chosen_by_the_phi_on_which_is_descended(vgg_file):
  """Section 2.2.2 with VGG-19's features, each part times its alpha, against all candidates one by one."""
  config, layers = srim_network(minibatch=8, hierarchical=False), ("conv1_2", "conv2_2")
  config.method.features.update({"file": vgg_file, "layers": layers, "width": 4})
  before, _, metrics = first_descent(config)
  net, batch, alpha = make_generator(config), random_batch(), np.asarray(before.aux.alpha)
  assert len(set(alpha)) == 3
  y = batch["hr"] / np.float32(255)
  x, key = make_operator(config).lr(batch), jax.random.wrap_key_data(before.aux.key)

  def distance(image) -> np.ndarray:
    ours, theirs = ((v, *vgg_features(before.params["vgg"], v, layers, "zero")) for v in (image, y))
    parts = zip(alpha, ours, theirs, strict=True)
    return sum(np.square(a * (p - q)).sum(axis=(1, 2, 3)) for a, p, q in parts)

  def candidate(run, choice):
    latent = draw_latents(key, jnp.arange(8), choice, net.latent(x.shape[1:]))
    return run(net, before.params["generator"], before.stats["generator"], x, latent)

  found = [distance(candidate(eval_pass, jnp.full(8, j))) for j in range(6)]
  np.testing.assert_array_equal(before.aux.choice[:, 0], np.argmin(found, axis=0))
  by_pixels = [np.square(candidate(eval_pass, jnp.full(8, j)) - y).sum(axis=(1, 2, 3)) for j in range(6)]
  assert np.any(before.aux.choice[:, 0] != np.argmin(by_pixels, axis=0))
  chosen, _ = candidate(train_pass, before.aux.choice[:, 0])
  np.testing.assert_allclose(metrics["loss"], distance(chosen).mean(), rtol=1e-4)


def test_no_device_gathers_the_pool():
  """On four devices every image-sized collective would have a dimension of the image's size."""
  config = srim_network(minibatch=8)
  config.train.batch = 32
  method = make_method(config, make_operator(config))
  mesh = parallel.make_mesh()
  assert mesh.size == 4
  batch = parallel.put_batch(random_batch(32), mesh)
  state = parallel.abstract_state(method, mesh, batch)
  hlo = parallel.compile_step(method, mesh, 0).lower(state, batch).compile().as_text()
  assert "all-reduce" in hlo
  assert "collective-permute" not in hlo
  gathers = re.findall(r"= \(?(\w+)\[([\d,]*)\][^=]* all-(?:gather|to-all)\(", hlo)
  reduces = re.findall(r"= \(?(\w+)\[([\d,]*)\][^=]* all-reduce\(", hlo)
  sizes = [int(np.prod([int(d) for d in dims.split(",") if d])) for _, dims in gathers]
  # What may travel: numbers of candidates and distances, a few for each image of a minibatch.
  assert max(sizes, default=0) <= 8 * config.method.candidates, gathers
  reduced = [int(np.prod([int(d) for d in dims.split(",") if d])) for _, dims in reduces]
  assert max(reduced) <= max(leaf.size for leaf in jax.tree.leaves(state.params)), reduces


def test_a_pool_that_is_no_multiple_of_the_minibatch_raises_one_sentence():
  config = srim_network(minibatch=3)
  with pytest.raises(UserError, match=r"config\.train\.batch \(8\) must be a multiple"):
    make_method(config, make_operator(config))


def test_weights_of_other_shapes_raise_one_sentence(vgg_file):
  config = srim_network()
  config.method.features.update({"file": vgg_file, "layers": ("conv2_2",), "width": 2})
  method = make_method(config, make_operator(config))
  mesh = parallel.make_mesh(jax.devices()[:1])
  state = parallel.compile_init(method, mesh, 0)(parallel.put_batch(random_batch(), mesh))
  with pytest.raises(UserError, match="network 'vgg'"):
    graft.put(state, ({"vgg": method.weights["vgg"]()}, {}))


def test_features_see_the_borders_that_are_asked_for():
  images, params = random_batch()["hr"] / np.float32(255), random_vgg(jax.random.key(0), ("conv1_2",), 4)
  zero, reflect = (
    FeatureSpace({"vgg": None}, 4, ("conv1_2",), padding, "sum").parts({"vgg": params}, images)[1]
    for padding in ("zero", "reflect")
  )
  np.testing.assert_allclose(zero[:, 2:-2, 2:-2], reflect[:, 2:-2, 2:-2], rtol=1e-4, atol=1e-4)
  assert not np.allclose(zero, reflect, atol=1e-2)
