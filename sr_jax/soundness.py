"""What makes a checkpoint sound: all of its files, numbers that are finite, and digests that hold.

Orbax restores a flipped bit without a word. So a checkpoint's metadata hold a SHA-256 over the state, and
another over themselves.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.files import in_bucket
from sr_jax.method import State


def digest(state: State) -> str:
  """SHA-256 over every leaf."""
  total = hashlib.sha256()
  for leaf in jax.tree.leaves(state):
    total.update(np.ascontiguousarray(jax.device_get(leaf)).tobytes())
  return total.hexdigest()


def shapes(tree: Any) -> dict[str, str]:
  """Path of every leaf -> its type and shape, of arrays or of abstract ones."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def not_finite(state: State) -> str:
  """The path of a leaf that holds a number that is not finite; "" if all are."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    values = np.asarray(jax.device_get(leaf))
    if jnp.issubdtype(values.dtype, jnp.floating) and not np.isfinite(values.astype(np.float32)).all():
      return jax.tree_util.keystr(path)
  return ""


def seal(content: Mapping[str, Any]) -> dict[str, str]:
  """The metadata of a checkpoint as they are saved, for `unseal`."""
  text = json.dumps(content)
  return {"content": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def unseal(about: Mapping[str, str]) -> dict[str, Any]:
  """What was sealed. Raises ValueError, or KeyError, if it is damaged."""
  if hashlib.sha256(about["content"].encode()).hexdigest() != about["sha256"]:
    raise ValueError("its digest differs")
  return json.loads(about["content"])


def is_whole(checkpoint: Path) -> bool:
  """Whether Orbax has written all of it: it renames the folder then, or in a bucket marks it."""
  return not in_bucket(checkpoint) or (checkpoint / "commit_success.txt").exists()


def is_unfinished(path: Path) -> bool:
  """Whether Orbax began a checkpoint there and did not end it."""
  return path.name.endswith(".orbax-checkpoint-tmp") or (path.name.isdecimal() and not is_whole(path))


def whole_steps(folder: Path) -> list[int]:
  """The rounds of the whole checkpoints that are in `folder` now, the newest first."""
  found = folder.iterdir() if folder.is_dir() else ()
  return sorted((int(path.name) for path in found if path.name.isdecimal() and is_whole(path)), reverse=True)
