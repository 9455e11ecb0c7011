"""A convolution with its normalisation and nonlinearity, as all networks here have it.

These are functions, not modules: called within a module's `nn.compact` method, what they make is that
module's.
"""

import functools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.errors import UserError, choose

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


class Training(NamedTuple):
  """How rounds are computed, of all networks of a run alike: see `config.remat` and `config.ghost_batch`."""

  remat: bool = False
  ghost_batch: int = 0

  def of(self, step: Callable[..., Any]) -> Callable[..., Any]:
    """A method's step that is computed so."""

    @functools.wraps(step)
    def call(*args: Any) -> Any:
      token = _training.set(self)
      try:
        return step(*args)
      finally:
        _training.reset(token)

    return call


PLAIN = Training()
_training = ContextVar("training", default=PLAIN)


def recomputed(module: nn.Module, block: Callable[..., Any], *args: Array) -> Any:
  """block(*args), a part of a module; with `config.remat` the backward pass computes its inside once more.

  Layers that the block makes are the module's, with the names that they have without it.
  """
  if not _training.get().remat:
    return block(*args)
  return nn.remat(lambda _, *inputs: block(*inputs))(module, *args)


class BatchNorm(nn.BatchNorm):
  """Flax's; in training of a config with `ghost_batch` each group of so many images has its own statistics.

  Groups are images that follow each other, so that one stays on its device. The running statistics take the
  mean over the groups (Hoffer et al., 2017, arXiv 1705.08741).
  """

  @nn.compact
  def __call__(
    self, x: Array, use_running_average: bool | None = None, *, mask: Array | None = None
  ) -> Array:
    size = _training.get().ghost_batch
    if not size or self.use_running_average or self.is_initializing():
      return super().__call__(x, use_running_average, mask=mask)
    if x.shape[0] % size:
      raise UserError(
        f"config.ghost_batch is {size}, but a round normalises {x.shape[0]} images together: take a divisor."
      )
    groups = x.reshape(-1, size, *x.shape[1:]).astype(jnp.float32)
    within = tuple(range(1, groups.ndim - 1))
    mean = groups.mean(within, keepdims=True)
    var = jnp.maximum(0.0, jnp.square(groups).mean(within, keepdims=True) - jnp.square(mean))
    for name, new in (("mean", mean), ("var", var)):
      running = self.variable("batch_stats", name, jnp.zeros, x.shape[-1:])
      now = new.reshape(-1, x.shape[-1]).mean(0)
      running.value = self.momentum * running.value + (1 - self.momentum) * now
    scale, bias = (
      self.param(name, start, x.shape[-1:], self.param_dtype)
      for name, start in (("scale", self.scale_init), ("bias", self.bias_init))
    )
    y = (groups - mean) * (jax.lax.rsqrt(var + self.epsilon) * scale) + bias
    return y.reshape(x.shape).astype(self.dtype)


def normalise(h: Array, norm: str, train: bool, dtype: jnp.dtype) -> Array:
  """Normalisation of [B, H, W, C] by the batch's statistics, or with train=False by running ones; or of each
  feature map by its own, which would erase a map of a single pixel and leaves it as it is."""
  if norm == "none" or (norm == "instance" and h.shape[1] * h.shape[2] == 1):
    return h
  if norm == "instance":
    return nn.InstanceNorm(dtype=dtype)(h)
  return BatchNorm(use_running_average=not train, momentum=0.9, dtype=dtype)(h)


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
