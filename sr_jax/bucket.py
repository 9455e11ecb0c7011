"""Folders in a bucket of Google Cloud Storage: their paths, and a lock that outlives no program for long.

A path is an `epath.Path`, which has the methods of `pathlib.Path` and calls gcsfs. A bucket has no folders,
nothing in it can be renamed or appended to, and an object that is written appears whole or not at all.
"""

import contextlib
import functools
import importlib.util
import logging
import os
import platform
import posixpath
import re
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from sr_jax.errors import Busy, UserError, explain

log = logging.getLogger(__name__)

SCHEME = "gs://"
MEND = "log in by `gcloud auth application-default login`, or ask for access to its objects"
LEASE = 60.0  # seconds without a renewal after which a lock is taken for that of a program that is dead
RENEWALS = 4  # in that time

# epath would prefer TensorFlow, which has no client for buckets any more; it looks once, at its first path.
os.environ.setdefault("EPATH_USE_TF", "false")


def path(address: str) -> Path:
  """The path of gs://BUCKET/FOLDER, for which `pathlib.Path` stands as the type.

  Raises:
    UserError: gcsfs is not installed, or there is no such bucket, or none that we may list.
  """
  from etils import epath

  address = SCHEME + posixpath.normpath(address.removeprefix(SCHEME))
  name, _, prefix = address.removeprefix(SCHEME).partition("/")
  if name not in _reached:
    _reach(name, prefix)
    _reached.add(name)
  return cast(Path, epath.Path(address))


_reached: set[str] = set()


def _reach(name: str, prefix: str) -> None:
  """Ask for one object of the bucket, so that what is wrong with it is told before anything else is done."""
  if not re.fullmatch(r"[a-z0-9][\w.-]+[a-z0-9]", name):
    raise UserError(f"{SCHEME}{name}/{prefix} names no bucket: write gs://BUCKET/FOLDER.")
  if not importlib.util.find_spec("gcsfs"):
    raise UserError(
      f"{SCHEME}{name}/{prefix} is in a bucket, and gcsfs is not installed: pip install sr_jax[gcs]."
    )
  try:
    _client().call("GET", "b/{}/o", name, prefix=prefix, maxResults=1)
  except FileNotFoundError as error:
    raise UserError(f"There is no bucket {SCHEME}{name}: correct the address.") from error
  except Exception as error:  # of gcsfs, aiohttp, google.auth
    raise UserError(f"The bucket {SCHEME}{name} cannot be read ({_reason(error)}): {MEND}.") from error


@functools.cache
def _client() -> Any:
  import fsspec
  from fsspec.config import conf

  # Other programs write there too. Whatever makes a client, epath for one, reads this.
  conf.setdefault("gcs", {})["use_listings_cache"] = False
  return fsspec.filesystem("gcs")


def check_writable(folder: Path, flag: str) -> None:
  """Write an object into the folder and delete it.

  Raises:
    UserError: that is refused.
  """
  probe = folder / f".sr_jax.{secrets.token_hex(8)}"
  try:
    probe.write_bytes(b"")
    probe.unlink()
  except Exception as error:
    raise UserError(f"{flag} {folder} cannot be written ({_reason(error)}): {MEND}.") from error


def check_properties(folder: Path) -> None:
  """Ask for the bucket's properties, which Orbax does before it deletes a checkpoint.

  Raises:
    UserError: that is refused.
  """
  from google.cloud import storage

  name = str(folder).removeprefix(SCHEME).partition("/")[0]
  try:
    storage.Client().get_bucket(name)
  except Exception as error:
    raise UserError(
      f"The properties of {SCHEME}{name} cannot be read ({_reason(error)}), without which no old checkpoint "
      "is deleted: ask for storage.buckets.get, and set GOOGLE_CLOUD_PROJECT if no project is known."
    ) from error


def _reason(error: BaseException) -> str:
  return explain(error)[0] or f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def locked(folder: Path, wait: bool) -> Iterator[None]:
  """A lock on `folder` for the time of the block, an object that is renewed meanwhile.

  What ends without a farewell leaves the object there: whoever comes next watches it for LEASE seconds, and
  takes it if it does not change. No clocks are compared.

  Raises:
    Busy: another program has it, and we do not `wait` for it.
  """
  lock, owner = folder / ".lock", secrets.token_hex(8)

  def text(renewals: int) -> bytes:
    return f"{owner}: process {os.getpid()} on {platform.node()}, renewed {renewals} times\n".encode()

  def renew() -> None:
    renewals = 0
    while not over.wait(LEASE / RENEWALS):
      with contextlib.suppress(Exception):  # the network may come back
        if not _content(lock).startswith(owner):
          log.error("The lock of %s was taken by another program: end one of the two.", folder)
          return
        renewals += 1
        lock.write_bytes(text(renewals))

  _acquire(lock, text(0), wait)
  over = threading.Event()
  thread = threading.Thread(target=renew, daemon=True)
  thread.start()
  try:
    yield
  finally:
    over.set()
    thread.join()
    with contextlib.suppress(Exception):  # a lock that stays costs the next program LEASE seconds
      if _content(lock).startswith(owner):
        lock.unlink()


def _acquire(lock: Path, text: bytes, wait: bool) -> None:
  seen, since = "", 0.0
  while True:
    held = _content(lock)
    if held and held == seen and time.monotonic() - since > LEASE:
      lock.unlink(missing_ok=True)
      held = ""
    if not held:
      with contextlib.suppress(FileExistsError):  # somebody else was faster
        _client().pipe_file(str(lock), text, mode="create")
        return
    elif held != seen:
      if seen and not wait:
        raise Busy(lock.parent)
      if not seen:
        log.info("%s is locked: waiting up to %g seconds for a sign of life.", lock.parent, LEASE)
      seen, since = held, time.monotonic()
    time.sleep(min(1, LEASE / RENEWALS / 4))


def _content(lock: Path) -> str:
  try:
    return lock.read_text()
  except FileNotFoundError:
    return ""
