"""Three of the train steps in PyTorch, for `accelerator.py`, which starts this file.

  python benchmarks/torch_peers.py [--steps 20] [--compile] JSON

JSON: {"srim" | "prsr" | "amap": {"batch", "side", "networks"}}, the networks as in a config. Prints a line of
JSON for each precision: float32, TF32 where the device has it, and bfloat16 by autocast.

The architectures are those of `sr_jax/networks`, the steps those of `sr_jax/methods`, written as one writes
PyTorch: NCHW modules in channels_last memory, cuDNN's choice of algorithms by trial, PyTorch's own
initial weights. Images come as bytes and are made smaller within the step, by an antialiased bicubic resize
or, where the output is projected, by matrices; their values play no part.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, as everybody calls it

FACTOR, LEVELS = 4, 256


def smaller(y: Tensor) -> Tensor:
  return F.interpolate(y, scale_factor=1 / FACTOR, mode="bicubic", antialias=True)


class SRIM(nn.Module):
  """SRIM's two sub-networks without their noise."""

  def __init__(self, width: int, layers: int, kernel: int, **_: Any) -> None:
    super().__init__()

    def stage() -> nn.ModuleList:
      widths = [3] + [width + 3] * (layers - 1), [width] * (layers - 1) + [3]
      convolutions = [
        nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=i == layers - 1)
        for i, (a, b) in enumerate(zip(*widths, strict=True))
      ]
      return nn.ModuleList([*convolutions, *(nn.BatchNorm2d(width) for _ in range(layers - 1))])

    self.layers, self.stages = layers, nn.ModuleList([stage(), stage()])

  def forward(self, x: Tensor) -> Tensor:
    output = x
    for scale, stage in zip((2, 4), self.stages, strict=True):
      size = [side * scale for side in x.shape[2:]]
      skip = F.interpolate(x, size=size, mode="bilinear")
      h = F.interpolate(output, size=size, mode="bilinear")
      h = stage[0](h)
      for i in range(1, self.layers):
        h = torch.cat([F.relu(stage[self.layers + i - 1](h)), skip.to(h.dtype)], dim=1)
        h = stage[i](h)
      output = torch.sigmoid(h.float())
    return output


class Block(nn.Module):
  def __init__(self, width: int) -> None:
    super().__init__()
    self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
    self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
    self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])

  def forward(self, h: Tensor) -> Tensor:
    inside = F.relu(self.norms[0](self.first(h)))
    return F.relu(h + self.norms[1](self.second(inside)))


def conditioning(width: int, blocks: int, **_: Any) -> nn.Sequential:
  layers: list[nn.Module] = [nn.Conv2d(3, width, 1), *(Block(width) for _ in range(blocks))]
  for _ in range(2):
    layers += [nn.ConvTranspose2d(width, width, 3, 2, padding=1, output_padding=1), nn.ReLU()]
    layers += [Block(width) for _ in range(blocks)]
  return nn.Sequential(*layers, nn.Conv2d(width, 3 * LEVELS, 1))


