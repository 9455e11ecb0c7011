"""Samplers that need no training, in every evaluation table.

A sampler is a pytree that is called: jit takes the arrays it holds as arguments.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from ml_collections import ConfigDict

from sr_jax.data import open_source, test_batches
from sr_jax.data.sources import Readable, Source
from sr_jax.errors import UserError
from sr_jax.ops import Operator, resize, swiss_roll, to_uint8

Array = jax.Array
# (lr [B, h, w, C], key, n) -> [n, B, H, W, C]
Sampler = Callable[[Array, Array, int], Array]

CHUNK = 1 << 25  # sub-pixels of training inputs compared at once


def _estimate(enlarge: Callable[[Array], Array]) -> Sampler:
  """The sampler that gives one estimate n times."""

  def sampler(lr: Array, key: Array, n: int) -> Array:
    del key
    y = enlarge(lr)
    return jnp.broadcast_to(y, (n, *y.shape))

  return Partial(sampler)


def bicubic(operator: Operator, config: ConfigDict) -> Sampler:
  """Cubic interpolation, a = -0.5, MATLAB's imresize."""
  del config

  def enlarge(lr: Array) -> Array:
    _, height, width, _ = operator.hr_shape(lr.shape)
    return resize(lr, (height, width), "bicubic")

  return _estimate(enlarge)


def pinv(operator: Operator, config: ConfigDict) -> Sampler:
  """A+ x, the image of least Euclidean norm that A maps to the input."""
  del config
  return _estimate(operator.pinv)


def swiss_roll_map(operator: Operator, config: ConfigDict) -> Sampler:
  """The MAP estimate on the Swiss roll, by brute force; of its [1, 2, 1] images alone."""
  del config

  def enlarge(lr: Array) -> Array:
    if operator.hr_shape(lr.shape)[1:] != swiss_roll.SHAPE:
      raise UserError(
        f"The baseline swiss_roll_map needs the data set swiss_roll, but inputs are {lr.shape[1:]}: take it "
        "out of config.eval.baselines."
      )
    return swiss_roll.mode(lr)

  return _estimate(enlarge)


def nearest(operator: Operator, config: ConfigDict) -> Sampler:
  """The training images whose inputs are nearest to the input, the n-th for the n-th sample.

  One pass over `config.data`, whole images of one size, keeps their inputs as bytes; of the images only
  those that were found are read again. Euclidean distance, as in Pixel Recursive Super Resolution, section 5.

  Raises:
    UserError: the training images have several sizes, or are not of bytes.
  """
  # Nothing is kept: the training has a cache of its own, and of these images few are read again.
  source = open_source(ConfigDict(config.data.to_dict() | {"cache_mb": 0}))
  reduce = jax.jit(lambda batch: to_uint8(operator.lr(batch)))
  inputs: list[np.ndarray] = []
  numbers: list[np.ndarray] = []
  for batch in test_batches(Readable(source), config.data, batch=512, factor=operator.factor):
    if batch["hr"].dtype != np.uint8:
      raise UserError("The baseline nearest is of images of bytes: take it out of config.eval.baselines.")
    shape = batch["hr"].shape[1:]
    low = np.asarray(reduce({key: batch[key] for key in ("hr", "lr") if key in batch}))[batch["mask"]]
    if inputs and low.shape[1:] != inputs[0].shape[1:]:
      raise UserError(
        "The baseline nearest needs training images of one size: set config.data.resize, or take it out of "
        "config.eval.baselines."
      )
    inputs.append(low)
    numbers.append(batch["index"][batch["mask"]])
  bank, records = np.concatenate(inputs), np.concatenate(numbers)
  return Partial(_draw_nearest(source, shape), jnp.asarray(bank), jnp.asarray(records))


def _draw_nearest(source: Source, shape: tuple[int, ...]) -> Callable[..., Array]:
  def read(records: np.ndarray) -> np.ndarray:
    found = [source[int(i)]["hr"] for i in np.ravel(records)]
    images = np.stack([hr[: shape[0], : shape[1]] for hr in found])
    return (images / np.float32(255)).reshape(*np.shape(records), *shape)

  def draw(bank: Array, records: Array, lr: Array, key: Array, n: int) -> Array:
    del key
    if lr.shape[1:] != bank.shape[1:]:
      raise UserError(
        f"The baseline nearest has training inputs of {bank.shape[1:]} and not of {lr.shape[1:]}: evaluate "
        "images of that size."
      )
    if n > len(bank):
      raise UserError(f"The baseline nearest has {len(bank)} training images: ask for fewer samples.")
    x = lr.reshape(len(lr), -1)

    def distances(inputs: Array) -> Array:
      """Squared distances [B, inputs] without the |x|^2 that does not change their order."""
      inputs = inputs.reshape(len(inputs), -1) / 255.0
      return jnp.sum(inputs**2, axis=-1) - 2 * jnp.matmul(x, inputs.T, precision="highest")

    best = jnp.full((len(x), n), jnp.inf), jnp.zeros((len(x), n), jnp.int32)
    size = max(1, CHUNK // x.shape[1])
    for start in range(0, len(bank), size):
      near = distances(bank[start : start + size])
      values = jnp.concatenate([best[0], near], axis=1)
      numbers = jnp.concatenate(
        [best[1], jnp.broadcast_to(records[start : start + size], near.shape)], axis=1
      )
      negative, order = jax.lax.top_k(-values, n)
      best = -negative, jnp.take_along_axis(numbers, order, axis=1)
    result = jax.ShapeDtypeStruct((n, len(x), *shape), jnp.float32)
    return jax.pure_callback(read, result, best[1].T, vmap_method="expand_dims")

  return draw


BASELINES: dict[str, Callable[[Operator, ConfigDict], Sampler]] = {
  "bicubic": bicubic,
  "pinv": pinv,
  "nearest": nearest,
  "swiss_roll_map": swiss_roll_map,
}
