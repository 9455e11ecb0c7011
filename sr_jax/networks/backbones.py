"""Frozen networks of perceptual metrics, up to the features that LPIPS compares, with torchvision's weights.

SqueezeNet 1.1 (Iandola et al., arXiv 1602.07360), AlexNet (Krizhevsky, arXiv 1404.5997) and VGG-16 (Simonyan
and Zisserman, arXiv 1409.1556). Widths come from the weights.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax import Array, lax

from sr_jax.networks.layers import CONV_LAYOUT
from sr_jax.networks.weights import flax_convolution

# Of SqueezeNet: torchvision's numbers of the Fire modules; a pooling precedes those that are first in their
# tuple. LPIPS looks after the first convolution and after TAPS.
FIRES = ((3, 4), (6, 7), (9, 10, 11, 12))
TAPS = (4, 7, 9, 10, 11, 12)
# Of VGG-16: torchvision's numbers of the convolutions; a pooling lies between two tuples, and LPIPS looks
# before it and at the end.
VGG16 = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))

Params = Mapping[str, Mapping[str, Any]]


@struct.dataclass
class Backbone:
  """A network with its weights, which may be an argument of a compiled program.

  Attributes:
    net: an entry of BACKBONES.
    params: {layer under torchvision's name: {"kernel": HWIO, "bias": [O]}}.
  """

  net: str = struct.field(pytree_node=False)
  params: Params

  @property
  def least(self) -> int:
    """Pixels a side of the smallest image that it can see."""
    return BACKBONES[self.net].least

  def features(self, x: Array) -> list[Array]:
    """Normalised images [B, H, W, 3] of at least `least` pixels -> what LPIPS compares, the finest first."""
    return BACKBONES[self.net].features(self.params, x)


def make_backbone(net: str, arrays: Mapping[str, np.ndarray]) -> Backbone:
  """A network from arrays under torchvision's names, kernels OIHW.

  Raises:
    KeyError: a layer is missing.
  """
  return Backbone(net, {layer: flax_convolution(arrays, layer) for layer in BACKBONES[net].layers})


def _conv(params: Params, layer: str, h: Array, stride: int = 1, pad: int = 0) -> Array:
  """A convolution and its ReLU."""
  kernel, bias = params[layer]["kernel"], params[layer]["bias"]
  pads = ((pad, pad), (pad, pad))
  h = lax.conv_general_dilated(
    h, kernel, (stride, stride), pads, dimension_numbers=CONV_LAYOUT, precision="highest"
  )
  return nn.relu(h + bias)


def _squeezenet(params: Params, x: Array) -> list[Array]:
  features = [_conv(params, "features.0", x, stride=2)]
  h = features[0]
  for fires in FIRES:
    # The largest of 3x3 at a stride of 2; at the far edges a window may stick out (PyTorch's ceil_mode).
    pads = [(0, 0), *((0, (size - 3) % 2) for size in h.shape[1:3]), (0, 0)]
    h = nn.max_pool(jnp.pad(h, pads, constant_values=-jnp.inf), (3, 3), strides=(2, 2))
    for i in fires:
      squeezed = _conv(params, f"features.{i}.squeeze", h)
      wide = _conv(params, f"features.{i}.expand3x3", squeezed, pad=1)
      h = jnp.concatenate([_conv(params, f"features.{i}.expand1x1", squeezed), wide], axis=-1)
      if i in TAPS:
        features.append(h)
  return features


def _alexnet(params: Params, x: Array) -> list[Array]:
  first = _conv(params, "features.0", x, stride=4, pad=2)
  second = _conv(params, "features.3", nn.max_pool(first, (3, 3), strides=(2, 2)), pad=2)
  features = [first, second]
  h = nn.max_pool(second, (3, 3), strides=(2, 2))
  for i in (6, 8, 10):
    h = _conv(params, f"features.{i}", h, pad=1)
    features.append(h)
  return features


def _vgg16(params: Params, x: Array) -> list[Array]:
  features: list[Array] = []
  h = x
  for convolutions in VGG16:
    if features:
      h = nn.max_pool(h, (2, 2), strides=(2, 2))
    for i in convolutions:
      h = _conv(params, f"features.{i}", h, pad=1)
    features.append(h)
  return features


class Architecture(NamedTuple):
  """What there is of a network but its weights.

  Attributes:
    layers: torchvision's names of its convolutions.
    features: (params, normalised images [B, H, W, 3]) -> the features.
    least: pixels a side of the smallest image of which all poolings leave something.
  """

  layers: tuple[str, ...]
  features: Callable[[Params, Array], list[Array]]
  least: int


_PARTS = ("squeeze", "expand1x1", "expand3x3")
BACKBONES = {
  "squeeze": Architecture(
    ("features.0", *(f"features.{i}.{part}" for fires in FIRES for i in fires for part in _PARTS)),
    _squeezenet,
    17,
  ),
  "alex": Architecture(tuple(f"features.{i}" for i in (0, 3, 6, 8, 10)), _alexnet, 31),
  "vgg": Architecture(tuple(f"features.{i}" for block in VGG16 for i in block), _vgg16, 16),
}
