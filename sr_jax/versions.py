"""What a run was made with: its config, versions, commit and devices."""

import functools
import hashlib
import importlib.metadata
import json
import logging
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

import sr_jax
from sr_jax import config as configs
from sr_jax import files

# Libraries that numbers depend on: arithmetic, then the order of records, decoding and resizing, and SSIM.
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "grain", "pillow", "dm-pix")
log = logging.getLogger(__name__)


def begin_part(workdir: Path, begin: int, images: str) -> dict[str, Any]:
  """The entry of versions.json for the rounds after `begin`; warns if earlier rounds had other images.

  Args:
    workdir: of the run.
    begin: rounds done before.
    images: `data.sources.summary` of those that are trained on.
  """
  earlier = _parts_before(workdir, begin)
  before = earlier[-1].get("images", images) if earlier else images
  if before != images and jax.process_index() == 0:
    log.warning(
      "The training images have changed, so from here on this is another run: %s, now %s.", before, images
    )
  return {"after_round": begin, **versions(), "images": images}


def write_versions(config: ConfigDict, workdir: Path, part: dict[str, Any]) -> None:
  """Writes config.json, and versions.json with the parts that began before `part`, and this one."""
  files.write_text(workdir / "config.json", configs.to_json(config) + "\n")
  parts = [*_parts_before(workdir, part["after_round"]), part]
  files.write_text(workdir / "versions.json", json.dumps(parts, indent=2) + "\n")


def _parts_before(workdir: Path, begin: int) -> list[dict[str, Any]]:
  """Those of versions.json that began before the round `begin`; an unreadable file has none."""
  try:
    parts = json.loads((workdir / "versions.json").read_text())
    return [part for part in parts if part["after_round"] < begin]
  except (OSError, ValueError, KeyError, TypeError):
    return []


@functools.cache
def versions() -> dict[str, Any]:
  """Versions of the package and of LIBRARIES, its commit, and the devices."""
  libraries = {name: importlib.metadata.version(name) for name in LIBRARIES}
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
