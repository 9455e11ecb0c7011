"""What methods with a generator and a critic or a discriminator share.

The functions about a critic are those of a Wasserstein GAN with gradient penalty (Gulrajani et al., 2017),
which VarSR and MR-GAN train.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import optax

from sr_jax import losses
from sr_jax.method import Array, Batch, Key, Metrics, Network, Params, State, descend
from sr_jax.methods.generator import train_images
from sr_jax.networks import eval_pass, init, normal_latent
from sr_jax.ops import Operator


def generate(
  net: Any, operator: Operator, state: State, params: Params, x: Array, key: Key
) -> tuple[Array, Any]:
  """`train_images` with latents N(0, I)."""
  return train_images(net, operator, state, params, x, normal_latent(net, x, key))


def init_players(net: Any, role: str, opponent: Any, key: Key, x: Array, y: Array) -> dict[str, Network]:
  """A fresh generator and its opponent, a critic or discriminator that plays `role`.

  Args:
    net, opponent: the modules.
    role: of the opponent.
    key: of their weights.
    x: inputs [B, h, w, C].
    y: images [B, H, W, C].
  """
  return {
    "generator": init(net, jax.random.fold_in(key, 0), x, normal_latent(net, x, key)),
    role: init(opponent, jax.random.fold_in(key, 1), y),
  }


def split_columns(batch: Batch, columns: int) -> list[Batch]:
  """The columns of a batch viewed as [B / columns, columns]; unlike blocks, they stay on their devices."""
  parts = jax.tree.map(lambda v: v.reshape(-1, columns, *v.shape[1:]), batch)
  return [{name: value[:, column] for name, value in parts.items()} for column in range(columns)]


def centre_crop(y: Array, crop: Sequence[int]) -> Array:
  """The centre of images [B, H, W, C] that are larger than the crop (rows, columns), (): all of it.

  For critics and discriminators, which were trained on crops of one size.
  """
  if not crop:
    return y
  top, left = (max(0, size - part) // 2 for size, part in zip(y.shape[1:3], crop, strict=True))
  return y[:, top : top + crop[0], left : left + crop[1]]


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
