"""The learned affine projection of Amortised MAP Inference (arXiv 1610.04490), appendix B.

B estimates A+ by a convolution of the low-resolution image followed by a sub-pixel shuffle: fy * fx
kernels, the same for every colour. Any right inverse of A has the loss zero, so B need not be the
Moore-Penrose inverse; `Operator.project` is exact, and the default.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from sr_jax.errors import UserError
from sr_jax.networks.layers import CONV_LAYOUT
from sr_jax.networks.shuffle import depth_to_space
from sr_jax.ops import Operator

Array = jax.Array

# Of the descent on Eq. 23. The momentum is ours: without it the loss stays at 1e-5.
UPDATES, RATE, MOMENTUM = 12_000, 0.1, 0.99
SIDE, BATCH = 8, 8  # of the low-resolution noise


def apply_kernels(kernels: Array, x: Array, factor: tuple[int, int]) -> Array:
  """B x: kernels [k, k, 1, fy * fx], x [B, h, w, C] -> [B, H, W, C]; the edge is replicated."""
  (b, h, w, c), reach = x.shape, kernels.shape[0] // 2
  planes = x.transpose(0, 3, 1, 2).reshape(b * c, h, w, 1)
  planes = jnp.pad(planes, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
  planes = jax.lax.conv_general_dilated(
    planes, kernels, (1, 1), "VALID", dimension_numbers=CONV_LAYOUT, precision=jax.lax.Precision.HIGHEST
  )
  planes = depth_to_space(planes, factor)
  return planes.reshape(b, c, *planes.shape[1:3]).transpose(0, 2, 3, 1)


def pinv_losses(kernels: Array, operator: Operator, y: Array, x: Array) -> tuple[Array, Array]:
  """l1 and l2 of Eq. 21 and 22 for noise y [B, H, W, C] and x [B, h, w, C], per low-resolution pixel."""
  back = lambda v: apply_kernels(kernels, v, operator.factor)  # noqa: E731
  low, high = operator.A(y), back(x)
  errors = operator.A(back(low)) - low, high - back(operator.A(high))
  return jnp.sum(errors[0] ** 2) / x.size, jnp.sum(errors[1] ** 2) / x.size


def learn_pinv(operator: Operator, kernel: int = 5) -> np.ndarray:
  """Kernels [k, k, 1, fy * fx] of B by stochastic gradient descent on l1 + l2 (Eq. 21 to 23), a few seconds.

  They begin as the enlargement by repetition. What was learned for an A is kept as long as the program runs.

  Raises:
    UserError: the descent diverges, as it may for an operator that the paper did not use.
  """
  # Neither rounding nor the head is part of A.
  return _learn(replace(operator, rounding="none", consistency="none"), kernel)


@lru_cache
def _learn(operator: Operator, kernel: int) -> np.ndarray:
  tx = optax.sgd(optax.cosine_decay_schedule(RATE, UPDATES), momentum=MOMENTUM)
  fy, fx = operator.factor

  def update(carry: tuple[Array, Any], key: Array) -> tuple[tuple[Array, Any], Array]:
    kernels, opt = carry
    y = jax.random.normal(jax.random.fold_in(key, 0), (BATCH, SIDE * fy, SIDE * fx, 1))
    x = jax.random.normal(jax.random.fold_in(key, 1), (BATCH, SIDE, SIDE, 1))
    loss, gradient = jax.value_and_grad(lambda k: sum(pinv_losses(k, operator, y, x)))(kernels)
    updates, opt = tx.update(gradient, opt)
    return (kernels + updates, opt), loss

  # On a CPU, so that all hosts of a run find the same.
  with jax.ensure_compile_time_eval(), jax.default_device(jax.local_devices(backend="cpu")[0]):
    start = jnp.zeros((kernel, kernel, 1, fy * fx)).at[kernel // 2, kernel // 2].set(1.0)
    keys = jax.random.split(jax.random.key(0), UPDATES)
    (kernels, _), losses = jax.jit(lambda: jax.lax.scan(update, (start, tx.init(start)), keys))()
    if not losses[-1] < 1e-3:
      raise UserError(
        f"A+ cannot be learned for {operator}: its loss is {losses[-1]}; set config.consistency=project."
      )
    return np.asarray(kernels)


class LearnedProjection(nn.Module):
  """A generator whose output is projected with learned kernels: (I - B A) f(x) + B x (Eq. 7).

  Attributes:
    net: the generator.
    operator: A.
    kernel: side of B's kernels, 5 in the paper.
    start: "trained" (Eq. 23) | "random".
    trainable: B moves with the generator; else it stays as it began.
  """

  net: nn.Module
  operator: Operator
  kernel: int
  start: str
  trainable: bool

  def setup(self) -> None:
    shape = (self.kernel, self.kernel, 1, self.operator.factor[0] * self.operator.factor[1])
    starts: dict[str, Callable[..., Array]] = {
      "trained": lambda key: jnp.asarray(learn_pinv(self.operator, self.kernel)),
      "random": lambda key: nn.initializers.lecun_normal()(key, shape),
    }
    self.pinv = self.param("pinv", starts[self.start])

  @property
  def latent_stages(self) -> int:
    """As of the generator."""
    return getattr(self.net, "latent_stages", 1)

  @property
  def reach(self) -> int | None:
    """See `Latents.reach`: of the generator, of A and of B, one after another."""
    own = getattr(self.net, "reach", None)
    return None if own is None else own + self.operator.reach + self.kernel // 2

  def latent(self, lr_shape: Sequence[int]) -> Any:
    """As of the generator."""
    return self.net.latent(lr_shape)

  def stage(self, s: int, x: Array, previous: Array, latent: Any, train: bool) -> Array:
    """As of the generator; the last stage's output is projected."""
    y = self.net.stage(s, x, previous, latent, train)
    return self._project(y, x) if s == self.latent_stages - 1 else y

  def outputs(self, x: Array, latent: Any, train: bool) -> list[Array]:
    """As of the generator; the last stage's output is projected."""
    *lower, y = self.net.outputs(x, latent, train)
    return [*lower, self._project(y, x)]

  def __call__(self, x: Array, latent: Any, train: bool) -> Array:
    """As of the generator, projected."""
    return self._project(self.net(x, latent, train), x)

  def _project(self, y: Array, x: Array) -> Array:
    kernels = self.pinv if self.trainable else jax.lax.stop_gradient(self.pinv)
    return y + apply_kernels(kernels, x - self.operator.A(y), self.operator.factor)
