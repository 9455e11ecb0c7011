"""Between bytes and floats, and from RGB to luma."""

import jax.numpy as jnp
from jax import Array

from sr_jax.errors import choose

# Studio swing: Y = (16 + 219 * weights . RGB) / 255 with RGB and Y in [0, 1], so black is 16/255 and
# white 235/255. The first row is ITU-R BT.601 as MATLAB's rgb2ycbcr rounds it, the second BT.709.
LUMA = {
  "bt601": (65.481, 128.553, 24.966),
  "bt709": (219 * 0.2126, 219 * 0.7152, 219 * 0.0722),
}


def to_float(images: Array) -> Array:
  """Bytes [...] in 0..255 as float32 [...] in [0, 1]; floats, of data without a range, as they are."""
  scale = 255 if jnp.issubdtype(images.dtype, jnp.integer) else 1
  return jnp.asarray(images, jnp.float32) / scale


def to_uint8(images: Array) -> Array:
  """Floats [...] as bytes [...]: clipped to [0, 1] and rounded, halves upwards as MATLAB does."""
  return _levels(images).astype(jnp.uint8)


def quantise(images: Array) -> Array:
  """Floats [...] as they read back from an 8-bit file: clipped and rounded, float32 in [0, 1]."""
  return _levels(images) / 255


def _levels(images: Array) -> Array:
  # Halves upwards: jnp.round would take them to the even neighbour.
  return jnp.floor(jnp.clip(jnp.asarray(images, jnp.float32), 0, 1) * 255 + 0.5)


def luma(images: Array, kind: str = "bt601") -> Array:
  """Studio-swing luma of RGB images [..., 3] in [0, 1], as [..., 1] in [0, 1]; grey is unchanged.

  Args:
    images: RGB [..., 3], or grey [..., 1], which is returned as it is.
    kind: "bt601", the Y of MATLAB's rgb2ycbcr, or "bt709", limited range.

  Raises:
    UserError: an unknown kind.
  """
  weights = jnp.asarray(choose(LUMA, kind, "config.eval.luma"))
  if images.shape[-1] == 1:
    return images
  # A sum of products and no matrix product, which a TPU would round to bfloat16.
  return (16 + jnp.sum(images * weights, axis=-1, keepdims=True)) / 255
