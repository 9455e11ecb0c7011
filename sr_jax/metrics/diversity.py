"""How much the samples of one input differ from each other: samples [n, B, H, W, C] -> [B]."""

import jax
import jax.numpy as jnp

from sr_jax.metrics.protocol import Array, Batch, Protocol, as_saved, crop


def std(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """Standard deviation over the samples, mean over the pixels and channels, in grey levels (0 to 255).

  The samples are clipped, not rounded, and lose the border, so that the number is about the pixels that
  `mse` is about. The variance is divided by n - 1, so that more samples do not mean more deviation; one
  sample has none: 0. Diversity says little without accuracy beside it: an untrained network has some too.
  """
  visible = jnp.clip(crop(samples, protocol), 0, 1)
  return 255 * deviation(visible, batch, protocol)


def deviation(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """The same of data without a range: all of it, not clipped and in its own unit."""
  del batch, protocol
  if samples.shape[0] == 1:
    return jnp.zeros(samples.shape[1])
  return jnp.mean(jnp.std(samples, axis=0, ddof=1), (-3, -2, -1))


def diversity_scores(maps: Array) -> Array:
  """How much better the best sample of each pixel is than the best sample of the image, in percent.

  S_n = 100 (min_i mean_x d_i - mean_x min_i d_i) / min_i mean_x d_i, of n samples i and pixels x: the
  diversity score of NTIRE 2021 (Lugmayr, Danelljan & Timofte, Learning the Super-Resolution Space, CVPRW
  2021). One sample, and equal ones, have 0.

  Args:
    maps: distance of each sample from the truth at each pixel, [n, ..., H, W].

  Returns:
    S_1 to S_n, of the first 1 to n samples: [n, ...].
  """
  whole = jax.lax.cummin(maps.mean((-2, -1)))
  local = jax.lax.cummin(maps).mean((-2, -1))
  return jnp.where(whole > 0, 100 * jnp.maximum(whole - local, 0) / jnp.where(whole > 0, whole, 1), 0)


def mse_maps(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """Squared error at every pixel, mean over the channels, of 8-bit images: [n, B, H', W'], no border."""
  images, truths = as_saved(samples, batch, protocol)
  return jnp.mean((images - truths) ** 2, axis=-1)


def s_n_mse(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """`diversity_scores` of squared errors instead of LPIPS, in percent -> [B]. It needs no weights."""
  return diversity_scores(mse_maps(samples, batch, protocol))[-1]
