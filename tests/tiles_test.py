"""Tiles: how far each network sees, and that an image made in tiles is the image made whole."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from small_runs import network, tiny
from sr_jax.errors import UserError
from sr_jax.evaluate import evaluate
from sr_jax.method import Method
from sr_jax.methods import METHODS, make_method
from sr_jax.networks.projection import LearnedProjection
from sr_jax.ops import Operator, make_operator
from sr_jax.run import Run
from sr_jax.tiles import Budget, sample_in_tiles
from sr_jax.upscale import upscale

SIZE = (37, 30)  # no multiple of a tile
HR = np.random.default_rng(0).integers(0, 256, (1, 4 * SIZE[0], 4 * SIZE[1], 3), np.uint8)


@functools.cache
def made(name: str, **keys) -> tuple[Method, Operator]:
  config = tiny(name)
  if keys:
    config.networks.generator.update(keys)
  operator = make_operator(config)
  return make_method(config, operator), operator


def generic(shapes: Any) -> Any:
  """Weights and running statistics without zeros, of these shapes; activations keep their size."""
  rng = np.random.default_rng(1)

  def leaf(shape: jax.ShapeDtypeStruct) -> np.ndarray:
    if len(shape.shape) < 2:
      return rng.uniform(0.2, 0.6, shape.shape).astype(shape.dtype)
    return rng.normal(0, 1 / np.sqrt(np.prod(shape.shape[:-1])), shape.shape).astype(shape.dtype)

  return jax.tree.map(leaf, shapes)


@functools.cache
def drawn(name: str, budget: Budget | None, **keys) -> np.ndarray:
  """Two samples of a method for one input, as a whole or within a budget."""
  method, operator = made(name, **keys)
  state = generic(jax.eval_shape(method.init, jax.random.key(0), {"hr": HR}))
  sample = method.sample
  if budget:
    sample = sample_in_tiles(method.latents, method.deterministic, operator, budget)
  x = operator.lr({"hr": HR})
  return np.asarray(jax.jit(functools.partial(sample, n=2))(state, x, jax.random.key(2)))


ALL = [name for name in METHODS if name not in ("denoiser", "density", "classifier")]
REACHING = [name for name in ALL if not name.startswith("pixel")]


def test_a_method_has_a_reach_unless_it_draws_pixel_after_pixel():
  found = [name for name in ALL if (latents := made(name)[0].latents) and latents.reach is not None]
  assert found == REACHING


@pytest.mark.parametrize(("name", "keys"), [(name, {}) for name in REACHING] + [("regression", {"noise_channels": 1})])
def test_an_image_in_tiles_is_the_whole_image_for_the_same_seed(name, keys):
  """A budget of nothing takes the smallest tiles; all are projected, which sees the whole image."""
  assert made(name, **keys)[1].consistency == "project"
  whole = drawn(name, None, **keys)
  np.testing.assert_allclose(drawn(name, Budget(0), **keys), whole, atol=1e-5 * whole.std())


@pytest.mark.parametrize("name", ["srim", "varsr"])
def test_a_margin_smaller_than_the_reach_is_not_exact(name):
  reach = made(name)[0].latents.reach
  errors = [np.abs(drawn(name, Budget(0, margin)) - drawn(name, None)) for margin in (reach - 1, 1)]
  assert errors[0].max() > 1e-4 * drawn(name, None).std()
  assert errors[1].mean() > errors[0].mean()


NETWORKS = {
  "srresnet": ({}, 6),
  "srresnet direct": ({"tail": "direct", "blocks": 2, "residual": True}, 7),
  "srresnet residual": ({"tail": "direct", "blocks": 0, "kernel": 1, "outer_kernel": 1, "residual": True}, 2),
  "srresnet 4x2": ({"factor": (4, 2), "outer_kernel": 5, "noise_channels": 1}, 8),
  "srim": ({}, 3),
  "srim 8x": ({"factor": (8, 8), "layers": 4, "kernel": 5}, 8),
  "srim 1x1": ({"kernel": 1}, 1),
  "convnet": ({"noise_channels": 2}, 3),
  "tanh_residual": ({}, 5),
  "tanh_residual 2x": ({"factor": (2, 2), "blocks": 2}, 7),
}
SMALL = {
  "srresnet": {"width": 8, "blocks": 1, "outer_kernel": 3},
  "srim": {"width": 8, "layers": 3, "kernel": 3},
  "convnet": {"widths": (8, 8)},
  "tanh_residual": {"width": 8, "blocks": 1, "stddev": 0.0},
}


def seen(net: Any, factor: tuple[int, int]) -> tuple[np.ndarray, list[np.ndarray], int]:
  """Where the gradient of the centre's block is not zero, by input pixel: of the input, and of the latents."""
  side = 2 * net.reach + 5
  x = jax.random.uniform(jax.random.key(1), (1, side, side, 3))
  latent = jax.tree.map(
    lambda s: jax.random.normal(jax.random.key(2), (1, *s.shape)), net.latent(x.shape[1:])
  )
  variables = generic(jax.eval_shape(functools.partial(net.init, train=False), jax.random.key(0), x, latent))

  def centre(x: jax.Array, latent: Any) -> jax.Array:
    y = net.apply(variables, x, latent, train=False)
    blocks = y.reshape(side, factor[0], side, factor[1], 3)[side // 2, :, side // 2]
    return jnp.sum(blocks * jax.random.normal(jax.random.key(3), blocks.shape))

  of_x, of_latent = jax.jit(jax.grad(centre, (0, 1)))(x, latent)
  blocks = [leaf.reshape(side, leaf.shape[1] // side, side, -1) for leaf in jax.tree.leaves((of_x, of_latent))]
  found = [np.asarray(jnp.any(leaf != 0, axis=(1, 3))) for leaf in blocks]
  return found[0], found[1:], side // 2


def reaches(found: np.ndarray) -> int:
  """The distance of the furthest pixel from the centre, along rows or columns."""
  return int(np.abs(np.argwhere(found) - found.shape[0] // 2).max())


@pytest.mark.parametrize("case", NETWORKS)
def test_a_network_sees_as_far_as_it_says_and_no_further(case):
  keys, expected = NETWORKS[case]
  name, factor = case.split()[0], keys.get("factor", (4, 4))
  net = network(name, **SMALL[name] | keys)
  of_x, of_latent, _ = seen(net, factor)
  assert net.reach == expected == reaches(of_x)
  assert all(reaches(leaf) <= net.reach for leaf in of_latent)


@pytest.mark.parametrize("kernel", ["bicubic", "gaussian"])
def test_a_learned_projection_sees_as_far_as_generator_operator_and_kernels_together(kernel):
  operator = Operator(kernel, (4, 4), consistency="learned")
  net = LearnedProjection(network("convnet", widths=(8,)), operator, kernel=3, start="random", trainable=True)
  assert net.reach == 2 + operator.reach + 1 == reaches(seen(net, (4, 4))[0])
