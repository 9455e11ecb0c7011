"""A convolution with its normalisation and nonlinearity, as all networks here have it.

These are functions, not modules: called within a module's `nn.compact` method, what they make is that
module's.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.errors import UserError, check_choice

Array = jax.Array

log = logging.getLogger(__name__)

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  "none": lambda h: h,
  "relu": nn.relu,
  "leaky_relu": lambda h: nn.leaky_relu(h, 0.2),
  "softplus": nn.softplus,
  "swish": nn.swish,
  "tanh": nn.tanh,
}
NORMS = ("batch", "instance", "none")
CONV_LAYOUT = ("NHWC", "HWIO", "NHWC")  # of `lax.conv_general_dilated`: images, kernel, result


def check_norm(norm: str) -> None:
  """Refuse a normalisation that does not exist."""
  check_choice(NORMS, norm, "config.networks.*.norm")


@dataclass(frozen=True)
class Training:
  """How rounds are computed, of all networks of a run alike: see `config.remat` and `config.ghost_batch`."""

  remat: bool = False
  ghost_batch: int = 0
  # Keys that a network has asked for, in any trace: JAX does not trace every function each time.
  asked: set[str] = field(default_factory=set)

  def ask(self, key: str) -> Any:
    """The value of a key, for a network on which it has an effect."""
    self.asked.add(key)
    return getattr(self, key)

  def of(self, step: Callable[..., Any], name: str = "this run") -> Callable[..., Any]:
    """A method's step, computed with these settings; the log names those that had no effect on it."""

    @functools.wraps(step)
    def call(*args: Any) -> Any:
      token = _training.set(self)
      try:
        result = step(*args)
      finally:
        _training.reset(token)
      for key, what in EFFECTS.items():
        if getattr(self, key) and key not in self.asked:
          _warn(f"config.{key} has no effect: no network of {name} {what}.")
      return result

    return call


EFFECTS = {"remat": "has blocks to compute again", "ghost_batch": "normalises by batches in training"}
# Once: a round is traced several times.
_warn = functools.cache(log.warning)


PLAIN = Training()
_training = ContextVar("training", default=PLAIN)


def recomputed(module: nn.Module, block: Callable[..., Any], *args: Array) -> Any:
  """block(*args), a part of a module; with `config.remat` the backward pass computes its inside once more.

  Layers that the block makes are the module's, with the names that they have without it.
  """
  if not _training.get().ask("remat"):
    return block(*args)
  return nn.remat(lambda _, *inputs: block(*inputs))(module, *args)


class BatchNorm(nn.BatchNorm):
  """Flax's; in training of a config with `ghost_batch` each group of so many images has its own statistics.

  Groups are images that follow each other, so that one stays on its device. The running statistics take the
  mean over the groups (Hoffer et al., 2017, arXiv 1705.08741).

  Raises:
    UserError: `ghost_batch` does not divide the images, or a mask, another axis, or no bias or scale is set.
  """

  @nn.compact
  def __call__(
    self, x: Array, use_running_average: bool | None = None, *, mask: Array | None = None
  ) -> Array:
    running = nn.merge_param("use_running_average", self.use_running_average, use_running_average)
    if running or self.is_initializing() or not (size := _training.get().ask("ghost_batch")):
      return super().__call__(x, use_running_average, mask=mask)
    keys = (self.axis, self.axis_name, self.use_bias, self.use_scale)
    if mask is not None or keys != (-1, None, True, True):
      raise UserError(
        "config.ghost_batch does not go with a BatchNorm that has a mask, another axis, or no bias or scale: "
        "set it to 0."
      )
    if x.shape[0] % size:
      raise UserError(
        f"config.ghost_batch is {size}, but a round normalises {x.shape[0]} images together: take a divisor."
      )
    groups = x.reshape(-1, size, *x.shape[1:]).astype(jnp.float32)
    within = tuple(range(1, groups.ndim - 1))
    mean = groups.mean(within, keepdims=True)
    var = jnp.maximum(0.0, jnp.square(groups).mean(within, keepdims=True) - jnp.square(mean))
    for name, new in (("mean", mean), ("var", var)):
      kept = self.variable("batch_stats", name, jnp.zeros, x.shape[-1:])
      now = new.reshape(-1, x.shape[-1]).mean(0)
      kept.value = self.momentum * kept.value + (1 - self.momentum) * now
    scale, bias = (
      self.param(name, start, x.shape[-1:], self.param_dtype)
      for name, start in (("scale", self.scale_init), ("bias", self.bias_init))
    )
    y = (groups - mean) * (jax.lax.rsqrt(var + self.epsilon) * scale) + bias
    return y.reshape(x.shape).astype(y.dtype if self.dtype is None else self.dtype)


def normalise(h: Array, norm: str, train: bool, dtype: jnp.dtype) -> Array:
  """Normalises h [B, H, W, C].

  Args:
    h: the feature maps.
    norm: "batch": by the batch's statistics, with train=False by the running ones; "instance": each feature
      map by its own, except maps of one pixel, which would become 0 and stay as they are; or "none".
    train: see `norm`.
    dtype: of the result.
  """
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
