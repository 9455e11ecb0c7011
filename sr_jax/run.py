"""A run: the config, and what it makes."""

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


class Run(NamedTuple):
  """A trained method, on the devices of this process."""

  config: ConfigDict
  operator: Operator
  method: Method
  state: State

  def sampler(self, temperature: float = 1.0) -> Sampler:
    """(lr [B, h, w, C] in [0, 1], key, n) -> [n, B, H, W, C], unclipped.

    Raises:
      UserError: the method is a helper that draws nothing.
    """
    sample = self.method.sample
    if sample is None:
      raise UserError(f"Method {self.config.method.name!r} draws no pictures: give a run of one that does.")

    def draw(state: State, lr: jax.Array, key: jax.Array, n: int) -> jax.Array:
      return sample(state, lr, key, n=n, temperature=temperature)

    # A pytree: jit takes the weights as arguments, not as constants of the program.
    return jax.tree_util.Partial(draw, self.state)


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
    operator = make_operator(config)
    method = make_method(config, operator)
    target = parallel.abstract_state(method, parallel.local_mesh(), batch)
    state = checkpoints.restore(target, config)
  assert state is not None  # `latest` found one
  return Run(config, operator, method, state)
