"""Training images a second of the gated PixelCNN, with cropped kernels and with whole ones under a mask.

  python benchmarks/pixel_training.py [--batch 8] [--width 64 --layers 20 --head 1024]

Both are the prior of Pixel Recursive Super Resolution's Table 2 at 32x32; one step is the gradient of its
cross-entropy. The whole kernels are 5x5 and 7x7 above and 1x5 and 1x7 to the left.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax.configs.papers import NETWORKS
from sr_jax.methods.pixel_recursive import bits
from sr_jax.networks.gated_pixelcnn import GatedPixelCNN, to_value
from sr_jax.networks.pixelcnn import causal_mask

SIDE, CHANNELS, LEVELS = 32, 3, 256


class WholeKernels(GatedPixelCNN):
  """The same network by ordinary convolutions whose kernels are multiplied by a mask."""

  def _masked(self, name: str, features: int, kernel: int, parts: int = 1, first: bool = False) -> nn.Module:
    if kernel == 1:
      return super()._masked(name, features, kernel, parts, first)
    inputs = CHANNELS if first else self.width
    half = causal_mask((1, kernel), inputs, features, CHANNELS, first, parts)
    mask = np.pad(half, ((0, 0), (0, kernel // 2), (0, 0), (0, 0)))
    return nn.Conv(features, (1, kernel), use_bias=False, mask=mask, name=name)

  def _above(self, name: str, features: int, rows: int, kernel: int) -> nn.Conv:
    first = name == "first_above"
    mask = np.zeros((kernel, kernel, CHANNELS if first else self.width, features), np.float32)
    mask[first : rows + first] = 1
    return nn.Conv(features, (kernel, kernel), mask=mask, name=name)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  for name, default in (("batch", 8), ("width", 64), ("layers", 20), ("head", 1024), ("steps", 5)):
    parser.add_argument(f"--{name}", type=int, default=default)
  keys = parser.parse_args()
  tokens = jax.random.randint(jax.random.key(0), (keys.batch, SIDE, SIDE, CHANNELS), 0, LEVELS)
  steps = {}
  for title, kind in (("cropped", GatedPixelCNN), ("whole", WholeKernels)):
    prior = NETWORKS["pixel_recursive"]["prior"]
    prior |= {"width": keys.width, "layers": keys.layers, "head": keys.head}
    net = kind(CHANNELS, jnp.dtype(jnp.float32), **prior)
    params = jax.jit(net.init)(jax.random.key(0), to_value(tokens, LEVELS))["params"]

    def loss(params, net=net):
      return bits(net.apply({"params": params}, to_value(tokens, LEVELS)), tokens).mean()

    steps[title] = jax.jit(jax.grad(loss)), params
    jax.block_until_ready(steps[title][0](params))
  times: dict[str, list[float]] = {title: [] for title in steps}
  for _ in range(keys.steps):  # in turn, so that both share the machine's moods
    for title, (step, params) in steps.items():
      start = time.perf_counter()
      jax.block_until_ready(step(params))
      times[title].append(time.perf_counter() - start)
  print(f"{jax.devices()[0].device_kind}, batch {keys.batch}, median of {keys.steps} steps")
  print("| kernels | images/s | s/step |\n| --- | ---: | ---: |")
  for title, seconds in times.items():
    print(f"| {title} | {keys.batch / np.median(seconds):.2f} | {np.median(seconds):.2f} |")


if __name__ == "__main__":
  main()
