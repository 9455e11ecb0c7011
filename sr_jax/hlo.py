"""What a compiled program costs one device, read from its HLO text: FLOPs, bytes of memory, collectives.

XLA's own count takes a loop's body once, and for a GPU there is none. Here a loop counts as often as it
turns, and a condition as its cheapest branch: a dear one (a selection, a first round) is no usual round.
FLOPs are those of convolutions and products, 2 a multiply-add, none on padding. Bytes are those of what goes
into and comes out of each operation or fusion, padded to the layout's tiles; what a TPU keeps on the chip
costs none.
"""

import math
import re
from collections import Counter
from functools import cache
from typing import NamedTuple

import numpy as np

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# Names of values that are there already.
ALIASES = ("bitcast", "get-tuple-element", "opt-barrier")
FREE = (*ALIASES, "parameter", "constant", "tuple", "after-all", "partition-id", "copy-start", "slice-start")
SLICES = ("slice", "dynamic-slice", "gather")
CALLS = ("call", "while", "conditional", "async-start")

_SHAPE = re.compile(r"(\w+)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_INSTRUCTION = re.compile(r"  (ROOT )?%([\w.\-]+) = (.*)")
_COMPUTATION = re.compile(r"(ENTRY )?%([\w.\-]+) \(.*\{$")
_CALLED = re.compile(
  r"(?:calls|body|condition|\w+_computation|to_apply|branch_computations)=(\{[^}]*\}|%[\w.\-]+)"
)


class Cost(NamedTuple):
  """Of one run of a program on one device.

  Attributes:
    flops: of convolutions and products.
    bytes: read from and written to the device's main memory.
    collectives: kind -> (how many, bytes of what is reduced or has been gathered).
  """

  flops: float
  bytes: float
  collectives: dict[str, tuple[int, int]]


class Shape(NamedTuple):
  """An array: its bytes, and those that it takes in the device's main memory."""

  dims: tuple[int, ...]
  bytes: int
  padded: int
  on_chip: bool

  @property
  def traffic(self) -> int:
    return 0 if self.on_chip else self.padded


class Instruction(NamedTuple):
  opcode: str
  shapes: list[Shape]  # one, or those of a tuple
  operands: list[str]
  rest: str  # attributes, and the number of a parameter

  def called(self) -> list[str]:
    return [name for part in _CALLED.findall(self.rest) for name in re.findall(r"%([\w.\-]+)", part)]

  def attribute(self, pattern: str) -> str:
    found = re.search(pattern, self.rest)
    return found[1] if found else ""


class Computation(NamedTuple):
  instructions: dict[str, Instruction]
  root: str

  def parameter(self, number: int) -> str:
    parameters = (name for name, one in self.instructions.items() if one.opcode == "parameter")
    return next(name for name in parameters if self.instructions[name].rest.startswith(f"({number})"))


def cost(text: str) -> Cost:
  """The cost of a compiled program, `compiled.as_text()`, on one of its devices."""
  computations, entry = _parse(text)
  total = _Counter(computations).computation(entry, fused=False)
  kinds = {k: (round(total[k, "count"]), round(total[k, "bytes"])) for k in COLLECTIVES if total[k, "count"]}
  return Cost(total["flops"], total["bytes"], kinds)


def _parse(text: str) -> tuple[dict[str, Computation], str]:
  computations: dict[str, Computation] = {}
  name = entry = ""
  for line in text.splitlines():
    if found := _COMPUTATION.match(line):
      name = found[2]
      entry = name if found[1] else entry
      computations[name] = Computation({}, "")
    elif name and (found := _INSTRUCTION.match(line)):
      computations[name].instructions[found[2]] = _instruction(found[3])
      if found[1]:
        computations[name] = computations[name]._replace(root=found[2])
  return computations, entry


def _instruction(text: str) -> Instruction:
  """SHAPE OPCODE(OPERANDS), ATTRIBUTES"""
  end = _closing(text, 0) if text.startswith("(") else text.index(" ")
  start = text.index("(", end)
  last = _closing(text, start)
  inside = text[start:last]
  return Instruction(
    text[end:start].strip(),
    [_shape(*found) for found in _SHAPE.findall(text[:end])],
    re.findall(r"%([\w.\-]+)", inside),
    inside + text[last:],
  )


def _closing(text: str, start: int) -> int:
  depth = 0
  for found in re.compile(r"[()]").finditer(text, start):
    depth += 1 if found[0] == "(" else -1
    if not depth:
      return found.end()
  raise ValueError(f"no closing bracket in {text[:80]!r}")


def _shape(kind: str, dims: str, layout: str, memory: str) -> Shape:
  sizes = [int(d) for d in dims.split(",") if d]
  bits = 8 if kind == "pred" else int("0" + re.sub(r"\D.*", "", kind.lstrip("bcfsu")))
  padded = sizes.copy()
  if tile := re.search(r"T\(([\d,]+)\)", memory):
    # The layout names the axes from the one that changes fastest; the tile's last number is of that axis.
    for axis, side in zip(layout.split(","), reversed(tile[1].split(",")), strict=False):
      if axis:
        padded[int(axis)] = -(-sizes[int(axis)] // int(side)) * int(side)
  return Shape(
    tuple(sizes),
    math.prod(sizes) * bits // 8,
    math.prod(padded) * bits // 8,
    bool(re.search(r"S\(\d", memory)),
  )


class _Counter:
  def __init__(self, computations: dict[str, Computation]) -> None:
    self.computations = computations
    self.computation = cache(self._computation)

  def _computation(self, name: str, fused: bool) -> Counter:
    total: Counter = Counter()
    for instruction in self.computations[name].instructions.values():
      total += self._instruction(self.computations[name], instruction, fused)
    return total

  def _instruction(self, within: Computation, one: Instruction, fused: bool) -> Counter:
    opcode = one.opcode
    total: Counter = Counter()
    kind = opcode.removesuffix("-start")
    operands = [shape for name in one.operands for shape in within.instructions[name].shapes]
    if opcode == "conditional":
      branches = [self.computation(name, fused) for name in one.called()]
      return min(branches, key=lambda branch: (branch["flops"], branch["bytes"]))
    if opcode in CALLS:
      turns = self._turns(one) if opcode == "while" else 1
      for name in one.called():
        total += Counter({key: turns * value for key, value in self.computation(name, fused).items()})
      return total
    if opcode == "fusion":
      total += self.computation(one.called()[0], fused=True)
    if kind in COLLECTIVES:
      given, made = (sum(shape.bytes for shape in shapes) for shapes in (operands, one.shapes))
      made -= given if kind != opcode and made > given else 0  # what starts returns its operands too
      total += Counter({(kind, "count"): 1, (kind, "bytes"): max(given, made)})
    total += Counter({"flops": _flops(one, operands), "bytes": 0 if fused else self._traffic(within, one)})
    return total

  def _turns(self, loop: Instruction) -> int:
    """How often a loop turns: as compilers note; a TPU's does not, there it is the bound of its condition.

    A loop that ends by what it computes counts as one turn.
    """
    if noted := loop.attribute(r'"known_trip_count":\{"n":"(\d+)"\}'):
      return int(noted)
    condition = self.computations[loop.attribute(r"condition=%([\w.\-]+)")]
    test = condition.instructions[condition.root]
    bounds = [condition.instructions[name] for name in test.operands]
    known = [int(one.rest[1:-1]) for one in bounds if one.opcode == "constant"]
    return known[0] if known and "direction=LT" in test.rest else 1

  def _traffic(self, within: Computation, one: Instruction) -> int:
    """Bytes of main memory that an operation reads and writes."""
    if one.opcode in ("copy-done", "slice-done"):  # one of its two ends is on the chip
      return one.shapes[0].padded
    if one.opcode in FREE or one.opcode.endswith("-done"):
      return 0
    read = sum(self._read(within, one, i) for i in range(len(one.operands)))
    return read + self._written(within, one)

  def _read(self, within: Computation, one: Instruction, number: int) -> int:
    """Bytes that an operation reads of its operand of that number."""
    whole = sum(shape.traffic for shape in within.instructions[one.operands[number]].shapes)
    if number == 0 and one.opcode in SLICES:
      return min(whole, one.shapes[0].padded)
    if number == 0 and one.opcode == "dynamic-update-slice":
      return 0
    if one.opcode == "fusion":
      inner = self.computations[one.called()[0]]
      return min(whole, self._read_within(inner, inner.parameter(number)))
    return whole

  def _read_within(self, inner: Computation, name: str) -> int:
    total = 0
    for user, one in inner.instructions.items():
      for number in (i for i, operand in enumerate(one.operands) if operand == name):
        total += self._read_within(inner, user) if one.opcode in ALIASES else self._read(inner, one, number)
    return total

  def _written(self, within: Computation, one: Instruction) -> int:
    """Bytes that an operation writes: of an update in place, those of the update."""
    if one.opcode in ALIASES:
      return self._written(within, within.instructions[one.operands[0]])
    if one.opcode == "dynamic-update-slice":
      return min(one.shapes[0].traffic, within.instructions[one.operands[1]].shapes[0].padded)
    if one.opcode == "tuple":
      return sum(self._written(within, within.instructions[name]) for name in one.operands)
    whole = sum(shape.traffic for shape in one.shapes)
    if one.opcode == "fusion":
      inner = self.computations[one.called()[0]]
      return min(whole, self._written(inner, inner.instructions[inner.root]))
    return whole


def _flops(one: Instruction, operands: list[Shape]) -> float:
  target = one.attribute(r'custom_call_target="([^"]*)"')
  if one.opcode == "convolution" or target.startswith("__cudnn$conv"):
    # The forward convolution's input, kernel and output, whichever of them the operation computes.
    if "BackwardFilter" in target:
      image, kernel, output = operands[0], one.shapes[0], operands[1]
    elif "BackwardInput" in target:
      image, kernel, output = one.shapes[0], operands[1], operands[0]
    else:
      image, kernel, output = operands[0], operands[1], one.shapes[0]
    return 2.0 * _multiply_adds(one, image, kernel, output)
  if one.opcode == "dot":
    contracted = one.attribute(r"lhs_contracting_dims=\{([\d,]*)\}")
  elif target.startswith("__cublas"):
    contracted = one.attribute(r'"lhs_contracting_dimensions":\[([^\]]*)\]').replace('"', "")
  else:
    return 0.0
  each = math.prod(operands[0].dims[int(i)] for i in contracted.split(",") if i)
  return 2.0 * math.prod(one.shapes[0].dims) * each


def _multiply_adds(one: Instruction, image: Shape, kernel: Shape, output: Shape) -> float:
  """Those of a convolution that meet neither padding nor the zeros of a dilation."""
  labels = re.split(r"_|->", one.attribute(r"dim_labels=([\w\->]+)"))
  window = dict(re.findall(r"(\w+)=([\w\-]+)", one.attribute(r"window=\{([^}]*)\}")))
  total = output.dims[labels[2].index("b")] * output.dims[labels[2].index("f")]
  total *= kernel.dims[labels[1].index("i")]
  for axis in range(len(labels[1]) - 2):
    size = image.dims[labels[0].index(str(axis))]
    sides = kernel.dims[labels[1].index(str(axis))]
    count = output.dims[labels[2].index(str(axis))]

    def number(key: str, default: int, axis: int = axis) -> int:
      return int(window[key].split("x")[axis].split("_")[0]) if key in window else default

    dilation = number("lhs_dilate", 1)
    places = np.arange(count)[:, None] * number("stride", 1) - number("pad", 0)
    places = places + np.arange(sides) * number("rhs_dilate", 1)
    total *= int(((places % dilation == 0) & (places >= 0) & (places <= (size - 1) * dilation)).sum())
  return float(total)
