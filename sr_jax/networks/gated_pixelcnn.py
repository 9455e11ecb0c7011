"""The gated PixelCNN as a prior over images of discrete values, and the drawing of images from it.

Source: van den Oord et al., Conditional image generation with PixelCNN decoders, 2016, sized as in Table 2 of
Pixel Recursive Super Resolution (Dahl et al., 2017). Two stacks without a blind spot: "above" sees the rows
above, "left" the row itself up to the sub-pixel, and takes what "above" found at every layer.
"""

import itertools
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax.errors import UserError
from sr_jax.networks.conditioning import Conditioning
from sr_jax.networks.layers import recomputed
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
    channels: C, colours of an image; units are divided among them.
    width: feature maps of each stack.
    layers: gated layers after the first convolution.
    kernel, first_kernel: their odd sides, of which the causal part exists.
    head: units of the 1x1 layer before the logits.
    stddev: of the initial weights, see `initial`.
    levels: values a sub-pixel can take.
  """

  channels: int
  dtype: jnp.dtype
  width: int
  layers: int
  kernel: int
  first_kernel: int
  head: int
  stddev: float
  levels: int = 256

  def __post_init__(self) -> None:
    if min(self.width, self.head) < self.channels:
      raise UserError(
        f"config.networks.generator.prior has width {self.width} and head {self.head}, but each colour needs "
        f"a unit of its own: make both {self.channels} or more."
      )
    if min(self.kernel, self.first_kernel) < 3:
      raise UserError(
        f"config.networks.generator.prior has kernel {self.kernel} and first_kernel {self.first_kernel}: "
        "make both odd and 3 or more."
      )
    if self.layers < 1 or self.levels < 2:
      raise UserError(
        f"The prior has {self.layers} layers and {self.levels} levels: give one layer and two levels or more."
      )
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
    # The rows above alone: of the image moved down by one.
    moved = jnp.pad(y, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
    above = self._above("first_above", F, self.first_kernel // 2, self.first_kernel)(moved)
    left = above + self._masked("first_left", F, self.first_kernel, first=True)(y)

    def layer(i: int, above: Array, left: Array) -> tuple[Array, Array]:
      pre = self._above(f"above_{i}", 2 * F, self.kernel // 2 + 1, self.kernel)(above)
      link = nn.Dense(2 * F, dtype=self.dtype, kernel_init=initial(self.stddev), name=f"link_{i}")(pre)
      hidden = gate(link + self._masked(f"left_{i}", 2 * F, self.kernel, parts=2)(left))
      return gate(pre), left + self._masked(f"mix_{i}", F, 1)(hidden)

    for i in range(self.layers):
      above, left = recomputed(self, partial(layer, i), above, left)
    hidden = nn.relu(self._masked("head", self.head, 1)(nn.relu(left)))
    logits = self._masked("logits", self.channels * self.levels, 1)(hidden)
    return logits.reshape(*y.shape, self.levels).astype(jnp.float32)


class PixelRecursive(NamedTuple):
  """The two networks of Pixel Recursive Super Resolution, whose logits are added (Eq. 6).

  Attributes:
    conditioning: A(x).
    prior: B(y).
  """

  conditioning: Conditioning
  prior: GatedPixelCNN


def make_pixel_recursive(
  factor: tuple[int, int],
  channels: int,
  dtype: jnp.dtype,
  conditioning: dict[str, Any],
  prior: dict[str, Any],
) -> PixelRecursive:
  """Both networks by their keys (`configs/papers/pixel_recursive.py`)."""
  return PixelRecursive(
    Conditioning(factor, channels, dtype, **conditioning), GatedPixelCNN(channels, dtype, **prior)
  )


class _Slices(NamedTuple):
  """The weights of a prior as `draw_cached` uses them, sliced once, outside its loops.

  As soon as a row or a unit is known, one matrix product gives its contributions to all later outputs. Lists
  are by layer, and lists of lists by layer and colour. F is the width, C the colours, n the near pixels or
  rows.

  Attributes:
    first_above: [rows, columns, C, F], and its bias [F].
    first_left: [near + 1, C, F], the pixel itself last.
    down: from a row to its own row and the n next ones, [columns * F, (n + 1) * 2F].
    above_bias: [2F].
    link, link_bias: [2F, 2F] and [2F], outputs by colour.
    left: from a colour's units to those of this and later colours of the pixel, and then to all units of the
      n next pixels, [units, ... + n * 2F].
    mix, head, logits: from a colour's units to those of this and later colours.
    mix_bias, head_bias, logits_bias: whole.
  """

  first_above: tuple[Array, Array]
  first_left: Array
  down: list[Array]
  above_bias: list[Array]
  link: list[Array]
  link_bias: list[Array]
  left: list[list[Array]]
  mix: list[list[Array]]
  mix_bias: list[Array]
  head: list[Array]
  head_bias: Array
  logits: list[Array]
  logits_bias: Array


def _slice(net: GatedPixelCNN, params: Any) -> _Slices:
  F, C, near = net.width, net.channels, net.kernel // 2
  weights = jax.tree.map(lambda leaf: leaf.astype(net.dtype), params)

  def masked(name: str, kernel: int, inputs: int, outputs: int, parts: int = 1, first: bool = False) -> Array:
    """The masked weights [kernel // 2 + 1, in, out] of what lies to the left, and of the pixel itself."""
    mask = causal_mask((1, kernel), inputs, outputs, C, first, parts)
    return (weights[name]["kernel"] * mask.astype(net.dtype))[0]

  own, own_gate, own_top, own_logits = _colour_slices(net)
  # A gate's two halves side by side for each colour, so that these units too are contiguous.
  order = np.concatenate([np.r_[s, F + s.start : F + s.stop] for s in own])

  def later(matrix: Array, rows: list[slice], columns: list[slice]) -> list[Array]:
    """From the units of each colour to those of this and all later ones."""
    return [matrix[rows[g], columns[g].start :] for g in range(C)]

  def left(i: int) -> list[Array]:
    taps = masked(f"left_{i}", net.kernel, F, 2 * F, parts=2)[..., order]
    here = later(taps[near], own, own_gate)
    return [jnp.concatenate([here[g], *taps[:near, own[g]][::-1]], axis=1) for g in range(C)]

  def down(i: int) -> Array:
    kernel = weights[f"above_{i}"]["kernel"][::-1]  # own row first
    return kernel.transpose(1, 2, 0, 3).reshape(net.kernel * F, -1)

  layers = range(net.layers)
  return _Slices(
    first_above=(weights["first_above"]["kernel"], weights["first_above"]["bias"]),
    first_left=masked("first_left", net.first_kernel, C, F, first=True),
    down=[down(i) for i in layers],
    above_bias=[weights[f"above_{i}"]["bias"] for i in layers],
    link=[weights[f"link_{i}"]["kernel"][:, order] for i in layers],
    link_bias=[weights[f"link_{i}"]["bias"][order] for i in layers],
    left=[left(i) for i in layers],
    mix=[later(masked(f"mix_{i}", 1, F, F)[0], own, own) for i in layers],
    mix_bias=[weights[f"mix_{i}"]["bias"] for i in layers],
    head=later(masked("head", 1, F, net.head)[0], own, own_top),
    head_bias=weights["head"]["bias"],
    logits=later(masked("logits", 1, net.head, C * net.levels)[0], own_top, own_logits),
    logits_bias=weights["logits"]["bias"],
  )


def draw_cached(net: GatedPixelCNN, params: Any, shape: tuple[int, ...], rows: Rows, pick: Pick) -> Array:
  """An image, chosen sub-pixel by sub-pixel from the prior's logits; each activation is computed once.

  A row of the "above" stack needs complete rows only and is computed at once. The "left" stack goes from
  sub-pixel to sub-pixel, and computes of every layer the units of one colour.

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
  w = _slice(net, params)
  own, own_gate, own_top, own_logits = _colour_slices(net)

  def arriving(sent: list[Array], columns: list[slice]) -> Array:
    """The sum of the contributions of the colours so far, one product each, to the newest colour's units."""
    here = columns[len(sent) - 1]
    starts = [here.start - columns[g].start for g in range(len(sent))]
    return reduce(jnp.add, [v[:, a : a + here.stop - here.start] for v, a in zip(sent, starts, strict=True)])

  def pixel(carry: tuple[Array, list[Array]], xs: tuple[Array, Array, Any]) -> tuple[Any, Any]:
    """carry: the last pixels of the image [B, near_first, C], and for each layer the sums of earlier pixels'
    contributions to this pixel and the next ones, [B, near, 2F]."""
    seen, coming = carry
    start, link, given = xs  # [B, F], [L, B, 2F], tree of [B, C, ...]
    start = start + seen.reshape(batch, -1) @ w.first_left[:near_first].reshape(-1, F)
    tokens: list[Array] = []
    values: list[Array] = []
    # Each colour's contributions, by layer.
    to_gate: list[list[Array]] = [[] for _ in range(L)]
    to_next: list[list[Array]] = [[] for _ in range(L)]
    to_top: list[Array] = []
    to_logits: list[Array] = []
    for g in range(channels):
      h = start[:, own[g]]
      if g:
        h = h + jnp.stack(values, axis=-1) @ w.first_left[near_first][:g, own[g]]
      for i in range(L):
        to_gate[i].append(h @ w.left[i][g])
        context = (link[i] + coming[i][:, 0])[:, own_gate[g]]
        to_next[i].append(gate(context + arriving(to_gate[i], own_gate)) @ w.mix[i][g])
        h = h + w.mix_bias[i][own[g]] + arriving(to_next[i], own)
      to_top.append(nn.relu(h) @ w.head[g])
      to_logits.append(nn.relu(w.head_bias[own_top[g]] + arriving(to_top, own_top)) @ w.logits[g])
      logits = w.logits_bias[own_logits[g]] + arriving(to_logits, own_logits)
      tokens.append(pick(logits.astype(jnp.float32), jax.tree.map(lambda v, g=g: v[:, g], given)))
      values.append((2 * to_value(tokens[g], K) - 1).astype(dtype))
    here = jnp.stack(values, axis=-1)
    seen = jnp.concatenate([seen[:, 1:], here[:, None]], axis=1)
    further = [reduce(jnp.add, [v[:, -near * 2 * F :] for v in sent]) for sent in to_gate]
    coming = [_onward(c, f.reshape(batch, near, 2 * F), axis=1) for c, f in zip(coming, further, strict=True)]
    return (seen, coming), (jnp.stack(tokens, axis=-1), here)

  def beside(row: Array, columns: int) -> Array:
    """A row [B, W, F] -> [B, W, columns * F], what lies around each pixel."""
    side = columns // 2
    padded = jnp.pad(row, ((0, 0), (side, side), (0, 0)))
    return jnp.concatenate([padded[:, x : x + width] for x in range(columns)], axis=-1)

  def row(carry: tuple[Array, list[Array]], r: Array) -> tuple[Any, Array]:
    """carry: the last rows of the image [B, near_first, W, C], and for each layer the sums of earlier rows'
    contributions to this row and the next ones, [B, W, near, 2F]."""
    image, coming = carry
    kernel, above = w.first_above
    for y in range(near_first):
      above = above + beside(image[:, y], net.first_kernel) @ kernel[y].reshape(-1, F)
    start, links, kept = above, [], []
    for i in range(L):
      sent = (beside(above, net.kernel) @ w.down[i]).reshape(batch, width, near + 1, 2 * F)
      pre = sent[:, :, 0] + coming[i][:, :, 0] + w.above_bias[i]
      kept.append(_onward(coming[i], sent[:, :, 1:], axis=2))
      links.append(pre @ w.link[i] + w.link_bias[i])
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
    return (jnp.concatenate([image[:, 1:], here[:, None]], axis=1), kept), tokens

  # Lists instead of stacked arrays, which each step would copy whole.
  empty = (
    jnp.zeros((batch, near_first, width, channels), dtype),
    [jnp.zeros((batch, width, near, 2 * F), dtype) for _ in range(L)],
  )
  return jax.lax.scan(row, empty, jnp.arange(height))[1].swapaxes(0, 1)


def _onward(coming: Array, sent: Array, axis: int) -> Array:
  """The sums for later positions once the first has been used: the others move up, and `sent` is added."""
  first, rest = jnp.split(coming, [1], axis=axis)
  return sent + jnp.concatenate([rest, jnp.zeros_like(first)], axis=axis)


def _colour_slices(net: GatedPixelCNN) -> tuple[list[slice], list[slice], list[slice], list[slice]]:
  """The units of each colour: in a layer, before its gate, in the head and among the logits."""

  def by_colour(units: int) -> list[slice]:
    ends = np.cumsum(np.bincount(colour_group(units, net.channels))).tolist()
    return [slice(a, b) for a, b in itertools.pairwise([0, *ends])]

  own = by_colour(net.width)
  return (
    own,
    [slice(2 * s.start, 2 * s.stop) for s in own],
    by_colour(net.head),
    by_colour(net.channels * net.levels),
  )
