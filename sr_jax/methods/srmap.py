"""SRMAP: explicit MAP optimisation, fidelity in low resolution and an adversarial prior (Huang et al., 2021).

Explicit MAP Optimization for Photo-Realistic Super Resolution. G minimises alpha * |y - A G(y)|_1 (Eq. 4) +
f(C(x) - C(G(y))) (Eq. 5, 6), C minimises f(C(G(y)) - C(x)) + gamma / 2 * ||grad C(x)||^2 (Eq. 7), with f the
softplus; the paper's signs are garbled. x, y here are an image and an input of different pairs: each player
takes half of the batch. A stage of regression by L1 (Eq. 3) comes first; without it nothing converged.
Deviations: alpha, gamma and the rate of this stage, which the paper does not give, are ours; R1 may see a
part of the real images; `diversity_weight` asks that two images of one input differ, which the paper missed.
"""

from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sr_jax import losses
from sr_jax.errors import UserError
from sr_jax.method import Array, Batch, Key, Method, Metrics, Params, State, descend, first_state, optimiser
from sr_jax.methods.adversary import centre_crop, critic_value, generate, init_players, split_columns
from sr_jax.methods.generator import is_deterministic, make_latents, make_sample
from sr_jax.networks import eval_pass, make_generator, make_network
from sr_jax.ops import Operator, to_float

# In [0, 1]: keeps the slope of the logarithm finite where two images are nearly equal, as they are at first.
# At equal images it has none: the adversarial loss moves the noise weights away from 0 before it.
LEAST_DIVERSITY = 1e-4


def noise_weight(params: Params) -> Metrics:
  """{"noise_weight": root mean square of a generator's learned noise weights}; {} if it has none."""
  leaves = [v for path, v in jax.tree_util.tree_leaves_with_path(params) if "noise_weight" in str(path[-1])]
  return {"noise_weight": jnp.sqrt(jnp.mean(jnp.concatenate(leaves) ** 2))} if leaves else {}


def srmap(config: ConfigDict, operator: Operator) -> Method:
  """Keys: `configs/papers/srmap.py`."""
  settings, rounds, half = config.method, config.train.rounds, config.train.batch // 2
  if config.train.batch % (2 * settings.r1_every):
    raise UserError(
      f"config.train.batch ({config.train.batch}) must be a multiple of twice config.method.r1_every "
      f"({settings.r1_every}): each player takes half, and R1 sees one real image of so many."
    )
  net, critic = make_generator(config), make_network(config, "critic")
  if settings.diversity_weight and is_deterministic(net):
    raise UserError(
      "config.method.diversity_weight asks for diversity of a generator that draws nothing: set it to 0."
    )
  tx = {role: optimiser(config.optim, role, rounds) for role in ("generator", "critic")}
  latents = make_latents(net)
  sample = make_sample(operator, latents, is_deterministic(net))

  def update_relativistic_critic(state: State, real: Array, x: Array, key: Key) -> tuple[State, Metrics]:
    fake, _ = generate(net, operator, state, state.params["generator"], x, key)
    penalised = real.reshape(-1, settings.r1_every, *real.shape[1:])[:, 0]

    def loss_fn(params: Params):
      of = partial(eval_pass, critic, params, {})
      penalty = losses.r1(of, penalised).mean()
      difference = losses.relativistic(of(real), of(fake)).mean()
      return difference + settings.r1_weight / 2 * penalty, ({}, {"r1": penalty})  # Eq. 7

    return descend(state, "critic", loss_fn, tx["critic"])

  def update_generator(state: State, real: Array, x: Array, keys: Array) -> tuple[State, Metrics]:
    on_real = critic_value(critic, state, real)

    def loss_fn(params: Params):
      y, stats = generate(net, operator, state, params, x, keys[0])
      terms = {
        "fidelity": losses.lr_l1(operator, y, x).mean(),  # Eq. 4
        "adversarial": losses.relativistic(critic_value(critic, state, y), on_real).mean(),  # Eq. 5
      }
      loss = settings.fidelity_weight * terms["fidelity"] + terms["adversarial"]  # Eq. 6
      if settings.diversity_weight:
        other, _ = generate(net, operator, state, params, x, keys[1])
        terms["diversity"] = jnp.mean(jnp.abs(y - other))
        # Of its logarithm, whose slope does not depend on how far the images are apart already.
        loss -= settings.diversity_weight * jnp.log(terms["diversity"] + LEAST_DIVERSITY)
      return loss, (stats, terms)

    return descend(state, "generator", loss_fn, tx["generator"])

  def first(key: Key, batch: Batch) -> State:
    x, y = operator.lr(batch), to_float(batch["hr"])
    return first_state(init_players(net, "critic", critic, key, x, y), tx)

  def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    generators, critics = split_columns(batch, 2)
    x, real = operator.lr(generators), to_float(critics["hr"])
    critic_key, *keys = jax.random.split(key, 3)
    state, judged = update_relativistic_critic(state, real, x, critic_key)
    state, metrics = update_generator(state, real, x, jnp.stack(keys))
    metrics |= {f"critic_{name}": judged[name] for name in ("loss", "r1")}
    return state, metrics | noise_weight(state.params["generator"]) | {"images": jnp.float32(half)}

  def judge(state: State, batch: Batch, key: Key) -> dict[str, Array]:
    """Fidelity of images, and the critic's value of their centres."""
    del key
    y = to_float(batch["hr"])
    seen = centre_crop(y, config.data.crop)
    fidelity = losses.lr_l1(operator, y, operator.lr(batch))
    return {"fidelity": fidelity, "critic": critic_value(critic, state, seen)}

  def objective(state: State, batch: Batch, key: Key) -> dict[str, Array]:
    """Fidelity of one sample, and the prior's loss beside its own truth."""
    x = operator.lr(batch)
    fake = judge(state, {"hr": sample(state, x, key, n=1)[0], "lr": x}, key)
    real = judge(state, batch, key)
    adversarial = losses.relativistic(fake["critic"], real["critic"])
    return {"fidelity": fake["fidelity"], "adversarial": adversarial}

  return Method(
    first,
    step,
    objective,
    sample,
    minibatch=half // settings.r1_every,
    deterministic=is_deterministic(net),
    latents=latents,
    judge=judge,
  )
