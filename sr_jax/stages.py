"""A run in stages: which are needed and in what order, and the networks that one run takes from another."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax.errors import ScopeParamShapeError
from ml_collections import ConfigDict

from sr_jax import parallel
from sr_jax.checkpoint import read_weights
from sr_jax.data import open_source, test_batches, train_batches
from sr_jax.errors import UserError
from sr_jax.method import State
from sr_jax.methods import make_method
from sr_jax.ops import make_operator
from sr_jax.run import check_config, load_run

# Parameters and batch statistics by network: arrays, or only their shapes.
Networks = tuple[dict[str, Any], dict[str, Any]]


class Stage(NamedTuple):
  """One part of a run; the last is the run itself.

  Attributes:
    name: of the stage, "" for the run itself.
    config: its own complete config.
    folder: its work directory.
    places: the folders of the stages before it, by name.
    before: rounds of the stages before it.
  """

  name: str
  config: ConfigDict
  folder: Path
  places: dict[str, Path]
  before: int


def stage_config(config: ConfigDict, name: str) -> ConfigDict:
  """The config of a stage: that of the run with the stage's keys in the place of its own.

  A stage has no stages, and takes networks from elsewhere only if it says so itself.
  """
  stage = config.copy_and_resolve_references()
  with stage.unlocked():
    stage.stages, stage.init_from = ConfigDict(), ()
    stage.update(config.stages[name].to_dict())
  return stage.lock()


def plan_stages(config: ConfigDict, workdir: str | Path) -> list[Stage]:
  """The stages of `config` whose networks are asked for, in order, and `config` itself."""
  needed: list[str] = []
  asking = [config]
  while asking:
    for _, place, _ in map(_parts, asking.pop().init_from):
      if place in config.stages and place not in needed:
        needed.append(place)
        asking.append(stage_config(config, place))
  stages: list[Stage] = []
  places: dict[str, Path] = {}
  before = 0
  for name in [*(name for name in config.stages if name in needed), ""]:
    folder = Path(workdir) / name
    stage = stage_config(config, name) if name else config
    stages.append(Stage(name, stage, folder, dict(places), before))
    places[name], before = folder, before + stage.train.rounds
  return stages


def check_stages(stages: list[Stage]) -> None:
  """Refuse what would end a run at the beginning of one of its stages, before anything is trained.

  Every stage's method is made and its first round's shapes worked out; networks from other stages must have
  the shapes they will have there, those from runs and files are read.

  Raises:
    UserError: a config that cannot be run, or networks that do not fit.
  """
  mesh = parallel.make_mesh()
  made: dict[str, State] = {}
  for stage in stages:
    config = stage.config
    check_config(config)
    operator = make_operator(config)
    method = make_method(config, operator)
    parallel.check_shared(method.rows or config.train.batch, mesh)
    row = next(train_batches(open_source(config.data), config.data, seed=0, batch=1, start=0))
    batch = {k: jax.ShapeDtypeStruct((config.train.batch, *v.shape[1:]), v.dtype) for k, v in row.items()}
    state = parallel.abstract_state(method, mesh, batch)
    # A run that has begun carries its networks: their sources may be gone.
    begun = any((stage.folder / "checkpoints").glob("[0-9]*"))
    params, stats = ({}, {}) if begun else _networks(config, stage.places, made)
    parallel.check_networks(state, params, stats)
    for name in () if begun else method.needs:
      if name not in params:
        raise UserError(
          f"Method {config.method.name!r} takes its network {name!r} from another run: name it in "
          f"config.init_from, as in ('{name}=FOLDER',)."
        )
    source = open_source(config.eval.data, "config.eval.data")
    test = next(test_batches(source, config.eval.data, batch=1, factor=operator.factor, limit=1))
    try:
      jax.eval_shape(method.objective, state, test, jax.random.key(0))
    except ScopeParamShapeError as error:
      sizes = ["x".join(map(str, rows["hr"].shape[1:3])) for rows in (row, test)]
      raise UserError(
        f"Networks of {config.method.name!r} trained on images of {sizes[0]} cannot judge test images of "
        f"{sizes[1]}: make them of one size, or set config.data.crop."
      ) from error
    made[stage.name] = state


def read_networks(config: ConfigDict, places: Mapping[str, Path]) -> Networks:
  """The networks that `config.init_from` brings, on the host; `places` are the folders of stages.

  Raises:
    UserError: a source that cannot be read or has no such network.
  """
  return _networks(config, places, {})


def _networks(config: ConfigDict, places: Mapping[str, Path], made: Mapping[str, State]) -> Networks:
  """As `read_networks`, but of the stages in `made` only the shapes: they may not be there yet."""
  params: dict[str, Any] = {}
  stats: dict[str, Any] = {}
  for entry in config.init_from:
    ours, place, theirs = _parts(entry)
    if place not in places and not Path(place).expanduser().exists():
      raise UserError(
        f"config.init_from has {entry!r}, but {place!r} is no earlier stage ({', '.join(places) or 'none'}), "
        "run or file: correct it."
      )
    if place.endswith(".npz"):
      params[ours], stats[ours] = read_weights(place)
      continue
    state = made[place] if place in made else jax.device_get(load_run(places.get(place, place)).state)
    if theirs not in state.params:
      raise UserError(
        f"config.init_from has {entry!r}, but that run has {', '.join(state.params)}: choose one."
      )
    params[ours], stats[ours] = state.params[theirs], state.stats.get(theirs, {})
  return params, stats


def _parts(entry: str) -> tuple[str, str, str]:
  """An entry of `config.init_from` -> our network, where it comes from, and its name there."""
  ours, equals, source = entry.partition("=")
  place, colon, theirs = source.partition(":")
  if not (ours and equals and place) or (colon and place.endswith(".npz")):
    raise UserError(
      f"config.init_from has {entry!r}: write NETWORK=SOURCE, or NETWORK=RUN:ITS_NETWORK for a stage or run."
    )
  return ours, place, theirs or ours
