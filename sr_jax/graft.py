"""Networks that one run takes from another: reading, checking and putting them in place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from sr_jax.errors import UserError
from sr_jax.files import absolute, read_npz
from sr_jax.method import Averaged, Params, State, drawing_networks
from sr_jax.run import load_run

# Parameters and batch statistics by role: arrays, or only their shapes.
Networks = tuple[dict[str, Any], dict[str, Any]]


def parse(entry: str) -> tuple[str, str, str]:
  """An entry of `config.init_from` -> our role, the source, and its role there."""
  ours, equals, source = entry.partition("=")
  # The colon of an address is none of ours.
  scheme, slashes, rest = source.rpartition("://")
  origin, colon, theirs = rest.partition(":")
  origin = scheme + slashes + origin
  if not (ours and equals and origin) or (colon and origin.endswith(".npz")):
    raise UserError(
      f"config.init_from has {entry!r}: write ROLE=SOURCE, or ROLE=RUN:ITS_ROLE for a stage or run."
    )
  return ours, origin, theirs or ours


def read(
  config: ConfigDict, folders: Mapping[str, Path], states: Mapping[str, State] | None = None
) -> Networks:
  """The networks that `config.init_from` brings, on the host.

  Args:
    config: of the run that takes them.
    folders: of its earlier stages, by name.
    states: the abstract states of stages and runs that are not trained yet, by name or folder.

  Raises:
    UserError: a source that cannot be read or has no such network, or a role that has two.
  """
  params: dict[str, Any] = {}
  stats: dict[str, Any] = {}
  for entry in config.init_from:
    ours, origin, theirs = parse(entry)
    if ours in params:
      raise UserError(f"config.init_from is {config.init_from}: name one source for {ours!r}.")
    known = origin in folders or origin in (states or {})
    if not known and not absolute(origin, "config.init_from").exists():
      raise UserError(
        f"config.init_from has {entry!r}, but {origin!r} is no earlier stage "
        f"({', '.join(folders) or 'none'}), run or file: correct it."
      )
    if origin.endswith(".npz"):
      params[ours], stats[ours] = read_file(origin)
      continue
    if states and origin in states:
      state = states[origin]
    else:
      state = jax.device_get(load_run(folders.get(origin, origin)).state)
    their_params, their_stats = drawing_networks(state)
    if theirs not in their_params:
      raise UserError(
        f"config.init_from has {entry!r}, but that run has {', '.join(their_params)}: choose one."
      )
    params[ours], stats[ours] = their_params[theirs], their_stats.get(theirs, {})
  return params, stats


def read_file(path: str | Path) -> tuple[Params, Any]:
  """A network's parameters and batch statistics ({} if there are none) from an .npz file.

  Its keys are the paths of the leaves in Flax's collections, "params/Conv_0/kernel", "batch_stats/...".

  Raises:
    UserError: it cannot be read, or has other keys.
  """
  file = absolute(path, "The .npz file")
  try:
    arrays = read_npz(file)
    tree = traverse_util.unflatten_dict({tuple(key.split("/")): array for key, array in arrays.items()})
  except (OSError, ValueError, TypeError, AttributeError) as error:
    raise UserError(f"{path} is no .npz file ({error}): give one written by numpy.savez.") from error
  if "params" not in tree or tree.keys() - {"params", "batch_stats"} or not isinstance(tree["params"], dict):
    raise UserError(
      f"{path} has the keys {', '.join(tree)}: write its leaves as params/... and batch_stats/..."
    )
  return tree["params"], tree.get("batch_stats", {})


def check(state: State, networks: Networks) -> None:
  """Refuse networks that `state` does not have, or has in other shapes; abstract ones will do.

  Raises:
    UserError: naming the first difference.
  """
  params, stats = networks
  for role, tree in params.items():
    if role not in state.params:
      raise UserError(
        f"config.init_from sets a network {role!r}, but this run has no network {role!r}: choose one of "
        f"{', '.join(state.params)}."
      )
    ours = {"params": state.params[role], "batch_stats": state.stats.get(role, {})}
    here, there = (
      {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(t)}
      for t in (ours, {"params": tree, "batch_stats": stats.get(role, {})})
    )
    for path in sorted(here.keys() | there.keys()):
      if here.get(path) != there.get(path):
        raise UserError(
          f"The weights given for the network {role!r} do not fit it: {path} has the shape "
          f"{there.get(path, 'missing')} in them, {here.get(path, 'missing')} in this run; give weights of a "
          "network with the same keys."
        )


def put(state: State, networks: Networks) -> State:
  """The state with these networks (host arrays) in the place of its own; their optimisers start anew.

  Raises:
    UserError: as `check`.
  """
  check(state, networks)

  def replaced(ours: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    # A file may hold them in half precision; a state keeps its own.
    return ours | {
      role: jax.tree.map(lambda o, g: jax.device_put(np.asarray(g, o.dtype), o.sharding), ours[role], tree)
      for role, tree in given.items()
      if role in ours
    }

  params, stats = networks
  new = state.replace(params=replaced(state.params, params), stats=replaced(state.stats, stats))
  if isinstance(new.aux, Averaged):  # its averages begin with them too
    aux = new.aux.replace(params=replaced(new.aux.params, params), stats=replaced(new.aux.stats, stats))
    new = new.replace(aux=aux)
  return new
