"""How much the samples of one input differ from each other: samples [n, B, H, W, C] -> [B]."""

import jax.numpy as jnp

from sr_jax.metrics.protocol import Array, Batch, Protocol, crop


def std(samples: Array, batch: Batch, protocol: Protocol) -> Array:
  """Standard deviation over the samples, mean over the pixels and channels, in grey levels (0 to 255).

  The samples are clipped, not rounded, and lose the border, so that the number is about the pixels that
  `mse` is about. The variance is divided by n - 1, so that more samples do not mean more deviation; one
  sample has none: 0. Diversity says little without accuracy beside it: an untrained network has some too.
  """
  del batch
  if samples.shape[0] == 1:
    return jnp.zeros(samples.shape[1])
  visible = jnp.clip(crop(samples, protocol), 0, 1)
  return 255 * jnp.mean(jnp.std(visible, axis=0, ddof=1), (-3, -2, -1))
