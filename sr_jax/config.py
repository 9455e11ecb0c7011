"""Configs: finding, overriding and checking them, those of stages, and what may change in a run."""

import functools
import importlib
import json
import logging
import math
import pkgutil
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from absl import flags
from ml_collections import ConfigDict, config_flags

from sr_jax.configs import base
from sr_jax.configs.papers import METHODS, NETWORKS
from sr_jax.errors import UserError, check_choice
from sr_jax.ranges import check_values

log = logging.getLogger(__name__)

T = TypeVar("T")

# What may change when a trained run is measured: how, and where its data is.
MEASURING = (
  *("eval", "data.dir", "data.lr_dir", "data.cache_mb", "data.threads", "data.max_corrupt"),
  "train.watchdog",
)
# What may change when a training goes on: that, and how long it is, where its networks came from (it has them
# by now) and what its stages are (each stage is a run of its own, which checks for itself).
RESUMING = (
  *MEASURING,
  *(f"train.{key}" for key in ("rounds", "log_every", "checkpoint_every", "keep", "profile_from")),
  *("train.eval_every", "train.eval_limit", "init_from", "stages"),
)


def names() -> list[str]:
  """The configs that come with the package."""
  folder = importlib.import_module("sr_jax.configs").__path__
  return [info.name for info in pkgutil.iter_modules(folder) if info.name not in ("base", "derive", "papers")]


def load_module(name: str) -> dict[str, Any]:
  """What a config file defines, by the config's name (see `configs/`) or the path of a Python file.

  Raises:
    UserError: there is none.
  """
  if not name.endswith(".py"):
    check_choice(names(), name, "--config")
    return vars(importlib.import_module(f"sr_jax.configs.{name}"))
  if not Path(name).is_file():
    raise UserError(f"--config {name} is no file: give a config's name or the path of a Python file.")
  return call(name, lambda: runpy.run_path(name))


def load(name: str) -> ConfigDict:
  """The config that get_config() of `name` (see `load_module`) returns; NAME:VARIANT gives it the variant.

  Raises:
    UserError: there is none.
  """
  name, colon, variant = name.partition(":")
  module = load_module(name)
  if "get_config" not in module:
    raise UserError(f"--config {name} defines no get_config(): give a file that does, as configs/base.py.")
  config = call(name, lambda: module["get_config"](variant) if colon else module["get_config"]())
  if not isinstance(config, ConfigDict):
    raise UserError(f"--config {name}: its get_config() must return a ConfigDict, as configs/base.py does.")
  return config


def call(name: str, program: Callable[[], T]) -> T:
  """What a program of the user's, of the config file `name`, returns.

  Raises:
    UserError: it fails.
  """
  try:
    return program()
  except UserError:
    raise
  except Exception as error:
    raise UserError(f"--config {name} fails ({type(error).__name__}: {error}): fix it.") from error


def override(config: ConfigDict, arguments: Sequence[str]) -> ConfigDict:
  """The config with `--config.key=value` arguments applied, locked.

  Raises:
    UserError: an unknown key or a value of another type.
  """
  for argument in arguments:
    key = argument.removeprefix("--config.").split("=", 1)[0]
    if not argument.startswith("--config.") or "=" not in argument:
      raise UserError(f"{argument!r} is no option: keys of the config are set by --config.KEY=VALUE.")
    if key.endswith("method.name") or (key.startswith("networks.") and key.endswith(".name")):
      raise UserError(
        f"{argument!r} cannot be set, as other methods and networks have other keys: choose another --config."
      )
    _check_key(config, key)
  values, words = flags.FlagValues(), ["sr-jax", *arguments]
  try:
    config_flags.DEFINE_config_dict("config", config.lock(), flag_values=values, sys_argv=words)
    values(words)
  except (flags.Error, TypeError, ValueError) as error:
    raise UserError(f"{str(error).splitlines()[0].rstrip('.')}: correct its value.") from error
  return values.config


def _check_key(config: ConfigDict, key: str) -> None:
  """Refuse a key that the config has not, naming the nearest one."""
  node, path = config, "config"
  for part in key.split("."):
    known = list(node) if isinstance(node, ConfigDict) else []
    if not known:
      what = (
        "has no keys" if isinstance(node, ConfigDict) else f"is a value, not a section: set --{path}=VALUE"
      )
      raise UserError(f"{path} {what}.")
    check_choice(known, part, f"key of {path}")
    node, path = node[part], f"{path}.{part}"
  if isinstance(node, ConfigDict) and node:
    raise UserError(f"{path} is a section: set its keys, such as --{path}.{next(iter(node))}=VALUE.")


def check(config: ConfigDict) -> None:
  """Refuse values that no method could work with.

  Raises:
    UserError: a value that cannot be saved, a number out of its range, or two keys that do not go together.
  """
  own = [role for role, net in config.networks.items() if ":" in net.name]
  foreign = [f"networks.{role}." for role in own] + ["method."] * (":" in config.method.name)
  check_values(flatten(config), tuple(foreign))
  if not config.eval.temperatures:
    raise UserError("config.eval.temperatures is empty: give one or more.")
  if len({f"{t:.3g}" for t in config.eval.temperatures}) < len(config.eval.temperatures):
    raise UserError(f"config.eval.temperatures is {config.eval.temperatures}: give each once.")
  if config.eval.data.channels != config.data.channels:
    raise UserError(
      f"config.data.channels is {config.data.channels} and config.eval.data.channels is "
      f"{config.eval.data.channels}: make them the same."
    )


