"""Regression: the conditional mean (MSE) or median (MAE) of the high-resolution images.

Objective: E mean_i |y_i - f(x)_i|^p over pixels and colours i, p = 2 or 1; Eq. 1 of Amortised MAP Inference
(Sonderby et al., 2017).
The baseline of all five papers; generator SRResNet (Ledig et al., 2017) or any other with its latent at zero.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict

from sr_jax.errors import choose
from sr_jax.method import Array, Batch, Key, Method, Metrics, Params, State, descend, first_state, optimiser
from sr_jax.methods.generator import make_latents, make_sample, train_images
from sr_jax.networks import init, make_generator, zero_latent
from sr_jax.ops import Operator, to_float


def regression(config: ConfigDict, operator: Operator) -> Method:
  """Keys: `config.method.loss` ("mse" | "mae")."""
  net = make_generator(config)
  tx = optimiser(config.optim, "generator", config.train.rounds)
  distance = choose({"mse": jnp.square, "mae": jnp.abs}, config.method.loss, "config.method.loss")
  # A point estimate has no spread at any temperature.
  latents = make_latents(net)._replace(draw=lambda state, lr, key, temperature: zero_latent(net, lr))
  sample = make_sample(operator, latents, deterministic=True)

  def loss(y: Array, batch: Batch) -> Array:
    return distance(y - to_float(batch["hr"])).mean(axis=(1, 2, 3))  # Eq. 1

  def first(key: Key, batch: Batch) -> State:
    x = operator.lr(batch)
    return first_state({"generator": init(net, key, x, zero_latent(net, x))}, {"generator": tx})

  def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    del key
    x = operator.lr(batch)

    def loss_fn(params: Params):
      y, stats = train_images(net, operator, state, params, x, zero_latent(net, x))
      return loss(y, batch).mean(), (stats, {})

    return descend(state, "generator", loss_fn, tx)

  def objective(state: State, batch: Batch, key: Key) -> dict[str, Array]:
    return {config.method.loss: loss(sample(state, operator.lr(batch), key, n=1)[0], batch)}

  return Method(first, step, objective, sample, deterministic=True, latents=latents)
