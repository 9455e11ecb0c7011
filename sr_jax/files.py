"""Folders here and in buckets, files that appear whole or not at all, and a folder for one training alone."""

import contextlib
import errno
import fcntl
import io
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sr_jax import bucket
from sr_jax.errors import Busy, UserError

PAUSE = 60  # seconds between two copies of what grows, which go into a bucket whole


def as_path(folder: str | os.PathLike, flag: str = "") -> Path:
  """The path of a folder or file of this machine, where ~ is expanded, or of a bucket, gs://BUCKET/FOLDER.

  Raises:
    UserError: it is another address, or a bucket that cannot be used; `flag` says where it was given.
  """
  text = os.fspath(folder)
  if text.startswith(bucket.SCHEME):
    return bucket.path(text)
  if re.match(r"[A-Za-z][\w+.-]+:/", text):
    raise UserError(
      f"{flag}{' is ' * bool(flag)}{text}, which is neither of this machine nor of a bucket, "
      "gs://BUCKET/FOLDER: give one of these, or mount it."
    )
  return Path(os.path.expanduser(text))


def in_bucket(path: Path) -> bool:
  """Whether `as_path` has found it to be in a bucket."""
  return not isinstance(path, Path)


def absolute(folder: str | os.PathLike, flag: str) -> Path:
  """The absolute path of what `flag` names, see `as_path`."""
  path = as_path(folder, flag)
  return path if in_bucket(path) else path.absolute()


def on_disk(file: str | os.PathLike, flag: str) -> Path:
  """The path of a file of this machine that `flag` names; environment variables and ~ are expanded.

  Raises:
    UserError: it is in a bucket, or a variable is not set.
  """
  text = expand(os.fspath(file))
  if text.startswith(bucket.SCHEME):
    raise UserError(f"{flag} is {text}, which is in a bucket: copy it to this machine and name it here.")
  return Path(text)


def expand(path: str) -> str:
  """`path` with ~ and environment variables filled in; raises UserError where a variable is not set."""
  for name in re.findall(r"\$\{?(\w+)", path):
    if not os.environ.get(name):
      raise UserError(
        f"The environment variable {name} in {path!r} is not set: "
        f"run `export {name}=/path/to/it` first, or write the path itself in the config."
      )
  return os.path.expanduser(os.path.expandvars(path))


def name_of(folder: str | os.PathLike) -> str:
  """The last part of a folder's path, also of "." and ".."."""
  path = as_path(folder)
  return path.name if in_bucket(path) else path.resolve().name


def missing(folder: Path) -> list[Path]:
  """The folder and its parents, as far as they do not exist yet; a bucket has none."""
  return [] if in_bucket(folder) else [p for p in (folder, *folder.parents) if not p.exists()]


def make(folder: Path) -> None:
  """Make a folder and its missing parents; a bucket needs none."""
  if not in_bucket(folder):
    folder.mkdir(parents=True, exist_ok=True)


def check_writable(folder: str | os.PathLike, flag: str) -> Path:
  """The absolute path of a folder, existing or not, after a test that files can be written there.

  Raises:
    UserError: it cannot be written, in the words of the system.
  """
  path = absolute(folder, flag)
  if in_bucket(path):
    bucket.check_writable(path, flag)
    return path
  try:
    nearest = next(p for p in (path, *path.parents) if p.exists())
    with tempfile.TemporaryFile(dir=nearest) as file:
      file.write(bytes(4096))  # a full disk may still make files
  except OSError as error:
    raise UserError(
      f"{flag} {folder} cannot be written ({error.strerror}): choose another folder, or fix it."
    ) from error
  return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
  """A temporary file of this machine that takes the place of `path` once the block has ended well."""
  if in_bucket(path):
    with tempfile.TemporaryDirectory() as folder:
      yield Path(folder) / path.name
      path.write_bytes((Path(folder) / path.name).read_bytes())
    return
  if path.exists() and not (path.is_file() or path.is_dir()):  # such as /dev/null, which root could replace
    raise OSError(errno.EINVAL, "it is a device and no file", str(path))
  temporary = path.with_name(f".sr_jax.{secrets.token_hex(8)}")
  # A file of our own: a link that somebody else laid there is not followed.
  os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
  try:
    yield temporary
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
  """Writes a text file: UTF-8 whatever the locale, but bytes of file names that are none stay as they are."""
  with replacing(path) as temporary:
    temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def read_text(path: Path) -> str:
  """What `write_text` wrote."""
  return path.read_bytes().decode("utf-8", "surrogateescape")


