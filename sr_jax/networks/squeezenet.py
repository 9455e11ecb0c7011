"""SqueezeNet 1.1 (Iandola et al., arXiv 1602.07360; torchvision's version) up to its last features.

The weights stay frozen, so this is a function of a parameter tree and no module, as `vgg.py`.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array, lax

# torchvision's numbers of the Fire modules; a pooling precedes those that are first in their tuple.
FIRES = ((3, 4), (6, 7), (9, 10, 11, 12))
# After which modules LPIPS looks: the first convolution, then these.
TAPS = (4, 7, 9, 10, 11, 12)

Params = Mapping[str, Mapping[str, Array]]


def read_squeezenet(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
  """The parameters from arrays under torchvision's names, OIHW -> {layer: {"kernel": HWIO, "bias": [O]}}.

  Raises:
    KeyError: a layer is missing.
  """
  parts = [
    f"features.{i}.{part}" for fires in FIRES for i in fires for part in ("squeeze", "expand1x1", "expand3x3")
  ]
  return {
    layer: {
      "kernel": np.asarray(arrays[f"{layer}.weight"], np.float32).transpose(2, 3, 1, 0),
      "bias": np.asarray(arrays[f"{layer}.bias"], np.float32),
    }
    for layer in ("features.0", *parts)
  }


def squeezenet_features(params: Params, x: Array) -> list[Array]:
  """Normalised images [B, H, W, 3], 17 pixels or more -> the seven features that LPIPS compares."""

  def conv(h: Array, layer: str, stride: int = 1, padding: str = "VALID") -> Array:
    kernel, bias = params[layer]["kernel"], params[layer]["bias"]
    h = lax.conv_general_dilated(
      h, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )
    return nn.relu(h + bias)

  h = conv(x, "features.0", stride=2)
  features = [h]
  for fires in FIRES:
    h = _pool(h)
    for i in fires:
      squeezed = conv(h, f"features.{i}.squeeze")
      wide = conv(squeezed, f"features.{i}.expand3x3", padding="SAME")
      h = jnp.concatenate([conv(squeezed, f"features.{i}.expand1x1"), wide], axis=-1)
      if i in TAPS:
        features.append(h)
  return features


def _pool(h: Array) -> Array:
  """The largest of 3x3 at a stride of 2; at the far edges a window may stick out (PyTorch's ceil_mode)."""
  pads = [(0, 0), *((0, (size - 3) % 2) for size in h.shape[1:3]), (0, 0)]
  h = jnp.pad(h, pads, constant_values=-jnp.inf)
  return nn.max_pool(h, (3, 3), strides=(2, 2))
