"""Folders of images as a random-access sequence."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from sr_jax.data.records import Record, decode
from sr_jax.errors import UserError
from sr_jax.files import expand
from sr_jax.images import image_suffixes


def check_data_dir(root: Path, cfg: ConfigDict, key: str) -> None:
  """Refuse a folder of images, or one that does not exist, in the place of TFDS's data_dir."""
  if not root.is_dir():
    raise UserError(
      f"{key}.dir is {cfg.dir!r}, which does not exist: give the folder of images with {key}.name=folder, or "
      f"the one in which the TFDS data set {cfg.name!r} is prepared."
    )
  prepared, suffixes = root / cfg.name.partition("/")[0], image_suffixes()
  if not prepared.is_dir() and any(path.suffix.lower() in suffixes for path in _files(root, set())):
    raise UserError(
      f"{key}.dir is {cfg.dir!r}, a folder of images, but {key}.name is the TFDS data set {cfg.name!r}: "
      f"set {key}.name=folder."
    )


class Folder:
  """The images of one or more folders, sorted by path within each; no copy is made.

  Of `split`, such as "train[:90%]" or "test[-100:]", only the brackets count: they take that part of each
  folder's sorted images. Files smaller than `min_bytes` are left out first.
  """

  def __init__(
    self, folders: str, lr_folders: str, channels: int, key: str, split: str = "", min_bytes: int = 0
  ):
    self.channels = channels
    roots = [self._root(part, f"{key}.dir") for part in _each(expand(folders))]
    files = []
    for root in roots:
      found = [path.relative_to(root) for path in _images(root) if path.stat().st_size >= min_bytes]
      files.append(found[_part(split, len(found), f"{key}.split")])
    if not any(files):
      raise UserError(f"{key}.split {split!r} and {key}.min_bytes {min_bytes} leave no image: widen them.")
    self.files = [root / file for root, found in zip(roots, files, strict=True) for file in found]
    self.lr_files: list[Path] = []
    if lr_folders:
      lr_roots = [self._root(part, f"{key}.lr_dir") for part in _each(expand(lr_folders))]
      if len(lr_roots) != len(roots):
        raise UserError(
          f"{key}.lr_dir has {len(lr_roots)} folders and {key}.dir {len(roots)}: give one for each, in order."
        )
      self.lr_files = [root / file for root, found in zip(lr_roots, files, strict=True) for file in found]
      missing = [path for path in self.lr_files if not path.is_file()]
      if missing:
        raise UserError(
          f"{len(missing)} low-resolution images are missing, the first is {missing[0]}: give {key}.lr_dir a "
          "file of the same name for each image."
        )

  @staticmethod
  def _root(part: str, key: str) -> Path:
    root = Path(part).expanduser()
    if not part or not root.is_dir():
      raise UserError(f"{key}: there is no folder {str(root) if part else ''!r}: give a folder of images.")
    return root

  def __len__(self) -> int:
    return len(self.files)

  def __getitem__(self, i: int) -> Record:
    record: Record = {"hr": decode(self.files[i], str(self.files[i]), self.channels)}
    if self.lr_files:
      record["lr"] = decode(self.lr_files[i], str(self.lr_files[i]), self.channels)
    return record

  def name(self, i: int) -> str:
    return str(self.files[i])


def _part(split: str, count: int, key: str) -> slice:
  """The brackets of a split, in percent or records, as a slice of `count` records; all without brackets."""
  match = re.fullmatch(r"\w*(?:\[(-?\d+%?)?:(-?\d+%?)?\])?", split)
  if not match:
    raise UserError(
      f"{key} is {split!r}, which is no part of a folder: use brackets, such as train[:90%] or [-100:]."
    )

  def position(text: str | None) -> int | None:
    return round(count * int(text[:-1]) / 100) if text and text.endswith("%") else int(text) if text else None

  return slice(position(match[1]), position(match[2]))


def _each(folders: str) -> list[str]:
  """The folders that colons separate; one whose own name has a colon is itself."""
  return [folders] if Path(folders).is_dir() else folders.split(":")


def _files(folder: Path, around: set[str]) -> Iterator[Path]:
  """All visible files below a folder; symbolic links are followed, but not back into a folder above."""
  if (real := os.path.realpath(folder)) in around:
    return
  for path in folder.iterdir():
    if path.name.startswith("."):  # such as .thumbnails or .ipynb_checkpoints
      continue
    if path.is_dir():
      yield from _files(path, around | {real})
    else:
      yield path


def _images(root: Path) -> list[Path]:
  """The visible files under `root` with the extension of an image format that PIL reads, sorted."""
  suffixes = image_suffixes()
  found = (p for p in _files(root, set()) if p.suffix.lower() in suffixes)
  files = sorted((p for p in found if p.is_file()), key=lambda p: p.relative_to(root).as_posix())
  if not files:
    raise UserError(f"The folder {str(root)!r} has no images in it: choose another.")
  return files
