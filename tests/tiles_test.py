"""Tiles: how far each network sees, and that an image made in tiles is the image made whole."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from small_runs import network, tiny, write_images
from sr_jax import evaluate
from sr_jax.data import open_source
from sr_jax.errors import UserError
from sr_jax.method import Method
from sr_jax.methods import METHODS, make_method
from sr_jax.networks.projection import LearnedProjection
from sr_jax.ops import Operator, make_operator
from sr_jax.run import Run
from sr_jax.tiles import Budget
from sr_jax.upscaling import upscale

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


def some_run(name: str, **keys) -> Run:
  method, operator = made(name, **keys)
  state = generic(jax.eval_shape(method.init, jax.random.key(0), {"hr": HR}))
  return Run(tiny(name), operator, method, state)


@functools.cache
def drawn(name: str, budget: Budget | None, **keys) -> np.ndarray:
  """Two samples of a method for one input, as a whole or within a budget."""
  run = some_run(name, **keys)
  draw = jax.jit(run.sampler(budget=budget), static_argnums=2)
  return np.asarray(draw(run.operator.lr({"hr": HR}), jax.random.key(2), 2))


ALL = [name for name in METHODS if name not in ("denoiser", "density", "classifier")]
REACHING = [name for name in ALL if not name.startswith("pixel")]


def test_a_method_has_a_reach_unless_it_draws_pixel_after_pixel():
  found = [name for name in ALL if (latents := made(name)[0].latents) and latents.reach is not None]
  assert found == REACHING


@pytest.mark.parametrize(
  ("name", "keys"), [(name, {}) for name in REACHING] + [("regression", {"noise_channels": 1})]
)
def test_an_image_in_tiles_is_the_whole_image_for_the_same_seed(name, keys):
  """A budget of nothing takes the smallest tiles; all are projected, which sees the whole image."""
  assert made(name, **keys)[1].consistency == "project"
  whole = drawn(name, None, **keys)
  np.testing.assert_allclose(drawn(name, Budget(0), **keys), whole, atol=1e-5 * whole.std())


def test_a_margin_smaller_than_the_reach_is_not_exact():
  name = "regression"
  less, whole = drawn(name, Budget(0, made(name)[0].latents.reach - 1)), drawn(name, None)
  assert np.abs(less - whole).max() > 1e-3 * whole.std()


NETWORKS = {
  "srresnet direct": ({"tail": "direct", "blocks": 2, "residual": True}, 7),
  "srresnet residual": ({"tail": "direct", "blocks": 0, "kernel": 1, "outer_kernel": 1, "residual": True}, 2),
  "srresnet 4x2": ({"factor": (4, 2), "outer_kernel": 5, "noise_channels": 1}, 8),
  "srim 8x": ({"factor": (8, 8), "layers": 2, "kernel": 5}, 5),
  "convnet": ({"noise_channels": 2}, 3),
  "srmap": ({"blocks": 1}, 5),
  "tanh_residual": ({}, 5),
}
SMALL = {
  "srresnet": {"width": 8, "blocks": 1, "outer_kernel": 3},
  "srim": {"width": 8, "layers": 3, "kernel": 3},
  "convnet": {"widths": (8, 8)},
  "srmap": {"stem": 4, "width": 8, "stages": 1, "blocks": 2, "widths": (4, 4)},
  "tanh_residual": {"width": 8, "blocks": 1, "stddev": 0.0},
}


def seen(net: Any, factor: tuple[int, int]) -> tuple[np.ndarray, list[np.ndarray]]:
  """The pixels where the gradient of the centre's block is not zero, of the input and of the latents."""
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
  blocks = [
    leaf.reshape(side, leaf.shape[1] // side, side, -1) for leaf in jax.tree.leaves((of_x, of_latent))
  ]
  found = [np.asarray(jnp.any(leaf != 0, axis=(1, 3))) for leaf in blocks]
  return found[0], found[1:]


def reaches(found: np.ndarray) -> int:
  """The distance of the furthest pixel from the centre, along rows or columns."""
  return int(np.abs(np.argwhere(found) - found.shape[0] // 2).max())


@pytest.mark.parametrize("case", NETWORKS)
def test_a_network_sees_as_far_as_it_says_and_no_further(case):
  keys, expected = NETWORKS[case]
  name, factor = case.split()[0], keys.get("factor", (4, 4))
  net = network(name, **SMALL[name] | keys)
  of_x, of_latent = seen(net, factor)
  assert net.reach == expected == reaches(of_x)
  assert all(reaches(leaf) <= net.reach for leaf in of_latent)


@pytest.mark.parametrize("kernel", ["bicubic", "gaussian"])
def test_a_learned_projection_sees_as_far_as_generator_operator_and_kernels_together(kernel):
  operator = Operator(kernel, (4, 4), consistency="learned")
  net = LearnedProjection(network("convnet", widths=(8,)), operator, kernel=3, start="random", trainable=True)
  assert net.reach == 2 + operator.reach + 1 == reaches(seen(net, (4, 4))[0])


@pytest.mark.parametrize(
  ("name", "keys"),
  [
    ("srresnet", {"norm": "instance"}),
    ("convnet", {"norm": "instance"}),
    ("tanh_residual", {"whole": 4}),
    ("srmap", {"attention": True}),
  ],
)
def test_a_network_with_a_layer_that_sees_the_whole_image_has_no_reach(name, keys):
  net = network(name, **SMALL[name] | keys)
  assert net.reach is None
  projected = LearnedProjection(net, Operator(), kernel=3, start="random", trainable=True)
  assert projected.reach is None


# Use


def image() -> np.ndarray:
  return np.asarray(jnp.round(255 * made("regression")[1].lr({"hr": HR})[0])).astype(np.uint8)


def test_upscale_makes_an_image_that_needs_more_memory_in_tiles():
  run = some_run("regression")
  whole, parts, wrong = (
    upscale(run, image(), samples=1, **keys).astype(int)
    for keys in ({}, {"memory": 1}, {"memory": 1, "margin": 0})
  )
  assert np.abs(parts - whole).max() <= 1
  assert np.mean(parts != whole) < 1e-3
  assert np.abs(wrong - whole).max() > 1


@pytest.mark.parametrize("other", [np.uint16, np.float32])
def test_upscale_takes_bytes_alone(other):
  with pytest.raises(UserError, match="give bytes, uint8 from 0 to 255"):
    upscale(some_run("regression"), image().astype(other))


@pytest.mark.parametrize(
  ("name", "keys", "answer"),
  [
    (
      "regression",
      {"norm": "instance"},
      "it cannot be made in tiles, because this network sees the whole image",
    ),
    ("regression", {"blocks": 9}, "a tile with margins of 22 pixels needs [0-9]+ MiB: give more memory"),
    ("pixel_independent", {}, "'pixel_independent' makes an image as a whole: give one of the size"),
  ],
)
def test_what_cannot_be_made_in_tiles_is_refused_in_one_sentence(name, keys, answer):
  with pytest.raises(
    UserError, match=f"^An input of 30x37 pixels needs [0-9]+ MiB and --memory is 1.*{answer}"
  ):
    upscale(some_run(name, **keys), image(), memory=1)


def test_a_margin_does_not_cut_what_sees_the_whole_image():
  with pytest.raises(
    UserError, match="it cannot be made in tiles, because this network sees the whole image"
  ):
    upscale(some_run("regression", norm="instance"), image(), memory=1, margin=4)


def test_the_memory_of_a_program_does_not_grow_with_the_image_but_for_the_image():
  """Beyond the images themselves: of the projection, and of the samples."""
  method, operator = made("regression", width=32)
  state = jax.eval_shape(method.init, jax.random.key(0), {"hr": HR})
  run = Run(tiny("regression"), operator, method, state)

  def mebibytes(side: int, budget: Budget | None) -> float:
    draw = jax.jit(lambda state, x: run._replace(state=state).sampler(budget=budget)(x, jax.random.key(0), 1))
    compiled = draw.lower(state, jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 2**20

  budget = Budget(4 << 20)
  images = 6 * 3 * 4 * 16 * 256**2 / 2**20
  assert mebibytes(256, None) > images + 100
  assert mebibytes(256, budget) < images + 4


def test_an_evaluation_makes_large_images_in_tiles(tmp_path, monkeypatch):
  run, shapes = some_run("regression"), []
  latents = run.method.latents

  def decode(state, lr, latent):
    shapes.append(lr.shape)
    return latents.decode(state, lr, latent)

  source = run.config.eval.data
  source.update({"name": "folder", "dir": str(write_images(tmp_path / "images", 2, HR.shape[1:3]))})
  run.config.eval.update({"metrics": ("psnr",), "border": 0})
  run = run._replace(method=run.method._replace(latents=latents._replace(decode=decode)))
  found = []
  for memory in (2048, 0):
    monkeypatch.setattr(evaluate, "MEMORY", memory)
    shapes.clear()
    found.append(evaluate.make_watch(run.config, open_source(source))(run))
    assert (min(shapes) == (1, *SIZE, 3)) == (memory > 0)
  assert found[0] == pytest.approx(found[1], rel=1e-5)
