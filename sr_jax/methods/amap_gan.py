"""AffGAN and SoftGAN: amortised MAP inference by an adversary (Sonderby et al., arXiv 1610.04490).

Objective (Eq. 10): D minimises -E log D(y) - E log(1 - D(G(x))), G minimises -E log D(G(x)) / (1 - D(G(x))),
which is -E of D's logit and descends on KL[q_G || p_Y] (appendix A). With `consistency` "project" it is
AffGAN; with "none" and a `soft_weight` SoftGAN, G then also minimises MAE(x, A G(x)). A generator with noise
channels is the stochastic AffGAN of appendix F, which minimises E_x KL[q(y | x) || p(y | x)] (Eq. 47).
Deviations: the generator learns from the discriminator's last minibatch, with noise of its own; keys whose
default is the paper's: `discriminator_updates` other than 1 and the "exponential" anneal.

Instance noise (section 3.2.1, appendix C) of standard deviation sigma is added to real and generated images
alike. A round is some updates of D, each on minibatches of its own, and one of G.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from sr_jax.errors import UserError, choose
from sr_jax.method import Array, Batch, Key, Method, Metrics, Params, State, descend, optimiser
from sr_jax.methods.generator import lr_mae, make_sample
from sr_jax.networks import (
  Critic,
  Generator,
  eval_pass,
  init,
  make_critic,
  make_generator,
  normal_codes,
  train_pass,
)
from sr_jax.ops import Operator, to_float


def make_anneal(keys: ConfigDict, rounds: int) -> Callable[[Array, Array, Array], Array]:
  """The noise of the next round: (rounds done, noise of this round, discriminator's loss) -> sigma.

  "constant_loss" is the heuristic of appendix C: noise falls while the discriminator's loss is above `target`
  and grows while it is below, so that the loss stays where it is as the generator improves.
  """

  if not keys.start >= keys.end >= 0 or (keys.anneal == "exponential" and not keys.end):
    raise UserError(
      f"config.method.noise goes from {keys.start} to {keys.end}: noise must fall, to 0 at least, and with "
      "anneal=exponential to more than 0."
    )

  def part(step: Array) -> Array:
    return jnp.minimum(step / max(1, round(keys.until * rounds)), 1.0)

  anneals: dict[str, Callable[[Array, Array, Array], Array]] = {
    "linear": lambda step, sigma, loss: keys.start + (keys.end - keys.start) * part(step),
    "exponential": lambda step, sigma, loss: keys.start ** (1 - part(step)) * keys.end ** part(step),
    "constant_loss": lambda step, sigma, loss: jnp.clip(
      sigma * jnp.exp(keys.rate * (keys.target - loss)), keys.end, keys.start
    ),
  }
  return choose(anneals, keys.anneal, "config.method.noise.anneal")


class Players(NamedTuple):
  """The two players and what each of them does; `draws` are keys of codes and of three noises.

  Attributes:
    net, critic: the generator and the discriminator.
    update_discriminator: (state, y, x, draws) -> (state, metrics).
    update_generator: (state, x, draws) -> (state, metrics).
  """

  net: Generator
  critic: Critic
  update_discriminator: Callable[[State, Array, Array, Array], tuple[State, Metrics]]
  update_generator: Callable[[State, Array, Array], tuple[State, Metrics]]


def make_players(
  config: ConfigDict, operator: Operator, tx: dict[str, optax.GradientTransformation]
) -> Players:
  """The players of `config`; tx holds the optimiser of each."""
  net, critic, weight = make_generator(config), make_critic(config), config.method.soft_weight

  def noisy(y: Array, sigma: Array, key: Key) -> Array:
    return y + sigma * jax.random.normal(key, y.shape)

  def generate(state: State, params: Params, x: Array, key: Key) -> tuple[Array, Params]:
    """The head's output in training mode, and the new batch statistics."""
    outputs, stats = train_pass(net, params, state.stats["generator"], x, normal_codes(net, x, key))
    return operator.head(outputs[-1], x), stats

  def update_discriminator(state: State, y: Array, x: Array, draws: Array) -> tuple[State, Metrics]:
    code_key, real_key, fake_key, _ = draws
    fake, _ = generate(state, state.params["generator"], x, code_key)
    real, fake = noisy(y, state.aux["noise"], real_key), noisy(fake, state.aux["noise"], fake_key)

    def loss_fn(params: Params):
      on_real, stats = train_pass(critic, params, state.stats["discriminator"], real)
      on_fake, stats = train_pass(critic, params, stats, fake)
      return (jax.nn.softplus(-on_real) + jax.nn.softplus(on_fake)).mean(), (stats, {})

    return descend(state, "discriminator", loss_fn, tx["discriminator"])

  def update_generator(state: State, x: Array, draws: Array) -> tuple[State, Metrics]:
    code_key, _, _, noise_key = draws
    judge = partial(train_pass, critic, state.params["discriminator"], state.stats["discriminator"])

    def loss_fn(params: Params):
      y, stats = generate(state, params, x, code_key)
      logit, _ = judge(noisy(y, state.aux["noise"], noise_key))
      miss = lr_mae(operator, y, x).mean()
      return weight * miss - logit.mean(), (stats, {"lr_mae": miss})

    return descend(state, "generator", loss_fn, tx["generator"])

  return Players(net, critic, update_discriminator, update_generator)


def amap_gan(config: ConfigDict, operator: Operator) -> Method:
  """Keys: `config.method`, explained in `configs/base.py`."""
  rounds, columns = config.train.rounds, config.method.discriminator_updates
  if columns < 1 or config.train.batch % columns:
    raise UserError(
      f"config.train.batch ({config.train.batch}) must be a multiple of config.method.discriminator_updates "
      f"({columns}), 1 or more: each update takes its own part of a batch."
    )
  tx = {
    "generator": optimiser(config.optim.generator, rounds),
    "discriminator": optimiser(config.optim.discriminator, rounds * columns),
  }
  net, critic, update_discriminator, update_generator = make_players(config, operator, tx)
  sample = make_sample(net, operator)
  anneal = make_anneal(config.method.noise, rounds)

  def init_state(key: Key, batch: Batch) -> State:
    x = operator.lr(batch)
    players = {
      "generator": init(net, jax.random.fold_in(key, 0), x, normal_codes(net, x, key)),
      "discriminator": init(critic, jax.random.fold_in(key, 1), to_float(batch["hr"])),
    }
    return State(
      step=jnp.int32(0),
      params={name: params for name, (params, _) in players.items()},
      stats={name: stats for name, (_, stats) in players.items()},
      opt={name: tx[name].init(params) for name, (params, _) in players.items()},
      aux={"noise": jnp.float32(config.method.noise.start)},
    )

  def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    sigma = state.aux["noise"]
    # Columns, not blocks: a draw from a sharded batch stays on its device.
    rows = jax.tree.map(lambda v: v.reshape(-1, columns, *v.shape[1:]), batch)
    for column in range(columns):
      part = {name: value[:, column] for name, value in rows.items()}
      y, x = to_float(part["hr"]), operator.lr(part)
      draws = jax.random.split(jax.random.fold_in(key, column), 4)
      state, judged = update_discriminator(state, y, x, draws)
    # On the last part and with its codes: both players judge the same images, each with noise of its own.
    state, metrics = update_generator(state, x, draws)
    noise = anneal(state.step + 1, sigma, judged["loss"])
    state = state.replace(step=state.step + 1, aux={"noise": jnp.float32(noise)})
    images = jnp.float32(batch["hr"].shape[0])
    return state, metrics | {"discriminator_loss": judged["loss"], "noise": sigma, "images": images}

  def objective(state: State, batch: Batch, key: Key) -> dict[str, Array]:
    """The discriminator's estimate of log q / p of one sample, without noise, and MAE(x, Ay).

    The discriminator sees the centre of images that are larger than it was trained on.
    """
    x = operator.lr(batch)
    y = whole = sample(state, x, key, n=1)[0]
    if config.data.crop:
      (height, width), (rows, columns) = y.shape[1:3], config.data.crop
      top, left = max(0, height - rows) // 2, max(0, width - columns) // 2
      y = y[:, top : top + rows, left : left + columns]
    logit = eval_pass(critic, state.params["discriminator"], state.stats["discriminator"], y)
    return {"log_ratio": -logit, "lr_mae": lr_mae(operator, whole, x)}

  return Method(init_state, step, objective, sample, rows=config.train.batch // columns)
