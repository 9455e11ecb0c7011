"""The gated PixelCNN as a prior over pictures of discrete values, and the drawing of pictures from it.

Source: van den Oord et al., Conditional image generation with PixelCNN decoders, 2016, sized as in Table 2 of
Pixel Recursive Super Resolution (Dahl et al., 2017). Two stacks without a blind spot: "above" sees the rows
above, "left" the row itself up to the sub-pixel, and takes what "above" found at every layer.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax.errors import UserError
from sr_jax.networks.pixelcnn import MaskedConv, causal_mask, colour_group, initial

Array = jax.Array
# Row number -> what is added to the prior's logits in that row, [B, W, C, levels].
Bias = Callable[[Array], Array]


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
    stddev: of the initial weights, truncated normal; 0: LeCun's variance.
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


def draw_naive(net: GatedPixelCNN, params: Any, shape: tuple[int, ...], bias: Bias) -> Array:
  """As `draw_cached`, by a pass over the whole picture for every sub-pixel: the oracle."""
  _, _, width, channels = shape

  def one(t: Array, tokens: Array) -> Array:
    r, c, g = t // (width * channels), t // channels % width, t % channels
    prior = jnp.asarray(net.apply({"params": params}, to_value(tokens, net.levels)))
    logits = prior[:, r] + bias(r)
    return tokens.at[:, r, c, g].set(jnp.argmax(logits[:, c, g], axis=-1))

  return jax.lax.fori_loop(0, math.prod(shape[1:]), one, jnp.zeros(shape, jnp.int32))


def draw_cached(net: GatedPixelCNN, params: Any, shape: tuple[int, ...], bias: Bias) -> Array:
  """A picture whose every sub-pixel is argmax(prior logits + bias), in order; each activation computed once.

  A row of the "above" stack needs complete rows only and is computed at once, from the last rows of every
  layer's input. The "left" stack goes from sub-pixel to sub-pixel: of every layer it computes the units of
  one colour, from the layer's last few pixels.

  Args:
    net, params: the prior.
    shape: (B, H, W, C), any H and W.
    bias: conditioning logits and noise.

  Returns:
    Tokens [B, H, W, C], 0 to levels - 1.
  """
  batch, height, width, channels = shape
  F, L, K, dtype = net.width, net.layers, net.levels, net.dtype
  near, near_first = net.kernel // 2, net.first_kernel // 2  # pixels seen on one side
  weights = jax.tree.map(lambda leaf: leaf.astype(dtype), params)

  def masked(name: str, kernel: int, inputs: int, outputs: int, parts: int = 1, first: bool = False) -> Array:
    """The masked weights [kernel // 2 + 1, in, out] of what lies to the left, and of the pixel itself."""
    mask = causal_mask((1, kernel), inputs, outputs, channels, first, parts)
    return (weights[name]["kernel"] * mask)[0, : kernel // 2 + 1]

  # The units of colour g are own[g], those of all colours up to g are upto[g]; tops are the head's.
  (own, upto), (own_top, upto_top) = _groups(F, channels), _groups(net.head, channels)
  # A gate's two halves side by side for each colour, so that these units too are contiguous.
  order = np.concatenate([np.r_[own[g], F + own[g].start : F + own[g].stop] for g in range(channels)])
  pre_of = [slice(2 * s.start, 2 * s.stop) for s in own]

  first_left = masked("first_left", net.first_kernel, channels, F, first=True)
  left = [masked(f"left_{i}", net.kernel, F, 2 * F, parts=2)[..., order] for i in range(L)]
  before = jnp.stack([w[:near].reshape(near * F, 2 * F) for w in left])
  mix = [masked(f"mix_{i}", 1, F, F)[0] for i in range(L)]
  head, last = masked("head", 1, F, net.head)[0], masked("logits", 1, net.head, channels * K)[0]
  # Cut by colour here, outside the loops.
  lefts = [[w[near][upto[g], pre_of[g]] for g in range(channels)] for w in left]
  mixes = [[w[upto[g], own[g]] for g in range(channels)] for w in mix]
  heads = [head[upto[g], own_top[g]] for g in range(channels)]
  lasts = [last[upto_top[g], g * K : (g + 1) * K] for g in range(channels)]

  def across(name: str, rows: Array) -> Array:
    """One row of a convolution of the "above" stack from all it sees: [B, rows, W, in] -> [B, W, out]."""
    kernel = weights[name]["kernel"]
    columns, side = kernel.shape[1], kernel.shape[1] // 2
    padded = jnp.pad(rows, ((0, 0), (0, 0), (side, side), (0, 0)))
    seen = jnp.stack([padded[:, :, x : x + width] for x in range(columns)], axis=3).swapaxes(1, 2)
    return seen.reshape(batch, width, -1) @ kernel.reshape(-1, kernel.shape[-1]) + weights[name]["bias"]

  def pixel(carry: tuple[Array, Array], xs: tuple[Array, Array, Array]) -> tuple[Any, Any]:
    """carry: the last pixels of the picture [B, near_first, C] and of each layer's input [L, B, near, F]."""
    seen, past = carry
    start, link, add = xs  # [B, F], [L, B, 2F], [B, C, K]
    start = start + seen.reshape(batch, -1) @ first_left[:near_first].reshape(-1, F)
    context = link + past.reshape(L, batch, -1) @ before
    tokens: list[Array] = []
    values: list[Array] = []
    # By layer and colour.
    inputs: list[list[Array]] = [[] for _ in range(L + 1)]
    hiddens: list[list[Array]] = [[] for _ in range(L)]
    tops: list[Array] = []
    for g in range(channels):
      h = start[:, own[g]]
      if g:
        h = h + jnp.stack(values, axis=-1) @ first_left[near_first][:g, own[g]]
      for i in range(L):
        inputs[i].append(h)
        hiddens[i].append(gate(jnp.concatenate(inputs[i], axis=-1) @ lefts[i][g] + context[i][:, pre_of[g]]))
        bias_of_mix = weights[f"mix_{i}"]["bias"][own[g]]
        h = h + jnp.concatenate(hiddens[i], axis=-1) @ mixes[i][g] + bias_of_mix
      inputs[L].append(h)
      top = nn.relu(jnp.concatenate(inputs[L], axis=-1)) @ heads[g] + weights["head"]["bias"][own_top[g]]
      tops.append(nn.relu(top))
      logits = jnp.concatenate(tops, axis=-1) @ lasts[g] + weights["logits"]["bias"][g * K : (g + 1) * K]
      tokens.append(jnp.argmax(logits.astype(jnp.float32) + add[:, g], axis=-1))
      values.append((2 * to_value(tokens[g], K) - 1).astype(dtype))
    here = jnp.stack(values, axis=-1)
    now = jnp.stack([jnp.concatenate(pieces, axis=-1) for pieces in inputs[:L]])
    past = jnp.concatenate([past[:, :, 1:], now[:, :, None]], axis=2)
    return (jnp.concatenate([seen[:, 1:], here[:, None]], axis=1), past), (jnp.stack(tokens, axis=-1), here)

  def row(carry: tuple[Array, Array], r: Array) -> tuple[Any, Array]:
    """carry: the last rows of the picture [B, near_first, W, C], of each layer's input [L, B, near, W, F]."""
    picture, past = carry
    start = above = across("first_above", picture)
    links, kept = [], []
    for i in range(L):
      rows = jnp.concatenate([past[i], above[:, None]], axis=1)
      kept.append(rows[:, 1:])
      pre = across(f"above_{i}", rows)
      link = pre @ weights[f"link_{i}"]["kernel"] + weights[f"link_{i}"]["bias"]
      links.append(link[..., order])
      above = gate(pre)
    empty = jnp.zeros((batch, near_first, channels), dtype), jnp.zeros((L, batch, near, F), dtype)
    xs = start.swapaxes(0, 1), jnp.stack(links).transpose(2, 0, 1, 3), bias(r).swapaxes(0, 1)
    tokens, here = (v.swapaxes(0, 1) for v in jax.lax.scan(pixel, empty, xs)[1])
    return (jnp.concatenate([picture[:, 1:], here[:, None]], axis=1), jnp.stack(kept)), tokens

  empty = (
    jnp.zeros((batch, near_first, width, channels), dtype),
    jnp.zeros((L, batch, near, width, F), dtype),
  )
  return jax.lax.scan(row, empty, jnp.arange(height))[1].swapaxes(0, 1)


def _groups(units: int, channels: int) -> tuple[list[slice], list[slice]]:
  """The places of the units of each colour, and of those of all colours up to it."""
  ends = np.cumsum(np.bincount(colour_group(units, channels))).tolist()
  return [slice(a, b) for a, b in itertools.pairwise([0, *ends])], [slice(0, b) for b in ends]
