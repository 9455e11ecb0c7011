"""Pixel recursive super-resolution: the order holds, the cache is exact, and the likelihood is one."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from small_runs import tiny as preset
from sr_jax.configs import base
from sr_jax.errors import UserError
from sr_jax.method import optimiser
from sr_jax.methods import make_method
from sr_jax.methods.pixel_recursive import LEVELS, bits, draw_token
from sr_jax.networks import eval_pass, make_network
from sr_jax.networks.gated_pixelcnn import GatedPixelCNN, draw_cached, gate, to_value
from sr_jax.networks.pixelcnn import MaskedConv, causal_mask
from sr_jax.ops import make_operator, resize

FLOAT32 = jnp.dtype(jnp.float32)
SMALL = {"width": 12, "layers": 2, "kernel": 3, "first_kernel": 5, "head": 24, "stddev": 0.1, "levels": 7}


def random_prior(channels: int, seed: int = 0, **keys):
  """A small prior and parameters of normal numbers, biases too."""
  net = GatedPixelCNN(channels, FLOAT32, **SMALL | keys)
  shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 2, 2, channels)))["params"]
  rng = np.random.default_rng(seed)
  return net, jax.tree.map(lambda leaf: 0.3 * rng.normal(size=leaf.shape).astype(np.float32), shapes)


@functools.partial(jax.jit, static_argnums=0)
def jacobian(net, params, y):
  return jax.jacrev(lambda y: net.apply({"params": params}, y))(y)


def seen(shape: tuple[int, int, int], net: GatedPixelCNN) -> np.ndarray:
  """What each sub-pixel may see, by hand: all before it within the layers' reach, no blind spot."""
  far = net.first_kernel // 2 + net.layers * (net.kernel // 2)
  order = list(itertools.product(*map(range, shape)))
  field = np.zeros((len(order),) * 2, bool)
  for i, (r, c, g) in enumerate(order):
    for j, (r2, c2, g2) in enumerate(order):
      above = 1 <= r - r2 <= far and abs(c - c2) <= far
      left = r == r2 and 1 <= c - c2 <= far
      field[i, j] = above or left or ((r, c) == (r2, c2) and g2 < g)
  return field


@pytest.mark.parametrize(
  ("channels", "shape", "keys"),
  [
    (1, (5, 7), {}),
    (3, (4, 5), {}),
    (2, (6, 7), {"layers": 1, "first_kernel": 3}),
    (3, (2, 9), {"kernel": 5}),
  ],
)
def test_a_logit_sees_all_before_its_sub_pixel_within_reach_and_nothing_else(channels, shape, keys):
  slopes = 0.0
  for seed in range(4):  # a rectified unit may be off everywhere in one network
    net, params = random_prior(channels, seed, **keys)
    y = jax.random.uniform(jax.random.key(seed), (1, *shape, channels))
    every = np.abs(np.asarray(jacobian(net, params, y))).reshape(y.size, net.levels, y.size)
    slopes = np.maximum(slopes, every.max(axis=1))
  field = seen((*shape, channels), net)
  assert not np.triu(field).any()
  np.testing.assert_array_equal(slopes > 0, field)


@pytest.mark.parametrize("parts", [1, 2])
def test_both_halves_of_a_gate_have_the_colours_of_their_feature(parts):
  mask = causal_mask((1, 3), 7, 7 * parts, 3, first=False, parts=parts)
  halves = np.split(mask, parts, axis=-1)
  assert all(np.array_equal(half, halves[0]) for half in halves)
  assert [int(column.sum()) for column in halves[0][0, 1].T] == [3, 3, 3, 5, 5, 7, 7]


def test_a_masked_product_is_the_masked_convolution():
  x = jax.random.normal(jax.random.key(0), (2, 3, 4, 6))
  product, wide = (MaskedConv(9, kernel, 3, False, FLOAT32) for kernel in ((1, 1), (1, 3)))
  params = product.init(jax.random.key(1), x)["params"]
  kernel = jnp.zeros((1, 2, 6, 9)).at[:, 1:2].set(params["kernel"])
  expected = wide.apply({"params": params | {"kernel": kernel}}, x)
  np.testing.assert_allclose(product.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  ("channels", "keys"),
  [(3, {}), (1, {"layers": 3}), (3, {"kernel": 5, "first_kernel": 3}), (2, {"first_kernel": 7, "width": 5})],
)
def test_cached_equals_naive_with_the_same_noise(channels, keys):
  shape = (2, 5, 6, channels)
  net, params = random_prior(channels, **keys)
  noise = jax.random.gumbel(jax.random.key(0), (5, 2, 6, channels, net.levels))
  draws = [
    jax.jit(lambda p, d=d: d(net, p, shape, lambda r: noise[r], largest)) for d in (draw_cached, draw_naive)
  ]
  cached, naive = (np.asarray(draw(params)) for draw in draws)
  np.testing.assert_array_equal(cached, naive)
  assert len(np.unique(cached)) == net.levels
  assert not np.array_equal(cached[0], cached[1])


