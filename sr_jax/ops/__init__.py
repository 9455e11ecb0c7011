"""Images in, images out, no weights: the downsampling A and its pseudo-inverse, resizing, colour."""

from sr_jax.ops.colour import LUMA, luma, quantise, to_float, to_uint8
from sr_jax.ops.operator import Operator, make_operator
from sr_jax.ops.resize import resize, resize_matrix

__all__ = [
  "LUMA",
  "Operator",
  "luma",
  "make_operator",
  "quantise",
  "resize",
  "resize_matrix",
  "to_float",
  "to_uint8",
]
