"""sr-jax: train, sweep, evaluate, upscale, prepare."""

import argparse
import importlib
import logging
import os
import pkgutil
import runpy
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from sr_jax.errors import UserError, choose

STOPPED = 75  # sysexits' EX_TEMPFAIL: the same command goes on


def load_module(name: str) -> dict[str, Any]:
  """What a config file defines, by the config's name (see `configs/`) or the path of a Python file.

  Raises:
    UserError: there is none.
  """
  if not name.endswith(".py"):
    folder = importlib.import_module("sr_jax.configs").__path__
    names = {info.name: info.name for info in pkgutil.iter_modules(folder) if info.name != "base"}
    return vars(importlib.import_module(f"sr_jax.configs.{choose(names, name, '--config')}"))
  if not Path(name).is_file():
    raise UserError(f"--config {name} is no file: give a config's name or the path of a Python file.")
  try:
    return runpy.run_path(name)
  except Exception as error:  # it is a program of the user's
    raise _failing(name, error) from error


def load_config(name: str) -> ConfigDict:
  """The config that get_config() of `name` (see `load_module`) returns; NAME:VARIANT gives it the variant.

  Raises:
    UserError: there is none.
  """
  name, colon, variant = name.partition(":")
  module = load_module(name)
  if "get_config" not in module:
    raise UserError(f"--config {name} defines no get_config(): give a file that does, as configs/base.py.")
  try:
    config = module["get_config"](variant) if colon else module["get_config"]()
  except UserError:
    raise
  except Exception as error:
    raise _failing(name, error) from error
  if not isinstance(config, ConfigDict):
    raise UserError(f"--config {name}: its get_config() must return a ConfigDict, as configs/base.py does.")
  return config


def _failing(name: str, error: Exception) -> UserError:
  return UserError(f"--config {name} fails ({type(error).__name__}: {error}): mend it.")


def override(config: ConfigDict, arguments: Sequence[str]) -> ConfigDict:
  """The config with `--config.key=value` arguments applied, locked.

  Raises:
    UserError: an unknown key or a value of another type.
  """
  for argument in arguments:
    key = argument.removeprefix("--config.").split("=", 1)[0]
    if not argument.startswith("--config.") or "=" not in argument:
      raise UserError(f"{argument!r} is no option: keys of the config are set by --config.KEY=VALUE.")
    if key.endswith("method.name") or key == "network.name":
      raise UserError(f"{argument!r}: other methods and networks have other keys, choose another --config.")
    _check_key(config, key)
  values, words = flags.FlagValues(), ["sr-jax", *arguments]
  try:
    config_flags.DEFINE_config_dict("config", config.lock(), flag_values=values, sys_argv=words)
    values(words)
  except (flags.Error, TypeError, ValueError) as error:
    raise UserError(f"{str(error).splitlines()[0].rstrip('.')}: correct its value.") from error
  return values.config


def _check_key(config: ConfigDict, key: str) -> None:
  """Refuse a key that the config has not, naming the nearest one."""
  node, path = config, "config"
  for part in key.split("."):
    keys = {k: k for k in node} if isinstance(node, ConfigDict) else {}
    if not keys:
      what = (
        "has no keys" if isinstance(node, ConfigDict) else f"is a value, not a section: set --{path}=VALUE"
      )
      raise UserError(f"{path} {what}.")
    choose(keys, part, f"key of {path}")
    node, path = node[part], f"{path}.{part}"


def _train(arguments: argparse.Namespace, overrides: list[str]) -> int:
  config = override(load_config(arguments.config), overrides)
  from sr_jax import parallel
  from sr_jax.evaluate import check_eval, evaluate_run, make_watch
  from sr_jax.sweep import train_stages

  if arguments.distributed:
    parallel.start_processes(arguments.distributed)
  check_eval(config)
  run = train_stages(config, arguments.workdir, make_watch)
  done, rounds = int(run.state.step), run.config.train.rounds
  if done < rounds:
    print(f"Stopped after round {done} of {rounds}; the same command goes on from there.")
    return STOPPED
  run = run._replace(state=parallel.localise(run.state))
  print(evaluate_run(run, arguments.workdir, arguments.command).text)
  return 0


def _sweep(arguments: argparse.Namespace, overrides: list[str]) -> int:
  from sr_jax.sweep import Trial, sweep

  module = load_module(arguments.config)
  if "sweep" not in module:
    raise UserError(
      f"--config {arguments.config} defines no sweep(): see configs/amap_swiss_roll.py for one that does."
    )
  trials = [Trial(*trial) for trial in module["sweep"]()]

  def configure(trial: Trial) -> ConfigDict:
    name = arguments.config + (f":{trial.variant}" if trial.variant else "")
    ours = [f"--config.{key}={value}" for key, value in trial.overrides.items()]
    return override(load_config(name), [*ours, *overrides])

  text = sweep(trials, configure, arguments.workdir, arguments.command)
  if not text:
    print("Stopped; the same command goes on from there.")
    return STOPPED
  print(text)
  return 0