def draw_naive(net, params, shape, rows, pick):
  """What `draw_cached` must give, by a pass over the whole image for every sub-pixel."""
  _, _, width, channels = shape

  def one(t, tokens):
    r, c, g = t // (width * channels), t // channels % width, t % channels
    logits = jnp.asarray(net.apply({"params": params}, to_value(tokens, net.levels)))
    chosen = pick(logits[:, r, c, g], jax.tree.map(lambda v: v[:, c, g], rows(r)))
    return tokens.at[:, r, c, g].set(chosen)

  return jax.lax.fori_loop(0, math.prod(shape[1:]), one, jnp.zeros(shape, jnp.int32))


def largest(logits, bias):
  return jnp.argmax(logits + bias, axis=-1)


@pytest.mark.parametrize("channels", [1, 3])
def test_cached_logits_are_those_of_the_whole_pass_on_the_same_prefix(channels):
  net, params = random_prior(channels)
  shape = (2, 4, 5, channels)
  wanted = jax.random.randint(jax.random.key(1), shape, 0, net.levels)
  expected = net.apply({"params": params}, to_value(wanted, net.levels))

  def pick(logits, given):
    """What was wanted, so that the prefix is the same, or -1 where the logits are others."""
    return jnp.where(jnp.abs(logits - given[0]).max(axis=-1) < 1e-4, given[1], -1)

  for shift, right in ((0.0, True), (1e-3, False)):
    drawn = draw_cached(
      net, params, shape, lambda r, shift=shift: (expected[:, r] + shift, wanted[:, r]), pick
    )
    assert (drawn[:, 0, 0, 0] == wanted[:, 0, 0, 0]).all() == right
    assert np.array_equal(drawn, wanted) == right


# The likelihood


@pytest.mark.parametrize("shape", [(2, 2, 1), (1, 2, 2)])
def test_probabilities_of_all_images_sum_to_one_and_samples_have_their_frequencies(shape):
  net, params = random_prior(shape[-1], levels=3)
  images = np.array(list(itertools.product(range(3), repeat=4))).reshape(-1, *shape)
  extra = jax.random.normal(jax.random.key(5), (*shape, 3))  # the conditioning network's part

  logits = net.apply({"params": params}, to_value(jnp.asarray(images), 3)) + extra
  p = np.exp2(-4 * np.asarray(bits(logits, images), np.float64))
  assert p.sum() == pytest.approx(1, abs=1e-5)

  n = 20_000

  def rows(r):
    uniform = jax.random.uniform(jax.random.fold_in(jax.random.key(0), r), (n, *shape[1:]))
    return jnp.broadcast_to(extra[r], (n, *shape[1:], 3)), uniform

  def pick(logits, given):
    return draw_token(logits + given[0], given[1])

  drawn = np.asarray(jax.jit(lambda p: draw_cached(net, p, (n, *shape), rows, pick))(params)).reshape(n, 4)
  frequency = np.bincount(drawn @ [27, 9, 3, 1], minlength=81) / n
  assert (np.abs(frequency - p) < 5 * np.sqrt(p / n) + 1e-4).all()


# The methods


def tiny(name: str = "pixel_recursive", channels: int = 3, **keys):
  config = preset(name)
  config.consistency = "none"
  config.optim.generator.learning_rate = 1e-4
  config.data.channels = config.eval.data.channels = channels
  config.operator.update({"factor": (2, 2), "rounding": "none"})
  config.method.update(keys)
  return config


def make(config):
  operator = make_operator(config)
  return make_method(config, operator), operator


def images(channels: int = 3, size: tuple[int, int] = (6, 8)) -> dict[str, np.ndarray]:
  hr = np.random.default_rng(0).integers(0, 256, (4, *size, channels), dtype=np.uint8)
  return {"hr": hr}


@functools.cache
def started(name: str, channels: int = 3):
  method, operator = make(tiny(name, channels))
  return method, operator, jax.jit(method.init)(jax.random.key(0), images(channels))


