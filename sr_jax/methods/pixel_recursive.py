"""Pixel recursive super-resolution: an exact likelihood, and samples drawn one sub-pixel after another.

Pixel Recursive Super Resolution (Dahl, Norouzi & Shlens, arXiv 1702.00783). p(y_i | x, y_<i) =
softmax(A_i(x) + B_i(y_<i)) (Eq. 6) of a conditioning network A and a gated PixelCNN B; objective: the cross-
entropies of softmax(A + B) and of softmax(A) (Eq. 8). A temperature T divides the logits: the paper's tau is
1 / T, and T = 0 is greedy decoding. Without B it is the pixel-independent baseline (Eq. 2 and 4).
Deviations: the loss is the mean over sub-pixels where Eq. 7 and 8 sum; the weight of Eq. 8's second term is
a key; training images are mirrored at random (`data.flip`), of which the paper says nothing; see
networks/conditioning.py for A.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from sr_jax.errors import UserError
from sr_jax.method import Array, Batch, Key, Method, Metrics, Params, State, descend, first_state, optimiser
from sr_jax.networks import eval_pass, init, make_network, train_pass
from sr_jax.networks.gated_pixelcnn import GatedPixelCNN, Pick, PixelRecursive, Rows, draw_cached, to_value
from sr_jax.ops import Operator, to_float

LEVELS = 256


def pixel_recursive(config: ConfigDict, operator: Operator) -> Method:
  """Keys: `configs/papers/pixel_recursive.py`; `config.networks.generator` has both networks."""
  weight, networks = config.method.conditioning_weight, make_network(config, "generator")
  if not isinstance(networks, PixelRecursive):
    raise UserError(
      "Method 'pixel_recursive' takes the networks 'pixel_recursive' as config.networks.generator."
    )
  return _make(config, operator, networks.conditioning, networks.prior, draw_cached, weight)


def pixel_independent(config: ConfigDict, operator: Operator) -> Method:
  """The conditioning network alone, by cross-entropy: each sub-pixel is drawn on its own."""

  def draw(net: None, params: None, shape: tuple[int, ...], rows: Rows, pick: Pick) -> Array:
    del net, params
    return jax.lax.map(lambda r: pick(jnp.zeros(()), rows(r)), jnp.arange(shape[1])).swapaxes(0, 1)

  return _make(config, operator, make_network(config, "generator"), None, draw, 0.0)


def bits(logits: Array, tokens: Array) -> Array:
  """Logits [B, H, W, C, levels] and tokens [B, H, W, C] -> -log2 p per sub-pixel [B]."""
  nats = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
  return nats.mean(axis=(1, 2, 3)) / jnp.log(2)


def draw_token(logits: Array, uniform: Array) -> Array:
  """Tokens [...] that follow softmax(logits [..., levels]), each by inversion from one number in [0, 1)."""
  # On a CPU faster than jnp.cumsum.
  cumulated = jax.lax.associative_scan(jnp.add, jax.nn.softmax(logits), axis=-1)
  return jnp.sum(cumulated <= uniform[..., None] * cumulated[..., -1:], axis=-1)


def _make(
  config: ConfigDict,
  operator: Operator,
  net: nn.Module,
  prior: GatedPixelCNN | None,
  draw: Callable[..., Array],
  weight: float,
) -> Method:
  if config.consistency == "learned":
    raise UserError("config.consistency is 'learned', for networks whose output is an image: choose none.")
  tx = optimiser(config.optim, "generator", config.train.rounds)

  def losses(params: Params, conditioning: Array, batch: Batch) -> Metrics:
    """The terms of the loss, which are the objective too: [B] each, in bits per sub-pixel."""
    if batch["hr"].dtype != jnp.uint8:
      raise UserError(
        "Methods pixel_recursive and pixel_independent need images of bytes: choose another config.data.name."
      )
    tokens = batch["hr"].astype(jnp.int32)
    alone = bits(conditioning, tokens)
    if prior is None:
      return {"bits_per_dim": alone}
    recursive = jnp.asarray(prior.apply({"params": params["prior"]}, to_float(batch["hr"])))
    total = conditioning + recursive  # Eq. 6
    return {"bits_per_dim": bits(total, tokens), "conditioning_bits_per_dim": alone}

  def first(key: Key, batch: Batch) -> State:
    key_conditioning, key_prior = jax.random.split(key)
    conditioning, stats = init(net, key_conditioning, operator.lr(batch))
    params = {"conditioning": conditioning}
    if prior:
      params["prior"] = prior.init(key_prior, to_float(batch["hr"]))["params"]
    return first_state({"generator": (params, stats)}, {"generator": tx})

  def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    del key

    def loss_fn(params: Params):
      x, stats = operator.lr(batch), state.stats["generator"]
      conditioning, stats = train_pass(net, params["conditioning"], stats, x)
      means = {name: value.mean() for name, value in losses(params, conditioning, batch).items()}
      loss = means["bits_per_dim"] + weight * means.get("conditioning_bits_per_dim", 0.0)  # Eq. 8
      return loss * jnp.log(2), (stats, means)

    return descend(state, "generator", loss_fn, tx)

  def condition(state: State, x: Array) -> Array:
    return eval_pass(net, state.params["generator"]["conditioning"], state.stats["generator"], x)

  def objective(state: State, batch: Batch, key: Key) -> dict[str, Array]:
    del key
    return losses(state.params["generator"], condition(state, operator.lr(batch)), batch)

  def sample(state: State, lr: Array, key: Key, *, n: int, temperature: float = 1.0) -> Array:
    conditioning = condition(state, lr)
    shape = (n * lr.shape[0], *conditioning.shape[1:-1])

    def rows(r: Array) -> tuple[Array, Array]:
      """Conditioning logits of row r, and a number in [0, 1) for each sub-pixel."""
      uniform = jax.random.uniform(jax.random.fold_in(key, r), (shape[0], *shape[2:]))
      return jnp.tile(conditioning[:, r], (n, 1, 1, 1)), uniform

    def pick(logits: Array, given: tuple[Array, Array]) -> Array:
      total = logits + given[0]
      return draw_token(total / temperature, given[1]) if temperature else jnp.argmax(total, axis=-1)

    tokens = draw(prior, state.params["generator"].get("prior"), shape, rows, pick)
    y = to_value(tokens, LEVELS).reshape(n, lr.shape[0], *shape[1:])
    return operator.head(y, lr)

  def tau(temperature: float) -> str:
    return f"tau = {1 / temperature:.3g}" if temperature else "greedy"

  return Method(first, step, objective, sample, describe_temperature=tau)
