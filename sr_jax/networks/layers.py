"""A convolution with its normalisation and nonlinearity, as all networks here have it.

These are functions, not modules: called within a module's `nn.compact` method, what they make is that
module's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.errors import choose

Array = jax.Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  "none": lambda h: h,
  "relu": nn.relu,
  "leaky_relu": lambda h: nn.leaky_relu(h, 0.2),
  "softplus": nn.softplus,
  "swish": nn.swish,
  "tanh": nn.tanh,
}
NORMS = {"batch": 0, "instance": 0, "none": 0}


def check_norm(norm: str) -> None:
  """Refuse a normalisation that does not exist."""
  choose(NORMS, norm, "norm of a network")


def normalise(h: Array, norm: str, train: bool, dtype: jnp.dtype) -> Array:
  """Normalisation of [B, H, W, C] by the batch's statistics, or with train=False by running ones; or of each
  feature map by its own, which would erase a map of a single pixel and leaves it as it is."""
  if norm == "none" or (norm == "instance" and h.shape[1] * h.shape[2] == 1):
    return h
  if norm == "instance":
    return nn.InstanceNorm(dtype=dtype)(h)
  return nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=dtype)(h)


def conv_norm_act(
  h: Array, conv: Callable[..., nn.Module], norm: str, activation: str, *, train: bool
) -> Array:
  """A convolution, a normalisation and a nonlinearity of [B, H, W, C].

  Args:
    h: the input.
    conv: makes the convolution, such as partial(nn.Conv, 64, (3, 3), dtype=dtype).
    norm: "batch", which has the convolution's bias; "instance", or "none".
    activation: an entry of ACTIVATIONS.
    train: use the batch's own statistics, and update the running ones.
  """
  h = conv(use_bias=norm != "batch")(h)
  return ACTIVATIONS[activation](normalise(h, norm, train, h.dtype))


def noise_plane(shape: Sequence[int], channels: int) -> Any:
  """The latent of a generator that takes `channels` of noise at the height and width of `shape`."""
  return jax.ShapeDtypeStruct((*shape[:2], channels), jnp.float32) if channels else ()
