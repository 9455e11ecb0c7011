"""Checkpoints: a State and the resolved config, written by Orbax, atomically and in the background."""

import hashlib
import json
import logging
import re
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from ml_collections import ConfigDict

from sr_jax.errors import UserError
from sr_jax.method import Batch, Params, State

log = logging.getLogger(__name__)

# What may change between two parts of one run: how long it is, where things are, what is said of it.
FREE = {"config.eval", "config.init_from"}
FREE |= {f"config.data.{key}" for key in ("dir", "cache_mb", "threads", "max_corrupt")}
FREE |= {f"config.train.{key}" for key in ("rounds", "log_every", "checkpoint_every", "keep", "profile_from")}
FREE |= {f"config.train.{key}" for key in ("eval_every", "eval_limit")}


def config_from_json(text: str) -> ConfigDict:
  """A resolved config as it was saved; JSON's lists become the tuples they were."""

  def tuples(value: Any) -> Any:
    if isinstance(value, dict):
      return {k: tuples(v) for k, v in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value

  return ConfigDict(tuples(json.loads(text))).lock()


def digest(state: State) -> str:
  """SHA-256 over every leaf: Orbax restores a flipped bit without a word."""
  total = hashlib.sha256()
  for leaf in jax.tree.leaves(state):
    total.update(np.ascontiguousarray(jax.device_get(leaf)).tobytes())
  return total.hexdigest()


def shapes(tree: Any) -> dict[str, str]:
  """Path of every leaf -> its type and shape, of arrays or of abstract ones."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _fixed_keys(config: ConfigDict) -> dict[str, Any]:
  """Every key that a run may not change when it goes on, by its path."""

  def walk(node: ConfigDict, path: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in node.items():
      name = f"{path}.{key}"
      values |= walk(value, name) if isinstance(value, ConfigDict) else {name: value}
    return values

  values = walk(config, "config")
  # What falls or is shared out over the whole run is another in a run of another length.
  length = any(
    (name.startswith("config.optim.") and value == "cosine") or name.endswith((".anneal", ".snapshots"))
    for name, value in values.items()
  )

  def free(name: str) -> bool:
    ours = re.sub(r"^config\.stages\.\w+", "config", name)
    if ours == "config.train.rounds":
      return name == ours and not length
    return any(ours == key or ours.startswith(f"{key}.") for key in FREE)

  return {name: value for name, value in values.items() if not free(name)}


def read_weights(path: str | Path) -> tuple[Params, Any]:
  """A network's parameters and batch statistics ({} if there are none) from an .npz file.

  Its keys are the paths of the leaves in Flax's collections, "params/Conv_0/kernel", "batch_stats/...".

  Raises:
    UserError: it cannot be read, or has other keys.
  """
  try:
    with np.load(Path(path).expanduser()) as file:
      tree = traverse_util.unflatten_dict({tuple(key.split("/")): file[key] for key in file.files})
  except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
    raise UserError(f"{path} is no .npz file ({error}): give one written by numpy.savez.") from error
  if "params" not in tree or tree.keys() - {"params", "batch_stats"} or not isinstance(tree["params"], dict):
    raise UserError(
      f"{path} has the keys {', '.join(tree)}: write its leaves as params/... and batch_stats/..."
    )
  return tree["params"], tree.get("batch_stats", {})


class Checkpoints:
  """The checkpoints of one work directory; a context manager that waits for the last write.

  Args:
    workdir: the run's directory.
    keep: how many checkpoints are kept.
    create: make the directory if it is missing (training); else that is an error (evaluation).

  Raises:
    UserError: the directory can't be written, or holds no run.
  """

  def __init__(self, workdir: str | Path, keep: int = 2, create: bool = False):
    self.folder, self.create = Path(workdir).expanduser().absolute() / "checkpoints", create
    self.made = [p for p in (self.folder, *self.folder.parents) if not p.exists()]
    if create:
      try:
        self.folder.mkdir(parents=True, exist_ok=True)
      except OSError as error:
        raise UserError(
          f"--workdir {workdir} cannot be written ({error.strerror}): choose a folder that is yours."
        ) from error
    elif not self.folder.is_dir():
      raise UserError(f"--workdir {workdir} holds no checkpoints: give the folder of a trained run.")
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=False)
    self.manager = ocp.CheckpointManager(self.folder, options=options)

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
    self.manager.wait_until_finished()
    self.manager.close()
    if kind is not None:
      # A run that failed before it wrote anything leaves nothing.
      with suppress(OSError):
        for folder in self.made:
          folder.rmdir()

  def save(self, state: State, config: ConfigDict, batch: Batch) -> None:
    """Write `state` in the background.

    The shapes of a training batch go with it, so that a run can be used without its data.
    """
    step = int(jax.device_get(state.step))
    about = {
      "config": json.loads(config.to_json()),
      "batch": {k: [v.dtype.name, list(v.shape)] for k, v in batch.items()},
      "shapes": shapes(state),
      "sha256": digest(state),
    }
    items = ocp.args.Composite(state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(about))
    if not self.manager.save(step, args=items):
      raise RuntimeError(f"Orbax did not save step {step} in {self.folder}.")

  def latest(self) -> tuple[ConfigDict, dict[str, jax.ShapeDtypeStruct]]:
    """The resolved config of the newest checkpoint and the abstract batch it was trained on."""
    for step in self._steps():
      if about := self._about(step):
        batch = {k: jax.ShapeDtypeStruct(shape, dtype) for k, (dtype, shape) in about["batch"].items()}
        return config_from_json(json.dumps(about["config"])), batch
    raise UserError(f"{self.folder} holds no whole checkpoint: train the run first.")

  def restore(self, target: State, config: ConfigDict) -> State | None:
    """The newest whole checkpoint on the shapes and shardings of `target`, None if there is none at all.

    A checkpoint that is incomplete or damaged is passed over with a warning; where training goes on
    (`create`), it is deleted, for Orbax saves nothing older than what is there.

    Raises:
      UserError: the checkpoint does not fit the config, or none is whole.
    """
    steps = self._steps()
    for i, step in enumerate(steps):
      about = self._about(step)
      if about is None:
        continue
      self._check_fit(about, target, config)
      try:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        state = self.manager.restore(step, args=args)["state"]
      except Exception as error:  # a damaged file raises whatever its reader raises, down to Exception itself
        log.warning("Checkpoint %d in %s cannot be read (%s).", step, self.folder, type(error).__name__)
        continue
      if digest(state) != about["sha256"]:
        log.warning("Checkpoint %d in %s is damaged: its digest differs.", step, self.folder)
        continue
      for newer in steps[:i] if self.create else []:
        self.manager.delete(newer)
      return state
    if steps:
      raise UserError(f"No checkpoint in {self.folder} can be read: choose another --workdir to start anew.")
    return None

  def _check_fit(self, about: dict[str, Any], target: State, config: ConfigDict) -> None:
    """Refuse a checkpoint of another method, of other shapes or, to train on, of another run."""
    advice = "choose another --workdir or the run's own config."
    theirs, ours = config_from_json(json.dumps(about["config"])), config
    if theirs.method.name != ours.method.name:
      raise UserError(
        f"{self.folder} holds a run of method {theirs.method.name!r}, not {ours.method.name!r}: {advice}"
      )
    pairs = [(about["shapes"], shapes(target))]
    if self.create:
      pairs.append((_fixed_keys(theirs), _fixed_keys(ours)))
    for there, here in pairs:
      for path in sorted(there.keys() | here.keys()):
        if there.get(path) != here.get(path):
          raise UserError(
            f"{self.folder} does not fit the config: {path} is {there.get(path, 'missing')} there and "
            f"{here.get(path, 'missing')} here; {advice}"
          )

  def _steps(self) -> list[int]:
    return sorted(self.manager.all_steps(), reverse=True)

  def _about(self, step: int) -> dict[str, Any] | None:
    """What was saved beside the state; None, with a warning, if the checkpoint is incomplete."""
    try:
      return self.manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]
    except Exception as error:  # as in `restore`
      log.warning("Checkpoint %d in %s is incomplete (%s).", step, self.folder, type(error).__name__)
      return None
