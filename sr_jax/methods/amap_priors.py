"""Priors learned before a generator is: a denoiser or a density of p_Y, in snapshots from coarse to fine.

Amortised MAP Inference for Image Super-resolution (Sonderby et al., arXiv 1610.04490), sections 3.3 and 3.4,
appendices D and E. Objectives: E || y - f(y + sigma e) ||^2 with falling sigma (before Eq. 28); -E sum_j log
p(y_j | y_<j) (Eq. 31). A helper method: it draws nothing; another run takes its network `snapshots` by
`init_from`.
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
from sr_jax.method import Array, Batch, Key, Method, Metrics, Params, State, descend, first_state, optimiser
from sr_jax.networks import eval_pass, init, make_network, train_pass
from sr_jax.ops import Operator, to_float

SIGMAS: dict[str, Callable[..., np.ndarray]] = {"linear": np.linspace, "exponential": np.geomspace}
Apply = Callable[[Array], Any]  # the network on images, in training or in evaluation mode


class Prior(NamedTuple):
  """A model of p_Y in snapshots.

  Attributes:
    net: the network.
    sigmas: float32 [snapshots], the noise level of each; 0 of a density, which has none.
    loss: (network, batch, key, sigma) -> ([B], what the network returns beside its output).
    energy: (network, y [B, H, W, C], key, sigma) -> [B], whose gradient in y is minus that of log p(y), in
      nats.
    judge: (network, y, key, sigma) -> {name: [B]}, how far generated images are from probable ones.
    objective: (network of the last snapshot, batch, key, sigma) -> {name: [B]}.
  """

  net: nn.Module
  sigmas: np.ndarray
  loss: Callable[[Apply, Batch, Key, Array], tuple[Array, Any]]
  energy: Callable[[Apply, Array, Key, Array], Array]
  judge: Callable[[Apply, Array, Key, Array], dict[str, Array]]
  objective: Callable[[Apply, Batch, Key, Array], dict[str, Array]]


def denoiser_score(denoise: Callable[[Array], Array], y: Array, sigma: Array | float) -> Array:
  """The gradient of log p(y) that a denoiser estimates, (f(y) - y) / sigma^2 (Eq. 12, Alain & Bengio 2014).

  Exact for the best denoiser and the density smoothed by its noise, where y is a noisy image.
  """
  return (denoise(y) - y) / sigma**2  # Eq. 12


def denoiser_prior(config: ConfigDict) -> Prior:
  """Keys: `configs/papers/amap.py`."""
  settings = config.method
  if not settings.start >= settings.end > 0:
    raise UserError(
      f"The noise of config.method goes from {settings.start} to {settings.end}: noise must fall, to more "
      "than 0."
    )
  sigmas = choose(SIGMAS, settings.anneal, "config.method.anneal")(
    settings.start, settings.end, settings.snapshots
  )
  # Eq. 12 gives the denoiser the image itself, Eq. 29 the image with noise.
  noise = choose({"clean": 0.0, "noisy": 1.0}, settings.get("input", "clean"), "config.method.input")

  def loss(net: Apply, batch: Batch, key: Key, sigma: Array) -> tuple[Array, Any]:
    y = to_float(batch["hr"])
    denoised, stats = net(y + sigma * jax.random.normal(key, y.shape))
    return jnp.mean((denoised - y) ** 2, axis=(1, 2, 3)), stats  # appendix D, before Eq. 28

  def score(net: Apply, y: Array, key: Key, sigma: Array) -> Array:
    shift = noise * sigma * jax.random.normal(key, y.shape)
    return denoiser_score(lambda v: net(v + shift), y, sigma)

  def energy(net: Apply, y: Array, key: Key, sigma: Array) -> Array:
    held = jax.lax.stop_gradient(score(net, jax.lax.stop_gradient(y), key, sigma))
    return -jnp.sum(held * y, axis=(1, 2, 3))  # its gradient is Eq. 11

  def judge(net: Apply, y: Array, key: Key, sigma: Array) -> dict[str, Array]:
    """The length of the gradient of log p, 0 at a mode."""
    return {"score_norm": jnp.sqrt(jnp.sum(score(net, y, key, sigma) ** 2, axis=(1, 2, 3)))}

  def objective(net: Apply, batch: Batch, key: Key, sigma: Array) -> dict[str, Array]:
    return {"denoising_mse": loss(lambda y: (net(y), None), batch, key, sigma)[0]}

  return Prior(make_network(config, "prior"), sigmas.astype(np.float32), loss, energy, judge, objective)


def density_prior(config: ConfigDict) -> Prior:
  """Keys: `configs/papers/amap.py`. Images are of bytes, whose grey levels are 1 / 255 apart."""
  settings, levels = config.method, 255

  def dequantised(batch: Batch, key: Key) -> Array:
    y = to_float(batch["hr"])
    return y + jax.random.uniform(key, y.shape, minval=-0.5, maxval=0.5) / levels

  def loss(net: Apply, batch: Batch, key: Key, sigma: Array) -> tuple[Array, Any]:
    log_p, stats = net(dequantised(batch, key))
    return -log_p.mean(axis=(1, 2, 3)), stats  # Eq. 31

  def energy(net: Apply, y: Array, key: Key, sigma: Array) -> Array:
    return -net(y).sum(axis=(1, 2, 3))  # Eq. 32

  def judge(net: Apply, y: Array, key: Key, sigma: Array) -> dict[str, Array]:
    """To be compared with what `objective` says of real images."""
    return {"bits_per_dim": -net(y).mean(axis=(1, 2, 3)) / jnp.log(2) + jnp.log2(levels)}

  def objective(net: Apply, batch: Batch, key: Key, sigma: Array) -> dict[str, Array]:
    nats = loss(lambda y: (net(y), None), batch, key, sigma)[0]
    return {"bits_per_dim": nats / jnp.log(2) + jnp.log2(levels)}

  # Its snapshots have no noise level.
  return Prior(
    make_network(config, "prior"), np.zeros(settings.snapshots, np.float32), loss, energy, judge, objective
  )


def initial_snapshots(prior: Prior, network: tuple[Params, Any]) -> tuple[Params, Any]:
  """The network "snapshots" that starts as copies of one: leaves [snapshots, ...], and their noise levels."""
  count = len(prior.sigmas)
  params, stats = jax.tree.map(lambda v: jnp.broadcast_to(v, (count, *v.shape)), network)
  return {"net": params, "sigmas": jnp.asarray(prior.sigmas)}, stats


def train_prior(make_prior: Callable[[ConfigDict], Prior]) -> Callable[[ConfigDict, Operator], Method]:
  """The helper method that learns a prior and keeps its snapshots, at equal distances of rounds."""

  def make(config: ConfigDict, operator: Operator) -> Method:
    del operator
    prior, rounds, count = make_prior(config), config.train.rounds, config.method.snapshots
    if count > rounds:
      raise UserError(
        f"config.method.snapshots is {count}, more than its stage's {rounds} rounds: take fewer."
      )
    if config.average:
      raise UserError(
        f"config.average is {config.average}, but the snapshots of a prior are not averaged: set it to 0, of "
        "a stage config.stages.prior.average."
      )
    tx = optimiser(config.optim, "prior", rounds)

    def first(key: Key, batch: Batch) -> State:
      network = init(prior.net, key, to_float(batch["hr"]))
      return first_state({"prior": network, "snapshots": initial_snapshots(prior, network)}, {"prior": tx})

    def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
      number = state.step * count // rounds

      def loss_fn(params: Params):
        net = lambda y: train_pass(prior.net, params, state.stats["prior"], y)  # noqa: E731
        value, stats = prior.loss(net, batch, key, jnp.asarray(prior.sigmas)[number])
        return value.mean(), (stats, {})

      state, metrics = descend(state, "prior", loss_fn, tx)
      # Snapshot `number` is overwritten until its last round.
      keep = lambda kept, new: kept.at[number].set(new)  # noqa: E731
      snapshots = state.params["snapshots"]
      snapshots = snapshots | {"net": jax.tree.map(keep, snapshots["net"], state.params["prior"])}
      stats = jax.tree.map(keep, state.stats["snapshots"], state.stats["prior"])
      params, stats = state.params | {"snapshots": snapshots}, state.stats | {"snapshots": stats}
      return state.replace(params=params, stats=stats), metrics

    def objective(state: State, batch: Batch, key: Key) -> dict[str, Array]:
      net = lambda y: eval_pass(prior.net, state.params["prior"], state.stats["prior"], y)  # noqa: E731
      return prior.objective(net, batch, key, jnp.asarray(prior.sigmas)[-1])

    return Method(first, step, objective, fixed_length=True)

  return make
