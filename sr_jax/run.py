"""A run: the config, and what it makes."""

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from sr_jax import parallel
from sr_jax.baselines import Sampler
from sr_jax.checkpoint import Checkpoints
from sr_jax.errors import UserError
from sr_jax.method import Method, State
from sr_jax.methods import make_method
from sr_jax.ops import Operator, make_operator

MAX_SEED = 2**31 - 1


def check_config(config: ConfigDict) -> None:
  """Refuse values that no method could work with.

  Raises:
    UserError: a number out of its range, or a crop that is none.
  """
  least = {
    "train.rounds": 1,
    "train.batch": 1,
    "train.log_every": 1,
    "train.checkpoint_every": 1,
    "train.keep": 1,
    "train.eval_every": 0,
    "train.eval_limit": 1,
    "data.threads": 1,
    "data.cache_mb": 0,
    "data.max_corrupt": 0,
    "eval.samples": 1,
    "eval.batch": 1,
    "eval.border": 0,
    "eval.limit": 0,
    "eval.images": 0,
  }
  for path, minimum in least.items():
    section, key = path.split(".")
    if config[section][key] < minimum:
      raise UserError(f"config.{path} is {config[section][key]}: make it {minimum} or more.")
  for seed in (config.seed, config.eval.seed):
    if not 0 <= seed <= MAX_SEED:
      raise UserError(f"A seed is {seed}: choose one from 0 to {MAX_SEED}.")
  if not config.eval.temperatures:
    raise UserError("config.eval.temperatures is empty: give one or more.")
  for temperature in config.eval.temperatures:
    check_temperature(temperature)
  if len({f"{t:.3g}" for t in config.eval.temperatures}) < len(config.eval.temperatures):
    raise UserError(f"config.eval.temperatures is {config.eval.temperatures}: give each once.")
  crop = config.data.crop
  if not isinstance(crop, tuple) or (crop and (len(crop) != 2 or min(crop) < 1)):
    raise UserError(f"config.data.crop is {crop}: give (rows, columns), or () for whole images.")
  if config.eval.data.channels != config.data.channels:
    raise UserError(
      f"config.data.channels is {config.data.channels} and config.eval.data.channels is "
      f"{config.eval.data.channels}: make them the same."
    )


def check_temperature(temperature: float) -> None:
  """Refuse what is no temperature."""
  if not (math.isfinite(temperature) and temperature >= 0):
    raise UserError(f"The temperature is {temperature}: make it 0 or more, 1 being the model.")


@lru_cache
def _drawing(sample: Callable[..., jax.Array], temperature: float) -> Callable[..., jax.Array]:
  """One function for each method and temperature: what is compiled for it is compiled once."""

  def draw(state: State, lr: jax.Array, key: jax.Array, n: int) -> jax.Array:
    return sample(state, lr, key, n=n, temperature=temperature)

  return draw


class Run(NamedTuple):
  """A trained method. `load_run` puts its state on the devices of this process, `train` on all."""

  config: ConfigDict
  operator: Operator
  method: Method
  state: State

  def sampler(self, temperature: float = 1.0) -> Sampler:
    """(lr [B, h, w, C] in [0, 1], key, n) -> [n, B, H, W, C], unclipped.

    Raises:
      UserError: the method is a helper that draws nothing, or `temperature` is negative or no number.
    """
    check_temperature(temperature)
    sample = self.method.sample
    if sample is None:
      raise UserError(f"Method {self.config.method.name!r} draws no images: give a run of one that does.")
    # A pytree: jit takes the weights as arguments, not as constants of the program.
    function: Callable[..., jax.Array] = sample
    return jax.tree_util.Partial(_drawing(function, temperature), self.state)


def saved_config(workdir: str | Path) -> ConfigDict:
  """The resolved config of the newest checkpoint of `workdir`."""
  with Checkpoints(workdir) as checkpoints:
    return checkpoints.latest()[0]


def load_run(workdir: str | Path, config: ConfigDict | None = None) -> Run:
  """The newest checkpoint of `workdir`, with its own config or one that was changed.

  Raises:
    UserError: there is none, or it does not fit the config.
  """
  with Checkpoints(workdir) as checkpoints:
    saved, batch = checkpoints.latest()
    config = config or saved
    try:
      check_config(config)
      operator = make_operator(config)
      method = make_method(config, operator)
    except (AttributeError, KeyError) as error:
      raise UserError(
        f"The run in {workdir} was made by another version of sr_jax, whose config lacks the key {error}: "
        "use it with that version."
      ) from error
    target = parallel.abstract_state(method, parallel.local_mesh(), batch)
    state = checkpoints.restore(target, config)
  assert state is not None  # `latest` found one
  return Run(config, operator, method, state)
