"""TFDS data sets by name, and preparing them once, as array_record."""

import contextlib
import sys
from typing import Any

import tensorflow_datasets as tfds

from sr_jax.data import builders  # noqa: F401  (registers our own data sets)
from sr_jax.errors import UserError


def tfds_builder(name: str, data_dir: str) -> Any:
  """The TFDS builder of data set `name`; UserError if there is none. data_dir "" is TFDS's default."""
  try:
    return tfds.builder(name, data_dir=data_dir or None)
  except ImportError as error:
    raise _needs_tensorflow(name) from error
  except (ValueError, AssertionError) as error:  # an unknown data set, config or version
    reason = str(error).partition("\n")[0]
    raise UserError(f"TFDS knows no data set {name!r} ({reason}): see tensorflow.org/datasets.") from error


def prepare(name: str, data_dir: str = "", from_dir: str = "") -> str:
  """Prepares a TFDS data set as array_record and returns its folder; nothing happens if it is there.

  Several processes may do it at once: each writes a folder of its own, the first to finish renames it.

  Args:
    name: a data set, perhaps with config and version, as TFDS writes them.
    data_dir: where prepared data sets are kept; "" for TFDS's default.
    from_dir: the folder with the original files, of a data set that TFDS cannot download.

  Raises:
    UserError: the name is unknown, TensorFlow or the original files are missing, or TFDS fails.
  """
  builder = tfds_builder(name, data_dir)
  manual = {"manual_dir": from_dir} if from_dir else {}
  try:
    with contextlib.redirect_stdout(sys.stderr):  # TFDS prints its progress
      builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(**manual), file_format="array_record"
      )
  except ImportError as error:
    raise _needs_tensorflow(name) from error
  except Exception as error:  # whatever a data set's own code raises
    if not tfds_builder(name, data_dir).is_prepared():
      if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and isinstance(error, AssertionError | FileNotFoundError):
        hint = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise UserError(f"{name} needs its original files: give their folder with --from. {hint}") from error
      raise UserError(f"{name} could not be prepared in {builder.data_dir_root}: {error}") from error
  return str(builder.data_path)


def _needs_tensorflow(name: str) -> UserError:
  return UserError(f"Preparing {name} needs TensorFlow, once: in the checkout, pip install -e '.[tf]'")
