"""Losses that several papers share: of each example, before any mean."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sr_jax.ops import Operator

Array = jax.Array
IMAGE_AXES = (-3, -2, -1)
Gaussian = tuple[Array, Array]  # mean and log variance [B, D] of a diagonal Gaussian


def lr_l1(operator: Operator, y: Array, x: Array) -> Array:
  """MAE(x, Ay), the mean absolute distance in low resolution: y [..., H, W, C], x [..., h, w, C] -> [...]."""
  return jnp.mean(jnp.abs(operator.A(y) - x), IMAGE_AXES)


def kl(q: Gaussian, p: Gaussian) -> Array:
  """KL(q || p) in nats of diagonal Gaussians (mean, log variance) [B, D] each -> [B]."""
  (mean, log_variance), (other_mean, other_log_variance) = q, p
  ratio = jnp.exp(log_variance - other_log_variance)
  distance = (mean - other_mean) ** 2 * jnp.exp(-other_log_variance)
  return 0.5 * jnp.sum(ratio + distance - 1 + other_log_variance - log_variance, axis=-1)


def gradient_penalty(critic: Callable[[Array], Array], real: Array, fake: Array, key: Array) -> Array:
  """(||grad C|| - 1)^2 at points drawn uniformly between real and fake images [B, H, W, C] -> [B].

  Gulrajani et al., Improved training of Wasserstein GANs, 2017, Eq. 3, without its weight.
  """
  part = jax.random.uniform(key, (real.shape[0], 1, 1, 1))
  gradient = jax.grad(lambda y: critic(y).sum())(real + part * (fake - real))
  # The square root has no derivative at 0, where the images do not matter to the critic.
  norm = jnp.sqrt(jnp.sum(gradient**2, IMAGE_AXES) + 1e-12)
  return (norm - 1) ** 2


def r1(critic: Callable[[Array], Array], real: Array) -> Array:
  """||grad C||^2 at real images [B, H, W, C] -> [B] (Mescheder et al., 2018, Eq. 9, without gamma / 2)."""
  return jnp.sum(jax.grad(lambda y: critic(y).sum())(real) ** 2, IMAGE_AXES)


def relativistic(higher: Array, lower: Array) -> Array:
  """Relativistic logistic loss: critic values [B] -> softplus(lower - higher) [B], near 0 if higher >> lower.

  Jolicoeur-Martineau, On relativistic f-divergences, 2020, with f the logistic.
  """
  return jax.nn.softplus(lower - higher)


def logistic(on_real: Array, on_fake: Array) -> Array:
  """A discriminator's cross-entropy -log D(real) - log(1 - D(fake)), from its logits [B] each -> [B]."""
  return jax.nn.softplus(-on_real) + jax.nn.softplus(on_fake)