def _evaluate(arguments: argparse.Namespace, overrides: list[str]) -> int:
  from sr_jax import parallel
  from sr_jax.evaluate import check_eval, evaluate_run
  from sr_jax.run import load_run, saved_config

  if arguments.distributed:
    parallel.start_processes(arguments.distributed)
  config = override(saved_config(arguments.workdir), overrides)
  run = load_run(arguments.workdir, config)
  check_eval(config)
  print(evaluate_run(run, arguments.out or arguments.workdir, arguments.command).text)
  return 0


def _upscale(arguments: argparse.Namespace, overrides: list[str]) -> int:
  if overrides:
    raise UserError(f"{overrides[0]!r} is no option of upscale: see sr-jax upscale --help.")
  from sr_jax.upscale import upscale_file

  paths = upscale_file(
    arguments.image,
    arguments.workdir,
    arguments.out,
    samples=arguments.samples,
    seed=arguments.seed,
    temperature=arguments.temperature,
  )
  print("\n".join(map(str, paths)))
  return 0


def _prepare(arguments: argparse.Namespace, overrides: list[str]) -> int:
  if overrides:
    raise UserError(f"{overrides[0]!r} is no option of prepare: see sr-jax prepare --help.")
  from sr_jax.data import prepare

  print(prepare(arguments.name, arguments.data_dir, arguments.source))
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser("sr-jax", description="Probabilistic image super-resolution in JAX.")
  verbs = parser.add_subparsers(dest="verb", required=True)

  def verb(name: str, run, text: str, **keys) -> argparse.ArgumentParser:
    added = verbs.add_parser(name, help=text, description=text, allow_abbrev=False, **keys)
    added.set_defaults(run=run)
    return added

  keys_are = "Any key of the config is set by --config.KEY=VALUE; configs/base.py explains them."
  train = verb("train", _train, "train a config, or go on with it, then evaluate it", epilog=keys_are)
  train.add_argument("--config", required=True, help="name of a config or path of a Python file [:VARIANT]")
  train.add_argument("--workdir", required=True, help="folder of the run: checkpoints, metrics, tables")

  sweep = verb("sweep", _sweep, "train what the sweep() of a config lists, into one table", epilog=keys_are)
  sweep.add_argument("--config", required=True, help="name of a config, or path of a Python file")
  sweep.add_argument(
    "--workdir", required=True, help="folder of the sweep: a folder for each run, and the table"
  )

  evaluate = verb("evaluate", _evaluate, "measure a trained run beside the baselines", epilog=keys_are)
  evaluate.add_argument("--workdir", required=True, help="folder of a trained run")
  evaluate.add_argument("--out", help="folder to write evaluation/ into, instead of the run's")

  for several in (train, evaluate):
    several.add_argument(
      "--distributed",
      nargs="?",
      const="auto",
      metavar="HOST:PORT,NUMBER,COUNT",
      help="this is one of several processes; without a value the cluster says which",
    )

  upscale = verb("upscale", _upscale, "plausible enlargements of one image")
  upscale.add_argument("image", help="a PNG, JPEG, ... file")
  upscale.add_argument("--workdir", required=True, help="folder of a trained run")
  upscale.add_argument("--out", default=".", help="folder for the PNG files")
  upscale.add_argument("--samples", type=_positive, default=4, help="how many images")
  upscale.add_argument("--seed", type=_seed, default=0)
  upscale.add_argument("--temperature", type=float, default=1.0, help="1: the model, 0: its mode")

  prepare = verb("prepare", _prepare, "prepare a TFDS data set as array_record, once")
  prepare.add_argument("name", help="the data set's TFDS name, mnist_idx or mnist_corners")
  prepare.add_argument("--data-dir", default="", help="where data sets are kept; TFDS's own place by default")
  prepare.add_argument("--from", dest="source", default="", help="folder of the original files (MNIST's)")
  return parser


def _positive(text: str) -> int:
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError("must be 1 or more")
  return value


def _seed(text: str) -> int:
  value = int(text)
  if not 0 <= value < 2**31:
    raise argparse.ArgumentTypeError("must lie between 0 and 2147483647")
  return value


def main(argv: Sequence[str] | None = None) -> int:
  """Run the command line; returns the exit code: 0, 2 for what the user can mend, 75 for a stopped run."""
  argv = list(sys.argv[1:] if argv is None else argv)
  arguments, overrides = _parser().parse_known_args(argv)
  arguments.command = shlex.join(["sr-jax", *argv])
  # Our own lines, without the libraries' chatter.
  logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
  logging.getLogger("sr_jax").setLevel(logging.INFO)
  try:
    return arguments.run(arguments, overrides)
  except UserError as error:
    print(f"sr-jax: {error}", file=sys.stderr)
    code = 2
  except KeyboardInterrupt:
    print("sr-jax: interrupted; what was saved stays, and the same command goes on.", file=sys.stderr)
    code = 130
  except Exception:
    traceback.print_exc()
    code = 1
  if getattr(arguments, "distributed", None):
    # The other processes wait for this one in a collective: only its end wakes them.
    sys.stderr.flush()
    os._exit(code)
  return code


if __name__ == "__main__":
  sys.exit(main())
