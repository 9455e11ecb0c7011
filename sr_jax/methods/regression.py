"""Regression: the conditional mean (MSE) or median (MAE) of the high-resolution images.

Objective: E || y - f(x) ||_p, p = 2 or 1; Eq. 1 of Amortised MAP Inference (Sonderby et al., 2017).
The baseline of all five papers; generator SRResNet (Ledig et al., 2017) or any other with its code at zero.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict

from sr_jax.errors import choose
from sr_jax.method import Array, Batch, Key, Method, Metrics, State, descend, optimiser
from sr_jax.methods.generator import make_sample
from sr_jax.networks import eval_pass, init, make_generator, train_pass, zero_codes
from sr_jax.ops import Operator, to_float


def regression(config: ConfigDict, operator: Operator) -> Method:
  """Keys: `config.method.loss` ("mse" | "mae")."""
  net = make_generator(config)
  tx = optimiser(config.optim.generator, config.train.rounds)
  distance = choose({"mse": jnp.square, "mae": jnp.abs}, config.method.loss, "config.method.loss")

  def error(prediction: Array, batch: Batch, x: Array) -> Array:
    return distance(operator.head(prediction, x) - to_float(batch["hr"])).mean(axis=(1, 2, 3))

  def init_state(key: Key, batch: Batch) -> State:
    x = operator.lr(batch)
    params, stats = init(net, key, x, zero_codes(net, x))
    return State(
      step=jnp.int32(0),
      params={"generator": params},
      stats={"generator": stats},
      opt={"generator": tx.init(params)},
    )

  def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    del key
    x = operator.lr(batch)

    def loss_fn(params):
      outputs, stats = train_pass(net, params, state.stats["generator"], x, zero_codes(net, x))
      return error(outputs[-1], batch, x).mean(), (stats, {})

    state, metrics = descend(state, "generator", loss_fn, tx)
    return state.replace(step=state.step + 1), metrics | {"images": jnp.float32(x.shape[0])}

  def predict(state: State, x: Array) -> Array:
    return eval_pass(net, state.params["generator"], state.stats["generator"], x, zero_codes(net, x))[-1]

  def objective(state: State, batch: Batch, key: Key) -> dict[str, Array]:
    del key
    x = operator.lr(batch)
    return {config.method.loss: error(predict(state, x), batch, x)}

  draw = make_sample(net, operator)

  def sample(state: State, lr: Array, key: Key, *, n: int, temperature: float = 1.0) -> Array:
    """One prediction n times: a point estimate has no spread at any temperature."""
    del temperature
    return draw(state, lr, key, n=n, temperature=0.0)

  return Method(init_state, step, objective, sample)
