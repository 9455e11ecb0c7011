"""Metrics over the rounds of a training, its progress line and its profile."""

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import jax
import numpy as np
from clu import profiler
from tensorboardX import RecordWriter, summary
from tensorboardX.proto.event_pb2 import Event, SessionLog

from sr_jax import files
from sr_jax.errors import Diverged, UserError
from sr_jax.method import Metrics
from sr_jax.report.tables import finite

log = logging.getLogger(__name__)

PROFILED = 10  # rounds
FLUSH = 10  # seconds between two flushes of the TensorBoard files, which a bucket sees later (`files.PAUSE`)


class Writer:
  """Metrics over the rounds: `metrics.jsonl`, one object a line, and TensorBoard files in `events/`.

  Nothing is opened before the first `write`. A run that was killed after its last checkpoint does some
  rounds again: their old lines, and a half-written one, are dropped when the file is opened.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    start: int,
    enabled: bool = True,
    check: Callable[[], None] | None = None,
  ):
    """Writes into `workdir` from round `start` + 1 on; with `enabled` False `write` does nothing.

    `check` raises if the files of a bucket are no longer ours to write (`files.growing`).
    """
    self._workdir, self._start, self._enabled = files.as_path(workdir), start, enabled
    self._check = check
    self._files = contextlib.ExitStack()
    self._lines: Any = None
    self._events: Any = None
    self._flushed = 0.0

  def __enter__(self) -> "Writer":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Adds the metrics of round `step`. One that is not finite is null in the JSON line, and no event."""
    if not self._enabled:
      return
    if self._lines is None:
      self._open()
    now, numbers = time.time(), finite(metrics)
    self._lines.write(json.dumps({"step": step, "time": round(now, 3), **numbers}) + "\n")
    for name, value in numbers.items():
      if value is not None:  # tensorboardX would print a warning of its own
        scalar = summary.scalar(name, value)
        self._events.write(Event(step=step, wall_time=now, summary=scalar).SerializeToString())
    if now - self._flushed > FLUSH:
      self.flush(files.PAUSE)
      self._flushed = now

  def flush(self, pause: float = 0) -> None:
    """Lets others see what was written so far, in a bucket unless they could `pause` seconds ago."""
    if self._events is not None:
      self._events.flush()
      self._copy(pause)

  def close(self) -> None:
    """Closes what is open; a later `write` is an error."""
    self._files.close()

  def _open(self) -> None:
    here, self._copy = self._files.enter_context(
      files.growing(self._workdir, "metrics.jsonl", check=self._check)
    )
    path = here / "metrics.jsonl"
    if path.exists():
      lines = path.read_text().splitlines(keepends=True)
      files.write_text(path, "".join(line for line in lines if _is_before(line, self._start)))
    self._lines = self._files.enter_context(path.open("a", buffering=1))
    # Not by tensorboardX's SummaryWriter: its thread dies on a full disk, and what is added waits for ever.
    folder, now = here / "events", time.time_ns()
    folder.mkdir(exist_ok=True)
    self._events = RecordWriter(str(folder / f"events.out.tfevents.{now}"))
    self._files.callback(self._events.close)
    self._events.write(Event(wall_time=now / 1e9, file_version="brain.Event:2").SerializeToString())
    # TensorBoard drops the old scalars of rounds that are done again.
    start = SessionLog(status=SessionLog.START)
    self._events.write(Event(step=self._start + 1, session_log=start).SerializeToString())


class Profile:
  """A profile of some rounds in `workdir`/profile, from `first` on; 0: none. `check` as for `Writer`.

  It ends with the block if the training ends before it.
  """

  def __init__(self, workdir: str | os.PathLike, first: int, check: Callable[[], None] | None = None):
    self._folder, self._first, self._check = files.as_path(workdir) / "profile", first, check
    self._running = contextlib.ExitStack()
    self._last = 0  # round, once it has begun
    self._trained = False

  def __enter__(self) -> "Profile":
    return self

  def __exit__(self, *exception: object) -> None:
    self._running.close()
    if self._first and self._trained and not self._last:
      log.warning("No profile was made: round %d was not among those of this training.", self._first)

  def before(self, step: int) -> None:
    """Begins with round `step` if that is the first."""
    self._trained = True
    if step == self._first:
      self._last = step + PROFILED - 1
      here, _ = self._running.enter_context(files.growing(self._folder, check=self._check))
      profiler.start(str(here))
      self._running.callback(profiler.stop)

  def after(self, step: int, state: Any) -> None:
    """Ends with round `step`, once its `state` is there, if that is the last."""
    if step == self._last:
      jax.block_until_ready(state)
      self._running.close()


def _is_before(line: str, start: int) -> bool:
  try:
    return line.endswith("\n") and json.loads(line)["step"] <= start
  except (json.JSONDecodeError, KeyError):
    return False


def read_history(workdir: str | os.PathLike) -> list[dict[str, Any]]:
  """The lines of a run's `metrics.jsonl`; none if there is no such file.

  Raises:
    UserError: it cannot be read.
  """
  path = files.as_path(workdir) / "metrics.jsonl"
  try:
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    # A last line without its end was cut off, as by a power cut, or is still being written.
    return [json.loads(line) for line in lines if line.endswith("\n")]
  except (OSError, ValueError) as error:
    raise UserError(f"{path} cannot be read ({error}): fix it.") from error


def curve(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
  """The rounds at which lines of `read_history` have a finite number of that name, and the number."""
  return [(line["step"], line[name]) for line in history if line.get(name) is not None]


def progress_line(
  step: int, rounds: int, metrics: Mapping[str, float], images_per_second: float, seconds_left: float
) -> str:
  """One line about a running training: round, losses, speed, time left ("?" while it is not known)."""
  pace = f"{images_per_second:.1f}" if math.isfinite(images_per_second) else "?"
  left = str(timedelta(seconds=round(seconds_left))) if math.isfinite(seconds_left) else "?"
  losses = [f"{name} {float(value):.5g}" for name, value in metrics.items() if "loss" in name]
  progress = f"round {step:>{len(f'{rounds:,}')},}/{rounds:,}"
  return "  ".join([progress, *losses, f"{pace} images/s", f"{left} left"])


def mean_metrics(history: Sequence[Metrics], step: int) -> tuple[dict[str, float], float]:
  """Means of the rounds' metrics over their images, and the images of a round.

  Raises:
    Diverged: one is not finite.
  """
  rounds = jax.device_get(list(history))
  counts = np.array([metrics.pop("images") for metrics in rounds])
  weights = counts if counts.any() else np.ones_like(counts)
  means = {name: float(np.average([r[name] for r in rounds], weights=weights)) for name in rounds[0]}
  for name, value in means.items():
    if not np.isfinite(value):
      raise Diverged(f"{name} is {value} at round {step}, whose state was not saved")
  return means, float(counts.mean())
