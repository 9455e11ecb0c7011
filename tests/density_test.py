"""The autoregressive density: it is a density, its order is kept, and its gradients are right."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from sr_jax.errors import UserError
from sr_jax.networks import init, train_pass
from sr_jax.networks.mcgsm import LIMIT, MCGSM, UNIT
from sr_jax.networks.pixelcnn import MaskedConv, PixelDensity

FLOAT32 = jnp.dtype(jnp.float32)
SMALL: dict[str, Any] = {"components": 3, "quadratic": 4, "scales": 2}
NARROW = SMALL | {"width": 9, "layers": 2, "kernel": 3, "first_kernel": 3}


def random_variables(net: nn.Module, seed: int, deviation: float, *args, **keys):
  """Parameters and running statistics of normal numbers."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    values = deviation * rng.normal(size=leaf.shape).astype(np.float32)
    return np.abs(values) + 0.1 if path[-1].key == "var" else values

  shapes = jax.eval_shape(functools.partial(net.init, **keys), jax.random.key(0), *args)
  return jax.tree_util.tree_map_with_path(draw, shapes)


def random_mixture(seed: int):
  """A mixture, its random variables, and features h [5, D]."""
  net, h = MCGSM(**SMALL), jax.random.normal(jax.random.key(seed), (5, 6))
  return net, random_variables(net, seed, 1.0, h, h[:, 0]), h


def random_density(channels: int, seed: int = 0, **keys):
  """A narrow network and its random variables, with deviations of about 0.1."""
  net = PixelDensity(channels, **NARROW | {"dtype": FLOAT32, "norm": "batch"} | keys)
  return net, random_variables(net, seed, 0.2, jnp.zeros((1, 2, 2, channels)), train=False)


@functools.partial(jax.jit, static_argnums=0)
def log_density(net, variables, y):
  return net.apply(variables, y, train=False)


@functools.partial(jax.jit, static_argnums=0)
def compiled(net, variables, *args):
  return net.apply(variables, *args)


def on_a_line(net, variables, h):
  """The density at the points of a line that holds nearly all of it: points [n], densities [n, 5]."""
  y = np.arange(-20, 20, 5e-3)
  log_p = compiled(net, variables, h, np.repeat(y[:, None], len(h), axis=1).astype(np.float32))
  return y, np.exp(np.asarray(log_p, np.float64))


@pytest.mark.parametrize("seed", range(3))
def test_a_mixture_integrates_to_one(seed):
  y, p = on_a_line(*random_mixture(seed))
  np.testing.assert_allclose(np.trapezoid(p, y, axis=0), 1, rtol=1e-4)


def test_samples_have_the_mean_and_the_variance_of_the_density():
  net, variables, h = random_mixture(3)
  y, p = on_a_line(net, variables, h)
  mean = np.trapezoid(p * y[:, None], y, axis=0)
  variance = np.trapezoid(p * (y[:, None] - mean) ** 2, y, axis=0)
  fourth = np.trapezoid(p * (y[:, None] - mean) ** 4, y, axis=0)
  n = 100_000
  many = jnp.broadcast_to(h, (n, *h.shape))
  samples = np.asarray(net.apply(variables, many, jax.random.key(0), method="sample"), np.float64)
  assert samples.shape == (n, len(h))
  assert (np.abs(samples.mean(axis=0) - mean) < 4 * np.sqrt(variance / n)).all()
  assert (np.abs(samples.var(axis=0) - variance) < 4 * np.sqrt((fourth - variance**2) / n)).all()


