"""The contract between a paper and the loop: State, Method, and what every method needs to write one."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import struct
from ml_collections import ConfigDict

from sr_jax.errors import UserError, choose
from sr_jax.losses import Gaussian

Array = jax.Array
Key = jax.Array
Params = Any
# Parameters and batch statistics of one network.
Network = tuple[Params, Any]
# `hr` uint8 [B, H, W, C], float32 if the data has no range; `lr` likewise [B, h, w, C], if it was given;
# `index` int32 [B], the example's number in the endless training stream (modulo 2^31) or the record's in a
# test set; `mask` bool [B], False on padding; `label` int32 [B] if the source has one.
Batch = dict[str, Array]
# Float32 scalars of one round, means over examples. "images" is the number of these examples: the whole batch
# if a method gives none, 0 in a round that measured nothing.
Metrics = dict[str, Array]


class State(struct.PyTreeNode):
  """All that a run must remember: a checkpoint is exactly this, plus the resolved config.

  A network has the same name, its role, here and in the config: `params["generator"]` is of
  `config.networks.generator`, and `config.optim.generator` trains it.
  """

  step: Array  # int32 scalar, rounds done
  params: dict[str, Params]  # one entry per network, by role; frozen ones too
  stats: dict[str, Any]  # batch statistics, per network
  opt: dict[str, optax.OptState]  # a network without an entry is frozen
  aux: Any = ()  # private to the method


class Sample(Protocol):
  """Draws n images for each input: lr [B, h, w, C] in [0, 1] -> [n, B, H, W, C], unclipped.

  `temperature` multiplies the latent's deviation, or divides the logits of a pixel recursive model: 1 is the
  model, 0 the latent's mean or the likeliest value.
  """

  def __call__(self, state: State, lr: Array, key: Key, *, n: int, temperature: float = 1.0) -> Array: ...


class Latents(NamedTuple):
  """How a method draws an image in two steps: a latent, and the image of it.

  Attributes:
    draw: (state, lr [B, h, w, C], key, temperature) -> a pytree of arrays with a first axis B. The
      temperature multiplies the latent's deviation.
    decode: (state, lr, latent) -> images [B, H, W, C], unclipped, before the operator's head.
    reach: radius of the receptive field, in pixels of the input along rows or columns; None: an output pixel
      depends on the whole input. An array [B, k h, k w, C] of a latent, with a whole k, is cut like the input
      [B, h, w, C].
    prior: (state, lr) -> the Gaussian that `draw` draws from, of a method that learns it.
    posterior: (state, images [B, H, W, C] in [0, 1]) -> the Gaussian of the latents that made them.
  """

  draw: Callable[[State, Array, Key, float], Any]
  decode: Callable[[State, Array, Any], Array]
  reach: int | None = None
  prior: Callable[[State, Array], Gaussian] | None = None
  posterior: Callable[[State, Array], Gaussian] | None = None


class Method(NamedTuple):
  """A paper's method, as pure functions of the global batch. It knows no device, no file and no clock.

  Attributes:
    init: (key, batch) -> State.
    step: (state, batch, key) -> (state, metrics): one round, the smallest piece worth resuming at. The same
      arguments give the same round. `state.step` is counted by `run_round`.
    objective: (state, batch, key) -> {name: [B]}: held-out value of the paper's own losses, per example.
    sample: see `Sample`; None for a helper that draws nothing (a denoiser, a density).
    rounds_per_batch: how many rounds one batch is kept for (IMLE's pool).
    minibatch: the smallest number of examples that `step` works on at once, which the devices must be able
      to share equally; 0: the batch.
    needs: frozen networks that another run made, whose own initial weights are of no use: `config.init_from`
      must name them.
    weights: frozen networks that come from files, name -> a function that reads their parameters. `init`
      gives them placeholders of the same shapes, so that a trained run is used without the files.
    deterministic: all samples of an input are equal, so that one is enough.
    fixed_length: a round depends on `config.train.rounds`, so that a longer run would be another one.
    describe_temperature: what the paper calls a temperature, for tables.
    latents: the two steps of `sample`, of a method whose samples are images of a latent.
    classify: (state, images [B, H, W, C] in [0, 1]) -> probabilities [B, classes], of a classifier.
    judge: (state, batch, key) -> {name: [B]}: the losses of the images "hr". Needed where `objective` gives
      those of a sample that it draws itself; None: `objective` already gives those of "hr".
  """

  init: Callable[[Key, Batch], State]
  step: Callable[[State, Batch, Key], tuple[State, Metrics]]
  objective: Callable[[State, Batch, Key], dict[str, Array]]
  sample: Sample | None = None
  rounds_per_batch: int = 1
  minibatch: int = 0
  needs: tuple[str, ...] = ()
  weights: Mapping[str, Callable[[], Params]] = MappingProxyType({})
  deterministic: bool = False
  fixed_length: bool = False
  describe_temperature: Callable[[float], str] = "temperature {:.3g}".format
  latents: Latents | None = None
  classify: Callable[[State, Array], Array] | None = None
  judge: Callable[[State, Batch, Key], dict[str, Array]] | None = None


def run_round(method: Method, state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
  """One round of a method, counted in `state.step`, with the number of its "images" among the metrics."""
  moved, metrics = method.step(state, batch, key)
  size = jnp.float32(batch["hr"].shape[0])
  return moved.replace(step=state.step + 1), {"images": size, **metrics}


def first_state(
  networks: Mapping[str, Network], tx: Mapping[str, optax.GradientTransformation], aux: Any = ()
) -> State:
  """The state before the first round.

  Args:
    networks: parameters and batch statistics of each network, by role.
    tx: optimisers of those that are trained; the others are frozen.
    aux: what else the method remembers.
  """
  return State(
    step=jnp.int32(0),
    params={role: params for role, (params, _) in networks.items()},
    stats={role: stats for role, (_, stats) in networks.items()},
    opt={role: optimiser.init(networks[role][0]) for role, optimiser in tx.items()},
    aux=aux,
  )


class Averaged(struct.PyTreeNode):
  """What an averaged method remembers: averages by role, and what the method itself does."""

  params: dict[str, Params]
  stats: dict[str, Any]  # batch statistics
  own: Any


def drawing_networks(state: State) -> tuple[dict[str, Params], dict[str, Any]]:
  """Parameters and batch statistics by role that a run draws with: of an averaged one the averages."""
  if isinstance(state.aux, Averaged):
    return state.params | state.aux.params, state.stats | state.aux.stats
  return state.params, state.stats


def averaged(method: Method, decay: float) -> Method:
  """The method with an exponential average of its trained networks, which then draws and is judged.

  Training goes on without it. The average of round t decays by at most (1 + t) / (10 + t), so that it forgets
  the first weights soon.

  Args:
    method: any.
    decay: what is left of the average after a round, from 0 to below 1.
  """

  def trained(state: State) -> list[dict[str, Any]]:
    return [{role: tree[role] for role in state.opt} for tree in (state.params, state.stats)]

  def init(key: Key, batch: Batch) -> State:
    state = method.init(key, batch)
    params, stats = trained(state)
    return state.replace(aux=Averaged(params, stats, state.aux))

  def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
    moved, metrics = method.step(state.replace(aux=state.aux.own), batch, key)
    kept = jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    old = [state.aux.params, state.aux.stats]
    params, stats = jax.tree.map(lambda a, b: kept * a + (1 - kept) * b, old, trained(moved))
    return moved.replace(aux=Averaged(params, stats, moved.aux)), metrics

  def of_average(function: Callable[..., Any] | None) -> Any:
    if function is None:
      return None

    @functools.wraps(function)
    def call(state: State, *args: Any, **keys: Any) -> Any:
      params, stats = drawing_networks(state)
      return function(state.replace(params=params, stats=stats, aux=state.aux.own), *args, **keys)

    return call

  latents = method.latents and method.latents._replace(
    draw=of_average(method.latents.draw),
    decode=of_average(method.latents.decode),
    prior=of_average(method.latents.prior),
    posterior=of_average(method.latents.posterior),
  )
  drawing = {name: of_average(getattr(method, name)) for name in ("objective", "sample", "classify", "judge")}
  return method._replace(init=init, step=step, latents=latents, **drawing)


def optimiser(optim: ConfigDict, role: str, calls: int) -> optax.GradientTransformation:
  """The optimiser of one network from `config.optim`, for a run that calls it `calls` times.

  Raises:
    UserError: its name or schedule does not exist, or its last gradients would make no update.
  """
  config, key = optim[role], f"config.optim.{role}"
  if rest := calls % config.accumulate:
    raise UserError(
      f"{key}.accumulate is {config.accumulate}, but the run has {calls} gradients of this network, and the "
      f"last {rest} would change nothing: take a divisor, or another config.train.rounds."
    )
  rate, updates = config.learning_rate, calls // config.accumulate
  schedules = {
    "constant": lambda: optax.constant_schedule(rate),
    "cosine": lambda: optax.cosine_decay_schedule(rate, max(1, updates - config.warmup), config.final),
    "halve": lambda: optax.piecewise_constant_schedule(rate, dict.fromkeys(config.halve_at, 0.5)),
  }
  schedule = choose(schedules, config.schedule, f"{key}.schedule")()
  if config.warmup:
    ramp = optax.linear_schedule(0.0, rate, config.warmup)
    schedule = optax.join_schedules([ramp, schedule], [config.warmup])
  rules = {
    "adam": lambda: optax.adam(schedule, config.b1, config.b2),
    "adamw": lambda: optax.adamw(
      schedule, config.b1, config.b2, weight_decay=config.weight_decay, mask=_kernels
    ),
    "sgd": lambda: optax.sgd(schedule),
    # The mean square starts at 1 and epsilon is added to it inside the root, as in TensorFlow.
    "rmsprop": lambda: optax.rmsprop(
      schedule, config.decay, config.eps, initial_scale=1.0, eps_in_sqrt=True, momentum=config.momentum
    ),
  }
  rule = choose(rules, config.name, f"{key}.name")()
  rule = optax.chain(optax.clip_by_global_norm(config.clip), rule) if config.clip else rule
  return (
    optax.MultiSteps(rule, config.accumulate).gradient_transformation() if config.accumulate > 1 else rule
  )


def _kernels(params: Params) -> Any:
  """True for the kernels of layers, False for biases, scales, noise weights and the like."""
  name = functools.partial(jax.tree_util.keystr, simple=True)
  return jax.tree_util.tree_map_with_path(lambda path, _: name(path[-1:]) == "kernel", params)


def descend(
  state: State,
  role: str,
  loss_fn: Callable[[Params], tuple[Array, tuple[Any, Metrics]]],
  tx: optax.GradientTransformation,
) -> tuple[State, Metrics]:
  """One optimiser step on a network.

  Args:
    state: the state to change.
    role: entry of `state.params`, `state.stats` and `state.opt`.
    loss_fn: params -> (loss, (new batch statistics of the network, metrics)).
    tx: the transformation whose state is `state.opt[role]`.

  Returns:
    The state with the network's parameters, statistics and optimiser moved; and the metrics of `loss_fn` with
    "loss" and "gradient_norm" (global L2 norm, before clipping).
  """

  def of_all(params: dict[str, Params]) -> tuple[Array, tuple[dict[str, Any], Metrics]]:
    loss, (stats, metrics) = loss_fn(params[role])
    return loss, ({role: stats}, metrics)

  return descend_together(state, of_all, {role: tx})


def descend_together(
  state: State,
  loss_fn: Callable[[dict[str, Params]], tuple[Array, tuple[dict[str, Any], Metrics]]],
  tx: Mapping[str, optax.GradientTransformation],
) -> tuple[State, Metrics]:
  """One step on several networks that share a loss, each with its own optimiser; otherwise as `descend`.

  Args:
    state: the state to change.
    loss_fn: {role: params} -> (loss, ({role: new batch statistics}, metrics)).
    tx: {role: the transformation whose state is `state.opt[role]`}.
  """
  params = {role: state.params[role] for role in tx}
  (loss, (stats, metrics)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
  moved, opt = {}, {}
  for role, rule in tx.items():
    updates, opt[role] = rule.update(gradients[role], state.opt[role], params[role])
    moved[role] = optax.apply_updates(params[role], updates)
  return (
    state.replace(params=state.params | moved, stats=state.stats | stats, opt=state.opt | opt),
    {"loss": loss, "gradient_norm": optax.tree.norm(gradients), **metrics},
  )