def test_greedy_sub_pixels_are_the_likeliest_by_the_objective():
  """The last one, which no other depends on, against all values that it may have."""
  method, operator, state = started("pixel_recursive")
  rng = np.random.default_rng(1)
  random = jax.tree.map(lambda leaf: 0.3 * rng.normal(size=leaf.shape).astype(np.float32), state.params)
  state = state.replace(params=random)
  lr = operator.lr({"hr": images()["hr"][:1]})
  drawn = method.sample(state, lr, jax.random.key(0), n=1, temperature=0.0)[0]
  last = int(np.round(255 * drawn[0, -1, -1, -1]))
  every = np.repeat(np.round(255 * np.asarray(drawn)).astype(np.uint8), LEVELS, axis=0)
  every[:, -1, -1, -1] = np.arange(LEVELS)
  # The inputs of the drawn image, whatever the alternatives would be reduced to.
  batch = {"hr": every, "lr": np.repeat(np.asarray(lr), LEVELS, axis=0)}
  assert int(np.argmin(method.objective(state, batch, jax.random.key(0))["bits_per_dim"])) == last


def loss_of(weight: float):
  """Loss and metrics of one round, and the gradient of the conditioning network's last layer by SGD."""
  config = tiny(conditioning_weight=weight)
  config.optim.generator.update({"name": "sgd", "learning_rate": 1.0})
  method, _ = make(config)
  state = jax.jit(method.init)(jax.random.key(0), images())
  after, metrics = jax.jit(method.step)(state, images(), jax.random.key(0))
  return {name: float(value) for name, value in metrics.items()}, after.params["generator"]


def logit_bias(params) -> jax.Array:
  """The bias of a conditioning network's logits."""
  (bias,) = (leaf for leaf in jax.tree.leaves(params) if leaf.shape == (3 * LEVELS,))
  return bias


def test_the_loss_is_the_sum_of_both_cross_entropies_and_without_weight_that_of_equation_7():
  (both, moved), (one, moved_less) = loss_of(1.0), loss_of(0.0)
  total = both["bits_per_dim"] + both["conditioning_bits_per_dim"]
  assert both["loss"] == pytest.approx(np.log(2) * total, rel=1e-5)
  assert one["loss"] == pytest.approx(np.log(2) * one["bits_per_dim"], rel=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), moved["prior"], moved_less["prior"]
  )
  assert not np.allclose(*(logit_bias(tree["conditioning"]) for tree in (moved, moved_less)))


def test_a_temperature_of_zero_is_greedy_decoding_and_one_draws():
  method, operator, state = started("pixel_recursive")
  x = operator.lr(images())
  draw = jax.jit(method.sample, static_argnames=("n", "temperature"))
  greedy = draw(state, x, jax.random.key(0), n=2, temperature=0.0)
  np.testing.assert_array_equal(greedy[0], greedy[1])
  np.testing.assert_array_equal(greedy, draw(state, x, jax.random.key(1), n=2, temperature=0.0))
  warm = draw(state, x, jax.random.key(0), n=2)
  assert (np.asarray(warm[0]) != np.asarray(warm[1])).mean() > 0.9
  np.testing.assert_allclose(np.round(np.asarray(warm) * 255), np.asarray(warm) * 255, atol=1e-4)


@pytest.mark.parametrize("name", ["pixel_recursive", "pixel_independent"])
def test_every_row_and_column_of_every_sample_is_drawn_with_numbers_of_its_own(name):
  """Without weights every level is equally likely, so that equal rows had equal numbers."""
  method, operator, state = started(name)
  state = state.replace(params=jax.tree.map(jnp.zeros_like, state.params))
  y = np.asarray(method.sample(state, operator.lr(images()), jax.random.key(0), n=2))
  for order in (y, y.swapaxes(2, 3)):
    lines = order.reshape(-1, order.shape[-2] * order.shape[-1])
    assert len(np.unique(lines, axis=0)) == len(lines)


