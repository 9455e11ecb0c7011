"""Separable resizing: every kernel is a small matrix per axis, made on the host in float64.

The semantics are those of MATLAB's `imresize`: pixel centres lie at half-integers, and a kernel that
shrinks is stretched by the factor, so that it does not alias. Borders are a choice of their own,
because MATLAB changed its mind once and PIL never agreed with either.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sr_jax.errors import UserError, check_choice, find_function

GAUSSIAN_TAPS = 9
GAUSSIAN_SIGMA = 1.5  # standard deviation in pixels of the large image


def _cubic(t: np.ndarray) -> np.ndarray:
  """Keys' cubic with a = -0.5 (Cubic convolution interpolation, 1981, Eq. 15)."""
  t = np.abs(t)
  near = 1.5 * t**3 - 2.5 * t**2 + 1
  far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
  return np.where(t <= 1, near, np.where(t <= 2, far, 0.0))


def _triangle(t: np.ndarray) -> np.ndarray:
  return np.maximum(1 - np.abs(t), 0.0)


def _box(t: np.ndarray) -> np.ndarray:
  return np.where((t >= -0.5) & (t < 0.5), 1.0, 0.0)


# (pixels before, pixels after) -> for every pixel after, the positions that it sees, some of them outside,
# and their weights, which need not sum to 1: both [n_out, taps].
Kernel = Callable[[int, int], tuple[np.ndarray, np.ndarray]]


def _interpolation(function: Callable[[np.ndarray], np.ndarray], width: int) -> Kernel:
  """An interpolation kernel of that width in pixels of the smaller image."""

  def kernel(n_in: int, n_out: int, antialias: bool = True) -> tuple[np.ndarray, np.ndarray]:
    stretch = max(n_in / n_out, 1.0) if antialias else 1.0
    centre = (np.arange(n_out)[:, None] + 0.5) * n_in / n_out - 0.5
    reach = width * stretch
    # Two taps more than fit, so that rounding never loses one; their weight is 0.
    position = np.floor(centre - reach / 2).astype(int) + np.arange(int(np.ceil(reach)) + 2)[None]
    return position, function((centre - position) / stretch)

  return kernel


def _gaussian(n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray]:
  if n_in % n_out:
    raise ValueError(f"the gaussian kernel strides by an integer, so {n_in} pixels cannot become {n_out}")
  stride = n_in // n_out
  offset = np.arange(GAUSSIAN_TAPS)[None] - GAUSSIAN_TAPS // 2
  weight = np.exp(-0.5 * (offset / GAUSSIAN_SIGMA) ** 2)
  return np.arange(n_out)[:, None] * stride + (stride - 1) // 2 + offset, np.repeat(weight, n_out, axis=0)


KERNELS: dict[str, Kernel] = {
  "bicubic": _interpolation(_cubic, 4),
  "bilinear": _interpolation(_triangle, 2),
  "area": _interpolation(_box, 1),
  "gaussian": _gaussian,
}
BORDERS = ("replicate", "symmetric", "renormalise")


