"""Metrics over the rounds of a training, and its progress line."""

import contextlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter

from sr_jax import files
from sr_jax.errors import Diverged
from sr_jax.method import Metrics
from sr_jax.report.tables import finite


class Writer:
  """Metrics over the rounds: `metrics.jsonl`, one object a line, and TensorBoard files in `events/`.

  Nothing is opened before the first `write`. A run that was killed after its last checkpoint does some
  rounds again: their old lines, and a half-written one, are dropped when the file is opened.
  """

  def __init__(self, workdir: str | os.PathLike, start: int, enabled: bool = True):
    """Writes into `workdir` from round `start` + 1 on; with `enabled` False `write` does nothing."""
    self._workdir, self._start, self._enabled = Path(workdir), start, enabled
    self._files = contextlib.ExitStack()
    self._lines: Any = None
    self._events: Any = None

  def __enter__(self) -> "Writer":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Adds the metrics of round `step`. A number that is not finite is null in the JSON line."""
    if not self._enabled:
      return
    if self._lines is None:
      self._open()
    now = time.time()
    self._lines.write(json.dumps({"step": step, "time": round(now, 3), **finite(metrics)}) + "\n")
    for name, value in metrics.items():
      self._events.add_scalar(name, float(value), step, now)

  def close(self) -> None:
    """Closes what is open; a later `write` is an error."""
    self._files.close()

  def _open(self) -> None:
    self._workdir.mkdir(parents=True, exist_ok=True)
    path = self._workdir / "metrics.jsonl"
    if path.exists():
      lines = path.read_text().splitlines(keepends=True)
      files.write_text(path, "".join(line for line in lines if _is_before(line, self._start)))
    self._lines = self._files.enter_context(path.open("a", buffering=1))
    # tensorboardX names its files by the second and overwrites: the suffix keeps two apart.
    self._events = self._files.enter_context(
      SummaryWriter(
        str(self._workdir / "events"),
        purge_step=self._start + 1,
        flush_secs=10,
        filename_suffix=f".{time.time_ns()}",
      )
    )


def _is_before(line: str, start: int) -> bool:
  try:
    return line.endswith("\n") and json.loads(line)["step"] <= start
  except (json.JSONDecodeError, KeyError):
    return False


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
      raise Diverged(
        f"{name} is {value} at round {step}, whose state was not saved: lower the learning rate in "
        "config.optim or set its clip, and start anew in another --workdir."
      )
  return means, float(counts.mean())
