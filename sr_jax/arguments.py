"""The verbs of sr-jax and their options; `commands`, `inspection` and `sweep_commands` carry them out."""

import argparse
import math
from typing import Any

import sr_jax
from sr_jax import commands, inspection, sweep_commands
from sr_jax.targets import TARGETS


class _Help(argparse.ArgumentDefaultsHelpFormatter):
  def _get_help_string(self, action: argparse.Action) -> str | None:
    """With the default, where there is one to tell."""
    none = action.default in ("", None, ()) or action.default is False
    return action.help if none else super()._get_help_string(action)


def make_parser() -> argparse.ArgumentParser:
  """The verbs of `sr-jax`; each sets `run`: (arguments, --config.KEY=VALUE words) -> exit code."""
  parser = argparse.ArgumentParser("sr-jax", description="Probabilistic image super-resolution in JAX.")
  parser.add_argument("--version", action="version", version=f"sr_jax {sr_jax.__version__}")
  verbs = parser.add_subparsers(dest="verb", required=True)

  def verb(name: str, run: Any, text: str, **options: Any) -> argparse.ArgumentParser:
    added = verbs.add_parser(
      name, help=text, description=text, allow_abbrev=False, formatter_class=_Help, **options
    )
    added.set_defaults(run=run)
    return added

  # Help shows a default where there is one.
  no_default: dict[str, Any] = {"default": argparse.SUPPRESS}
  any_key = "Any key of the config is set by --config.KEY=VALUE; `sr-jax config NAME` lists them."
  train = verb("train", commands.train, "train a config, or go on with it, then evaluate it", epilog=any_key)
  train.add_argument(
    "--config", required=True, help="name of a config or path of a Python file [:VARIANT]", **no_default
  )
  train.add_argument(
    "--workdir", required=True, help="folder of the run: checkpoints, metrics, tables", **no_default
  )

  sweep = verb(
    "sweep", sweep_commands.sweep, "train what the sweep() of a config lists, into one table", epilog=any_key
  )
  sweep.add_argument(
    "--config", required=True, help="name of a config, or path of a Python file", **no_default
  )
  sweep.add_argument(
    "--workdir", required=True, help="folder of the sweep: a folder for each run, and the table", **no_default
  )
  sweep.set_defaults(trial=None, table=None)
  part = sweep.add_mutually_exclusive_group()
  part.add_argument(
    "--jobs",
    type=_positive,
    default=1,
    metavar="K",
    help="number of trials that run at the same time on this machine",
  )
  part.add_argument("--trial", type=int, metavar="N", help="this trial alone", **no_default)
  part.add_argument(
    "--list", action="store_true", help="print number, id and state of every trial; run nothing"
  )
  part.add_argument(
    "--table",
    nargs="?",
    const="",
    metavar="METRIC",
    help="write the table of what is finished and a plot of METRIC, or of the first one; run nothing",
    **no_default,
  )

  reproduce = verb(
    "reproduce",
    sweep_commands.reproduce,
    "print a paper's table beside our numbers, or draw its figure from our runs; trains what is missing",
    epilog=any_key,
  )
  reproduce.set_defaults(trial=None)
  reproduce.add_argument("paper", nargs="?", default="", metavar="PAPER", help="without it: list all")
  reproduce.add_argument("name", nargs="?", default="", metavar="NAME", help="such as table1 or figure2")
  reproduce.add_argument("--workdir", default="", help="folder of the sweep, which may be there already")
  reproduce.add_argument(
    "--config", default="", help="config whose sweep makes it, of those that PAPER lists; empty: the first"
  )
  reproduce.add_argument(
    "--jobs", type=_positive, default=1, metavar="K", help="number of trials that run at the same time"
  )
  reproduce.add_argument("--read", action="store_true", help="show what is finished; run nothing")

  evaluate = verb("evaluate", commands.evaluate, "measure a trained run beside the baselines", epilog=any_key)
  evaluate.add_argument("--workdir", required=True, help="folder of a trained run", **no_default)
  evaluate.add_argument(
    "--images",
    default="",
    metavar="FOLDER",
    help="measure on all images there, cut and resized as the run's test set is; empty: on that set",
  )
  evaluate.add_argument(
    "--out", default="", help="folder to write evaluation/ into; empty: the run's, whose tables are replaced"
  )
  evaluate.add_argument(
    "--save-samples", default="", metavar="FOLDER", help="write all samples there, as `score` reads them"
  )

  for several in (train, sweep, evaluate):
    several.add_argument(
      "--distributed",
      nargs="?",
      const="auto",
      default="",
      metavar="HOST:PORT,NUMBER,COUNT",
      help="this is one of several processes; without a value the cluster says which",
    )

  score = verb(
    "score",
    commands.score,
    "score the samples that any program wrote, by NTIRE 2021's protocol",
    epilog="How inputs are made, more metrics and LPIPS's weights are set by --config.operator.KEY=VALUE, "
    "--config.eval.metrics=..., --config.eval.lpips.KEY=VALUE.",
  )
  score.add_argument("folder", help="folder of NAME_sample00000.png, NAME_sample00001.png, ...")
  score.add_argument("--truth", required=True, help="folder of the true images", **no_default)
  score.add_argument(
    "--lr", default="", help="folder of the low-resolution inputs; empty: they are made from the truths"
  )
  score.add_argument("--out", default="", help="folder to write evaluation/ into; empty: none")

  compare = verb("compare", inspection.compare, "compare evaluations of one test set, image by image")
  compare.add_argument("runs", nargs="+", metavar="RUN", help="folder of an evaluated run, or --out of score")
  compare.add_argument(
    "--metric", default="", help="metric by which the most different images are found; empty: the first"
  )
  compare.add_argument(
    "--images", type=_positive, default=5, help="how many of the most different images are named"
  )
  compare.add_argument("--seed", type=_seed, default=0, help="seed of the bootstrap")

  report = verb("report", inspection.report, "write runs, a sweep or a comparison as one HTML page")
  report.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run or a sweep, or --out of score")
  report.add_argument("--out", default="report.html", help="the page")
  report.add_argument(
    "--samples",
    type=_positive,
    default=4,
    help="samples of each image on the page, at most; the page grows with them",
  )

  upscale = verb("upscale", commands.upscale, "plausible enlargements of images")
  upscale.add_argument("images", nargs="+", metavar="IMAGE", help="a PNG, JPEG, ... file")
  upscale.add_argument("--workdir", required=True, help="folder of a trained run", **no_default)
  upscale.add_argument("--out", default=".", help="folder for the PNG files")
  upscale.add_argument("--samples", type=_count, default=4, help="how many of each image")
  upscale.add_argument("--seed", type=_seed, default=0, help="seed of the samples")
  upscale.add_argument(
    "--temperature",
    type=float,
    default=1.0,
    help="1: the model; larger: more diverse; 0: no randomness (greedy decoding, or the latent's mean)",
  )
  upscale.add_argument(
    "--memory",
    type=_positive,
    default=2048,
    help="MiB that the networks' activations may take; an image that needs more is made in tiles",
  )
  upscale.set_defaults(margin=None)
  upscale.add_argument(
    "--margin",
    type=_natural,
    help="context around a tile, in pixels of the input; left out: the receptive field, which is exact",
    **no_default,
  )

  edit = verb(
    "edit", commands.edit, "grids of images whose latents are edited, swapped or interpolated", epilog=any_key
  )
  # Set before they are added without a default, so that the help shows none.
  edit.set_defaults(attribute=None, attributes="", transfer=False, interpolate="")
  edit.add_argument("--workdir", required=True, help="folder of a trained run", **no_default)
  mode = edit.add_mutually_exclusive_group(required=True)
  mode.add_argument(
    "--attribute",
    metavar="NAME",
    help="move each input's latent along this attribute's mean code",
    **no_default,
  )
  mode.add_argument(
    "--transfer", action="store_true", help="every input with the code of every image", **no_default
  )
  mode.add_argument(
    "--interpolate",
    choices=("posterior", "prior"),
    help="from each image's code to the next one's, or between two draws, in --steps",
    **no_default,
  )
  edit.add_argument(
    "--attributes", help="CSV file: file names, and a column of 0 or -1 and 1 per attribute", **no_default
  )
  edit.add_argument(
    "--direction",
    choices=("mean", "difference"),
    default="mean",
    help="of an attribute: the mean code of images that have it, or that less the mean code of the others",
  )
  edit.add_argument("--strengths", type=_numbers, default="-2,-1,0,1,2", help="multiples of the direction")
  edit.add_argument("--steps", type=_count, default=5, help="images of an interpolation, both ends included")
  edit.add_argument("--count", type=_positive, default=5, help="how many images are shown, at most")
  edit.add_argument("--seed", type=_seed, default=0, help="seed of the latents of --interpolate prior")
  edit.add_argument("--images", default="", help="a folder of images; empty: the run's test set")
  edit.add_argument("--out", default=".", help="folder for the PNG file")

  prepare = verb("prepare", commands.prepare, "prepare a TFDS data set as array_record, once")
  prepare.add_argument("name", help="the data set's TFDS name, or mnist_idx, mnist_corners, plate_chars")
  prepare.add_argument("--data-dir", default="", help="where data sets are kept; empty: TFDS's own folder")
  prepare.add_argument(
    "--from", dest="source", default="", help="folder of original files that TFDS does not download"
  )

  plan = verb("plan", commands.plan, "what a config needs on a machine that you do not have", epilog=any_key)
  plan.add_argument(
    "--config", required=True, help="name of a config or path of a Python file [:VARIANT]", **no_default
  )
  plan.add_argument("--target", required=True, help=f"one of {', '.join(TARGETS)}", **no_default)
  plan.add_argument(
    "--hr-shape",
    type=_shape,
    default=(),
    metavar="ROWS,COLUMNS",
    help="size of whole images, where the config neither crops nor resizes",
  )

  config = verb(
    "config", inspection.config, "print the keys of a config, or list all configs", epilog=any_key
  )
  config.add_argument(
    "name", nargs="?", default="", help="name of a config or path of a Python file [:VARIANT]"
  )
  show = verb("show", inspection.show, "tell what a run is: method, versions, results, config")
  show.add_argument("workdir", help="folder of a trained run")
  diff = verb("diff", inspection.diff, "print the keys in which two runs or configs differ")
  for name in ("a", "b"):
    diff.add_argument(name, help="folder of a run, or name of a config")
  return parser


