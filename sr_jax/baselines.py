"""Samplers that need no training, in every evaluation table."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sr_jax.errors import UserError
from sr_jax.ops import Operator, resize, swiss_roll

Array = jax.Array
# (lr [B, h, w, C], key, n) -> [n, B, H, W, C]
Sampler = Callable[[Array, Array, int], Array]


def bicubic(operator: Operator) -> Sampler:
  """Cubic interpolation, a = -0.5, MATLAB's imresize."""

  def sampler(lr: Array, key: Array, n: int) -> Array:
    del key
    _, height, width, _ = operator.hr_shape(lr.shape)
    y = resize(lr, (height, width), "bicubic")
    return jnp.broadcast_to(y, (n, *y.shape))

  return sampler


def pinv(operator: Operator) -> Sampler:
  """A+ x, the smallest picture that A maps to the input."""

  def sampler(lr: Array, key: Array, n: int) -> Array:
    del key
    y = operator.pinv(lr)
    return jnp.broadcast_to(y, (n, *y.shape))

  return sampler


def swiss_roll_map(operator: Operator) -> Sampler:
  """The MAP estimate on the Swiss roll, by brute force; of its [1, 2, 1] pictures alone."""

  def sampler(lr: Array, key: Array, n: int) -> Array:
    del key
    if operator.hr_shape(lr.shape)[1:] != swiss_roll.SHAPE:
      raise UserError(f"swiss_roll_map is of the data set swiss_roll, not of inputs of {lr.shape[1:]}.")
    y = swiss_roll.mode(lr)
    return jnp.broadcast_to(y, (n, *y.shape))

  return sampler


BASELINES: dict[str, Callable[[Operator], Sampler]] = {
  "bicubic": bicubic,
  "pinv": pinv,
  "swiss_roll_map": swiss_roll_map,
}
