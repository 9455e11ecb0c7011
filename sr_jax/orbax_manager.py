"""Orbax's checkpoint manager as a run needs it: patient, deaf to signals, quiet after a read that failed."""

import errno
import functools
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import orbax.checkpoint as ocp

from sr_jax.errors import REMEDIES, explain
from sr_jax.method import State

T = TypeVar("T")

# How often a reader looks for a whole checkpoint, while a training beside it deletes what it saw.
ATTEMPTS = 5
# One that is gone is found by JAX's heartbeat, one that is stuck by our watchdog: Orbax would give up a save
# only when a clock jumps.
PATIENCE = 2_000_000  # seconds


def with_retries(look: Callable[[], T]) -> T:
  """What Orbax finds in a folder, while a training there deletes what it is looking at."""
  for _ in range(ATTEMPTS):
    with suppress(FileNotFoundError):
      return look()
    time.sleep(0.1)
  return look()


def reraise_outage(error: Exception) -> None:
  """Raise `error` if the machine or a bucket refused to read (too many open files, an outage).

  The checkpoint is then not damaged. EIO and ENOMEM are not raised: a damaged file may cause both.
  """
  refusal = explain(error)
  of_machine = refusal.passes or refusal.remedy in REMEDIES.values()
  if of_machine and refusal.remedy not in (REMEDIES[errno.EIO], REMEDIES[errno.ENOMEM]):
    raise error


class Manager(ocp.CheckpointManager):
  """The checkpoints in a folder that is there, each a state and what is known about it.

  Args:
    folder: of the checkpoints.
    keep: how many are kept.
  """

  def __init__(self, folder: Path, keep: int):
    _drop_late_work()
    patient = ocp.options.AsyncOptions(timeout_secs=PATIENCE, create_directories_asynchronously=False)
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=False, async_options=patient)
    super().__init__(folder, options=options)

  def reached_preemption(self, step: int) -> bool:
    """Never: the loop asks JAX for signals, and another's question would move the round that JAX names."""
    return False

  def write(self, step: int, state: State, about: Mapping[str, str]) -> None:
    """Write both in the background."""
    items = ocp.args.Composite(state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(about))
    if not self.save(step, args=items):
      raise RuntimeError(f"Orbax did not save step {step} in {self.directory}.")

  def read_about(self, step: int) -> dict[str, str]:
    """What is known about a state."""
    return self.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]

  def read_state(self, step: int, target: State) -> State:
    """A state, on the shapes and shardings of the abstract `target`."""
    return self.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))["state"]


@functools.cache
def _drop_late_work() -> None:
  """Let Python not print the reads and writes that Orbax leaves behind when one fails, a traceback each."""
  previous = sys.unraisablehook

  def hook(found: Any) -> None:
    if "Event loop is closed" not in str(found.exc_value) and "_read_array_index" not in repr(found.object):
      previous(found)

  sys.unraisablehook = hook
