"""Any sampler on any test set: metrics of every image, averaged; and the images to look at."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from clu.metrics import Average
from ml_collections import ConfigDict

from sr_jax import parallel
from sr_jax.baselines import BASELINES, Sampler, bicubic
from sr_jax.data import open_source, test_batches
from sr_jax.data.sources import Source
from sr_jax.errors import UserError, choose
from sr_jax.metrics import METRICS, Protocol, lookup, measure
from sr_jax.ops import LUMA, Operator, make_operator, to_float, to_uint8
from sr_jax.report import comparison_grid, image_grid, write_report
from sr_jax.run import Run, check_config, load_run, saved_config

log = logging.getLogger(__name__)

Images = list[dict[str, np.ndarray]]
Objective = Callable[[dict[str, jax.Array], jax.Array], dict[str, jax.Array]]


def check_eval(config: ConfigDict) -> None:
  """What would stop an evaluation at its first image, before a training is spent on it.

  Raises:
    UserError: a baseline, metric, luma or run that does not exist or does not fit, a test set that is not
      there, or one whose first image cannot be read or measured.
  """
  check_config(config)
  for name in config.eval.baselines:
    choose(BASELINES, name, "config.eval.baselines")
  for name in config.eval.metrics:
    lookup(name)
  if not config.eval.metrics:
    raise UserError(f"config.eval.metrics is empty: choose some of {', '.join(METRICS)}.")
  choose(LUMA, config.eval.luma, "config.eval.luma")
  source, operator = open_source(config.eval.data, "config.eval.data"), make_operator(config)
  first = next(test_batches(source, config.eval.data, batch=1, factor=operator.factor, limit=1))
  if "nearest" in config.eval.baselines:
    known = open_source(config.data)
    given = next(test_batches(known, config.data, batch=1, factor=operator.factor, limit=1))["hr"]
    if given.shape != first["hr"].shape:
      raise UserError(
        "The baseline nearest needs training and test images of one size, and the first ones have "
        f"{given.shape[1:3]} and {first['hr'].shape[1:3]}: set resize in config.data and in "
        "config.eval.data, or take it out of config.eval.baselines."
      )
  for folder in config.eval.beside:
    other = saved_config(folder)
    if make_operator(other) != operator or other.data.channels != config.data.channels:
      raise UserError(
        f"config.eval.beside names {folder}, a run with another config.operator, consistency or number of "
        "channels: give one of the same kind of images."
      )
  hr = jax.ShapeDtypeStruct(first["hr"].shape, jnp.float32)
  lr = jax.ShapeDtypeStruct(operator.lr_shape(hr.shape), jnp.float32)
  samples = jax.ShapeDtypeStruct((1, *hr.shape), jnp.float32)
  protocol = Protocol(operator, config.eval.border, config.eval.luma)
  jax.eval_shape(lambda s, b: measure(config.eval.metrics, s, b, protocol), samples, {"hr": hr, "lr": lr})


def evaluate(
  sampler: Sampler | None,
  source: Source,
  config: ConfigDict,
  operator: Operator,
  *,
  samples: int,
  objective: Objective | None = None,
  judge: Objective | None = None,
) -> tuple[dict[str, float], Images]:
  """Metrics of `samples` draws per image, over a test set.

  The draws of an image depend on `config.eval.seed` and its place in the set alone, not on batches,
  devices or processes (up to rounding, which may tip a discrete choice).

  Args:
    sampler: (lr [B, h, w, C], key, n) -> [n, B, H, W, C]; None for a helper, of which the objective is all.
    source: the test set.
    config: the run's config; `config.eval` says how to measure.
    operator: A, for inputs that the set does not bring and for the consistency metrics.
    samples: n.
    objective: (batch, key) -> {name: [B]}, measured beside the metrics.
    judge: the same, measured of the samples in the place of the truth, as "sample_<name>".

  Returns:
    The mean of every metric over the set, and the first `config.eval.images` images with their samples.
  """
  keys = config.eval
  mesh = parallel.local_mesh()
  process, processes = parallel.process()
  protocol = Protocol(operator, keys.border, keys.luma)
  totals: dict[str, Average] = {}
  images: Images = []
  batches = test_batches(
    source,
    keys.data,
    batch=keys.batch,
    factor=operator.factor,
    limit=keys.limit,
    process=process,
    processes=processes,
  )
  for rows in batches:
    batch = parallel.put_local(rows, mesh)
    names = tuple(keys.metrics)
    drawn, x, values = _measure(
      sampler, objective, judge, batch, samples, keys.seed, operator, protocol, names
    )
    # On the host: eager reductions of sharded arrays are programs of their own on all devices, and on a
    # CPU with several of them such programs wait for each other for ever.
    drawn, x, values = jax.device_get((drawn, x, values))
    for name, value in values.items():
      average = Average.from_model_output(value, mask=rows["mask"])
      totals[name] = totals[name].merge(average) if name in totals else average
    for i in np.flatnonzero(rows["mask"])[: keys.images - len(images) if sampler else 0]:
      truth = np.asarray(to_float(rows["hr"][i]))
      judged = {name: value[i] for name, value in values.items() if name.startswith("sample_")}
      images.append({"input": x[i], "samples": drawn[:, i], "truth": truth, **judged})
  sums = parallel.gather_sums({k: (np.asarray(v.total), np.asarray(v.count)) for k, v in totals.items()})
  return {name: float(total / count) for name, (total, count) in sums.items()}, images


@partial(jax.jit, static_argnames=("n", "seed", "operator", "protocol", "names"))
def _measure(
  sampler: Sampler | None,
  objective: Objective | None,
  judge: Objective | None,
  batch: dict[str, jax.Array],
  n: int,
  seed: int,
  operator: Operator,
  protocol: Protocol,
  names: tuple[str, ...],
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
  """Samples [n, B, H, W, C], inputs [B, h, w, C] and metrics [B] of one batch."""
  x, y = operator.lr(batch), to_float(batch["hr"])

  def of_one(row: dict[str, jax.Array], lr: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    key = jax.random.fold_in(jax.random.key(seed), row["index"])
    losses = objective(jax.tree.map(lambda v: v[None], row), key) if objective else {}
    drawn = sampler(lr[None], key, n)[:, 0] if sampler else jnp.zeros((0,))
    if judge and sampler:
      given = row | {"lr": lr}
      images = to_uint8(drawn) if row["hr"].dtype == jnp.uint8 else drawn
      judged = jax.lax.map(lambda y: judge(jax.tree.map(lambda v: v[None], given | {"hr": y}), key), images)
      losses |= {f"sample_{name}": value.mean(axis=0) for name, value in judged.items()}
    return drawn, {name: value[0] for name, value in losses.items()}

  drawn, losses = jax.vmap(of_one, out_axes=(1, 0))(batch, x)
  # A loss may have a metric's name: its own is then longer.
  losses = {f"objective_{name}" if name in names else name: value for name, value in losses.items()}
  return drawn, x, losses | (measure(names, drawn, {"hr": y, "lr": x}, protocol) if sampler else {})


def make_watch(config: ConfigDict) -> Callable[[Run], dict[str, float]]:
  """What measures a run of `config` while it trains: one sample and the objective, on some test images."""
  source = open_source(config.eval.data, "config.eval.data")
  config = config.copy_and_resolve_references()
  limits = {config.train.eval_limit, config.eval.limit or config.train.eval_limit}
  config.eval.update({"limit": min(limits), "images": 0})

  def watch(run: Run) -> dict[str, float]:
    run = run._replace(state=parallel.localise(run.state))
    objective = jax.tree_util.Partial(run.method.objective, run.state)
    sampler = run.sampler(config.eval.temperatures[0]) if run.method.sample else None
    means, _ = evaluate(sampler, source, config, run.operator, samples=1, objective=objective)
    return _rows(means)[""]

  return watch


def _rows(means: dict[str, float]) -> dict[str, dict[str, float]]:
  """Metrics "<name>/<kind>" of `measure` by kind: "" of a single sample, best, mean_image."""
  rows: dict[str, dict[str, float]] = {}
  for column, value in means.items():
    name, _, kind = column.partition("/")
    rows.setdefault(kind, {})[name] = value
  return rows


class Report(NamedTuple):
  """What an evaluation found.

  Attributes:
    text: the table in Markdown; "" on processes other than the first.
    rows: {row: {metric: mean over the images}}, of the baselines and of the run.
    single: {term of a temperature: the run's row of single samples}; the term is "" if there is only 1.
    images: the first ones, at the first temperature: "input", "samples" [n, H, W, C], "truth", "bicubic".
  """

  text: str
  rows: dict[str, dict[str, float]]
  single: dict[str, dict[str, float]]
  images: Images


def evaluate_run(run: Run, workdir: str | Path, command: str = "") -> Report:
  """A run beside the baselines of its config: table and images, in `workdir`/evaluation.

  Args:
    run: what is evaluated, by `run.config.eval`.
    workdir: where to write table.md, table.json and samples.png.
    command: kept in the JSON file, to say how the numbers were made.
  """
  config, keys = run.config, run.config.eval
  source = open_source(keys.data, "config.eval.data")
  folder = Path(workdir) / "evaluation"
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f"{folder} cannot be written ({error.strerror}): choose another folder.") from error
  draws = run.method.sample is not None
  own = jax.tree_util.Partial(run.method.objective, run.state)
  row = partial(
    evaluate, source=source, config=config, operator=run.operator, judge=own if keys.judge else None
  )
  table: dict[str, dict[str, float]] = {}
  single: dict[str, dict[str, float]] = {}
  shown: dict[str, Images] = {}
  for name in keys.baselines if draws else ():
    means, shown[name] = row(BASELINES[name](run.operator, config), samples=1)
    table[name] = _rows(means)[""]
  for other in keys.beside if draws else ():
    means, shown[Path(other).name] = row(load_run(other).sampler(), samples=1)
    table[Path(other).name] = _rows(means)[""]
  titles = {"": "", "best": f", best of {keys.samples}", "mean_image": f", mean of {keys.samples}"}
  images: Images = []
  for number, temperature in enumerate(keys.temperatures if draws else (1.0,)):
    # The objective knows no temperature: once is enough. It is all that a helper has.
    objective = own if number == 0 and (keys.objective or not draws) else None
    sampler = run.sampler(temperature) if draws else None
    means, drawn = row(sampler, samples=keys.samples, objective=objective)
    images = images or drawn
    plain = len(keys.temperatures) == 1 and temperature == 1
    term = "" if plain else run.method.term(temperature)
    title = config.method.name + (term and f", {term}")
    shown[title] = drawn
    for kind, values in _rows(means).items():
      if keys.samples > 1 or not kind:
        table[title + titles[kind]] = values
      if not kind:
        single[term] = values
  enlarge = bicubic(run.operator, config)
  for image in images:
    x = jnp.asarray(image["input"])[None]
    image["bicubic"] = np.asarray(enlarge(x, jax.random.key(0), 1)[0, 0])
  if parallel.process()[0] != 0:
    return Report("", table, single, images)
  count = min(keys.limit or len(source), len(source))
  meta = {
    "command": command,
    "round": int(run.state.step),
    "images": f"{count} of {keys.data.name}" + f" ({keys.data.split})" * (keys.data.name != "folder"),
    "operator": str(run.operator),
    **{name: keys[name] for name in ("samples", "temperatures", "seed", "border", "luma")},
  }
  text = write_report(folder, "table", table, meta)
  image_grid(images, folder / "samples.png")
  comparison_grid(shown, folder / "rows.png")
  log.info("Tables and images are in %s.", folder)
  return Report(text, table, single, images)