def _whole(text: str) -> int:
  try:
    return int(text)
  except ValueError as error:
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from error


def _positive(text: str) -> int:
  value = _whole(text)
  if value < 1:
    raise argparse.ArgumentTypeError("must be 1 or more")
  return value


def _count(text: str) -> int:
  value = _positive(text)
  if value > 65_536:  # as config.eval.samples
    raise argparse.ArgumentTypeError("must be 65536 or less")
  return value


def _natural(text: str) -> int:
  value = _whole(text)
  if value < 0:
    raise argparse.ArgumentTypeError("must be 0 or more")
  return value


def _numbers(text: str) -> tuple[float, ...]:
  try:
    values = tuple(map(float, text.split(",")))
  except ValueError:
    values = (math.nan,)
  if not all(map(math.isfinite, values)):
    raise argparse.ArgumentTypeError(f"{text!r} is no list of finite numbers such as -1,0,0.5")
  return values


def _shape(text: str) -> tuple[int, int]:
  rows, comma, columns = text.partition(",")
  if not comma:
    raise argparse.ArgumentTypeError(f"{text!r} is no shape: write ROWS,COLUMNS such as 256,384")
  return _positive(rows), _positive(columns)


def _seed(text: str) -> int:
  value = _whole(text)
  if not 0 <= value < 2**31:
    raise argparse.ArgumentTypeError("must lie between 0 and 2147483647")
  return value
