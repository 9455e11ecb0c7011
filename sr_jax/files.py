"""Files that appear whole or not at all, and a folder that one training has for itself."""

import contextlib
import fcntl
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sr_jax.errors import Busy, UserError


def local_folder(folder: str | Path, flag: str) -> Path:
  """The absolute path of a folder that `flag` names.

  Raises:
    UserError: it is the address of a bucket or the like.
  """
  if re.match(r"[A-Za-z][\w+.-]+:/", str(folder)):
    raise UserError(
      f"{flag} is {folder}, which is no folder of this machine: mount it there, gs:// by gcsfuse for example."
    )
  return Path(folder).expanduser().absolute()


def check_writable(folder: str | Path, flag: str) -> Path:
  """The absolute path of a folder, there or yet to be made, in which files can be written; it leaves none.

  Raises:
    UserError: it cannot be written, in the words of the system.
  """
  path = local_folder(folder, flag)
  try:
    nearest = next(p for p in (path, *path.parents) if p.exists())
    with tempfile.TemporaryFile(dir=nearest) as file:
      file.write(bytes(4096))  # a full disk may still make files
  except OSError as error:
    raise UserError(
      f"{flag} {folder} cannot be written ({error.strerror}): choose another folder, or mend it."
    ) from error
  return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
  """A temporary file beside `path` that takes its place once the block has ended well."""
  temporary = path.with_name(f".sr_jax.{secrets.token_hex(8)}")
  # A file of our own: a link that somebody else laid there is not followed.
  os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
  try:
    yield temporary
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
  """Writes a text file."""
  with replacing(path) as temporary:
    temporary.write_text(text)


@contextlib.contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
  """A lock on `folder` for the time of the block; it ends with the process, however that ends.

  Raises:
    Busy: another program has it, and we do not `wait` for it.
  """
  path = folder / ".lock"
  while True:
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o666), "a") as file:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
      except BlockingIOError as error:
        raise Busy(
          f"Another training is working in {folder}: wait for it, or choose another --workdir."
        ) from error
      # The one before may have removed the file between the two lines above.
      if not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino:
        continue
      try:
        yield
      finally:
        path.unlink(missing_ok=True)
      return
