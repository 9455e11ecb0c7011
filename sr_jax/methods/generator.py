"""What methods share that train a generator and draw from it by its latent."""

from typing import Any

import jax
import jax.numpy as jnp

from sr_jax.method import Array, Key, Latents, Params, Sample, State
from sr_jax.networks import eval_pass, normal_latent, train_pass
from sr_jax.ops import Operator


def train_images(
  net: Any, operator: Operator, state: State, params: Params, x: Array, latent: Any
) -> tuple[Array, Any]:
  """Images head(G(x, z)) [B, H, W, C] in training mode, and the generator's new batch statistics.

  Args:
    net, operator: the generator and A.
    state: has its batch statistics.
    params: its parameters, those of a loss function.
    x: inputs [B, h, w, C].
    latent: z, as `net.latent` describes it, with a first axis B.
  """
  y, stats = train_pass(net, params, state.stats["generator"], x, latent)
  return operator.head(y, x), stats


def is_deterministic(net: Any) -> bool:
  """Whether a generator draws nothing."""
  return not jax.tree.leaves(net.latent((1, 1, 1)))


def make_latents(net: Any) -> Latents:
  """Latents temperature * z, z ~ N(0, I), of a generator G(x, z)."""

  def draw(state: State, lr: Array, key: Key, temperature: float) -> Any:
    del state
    return jax.tree.map(lambda z: temperature * z, normal_latent(net, lr, key))

  def decode(state: State, lr: Array, latent: Any) -> Array:
    return eval_pass(net, state.params["generator"], state.stats["generator"], lr, latent)

  return Latents(draw, decode, getattr(net, "reach", None))


def make_sample(operator: Operator, latents: Latents, deterministic: bool = False) -> Sample:
  """Samples head(decode(draw)); a deterministic method's one image n times."""

  def sample(state: State, lr: Array, key: Key, *, n: int, temperature: float = 1.0) -> Array:
    def one(sample_key: Key) -> Array:
      return operator.head(latents.decode(state, lr, latents.draw(state, lr, sample_key, temperature)), lr)

    if deterministic:
      y = one(key)
      return jnp.broadcast_to(y, (n, *y.shape))
    # One sample after another: memory does not grow with n.
    return jax.lax.map(one, jax.random.split(key, n))

  return sample
