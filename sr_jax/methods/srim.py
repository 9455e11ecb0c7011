"""SRIM: super-resolution by conditional implicit maximum likelihood estimation (Li*, Peng* et al.).

Objective (section 2.2.2): E min_j || phi(T(x, z_j)) - phi(y) ||^2 over m latents z_j ~ N(0, I) per image,
phi = (pixels, VGG-19 conv2_2, conv4_4), each part scaled by alpha_k.
Deviations: Algorithm 1 sums over a minibatch and multiplies by n / its size; here it is the mean, without n
(Adam ignores it); features are compared without the paper's random projection, which only saved a transfer to
the CPU; latents are chosen with batch normalisation in evaluation mode, and trained in training mode;
VGG-19's input is normalised as its weight file expects, which need not be the paper's; `warmup_rounds`, 0 in
the paper.

Algorithm 1 as rounds: a batch is the pool S. In its first |S| / b rounds `step` chooses latents for one slice
of the pool each, in the M that follow it descends on a minibatch drawn from it. A chosen latent is a number
j, not a tensor: candidate j of image i is drawn again from the pool's key whenever it is needed. A network
that works in stages has its latents chosen stage by stage (section 2.4), any other network all at once.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from ml_collections import ConfigDict

from sr_jax.errors import UserError
from sr_jax.method import Array, Batch, Key, Method, Metrics, Params, State, descend, first_state, optimiser
from sr_jax.methods.generator import is_deterministic, make_latents, make_sample, train_images
from sr_jax.networks import eval_pass, init, make_generator, train_pass, zero_latent
from sr_jax.networks.features import make_features
from sr_jax.ops import Operator, to_float


class Pool(struct.PyTreeNode):
  """What SRIM remembers between rounds."""

  key: Array  # raw data of the key from which the pool's latents are drawn
  choice: Array  # int32 [|S|, stages], the chosen candidate j of each image and stage
  alpha: Array  # float32 [1 + layers], scale of each part of phi
  distance: Array  # mean distance of the latents chosen last


def draw_latents(key: Key, ids: Array, candidates: Array, shapes: Any, first: int = 0) -> Any:
  """Latents N(0, I) of images `ids` [B] with the candidate numbers [B].

  Args:
    key: of the pool.
    ids, candidates: which image and which of its candidates.
    shapes: a pytree of shapes, as `latent` of a generator or a part of it.
    first: the number of its first leaf in the whole latent: a leaf is drawn alike in either.

  Returns:
    The pytree with leaves [B, *shape].
  """
  leaves, tree = jax.tree.flatten(shapes)

  def one(i: Array, j: Array) -> list[Array]:
    drawn = []
    for leaf, shape in enumerate(leaves, first):
      leaf_key = key
      for number in (i, leaf, j):
        leaf_key = jax.random.fold_in(leaf_key, number)
      drawn.append(jax.random.normal(leaf_key, shape.shape))
    return drawn

  return jax.tree.unflatten(tree, jax.vmap(one)(ids, candidates))


def minibatch_columns(key: Key, rows: int, columns: int, number: Array) -> Array:
  """Which column each row of the pool, viewed as [rows, columns], gives to minibatch `number` -> [rows].

  Every `columns` minibatches each image is drawn once. A draw stays within its row, hence on the device
  that holds it.
  """
  epoch, turn = number // columns, number % columns

  def one(row: Array) -> Array:
    # Numbers below rows * columns are taken by the latents' own keys.
    row_key = jax.random.fold_in(jax.random.fold_in(key, rows * columns + row), epoch)
    return jax.random.permutation(row_key, columns)[turn]

  return jax.vmap(one)(jnp.arange(rows))


def srim(config: ConfigDict, operator: Operator) -> Method:
  """Keys: `configs/papers/srim.py`; `config.train.batch` is the pool's size."""
  settings, size = config.method, config.train.batch
  rows, m = settings.minibatch, settings.candidates
  if size % rows or m % settings.chunk:
    raise UserError(
      f"config.train.batch ({size}) must be a multiple of config.method.minibatch ({rows}), and "
      f"config.method.candidates ({m}) of config.method.chunk ({settings.chunk}): change one of each pair."
    )
  columns = size // rows
  rounds_per_batch = columns + settings.inner_rounds
  net = make_generator(config)
  if is_deterministic(net):
    raise UserError(
      "config.networks.generator draws nothing, so SRIM has no latents to choose: give it noise."
    )
  in_stages = getattr(net, "latent_stages", 1)
  if settings.stage_weight and in_stages == 1:
    raise UserError(
      "config.method.stage_weight is for a network that works in stages, and "
      f"{config.networks.generator.name!r} does not: set it to 0, or take the network 'srim'."
    )
  stages = in_stages if settings.hierarchical else 1
  # Every round of the warm-up descends, which ends with a pool; after it those that do not select.
  warm_rounds = min(config.train.rounds, -(-settings.warmup_rounds // rounds_per_batch) * rounds_per_batch)
  pools, rest = divmod(config.train.rounds - warm_rounds, rounds_per_batch)
  updates = warm_rounds + pools * settings.inner_rounds + max(0, rest - columns)
  tx = optimiser(config.optim, "generator", updates)
  features = make_features(settings.features, config.data.channels)
  drawn = make_latents(net)

  def downsampled(y: Array, rows: int, columns: int) -> Array:
    """y [B, H, W, C] at the resolution of a stage's images."""
    factor = (y.shape[1] // rows, y.shape[2] // columns)
    return y if factor == (1, 1) else operator.with_factor(factor).A(y)

  def nearest(draw: Callable[[Array], Array], y: Array, state: State) -> tuple[Array, Array]:
    """The candidate nearest to y [B, ...] and its distance, [B] each; draw(j [B, k]) -> images [B, k, ...].

    A lower stage is compared with y downsampled to its own resolution (section 2.4). Candidates are drawn in
    chunks of which only the best is kept, so memory does not grow with m.
    """
    count, chunk = y.shape[0], settings.chunk
    drawn = jax.eval_shape(draw, jnp.zeros((count, chunk), jnp.int32)).shape
    target = [part[:, None] for part in features.parts(state.params, downsampled(y, drawn[2], drawn[3]))]

    def one_chunk(best: tuple[Array, Array], start: Array) -> tuple[tuple[Array, Array], None]:
      images = draw(jnp.tile(start + jnp.arange(chunk), (count, 1)))
      parts = features.parts(state.params, images.reshape(-1, *drawn[2:]))
      parts = [part.reshape(count, chunk, *part.shape[1:]) for part in parts]
      d = features.squared_distance(state.aux.alpha, parts, target)
      better = d.min(axis=1) < best[1]
      return (jnp.where(better, start + d.argmin(axis=1), best[0]), jnp.minimum(d.min(axis=1), best[1])), None

    none = (jnp.zeros(count, jnp.int32), jnp.full(count, jnp.inf))
    return jax.lax.scan(one_chunk, none, jnp.arange(0, m, chunk))[0]

  def parts(x: Array) -> list[tuple[Any, int]]:
    """The latent's part that each stage chooses, for inputs x, and the number of the part's first leaf."""
    shapes = net.latent(x.shape[1:])
    if stages == 1:
      return [(shapes, 0)]
    counts = [len(jax.tree.leaves(part)) for part in shapes]
    return [(part, sum(counts[:s])) for s, part in enumerate(shapes)]

  def latents(key: Key, ids: Array, choice: Array, x: Array) -> Any:
    """The whole latent of the candidates `choice` [B, stages]."""
    drawn = [draw_latents(key, ids, choice[:, s], part, first) for s, (part, first) in enumerate(parts(x))]
    return drawn[0] if stages == 1 else drawn

  def choose_candidates(state: State, y: Array, x: Array, ids: Array, key: Key) -> tuple[Array, Array]:
    """sigma(i) of Algorithm 1 -> candidates int32 [B, stages] and the distances of the chosen [B]."""
    forward = partial(eval_pass, net, state.params["generator"], state.stats["generator"])

    def run(s: int, part: Any, first: int, previous: Array, candidates: Array) -> Array:
      """The output of stage s for candidates [B, k] -> [B, k, ...]; k lies inside B, and B is sharded."""
      inputs, before, numbers = (jnp.repeat(v, candidates.shape[1], axis=0) for v in (x, previous, ids))
      latent = draw_latents(key, numbers, candidates.reshape(-1), part, first)
      whole = stages == 1
      output = forward(inputs, latent) if whole else forward(s, inputs, before, latent, method="stage")
      output = operator.head(output, inputs) if s == stages - 1 else output
      return output.reshape(*candidates.shape, *output.shape[1:])

    previous, choices = x, []
    for s, (part, first) in enumerate(parts(x)):
      choice, d = nearest(partial(run, s, part, first, previous), y, state)
      choices.append(choice)
      if s < stages - 1:
        previous = run(s, part, first, previous, choice[:, None])[:, 0]
    return jnp.stack(choices, axis=1), d

  def first(key: Key, batch: Batch) -> State:
    x = operator.lr(batch)
    return first_state(
      {"generator": init(net, key, x, zero_latent(net, x)), **features.placeholders(key)},
      {"generator": tx},
      Pool(
        key=jax.random.key_data(key),
        choice=jnp.zeros((size, stages), jnp.int32),
        alpha=jnp.ones(1 + len(features.layers)),
        distance=jnp.float32(0),
      ),
    )

  def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    turn = state.step % rounds_per_batch
    # A pool that begins in the warm-up ends in it: its latents are zero and none is chosen.
    warm = state.step - turn < settings.warmup_rounds
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
      choice, d = choose_candidates(state, y, x, ids, pool_key)
      return state.aux.choice.at[ids].set(choice), d.mean()

    selecting = (turn < columns) & ~warm
    choice, d = jax.lax.cond(selecting, select, lambda: (state.aux.choice, state.aux.distance))
    state = state.replace(aux=state.aux.replace(choice=choice, distance=d))

    y, x, ids = draw_minibatch(minibatch_columns(pool_key, rows, columns, turn - columns))
    chosen = latents(pool_key, ids, state.aux.choice[ids], x)
    latent = jax.tree.map(lambda z: z * jnp.where(warm, 0.0, 1.0), chosen)

    def distance(image: Array) -> Array:
      """Section 2.2.2, of the images of any stage."""
      truth = downsampled(y, image.shape[1], image.shape[2])
      ours, theirs = features.parts(state.params, image), features.parts(state.params, truth)
      return features.squared_distance(state.aux.alpha, ours, theirs).mean()

    def loss_fn(params: Params) -> tuple[Array, tuple[Any, Metrics]]:
      if not settings.stage_weight:
        image, stats = train_images(net, operator, state, params, x, latent)
        return distance(image), (stats, {})
      stats = state.stats["generator"]
      (*lower, last), stats = train_pass(net, params, stats, x, latent, method="outputs")
      loss = distance(operator.head(last, x))
      return loss + settings.stage_weight * sum(map(distance, lower)), (stats, {})

    # The descent stands outside the condition, and a selecting round throws its step away: XLA computes
    # the gradient of a convolution 24 times slower inside a conditional on a CPU, and one gradient is
    # little beside the m forward passes of a selection.
    moved, metrics = descend(state, "generator", loss_fn, tx)
    state = jax.tree.map(lambda old, new: jnp.where(selecting, old, new), state, moved)
    return state, metrics | {"selected": d, "images": jnp.where(selecting, 0.0, float(rows))}

  def objective(state: State, batch: Batch, key: Key) -> dict[str, Array]:
    """The distance of the nearest of m fresh samples."""
    y, x = to_float(batch["hr"]), operator.lr(batch)
    _, d = choose_candidates(state, y, x, jnp.arange(y.shape[0]), key)
    return {"imle": d}

  return Method(
    first,
    step,
    objective,
    make_sample(operator, drawn),
    rounds_per_batch=rounds_per_batch,
    minibatch=rows,
    weights=features.weights,
    latents=drawn,
  )
