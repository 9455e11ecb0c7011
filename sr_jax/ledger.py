"""The ledger of a sweep: its trials, whose numbers and ids stay as they are when others are added."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sr_jax import files
from sr_jax.errors import TryAgain, UserError

NAME = "ledger.json"
LONGEST = 200  # bytes of a trial's name, its folder's: file systems take 255


class Trial(NamedTuple):
  """One run of a sweep: what the sweep() of a config file yields, as a tuple.

  Attributes:
    row: its row in the table; trials that share a row (other seeds) are averaged.
    variant: what get_config is called with; "" for nothing.
    overrides: {"seed": 3, "optim.generator.learning_rate": 1e-3}, as --config.KEY=VALUE would set them. In
      their values "{workdir}" stands for the sweep's folder: {"eval.classifier": "{workdir}/NAME"} names an
      earlier trial.
  """

  row: str
  variant: str = ""
  overrides: Mapping[str, Any] = {}


def make_trial(listed: Any) -> Trial:
  """What a sweep() yields as a trial.

  Raises:
    UserError: it is no such tuple.
  """
  kinds = (str, str, Mapping)
  if not (
    isinstance(listed, tuple | list) and 0 < len(listed) <= len(kinds) and all(map(isinstance, listed, kinds))
  ):
    raise UserError(f"sweep() yields {listed!r}: let it yield tuples (row, variant, {{key: value}}).")
  return Trial(*listed)


class Entry(NamedTuple):
  """A line of the ledger.

  Attributes:
    number: its place in the ledger, for `--trial`.
    id: the name of the trial's folder.
    trial: the trial.
  """

  number: int
  id: str
  trial: Trial


def number_trials(trials: Iterable[Trial], workdir: str | Path) -> list[Entry]:
  """The trials with their numbers and ids: those of the ledger in `workdir`, or the next free ones.

  A trial that is no longer in sweep() keeps its number. Nothing is written.

  Raises:
    UserError: two trials are the same, or the ledger cannot be read.
  """
  known, trials = _read(workdir), list(trials)
  taken = {line["id"] for line in known}
  entries, added = [], 0
  for name, trial in _names(trials).items():
    number = next((i for i, line in enumerate(known) if line == _line(line["id"], trial)), -1)
    if number < 0:
      number, added = len(known) + added, added + 1
      entries.append(Entry(number, f"{name}_{number}" if name in taken else name, trial))
    else:
      entries.append(Entry(number, known[number]["id"], trial))
  return entries


def write(entries: Iterable[Entry], workdir: str | Path) -> None:
  """Add the entries that the ledger in `workdir` lacks.

  Raises:
    TryAgain: another program has added other trials since they were numbered.
  """
  known, entries = _read(workdir), list(entries)
  if any(known[e.number : e.number + 1] not in ([], [_line(e.id, e.trial)]) for e in entries):
    raise TryAgain(f"Another program has just added trials to {workdir}: start again.")
  lines = known + [_line(e.id, e.trial) for e in entries if e.number >= len(known)]
  if lines != known:
    folder = files.as_path(workdir)
    files.make(folder)
    files.write_text(folder / NAME, json.dumps(lines, indent=1) + "\n")


def _line(name: str, trial: Trial) -> dict[str, Any]:
  overrides = {key: str(value) for key, value in trial.overrides.items()}
  return {"id": name, "row": trial.row, "variant": trial.variant, "overrides": overrides}


def _read(workdir: str | Path) -> list[dict[str, Any]]:
  path = files.as_path(workdir) / NAME
  try:
    lines = json.loads(path.read_text())
    if not (isinstance(lines, list) and all(isinstance(line, dict) and "id" in line for line in lines)):
      raise ValueError("it is no list of trials")
    return lines
  except FileNotFoundError:
    return []
  except (OSError, ValueError) as error:
    raise UserError(f"{path} cannot be read ({error}): fix it, or choose another --workdir.") from error


def _names(trials: list[Trial]) -> dict[str, Trial]:
  """The trials by the names of their folders: the row, and the overrides that tell apart its trials.

  Raises:
    UserError: two are the same.
  """
  names: dict[str, Trial] = {}
  for trial in trials:
    alike = [other for other in trials if other.row == trial.row]
    differing = [
      key
      for key, value in trial.overrides.items()
      if any(str(other.overrides.get(key)) != str(value) for other in alike)
    ]
    words = [trial.row, *([trial.variant] if any(o.variant != trial.variant for o in alike) else [])]
    words += [f"{key.rsplit('.', 1)[-1]}={trial.overrides[key]}" for key in differing]
    name = "_".join("".join(c if c.isalnum() or c in "=.-+" else "-" for c in word) for word in words)
    if name in names:
      raise UserError(f"sweep() lists {name} twice: give each trial its row or its own overrides.")
    if not name.strip(".") or len(name.encode()) > LONGEST:
      raise UserError(
        f"sweep() lists a trial {name[:50]!r}, which cannot be a folder's name: choose rows and overrides "
        f"that give names of at most {LONGEST} bytes, and not of dots alone."
      )
    names[name] = trial
  return names
