"""The verbs that only look at what is there: runs, evaluations and configs."""

import argparse
import json
import re

from ml_collections import ConfigDict

from sr_jax import config as configs
from sr_jax import ledger
from sr_jax.errors import UserError, tell
from sr_jax.files import absolute, as_path, name_of, read_text, write_text


def compare(arguments: argparse.Namespace, overrides: list[str]) -> int:
  refuse(overrides, "compare")
  from sr_jax import compare as comparing

  tell(comparing.compare(arguments.runs, arguments.metric, arguments.images, arguments.seed))
  return 0


def report(arguments: argparse.Namespace, overrides: list[str]) -> int:
  refuse(overrides, "report")
  from sr_jax.compare import compare
  from sr_jax.report.html import page, read_material

  page_file = absolute(arguments.out, "--out")
  folders, texts = [], []
  for folder in map(as_path, arguments.runs):
    table = folder / "sweep.md"
    if table.exists() or (folder / ledger.NAME).exists():
      texts += [read_text(table)] if table.exists() else []
      folders += sorted(path.parent for path in folder.glob("*/config.json"))
    else:
      folders.append(folder)
  runs = [read_material(folder) for folder in folders]
  evaluated = [
    str(folder)
    for folder, run in zip(folders, runs, strict=True)
    # A helper, such as a classifier, draws none of the images that its config asks for.
    if run.table.strip() and (run.images or not run.config.get("eval.images"))
  ]
  if len(evaluated) > 1:
    try:
      texts.append(compare(evaluated))
    except UserError as error:
      texts.append(f"No comparison: {error}")
  title = ", ".join(map(name_of, arguments.runs))
  try:
    write_text(page_file, page(title, runs, texts, arguments.samples))
  except OSError as error:
    raise UserError(
      f"--out {arguments.out} cannot be written ({error.strerror or error}): choose another."
    ) from error
  tell(arguments.out)
  return 0


def config(arguments: argparse.Namespace, overrides: list[str]) -> int:
  if arguments.name:
    _print_keys(configs.override(configs.load(arguments.name), overrides))
    return 0
  refuse(overrides, "config without NAME")
  for name in configs.names():
    header = configs.load_module(name)["__doc__"] or ""
    text = header.partition("\n")[0]
    if variants := re.search(r"Variants[: ].*?\.(?=\s|$)", header, re.DOTALL):
      text += f" {' '.join(variants[0].split())}"
    print(f"{name}\n  {text}")
  return 0


def show(arguments: argparse.Namespace, overrides: list[str]) -> int:
  refuse(overrides, "show")
  from sr_jax.run import load_run

  run, folder = load_run(arguments.workdir), as_path(arguments.workdir)
  tell(run)
  made = folder / "versions.json"  # not yet there if the training was killed at its first checkpoint
  for part in json.loads(made.read_text()) if made.exists() else ():
    tell(", ".join(f"{key} {value}" for key, value in part.items() if value != ""))
  if (table := folder / "evaluation" / "table.md").exists():
    tell(f"\n{read_text(table)}")
  print("config:")
  _print_keys(run.config)
  return 0


def diff(arguments: argparse.Namespace, overrides: list[str]) -> int:
  refuse(overrides, "diff")
  from sr_jax.run import saved_config

  a, b = (
    saved_config(name) if as_path(name).is_dir() else configs.load(name)
    for name in (arguments.a, arguments.b)
  )
  for key, (ours, theirs) in configs.differences(a, b).items():
    print(f"{key}: {ours!r} -> {theirs!r}")
  return 0


def _print_keys(config: ConfigDict) -> None:
  for key, value in configs.flatten(config).items():
    print(f"{key} = {value!r}")


def refuse(overrides: list[str], verb: str) -> None:
  if overrides:
    raise UserError(
      f"{overrides[0]!r} is no option of {verb}: see sr-jax {verb.split(maxsplit=1)[0]} --help."
    )
