"""VGG-19 features (Simonyan and Zisserman, arXiv 1409.1556, configuration E), from a local weight file.

Features are the convolutions' outputs before their ReLU. The weights stay frozen, so this is a function
of a parameter tree and no module: {"preprocess" | "conv1_1" | ...: {"kernel": HWIO, "bias": [O]}}.
"""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array, lax, random

from sr_jax.errors import UserError, choose
from sr_jax.networks.layers import CONV_LAYOUT
from sr_jax.networks.weights import flax_convolution, read_arrays

CONVOLUTIONS = (2, 2, 4, 4, 4)  # per block; blocks end in a 2x2 max-pool
BLOCK = {f"conv{b + 1}_{i + 1}": b for b, count in enumerate(CONVOLUTIONS) for i in range(count)}
LAYERS = tuple(BLOCK)
# numpy's names of a padding
PADDINGS = {"zero": "constant", "reflect": "reflect"}
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)

VGGParams = dict[str, dict[str, np.ndarray]]


def load_vgg(path: str, layers: Sequence[str], sha256: str = "") -> VGGParams:
  """Reads the convolutions up to the deepest of `layers` from an .npz file; widths are the file's.

  Two public layouts are known, both OIHW: torchvision's (`features.0.weight`), whose weights expect
  (RGB - mean) / std; and the normalised VGG-19 (`0.weight`, `2.weight`, `5.weight`), whose layer 0 turns
  RGB in [0, 1] into BGR * 255 - mean, the input that SRIM describes (section 2.5). "preprocess" is that
  map of [0, 1] as a 1x1 convolution, so that one network serves both.

  Args:
    path: the file; environment variables and ~ are expanded.
    layers: names such as "conv2_2".
    sha256: digest that the file must have, unless empty.

  Returns:
    float32 arrays on the host.

  Raises:
    UserError: a missing, different or unreadable file, or a layer that it or VGG-19 does not have.
  """
  deepest = _deepest(layers)
  arrays = read_arrays(path, "config.method.features.file", sha256)
  return _read(arrays, path, LAYERS[: deepest + 1])


def _read(arrays: Mapping[str, np.ndarray], file: str, layers: Sequence[str]) -> VGGParams:
  """Recognises the layout and takes the first `layers`, all in order."""
  if "features.0.weight" in arrays:
    prefix, first, step = "features.", 0, 2  # convolution, ReLU
    kernel = np.diag(1 / IMAGENET_STD)[None, None]
    preprocess = {"kernel": kernel, "bias": -IMAGENET_MEAN / IMAGENET_STD}
  elif "0.weight" in arrays and arrays["0.weight"].shape == (3, 3, 1, 1):
    prefix, first, step = "", 2, 3  # padding, convolution, ReLU
    preprocess = flax_convolution(arrays, "0")
  else:
    raise UserError(
      f"{file} has neither 'features.0.weight' nor a 1x1 '0.weight': give VGG-19's weights as "
      "docs/metrics.md, Weight files, says."
    )

  params = {"preprocess": preprocess}
  for number, layer in enumerate(layers):
    key = f"{prefix}{first + step * number + BLOCK[layer]}"  # every block before adds its pooling
    if f"{key}.weight" not in arrays or f"{key}.bias" not in arrays:
      raise UserError(f"{file} does not hold the layer {layer} ('{key}.weight' and '{key}.bias').")
    params[layer] = flax_convolution(arrays, key)
  return params


def random_vgg(key: Array, layers: Sequence[str], width: int = 64) -> dict[str, dict[str, Array]]:
  """Random parameters in the shapes of `load_vgg`, with `width` channels in the first block."""
  shapes, channels = {"preprocess": (1, 1, 3, 3)}, 3
  for layer in LAYERS[: _deepest(layers) + 1]:
    features = width * min(8, 2 ** BLOCK[layer])
    shapes[layer] = (3, 3, channels, features)
    channels = features
  keys = random.split(key, len(shapes))
  return {
    layer: {"kernel": nn.initializers.he_normal()(k, shape), "bias": jnp.zeros(shape[-1])}
    for k, (layer, shape) in zip(keys, shapes.items(), strict=True)
  }


def vgg_features(
  params: Mapping[str, Mapping[str, Array]], images: Array, layers: Sequence[str], padding: str = "zero"
) -> list[Array]:
  """Pre-activations of named layers.

  Args:
    params: from `load_vgg`.
    images: RGB [B, H, W, 3] in [0, 1]; H and W at least 2 to the number of poolings passed.
    layers: names, in any order.
    padding: of every 3x3 convolution: "zero", as VGG was trained, or "reflect".

  Returns:
    A float32 array [B, H / 2^k, W / 2^k, width] for each of `layers`, in their order, k poolings
    before it.

  Raises:
    UserError: an unknown layer or padding.
  """
  deepest = _deepest(layers)
  mode = choose(PADDINGS, padding, "config.method.features.padding")
  x = _convolve(jnp.asarray(images, jnp.float32), params["preprocess"])
  features: dict[str, Array] = {}
  for number, layer in enumerate(LAYERS[: deepest + 1]):
    if number:
      x = nn.relu(x)
    if number and BLOCK[layer] > BLOCK[LAYERS[number - 1]]:
      x = nn.max_pool(x, (2, 2), strides=(2, 2))
    x = _convolve(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode), params[layer])
    features[layer] = x
  return [features[layer] for layer in layers]


def _deepest(layers: Sequence[str]) -> int:
  """The number of the deepest of `layers` in LAYERS."""
  numbers = dict(zip(LAYERS, range(len(LAYERS)), strict=True))
  return max(
    (choose(numbers, layer, "A layer of config.method.features.layers") for layer in layers), default=-1
  )


def _convolve(x: Array, layer: Mapping[str, Array]) -> Array:
  return (
    lax.conv_general_dilated(x, layer["kernel"], (1, 1), "VALID", dimension_numbers=CONV_LAYOUT)
    + layer["bias"]
  )
