"""Where a CPU's time goes in a train step, part by part, beside PyTorch: one 5x5 layer of SRIM's network.

  python benchmarks/cpu_parts.py [--batch 4] [--side 64] [--width 64] [--repeats 20]

A convolution of width + 3 feature maps to width, its two gradients and batch normalisation with its gradient,
with and without `parallel.training_options`, and in PyTorch where it is importable; milliseconds, best of the
repeats.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from sr_jax.parallel import training_options


def best(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
  """Milliseconds of each call; they take turns, so that all meet the same machine."""
  times = dict.fromkeys(calls, float("inf"))
  for _ in range(repeats + 1):
    for name, call in calls.items():
      start = time.perf_counter()
      jax.block_until_ready(call())
      times[name] = min(times[name], 1e3 * (time.perf_counter() - start))
  return times


def jax_parts(batch: int, side: int, width: int, options: dict[str, str]) -> dict[str, Callable[[], object]]:
  x = jax.random.normal(jax.random.key(0), (batch, side, side, width + 3))
  kernel = jax.random.normal(jax.random.key(1), (5, 5, width + 3, width)) / 40
  y = jax.random.normal(jax.random.key(2), (batch, side, side, width))
  layout = ("NHWC", "HWIO", "NHWC")
  conv = partial(
    jax.lax.conv_general_dilated, window_strides=(1, 1), padding="SAME", dimension_numbers=layout
  )
  compiled = partial(jax.jit, compiler_options=options)

  def norm(y: jax.Array) -> jax.Array:
    mean, variance = y.mean((0, 1, 2)), y.var((0, 1, 2))
    return jnp.maximum((y - mean) * jax.lax.rsqrt(variance + 1e-5), 0)

  forward = compiled(conv)
  to_input = compiled(lambda x, k, y: jax.vjp(lambda v: conv(v, k), x)[1](y))
  to_weights = compiled(lambda x, k, y: jax.vjp(lambda v: conv(x, v), k)[1](y))
  through_norm = compiled(lambda y: jax.vjp(norm, y)[1](y))
  return {
    "convolution": lambda: forward(x, kernel),
    "its gradient for the input": lambda: to_input(x, kernel, y),
    "its gradient for the weights": lambda: to_weights(x, kernel, y),
    "batch normalisation and ReLU, with gradient": lambda: through_norm(y),
  }


def torch_parts(batch: int, side: int, width: int) -> dict[str, Callable[[], object]]:
  import torch
  from torch.nn import functional

  x = torch.randn(batch, width + 3, side, side).to(memory_format=torch.channels_last)
  y = torch.randn(batch, width, side, side).to(memory_format=torch.channels_last)
  kernel = (torch.randn(width, width + 3, 5, 5) / 40).to(memory_format=torch.channels_last)

  def gradient(mask: list[bool]) -> Callable[[], object]:
    arguments = ([0], [1, 1], [2, 2], [1, 1], False, [0, 0], 1, mask)
    return lambda: torch.ops.aten.convolution_backward(y, x, kernel, *arguments)

  def norm() -> object:
    v = y.detach().requires_grad_()
    functional.relu(functional.batch_norm(v, None, None, training=True)).backward(y)
    return v.grad

  return {
    "convolution": lambda: functional.conv2d(x, kernel, padding=2),
    "its gradient for the input": gradient([True, False, False]),
    "its gradient for the weights": gradient([False, True, False]),
    "batch normalisation and ReLU, with gradient": norm,
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  for name, default in (("batch", 4), ("side", 64), ("width", 64), ("repeats", 20)):
    parser.add_argument(f"--{name}", type=int, default=default)
  keys = parser.parse_args()
  size = (keys.batch, keys.side, keys.width)
  columns = {"default": jax_parts(*size, {}), "with the option": jax_parts(*size, training_options("cpu"))}
  if importlib.util.find_spec("torch"):
    columns["PyTorch"] = torch_parts(*size)
  calls = {f"{title}: {part}": call for title, parts in columns.items() for part, call in parts.items()}
  times = best(calls, keys.repeats)
  print(
    f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {size} images, pixels a side, feature maps\n"
  )
  print(f"| ms | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}")
  for part in columns["default"]:
    values = [f"{times[f'{title}: {part}']:.1f}" for title in columns]
    print(f"| {part} | {' | '.join(values)} |")


if __name__ == "__main__":
  main()