def reach(factor: int, kernel: str) -> Fraction:
  """How far an enlargement sees, in pixels of the small image: row Y of the large one depends on rows from
  floor(Y / factor - reach) to floor(Y / factor + reach) of the small one."""
  if factor == 1:
    return Fraction(0)
  return Fraction(factor // 2, factor) + {"bilinear": 0, "bicubic": 1}[kernel]


def _taps(name: str, n_in: int, n_out: int, antialias: bool) -> tuple[np.ndarray, np.ndarray]:
  """What the kernel of that name returns; raises UserError where one of somebody else's package fails."""
  kernel = find_function(KERNELS, name, "config.operator.kernel")
  if name in KERNELS:
    return kernel(n_in, n_out) if antialias else kernel(n_in, n_out, antialias=False)
  try:
    position, weight = map(np.asarray, kernel(n_in, n_out))
    if position.ndim != 2 or not position.shape == weight.shape == (n_out, position.shape[1]):
      raise ValueError(f"positions {position.shape}, weights {weight.shape}")
  except Exception as error:
    raise UserError(
      f"config.operator.kernel {name!r} gives no {n_out} pixels of {n_in} ({error}): return positions and "
      f"weights, both [{n_out}, taps]."
    ) from error
  return position, weight


@lru_cache(maxsize=256)
def resize_matrix(
  n_in: int, n_out: int, kernel: str = "bicubic", border: str = "replicate", antialias: bool = True
) -> np.ndarray:
  """The matrix that resizes one axis, float64 [n_out, n_in], read-only; every row sums to 1.

  Args:
    n_in: pixels of the axis before; equal sizes give the identity for every kernel.
    n_out: pixels after.
    kernel: "bicubic" (a = -0.5), "bilinear" (triangle) or "area" (box), stretched by n_in / n_out when
      shrinking; or "gaussian", 9 taps with a standard deviation of 1.5 pixels and an integer stride
      f = n_in / n_out, the taps of output i centred on input i * f + (f - 1) // 2 (for an even f that is
      half a pixel before the centre of the block, which an odd number of taps cannot meet); or a `Kernel` of
      your own as "module:function".
    border: what stands outside the image: "replicate" its edge pixel (older MATLAB), "symmetric" its
      mirror image, the edge pixel included (newer MATLAB), "renormalise" nothing: the remaining taps
      are scaled to sum to 1 (PIL).
    antialias: False: an interpolation kernel is not stretched, so that shrinking by 4 takes the values of the
      cubic's four taps and overlooks what lies between, as many older papers did.

  Raises:
    UserError: an unknown kernel or border, one of your own that fails, or a kernel that is no interpolation
      without antialiasing.
    ValueError: a gaussian whose stride is no integer.
  """
  find_function(KERNELS, kernel, "config.operator.kernel")
  check_choice(BORDERS, border, "config.operator.border")
  if not antialias and kernel not in ("bicubic", "bilinear"):
    raise UserError(
      f"config.operator.antialias is False, but the kernel {kernel!r} is no interpolation: choose bicubic."
    )
  if n_in == n_out:
    matrix = np.eye(n_in)
  else:
    position, weight = _taps(kernel, n_in, n_out, antialias)
    if border == "replicate":
      source = np.clip(position, 0, n_in - 1)
    elif border == "symmetric":
      source = position % (2 * n_in)
      source = np.minimum(source, 2 * n_in - 1 - source)
    else:
      weight = np.where((position >= 0) & (position < n_in), weight, 0.0)
      source = np.clip(position, 0, n_in - 1)
    matrix = np.zeros((n_out, n_in))
    np.add.at(matrix, (np.arange(n_out)[:, None], source), weight / weight.sum(axis=1, keepdims=True))
  matrix.setflags(write=False)
  return matrix


def apply_rows(matrix: np.ndarray, images: Array) -> Array:
  """Multiplies the row axis, [..., H, W, C] -> [..., H2, W, C], by a matrix [H2, H], in float32.

  HIGHEST: a TPU would otherwise multiply in bfloat16 and miss the projection by 1e-7 in mean square.
  """
  return jnp.einsum("oh,...hwc->...owc", *_float32(matrix, images), precision=jax.lax.Precision.HIGHEST)


def apply_columns(matrix: np.ndarray, images: Array) -> Array:
  """Multiplies the column axis, [..., H, W, C] -> [..., H, W2, C], by [W2, W]; see `apply_rows`."""
  return jnp.einsum("ow,...hwc->...hoc", *_float32(matrix, images), precision=jax.lax.Precision.HIGHEST)


def _float32(matrix: np.ndarray, images: Array) -> tuple[Array, Array]:
  return jnp.asarray(matrix, jnp.float32), jnp.asarray(images, jnp.float32)


def resize(images: Array, size: tuple[int, int], kernel: str = "bicubic", border: str = "replicate") -> Array:
  """Resizes images [..., H, W, C] to [..., size[0], size[1], C], float32, in the units they have.

  Rows first, then columns; nothing is clipped or rounded. Kernels, borders and errors as in
  `resize_matrix`.
  """
  height, width = images.shape[-3:-1]
  images = apply_rows(resize_matrix(height, size[0], kernel, border), images)
  return apply_columns(resize_matrix(width, size[1], kernel, border), images)
