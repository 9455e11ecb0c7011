"""Several processes as one job: they start alike, and none waits for one that has failed or is stuck.

They talk through the key-value store of JAX's coordinator, which process 0 keeps: a collective would be of no
use between processes that differ, and waits without a limit.
"""

import atexit
import contextlib
import faulthandler
import itertools
import json
import math
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
from jax._src import distributed  # JAX has no public way to its key-value store

from sr_jax.errors import STOPPED, TRY_AGAIN, TryAgain, UserError, printable
from sr_jax.files import make, missing

ARRIVAL = 600  # seconds for which processes wait for each other's config and data
SHARED = 30  # seconds after which all must see a file that one wrote: network file systems are late
FAREWELL = 5  # seconds for which a process that ends waits for the others to hear of it
# Seconds after the watchdog's deadline at which faulthandler, which needs no lock, ends a process whose
# interpreter is stuck. Its exit code is 1, but the other processes have ended with TRY_AGAIN by then.
LAST_RESORT = 30

# Times the watchdog's seconds for all that is not a round: compiling, saving, measuring a batch of images.
SLOW = 6

_FAILED = "sr_jax/failed"
_rounds = itertools.count()
_ending = threading.Lock()
_watching: list[Callable[..., None]] = []  # the `alive` of the watchdog that there is, if any


def agree(facts: Mapping[str, Any], folder: Path | None = None, kind: type[UserError] = UserError) -> None:
  """Refuse to go on if processes of this job differ; a single process agrees with itself.

  Args:
    facts: what must be the same everywhere, by the names under which people know it; JSON values.
    folder: what must be one folder for all of them; made if it is missing, and then removed again.
    kind: of the error.

  Raises:
    UserError: the same sentence on every process.
    TryAgain: one has not come.
  """
  client, here, count = _job()
  if count == 1:
    return
  place = f"sr_jax/agree/{next(_rounds)}"

  def read(name: str, process: int) -> Any:
    try:
      return json.loads(client.blocking_key_value_get(f"{place}/{name}", ARRIVAL * 1000))
    except jax.errors.JaxRuntimeError as error:
      raise TryAgain(
        f"Process {process} has not said within {ARRIVAL} seconds what it runs: look at what it printed."
      ) from error

  def write(name: str, value: Any) -> None:
    client.key_value_set(f"{place}/{name}", json.dumps(value))

  if here == 0:
    with _token(folder) if folder else contextlib.nullcontext("") as token:
      write("facts", [facts, token])
      verdicts = [read(f"verdict/{process}", process) for process in range(1, count)]
    verdict = next(filter(None, verdicts), "")
    write("verdict", verdict)
  else:
    theirs, token = read("facts", 0)
    ours = json.loads(json.dumps(facts))  # tuples are lists there
    found = difference(theirs, ours, here)
    if not found and folder and not sees(folder, token, SHARED):
      found = (
        f"--workdir {folder} is not the same folder in process 0 and in process {here}: give one that all "
        "processes see, on a shared file system."
      )
    write(f"verdict/{here}", found)
    verdict = read("verdict", 0)
  if verdict:
    raise kind(verdict)


def meet() -> None:
  """Wait until every process of this job is here, because one may have to wait for its lock.

  Raises:
    TryAgain: one has not come.
  """
  client, _, count = _job()
  if count == 1:
    return
  try:
    client.wait_at_barrier(f"sr_jax/meet/{next(_rounds)}", ARRIVAL * 1000)
  except jax.errors.JaxRuntimeError as error:
    raise TryAgain(
      f"Not all {count} processes have come within {ARRIVAL} seconds to where the training begins: look at "
      "what the others printed."
    ) from error


def difference(theirs: Mapping[str, Any], ours: Mapping[str, Any], process: int) -> str:
  """What the facts of process 0 and of another one differ in, in a sentence; "" if in nothing."""
  for name in dict.fromkeys((*theirs, *ours)):
    there, here = (facts.get(name, "missing") for facts in (theirs, ours))
    if there != here:
      return (
        f"The processes of one job must do the same, but {name} is {there!r} in process 0 and {here!r} in "
        f"process {process}: start all with one command, the same data and the same versions."
      )
  return ""


@contextlib.contextmanager
def _token(folder: Path) -> Iterator[str]:
  """The name of a new file in `folder`, which is there for the time of the block."""
  made = missing(folder)
  path = folder / f".shared-{uuid.uuid4().hex}"
  try:
    make(folder)
    path.touch()
  except OSError as error:
    raise UserError(
      f"--workdir {folder} cannot be written ({error.strerror or error}): choose another."
    ) from error
  try:
    yield path.name
  finally:
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
      for empty in made:
        empty.rmdir()


