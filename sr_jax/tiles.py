"""Images of any size in bounded memory: a generator's image is made in tiles where the whole is too large.

The latent of the whole image is drawn once and cut like the input, so that neighbours agree and no random
number depends on the tiles. A tile is made with a margin around it, which stops at the image's border; with
one as wide as the network sees (`Latents.reach`) it equals that part of the whole image up to rounding. The
operator's head, which sees the whole image but is two small matrices an axis, is applied to the assembled
one.
"""

import math
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.errors import UserError
from sr_jax.method import Array, Latents, Sample, State
from sr_jax.methods.generator import make_sample
from sr_jax.ops import Operator

MEMORY = 2048  # MiB
PROBE = 64  # side of the input of which the memory of a network is measured, in pixels
LEAST = 8  # side of the smallest tile with its margin


class Budget(NamedTuple):
  """What the networks that make an image may take.

  Attributes:
    memory: bytes of their activations; the image itself comes on top.
    margin: around a tile, in pixels of the input; None: the reach, which is exact.
    strict: refuse an image that needs more; otherwise it gets what it needs.
  """

  memory: int
  margin: int | None = None
  strict: bool = False


@lru_cache
def sample_in_tiles(latents: Latents, deterministic: bool, operator: Operator, budget: Budget) -> Sample:
  """The `sample` of a method with these latents, within a budget: the same images for the same key.

  Raises:
    UserError: when it is called or traced, if the budget is strict and not enough.
  """
  decode = partial(_decode, latents, operator.factor, budget)
  return make_sample(operator, latents._replace(decode=decode), deterministic)


def _decode(
  latents: Latents, factor: tuple[int, int], budget: Budget, state: State, lr: Array, latent: Any
) -> Array:
  """`latents.decode` within a budget: lr [B, h, w, C] -> [B, H, W, C]."""
  size, (fy, fx) = (lr.shape[1], lr.shape[2]), factor
  margin = latents.reach if None in (latents.reach, budget.margin) else budget.margin
  windows = _windows(_bytes_per_pixel(latents, state, lr, latent), size, budget, margin)
  if margin is None or windows == size:
    return latents.decode(state, lr, latent)
  cores = [w if w == n else w - 2 * margin for w, n in zip(windows, size, strict=True)]
  # All tiles have one shape, so that one program makes them: the last ones overlap those before.
  starts = [np.minimum(np.arange(0, n, core), n - core) for n, core in zip(size, cores, strict=True)]
  corners = jnp.asarray(np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 2))
  first = jnp.clip(corners - margin, 0, jnp.asarray([n - w for n, w in zip(size, windows, strict=True)]))

  def cut(leaf: Array, corner: Array) -> Array:
    """What belongs to the tile at that pixel of the input, of an array at one or several times its size."""
    if leaf.ndim != 4:  # a vector belongs to the whole image
      return leaf
    ky, kx = leaf.shape[1] // size[0], leaf.shape[2] // size[1]
    return _slice(leaf, corner * jnp.asarray([ky, kx]), (windows[0] * ky, windows[1] * kx))

  def add(i: Array, image: Array) -> Array:
    own, scale = first[i], jnp.asarray([fy, fx])
    tile = latents.decode(state, *jax.tree.map(lambda leaf: cut(leaf, own), (lr, latent)))
    core = _slice(tile, (corners[i] - own) * scale, (cores[0] * fy, cores[1] * fx))
    return jax.lax.dynamic_update_slice(image, core, (0, *(corners[i] * scale), 0))

  blank = jnp.zeros((len(lr), size[0] * fy, size[1] * fx, lr.shape[-1]))
  return jax.lax.fori_loop(0, len(corners), add, blank)


def _slice(images: Array, corner: Array, size: tuple[int, int]) -> Array:
  return jax.lax.dynamic_slice(images, (0, *corner, 0), (len(images), *size, images.shape[-1]))


def _windows(per_pixel: float, size: tuple[int, int], budget: Budget, margin: int | None) -> tuple[int, int]:
  """The rows and columns of a tile with its margins; those of the image if it is made as a whole.

  Args:
    per_pixel: bytes of activations for each pixel of the input.
    size: of the input.
    budget, margin: see `Budget`; no margin: the network sees the whole image.
  """
  height, width = size
  mebibytes = math.ceil(per_pixel * height * width / 2**20)
  if per_pixel * height * width <= budget.memory or (margin is None and not budget.strict):
    return size
  asked = f"An input of {width}x{height} pixels needs {mebibytes:,} MiB and --memory is {budget.memory >> 20}"
  if margin is None:
    raise UserError(
      f"{asked}, but it cannot be made in tiles, because this network sees the whole image: give a smaller "
      "image, or more memory."
    )
  # Margins on both sides leave at least a third of a tile's side to its core.
  least = max(3 * margin, LEAST)
  area = budget.memory / per_pixel
  smallest = min(least, height) * min(least, width)
  if budget.strict and area < smallest:
    needed = math.ceil(per_pixel * smallest / 2**20)
    raise UserError(
      f"{asked}, but a tile with margins of {margin} pixels needs {needed:,} MiB: "
      "give more memory, or a smaller --margin, which is not exact."
    )
  rows = min(height, max(int(math.sqrt(area)), least))
  columns = min(width, max(int(area / rows), least))
  rows = min(height, max(int(area / columns), least))

  def share(window: int, length: int) -> int:
    """As many tiles as such windows make, but of equal size."""
    if window == length:
      return length
    tiles = math.ceil(length / (window - 2 * margin))
    return math.ceil(length / tiles) + 2 * margin

  return share(rows, height), share(columns, width)


def _bytes_per_pixel(latents: Latents, state: State, lr: Array, latent: Any) -> float:
  """Activations for each pixel of the inputs [B, h, w, C], as XLA counts them in a small image's program."""
  height, width = lr.shape[1:3]
  rows, columns = min(height, PROBE), min(width, PROBE)

  def part(leaf: Array) -> jax.ShapeDtypeStruct:
    shape = leaf.shape
    if len(shape) == 4:
      shape = (shape[0], shape[1] * rows // height, shape[2] * columns // width, shape[3])
    return jax.ShapeDtypeStruct(shape, leaf.dtype)

  weights = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
  leaves, tree = jax.tree.flatten((weights, *jax.tree.map(part, (lr, latent))))
  return _measured(latents, tree, tuple(leaves)) / (rows * columns)


@lru_cache
def _measured(latents: Latents, tree: Any, leaves: tuple[jax.ShapeDtypeStruct, ...]) -> int:
  """Bytes of activations of a program that decodes arguments of these shapes."""
  return activations(jax.jit(latents.decode).lower(*jax.tree.unflatten(tree, leaves)).compile())


def activations(program: jax.stages.Compiled) -> int:
  """Bytes that a program takes beside its arguments and results; 0 on a device that does not tell."""
  memory = program.memory_analysis()
  return memory.temp_size_in_bytes if memory else 0
