"""sr-jax: train, sweep, evaluate, upscale, prepare; config, show and diff tell what is what."""

import argparse
import hashlib
import json
import logging
import os
import platform
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import sr_jax
from sr_jax import config as configs
from sr_jax.errors import UserError

STOPPED = 75  # sysexits' EX_TEMPFAIL: the same command goes on

log = logging.getLogger(__name__)


def _begin(distributed: str = "") -> None:
  """Join the other processes, keep what is compiled for later programs, and say what this one runs on."""
  import jax

  from sr_jax import parallel

  if not (os.environ.get("JAX_COMPILATION_CACHE_DIR") or jax.config.values["jax_compilation_cache_dir"]):
    jax.config.update("jax_compilation_cache_dir", str(_cache_folder()))
  if distributed:
    parallel.start_processes(distributed)
  process, processes = parallel.process()
  if process:
    logging.getLogger("sr_jax").setLevel(logging.WARNING)
  log.info(
    "sr_jax %s, jax %s, %d x %s, process %d of %d",
    *(sr_jax.__version__, jax.__version__, jax.device_count(), jax.devices()[0].device_kind),
    *(process + 1, processes),
  )


def _cache_folder() -> Path:
  """Where compiled programs are kept: a folder for each kind of processor, as machines may share a home."""
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next(line for line in lines if line.startswith("flags"))
  except (OSError, StopIteration):  # not Linux, or not x86
    processor = platform.machine() + platform.processor()
  kind = hashlib.sha256(processor.encode()).hexdigest()[:12]
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sr_jax" / "xla" / kind


def _train(arguments: argparse.Namespace, overrides: list[str]) -> int:
  config = configs.override(configs.load(arguments.config), overrides)
  from sr_jax import parallel
  from sr_jax.evaluate import evaluate_run
  from sr_jax.stages import Sources, check_evaluation
  from sr_jax.sweep import train_stages

  _begin(arguments.distributed)
  sources = Sources()
  check_evaluation(config, sources)
  run = train_stages(config, arguments.workdir, sources)
  done, rounds = int(run.state.step), run.config.train.rounds
  if done < rounds:
    print(f"Stopped after round {done} of {rounds}; the same command goes on from there.")
    return STOPPED
  run = run._replace(state=parallel.localise(run.state))
  test = sources(config.eval.data, "config.eval.data")
  print(evaluate_run(run, arguments.workdir, arguments.command, test).text)
  return 0


def _sweep(arguments: argparse.Namespace, overrides: list[str]) -> int:
  from sr_jax.sweep import Trial, sweep

  module = configs.load_module(arguments.config)
  if "sweep" not in module:
    raise UserError(
      f"--config {arguments.config} defines no sweep(): see configs/amap_swiss_roll.py for one that does."
    )
  trials = [Trial(*trial) for trial in module["sweep"]()]

  def configure(trial: Trial) -> ConfigDict:
    name = arguments.config + (f":{trial.variant}" if trial.variant else "")
    ours = [f"--config.{key}={value}" for key, value in trial.overrides.items()]
    return configs.override(configs.load(name), [*ours, *overrides])

  _begin()
  text = sweep(trials, configure, arguments.workdir, arguments.command)
  if not text:
    print("Stopped; the same command goes on from there.")
    return STOPPED
  print(text)
  return 0


def _evaluate(arguments: argparse.Namespace, overrides: list[str]) -> int:
  from sr_jax.evaluate import evaluate_run
  from sr_jax.run import load_run, saved_config
  from sr_jax.stages import Sources, check_evaluation

  _begin(arguments.distributed)
  config = configs.override(saved_config(arguments.workdir), overrides)
  run, sources = load_run(arguments.workdir, config), Sources()
  check_evaluation(config, sources)
  test = sources(config.eval.data, "config.eval.data")
  print(evaluate_run(run, arguments.out or arguments.workdir, arguments.command, test).text)
  return 0


def _upscale(arguments: argparse.Namespace, overrides: list[str]) -> int:
  _refuse(overrides, "upscale")
  from sr_jax.upscale import upscale_file

  _begin()
  paths = upscale_file(
    arguments.image,
    arguments.workdir,
    arguments.out,
    samples=arguments.samples,
    seed=arguments.seed,
    temperature=arguments.temperature,
  )
  if len(paths) < arguments.samples:
    log.info("All samples would be equal: one was written.")
  print("\n".join(map(str, paths)))
  return 0


def _prepare(arguments: argparse.Namespace, overrides: list[str]) -> int:
  _refuse(overrides, "prepare")
  from sr_jax.data import prepare

  print(prepare(arguments.name, arguments.data_dir, arguments.source))
  return 0


def _config(arguments: argparse.Namespace, overrides: list[str]) -> int:
  if arguments.name:
    _print_keys(configs.override(configs.load(arguments.name), overrides))
    return 0
  for name in configs.names():
    text = " ".join((configs.load_module(name)["__doc__"] or "").split())
    variants = re.search(r"Variants(?: as in \w+|: [^.;]+)", re.sub(r" \([^)]*\)", "", text))
    print(f"{name}\n  {text.partition('. ')[0].rstrip('.')}." + (f" {variants[0]}." if variants else ""))
  return 0