def sees(folder: Path, name: str, seconds: float) -> bool:
  """Whether `folder` has a file `name`, now or within some seconds."""
  deadline = time.monotonic() + seconds
  while not (folder / name).exists():
    if time.monotonic() > deadline:
      return False
    time.sleep(min(1, seconds / 4))
  return True


def listen() -> None:
  """From now on, end this process when another one of its job says that it ends (`end`)."""
  faulthandler.enable()  # JAX aborts a process whose job has lost another one
  over = threading.Event()

  def hear() -> None:
    client = _job()[0]
    while not over.wait(1):
      with contextlib.suppress(jax.errors.JaxRuntimeError):  # nobody has said anything
        process, code, reason = json.loads(client.key_value_try_get(_FAILED))
        _leave(code, f"sr-jax: process {process} ended: {printable(reason)}")

  thread = threading.Thread(target=hear, daemon=True)
  thread.start()

  @atexit.register  # before JAX's own leave; Python must not end while the thread is in the middle of a call
  def stop() -> None:
    over.set()
    thread.join(FAREWELL)  # it waits for a coordinator that is stuck


def end(code: int, reason: str, shown: str = "") -> NoReturn:
  """End this process at once, and within seconds all others of its job, with the same exit code.

  Args:
    code: of the first process that ends; later ones are not heard.
    reason: why, which the others print.
    shown: what this one prints, if it is not ending already because of another one.
  """
  client, here, _ = _job()
  _leave(code, shown, lambda: client.key_value_set(_FAILED, json.dumps([here, code, reason])))


def end_on_sigterm() -> None:
  """From now on SIGTERM ends the job (STOPPED): JAX catches it, and only a training asks JAX for it."""
  if _job()[0] is not None:
    signal.signal(signal.SIGTERM, lambda *_: end(STOPPED, "told to stop; the same command goes on."))


def _leave(code: int, shown: str, tell: Callable[[], None] = lambda: None) -> NoReturn:
  """Print `shown`, `tell` the others, wait a little until they hear it, and end this process."""
  client, here, count = _job()
  # Never released: another thread, or the code that a signal has interrupted, is about to end this process.
  if not _ending.acquire(timeout=2 * FAREWELL):
    os._exit(code)

  def farewell() -> None:
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      tell()
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      client.wait_at_barrier("sr_jax/end", FAREWELL * 1000)

  if shown:
    print(shown, file=sys.stderr)
  if count > 1:
    # In a thread: a coordinator that is stuck itself never answers.
    thread = threading.Thread(target=farewell, daemon=True)
    thread.start()
    thread.join(FAREWELL + 1)
    time.sleep(here == 0)  # the coordinator's end aborts whoever is still there
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


@contextlib.contextmanager
def watchdog(seconds: float) -> Iterator[Callable[..., None]]:
  """Inside, a process of several that is stuck prints the stacks of all its threads and ends (TRY_AGAIN).

  It is stuck if the yielded `alive` is not called again within `seconds`, or `alive(times=n)` within n times
  as many. There is no watchdog if `seconds` is 0, or in a single process, for which nobody waits. Inside
  another watchdog none is started: the yielded `alive` is the outer one's.
  """
  if _watching or not seconds or _job()[2] == 1:
    yield _watching[0] if _watching else lambda times=1: None
    return
  deadline, over = math.inf, threading.Event()

  def alive(times: int = 1) -> None:
    nonlocal deadline
    deadline = time.monotonic() + times * seconds
    faulthandler.dump_traceback_later(times * seconds + LAST_RESORT, exit=True)

  def watch() -> None:
    while not over.wait(min(1, seconds / 4)):
      if time.monotonic() > deadline:
        reason = "stuck for longer than config.train.watchdog allows; the same command goes on."
        print(f"sr-jax: {reason} The stacks of all threads:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback()
        end(TRY_AGAIN, reason)

  watching = threading.Thread(target=watch, daemon=True)
  watching.start()
  _watching.append(alive)
  try:
    yield alive
  finally:
    _watching.clear()
    over.set()
    watching.join()  # it may be about to end this process
    faulthandler.cancel_dump_traceback_later()


def _job() -> tuple[Any, int, int]:
  """The client of the coordinator (None if there is none), this process's number and how many there are."""
  state = distributed.global_state
  return state.client, state.process_id, state.num_processes
