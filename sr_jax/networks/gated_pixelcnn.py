"""The gated PixelCNN as a prior over pictures of discrete values, and the drawing of pictures from it.

Source: van den Oord et al., Conditional image generation with PixelCNN decoders, 2016, sized as in Table 2 of
Pixel Recursive Super Resolution (Dahl et al., 2017). Two stacks without a blind spot: "above" sees the rows
above, "left" the row itself up to the sub-pixel, and takes what "above" found at every layer.
"""

import itertools
import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax.errors import UserError
from sr_jax.networks.pixelcnn import MaskedConv, causal_mask, colour_group, initial

Array = jax.Array
# Row number -> whatever `Pick` needs besides the prior's logits: arrays [B, W, C, ...] of that row.
Rows = Callable[[Array], Any]
# Logits [B, levels] and a sub-pixel's part [B, ...] of its row -> tokens [B].
Pick = Callable[[Array, Any], Array]


def gate(pre: Array) -> Array:
  """tanh(first half) * sigmoid(second half) of the last axis."""
  a, b = jnp.split(pre, 2, axis=-1)
  return jnp.tanh(a) * nn.sigmoid(b)


def to_value(tokens: Array, levels: int) -> Array:
  """Tokens 0 to levels - 1 -> float32 in [0, 1]."""
  return tokens.astype(jnp.float32) / (levels - 1)


