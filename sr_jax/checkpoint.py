"""Checkpoints: a State and the resolved config, written by Orbax, atomically and in the background.

One that is damaged anywhere (`soundness.py`) is passed over for the one before it.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import jax
from ml_collections import ConfigDict

from sr_jax import bucket
from sr_jax import config as configs
from sr_jax.errors import SEE_PEERS, Diverged, UserError, explain
from sr_jax.files import absolute, check_writable, in_bucket, locked, make, missing, remove_tree
from sr_jax.method import Batch, State
from sr_jax.orbax_manager import ATTEMPTS, Manager, reraise_outage, with_retries
from sr_jax.soundness import digest, is_unfinished, not_finite, seal, shapes, unseal, whole_steps

log = logging.getLogger(__name__)

T = TypeVar("T")


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
    self.folder, self.create = absolute(workdir, "--workdir") / "checkpoints", create
    self.made: list[Path] = []
    self.open = ExitStack()
    self.check_lock: Callable[[], None] | None = None
    if str(self.folder).encode(errors="ignore").decode() != str(self.folder):  # bytes that are no text
      raise UserError(
        f"--workdir {workdir} is not UTF-8, as names of checkpoints must be: choose another name."
      )
    if create:
      check_writable(self.folder, "--workdir")
      if in_bucket(self.folder):
        bucket.check_properties(self.folder)
      self.made = missing(self.folder)
      try:
        make(self.folder)
        if lock:
          self.check_lock = self.open.enter_context(locked(self.folder.parent))
          self._clear_unfinished()
      except OSError as error:
        raise UserError(
          f"--workdir {workdir} cannot be written ({error.strerror}): choose a folder that is yours."
        ) from error
    elif not self.folder.is_dir():
      raise UserError(f"--workdir {workdir} holds no checkpoints: give the folder of a trained run.")
    self.manager = with_retries(lambda: Manager(self.folder, keep))

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
    if explain(error).remedy == SEE_PEERS:  # Orbax would wait for them
      self.open.close()
      return
    try:
      self.manager.wait_until_finished()
    except Exception as failure:  # of the last save, in the words of whatever library wrote it
      error = error or failure
    with suppress(Exception):  # it tells the same again
      self.manager.close()
    if error is not None:
      self._clear_unfinished()
    self.open.close()
    if error is None:
      return
    # A run that failed before it wrote anything leaves nothing.
    with suppress(OSError):
      for folder in self.made:
        folder.rmdir()
    refusal = explain(error)
    if self.create and refusal.what and not isinstance(error, UserError):
      raise UserError(
        f"The training in {self.folder.parent} cannot go on ({refusal.what}); "
        f"{self._in_words(self.last())}: {refusal.remedy}, and the same command goes on."
      ) from error
    if kind is None:
      raise error

  def last(self) -> int:
    """The round of the newest checkpoint once all are written; 0 without one, or if none can be reached."""
    with suppress(Exception):  # of a save that failed; closing tells it
      self.manager.wait_until_finished()
    with suppress(Exception):  # of a bucket that is out of reach
      return next(iter(self._steps()), 0)
    return 0

  def _in_words(self, last: int) -> str:
    if last:
      return f"the checkpoint of round {last} is the last good one"
    return "no checkpoint can be reached" if in_bucket(self.folder) else "there is no checkpoint"

  @contextmanager
  def explaining_divergence(self, state: State) -> Iterator[None]:
    """Tell a run that diverges how to go on: its rate is fixed, but another may begin with its networks.

    Args:
      state: whose networks, by role.

    Raises:
      Diverged: with that.
    """
    try:
      yield
    except Diverged as error:
      last, way = self.last(), "start again."
      if last:
        entries = ", ".join(repr(f"{role}={self.folder.parent}") for role in state.params)
        way = f'go on from there in another --workdir with --config.init_from="({entries},)".'
      raise Diverged(
        f"{error}; {self._in_words(last)}: lower the learning rate in config.optim or set its clip, and {way}"
      ) from error

  def save(self, state: State, config: ConfigDict, batch: Batch) -> None:
    """Write `state` in the background.

    The shapes of a training batch go with it, so that a run can be used without its data.

    Raises:
      Diverged: a number in it is not finite; nothing is written.
      UserError: the lock was lost; nothing is written.
    """
    step = int(jax.device_get(state.step))
    if path := not_finite(state):
      raise Diverged(f"After round {step} the state{path} is not finite and was not saved")
    about = seal(
      {
        "config": json.loads(config.to_json()),
        "batch": {k: [v.dtype.name, list(v.shape)] for k, v in batch.items()},
        "shapes": shapes(state),
        "sha256": digest(state),
      }
    )
    if self.check_lock:
      self.check_lock()
    self.manager.write(step, state, about)

  def latest(self) -> tuple[ConfigDict, dict[str, jax.ShapeDtypeStruct]]:
    """The resolved config of the newest checkpoint and the abstract batch it was trained on.

    Keys that are newer than the run have their defaults.

    Raises:
      UserError: no checkpoint can be read.
    """
    about = self._newest(self._about)
    if not about:
      raise UserError(self._none_whole())
    batch = {k: jax.ShapeDtypeStruct(shape, dtype) for k, (dtype, shape) in about["batch"].items()}
    return self._config(about), batch

  def restore(self, target: State, config: ConfigDict, free: Sequence[str] | None = None) -> State | None:
    """The newest whole checkpoint on the shapes and shardings of `target`, None if there is none at all.

    A checkpoint that is incomplete or damaged is passed over with a warning.

    Args:
      target: the abstract state.
      config: of the run as it is now.
      free: the keys and sections of the config that may have changed; None: all but the method.

    Raises:
      UserError: the checkpoint does not fit the config, or none is whole.
    """

    def read(step: int) -> State | None:
      about = self._about(step)
      if about is None:
        return None
      self._check_fit(step, about, target, config, free)
      try:
        state = self.manager.read_state(step, target)
      except Exception as error:  # a damaged file raises whatever its reader raises, down to Exception itself
        reraise_outage(error)
        self._pass_over(step, f"cannot be read ({type(error).__name__})")
        return None
      if digest(state) != about["sha256"]:
        self._pass_over(step, "is damaged: its digest differs")
        return None
      return state

    state = self._newest(read)
    if state is None and self._steps():
      raise UserError(self._none_whole())
    return state

  def newer_than(self, step: int) -> list[int]:
    """The checkpoints after the checkpoint `step`, which are damaged if that is the newest whole one."""
    return [newer for newer in self._steps() if newer > step]

  def delete(self, steps: Sequence[int]) -> None:
    """Delete checkpoints: Orbax saves nothing older than what is there. All processes must give the same."""
    for step in steps:
      self.manager.delete(step)

  def _none_whole(self) -> str:
    """What to do without a whole checkpoint, for a training that goes on or for a reader."""
    if not self._steps():
      return f"{self.folder} holds no whole checkpoint: train the run first."
    if self.create:
      return f"No checkpoint in {self.folder} can be read: choose another --workdir to start anew."
    return (
      f"No checkpoint in {self.folder} can be read, for what is there is damaged: give another run or a copy "
      "of this one, or train it anew in another --workdir."
    )

  def _check_fit(
    self, step: int, about: dict[str, Any], target: State, config: ConfigDict, free: Sequence[str] | None
  ) -> None:
    """Refuse one of another method, of other shapes or, to train on, of another run or of too many rounds."""
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
    if free is not None and step > config.train.rounds:
      raise UserError(
        f"{self.folder} holds a run of {step} rounds, but config.train.rounds is {config.train.rounds}: give "
        "at least as many, or another --workdir."
      )

  def _config(self, about: dict[str, Any]) -> ConfigDict:
    saved = configs.from_json(json.dumps(about["config"]))
    return configs.complete(saved, str(self.folder.parent))

  def _steps(self) -> list[int]:
    return whole_steps(self.folder)

  def _clear_unfinished(self) -> None:
    """Delete what was half-written, which only takes room, if the lock says that it is ours.

    Several times: what a save that failed left running may still add files.
    """
    if not self.check_lock:
      return
    with suppress(Exception):
      self.check_lock()
      for _ in range(ATTEMPTS):
        found = [path for path in self.folder.iterdir() if is_unfinished(path)]
        for path in found:
          with suppress(OSError):
            remove_tree(path)
        if not found:
          return
        time.sleep(0.1)

  def _newest(self, read: Callable[[int], T | None]) -> T | None:
    """What `read` makes of the newest checkpoint of which it makes anything."""
    for _ in range(ATTEMPTS):
      steps = self._steps()
      with_retries(self.manager.reload)
      for step in steps:
        if (found := read(step)) is not None:
          return found
      if self._steps() == steps:
        break
      time.sleep(0.1)  # a training goes on there, and deletes the old ones
    return None

  def _about(self, step: int) -> dict[str, Any] | None:
    """What was saved beside the state; None, with a warning, if it is incomplete or damaged."""
    try:
      return unseal(self.manager.read_about(step))
    except Exception as error:  # as in `restore`
      reraise_outage(error)
      reason = error if isinstance(error, ValueError) else type(error).__name__
      self._pass_over(step, f"is incomplete or damaged ({reason})")
      return None

  def _pass_over(self, step: int, reason: str) -> None:
    if not self.create:
      time.sleep(0.1)  # a training beside us may be deleting it
    if (self.folder / str(step)).exists():
      log.warning("Checkpoint %d in %s %s.", step, self.folder, reason)
