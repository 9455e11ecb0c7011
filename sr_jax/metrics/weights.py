"""Weight files of the networks that metrics see by."""

import hashlib
import zipfile

import numpy as np

from sr_jax.errors import UserError
from sr_jax.files import on_disk


def read_arrays(path: str, key: str, sha256: str) -> dict[str, np.ndarray]:
  """The arrays of an .npz file, by name.

  Args:
    path: of the file.
    key: its own, under `config.eval`.
    sha256: its digest; "": not checked.

  Raises:
    UserError: it is not named, missing, another than its digest says, or no such file.
  """
  if not path:
    raise UserError(
      f"Metrics by a network need weights: name their file in config.eval.{key}, or take lpips, s_n, "
      "frechet_squeeze and their like out of config.eval.metrics."
    )
  file = on_disk(path, f"config.eval.{key}")
  if not file.is_file():
    raise UserError(f"config.eval.{key} is {file}, which does not exist: correct it.")
  if sha256 and (found := hashlib.sha256(file.read_bytes()).hexdigest()) != sha256.lower():
    raise UserError(f"{file} of config.eval.{key} has the SHA-256 digest {found}, not {sha256}.")
  try:
    with np.load(file) as arrays:
      return {name: arrays[name] for name in arrays.files}
  except (ValueError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
    raise UserError(f"{file} is no .npz file of arrays: convert the weights to one.") from error