def test_the_greedy_image_of_independent_sub_pixels_has_the_most_probable_level_of_each():
  config = tiny("pixel_independent")
  method, operator = make(config)
  batch = images(size=(12, 8))
  state = jax.jit(method.init)(jax.random.key(0), batch)
  draw = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(np.float32), state.params)
  x, state = operator.lr(batch), state.replace(params=params)
  net, stats = make_network(config, "generator"), state.stats["generator"]
  logits = eval_pass(net, params["generator"]["conditioning"], stats, x)
  tokens = np.asarray(method.sample(state, x, jax.random.key(0), n=2, temperature=0.0)) * (LEVELS - 1)
  np.testing.assert_allclose(tokens, np.stack([np.argmax(logits, axis=-1)] * 2), atol=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_temperature_divides_the_logits(temperature):
  """Frequencies of the first sub-pixel are p to the power tau, normalised."""
  method, operator, state = started("pixel_independent", 1)
  bias = jax.random.normal(jax.random.key(1), (LEVELS,))
  # Logits that are their bias alone.
  shapes = {(6, LEVELS): jnp.zeros((6, LEVELS)), (LEVELS,): bias}
  params = jax.tree.map(lambda leaf: shapes.get(leaf.shape, leaf), state.params)
  state = state.replace(params=params)
  x = operator.lr(images(1))[:1]
  n = 40_000
  drawn = jax.jit(method.sample, static_argnames=("n", "temperature"))(
    state, x[:, :1, :1], jax.random.key(0), n=n, temperature=temperature
  )
  tokens = np.round(np.asarray(drawn[:, 0, 0, 0, 0]) * 255).astype(int)
  p = np.asarray(jax.nn.softmax(bias / temperature), np.float64)
  frequency = np.bincount(tokens, minlength=LEVELS) / n
  assert (np.abs(frequency - p) < 5 * np.sqrt(p / n) + 1e-4).all()


def test_images_of_other_sizes_are_drawn_and_judged():
  method, operator, state = started("pixel_recursive")
  other = images(size=(10, 4))
  y = method.sample(state, operator.lr(other), jax.random.key(0), n=1)
  assert y.shape == (1, 4, 10, 4, 3)
  assert method.objective(state, other, jax.random.key(0))["bits_per_dim"].shape == (4,)


def test_a_network_that_sees_the_whole_image_says_that_it_has_one_size():
  config = tiny()
  config.networks.generator.conditioning.whole = 4
  method, operator = make(config)
  state = jax.jit(method.init)(jax.random.key(0), images())
  with pytest.raises(UserError, match="whole image"):
    method.sample(state, operator.lr(images(size=(8, 8))), jax.random.key(0), n=1)


def test_the_regression_starts_from_the_enlargement_and_adds_at_most_one():
  config = base.get_config("regression", generator="tanh_residual")
  config.networks.generator.update({"width": 6, "blocks": 1, "stddev": 1e-6})
  method, operator = make(config)
  batch = images(size=(16, 16))
  state = jax.jit(method.init)(jax.random.key(0), batch)
  x = operator.lr(batch)
  y = method.sample(state, x, jax.random.key(0), n=1)[0]
  np.testing.assert_allclose(y, resize(x, (16, 16), "bicubic"), atol=1e-4)
  high = jax.tree.map(lambda leaf: leaf + 100.0 if leaf.shape == (3,) else leaf, state.params)
  state = state.replace(params=high)
  y = method.sample(state, x, jax.random.key(0), n=1)[0]
  np.testing.assert_allclose(y, resize(x, (16, 16), "bicubic") + 1, atol=1e-5)


def test_rmsprop_is_tensorflows_with_its_mean_square_from_one():
  optim = base.get_config("pixel_recursive").optim
  optim.generator.update({"name": "rmsprop", "learning_rate": 0.1, "eps": 0.1})
  tx = optimiser(optim, "generator", 10)
  state, mean_square, velocity = tx.init(jnp.zeros(())), 1.0, 0.0
  for gradient in (2.0, -1.0, 0.5):
    update, state = tx.update(jnp.float32(gradient), state)
    mean_square = 0.95 * mean_square + 0.05 * gradient**2
    velocity = 0.9 * velocity + 0.1 * gradient / np.sqrt(mean_square + 0.1)
    assert float(update) == pytest.approx(-velocity, rel=1e-5)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"consistency": "learned"}, "learned"),
    ({"operator.factor": (3, 3)}, "power of two"),
    ({"operator.factor": (2, 4)}, "alike"),
    ({"networks.generator.prior.width": 2}, "each colour"),
    ({"networks.generator.prior.kernel": 4}, "odd"),
    ({"networks.generator.prior.layers": 0}, "one layer"),
    ({"networks.generator.conditioning.norm": "btch"}, r"config\.networks\.\*\.norm"),
  ],
)
def test_wrong_keys_raise_one_sentence(change, message):
  config = tiny()
  config.update_from_flattened_dict(change)

  def start():
    make(config)[0].init(jax.random.key(0), images())

  with pytest.raises(UserError, match=message):
    start()


def test_another_network_and_unbounded_images_raise_a_user_error():
  with pytest.raises(UserError, match="pixel_recursive"):
    make(base.get_config("pixel_recursive", generator="srresnet"))
  method, _ = make(tiny())
  with pytest.raises(UserError, match="bytes"):
    method.objective(
      started("pixel_recursive")[2], {"hr": np.zeros((1, 4, 4, 3), np.float32)}, jax.random.key(0)
    )


def test_a_gate_is_the_tanh_of_its_first_half_by_the_sigmoid_of_its_second():
  expected = np.tanh([1.0, -2.0]) / (1 + np.exp([-0.5, -3.0]))
  np.testing.assert_allclose(gate(jnp.array([1.0, -2.0, 0.5, 3.0])), expected, rtol=1e-5)