def read_npz(path: Path) -> dict[str, Any]:
  """The arrays of an .npz file, by name.

  Raises:
    OSError: it cannot be read.
    ValueError: it is damaged, or something else.
  """
  import numpy as np

  content = io.BytesIO(path.read_bytes())
  try:
    with np.load(content) as arrays:
      return {name: arrays[name] for name in arrays.files}
  except Exception as error:  # zlib's, zipfile's, tokenize's, ...: whatever the bytes lead to
    raise ValueError(f"no archive of arrays: {error}") from error


@contextlib.contextmanager
def growing(
  folder: Path, *names: str, check: Callable[[], None] | None = None
) -> Iterator[tuple[Path, Callable[..., None]]]:
  """Where files of `folder` can be appended to, and a function that brings them into `folder`.

  That is `folder` itself, which is made; or for a bucket a temporary one, from which those that changed are
  copied when the function is called and at the end. Called with `PAUSE` it does so at most once in that time.

  Args:
    folder: of the files.
    names: of those that go on; the others begin anew.
    check: called before anything is copied into a bucket; raises if that is not to be.
  """
  if not in_bucket(folder):
    make(folder)
    yield folder, lambda pause=0: None
    return
  copied: dict[Path, tuple[int, int]] = {}
  since = time.monotonic()

  def state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns

  def copy(pause: float = 0) -> None:
    nonlocal since
    if time.monotonic() - since < pause:
      return
    since = time.monotonic()
    if check:
      check()
    for path in filter(Path.is_file, here.rglob("*")):
      if copied.get(path) != (now := state(path)):
        (folder / path.relative_to(here)).write_bytes(path.read_bytes())
        copied[path] = now

  with tempfile.TemporaryDirectory() as temporary:
    here = Path(temporary)
    for name in names:
      with contextlib.suppress(FileNotFoundError):
        (here / name).write_bytes((folder / name).read_bytes())
        copied[here / name] = state(here / name)
    try:
      yield here, copy
    finally:
      copy()


def remove_tree(folder: Path) -> None:
  """Delete a folder and what is in it."""
  if in_bucket(folder):
    folder.rmtree()  # type: ignore[attr-defined]  # of epath
  else:
    shutil.rmtree(folder)


@contextlib.contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[Callable[[], None]]:
  """A lock on `folder` for the time of the block; it ends with the process, however that ends.

  In a bucket it ends up to a minute later if the process was killed (`bucket.locked`), and can be lost.

  Yields:
    What raises a UserError if the lock was lost.

  Raises:
    Busy: another program has it, and we do not `wait` for it.
    UserError: its file cannot be one.
  """
  if in_bucket(folder):
    with bucket.locked(folder, wait) as renew:
      yield renew
    return
  path = folder / ".lock"
  while True:
    try:
      opened = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o666)
    except OSError as error:
      if error.errno not in (errno.ELOOP, errno.EISDIR):
        raise
      raise UserError(f"{path} is a link or a folder, and not the file that locks: delete it.") from error
    with open(opened, "a") as file:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
      except BlockingIOError as error:
        raise Busy(folder) from error
      # The one before may have removed the file between the two lines above.
      try:
        if os.fstat(file.fileno()).st_ino != path.stat().st_ino:
          continue
      except FileNotFoundError:
        continue
      try:
        yield lambda: None
      finally:
        path.unlink(missing_ok=True)
      return
