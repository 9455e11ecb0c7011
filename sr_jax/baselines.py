"""Samplers that need no training, in every evaluation table."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sr_jax.ops import Operator, resize

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


BASELINES: dict[str, Callable[[Operator], Sampler]] = {"bicubic": bicubic, "pinv": pinv}
