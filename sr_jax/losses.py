"""Losses that several papers share: of each example, before any mean."""

import jax
import jax.numpy as jnp

from sr_jax.ops import Operator

Array = jax.Array
PIXELS = (-3, -2, -1)


def lr_l1(operator: Operator, y: Array, x: Array) -> Array:
  """MAE(x, Ay), the mean absolute distance in low resolution: y [..., H, W, C], x [..., h, w, C] -> [...]."""
  return jnp.mean(jnp.abs(operator.A(y) - x), PIXELS)


def logistic(on_real: Array, on_fake: Array) -> Array:
  """A discriminator's cross-entropy -log D(real) - log(1 - D(fake)), from its logits [B] each -> [B]."""
  return jax.nn.softplus(-on_real) + jax.nn.softplus(on_fake)