def _show(arguments: argparse.Namespace, overrides: list[str]) -> int:
  _refuse(overrides, "show")
  from sr_jax.run import load_run

  run, folder = load_run(arguments.workdir), Path(arguments.workdir)
  print(run)
  for part in json.loads((folder / "versions.json").read_text()):
    print(", ".join(f"{key} {value}" for key, value in part.items() if value != ""))
  if (table := folder / "evaluation" / "table.md").exists():
    print(f"\n{table.read_text()}")
  print("config:")
  _print_keys(run.config)
  return 0


def _diff(arguments: argparse.Namespace, overrides: list[str]) -> int:
  _refuse(overrides, "diff")
  from sr_jax.run import saved_config

  a, b = (
    saved_config(name) if Path(name).is_dir() else configs.load(name) for name in (arguments.a, arguments.b)
  )
  for key, (ours, theirs) in configs.differences(a, b).items():
    print(f"{key}: {ours!r} -> {theirs!r}")
  return 0


def _print_keys(config: ConfigDict) -> None:
  for key, value in configs.flatten(config).items():
    print(f"{key} = {value!r}")


def _refuse(overrides: list[str], verb: str) -> None:
  if overrides:
    raise UserError(f"{overrides[0]!r} is no option of {verb}: see sr-jax {verb} --help.")


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser("sr-jax", description="Probabilistic image super-resolution in JAX.")
  parser.add_argument("--version", action="version", version=f"sr_jax {sr_jax.__version__}")
  verbs = parser.add_subparsers(dest="verb", required=True)

  def verb(name: str, run: Any, text: str, **options: Any) -> argparse.ArgumentParser:
    shows_defaults = argparse.ArgumentDefaultsHelpFormatter
    added = verbs.add_parser(
      name, help=text, description=text, allow_abbrev=False, formatter_class=shows_defaults, **options
    )
    added.set_defaults(run=run)
    return added

  # Help shows a default where there is one.
  no_default: dict[str, Any] = {"default": argparse.SUPPRESS}
  any_key = "Any key of the config is set by --config.KEY=VALUE; `sr-jax config NAME` lists them."
  train = verb("train", _train, "train a config, or go on with it, then evaluate it", epilog=any_key)
  train.add_argument(
    "--config", required=True, help="name of a config or path of a Python file [:VARIANT]", **no_default
  )
  train.add_argument(
    "--workdir", required=True, help="folder of the run: checkpoints, metrics, tables", **no_default
  )

  sweep = verb("sweep", _sweep, "train what the sweep() of a config lists, into one table", epilog=any_key)
  sweep.add_argument(
    "--config", required=True, help="name of a config, or path of a Python file", **no_default
  )
  sweep.add_argument(
    "--workdir", required=True, help="folder of the sweep: a folder for each run, and the table", **no_default
  )

  evaluate = verb("evaluate", _evaluate, "measure a trained run beside the baselines", epilog=any_key)
  evaluate.add_argument("--workdir", required=True, help="folder of a trained run", **no_default)
  evaluate.add_argument("--out", default="", help="folder to write evaluation/ into; empty: the run's")

  for several in (train, evaluate):
    several.add_argument(
      "--distributed",
      nargs="?",
      const="auto",
      default="",
      metavar="HOST:PORT,NUMBER,COUNT",
      help="this is one of several processes; without a value the cluster says which",
    )

  upscale = verb("upscale", _upscale, "plausible enlargements of one image")
  upscale.add_argument("image", help="a PNG, JPEG, ... file")
  upscale.add_argument("--workdir", required=True, help="folder of a trained run", **no_default)
  upscale.add_argument("--out", default=".", help="folder for the PNG files")
  upscale.add_argument("--samples", type=_positive, default=4, help="how many images")
  upscale.add_argument("--seed", type=_seed, default=0, help="of the draws")
  upscale.add_argument(
    "--temperature",
    type=float,
    default=1.0,
    help="1: the model, larger: more diverse, 0: draw nothing (greedy decoding, or the latent 0)",
  )

  prepare = verb("prepare", _prepare, "prepare a TFDS data set as array_record, once")
  prepare.add_argument("name", help="the data set's TFDS name, mnist_idx or mnist_corners")
  prepare.add_argument("--data-dir", default="", help="where data sets are kept; empty: TFDS's own folder")
  prepare.add_argument("--from", dest="source", default="", help="folder of the original files (MNIST's)")

  config = verb("config", _config, "print the keys of a config, or list all configs", epilog=any_key)
  config.add_argument(
    "name", nargs="?", default="", help="name of a config or path of a Python file [:VARIANT]"
  )
  show = verb("show", _show, "tell what a run is: method, versions, results, config")
  show.add_argument("workdir", help="folder of a trained run")
  diff = verb("diff", _diff, "print the keys in which two runs or configs differ")
  for name in ("a", "b"):
    diff.add_argument(name, help="folder of a run, or name of a config")
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
  # Modules of the user's in the folder where the command runs, after all installed ones.
  sys.path.append(os.getcwd())
  try:
    return arguments.run(arguments, overrides)
  except UserError as error:
    print(f"sr-jax: {error}", file=sys.stderr)
    code = 2
  except BrokenPipeError:  # whoever reads the output has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 0
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