def check_temperature(temperature: float) -> None:
  """Refuse what is no temperature; raises UserError."""
  if not (math.isfinite(temperature) and temperature >= 0):
    raise UserError(f"The temperature is {temperature}: make it 0 or more, 1 being the model.")


def stage_config(config: ConfigDict, name: str) -> ConfigDict:
  """The config of a stage: that of the run with the stage's keys in the place of its own.

  A stage of another method has that method's keys, networks and optimisers alone; those that the run has too
  are the run's. It has no stages, and takes networks from elsewhere only if it says so itself.

  Raises:
    UserError: the stage sets a key that it has not.
  """
  stage, given = config.copy_and_resolve_references(), config.stages[name].to_dict()
  method = given.get("method", {}).get("name", config.method.name)
  with stage.unlocked():
    stage.stages, stage.init_from = ConfigDict(), ()
    if method in METHODS and method != config.method.name:
      theirs = base.get_config(method)
      for section in ("method", "networks", "optim"):
        shared = {key: stage[section][key] for key in theirs[section] if key in stage[section]}
        stage[section] = ConfigDict({**theirs[section], **shared})
      stage.method.name = method
    elif method != config.method.name:
      # Of a method of somebody else's package only the stage knows the keys.
      for section in {"method", "networks", "optim"} & given.keys():
        stage[section] = ConfigDict(given[section])
  stage.lock()
  for key in flatten(given):
    _check_key(stage, key)
  try:
    stage.update(given)
  except (TypeError, ValueError) as error:
    raise UserError(
      f"config.stages.{name} does not fit ({str(error).splitlines()[0]}): correct it."
    ) from error
  return stage


def flatten(tree: Any, path: str = "") -> dict[str, Any]:
  """The values of a nested mapping by their dotted keys."""
  values: dict[str, Any] = {}
  for key, value in tree.items():
    name = f"{path}.{key}" if path else key
    values |= flatten(value, name) if isinstance(value, dict | ConfigDict) else {name: value}
  return values


def differences(a: ConfigDict, b: ConfigDict, free: Sequence[str] = ()) -> dict[str, tuple[Any, Any]]:
  """The keys in which two configs differ, with both values ("missing" where one has none).

  Args:
    a, b: the configs.
    free: keys and sections that are not compared; of `data.lr_dir` only the place is free, not whether there
      is one, because then the inputs are others.
  """
  ours, theirs = flatten(a), flatten(b)
  missing = "missing"

  def is_free(key: str) -> bool:
    came = key == "data.lr_dir" and bool(ours.get(key)) != bool(theirs.get(key))
    return not came and any(key == name or key.startswith(f"{name}.") for name in free)

  return {
    key: (ours.get(key, missing), theirs.get(key, missing))
    for key in dict.fromkeys((*ours, *theirs))
    if ours.get(key, missing) != theirs.get(key, missing) and not is_free(key)
  }


def fixed_length(config: ConfigDict) -> bool:
  """Whether a learning rate falls over the whole run, so that a longer run would be another one."""
  return any(optim.schedule == "cosine" for optim in config.optim.values())


def to_json(config: ConfigDict) -> str:
  """A resolved config as text, which `from_json` reads."""
  return json.dumps(json.loads(config.to_json()), indent=2)


def from_json(text: str) -> ConfigDict:
  """A resolved config as it was saved; JSON's lists become the tuples they were."""

  def tuples(value: Any) -> Any:
    if isinstance(value, dict):
      return {k: tuples(v) for k, v in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value

  return ConfigDict(tuples(json.loads(text))).lock()


def complete(config: ConfigDict, owner: str = "") -> ConfigDict:
  """A saved config with the keys that it lacks, because this version is newer, at their defaults.

  A key's default is what the program did before it had the key. With an `owner` the log names the keys.
  """
  config = config.copy_and_resolve_references()
  own = config.networks.to_dict()
  networks = {role: net["name"] if net["name"] in NETWORKS else net for role, net in own.items()}
  method: Any = config.method.name
  if method not in METHODS:
    method = {"method": config.method.to_dict(), "networks": {}}
  defaults = base.get_config(method, **networks).unlock()
  defaults.optim = dict.fromkeys(config.optim, base.OPTIMISER)
  for section in ("stages", "init_from"):
    if section in config:
      del defaults[section]
  defaults.networks = {role: defaults.networks[role] for role in own}
  added: list[str] = []

  def fill(node: ConfigDict, default: ConfigDict, path: str) -> None:
    for key, value in default.items():
      if key not in node:
        node[key] = value
        added.append(path + key)
      elif isinstance(value, ConfigDict) and isinstance(node[key], ConfigDict):
        fill(node[key], value, f"{path}{key}.")

  with config.unlocked():
    fill(config, defaults, "")
    for name, stage in config.get("stages", {}).items():
      for role, optim in stage.get("optim", {}).items():
        fill(optim, ConfigDict(base.OPTIMISER), f"stages.{name}.optim.{role}.")
  if added and owner:
    _warn_once(f"{owner} was made before the keys {', '.join(added)} existed: they have their defaults.")
  return config.lock()


@functools.cache
def _warn_once(text: str) -> None:
  """A run is read several times by one command."""
  log.warning("%s", text)
