"""The encoder of VarSR (Hyun & Heo, 2020), section 3.2."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.networks.layers import check_norm, conv_norm_act, recomputed
from sr_jax.networks.shuffle import space_to_depth

Array = jax.Array


class Encoder(nn.Module):
  """Images [B, H, W, C] of one size -> mean and log variance [B, D] of a diagonal Gaussian (Eq. 3).

  Keys: `configs/papers/varsr.py`. Its last layer starts at zero, so that every image begins with N(0, I).
  """

  dtype: jnp.dtype
  latent_size: int
  fold: tuple[int, int]
  width: int
  layers: int
  norm: str

  def __post_init__(self) -> None:
    check_norm(self.norm)
    super().__post_init__()

  @nn.compact
  def __call__(self, y: Array, train: bool) -> tuple[Array, Array]:
    h = space_to_depth(y, self.fold).astype(self.dtype)
    conv = partial(nn.Conv, self.width, (3, 3), dtype=self.dtype)
    layer = partial(conv_norm_act, conv=conv, norm=self.norm, activation="relu", train=train)
    for _ in range(self.layers):
      h = recomputed(self, layer, h)
    zeros = nn.initializers.zeros
    out = nn.Dense(2 * self.latent_size, dtype=self.dtype, kernel_init=zeros)(h.reshape(h.shape[0], -1))
    mean, log_variance = jnp.split(out.astype(jnp.float32), 2, axis=-1)
    return mean, log_variance
