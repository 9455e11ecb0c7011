"""A run measured beside its baselines: the table, the values of each image, the images to look at."""

import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sr_jax import config as configs
from sr_jax import parallel
from sr_jax.baselines import BASELINES, Sampler, bicubic
from sr_jax.data import open_source
from sr_jax.data.sources import Source
from sr_jax.errors import UserError, find_function, short_name
from sr_jax.files import absolute, as_path, check_writable, make, name_of
from sr_jax.images import clear_samples
from sr_jax.measurement import Images, evaluate
from sr_jax.metrics import columns, sets_note
from sr_jax.report.grids import comparison_grid, image_grid, save_images
from sr_jax.report.tables import clear_report, rows_of, write_per_image, write_report
from sr_jax.run import Run, load_classifier, load_run
from sr_jax.tiles import MEMORY, Budget

log = logging.getLogger(__name__)


def make_watch(config: ConfigDict, source: Source) -> Callable[[Run], dict[str, float]]:
  """What measures a run while it trains, on some test images: a sample and, if `eval.losses`, the losses."""
  config = config.copy_and_resolve_references()
  limits = {config.train.eval_limit, config.eval.limit or config.train.eval_limit}
  config.eval.update({"limit": min(limits), "images": 0})

  def watch(run: Run) -> dict[str, float]:
    run = run._replace(state=parallel.localise(run.state))
    draws = run.method.sample is not None
    wanted = config.eval.losses or not draws
    objective = jax.tree_util.Partial(run.method.objective, run.state) if wanted else None
    sampler = run.sampler(config.eval.temperatures[0], _budget(config, source)) if draws else None
    found = evaluate(sampler, source, config, run.operator, samples=1, objective=objective)
    return rows_of("", 1, found.means)[""]

  return watch


class Report(NamedTuple):
  """What an evaluation found.

  Attributes:
    text: the table in Markdown; "" on processes other than the first.
    rows: {row: {metric: mean over the images}}, of the baselines and of the run.
    own: {what follows the method's name in the title: row} of the run's own rows, such as "" and
      ", best of 5".
    images: the first ones, at the first temperature: "input", "samples" [n, H, W, C], "truth", "bicubic".
    baselines: names of those asked for, of which `rows` has none if the method draws nothing.
    conditions: of the baselines, see `conditions_of`.
  """

  text: str
  rows: dict[str, dict[str, float]]
  own: dict[str, dict[str, float]]
  images: Images
  baselines: tuple[str, ...]
  conditions: str


def conditions_of(config: ConfigDict) -> str:
  """What the rows of baselines depend on: runs of equal ones share them."""
  settings, operator = config.eval, config.operator
  keys = ("data", "limit", "border", "luma", "best_by", "lpips", "embedding", "classifier")
  images = [config.data.to_json()] if "nearest" in settings.baselines else []
  measured = {key: settings[key] for key in keys}
  return "".join([operator.to_json(), ConfigDict(measured).to_json(), *images])