def test_a_mixture_is_the_formula_written_out():
  net, variables, h = random_mixture(4)
  y = np.linspace(-1, 1, 5)
  params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
  alpha = LIMIT * np.tanh(params["alpha"] / LIMIT)
  for i, log_p in enumerate(compiled(net, variables, h, y.astype(np.float32))):
    x = np.asarray(h[i], np.float64)
    gate, joint = 0.0, 0.0
    for c, s in np.ndindex(alpha.shape):
      energy = sum(
        params["beta"][n, c] ** 2 * (params["features"]["kernel"][:, n] @ x) ** 2
        for n in range(SMALL["quadratic"])
      )
      weight = np.exp(params["eta"][c, s] - 0.5 * np.exp(alpha[c, s]) * energy)
      mean = params["means"]["kernel"][:, c] @ x + params["means"]["bias"][c]
      variance = UNIT**2 * np.exp(-alpha[c, s])
      gate += weight
      joint += weight * np.exp(-0.5 * (y[i] - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
    np.testing.assert_allclose(log_p, np.log(joint / gate), rtol=1e-3, atol=1e-3)


def test_deviations_stay_within_their_bounds_and_far_features_have_finite_gradients():
  net, variables, h = random_mixture(5)
  for alpha, deviation in ((1e6, UNIT / 100), (-1e6, UNIT * 100)):
    params = variables["params"] | {"alpha": np.full((3, 2), alpha, np.float32)}
    params["means"] = {"kernel": np.zeros((6, 3), np.float32), "bias": np.zeros(3, np.float32)}
    log_p = compiled(net, {"params": params}, h, jnp.zeros(5))
    np.testing.assert_allclose(log_p, -np.log(deviation * np.sqrt(2 * np.pi)), rtol=1e-3)
  slopes = jax.jit(jax.grad(lambda variables, h, y: net.apply(variables, h, y).sum(), argnums=(0, 1, 2)))
  for scale in (0.0, 1e3, 1e6):
    leaves = jax.tree.leaves(slopes(variables, scale * h, h[:, 0]))
    assert all(np.isfinite(leaf).all() for leaf in leaves), scale


def test_half_precision_features_give_float32_densities():
  net, variables, h = random_mixture(6)
  half = h.astype(jnp.bfloat16)
  log_p = compiled(net, variables, half, h[:, 0])
  assert log_p.dtype == jnp.float32
  np.testing.assert_array_equal(log_p, compiled(net, variables, half.astype(jnp.float32), h[:, 0]))
  y = jax.random.uniform(jax.random.key(0), (1, 4, 4, 3))
  for norm in ("batch", "none"):
    dtypes = (jnp.dtype(jnp.bfloat16), FLOAT32)
    in_half, in_full = (log_density(*random_density(3, dtype=dtype, norm=norm), y) for dtype in dtypes)
    assert in_half.dtype == jnp.float32
    assert 0 < np.abs(in_half - in_full).max() < 2


@pytest.mark.parametrize("shape", [(1, 2, 1), (2, 1, 1), (1, 1, 2), (1, 1, 3)])
def test_the_density_of_a_tiny_image_integrates_to_one(shape):
  step, axis = 0.1, np.arange(-3, 3, 0.1, dtype=np.float32)
  grid = np.stack(np.meshgrid(*[axis] * np.prod(shape)), axis=-1).reshape(-1, *shape)
  log_p = log_density(*random_density(shape[-1]), grid).sum(axis=(1, 2, 3))
  total = np.exp(np.asarray(log_p, np.float64)).sum() * step ** np.prod(shape)
  np.testing.assert_allclose(total, 1, rtol=1e-3)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_gradients_in_the_image_and_in_every_parameter_are_the_slopes(norm):
  net, variables = random_density(3, norm=norm)
  point = (variables["params"], jax.random.uniform(jax.random.key(1), (1, 4, 4, 3)))
  log_p = jax.jit(lambda params, y: net.apply(variables | {"params": params}, y, train=False).sum())
  gradients, step, rng = jax.jit(jax.grad(log_p, argnums=(0, 1)))(*point), 1e-3, np.random.default_rng(2)
  leaves, tree = jax.tree.flatten(point)
  for i, gradient in enumerate(jax.tree.leaves(gradients)):
    direction = rng.normal(size=gradient.shape).astype(np.float32)
    ends = [[*leaves[:i], leaves[i] + move * direction, *leaves[i + 1 :]] for move in (step, -step)]
    above, below = (log_p(*jax.tree.unflatten(tree, end)) for end in ends)
    np.testing.assert_allclose(
      np.vdot(gradient, direction), (above - below) / (2 * step), rtol=0.03, atol=0.3
    )
    assert np.abs(gradient).max() > 0


@functools.partial(jax.jit, static_argnums=0)
def jacobian(net, variables, y):
  return jax.jacrev(lambda y: net.apply(variables, y, train=False))(y)


def receptive_field(h: int, w: int, channels: int, sizes: list[int]) -> np.ndarray:
  """What may be seen, by composing layers: [n, n] for the n = h w channels sub-pixels, in their order."""
  ys, xs, cs = np.unravel_index(np.arange(h * w * channels), (h, w, channels))
  dy, dx, dc = (v[None, :] - v[:, None] for v in (ys, xs, cs))

  def layer(size: int, same_colour: bool) -> np.ndarray:
    near = (np.abs(dy) <= size // 2) & (np.abs(dx) <= size // 2)
    earlier = (dy < 0) | ((dy == 0) & (dx < 0))
    here = (dy == 0) & (dx == 0)
    return near & (earlier | (here & ((dc <= 0) if same_colour else (dc < 0))))

  seen = layer(sizes[0], same_colour=False)
  for size in sizes[1:]:
    seen = layer(size, same_colour=True) @ seen
  lower = (dy == 0) & (dx == 0) & (dc <= 0)  # a colour's mixture reads the lower groups too
  return lower @ seen


@pytest.mark.parametrize(
  ("channels", "sizes"), [(1, [3]), (1, [5, 3, 3]), (2, [3, 5]), (3, [3, 3]), (3, [7, 5])]
)
def test_a_sub_pixel_sees_all_before_it_in_its_field_and_nothing_else(channels, sizes):
  h, w = 4, 5
  keys = {"layers": len(sizes), "first_kernel": sizes[0], "kernel": sizes[-1]}
  steepest = 0.0
  for seed in range(3):  # a rectified unit may be off everywhere in one network
    net, variables = random_density(channels, seed, width=8 * channels, **keys)
    y = jax.random.uniform(jax.random.key(seed), (1, h, w, channels))
    slopes = np.asarray(jacobian(net, variables, y)).reshape(y.size, y.size)
    steepest = np.maximum(steepest, np.abs(slopes))
  seen = receptive_field(h, w, channels, sizes)
  assert not np.triu(seen).any()
  np.testing.assert_array_equal(steepest > 0, seen | np.eye(y.size, dtype=bool))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("kernel", "groups"), [((5, 5), 3), ((3, 3), 1), ((1, 5), 2), ((1, 1), 3)])
def test_a_cropped_kernel_is_a_full_one_with_zeros(kernel, groups, first):
  inputs, outputs = 6, 12
  net = MaskedConv(outputs, kernel, groups, first, FLOAT32)
  x = jax.random.normal(jax.random.key(0), (2, 6, 7, inputs))
  variables = random_variables(net, 1, 1.0, x)
  weights, bias = variables["params"]["kernel"], variables["params"]["bias"]
  full = np.zeros((*kernel, inputs, outputs), np.float32)
  for row, column, i, o in np.ndindex(weights.shape):
    above, left = row < kernel[0] // 2, row == kernel[0] // 2 and column < kernel[1] // 2
    centre = row == kernel[0] // 2 and column == kernel[1] // 2
    group_in, group_out = i // (inputs // groups), o // (outputs // groups)
    if above or left or (centre and (group_in < group_out or (group_in == group_out and not first))):
      full[row, column, i, o] = weights[row, column, i, o]
  expected = compiled(nn.Conv(outputs, kernel), {"params": {"kernel": full, "bias": bias}}, x)
  np.testing.assert_allclose(compiled(net, variables, x), expected, rtol=1e-4, atol=1e-4)


def test_every_unit_starts_with_the_variance_of_its_input():
  net = MaskedConv(300, (3, 3), groups=3, first=False, dtype=FLOAT32)
  x = jax.random.normal(jax.random.key(0), (8, 16, 16, 6))
  inside = compiled(net, jax.jit(net.init)(jax.random.key(1), x), x)[:, 1:, 1:-1]
  np.testing.assert_allclose(np.var(inside, axis=(0, 1, 2)).reshape(3, 100).mean(axis=1), 1, rtol=0.1)


def test_even_kernels_and_unknown_norms_raise_a_user_error():
  with pytest.raises(UserError, match="odd"):
    MaskedConv(4, (4, 4), 1, True, FLOAT32)
  with pytest.raises(UserError, match="norm"):
    PixelDensity(1, FLOAT32, **NARROW, norm="btach")


def test_a_colour_has_a_mixture_of_the_configs_components_features_and_scales():
  sizes = {"components": 5, "quadratic": 3, "scales": 2}
  net, variables = random_density(1, **sizes)
  mixture = variables["params"]["colour_0"]
  C, N, S, D = 5, 3, 2, net.width
  count = sum(leaf.size for leaf in jax.tree.leaves(mixture))
  assert count == (D + 1) * C + 2 * C * S + N * C + D * N


def test_training_finds_that_the_second_pixel_follows_the_first():
  """y_1 is uniform, y_2 is y_1 and noise of deviation 0.05: entropies 0 and -1.58 nats, in the mean -0.79."""
  net = PixelDensity(1, FLOAT32, **NARROW, norm="none")
  rng = np.random.default_rng(0)
  first = rng.uniform(size=(200, 256, 1, 1, 1))
  batches = np.concatenate([first, first + 0.05 * rng.normal(size=first.shape)], axis=3).astype(np.float32)
  params, stats = init(net, jax.random.key(0), batches[0])
  tx = optax.adam(1e-2)

  @jax.jit
  def step(params, opt, y):
    loss, gradients = jax.value_and_grad(lambda p: -train_pass(net, p, stats, y)[0].mean())(params)
    updates, opt = tx.update(gradients, opt)
    return optax.apply_updates(params, updates), opt, loss

  opt, losses = tx.init(params), []
  for y in batches:
    params, opt, loss = step(params, opt, y)
    losses.append(float(loss))
  assert -0.85 < np.mean(losses[-30:]) < -0.6


def test_weights_begin_with_the_deviation_that_is_asked_for():
  x = jnp.zeros((1, 4, 4, 30))
  stds = []
  for stddev in (0.1, 0.5):
    net = MaskedConv(300, (1, 3), groups=3, first=False, dtype=FLOAT32, stddev=stddev)
    kernel = np.asarray(net.init(jax.random.key(0), x)["params"]["kernel"])
    assert np.abs(kernel).max() <= 2.4 * stddev
    stds.append(kernel.std())
  assert stds[1] == pytest.approx(5 * stds[0], rel=0.02)