class Masked(nn.Conv2d):
  """Sees `kernel // 2` pixels to the left and, of its own pixel, the colours before or up to its own."""

  def __init__(self, inputs: int, outputs: int, kernel: int, first: bool = False, parts: int = 1) -> None:
    super().__init__(inputs, outputs, (1, kernel // 2 + 1), bias=kernel == 1)
    seen = torch.arange(inputs) * 3 // inputs
    seeing = (torch.arange(outputs // parts) * 3 // (outputs // parts)).repeat(parts)
    mask = torch.ones_like(self.weight)
    mask[..., -1] = (seen < seeing[:, None] if first else seen <= seeing[:, None])[..., None]
    self.register_buffer("mask", mask)

  def forward(self, x: Tensor) -> Tensor:
    return F.conv2d(F.pad(x, (self.kernel_size[1] - 1, 0)), self.weight * self.mask, self.bias)


def gate(pre: Tensor) -> Tensor:
  a, b = pre.chunk(2, dim=1)
  return torch.tanh(a) * torch.sigmoid(b)


class GatedPixelCNN(nn.Module):
  def __init__(self, width: int, layers: int, kernel: int, first_kernel: int, head: int, **_: Any) -> None:
    super().__init__()
    self.rows, self.sides = (first_kernel // 2, kernel // 2 + 1), (first_kernel // 2, kernel // 2)
    self.first_above = nn.Conv2d(3, width, (self.rows[0], first_kernel))
    self.first_left = Masked(3, width, first_kernel, first=True)

    def many(make: Callable[[], nn.Module]) -> nn.ModuleList:
      return nn.ModuleList([make() for _ in range(layers)])

    self.above = many(lambda: nn.Conv2d(width, 2 * width, (self.rows[1], kernel)))
    self.link = many(lambda: nn.Conv2d(2 * width, 2 * width, 1))
    self.left = many(lambda: Masked(width, 2 * width, kernel, parts=2))
    self.mix = many(lambda: Masked(width, width, 1))
    self.head, self.logits = Masked(width, head, 1), Masked(head, 3 * LEVELS, 1)

  def forward(self, y: Tensor) -> Tensor:
    y = 2 * y - 1
    moved = F.pad(y, (0, 0, 1, 0))[:, :, :-1]
    above = self.first_above(F.pad(moved, (self.sides[0], self.sides[0], self.rows[0] - 1, 0)))
    left = above + self.first_left(y)
    for convolution, link, masked, mix in zip(self.above, self.link, self.left, self.mix, strict=True):
      pre = convolution(F.pad(above, (self.sides[1], self.sides[1], self.rows[1] - 1, 0)))
      above = gate(pre)
      left = left + mix(gate(link(pre) + masked(left)))
    return self.logits(F.relu(self.head(F.relu(left))))


class Trunk(nn.Module):
  """Amortised MAP inference's convolutions, with skip connections every `skip` layers."""

  def __init__(self, widths: Sequence[int], kernel: int, strides: Sequence[int], skip: int) -> None:
    super().__init__()
    before = [3, *widths[:-1]]
    self.skip, self.convolutions, self.norms = skip, nn.ModuleList(), nn.ModuleList()
    self.joins = nn.ModuleDict()
    held = 3
    for i, (a, b, stride) in enumerate(zip(before, widths, strides, strict=True)):
      self.convolutions.append(nn.Conv2d(a, b, kernel, stride, padding=kernel // 2, bias=False))
      self.norms.append(nn.BatchNorm2d(b))
      if skip and (i + 1) % skip == 0:
        if held != b:
          self.joins[str(i)] = nn.Conv2d(held, b, 1, bias=False)
        held = b

  def forward(self, h: Tensor) -> Tensor:
    held = h
    for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
      h = F.relu(norm(convolution(h)))
      if self.skip and (i + 1) % self.skip == 0:
        held = h = h + (self.joins[str(i)](held) if str(i) in self.joins else held)
    return h


def generator(widths: Sequence[int], kernel: int, skip: int, **_: Any) -> nn.Sequential:
  last = nn.Conv2d(widths[-1], 3 * FACTOR**2, kernel, padding=kernel // 2)
  trunk = Trunk(widths, kernel, (1,) * len(widths), skip)
  return nn.Sequential(trunk, last, nn.PixelShuffle(FACTOR), nn.Sigmoid())


def discriminator(
  side: int, widths: Sequence[int], strides: Sequence[int], kernel: int, **_: Any
) -> nn.Sequential:
  for stride in strides:
    side = -(-side // stride)
  return nn.Sequential(Trunk(widths, kernel, strides, 0), nn.Flatten(), nn.Linear(widths[-1] * side**2, 1))


# A network as it is put on the device, and a context for its forward passes.
Place = Callable[[nn.Module], nn.Module]
Step = Callable[[Tensor], None]


def srim_step(keys: dict[str, Any], place: Place, cast: Callable[[], Any]) -> Step:
  """Regression with SRIM's network."""
  net = place(SRIM(**keys["networks"]["generator"]))
  optimiser = torch.optim.Adam(net.parameters(), 1e-4)

  def step(y: Tensor) -> None:
    with cast():
      output = net(smaller(y))
    optimiser.zero_grad(set_to_none=True)
    F.mse_loss(output.float(), y).backward()
    optimiser.step()

  return step


def prsr_step(keys: dict[str, Any], place: Place, cast: Callable[[], Any]) -> Step:
  """Both networks of pixel recursive super-resolution by Eq. 8."""
  networks = keys["networks"]["generator"]
  ours, prior = place(conditioning(**networks["conditioning"])), place(GatedPixelCNN(**networks["prior"]))
  parameters = [*ours.parameters(), *prior.parameters()]
  optimiser = torch.optim.RMSprop(parameters, 4e-4, alpha=0.95, momentum=0.9)

  def loss(logits: Tensor, tokens: Tensor) -> Tensor:
    # [B, C * levels, H, W] in channels_last memory: no copy.
    return F.cross_entropy(logits.permute(0, 2, 3, 1).reshape(-1, LEVELS), tokens)

  def step(y: Tensor) -> None:
    tokens = (y * 255).round().long().permute(0, 2, 3, 1).reshape(-1)
    with cast():
      alone, recursive = ours(2 * smaller(y) - 1), prior(y)
    alone = alone.float()
    optimiser.zero_grad(set_to_none=True)
    (loss(alone + recursive.float(), tokens) + loss(alone, tokens)).backward()
    optimiser.step()

  return step


def amap_step(keys: dict[str, Any], place: Place, cast: Callable[[], Any]) -> Step:
  """AffGAN: an update of the discriminator and one of the generator, whose output is projected."""
  g = place(generator(**keys["networks"]["generator"]))
  d = place(discriminator(keys["side"], **keys["networks"]["discriminator"]))
  optimisers = [torch.optim.Adam(net.parameters(), 1e-4, (0.5, 0.999)) for net in (g, d)]
  low = np.kron(np.eye(keys["side"] // FACTOR), np.ones((1, FACTOR)) / FACTOR)
  device = next(g.parameters()).device
  A, inverse = (torch.tensor(m, dtype=torch.float32, device=device) for m in (low, np.linalg.pinv(low)))

  def generate(x: Tensor) -> Tensor:
    with cast():
      y = g(x)
    y = y.float()
    return y + inverse @ (x - A @ y @ A.T) @ inverse.T

  def noisy(y: Tensor) -> Tensor:
    return y + 0.1 * torch.randn_like(y)

  def judge(y: Tensor) -> Tensor:
    with cast():
      return d(y).float()

  def step(y: Tensor) -> None:
    x = A @ y @ A.T
    with torch.no_grad():
      fake = generate(x)
    d.requires_grad_(True)
    optimisers[1].zero_grad(set_to_none=True)
    (F.softplus(-judge(noisy(y))) + F.softplus(judge(noisy(fake)))).mean().backward()
    optimisers[1].step()
    d.requires_grad_(False)
    optimisers[0].zero_grad(set_to_none=True)
    (-judge(noisy(generate(x))).mean()).backward()
    optimisers[0].step()

  return step


STEPS = {"srim": srim_step, "prsr": prsr_step, "amap": amap_step}


def seconds(step: Callable[[], None], wait: Callable[[], None], most: int) -> float:
  """As in accelerator.py, after more calls that warm up: cuDNN tries its algorithms in them."""
  for _ in range(3):
    step()
  wait()
  start = time.perf_counter()
  step()
  wait()
  count = min(most, max(1, int(0.5 / (time.perf_counter() - start))))
  times = []
  for _ in range(3):
    start = time.perf_counter()
    for _ in range(count):
      step()
    wait()
    times.append((time.perf_counter() - start) / count)
  return statistics.median(times)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("peers", metavar="JSON")
  parser.add_argument("--steps", type=int, default=20, help="timed calls of a step, at most")
  parser.add_argument("--compile", action="store_true", help="the networks by torch.compile")
  arguments = parser.parse_args()
  gpu = torch.cuda.is_available()
  device = torch.device("cuda" if gpu else "cpu")
  wait = torch.cuda.synchronize if gpu else lambda: None
  torch.backends.cudnn.benchmark = True

  def place(net: nn.Module) -> nn.Module:
    net = net.to(device, memory_format=torch.channels_last)
    return torch.compile(net) if arguments.compile else net

  for name, keys in json.loads(arguments.peers).items():
    rows = np.random.default_rng(0).integers(0, 256, (keys["batch"], 3, keys["side"], keys["side"]), np.uint8)
    images = torch.from_numpy(rows).to(device).contiguous(memory_format=torch.channels_last)
    for precision in ("float32", "tf32", "bfloat16") if gpu else ("float32", "bfloat16"):
      torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision != "float32"
      low = precision == "bfloat16"
      if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
      row: dict[str, Any] = {"peer": name, "precision": precision, "images": keys["batch"]}
      try:
        step = STEPS[name](
          keys, place, lambda low=low: torch.autocast(device.type, torch.bfloat16, enabled=low)
        )
        row["seconds"] = seconds(
          lambda step=step, images=images: step(images.float() / 255), wait, arguments.steps
        )
        row["gib"] = torch.cuda.max_memory_allocated() / 2**30 if gpu else 0.0
      except Exception as error:  # such as too little memory: the others go on
        row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
      print(json.dumps(row), flush=True)
      step = None


if __name__ == "__main__":
  main()
