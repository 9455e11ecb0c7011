"""Files that appear whole or not at all, and a folder that one training has for itself."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from sr_jax.errors import Busy


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
  """A temporary file beside `path` that takes its place once the block has ended well."""
  # Programs on other machines may write the same file, with the same process number.
  temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}")
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
    with path.open("a") as file:
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
