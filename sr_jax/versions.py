"""What a run was made with: its config, versions, commit and devices."""

import functools
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

import sr_jax
from sr_jax import config as configs
from sr_jax import files


def write_versions(config: ConfigDict, workdir: Path, begin: int, images: str) -> None:
  """Writes config.json, and adds to versions.json what made the rounds after `begin`.

  Args:
    images: `data.sources.summary` of those that are trained on.
  """
  files.write_text(workdir / "config.json", configs.to_json(config) + "\n")
  parts = [*_parts(workdir, begin), {"after_round": begin, **versions(), "images": images}]
  files.write_text(workdir / "versions.json", json.dumps(parts, indent=2) + "\n")


def images_before(workdir: Path, begin: int) -> str:
  """What `write_versions` was told of the images of the rounds before `begin`; "" if nothing."""
  parts = _parts(workdir, begin)
  return str(parts[-1].get("images", "")) if parts else ""


def _parts(workdir: Path, begin: int) -> list[dict[str, Any]]:
  """The parts of a run that began before the round `begin`; those of an unreadable file are forgotten."""
  try:
    return [
      part for part in json.loads((workdir / "versions.json").read_text()) if part["after_round"] < begin
    ]
  except (OSError, ValueError, KeyError, TypeError):
    return []


@functools.cache
def versions() -> dict[str, Any]:
  """Versions of the package and of the libraries that numbers depend on, its commit, and the devices."""
  libraries = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
  return {
    "sr_jax": sr_jax.__version__,
    "commit": _commit(),
    "python": platform.python_version(),
    **libraries,
    "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    "processes": jax.process_count(),
  }


def code() -> str:
  """The start of a SHA-256 over the package's files: a commit does not tell what was changed since."""
  total = hashlib.sha256()
  for folder in (*sr_jax.__path__, *sr_jax.configs.__path__):
    for path in sorted(Path(folder).rglob("*.py")):
      total.update(path.read_bytes())
  return total.hexdigest()[:12]


def _commit() -> str:
  """The commit that the package's files come from, with "+" if they were changed since; or ""."""
  root = Path(sr_jax.__file__).resolve().parents[1]
  if not (root / ".git").exists():
    return ""

  def git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()

  try:
    return git("rev-parse", "--short=12", "HEAD") + "+" * bool(git("status", "--porcelain", "-uno"))
  except OSError:  # no git here
    return ""
