"""A run: the config, and what it makes."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from sr_jax import config as configs
from sr_jax import parallel
from sr_jax.baselines import Sampler
from sr_jax.checkpoint import Checkpoints
from sr_jax.errors import UserError
from sr_jax.files import as_path
from sr_jax.method import Method, State
from sr_jax.methods import make_method
from sr_jax.ops import Operator, make_operator
from sr_jax.tiles import Budget, sample_in_tiles


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

  def __repr__(self) -> str:
    networks = ", ".join(f"{role} {net.name}" for role, net in self.config.networks.items())
    count = sum(leaf.size for leaf in jax.tree.leaves(self.state.params))
    return (
      f"Run({self.config.method.name}: {networks}; {count:,} parameters; {self.operator}; "
      f"round {int(self.state.step):,} of {self.config.train.rounds:,})"
    )

  def sampler(self, temperature: float = 1.0, budget: Budget | None = None) -> Sampler:
    """(lr [B, h, w, C] in [0, 1], key, n) -> [n, B, H, W, C], unclipped.

    Args:
      temperature: see `Sample`.
      budget: images that need more memory are made in tiles if the method can do so; None: all as a whole.

    Raises:
      UserError: the method is a helper that draws nothing, or `temperature` is negative or no number.
    """
    configs.check_temperature(temperature)
    sample = self.method.sample
    if sample is None:
      raise UserError(f"Method {self.config.method.name!r} draws no images: give a run of one that does.")
    if budget and self.method.latents:
      sample = sample_in_tiles(self.method.latents, self.method.deterministic, self.operator, budget)
    # A pytree: jit takes the weights as arguments, not as constants of the program.
    function: Callable[..., jax.Array] = sample
    return jax.tree_util.Partial(_drawing(function, temperature), self.state)

  def count(self, samples: int, temperature: float = 1.0) -> int:
    """How many of `samples` draws differ: 1 where all would be equal."""
    return 1 if self.method.deterministic or temperature == 0 else samples


def load_classifier(folder: str) -> Callable[[jax.Array], jax.Array]:
  """Images [B, H, W, C] -> probabilities [B, K], by the run that `config.eval.classifier` names.

  Raises:
    UserError: it is no run of a classifier, or one whose training was stopped: it would misjudge.
  """
  check_finished(folder, f"config.eval.classifier is {folder}")
  run = load_run(folder)
  if run.method.classify is None:
    raise UserError(f"config.eval.classifier is {folder}, but that run is no classifier: leave it empty.")
  # A pytree: its weights are arguments of the programs that use it.
  return jax.tree_util.Partial(run.method.classify, run.state)


def refuse_run(out: str | Path) -> None:
  """Refuse the folder of a run for another evaluation than its own; raises UserError."""
  if (as_path(out) / "checkpoints").exists():
    raise UserError(f"--out {out} is a run's, whose own evaluation would be lost: give another folder.")


def check_finished(workdir: str | Path, what: str) -> None:
  """Refuse a run that has not done all rounds of its config; raises UserError, which begins with `what`."""
  with Checkpoints(workdir) as checkpoints:
    rounds, done = checkpoints.latest()[0].train.rounds, checkpoints.last()
  if done < rounds:
    raise UserError(f"{what}, whose training stopped after round {done} of {rounds}: train it to its end.")


def saved_config(workdir: str | Path) -> ConfigDict:
  """The resolved config of the newest checkpoint of `workdir`; raises UserError where there is none."""
  with Checkpoints(workdir) as checkpoints:
    return checkpoints.latest()[0]


def load_run(workdir: str | Path, config: ConfigDict | None = None) -> Run:
  """The newest checkpoint of `workdir`, with its own config or one in which only `configs.MEASURING` changed.

  Raises:
    UserError: there is none, or it does not fit the config.
  """
  with Checkpoints(workdir) as checkpoints:
    saved, batch = checkpoints.latest()
    config = config or saved
    for key, (theirs, ours) in configs.differences(saved, config, configs.MEASURING).items():
      raise UserError(
        f"config.{key} is {theirs} in the run in {workdir} and {ours} here: only how it is measured may "
        f"change ({', '.join(f'config.{name}' for name in configs.MEASURING)})."
      )
    configs.check(config)
    operator = make_operator(config)
    method = make_method(config, operator)
    target = parallel.abstract_state(method, parallel.local_mesh(), batch)
    state = checkpoints.restore(target, config)
  assert state is not None  # `latest` found one
  return Run(config, operator, method, state)
