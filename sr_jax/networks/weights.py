"""Weight files of frozen networks."""

import hashlib
from collections.abc import Mapping

import numpy as np

from sr_jax.errors import UserError
from sr_jax.files import on_disk, read_npz


def read_arrays(path: str, key: str, sha256: str, way_out: str = "") -> dict[str, np.ndarray]:
  """The arrays of an .npz file, by name.

  Args:
    path: of the file; environment variables and ~ are expanded.
    key: of the config that names it.
    sha256: its digest; "": not checked.
    way_out: how to do without it, for the error of a path that is "".

  Raises:
    UserError: it is not named, missing, another than its digest says, or no such file.
  """
  if not path:
    raise UserError(f"{key} is empty: name an .npz file of weights there{way_out and f', or {way_out}'}.")
  file = on_disk(path, key)
  if not file.is_file():
    raise UserError(f"{key} is {file}, which does not exist: correct it.")
  if sha256 and (found := hashlib.sha256(file.read_bytes()).hexdigest()) != sha256.lower():
    raise UserError(f"{file}, which {key} names, has the SHA-256 digest {found}, not {sha256}.")
  try:
    return read_npz(file)
  except (OSError, ValueError) as error:
    raise UserError(f"{file} is no .npz file of arrays: convert the weights to one.") from error


def flax_convolution(arrays: Mapping[str, np.ndarray], layer: str) -> dict[str, np.ndarray]:
  """A convolution under PyTorch's names, kernel OIHW, as Flax keeps one: kernel HWIO and bias [O], float32.

  Raises:
    KeyError: `arrays` has no such layer.
  """
  kernel, bias = (np.asarray(arrays[f"{layer}.{name}"], np.float32) for name in ("weight", "bias"))
  return {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
