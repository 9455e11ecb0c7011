"""MR-GAN: a GAN that is told the moments of the plausible images, not one of them (Lee et al., ICLR 2019).

Harmonizing Maximum Likelihood with GANs for Multimodal Conditional Generation, arXiv 1902.09225: instead of
the distance of each image to the truth, which asks all of them to be alike, the log-likelihood of the truth
under a Gaussian with the mean and the variance of K images of the same input. VarSR compares itself with it.
Deviations: the critic is VarSR's, a WGAN-GP that does not see the input, so that the two differ in their
latents alone; the variance has a floor, without which pixels that are always black have an infinite density.
"""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sr_jax.errors import UserError, choose
from sr_jax.method import Array, Batch, Key, Method, Metrics, Params, State, descend, first_state, optimiser
from sr_jax.methods.adversary import critic_value, generate, init_players, update_critic
from sr_jax.methods.generator import is_deterministic, make_latents, make_sample
from sr_jax.networks import make_generator, make_network
from sr_jax.ops import Operator, to_float


def moment_loss(images: Array, y: Array, moments: int, floor: float) -> Array:
  """The truth y [B, H, W, C] under the moments of images [B, K, H, W, C] -> [B], mean over the pixels.

  With 1 moment the squared distance to the mean; with 2 the negative log-density of a Gaussian, less its
  constant: (y - mean)^2 / (2 variance) + log(variance) / 2.
  """
  mean = images.mean(axis=1)
  if moments == 1:
    return jnp.mean((y - mean) ** 2, (1, 2, 3))
  variance = jnp.var(images, axis=1, ddof=1) + floor
  return jnp.mean((y - mean) ** 2 / (2 * variance) + jnp.log(variance) / 2, (1, 2, 3))


def mr_gan(config: ConfigDict, operator: Operator) -> Method:
  """Keys: `configs/papers/varsr.py`."""
  settings, rounds = config.method, config.train.rounds
  moments = choose({"mean": 1, "mean_variance": 2}, settings.moments, "config.method.moments")
  net, critic = make_generator(config), make_network(config, "critic")
  if is_deterministic(net):
    raise UserError("config.networks.generator draws nothing, so MR-GAN has no moments: give it a latent.")
  tx = {role: optimiser(config.optim, role, rounds) for role in ("generator", "critic")}
  latents = make_latents(net)
  sample = make_sample(operator, latents)

  def generate_set(state: State, params: Params, x: Array, key: Key) -> tuple[Array, Any]:
    """K images of each input -> [B, K, H, W, C]; K lies inside B, which devices share."""
    inputs = jnp.repeat(x, settings.samples, axis=0)
    y, stats = generate(net, operator, state, params, inputs, key)
    return y.reshape(len(x), settings.samples, *y.shape[1:]), stats

  def loss(images: Array, y: Array) -> Array:
    return moment_loss(images, y, moments, settings.variance_floor)

  def first(key: Key, batch: Batch) -> State:
    x, y = operator.lr(batch), to_float(batch["hr"])
    return first_state(init_players(net, "critic", critic, key, x, y), tx)

  def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    x, y = operator.lr(batch), to_float(batch["hr"])
    fake_key, penalty_key, latent_key = jax.random.split(key, 3)
    fake, _ = generate(net, operator, state, state.params["generator"], x, fake_key)
    state, judged = update_critic(critic, state, y, fake, penalty_key, settings.penalty_weight, tx["critic"])

    def loss_fn(params: Params):
      images, stats = generate_set(state, params, x, latent_key)
      terms = {
        "moments": loss(images, y).mean(),
        # Of one image of each input: the others have the same distribution.
        "adversarial": -critic_value(critic, state, images[:, 0]).mean(),
      }
      total = settings.moment_weight * terms["moments"] + settings.adversarial_weight * terms["adversarial"]
      return total, (stats, terms)

    state, metrics = descend(state, "generator", loss_fn, tx["generator"])
    return state, metrics | judged

  def objective(state: State, batch: Batch, key: Key) -> dict[str, Array]:
    """The moment loss of K samples."""
    images = sample(state, operator.lr(batch), key, n=settings.samples)
    return {"moments": loss(images.swapaxes(0, 1), to_float(batch["hr"]))}

  return Method(first, step, objective, sample, latents=latents)
