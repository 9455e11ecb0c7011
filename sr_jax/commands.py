"""What the verbs of the command line do: (their arguments, --config.KEY=VALUE words) -> exit code."""

import argparse
import hashlib
import logging
import os
import platform
import re
from pathlib import Path

import sr_jax
from sr_jax import config as configs
from sr_jax.errors import STOPPED, UserError, printable, tell
from sr_jax.files import absolute, check_writable, expand, make
from sr_jax.inspection import refuse

log = logging.getLogger(__name__)


def join(distributed: str) -> None:
  """Join the other processes of a job, if there are any, so that they hear of every mistake that follows."""
  if distributed:
    from sr_jax import parallel, processes

    parallel.start_processes(distributed)
    processes.listen()


def begin() -> None:
  """Keep what is compiled for later programs, and say what this one runs on."""
  import jax

  from sr_jax import parallel

  platforms = jax.config.values["jax_platforms"] or ""
  if platforms and "cpu" not in platforms.split(","):  # some work of the host's is done by JAX's CPU device
    jax.config.update("jax_platforms", f"{platforms},cpu")
  if not (os.environ.get("JAX_COMPILATION_CACHE_DIR") or jax.config.values["jax_compilation_cache_dir"]):
    jax.config.update("jax_compilation_cache_dir", str(_cache_folder()))
  try:
    for platform in filter(None, platforms.split(",")):
      jax.devices(platform)  # with the CPU beside it, JAX would do without one that is not there
    process, count = parallel.process()
  except (RuntimeError, AssertionError) as error:
    asked, reason = os.environ.get("JAX_PLATFORMS", ""), str(error).partition("\n")[0].rstrip(".")
    raise UserError(
      f"JAX finds no device with JAX_PLATFORMS={asked!r}{reason and f' ({reason})'}: correct or unset it."
    ) from error
  if process:
    logging.getLogger("sr_jax").setLevel(logging.WARNING)
  log.info(
    "sr_jax %s, jax %s, %d x %s, process %d of %d",
    *(sr_jax.__version__, jax.__version__, jax.device_count(), jax.devices()[0].device_kind),
    *(process + 1, count),
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


def train(arguments: argparse.Namespace, overrides: list[str]) -> int:
  join(arguments.distributed)
  config = configs.override(configs.load(arguments.config), overrides)
  from sr_jax.stages import Sources, check_evaluation
  from sr_jax.whole_run import train_and_evaluate

  begin()
  sources = Sources()
  check_evaluation(config, sources, arguments.workdir, "--workdir")
  run, report = train_and_evaluate(config, arguments.workdir, sources, arguments.command)
  if report is None:
    done, rounds = int(run.state.step), run.config.train.rounds
    print(f"Stopped after round {done} of {rounds}; the same command goes on from there.")
    return STOPPED
  tell(report.text)
  return 0


def evaluate(arguments: argparse.Namespace, overrides: list[str]) -> int:
  join(arguments.distributed)
  from sr_jax import processes
  from sr_jax.evaluate import evaluate_run
  from sr_jax.run import load_run, refuse_run, saved_config
  from sr_jax.soundness import digest
  from sr_jax.stages import Sources, check_evaluation, facts

  begin()
  out = arguments.out or arguments.workdir
  if absolute(out, "--out") != absolute(arguments.workdir, "--workdir"):
    refuse_run(out)
  config = configs.override(saved_config(arguments.workdir), [*_all_of(arguments.images), *overrides])
  run, sources = load_run(arguments.workdir, config), Sources()
  check_evaluation(config, sources, out, "--out" if arguments.out else "--workdir")
  test = sources(config.eval.data, "config.eval.data")
  if arguments.distributed:
    processes.agree(facts(config, {"config.eval.data": test}) | {"the run's state": digest(run.state)[:12]})
    processes.end_on_sigterm()
  tell(evaluate_run(run, out, arguments.command, test, arguments.save_samples).text)
  return 0


def _all_of(folder: str) -> list[str]:
  """The --config words for all images of a folder as the test set, cut and resized as it is; none for ""."""
  whole = {"name": "folder", "dir": folder, "split": "", "lr_dir": "", "min_bytes": 0}
  words = [f"--config.eval.data.{key}={value}" for key, value in whole.items()]
  return [*words, "--config.eval.limit=0"] if folder else []


def score(arguments: argparse.Namespace, overrides: list[str]) -> int:
  from sr_jax import score as scoring

  for argument in overrides:
    key = argument.removeprefix("--config.").partition("=")[0]
    if not any(key == used or key.startswith(f"{used}.") for used in scoring.KEYS):
      raise UserError(
        f"{argument!r} is no option of score, which takes of the config {', '.join(scoring.KEYS)}."
      )
  config = configs.override(scoring.default_config(), overrides)
  config.eval.data.update({"dir": arguments.truth, "lr_dir": arguments.lr})
  configs.check(config)
  begin()
  tell(scoring.score(arguments.folder, config, arguments.out, arguments.command))
  return 0


def upscale(arguments: argparse.Namespace, overrides: list[str]) -> int:
  refuse(overrides, "upscale")
  from sr_jax.upscaling import upscale_files

  begin()
  for path in upscale_files(
    arguments.images,
    arguments.workdir,
    arguments.out,
    samples=arguments.samples,
    seed=arguments.seed,
    temperature=arguments.temperature,
    memory=arguments.memory,
    margin=arguments.margin,
  ):
    tell(printable(str(path)))
  return 0


def edit(arguments: argparse.Namespace, overrides: list[str]) -> int:
  from sr_jax import edit as edits
  from sr_jax.data import open_source
  from sr_jax.report.grids import labelled_grid
  from sr_jax.run import load_run, saved_config

  name = arguments.attribute
  if (name is not None) != bool(arguments.attributes):
    raise UserError("--attribute NAME and --attributes FILE go together: give both.")
  out = check_writable(arguments.out, "--out")
  has = {} if name is None else edits.read_attribute(arguments.attributes, name)
  begin()
  config = configs.override(saved_config(arguments.workdir), [*_all_of(arguments.images), *overrides])
  run, source = load_run(arguments.workdir, config), open_source(config.eval.data, "config.eval.data")
  lr, hr = edits.first_images(run, source, arguments.count)
  if name is not None:
    mean, others = edits.mean_codes(run, source, has)
    log.info(
      "Mean codes of images with and without %s: lengths %.3g and %.3g, distance %.3g.",
      *(name, *(float((code**2).sum() ** 0.5) for code in (mean, others, mean - others))),
    )
    direction = mean - others if arguments.direction == "difference" else mean
    rows = edits.attribute_rows(run, lr, hr, direction, arguments.strengths)
    file = f"attribute_{re.sub(r'[^A-Za-z0-9_-]', '_', name)}.png"
  elif arguments.transfer:
    rows, file = edits.transfer_rows(run, lr, hr), "transfer.png"
  else:
    seed = arguments.seed if arguments.interpolate == "prior" else None
    rows = edits.interpolation_rows(run, lr, hr, arguments.steps, seed)
    file = f"interpolation_{arguments.interpolate}.png"
  path = out / file
  make(out)
  labelled_grid(rows, path)
  tell(path)
  return 0


def prepare(arguments: argparse.Namespace, overrides: list[str]) -> int:
  refuse(overrides, "prepare")
  from sr_jax.data import prepare

  tell(prepare(arguments.name, expand(arguments.data_dir), expand(arguments.source)))
  return 0


def plan(arguments: argparse.Namespace, overrides: list[str]) -> int:
  from sr_jax import targets

  target = targets.prepare(arguments.target)
  config = configs.override(configs.load(arguments.config), overrides)
  from sr_jax import plan as plans

  large: list[str] = []
  for number, program in enumerate(plans.plan(config, target, arguments.hr_shape)):
    # Each row as soon as it is there: a compilation takes minutes.
    print(*([] if number else [plans.HEAD]), plans.row(program), sep="\n", flush=True)
    large += [program.name] * program.too_large
  if large:
    raise UserError(
      f"{arguments.config} does not fit {arguments.target}, whose chips have too little memory for its "
      f"{' and '.join(large)}: take more chips, a smaller batch or --config.dtype=bfloat16."
    )
  return 0