class GatedPixelCNN(nn.Module):
  """Logits B_j(y_<j) of each sub-pixel's value given all before it, in raster order and R before G before B.

  Attributes:
    channels: C, colours of a picture; units are divided among them.
    width: feature maps of each stack.
    layers: gated layers after the first convolution.
    kernel, first_kernel: their odd sides, of which the causal part exists.
    head: units of the 1x1 layer before the logits.
    levels: values a sub-pixel can take.
    stddev: of the initial weights, see `initial`.
  """

  channels: int
  dtype: jnp.dtype
  width: int = 64
  layers: int = 20
  kernel: int = 5
  first_kernel: int = 7
  head: int = 1024
  levels: int = 256
  stddev: float = 0.1

  def __post_init__(self) -> None:
    if min(self.width, self.head) < self.channels:
      raise UserError(
        f"config.method.prior has width {self.width} and head {self.head}: each colour needs its own unit."
      )
    if min(self.kernel, self.first_kernel) < 3:
      raise UserError("config.method.prior.kernel and first_kernel must be odd and 3 or more.")
    if self.layers < 1 or self.levels < 2:
      raise UserError("config.method.prior needs one layer and two levels or more.")
    super().__post_init__()

  def _masked(self, name: str, features: int, kernel: int, parts: int = 1, first: bool = False) -> MaskedConv:
    return MaskedConv(
      features,
      (1, kernel),
      self.channels,
      first,
      self.dtype,
      use_bias=kernel == 1,  # what comes from above has it
      parts=parts,
      stddev=self.stddev,
      name=name,
    )

  def _above(self, name: str, features: int, rows: int, kernel: int) -> nn.Conv:
    """Sees `rows` rows, the last of them at its own height."""
    start = initial(self.stddev)
    padding = ((rows - 1, 0), (kernel // 2, kernel // 2))
    return nn.Conv(features, (rows, kernel), padding=padding, dtype=self.dtype, kernel_init=start, name=name)

  @nn.compact
  def __call__(self, y: Array) -> Array:
    """y [B, H, W, C] in [0, 1] -> logits [B, H, W, C, levels], float32."""
    F = self.width
    y = (2 * y - 1).astype(self.dtype)
    # The rows above alone: of the picture moved down by one.
    moved = jnp.pad(y, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
    above = self._above("first_above", F, self.first_kernel // 2, self.first_kernel)(moved)
    left = above + self._masked("first_left", F, self.first_kernel, first=True)(y)
    for i in range(self.layers):
      pre = self._above(f"above_{i}", 2 * F, self.kernel // 2 + 1, self.kernel)(above)
      above = gate(pre)
      link = nn.Dense(2 * F, dtype=self.dtype, kernel_init=initial(self.stddev), name=f"link_{i}")(pre)
      hidden = gate(link + self._masked(f"left_{i}", 2 * F, self.kernel, parts=2)(left))
      left = left + self._masked(f"mix_{i}", F, 1)(hidden)
    hidden = nn.relu(self._masked("head", self.head, 1)(nn.relu(left)))
    logits = self._masked("logits", self.channels * self.levels, 1)(hidden)
    return logits.reshape(*y.shape, self.levels).astype(jnp.float32)


def draw_naive(net: GatedPixelCNN, params: Any, shape: tuple[int, ...], rows: Rows, pick: Pick) -> Array:
  """As `draw_cached`, by a pass over the whole picture for every sub-pixel: the oracle."""
  _, _, width, channels = shape

  def one(t: Array, tokens: Array) -> Array:
    r, c, g = t // (width * channels), t // channels % width, t % channels
    logits = jnp.asarray(net.apply({"params": params}, to_value(tokens, net.levels)))
    chosen = pick(logits[:, r, c, g], jax.tree.map(lambda v: v[:, c, g], rows(r)))
    return tokens.at[:, r, c, g].set(chosen)

  return jax.lax.fori_loop(0, math.prod(shape[1:]), one, jnp.zeros(shape, jnp.int32))


def draw_cached(net: GatedPixelCNN, params: Any, shape: tuple[int, ...], rows: Rows, pick: Pick) -> Array:
  """A picture, chosen sub-pixel by sub-pixel from the prior's logits; each activation is computed once.

  A row of the "above" stack needs complete rows only and is computed at once, from the last rows of every
  layer's input. The "left" stack goes from sub-pixel to sub-pixel: of every layer it computes the units of
  one colour, from the layer's last few pixels.

  Args:
    net, params: the prior.
    shape: (B, H, W, C), any H and W.
    rows, pick: conditioning logits, noise, and what to do with them.

  Returns:
    Tokens [B, H, W, C], 0 to levels - 1.
  """
  batch, height, width, channels = shape
  F, L, K, dtype = net.width, net.layers, net.levels, net.dtype
  near, near_first = net.kernel // 2, net.first_kernel // 2  # pixels seen on one side
  weights = jax.tree.map(lambda leaf: leaf.astype(dtype), params)

  def masked(name: str, kernel: int, inputs: int, outputs: int, parts: int = 1, first: bool = False) -> Array:
    """The masked weights [kernel // 2 + 1, in, out] of what lies to the left, and of the pixel itself."""
    return (weights[name]["kernel"] * causal_mask((1, kernel), inputs, outputs, channels, first, parts))[0]

  own, own_top = _groups(F, channels), _groups(net.head, channels)
  own_logits = _groups(channels * K, channels)
  # A gate's two halves side by side for each colour, so that these units too are contiguous.
  order = np.concatenate([np.r_[own[g], F + own[g].start : F + own[g].stop] for g in range(channels)])
  own_gate = [slice(2 * s.start, 2 * s.stop) for s in own]

  link_kernels = [weights[f"link_{i}"]["kernel"][:, order] for i in range(L)]
  link_biases = [weights[f"link_{i}"]["bias"][order] for i in range(L)]

  def cut(matrix: Array, rows: list[slice], columns: list[slice]) -> list[Array]:
    """From the units of each colour to those of this and all later ones; outside the loops."""
    return [matrix[rows[g], columns[g].start :] for g in range(channels)]

  first_left = masked("first_left", net.first_kernel, channels, F, first=True)
  left = [masked(f"left_{i}", net.kernel, F, 2 * F, parts=2)[..., order] for i in range(L)]
  # A pixel's units matter to itself and to the next `near` ones: what they send to each is found at once.
  lefts = [
    [
      jnp.concatenate([here, *w[:near, own[g]][::-1]], axis=1)
      for g, here in enumerate(cut(w[near], own, own_gate))
    ]
    for w in left
  ]
  mixes = [cut(masked(f"mix_{i}", 1, F, F)[0], own, own) for i in range(L)]
  heads = cut(masked("head", 1, F, net.head)[0], own, own_top)
  lasts = cut(masked("logits", 1, net.head, channels * K)[0], own_top, own_logits)

  def arriving(parts: list[Array], columns: list[slice]) -> Array:
    """The sum of what the colours so far, one product each, send to the units of the newest."""
    here = columns[len(parts) - 1]
    starts = [here.start - columns[g].start for g in range(len(parts))]
    width_here = here.stop - here.start
    return reduce(jnp.add, [p[:, a : a + width_here] for p, a in zip(parts, starts, strict=True)])

  # A row of a layer's input matters to `heights` rows of its output: what it sends to each is found at once.
  heights = net.kernel // 2 + 1
  downs = [weights[f"above_{i}"]["kernel"][::-1] for i in range(L)]  # own row first
  downs = [k.transpose(1, 2, 0, 3).reshape(net.kernel * F, heights * 2 * F) for k in downs]

  def beside(row: Array, columns: int) -> Array:
    """A row [B, W, F] -> [B, W, columns * F], what lies around each pixel."""
    side = columns // 2
    padded = jnp.pad(row, ((0, 0), (side, side), (0, 0)))
    return jnp.concatenate([padded[:, x : x + width] for x in range(columns)], axis=-1)

  def pixel(carry: tuple[Array, list[Array]], xs: tuple[Array, Array, Any]) -> tuple[Any, Any]:
    """carry: the last pixels of the picture [B, near_first, C], and what earlier pixels of each layer's input
    send to this pixel and the next ones, [B, near, 2F]."""
    seen, coming = carry
    start, link, given = xs  # [B, F], [L, B, 2F], tree of [B, C, ...]
    start = start + seen.reshape(batch, -1) @ first_left[:near_first].reshape(-1, F)
    tokens: list[Array] = []
    values: list[Array] = []
    # What each colour's units send on, by layer.
    to_gate: list[list[Array]] = [[] for _ in range(L)]
    to_next: list[list[Array]] = [[] for _ in range(L)]
    to_top: list[Array] = []
    to_logits: list[Array] = []
    for g in range(channels):
      h = start[:, own[g]]
      if g:
        h = h + jnp.stack(values, axis=-1) @ first_left[near_first][:g, own[g]]
      for i in range(L):
        to_gate[i].append(h @ lefts[i][g])
        context = (link[i] + coming[i][:, 0])[:, own_gate[g]]
        hidden = gate(context + arriving(to_gate[i], own_gate))
        to_next[i].append(hidden @ mixes[i][g])
        h = h + weights[f"mix_{i}"]["bias"][own[g]] + arriving(to_next[i], own)
      to_top.append(nn.relu(h) @ heads[g])
      top = nn.relu(weights["head"]["bias"][own_top[g]] + arriving(to_top, own_top))
      to_logits.append(top @ lasts[g])
      logits = weights["logits"]["bias"][own_logits[g]] + arriving(to_logits, own_logits)
      part = jax.tree.map(lambda v, g=g: v[:, g], given)
      tokens.append(pick(logits.astype(jnp.float32), part))
      values.append((2 * to_value(tokens[g], K) - 1).astype(dtype))
    here = jnp.stack(values, axis=-1)
    later = [
      reduce(jnp.add, [part[:, -near * 2 * F :] for part in parts]).reshape(batch, near, 2 * F)
      for parts in to_gate
    ]
    coming = [
      jnp.concatenate([c[:, 1:] + new[:, :-1], new[:, -1:]], axis=1)
      for c, new in zip(coming, later, strict=True)
    ]
    return (jnp.concatenate([seen[:, 1:], here[:, None]], axis=1), coming), (jnp.stack(tokens, axis=-1), here)

  def row(carry: tuple[Array, list[Array]], r: Array) -> tuple[Any, Array]:
    """carry: the last rows of the picture [B, near_first, W, C], and what earlier rows of each layer's input
    send to this row and the next ones, [B, W, heights - 1, 2F]."""
    picture, coming = carry
    above = weights["first_above"]["bias"] + sum(
      beside(picture[:, y], net.first_kernel) @ weights["first_above"]["kernel"][y].reshape(-1, F)
      for y in range(near_first)
    )
    start, links, kept = above, [], []
    for i in range(L):
      sent = (beside(above, net.kernel) @ downs[i]).reshape(batch, width, heights, 2 * F)
      sums = sent[:, :, :-1] + coming[i]
      kept.append(jnp.concatenate([sums[:, :, 1:], sent[:, :, -1:]], axis=2))
      pre = sums[:, :, 0] + weights[f"above_{i}"]["bias"]
      links.append(pre @ link_kernels[i] + link_biases[i])
      above = gate(pre)
    empty = (
      jnp.zeros((batch, near_first, channels), dtype),
      [jnp.zeros((batch, near, 2 * F), dtype) for _ in range(L)],
    )
    xs = (
      start.swapaxes(0, 1),
      jnp.stack(links).transpose(2, 0, 1, 3),
      jax.tree.map(lambda v: v.swapaxes(0, 1), rows(r)),
    )
    tokens, here = (v.swapaxes(0, 1) for v in jax.lax.scan(pixel, empty, xs)[1])
    return (jnp.concatenate([picture[:, 1:], here[:, None]], axis=1), kept), tokens

  empty = (
    jnp.zeros((batch, near_first, width, channels), dtype),
    [jnp.zeros((batch, width, heights - 1, 2 * F), dtype) for _ in range(L)],
  )
  return jax.lax.scan(row, empty, jnp.arange(height))[1].swapaxes(0, 1)


def _groups(units: int, channels: int) -> list[slice]:
  """The places of the units of each colour."""
  ends = np.cumsum(np.bincount(colour_group(units, channels))).tolist()
  return [slice(a, b) for a, b in itertools.pairwise([0, *ends])]
