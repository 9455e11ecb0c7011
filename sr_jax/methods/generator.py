"""What methods share that train a generator and draw from it by its codes."""

import jax
import jax.numpy as jnp

from sr_jax.method import Array, Key, Sample, State
from sr_jax.networks import Generator, eval_pass, normal_codes
from sr_jax.ops import Operator


def lr_mae(operator: Operator, y: Array, x: Array) -> Array:
  """MAE(x, Ay) of each example [B], the soft constraint of Amortised MAP Inference (appendix D)."""
  return jnp.abs(operator.A(y) - x).mean(axis=(1, 2, 3))


def make_sample(net: Generator, operator: Operator) -> Sample:
  """Samples head(G(x, temperature * z)), z ~ N(0, I); a generator without noise gives one image n times."""

  def sample(state: State, lr: Array, key: Key, *, n: int, temperature: float = 1.0) -> Array:
    def one(sample_key: Key) -> Array:
      codes = [temperature * code for code in normal_codes(net, lr, sample_key)]
      y = eval_pass(net, state.params["generator"], state.stats["generator"], lr, codes)[-1]
      return operator.head(y, lr)

    if not any(channels for *_, channels in net.stage_codes(lr.shape[1:])):
      y = one(key)
      return jnp.broadcast_to(y, (n, *y.shape))
    # One sample after another: memory does not grow with n.
    return jax.lax.map(one, jax.random.split(key, n))

  return sample
