"""A, the linear downsampling that makes x from y; its pseudo-inverse; and the projection onto {y : Ay = x}.

Amortised MAP Inference for Image Super-resolution (arXiv 1610.04490), section 3.1 and Eq. 7. There B,
an estimate of A+, is learned (appendix B); every kernel here is separable, so A is the Kronecker
product of a small matrix per axis, R for rows and C for columns, and A+ = R+ (x) C+ exactly.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jax import Array
from ml_collections import ConfigDict

from sr_jax.errors import UserError, check_choice, find_function
from sr_jax.ops import colour
from sr_jax.ops.resize import BORDERS, KERNELS, apply_columns, apply_rows, resize_matrix

SIDE = 64  # of an input that is larger than every kernel
ROUNDINGS = ("none", "once", "twice")
# "learned": the network projects its output itself (networks/projection.py).
CONSISTENCIES = ("none", "project", "learned")


@lru_cache(maxsize=256)
def _pseudo_inverse(n_hr: int, n_lr: int, kernel: str, border: str, antialias: bool) -> np.ndarray:
  """Moore-Penrose inverse [n_hr, n_lr] of one axis, float64, on the host, once per size."""
  matrix = resize_matrix(n_hr, n_lr, kernel, border, antialias)
  try:  # A' (A A')^-1, where A has full rank: of 1,000 pixels a hundred times faster than a decomposition
    inverse = np.linalg.solve(matrix @ matrix.T, matrix).T
    exact = np.abs(matrix @ inverse - np.eye(n_lr)).max() < 1e-12
  except np.linalg.LinAlgError:
    exact = False
  if not exact:
    inverse = np.linalg.pinv(matrix)
  inverse.setflags(write=False)
  return inverse


@dataclass(frozen=True)
class Operator:
  """The downsampling of one run. Images are [..., H, W, C] high and [..., h, w, C] low, float32.

  Every method is a pure function of its arrays, for jit, vmap and grad; sizes are static. Operators
  compare and hash by value.

  Attributes:
    kernel: an entry of KERNELS or "module:function", see `resize_matrix`.
    factor: by how much rows and columns shrink.
    border: "replicate" | "symmetric" | "renormalise".
    rounding: of `degrade`: "none" | "once" (to 8 bits at the end) | "twice" (after each axis, MATLAB).
    consistency: of `head`: "none" | "project" | "learned", which leaves it to the network.
    antialias: of an interpolation kernel, see `resize_matrix`.

  Raises:
    UserError: a value that is not allowed.
  """

  kernel: str = "bicubic"
  factor: tuple[int, int] = (4, 4)
  border: str = "replicate"
  rounding: str = "none"
  consistency: str = "none"
  antialias: bool = True

  def __post_init__(self):
    find_function(KERNELS, self.kernel, "config.operator.kernel")
    check_choice(BORDERS, self.border, "config.operator.border")
    check_choice(ROUNDINGS, self.rounding, "config.operator.rounding")
    check_choice(CONSISTENCIES, self.consistency, "config.consistency")
    if len(self.factor) != 2 or not all(isinstance(f, int) and f >= 1 for f in self.factor):
      raise UserError(
        f"config.operator.factor is {self.factor!r} but must be two whole numbers of 1 or more."
      )

  def lr_shape(self, hr_shape: tuple[int, ...]) -> tuple[int, ...]:
    """(..., H, W, C) -> (..., h, w, C). Raises UserError if the factor does not divide H and W."""
    *lead, height, width, channels = hr_shape
    fy, fx = self.factor
    if height % fy or width % fx:
      raise UserError(
        f"An image of {height}x{width} pixels cannot be reduced by config.operator.factor {fy}x{fx}: "
        "crop it to a multiple."
      )
    return (*lead, height // fy, width // fx, channels)

  def hr_shape(self, lr_shape: tuple[int, ...]) -> tuple[int, ...]:
    """(..., h, w, C) -> (..., H, W, C)."""
    *lead, height, width, channels = lr_shape
    return (*lead, height * self.factor[0], width * self.factor[1], channels)

  def A(self, y: Array) -> Array:
    """A y: [..., H, W, C] -> [..., h, w, C], linear, neither clipped nor rounded."""
    rows, columns = self._matrices(self.lr_shape(y.shape))
    return apply_columns(columns, apply_rows(rows, y))

  def pinv(self, x: Array) -> Array:
    """A+ x: [..., h, w, C] -> [..., H, W, C], the image y of least Euclidean norm with A y = x."""
    height, width = self.hr_shape(x.shape)[-3:-1]
    rows = _pseudo_inverse(height, x.shape[-3], self.kernel, self.border, self.antialias)
    columns = _pseudo_inverse(width, x.shape[-2], self.kernel, self.border, self.antialias)
    return apply_columns(columns, apply_rows(rows, x))

  def project(self, y: Array, x: Array) -> Array:
    """The point of {y' : A y' = x} nearest to y, (I - A+A) y + A+ x (Eq. 7): [..., H, W, C].

    Leading axes broadcast: y [n, B, H, W, C] goes with x [B, h, w, C]. Written as y + A+(x - Ay), in
    which float32 rounds only the correction.

    Raises:
      UserError: x has not the size of A y.
    """
    low = self.A(y)
    if x.shape[-3:] != low.shape[-3:]:
      raise UserError(
        f"An input of shape {x.shape[-3:]} does not belong to an output of shape {y.shape[-3:]}: "
        f"config.operator.factor asks for {low.shape[-3:]}."
      )
    return y + self.pinv(x - low)

  def head(self, f: Array, x: Array) -> Array:
    """What every method does to its network's output f [..., H, W, C]: nothing, or `project(f, x)`."""
    return self.project(f, x) if self.consistency == "project" else f

  @property
  def reach(self) -> int:
    """A pixel of A y depends on no pixel of y further than this from its own block, counted in blocks."""

    def along(factor: int) -> int:
      matrix = resize_matrix(SIDE * factor, SIDE, self.kernel, self.border, self.antialias)
      return int(np.abs(np.flatnonzero(matrix[SIDE // 2]) // factor - SIDE // 2).max())

    return max(map(along, self.factor))

  def degrade(self, hr: Array) -> Array:
    """Makes the inputs of training and test alike: [..., H, W, C] in [0, 1] -> [..., h, w, C].

    They are rounded as `rounding` says. "twice" is MATLAB's imresize of a uint8 image, which stores bytes
    between its two passes and takes the axis that shrinks more first, rows where both shrink alike.
    Rounding has no gradient.
    """
    if self.rounding == "none":
      return self.A(hr)
    if self.rounding == "once":
      return colour.quantise(self.A(hr))
    rows, columns = self._matrices(self.lr_shape(hr.shape))
    if self.factor[0] >= self.factor[1]:
      return colour.quantise(apply_columns(columns, colour.quantise(apply_rows(rows, hr))))
    return colour.quantise(apply_rows(rows, colour.quantise(apply_columns(columns, hr))))

  def lr(self, batch: dict[str, Array]) -> Array:
    """The input of a batch, float32 [B, h, w, C] in [0, 1]: its own "lr" bytes, or "hr" degraded.

    Raises:
      UserError: its own is not the factor's part of "hr".
    """
    if "lr" in batch:
      (h, w), (height, width) = batch["lr"].shape[1:3], batch["hr"].shape[1:3]
      if (h * self.factor[0], w * self.factor[1]) != (height, width):
        raise UserError(
          f"The given low-resolution images have {h}x{w} rows and columns, the high-resolution ones "
          f"{height}x{width}, but config.operator.factor is {self.factor}: set it to your images' factor."
        )
      return colour.to_float(batch["lr"])
    return self.degrade(colour.to_float(batch["hr"]))

  def same_degradation(self, other: "Operator") -> bool:
    """Whether another run has the same A and rounding, whatever it does to its network's output."""
    return replace(self, consistency=other.consistency) == other

  def with_factor(self, factor: tuple[int, int]) -> "Operator":
    """The same kernel with another factor: SRIM compares its lower stage with A_2 y."""
    return replace(self, factor=factor)

  def _matrices(self, lr_shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The row matrix [h, H] and the column matrix [w, W] of A."""
    height, width = self.hr_shape(lr_shape)[-3:-1]
    return (
      resize_matrix(height, lr_shape[-3], self.kernel, self.border, self.antialias),
      resize_matrix(width, lr_shape[-2], self.kernel, self.border, self.antialias),
    )


def make_operator(config: ConfigDict) -> Operator:
  """The operator of a run: `config.operator` and `config.consistency`. Raises UserError as `Operator`."""
  keys = config.operator
  return Operator(
    keys.kernel, tuple(keys.factor), keys.border, keys.rounding, config.consistency, keys.antialias
  )
