"""SRIM: super-resolution by conditional implicit maximum likelihood estimation (Li*, Peng* et al.).

Objective (section 2.2.2): E min_j || phi(T(x, z_j)) - phi(y) ||^2 over m codes z_j ~ N(0, I) per image,
phi = (pixels, VGG-19 conv2_2, conv4_4), each part scaled by alpha_k.
Deviations: the factor n / |S| of Algorithm 1 is left out (Adam ignores it); features are compared without
the paper's random projection, which only saved a transfer to the CPU; `warmup_rounds`, 0 in the paper.

Algorithm 1 as rounds: a batch is the pool S. In its first |S| / b rounds `step` chooses codes for one slice
of the pool each, in the M that follow it descends on a minibatch drawn from it. A chosen code is a number
j, not a tensor: code j of image i at a stage is drawn again from the pool's key whenever it is needed.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from ml_collections import ConfigDict

from sr_jax.errors import UserError
from sr_jax.method import Array, Batch, Key, Method, Metrics, Params, State, descend, optimiser
from sr_jax.methods.generator import make_sample
from sr_jax.networks import eval_pass, init, make_generator, train_pass, zero_codes
from sr_jax.networks.features import make_features
from sr_jax.ops import Operator, to_float


class Pool(struct.PyTreeNode):
  """What SRIM remembers between rounds."""

  key: Array  # raw data of the key from which the pool's codes are drawn
  choice: Array  # int32 [|S|, stages], the chosen candidate j of each image and stage
  alpha: Array  # float32 [1 + layers], scale of each part of phi
  distance: Array  # mean distance of the codes chosen last


def draw_codes(key: Key, ids: Array, candidates: Array, stage: int, shape: tuple[int, ...]) -> Array:
  """Codes N(0, I) of images `ids` [B], candidate numbers [B], at one stage -> [B, *shape]."""

  def one(i: Array, j: Array) -> Array:
    one_key = key
    for number in (i, stage, j):
      one_key = jax.random.fold_in(one_key, number)
    return jax.random.normal(one_key, shape)

  return jax.vmap(one)(ids, candidates)


def minibatch_columns(key: Key, rows: int, columns: int, number: Array) -> Array:
  """Which column each row of the pool, viewed as [rows, columns], gives to minibatch `number` -> [rows].

  Every `columns` minibatches each image is drawn once. A draw stays within its row, hence on the device
  that holds it.
  """
  epoch, turn = number // columns, number % columns

  def one(row: Array) -> Array:
    # Numbers below rows * columns are taken by the codes' own keys.
    row_key = jax.random.fold_in(jax.random.fold_in(key, rows * columns + row), epoch)
    return jax.random.permutation(row_key, columns)[turn]

  return jax.vmap(one)(jnp.arange(rows))


def srim(config: ConfigDict, operator: Operator) -> Method:
  """Keys: `config.method`, explained in `configs/base.py`; `config.train.batch` is the pool's size."""
  keys, size = config.method, config.train.batch
  rows, m = keys.minibatch, keys.candidates
  positive = ("minibatch", "candidates", "chunk", "inner_rounds")
  if wrong := [name for name in positive if keys[name] < 1]:
    raise UserError(f"config.method.{wrong[0]} is {keys[wrong[0]]}: make it 1 or more.")
  if size % rows or m % keys.chunk:
    raise UserError(
      f"config.train.batch ({size}) must be a multiple of config.method.minibatch ({rows}), and "
      f"config.method.candidates ({m}) of config.method.chunk ({keys.chunk}): change one of each pair."
    )
  columns = size // rows
  rounds_per_batch = columns + keys.inner_rounds
  net = make_generator(config)
  # Every round of the warm-up descends, which ends with a pool; after it those that do not select.
  warm_rounds = min(config.train.rounds, -(-keys.warmup_rounds // rounds_per_batch) * rounds_per_batch)
  pools, rest = divmod(config.train.rounds - warm_rounds, rounds_per_batch)
  updates = warm_rounds + pools * keys.inner_rounds + max(0, rest - columns)
  tx = optimiser(config.optim.generator, updates)
  features = make_features(keys.features, config.data.channels)

  def nearest(draw: Callable[[Array], Array], y: Array, state: State) -> tuple[Array, Array]:
    """The candidate nearest to y [B, ...] and its distance, [B] each; draw(j [B, k]) -> images [B, k, ...].

    Section 2.4: a lower stage is compared with y downsampled to its own resolution. Candidates go
    through in chunks that keep only the best, so memory does not grow with m.
    """
    count, chunk = y.shape[0], keys.chunk
    drawn = jax.eval_shape(draw, jnp.zeros((count, chunk), jnp.int32)).shape
    y = operator.with_factor((y.shape[1] // drawn[2], y.shape[2] // drawn[3])).A(y)
    target = [part[:, None] for part in features.parts(state.params, y)]

    def one_chunk(best: tuple[Array, Array], start: Array) -> tuple[tuple[Array, Array], None]:
      images = draw(jnp.tile(start + jnp.arange(chunk), (count, 1)))
      parts = features.parts(state.params, images.reshape(-1, *drawn[2:]))
      parts = [part.reshape(count, chunk, *part.shape[1:]) for part in parts]
      d = features.squared_distance(state.aux.alpha, parts, target)
      better = d.min(axis=1) < best[1]
      return (jnp.where(better, start + d.argmin(axis=1), best[0]), jnp.minimum(d.min(axis=1), best[1])), None

    none = (jnp.zeros(count, jnp.int32), jnp.full(count, jnp.inf))
    return jax.lax.scan(one_chunk, none, jnp.arange(0, m, chunk))[0]

  def choose_codes(state: State, y: Array, x: Array, ids: Array, key: Key) -> tuple[Array, Array]:
    """sigma(i) of Algorithm 1 -> candidates int32 [B, stages] and the distances of the chosen [B]."""
    shapes = net.stage_codes(x.shape[1:])
    params, stats = state.params["generator"], state.stats["generator"]
    last = len(shapes) - 1

    def run(stages: Sequence[int], previous: Array, candidates: Array) -> Array:
      """The output after `stages` for candidates [B, k] -> [B, k, ...]; k lies inside B, and B is sharded."""
      inputs, output, numbers = (jnp.repeat(v, candidates.shape[1], axis=0) for v in (x, previous, ids))
      for s in stages:
        code = draw_codes(key, numbers, candidates.reshape(-1), s, shapes[s])
        output = eval_pass(net, params, stats, s, inputs, output, code, method="stage")
      output = operator.head(output, inputs) if last in stages else output
      return output.reshape(*candidates.shape, *output.shape[1:])

    groups = [(s,) for s in range(len(shapes))] if keys.hierarchical else [tuple(range(len(shapes)))]
    previous, choices = x, []
    for stages in groups:
      choice, d = nearest(partial(run, stages, previous), y, state)
      choices += [choice] * len(stages)
      if last not in stages:
        previous = run(stages, previous, choice[:, None])[:, 0]
    return jnp.stack(choices, axis=1), d

  def init_state(key: Key, batch: Batch) -> State:
    x = operator.lr(batch)
    params, stats = init(net, key, x, zero_codes(net, x))
    return State(
      step=jnp.int32(0),
      params={"generator": params, **features.placeholders(key)},
      stats={"generator": stats},
      opt={"generator": tx.init(params)},
      aux=Pool(
        key=jax.random.key_data(key),
        choice=jnp.zeros((size, len(net.stage_codes(x.shape[1:]))), jnp.int32),
        alpha=jnp.ones(1 + len(features.layers)),
        distance=jnp.float32(0),
      ),
    )

  def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    turn = state.step % rounds_per_batch
    # A pool that begins in the warm-up ends in it: its codes are zero and none is chosen.
    warm = state.step - turn < keys.warmup_rounds
    pool = jax.tree.map(lambda v: v.reshape(rows, columns, *v.shape[1:]), batch)
    aux = state.aux.replace(
      key=jnp.where(turn == 0, jax.random.key_data(key), state.aux.key),
      alpha=jax.lax.cond(
        state.step == 0,
        lambda: features.scales(state.params, to_float(pool["hr"]).swapaxes(0, 1)),
        lambda: state.aux.alpha,
      ),
    )
    state = state.replace(aux=aux)
    pool_key = jax.random.wrap_key_data(aux.key)

    def draw_minibatch(column: Array) -> tuple[Array, Array, Array]:
      part = jax.vmap(lambda row, c: jax.tree.map(lambda v: v[c], row))(pool, column)
      return to_float(part["hr"]), operator.lr(part), jnp.arange(rows) * columns + column

    def select() -> tuple[Array, Array]:
      y, x, ids = draw_minibatch(jnp.full(rows, turn))
      choice, d = choose_codes(state, y, x, ids, pool_key)
      return state.aux.choice.at[ids].set(choice), d.mean()

    selecting = (turn < columns) & ~warm
    choice, d = jax.lax.cond(selecting, select, lambda: (state.aux.choice, state.aux.distance))
    state = state.replace(aux=state.aux.replace(choice=choice, distance=d))

    y, x, ids = draw_minibatch(minibatch_columns(pool_key, rows, columns, turn - columns))
    codes = [
      draw_codes(pool_key, ids, state.aux.choice[ids, s], s, shape) * jnp.where(warm, 0.0, 1.0)
      for s, shape in enumerate(net.stage_codes(x.shape[1:]))
    ]

    def loss_fn(params: Params) -> tuple[Array, tuple[Any, Metrics]]:
      outputs, stats = train_pass(net, params, state.stats["generator"], x, codes)
      parts = features.parts(state.params, operator.head(outputs[-1], x))
      distances = features.squared_distance(state.aux.alpha, parts, features.parts(state.params, y))
      return distances.mean(), (stats, {})

    # The descent stands outside the condition, and a selecting round throws its step away: XLA computes
    # the gradient of a convolution 20 times slower inside a conditional on a CPU, and one gradient is
    # little beside the m forward passes of a selection.
    moved, metrics = descend(state, "generator", loss_fn, tx)
    state = jax.tree.map(lambda old, new: jnp.where(selecting, old, new), state, moved)
    metrics |= {"selected": d, "images": jnp.where(selecting, 0.0, float(rows))}
    return state.replace(step=state.step + 1), metrics

  def objective(state: State, batch: Batch, key: Key) -> dict[str, Array]:
    """The distance of the nearest of m fresh samples."""
    y, x = to_float(batch["hr"]), operator.lr(batch)
    _, d = choose_codes(state, y, x, jnp.arange(y.shape[0]), key)
    return {"nearest": d}

  return Method(
    init_state,
    step,
    objective,
    make_sample(net, operator),
    rounds_per_batch=rounds_per_batch,
    rows=rows,
    weights=features.weights,
  )
