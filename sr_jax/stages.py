"""A run in stages: the config of each, and the networks that one takes from another."""

from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from sr_jax.checkpoint import read_weights
from sr_jax.errors import UserError
from sr_jax.method import Method
from sr_jax.run import load_run


def stage_config(config: ConfigDict, name: str) -> ConfigDict:
  """The config of a stage: that of the run with the stage's keys in the place of its own.

  A stage has no stages, and takes networks from elsewhere only if it says so itself.
  """
  stage = config.copy_and_resolve_references()
  with stage.unlocked():
    stage.update({"stages": {}, "init_from": ()})
    del stage["stages"]
    stage.stages = ConfigDict()
    stage.update(config.stages[name].to_dict())
  return stage.lock()


def _source_of(entry: str, config: ConfigDict) -> tuple[str, str, str]:
  """An entry of `config.init_from` -> our network, where it comes from, and its name there."""
  ours, equals, source = entry.partition("=")
  place, _, theirs = source.partition(":")
  if not (ours and equals and place):
    raise UserError(f"config.init_from has {entry!r}: write NETWORK=SOURCE or NETWORK=SOURCE:ITS_NETWORK.")
  if place not in config.stages and not Path(place).expanduser().exists():
    stages = ", ".join(config.stages) or "none"
    raise UserError(
      f"config.init_from has {entry!r}, but {place!r} is no stage ({stages}), run or file: correct it."
    )
  return ours, place, theirs or ours


def check_start(config: ConfigDict, method: Method) -> None:
  """Refuse a run whose networks come from nowhere, before anything is trained.

  Raises:
    UserError: an entry of `config.init_from` that cannot be followed, or a network that needs one.
  """
  given = [_source_of(entry, config)[0] for entry in config.init_from]
  for name in method.needs:
    if name not in given:
      raise UserError(
        f"Method {config.method.name!r} takes its network {name!r} from another run: name it in "
        f"config.init_from, as in ('{name}=FOLDER',)."
      )


def read_networks(config: ConfigDict, workdir: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """The parameters and batch statistics, by network, that `config.init_from` brings, on the host.

  Raises:
    UserError: a source that cannot be read or has no such network.
  """
  found: tuple[dict[str, Any], dict[str, Any]] = {}, {}
  for entry in config.init_from:
    ours, place, theirs = _source_of(entry, config)
    if place.endswith(".npz"):
      found[0][ours], found[1][ours] = read_weights(place)
      continue
    state = load_run(Path(workdir) / place if place in config.stages else place).state
    if theirs not in state.params:
      raise UserError(
        f"config.init_from has {entry!r}, but that run has {', '.join(state.params)}: choose one."
      )
    found[0][ours] = jax.device_get(state.params[theirs])
    found[1][ours] = jax.device_get(state.stats.get(theirs, {}))
  return found
