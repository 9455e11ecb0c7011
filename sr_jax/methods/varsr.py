"""VarSR: diverse answers from very low resolution, by matched latent distributions (Hyun & Heo, ECCV 2020).

A posterior q(z | I_H) and a prior p(z | I_L), diagonal Gaussians from one kind of encoder (Eq. 3), and a
generator G(I_L, z). Trained with z ~ q, drawn from with z ~ p (Eq. 4). Objective (Eq. 9): the pixel loss (Eq.
6), KL(q || p) (Eq. 7), which trains both encoders, a perceptual loss, and the score of a WGAN-GP critic (Eq.
8). A first stage trains without the critic (section 4.2). A generator without a latent has no encoders:
SRResNet, and with the critic the rows called SRGAN. The paper's baseline of that name may have had SRGAN's
own discriminator and loss.
Deviations: the paper does not give the perceptual weight (here SRGAN's), how often the critic is updated
(here once a round) and how the KL is summed (here averaged over D, as docs/design.md explains).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sr_jax import losses
from sr_jax.errors import UserError
from sr_jax.losses import Gaussian
from sr_jax.method import (
  Array,
  Batch,
  Key,
  Latents,
  Method,
  Metrics,
  Network,
  Params,
  State,
  descend_together,
  first_state,
  optimiser,
)
from sr_jax.methods.adversary import critic_value, update_critic
from sr_jax.methods.generator import is_deterministic, make_sample, train_images
from sr_jax.networks import eval_pass, init, make_generator, make_network, train_pass, zero_latent
from sr_jax.networks.features import make_features
from sr_jax.ops import Operator, to_float


def draw(gaussian: Gaussian, key: Key, temperature: float = 1.0) -> Array:
  """z [B, D] of a diagonal Gaussian, its deviation multiplied by the temperature."""
  mean, log_variance = gaussian
  return mean + temperature * jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)


def varsr(config: ConfigDict, operator: Operator) -> Method:
  """Keys: `configs/papers/varsr.py`."""
  settings, rounds = config.method, config.train.rounds
  net, features = make_generator(config), make_features(settings.features, config.data.channels)
  encoders: dict[str, Any] = {}
  if not is_deterministic(net):
    encoders = {role: make_network(config, role) for role in ("posterior", "prior")}
    sizes = {role: encoder.latent_size for role, encoder in encoders.items()}
    if {getattr(net.latent((1, 1, 1)), "shape", ())} != {(size,) for size in sizes.values()}:
      raise UserError(
        f"config.networks.generator does not take a vector of the encoders' latent_size ({sizes}): make the "
        "three the same."
      )
  critic: Any = make_network(config, "critic") if settings.adversarial_weight else None
  together = {role: optimiser(config.optim, role, rounds) for role in ("generator", *encoders)}
  critic_tx = {"critic": optimiser(config.optim, "critic", rounds)} if critic else {}

  def encode(role: str, state: State, params: dict[str, Params], image: Array) -> tuple[Gaussian, Any]:
    return train_pass(encoders[role], params[role], state.stats[role], image)

  def reconstruct(state: State, params: dict[str, Params], y: Array, x: Array, key: Key):
    """G(I_L, z), z ~ q(z | I_H) -> the images, KL(q || p) [B], and new batch statistics by role."""
    stats: dict[str, Any] = {}
    if not encoders:
      image, stats["generator"] = train_images(net, operator, state, params["generator"], x, ())
      return image, jnp.zeros(len(x)), stats
    q, stats["posterior"] = encode("posterior", state, params, y)
    p, stats["prior"] = encode("prior", state, params, x)
    image, stats["generator"] = train_images(net, operator, state, params["generator"], x, draw(q, key))
    return image, losses.kl(q, p), stats  # Eq. 7

  def perceptual(state: State, image: Array, y: Array) -> Array:
    """Squared distances of VGG-19's layers, as `method.features.distance` says, summed over them -> [B]."""
    ours, theirs = (features.parts(state.params, v)[1:] for v in (image, y))
    return features.squared_distance(jnp.ones(len(ours)), ours, theirs) if ours else jnp.zeros(len(y))

  def first(key: Key, batch: Batch) -> State:
    x, y = operator.lr(batch), to_float(batch["hr"])
    seen = {"posterior": y, "prior": x, "critic": y}
    networks: dict[str, Network] = {}
    networks["generator"] = init(net, jax.random.fold_in(key, 0), x, zero_latent(net, x))
    for number, role in enumerate((*encoders, *critic_tx), 1):
      made = critic if role == "critic" else encoders[role]
      networks[role] = init(made, jax.random.fold_in(key, number), seen[role])
    return first_state({**networks, **features.placeholders(key)}, {**together, **critic_tx})

  def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    x, y = operator.lr(batch), to_float(batch["hr"])
    critic_key, latent_key = jax.random.split(key)
    judged: Metrics = {}
    if critic:
      fake_key, penalty_key = jax.random.split(critic_key)
      fake, _, _ = reconstruct(state, state.params, y, x, fake_key)
      state, judged = update_critic(
        critic, state, y, fake, penalty_key, settings.penalty_weight, critic_tx["critic"]
      )
    size = encoders["prior"].latent_size if encoders else 1

    def loss_fn(params: dict[str, Params]):
      image, kl, stats = reconstruct(state, params, y, x, latent_key)
      terms = {
        "pixel": jnp.mean((image - y) ** 2, (1, 2, 3)),  # Eq. 6, over colours too
        "kl": kl,
        "perceptual": perceptual(state, image, y),
        "adversarial": -critic_value(critic, state, image) if critic else jnp.zeros(len(y)),
      }
      means = {name: value.mean() for name, value in terms.items()}
      loss = (  # Eq. 9
        settings.pixel_weight * means["pixel"]
        + settings.kl_weight * means["kl"] / size
        + settings.perceptual_weight * means["perceptual"]
        + settings.adversarial_weight * means["adversarial"]
      )
      return loss, (stats, means)

    state, metrics = descend_together(state, loss_fn, together)
    return state, metrics | judged

  def gaussian(role: str, state: State, image: Array) -> Gaussian:
    return eval_pass(encoders[role], state.params[role], state.stats[role], image)

  def decode(state: State, x: Array, z: Any) -> Array:
    return eval_pass(net, state.params["generator"], state.stats["generator"], x, z)

  def generate(state: State, x: Array, z: Any) -> Array:
    return operator.head(decode(state, x, z), x)

  def objective(state: State, batch: Batch, key: Key) -> dict[str, Array]:
    """The pixel loss with z ~ q, and KL(q || p) in nats."""
    x, y = operator.lr(batch), to_float(batch["hr"])
    if not encoders:
      return {"pixel": jnp.mean((generate(state, x, ()) - y) ** 2, (1, 2, 3))}
    q, p = gaussian("posterior", state, y), gaussian("prior", state, x)
    image = generate(state, x, draw(q, key))
    return {"pixel": jnp.mean((image - y) ** 2, (1, 2, 3)), "kl": losses.kl(q, p)}

  def draw_prior(state: State, x: Array, key: Key, temperature: float) -> Any:
    return draw(gaussian("prior", state, x), key, temperature) if encoders else ()  # Eq. 4

  latents = Latents(draw_prior, decode, getattr(net, "reach", None))
  if encoders:
    latents = latents._replace(prior=partial(gaussian, "prior"), posterior=partial(gaussian, "posterior"))
  return Method(
    first,
    step,
    objective,
    make_sample(operator, latents, deterministic=not encoders),
    weights=features.weights,
    deterministic=not encoders,
    latents=latents,
  )