def evaluate_run(
  run: Run,
  workdir: str | Path,
  command: str = "",
  source: Source | None = None,
  save: str | Path = "",
) -> Report:
  """A run beside the baselines of its config: table and images, in `workdir`/evaluation.

  Args:
    run: what is evaluated, by `run.config.eval`.
    workdir: where to write table.md, table.json, per_image.jsonl, samples.png, rows.png and images.npz.
    command: kept in the JSON file, to say how the numbers were made.
    source: the test images, if they are open already.
    save: a folder for all samples of the first temperature as image files, where those of other images are
      deleted; "": none.

  Raises:
    UserError: `workdir` cannot be written, or a baseline or another run cannot be used.
  """
  config, settings = run.config, run.config.eval
  source = source or open_source(settings.data, "config.eval.data")
  folder, draws = as_path(workdir) / "evaluation", run.method.sample is not None
  if save and not draws:
    raise UserError(f"Method {config.method.name!r} draws no images to save: leave out --save-samples.")
  for needed, flag in ((folder, "The evaluation's folder"), (save or folder, "--save-samples")):
    make(check_writable(needed, flag))
  own = jax.tree_util.Partial(run.method.objective, run.state)
  judge = jax.tree_util.Partial(run.method.judge or run.method.objective, run.state)
  measured = partial(
    evaluate,
    source=source,
    config=config,
    operator=run.operator,
    judge=judge if settings.judge else None,
    classify=load_classifier(settings.classifier) if settings.classifier else None,
  )
  table: dict[str, dict[str, float]] = {}
  each: dict[str, dict[str, np.ndarray]] = {}
  single: dict[str, str] = {}
  shown: dict[str, Images] = {}
  others = {short_name(name): partial(_baseline, name, run) for name in settings.baselines}
  taken = [short_name(config.method.name), *others, *map(name_of, settings.beside)]
  for other in settings.beside:  # a folder's name, if no other row has it
    name = name_of(other) if taken.count(name_of(other)) == 1 else str(other)
    others[name] = partial(_other_run, other, config, source)
  for name, make_sampler in others.items() if draws else ():
    found = measured(make_sampler(), samples=1)
    shown[name] = found.images
    table |= rows_of(name, 1, found.means)
    each |= rows_of(name, 1, found.values)
  images: Images = []
  for number, temperature in enumerate(settings.temperatures if draws else (1.0,)):
    # The losses do not depend on the temperature: they stand in the first row. They are all that a helper
    # has.
    objective = own if number == 0 and (settings.losses or not draws) else None
    sampler = run.sampler(temperature, _budget(config, source)) if draws else None
    count = run.count(settings.samples, temperature)
    to = "" if number else save
    found = measured(sampler, samples=count, objective=objective, save=to)
    images = images or found.images
    only = len(settings.temperatures) == 1 and temperature == 1
    label = "" if only else run.method.describe_temperature(temperature)
    title = short_name(config.method.name) + (label and f", {label}")
    single[label], shown[title] = title, found.images
    table |= rows_of(title, count, found.means)
    each |= rows_of(title, count, found.values)
  enlarge = bicubic(run.operator, config)
  for image in images:
    x = jnp.asarray(image["input"])[None]
    image["bicubic"] = np.asarray(enlarge(x, jax.random.key(0), 1)[0, 0])
  if save and parallel.process()[0] == 0:  # all processes have written theirs
    clear_samples(save, set(map(int, found.places)))
  rows = _own_rows(table, short_name(config.method.name))
  report = Report("", table, rows, images, tuple(settings.baselines), conditions_of(config))
  if parallel.process()[0] != 0:
    return report
  count = len(found.places)
  meta = {
    "command": command,
    "round": int(run.state.step),
    "images": f"{count} of {settings.data.name}"
    + f" ({settings.data.split})" * (settings.data.name != "folder"),
    "operator": str(run.operator),
    **{name: settings[name] for name in ("samples", "temperatures", "seed", "border", "luma")},
    **sets_note(settings.metrics, count),
    "single": single,
    "eval": json.loads(settings.to_json()),
  }
  clear_report(folder)  # without the images, which are written last, this one is not yet finished
  text = write_report(folder, "table", table, meta, columns(settings.metrics))
  write_per_image(folder, [Path(source.name(int(i))).name for i in found.places], each, found.fingerprints)
  image_grid(images, folder / "samples.png")
  comparison_grid(shown, folder / "rows.png")
  save_images(images, folder / "images.npz")
  log.info("Tables and images are in %s.", folder)
  return report._replace(text=text)


def _baseline(name: str, run: Run) -> Sampler:
  return find_function(BASELINES, name, "config.eval.baselines")(run.operator, run.config)


def _budget(config: ConfigDict, source: Source) -> Budget:
  """The share of each image of a batch."""
  return Budget((MEMORY << 20) // min(config.eval.batch, len(source)))


def _other_run(folder: str, config: ConfigDict, source: Source) -> Sampler:
  return load_run(folder).sampler(budget=_budget(config, source))


def read_report(config: ConfigDict, workdir: str | Path) -> Report | None:
  """What an earlier `evaluate_run` wrote about the finished run of `config`, without the images.

  None if it was trained or measured otherwise, or not to its end; baselines may be others.
  """
  try:
    folder = as_path(workdir)
    content = json.loads((folder / "evaluation" / "table.json").read_text())
    meta, rows = content["meta"], content["rows"]
    baselines = meta["eval"]["baselines"]
    trained = json.loads((folder / "config.json").read_text()) | {"eval": meta["eval"]}
    # Both completed: a newer version has more keys.
    ours, theirs = (configs.complete(c) for c in (config, configs.from_json(json.dumps(trained))))
    # What a resumed training may change, it may have been told since; how long it is, the table says.
    if configs.differences(theirs, ours, [key for key in configs.RESUMING if key != "stages"]):
      return None
    wanted = ours.eval.to_dict() | {"baselines": tuple(baselines)}
    sweep = absolute(folder, "--workdir").parent
    theirs.eval.beside = _of_sweep(theirs.eval.beside, ours.eval.beside, sweep)
    (theirs.eval.classifier,) = _of_sweep([theirs.eval.classifier], [ours.eval.classifier], sweep)
    images = folder / "evaluation" / "images.npz"  # written last
    if (meta["round"], theirs.eval.to_dict()) != (ours.train.rounds, wanted) or not images.exists():
      return None
  except (OSError, ValueError, KeyError):
    return None
  numbers = {row: {c: np.nan if v is None else v for c, v in values.items()} for row, values in rows.items()}
  own = _own_rows(numbers, short_name(config.method.name))
  return Report("", numbers, own, [], tuple(baselines), conditions_of(config))


def _of_sweep(then: Sequence[str], now: Sequence[str], sweep: Path) -> tuple[str, ...]:
  """Runs that were named `then`, by the names of `now` where these are the sweep's: it may have moved."""
  here = {name_of(run): run for run in now if run and absolute(run, "a run").parent == sweep}
  return tuple(here.get(name_of(run), run) if run else run for run in then)


def _own_rows(rows: dict[str, dict[str, float]], title: str) -> dict[str, dict[str, float]]:
  return {name.removeprefix(title): row for name, row in rows.items() if name.partition(", ")[0] == title}
