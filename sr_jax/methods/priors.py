"""Priors learned before a generator is: a denoiser or a density of p_Y, in snapshots from coarse to fine.

Amortised MAP Inference for Image Super-resolution (Sonderby et al., arXiv 1610.04490), sections 3.3 and 3.4,
appendices D and E. Objectives: E || y - f(y + sigma e) ||^2 with falling sigma (Eq. 28); -E sum_j log p(y_j |
y_<j) (Eq. 31). A helper method: it draws nothing; another run takes its network `snapshots` by `init_from`.
Deviations: sigma falls in as many steps as there are snapshots; images of bytes get uniform noise of one
grey level before their density is learned, without which it would be unbounded.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from sr_jax.errors import UserError, choose
from sr_jax.method import Array, Batch, Key, Method, Metrics, Params, State, descend, optimiser
from sr_jax.networks import eval_pass, init, make_denoiser, make_density, train_pass
from sr_jax.ops import Operator, to_float

SIGMAS: dict[str, Callable[..., np.ndarray]] = {"linear": np.linspace, "exponential": np.geomspace}
Apply = Callable[[Array], Any]  # the network on images, in training or in evaluation mode


class Prior(NamedTuple):
  """A model of p_Y in snapshots.

  Attributes:
    net: the network.
    marks: float32 [snapshots], what a snapshot must remember besides its parameters (its noise level).
    loss: (network, batch, key, mark) -> ([B], what the network returns beside its output).
    energy: (network, y [B, H, W, C], key, mark) -> [B], whose gradient in y is minus that of log p(y), in
      nats.
    judge: (network, y, key, mark) -> {name: [B]}, how far generated images are from probable ones.
    objective: (network of the last snapshot, batch, key, mark) -> {name: [B]}.
  """

  net: nn.Module
  marks: np.ndarray
  loss: Callable[[Apply, Batch, Key, Array], tuple[Array, Any]]
  energy: Callable[[Apply, Array, Key, Array], Array]
  judge: Callable[[Apply, Array, Key, Array], dict[str, Array]]
  objective: Callable[[Apply, Batch, Key, Array], dict[str, Array]]


def denoiser_score(denoise: Callable[[Array], Array], y: Array, sigma: Array | float) -> Array:
  """The gradient of log p(y) that a denoiser estimates, (f(y) - y) / sigma^2 (Eq. 12, Alain & Bengio 2014).

  Exact for the best denoiser and the density smoothed by its noise, where y is a noisy image.
  """
  return (denoise(y) - y) / sigma**2


def _check_snapshots(keys: ConfigDict) -> None:
  if keys.snapshots < 1:
    raise UserError(f"config.method.prior.snapshots is {keys.snapshots}: make it 1 or more.")


def denoiser_prior(config: ConfigDict) -> Prior:
  """Keys: `config.method.prior`."""
  keys = config.method.prior
  _check_snapshots(keys)
  if not keys.start >= keys.end > 0:
    raise UserError(
      f"config.method.prior goes from {keys.start} to {keys.end}: noise must fall, to more than 0."
    )
  sigmas = choose(SIGMAS, keys.anneal, "config.method.prior.anneal")(keys.start, keys.end, keys.snapshots)
  # Eq. 12 gives the denoiser the image itself, Eq. 29 the image with noise.
  noise = choose({"clean": 0.0, "noisy": 1.0}, keys.input, "config.method.prior.input")

  def loss(net: Apply, batch: Batch, key: Key, sigma: Array) -> tuple[Array, Any]:
    y = to_float(batch["hr"])
    denoised, stats = net(y + sigma * jax.random.normal(key, y.shape))
    return jnp.mean((denoised - y) ** 2, axis=(1, 2, 3)), stats

  def score(net: Apply, y: Array, key: Key, sigma: Array) -> Array:
    shift = noise * sigma * jax.random.normal(key, y.shape)
    return denoiser_score(lambda v: net(v + shift), y, sigma)

  def energy(net: Apply, y: Array, key: Key, sigma: Array) -> Array:
    held = jax.lax.stop_gradient(score(net, jax.lax.stop_gradient(y), key, sigma))
    return -jnp.sum(held * y, axis=(1, 2, 3))

  def judge(net: Apply, y: Array, key: Key, sigma: Array) -> dict[str, Array]:
    """The length of the gradient of log p, 0 at a mode."""
    return {"score_norm": jnp.sqrt(jnp.sum(score(net, y, key, sigma) ** 2, axis=(1, 2, 3)))}

  def objective(net: Apply, batch: Batch, key: Key, sigma: Array) -> dict[str, Array]:
    return {"denoising_mse": loss(lambda y: (net(y), None), batch, key, sigma)[0]}

  return Prior(make_denoiser(config), sigmas.astype(np.float32), loss, energy, judge, objective)


def density_prior(config: ConfigDict) -> Prior:
  """Keys: `config.method.prior`. Images are of bytes, whose grey levels are 1 / 255 apart."""
  keys, levels = config.method.prior, 255
  _check_snapshots(keys)

  def dequantised(batch: Batch, key: Key) -> Array:
    y = to_float(batch["hr"])
    return y + jax.random.uniform(key, y.shape, minval=-0.5, maxval=0.5) / levels

  def loss(net: Apply, batch: Batch, key: Key, mark: Array) -> tuple[Array, Any]:
    log_p, stats = net(dequantised(batch, key))
    return -log_p.mean(axis=(1, 2, 3)), stats

  def energy(net: Apply, y: Array, key: Key, mark: Array) -> Array:
    return -net(y).sum(axis=(1, 2, 3))

  def judge(net: Apply, y: Array, key: Key, mark: Array) -> dict[str, Array]:
    """To be compared with what `objective` says of real images."""
    return {"bits_per_dim": -net(y).mean(axis=(1, 2, 3)) / jnp.log(2) + jnp.log2(levels)}

  def objective(net: Apply, batch: Batch, key: Key, mark: Array) -> dict[str, Array]:
    nats = loss(lambda y: (net(y), None), batch, key, mark)[0]
    return {"bits_per_dim": nats / jnp.log(2) + jnp.log2(levels)}

  # A density remembers nothing besides its parameters: its marks say how far it had come.
  marks = np.linspace(1 / keys.snapshots, 1, keys.snapshots, dtype=np.float32)
  return Prior(make_density(config), marks, loss, energy, judge, objective)


def stack(tree: Params, count: int) -> Params:
  """A network `count` times: leaves [count, ...]."""
  return jax.tree.map(lambda v: jnp.broadcast_to(v, (count, *v.shape)), tree)


def train_prior(make_prior: Callable[[ConfigDict], Prior]) -> Callable[[ConfigDict, Operator], Method]:
  """The helper method that learns a prior and keeps its snapshots, at equal distances of rounds."""

  def make(config: ConfigDict, operator: Operator) -> Method:
    del operator
    prior, rounds, count = make_prior(config), config.train.rounds, config.method.prior.snapshots
    if count > rounds:
      raise UserError(
        f"config.method.prior.snapshots is {count}, more than its stage's {rounds} rounds: take fewer."
      )
    tx = optimiser(config.optim.prior, rounds)

    def init_state(key: Key, batch: Batch) -> State:
      params, stats = init(prior.net, key, to_float(batch["hr"]))
      return State(
        step=jnp.int32(0),
        params={
          "prior": params,
          "snapshots": {"net": stack(params, count), "marks": jnp.asarray(prior.marks)},
        },
        stats={"prior": stats, "snapshots": stack(stats, count)},
        opt={"prior": tx.init(params)},
      )

    def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
      number = state.step * count // rounds

      def loss_fn(params: Params):
        net = lambda y: train_pass(prior.net, params, state.stats["prior"], y)  # noqa: E731
        value, stats = prior.loss(net, batch, key, jnp.asarray(prior.marks)[number])
        return value.mean(), (stats, {})

      state, metrics = descend(state, "prior", loss_fn, tx)
      # Snapshot `number` is overwritten until its last round.
      keep = lambda kept, new: kept.at[number].set(new)  # noqa: E731
      snapshots = state.params["snapshots"]
      snapshots = snapshots | {"net": jax.tree.map(keep, snapshots["net"], state.params["prior"])}
      stats = jax.tree.map(keep, state.stats["snapshots"], state.stats["prior"])
      state = state.replace(
        step=state.step + 1,
        params=state.params | {"snapshots": snapshots},
        stats=state.stats | {"snapshots": stats},
      )
      return state, metrics | {"images": jnp.float32(batch["hr"].shape[0])}

    def objective(state: State, batch: Batch, key: Key) -> dict[str, Array]:
      net = lambda y: eval_pass(prior.net, state.params["prior"], state.stats["prior"], y)  # noqa: E731
      return prior.objective(net, batch, key, jnp.asarray(prior.marks)[-1])

    return Method(init_state, step, objective)

  return make
