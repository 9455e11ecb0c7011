"""The critic of a Wasserstein GAN with gradient penalty (Gulrajani et al., 2017), for VarSR and MR-GAN."""

from functools import partial
from typing import Any

import optax

from sr_jax import losses
from sr_jax.method import Array, Key, Metrics, Params, State, descend
from sr_jax.networks import eval_pass


def critic_value(critic: Any, state: State, y: Array) -> Array:
  """C(y) of images [B, H, W, C] -> [B]."""
  return eval_pass(critic, state.params["critic"], {}, y)


def update_critic(
  critic: Any,
  state: State,
  real: Array,
  fake: Array,
  key: Key,
  weight: float,
  tx: optax.GradientTransformation,
) -> tuple[State, Metrics]:
  """One update of the network `critic`: E C(fake) - E C(real) + weight * penalty (Eq. 8 of VarSR).

  Args:
    critic: the module.
    state: has its parameters.
    real, fake: images [B, H, W, C].
    key: of the points between them at which the penalty is taken.
    weight: of the penalty.
    tx: its optimiser.

  Returns:
    The state, and "critic_loss" and "critic_penalty".
  """

  def loss_fn(params: Params):
    judge = partial(eval_pass, critic, params, {})
    penalty = losses.gradient_penalty(judge, real, fake, key)
    loss = judge(fake) - judge(real) + weight * penalty  # Eq. 8
    return loss.mean(), ({}, {"penalty": penalty.mean()})

  state, metrics = descend(state, "critic", loss_fn, tx)
  return state, {f"critic_{name}": metrics[name] for name in ("loss", "penalty")}
