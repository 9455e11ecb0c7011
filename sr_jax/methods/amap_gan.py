"""AffGAN and SoftGAN: amortised MAP inference by an adversary (Sonderby et al., arXiv 1610.04490).

Objective (Eq. 10): D minimises -E log D(y) - E log(1 - D(G(x))), G minimises -E log[D(G(x)) / (1 - D(G(x)))],
which is -E of D's logit and descends on KL[q_G || p_Y] (appendix A). With `consistency` "project" it is
AffGAN; with "none" and a `soft_weight` SoftGAN, G then also minimises MAE(x, A G(x)). A generator with noise
channels is the stochastic AffGAN of appendix F, which minimises E_x KL[q(y | x) || p(y | x)] (Eq. 47).
Deviations: the generator learns from the discriminator's last minibatch, with noise of its own. Instance
noise (section 3.2.1, appendix C) falls by default from 0.1 to 0, as on the paper's ImageNet (appendix D); the
paper does not say whether faces, grass and the Swiss roll had it.

The noise, of standard deviation sigma, is added to real and generated images alike. A round is some updates
of D, each on a minibatch of its own, and one of G.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sr_jax import losses
from sr_jax.errors import UserError, choose
from sr_jax.method import Array, Batch, Key, Method, Metrics, Params, State, descend, first_state, optimiser
from sr_jax.methods.adversary import centre_crop, generate, init_players, split_columns
from sr_jax.methods.generator import is_deterministic, make_latents, make_sample
from sr_jax.networks import eval_pass, make_generator, make_network, train_pass
from sr_jax.ops import Operator, to_float


def make_anneal(settings: ConfigDict, rounds: int) -> Callable[[Array, Array, Array], Array]:
  """The noise of the next round: (rounds done, noise of this round, discriminator's loss) -> sigma.

  "constant_loss" is the heuristic of appendix C: noise falls while the discriminator's loss is above `target`
  and grows while it is below, so that the loss stays where it is as the generator improves.
  """

  if not settings.start >= settings.end >= 0 or (settings.anneal == "exponential" and not settings.end):
    raise UserError(
      f"config.method.noise goes from {settings.start} to {settings.end}: noise must fall, to 0 at least, "
      "and with anneal=exponential to more than 0."
    )

  def part(step: Array) -> Array:
    return jnp.minimum(step / max(1, round(settings.until * rounds)), 1.0)

  anneals: dict[str, Callable[[Array, Array, Array], Array]] = {
    "linear": lambda step, sigma, loss: settings.start + (settings.end - settings.start) * part(step),
    "exponential": lambda step, sigma, loss: settings.start ** (1 - part(step)) * settings.end ** part(step),
    "constant_loss": lambda step, sigma, loss: jnp.clip(
      sigma * jnp.exp(settings.rate * (settings.target - loss)), settings.end, settings.start
    ),
  }
  return choose(anneals, settings.anneal, "config.method.noise.anneal")


def amap_gan(config: ConfigDict, operator: Operator) -> Method:
  """Keys: `configs/papers/amap.py`."""
  rounds, columns = config.train.rounds, config.method.discriminator_updates
  if config.train.batch % columns:
    raise UserError(
      f"config.train.batch ({config.train.batch}) must be a multiple of config.method.discriminator_updates "
      f"({columns}): each update takes its own part of a batch."
    )
  net, discriminator = make_generator(config), make_network(config, "discriminator")
  tx = {
    "generator": optimiser(config.optim, "generator", rounds),
    "discriminator": optimiser(config.optim, "discriminator", rounds * columns),
  }
  latents = make_latents(net)
  sample = make_sample(operator, latents, is_deterministic(net))
  anneal = make_anneal(config.method.noise, rounds)

  def noisy(y: Array, sigma: Array, key: Key) -> Array:
    return y + sigma * jax.random.normal(key, y.shape)

  def update_discriminator(state: State, y: Array, x: Array, keys: Array) -> tuple[State, Metrics]:
    latent_key, real_key, fake_key, _ = keys
    fake, _ = generate(net, operator, state, state.params["generator"], x, latent_key)
    real, fake = noisy(y, state.aux["noise"], real_key), noisy(fake, state.aux["noise"], fake_key)

    def loss_fn(params: Params):
      on_real, stats = train_pass(discriminator, params, state.stats["discriminator"], real)
      on_fake, stats = train_pass(discriminator, params, stats, fake)
      return losses.logistic(on_real, on_fake).mean(), (stats, {})  # Eq. 10, D

    return descend(state, "discriminator", loss_fn, tx["discriminator"])

  def update_generator(state: State, x: Array, keys: Array) -> tuple[State, Metrics]:
    latent_key, _, _, noise_key = keys
    judge = partial(train_pass, discriminator, state.params["discriminator"], state.stats["discriminator"])

    def loss_fn(params: Params):
      y, stats = generate(net, operator, state, params, x, latent_key)
      logit, _ = judge(noisy(y, state.aux["noise"], noise_key))
      distance = losses.lr_l1(operator, y, x).mean()
      loss = config.method.soft_weight * distance - logit.mean()  # Eq. 10, G
      return loss, (stats, {"lr_l1": distance})

    return descend(state, "generator", loss_fn, tx["generator"])

  def first(key: Key, batch: Batch) -> State:
    x, y = operator.lr(batch), to_float(batch["hr"])
    networks = init_players(net, "discriminator", discriminator, key, x, y)
    return first_state(networks, tx, {"noise": jnp.float32(config.method.noise.start)})

  def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    sigma = state.aux["noise"]
    for column, part in enumerate(split_columns(batch, columns)):
      y, x = to_float(part["hr"]), operator.lr(part)
      keys = jax.random.split(jax.random.fold_in(key, column), 4)
      state, judged = update_discriminator(state, y, x, keys)
    # On the last part and with its latents: both players see the same images, each with noise of its own.
    state, metrics = update_generator(state, x, keys)
    noise = anneal(state.step + 1, sigma, judged["loss"])
    metrics |= {"discriminator_loss": judged["loss"], "noise": sigma}
    return state.replace(aux={"noise": jnp.float32(noise)}), metrics

  def judge(state: State, batch: Batch, key: Key) -> dict[str, Array]:
    """The discriminator's estimate of log q / p of images, without noise, and MAE(x, Ay).

    The discriminator sees the centre of images that are larger than it was trained on. With batch
    normalisation, in training each kind of image is normalised by its own batch and here by running averages
    over both, so the estimate is rough.
    """
    del key
    y = to_float(batch["hr"])
    seen = centre_crop(y, config.data.crop)
    logit = eval_pass(discriminator, state.params["discriminator"], state.stats["discriminator"], seen)
    return {"log_ratio": -logit, "lr_l1": losses.lr_l1(operator, y, operator.lr(batch))}

  def objective(state: State, batch: Batch, key: Key) -> dict[str, Array]:
    """What `judge` says of one sample."""
    x = operator.lr(batch)
    return judge(state, {"hr": sample(state, x, key, n=1)[0], "lr": x}, key)

  return Method(
    first,
    step,
    objective,
    sample,
    minibatch=config.train.batch // columns,
    deterministic=is_deterministic(net),
    fixed_length=config.method.noise.anneal != "constant_loss",
    latents=latents,
    judge=judge,
  )
