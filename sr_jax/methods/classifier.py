"""A classifier of images by their labels: a helper that draws nothing and judges what others draw.

VarSR (Hyun & Heo, 2020), section 4.3: `config.eval.classifier` names a run of it, whose probabilities give
"Best", "Mean" and the number of classes among the samples (Tables 4 and 5). Objective: the cross-entropy.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from sr_jax.errors import UserError
from sr_jax.method import Array, Batch, Key, Method, Metrics, Params, State, descend, first_state, optimiser
from sr_jax.networks import eval_pass, init, make_network, train_pass
from sr_jax.ops import Operator, to_float


def classifier(config: ConfigDict, operator: Operator) -> Method:
  """Network: "classifier" (`configs/papers/varsr.py`); the data set must have labels."""
  del operator
  net = make_network(config, "classifier")
  tx = optimiser(config.optim, "classifier", config.train.rounds)

  def cross_entropy(logits: Array, batch: Batch) -> Array:
    if "label" not in batch:
      raise UserError("Method 'classifier' needs a data set with labels: choose another config.data.name.")
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])

  def first(key: Key, batch: Batch) -> State:
    return first_state({"classifier": init(net, key, to_float(batch["hr"]))}, {"classifier": tx})

  def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    del key

    def loss_fn(params: Params):
      logits, stats = train_pass(net, params, state.stats["classifier"], to_float(batch["hr"]))
      return cross_entropy(logits, batch).mean(), (stats, {})

    return descend(state, "classifier", loss_fn, tx)

  def predict(state: State, y: Array) -> Array:
    return eval_pass(net, state.params["classifier"], state.stats["classifier"], y)

  def objective(state: State, batch: Batch, key: Key) -> dict[str, Array]:
    """The cross-entropy, and 1 where the most probable class is wrong."""
    del key
    logits = predict(state, to_float(batch["hr"]))
    wrong = jnp.argmax(logits, axis=-1) != batch["label"]
    return {"cross_entropy": cross_entropy(logits, batch), "error": wrong.astype(jnp.float32)}

  def classify(state: State, y: Array) -> Array:
    return jax.nn.softmax(predict(state, y))

  return Method(first, step, objective, classify=classify)
