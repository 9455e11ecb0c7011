"""Folders in a bucket of Google Cloud Storage: their paths, and a lock that outlives no program for long.

A path is an `epath.Path`, which has the methods of `pathlib.Path` and calls gcsfs. A bucket has no folders,
nothing in it can be renamed or appended to, and an object that is written appears whole or not at all.
"""

import contextlib
import functools
import importlib.util
import itertools
import logging
import os
import platform
import posixpath
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from sr_jax.errors import Busy, TryAgain, UserError, explain

log = logging.getLogger(__name__)

SCHEME = "gs://"
MEND = "log in by `gcloud auth application-default login`, or ask for access to its objects"
LEASE = 60.0  # seconds without a renewal after which a lock is taken for that of a program that is dead
RENEWALS = 4  # in that time
NONE = "0"  # the generation of an object that is not there

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
      f"{SCHEME}{name}/{prefix} is in a bucket, and gcsfs is not installed: in the checkout, "
      "pip install -e '.[gcs]'."
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

  name = _parts(folder)[0]
  try:
    storage.Client().get_bucket(name)
  except Exception as error:
    raise UserError(
      f"The properties of {SCHEME}{name} cannot be read ({_reason(error)}), without which no old checkpoint "
      "is deleted: ask for storage.buckets.get, and set GOOGLE_CLOUD_PROJECT if no project is known."
    ) from error


def _parts(path: Path) -> tuple[str, str]:
  """The bucket, and the name in it."""
  name, _, key = str(path).removeprefix(SCHEME).partition("/")
  return name, key


def _reason(error: BaseException) -> str:
  return explain(error).what or f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def locked(folder: Path, wait: bool) -> Iterator[Callable[[], None]]:
  """A lock on `folder` for the time of the block, an object that is renewed meanwhile.

  A program that is killed leaves the object there: the next one watches it for LEASE seconds and takes it if
  it does not change. No clocks are compared, and every write is conditional on the generation that was read.

  Yields:
    What renews the lock at once; a TryAgain if another program has taken it.

  Raises:
    Busy: another program has it, and we do not `wait` for it.
  """
  lock, owner = folder / ".lock", secrets.token_hex(8)
  renewals, one_at_once, over = itertools.count(), threading.Lock(), threading.Event()

  def text() -> str:
    return f"{owner}: process {os.getpid()} on {platform.node()}, renewed {next(renewals)} times\n"

  generation = _acquire(lock, text(), wait)

  def renew() -> None:
    nonlocal generation
    with one_at_once:
      try:
        generation = _write(lock, text(), generation)
      except FileExistsError as error:
        raise TryAgain(
          f"The lock of {folder} was lost to another program, or deleted: see that one training alone works "
          "there, and the same command goes on."
        ) from error

  def keep() -> None:
    while not over.wait(LEASE / RENEWALS):
      try:
        renew()
      except UserError as error:
        log.error("%s", error)
        return
      except Exception:  # the network may come back
        continue

  thread = threading.Thread(target=keep, daemon=True)
  thread.start()
  try:
    yield renew
  finally:
    over.set()
    thread.join()
    with contextlib.suppress(Exception):  # a lock that stays costs the next program LEASE seconds
      bucket, key = _parts(lock)
      _client().call("DELETE", "b/{}/o/{}", bucket, key, ifGenerationMatch=generation)


def _acquire(lock: Path, text: str, wait: bool) -> str:
  """Write `text` once nobody has the lock; its generation."""
  seen, since = NONE, 0.0
  while True:
    held = _read(lock)[0]
    if held == NONE or (held == seen and time.monotonic() - since > LEASE):
      with contextlib.suppress(FileExistsError):  # somebody else was faster
        return _write(lock, text, held)
    elif held != seen:
      if seen != NONE and not wait:
        raise Busy(lock.parent)
      if seen == NONE:
        log.info("%s is locked: waiting up to %g seconds for a sign of life.", lock.parent, LEASE)
      seen, since = held, time.monotonic()
    time.sleep(min(1, LEASE / RENEWALS / 4))


def _read(lock: Path) -> tuple[str, str]:
  """The generation of the object and its text."""
  bucket, key = _parts(lock)
  try:
    headers, content = _client().call("GET", "b/{}/o/{}", bucket, key, alt="media")
  except FileNotFoundError:
    return NONE, ""
  return headers["x-goog-generation"], content.decode()


def _write(lock: Path, text: str, generation: str) -> str:
  """Replace the object of this generation; the new one's.

  Raises:
    FileExistsError: it is of another generation now, and not by ourselves.
  """
  bucket, key = _parts(lock)
  address = _client().base.replace("/storage/", "/upload/storage/") + "b/{}/o"
  query = {"uploadType": "media", "name": key, "ifGenerationMatch": generation}
  try:
    return _client().call("POST", address, bucket, data=text.encode(), json_out=True, **query)["generation"]
  except FileExistsError:
    found, content = _read(lock)
    if content.partition(":")[0] == text.partition(":")[0]:  # the answer to an earlier try was lost
      return found
    raise
