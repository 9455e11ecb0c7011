"""Seconds per image of the naive and the cached sampler, and what the hardware's arithmetic would allow.

  python benchmarks/pixel_sampling.py [--batches 1 8 16] [--width 64 --layers 20 --head 1024]

The prior of Pixel Recursive Super Resolution's Table 2 at 32x32, with random weights. Naive: a whole pass per
sub-pixel, of which 64 are timed and the rest scaled. Floor: the multiply-adds of one whole pass, without what
the masks take away, at the rate of a 4096x4096 float32 product on the same machine.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from sr_jax.configs.papers import NETWORKS
from sr_jax.methods.pixel_recursive import draw_token
from sr_jax.networks.gated_pixelcnn import GatedPixelCNN, draw_cached, to_value
from sr_jax.networks.pixelcnn import causal_mask

SIDE, CHANNELS, LEVELS, TIMED = 32, 3, 256, 64


def seconds(run: Callable[[], jax.Array], repeats: int) -> float:
  """The best of some runs, after one that compiles."""
  run().block_until_ready()
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    run().block_until_ready()
    times.append(time.perf_counter() - start)
  return min(times)


def multiply_adds(net: GatedPixelCNN) -> int:
  """Of one pixel in a whole pass."""

  def masked(kernel: int, inputs: int, outputs: int, parts: int = 1, first: bool = False) -> int:
    return int(causal_mask((1, kernel), inputs, outputs, CHANNELS, first, parts).sum())

  F, k, k1 = net.width, net.kernel, net.first_kernel
  above = (k // 2 + 1) * k * F * 2 * F + 4 * F * F
  layer = above + masked(k, F, 2 * F, parts=2) + masked(1, F, F)
  start = (k1 // 2) * k1 * CHANNELS * F + masked(k1, CHANNELS, F, first=True)
  return start + net.layers * layer + masked(1, F, net.head) + masked(1, net.head, CHANNELS * LEVELS)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 16])
  for name, default in (("width", 64), ("layers", 20), ("head", 1024)):
    parser.add_argument(f"--{name}", type=int, default=default)
  keys = parser.parse_args()
  prior = NETWORKS["pixel_recursive"]["prior"]
  prior |= {"width": keys.width, "layers": keys.layers, "head": keys.head}
  net = GatedPixelCNN(CHANNELS, jnp.dtype(jnp.float32), **prior)
  params = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 8, 8, CHANNELS)))["params"]

  n = 4096
  square = jax.random.normal(jax.random.key(0), (n, n))
  product = jax.jit(jnp.matmul)
  rate = n**3 / seconds(lambda: product(square, square), 5)
  work = multiply_adds(net) * SIDE**2
  print(f"{jax.devices()[0].device_kind}: {rate / 1e9:.0f} G multiply-adds/s in a product of {n}x{n}")
  print(f"one pass of {SIDE}x{SIDE}: {work / 1e9:.2f} G multiply-adds an image")
  print("| batch | naive s/image | cached s/image | ratio | floor s/image | cached / floor | differing |")
  print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
  for batch in keys.batches:
    shape = (batch, SIDE, SIDE, CHANNELS)

    def rows(r: jax.Array, shape: tuple[int, ...] = shape) -> jax.Array:
      return jax.random.uniform(jax.random.fold_in(jax.random.key(1), r), (shape[0], *shape[2:]))

    @jax.jit
    def one(params, tokens, t, rows=rows):
      r, c, g = t // (SIDE * CHANNELS), t // CHANNELS % SIDE, t % CHANNELS
      logits = net.apply({"params": params}, to_value(tokens, LEVELS))[:, r, c, g]
      return tokens.at[:, r, c, g].set(draw_token(logits, rows(r)[:, c, g]))

    tokens = jnp.zeros(shape, jnp.int32)
    one(params, tokens, 0).block_until_ready()
    start = time.perf_counter()
    for t in range(TIMED):
      tokens = one(params, tokens, t)
    tokens.block_until_ready()
    slow = (time.perf_counter() - start) * SIDE * SIDE * CHANNELS / TIMED / batch
    cached = jax.jit(partial(draw_cached, net, shape=shape, rows=rows, pick=draw_token))
    fast = seconds(lambda cached=cached: cached(params), 3) / batch
    floor = work / rate
    begun = (v.reshape(batch, -1)[:, :TIMED] for v in (tokens, cached(params)))
    differing = float(jnp.mean(jnp.not_equal(*begun)))
    times = f"{slow:.1f} | {fast:.3f} | {slow / fast:.0f} | {floor:.3f} | {fast / floor:.1f}"
    print(f"| {batch} | {times} | {differing:.2%} |", flush=True)


if __name__ == "__main__":
  main()
