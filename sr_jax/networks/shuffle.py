"""Sub-pixel shuffles between space and channels (Shi et al., 2016)."""

import jax

from sr_jax.errors import UserError

Array = jax.Array


def enlargements(fy: int, fx: int) -> list[tuple[int, int]]:
  """The factor as doublings of both sides, with what is left over in one last step."""
  steps = []
  while fy % 2 == 0 and fx % 2 == 0:
    steps.append((2, 2))
    fy, fx = fy // 2, fx // 2
  return steps + ([(fy, fx)] if fy * fx > 1 else [])


def depth_to_space(x: Array, factor: tuple[int, int]) -> Array:
  """[B, h, w, fy * fx * C] -> [B, fy * h, fx * w, C]."""
  (b, h, w, c), (fy, fx) = x.shape, factor
  x = x.reshape(b, h, w, fy, fx, c // (fy * fx))
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * fy, w * fx, -1)


def space_to_depth(y: Array, factor: tuple[int, int]) -> Array:
  """The inverse: [B, fy * h, fx * w, C] -> [B, h, w, fy * fx * C]; UserError where blocks do not fit."""
  (b, height, width, c), (fy, fx) = y.shape, factor
  if min(fy, fx) < 1 or height % fy or width % fx:
    raise UserError(
      f"Blocks of {fy}x{fx} do not divide an image of {height}x{width}: choose another `fold`, "
      "fewer `widths` of a critic or classifier, or another config.data.crop."
    )
  y = y.reshape(b, height // fy, fy, width // fx, fx, c)
  return y.transpose(0, 1, 3, 2, 4, 5).reshape(b, height // fy, width // fx, fy * fx * c)
