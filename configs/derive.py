"""Make out of a config the stages before it, the regression beside it, and the trials of a sweep."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from sr_jax.configs import base


def add_stage(config: ConfigDict, name: str, **keys: Any) -> None:
  """Add a stage before the config's own rounds: the sections and keys in which it differs."""
  with config.unlocked():
    config.stages[name] = keys


def keep_optimisers(config: ConfigDict, stage: str, *roles: str) -> None:
  """Give a stage the run's optimisers as they are now, of all or of some roles; the run's may then change."""
  with config.unlocked():
    config.stages[stage].optim = {role: config.optim[role].to_dict() for role in roles or config.optim}


def regression_of(config: ConfigDict, batch: int = 16) -> ConfigDict:
  """Regression (MSE) with everything else as in `config`, its generator without noise; one sample is all."""
  config = config.copy_and_resolve_references()  # what is changed below stays as it is there
  ours = base.get_config("regression", generator=config.networks.generator.name)
  for section in set(ours.keys()) - {"method"}:
    ours[section] = config[section]
  ours.networks.generator.noise_channels = 0
  ours.eval.samples = 1
  ours.train.batch = batch
  return ours


def grid(
  keys: Mapping[str, Iterable[Any]], row: str = "", variant: str = ""
) -> Iterator[tuple[str, str, dict[str, Any]]]:
  """Trials of all combinations of values, for a config's `sweep()`.

  Args:
    keys: key of the config, such as "optim.generator.learning_rate" -> the values to try.
    row: begins the name of each row, which goes on with the values; trials that differ in "seed" alone share
      a row and are averaged.
    variant: of the config, for all trials.
  """
  for values in itertools.product(*keys.values()):
    overrides = dict(zip(keys, values, strict=True))
    words = [f"{key.rsplit('.', 1)[-1]} {value}" for key, value in overrides.items() if key != "seed"]
    yield ", ".join([row, *words] if row else words), variant, overrides
