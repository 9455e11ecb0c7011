"""Checkpoints: a State and the resolved config, written by Orbax, atomically and in the background.

Orbax restores a flipped bit without a word. So a checkpoint's metadata hold a SHA-256 over the state, and
another
over themselves: one that is damaged anywhere is passed over for the one before it.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from sr_jax import config as configs
from sr_jax.errors import Diverged, UserError
from sr_jax.files import locked
from sr_jax.method import Batch, State

log = logging.getLogger(__name__)


def digest(state: State) -> str:
  """SHA-256 over every leaf."""
  total = hashlib.sha256()
  for leaf in jax.tree.leaves(state):
    total.update(np.ascontiguousarray(jax.device_get(leaf)).tobytes())
  return total.hexdigest()


def shapes(tree: Any) -> dict[str, str]:
  """Path of every leaf -> its type and shape, of arrays or of abstract ones."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def not_finite(state: State) -> str:
  """The path of a leaf that holds a number that is not finite; "" if all are."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    values = np.asarray(jax.device_get(leaf))
    if jnp.issubdtype(values.dtype, jnp.floating) and not np.isfinite(values.astype(np.float32)).all():
      return jax.tree_util.keystr(path)
  return ""


class Checkpoints:
  """The checkpoints of one work directory; a context manager that waits for the last write.

  Args:
    workdir: the run's directory.
    keep: how many checkpoints are kept.
    create: make the directory if it is missing (training); else that is an error (evaluation).
    lock: let no other training work in this directory meanwhile.

  Raises:
    UserError: the directory can't be written, is another training's, or holds no run.
  """

  def __init__(self, workdir: str | Path, keep: int = 2, create: bool = False, lock: bool = False):
    self.folder, self.create = Path(workdir).expanduser().absolute() / "checkpoints", create
    self.made = [p for p in (self.folder, *self.folder.parents) if not p.exists()]
    self.open = ExitStack()
    if create:
      try:
        self.folder.mkdir(parents=True, exist_ok=True)
        if lock:
          self.open.enter_context(locked(self.folder.parent))
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
    self.open.close()
    if kind is not None:
      # A run that failed before it wrote anything leaves nothing.
      with suppress(OSError):
        for folder in self.made:
          folder.rmdir()

  def save(self, state: State, config: ConfigDict, batch: Batch) -> None:
    """Write `state` in the background.

    The shapes of a training batch go with it, so that a run can be used without its data.

    Raises:
      Diverged: a number in it is not finite; nothing is written.
    """
    step = int(jax.device_get(state.step))
    if path := not_finite(state):
      last = next(iter(self._steps()), None)
      kept = f"the checkpoint of round {last} is the last good one" if last else "there is no checkpoint"
      raise Diverged(
        f"After round {step} the state{path} is not finite and was not saved; {kept}: lower the learning "
        "rate in config.optim or set its clip, and start anew in another --workdir."
      )
    content = json.dumps(
      {
        "config": json.loads(config.to_json()),
        "batch": {k: [v.dtype.name, list(v.shape)] for k, v in batch.items()},
        "shapes": shapes(state),
        "sha256": digest(state),
      }
    )
    about = {"content": content, "sha256": hashlib.sha256(content.encode()).hexdigest()}
    items = ocp.args.Composite(state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(about))
    if not self.manager.save(step, args=items):
      raise RuntimeError(f"Orbax did not save step {step} in {self.folder}.")

  def latest(self) -> tuple[ConfigDict, dict[str, jax.ShapeDtypeStruct]]:
    """The resolved config of the newest checkpoint and the abstract batch it was trained on.

    Keys that are newer than the run have their defaults.
    """
    for step in self._steps():
      if about := self._about(step):
        batch = {k: jax.ShapeDtypeStruct(shape, dtype) for k, (dtype, shape) in about["batch"].items()}
        return self._config(about), batch
    raise UserError(f"{self.folder} holds no whole checkpoint: train the run first.")

  def restore(self, target: State, config: ConfigDict, free: Sequence[str] | None = None) -> State | None:
    """The newest whole checkpoint on the shapes and shardings of `target`, None if there is none at all.

    A checkpoint that is incomplete or damaged is passed over with a warning; where training goes on
    (`create`), it is deleted, for Orbax saves nothing older than what is there.

    Args:
      target: the abstract state.
      config: of the run as it is now.
      free: the keys and sections of the config that may have changed; None: all but the method.

    Raises:
      UserError: the checkpoint does not fit the config, or none is whole.
    """
    steps = self._steps()
    for i, step in enumerate(steps):
      about = self._about(step)
      if about is None:
        continue
      self._check_fit(about, target, config, free)
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

  def _check_fit(
    self, about: dict[str, Any], target: State, config: ConfigDict, free: Sequence[str] | None
  ) -> None:
    """Refuse a checkpoint of another method, of other shapes or, to train on, of another run."""
    advice = "choose another --workdir or the run's own config."
    saved = self._config(about)
    if saved.method.name != config.method.name:
      raise UserError(
        f"{self.folder} holds a run of method {saved.method.name!r}, not {config.method.name!r}: {advice}"
      )
    there, here = about["shapes"], shapes(target)
    pairs = {path: (there.get(path, "missing"), here.get(path, "missing")) for path in there | here}
    pairs = {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}
    if free is not None:
      changed = configs.differences(saved, config, free)
      pairs |= {f"config.{key}": pair for key, pair in changed.items()}
    for path, (theirs, ours) in pairs.items():
      raise UserError(
        f"{self.folder} does not fit the config: {path} is {theirs} there and {ours} here; {advice}"
      )

  def _config(self, about: dict[str, Any]) -> ConfigDict:
    saved = configs.from_json(json.dumps(about["config"]))
    return configs.complete(saved, str(self.folder.parent))

  def _steps(self) -> list[int]:
    return sorted(self.manager.all_steps(), reverse=True)

  def _about(self, step: int) -> dict[str, Any] | None:
    """What was saved beside the state; None, with a warning, if it is incomplete or damaged."""
    try:
      about = self.manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]
      content = about["content"]
      if hashlib.sha256(content.encode()).hexdigest() != about["sha256"]:
        raise ValueError("its digest differs")
      return json.loads(content)
    except Exception as error:  # as in `restore`
      reason = error if isinstance(error, ValueError) else type(error).__name__
      log.warning("Checkpoint %d in %s is incomplete or damaged (%s).", step, self.folder, reason)
      return None
