"""The two-dimensional Swiss roll: its draws, its density, and the mode of what an input leaves open.

Amortised MAP Inference for Image Super-resolution (arXiv 1610.04490), section 5.1 and Eq. 33 to 35. A point
is an image of 1 x 2 pixels in unbounded float32; its input is the mean of the two.
"""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

ANGLE_MEAN, ANGLE_STD = 10.0, 3.0  # of nu_1; the standard deviations of Eq. 33
RADIUS_STD = 0.2  # of nu_2, and the bandwidth of the density
NODES = 2048  # of the integral over nu_1: neighbours are closer than the bandwidth
REACH = 4.5  # standard deviations of nu_1 on both sides
SHAPE = (1, 2, 1)


def draw(rng: np.random.Generator, n: int) -> np.ndarray:
  """n points of the noisy roll, float32 [n, 1, 2, 1] (Eq. 33 to 35)."""
  angle = rng.normal(ANGLE_MEAN, ANGLE_STD, n)
  radius = 0.4 * angle + rng.normal(0, RADIUS_STD, n)
  return (np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]).astype(np.float32)[
    :, None, :, None
  ]


def _nodes() -> tuple[np.ndarray, np.ndarray]:
  """Points of the noiseless roll [nodes, 2] and the logarithm of their weights [nodes]."""
  z = np.linspace(-REACH, REACH, NODES)
  angle = ANGLE_MEAN + ANGLE_STD * z
  points = 0.4 * angle[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
  weights = np.exp(-0.5 * z**2)
  return points.astype(np.float32), np.log(weights / weights.sum()).astype(np.float32)


def log_density(y: Array) -> Array:
  """log p(y) in nats of points [..., 1, 2, 1] -> [...].

  The density of the paper's Table 1: the noiseless roll smoothed by a Gaussian of standard deviation 0.2. The
  paper estimates it from 50,000 draws; this is what such estimates tend to, an integral over nu_1.
  """
  points, weights = _nodes()
  first, second = y[..., 0, :1, 0], y[..., 0, 1:, 0]
  squared = (first - points[:, 0]) ** 2 + (second - points[:, 1]) ** 2
  exponent = weights - squared * (0.5 / RADIUS_STD**2)
  return jax.nn.logsumexp(exponent, axis=-1) - jnp.log(2 * jnp.pi * RADIUS_STD**2)


def mode(x: Array) -> Array:
  """The MAP estimate (Eq. 6): x [B, 1, 1, 1] -> [B, 1, 2, 1], argmax log p(y) over (y1 + y2) / 2 = x.

  By brute force, one input after another: a grid along the line, then finer ones around its best point.
  """

  def one(mean: Array) -> Array:
    def on_line(t: Array) -> Array:
      return jnp.stack([mean + t, mean - t], axis=-1)[:, None, :, None]

    best = jnp.float32(0)
    # The roll lies within 9.5 of the origin; the first step is the bandwidth.
    for reach, steps in ((14.0, 141), (0.2, 41), (0.01, 21)):
      t = best + jnp.linspace(-reach, reach, steps)
      best = t[jnp.argmax(log_density(on_line(t)))]
    return on_line(best[None])[0]

  return jax.lax.map(one, x.reshape(-1))
