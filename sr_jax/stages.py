"""A run in stages: which are needed, in what order, and what would stop them, before any is trained."""

from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sr_jax import config as configs
from sr_jax import graft, parallel
from sr_jax.baselines import BASELINES
from sr_jax.data import check_test_images, first_test_batch, open_source, train_batches
from sr_jax.data.sources import Readable, Source, summary
from sr_jax.errors import UserError, choose, find_function, short_name
from sr_jax.files import absolute, as_path, check_writable
from sr_jax.method import Method, State, run_round
from sr_jax.methods import make_method
from sr_jax.metrics import METRICS, check_count, columns, features, make_protocol, measure, read_weights
from sr_jax.ops import LUMA, Operator, make_operator
from sr_jax.run import load_classifier, saved_config
from sr_jax.soundness import whole_steps
from sr_jax.versions import code, versions

# What each process of a job may have for itself.
PER_PROCESS = (
  *("data.dir", "data.lr_dir", "data.cache_mb", "data.threads"),
  *("eval.data.dir", "eval.data.lr_dir"),
)


class Stage(NamedTuple):
  """One part of a run; the last is the run itself.

  Attributes:
    name: of the stage, "" for the run itself.
    config: its own complete config.
    folder: its work directory.
    earlier: the folders of the stages before it, by name.
  """

  name: str
  config: ConfigDict
  folder: Path
  earlier: dict[str, Path]


class Sources:
  """Opens each set of images once, however often it is asked for, and reads the test images once."""

  def __init__(self) -> None:
    self._opened: dict[str, Source] = {}
    self._read: set[tuple[Any, ...]] = set()

  def __call__(self, config: ConfigDict, key: str = "config.data") -> Source:
    """The source of `config.data` or `config.eval.data`, see `open_source`."""
    name = config.to_json()
    if name not in self._opened:
      self._opened[name] = open_source(config, key)
    return self._opened[name]

  def check_images(self, settings: ConfigDict, factor: tuple[int, int]) -> None:
    """Read the test images of `config.eval`, see `check_test_images`."""
    asked = (settings.data.to_json(), factor, settings.limit)
    if asked not in self._read:
      source = self(settings.data, "config.eval.data")
      check_test_images(source, settings.data, factor=factor, limit=settings.limit)
      self._read.add(asked)


def plan_stages(config: ConfigDict, workdir: str | Path) -> list[Stage]:
  """The stages of `config` whose networks are asked for, in order, and `config` itself."""
  needed: list[str] = []
  asking = [config]
  while asking:
    for _, origin, _ in map(graft.parse, asking.pop().init_from):
      if origin in config.stages and origin not in needed:
        needed.append(origin)
        asking.append(configs.stage_config(config, origin))
  stages: list[Stage] = []
  earlier: dict[str, Path] = {}
  for name in [*(name for name in config.stages if name in needed), ""]:
    folder = as_path(workdir) / name
    stage = configs.stage_config(config, name) if name else config
    stages.append(Stage(name, stage, folder, dict(earlier)))
    earlier[name] = folder
  return stages


def check_stages(
  stages: list[Stage], sources: Sources, others: Mapping[str, State] = MappingProxyType({})
) -> State:
  """Refuse what would end a run at the beginning of one of its stages, before anything is trained.

  Every stage's method is made, and the shapes of its first round, of its held-out losses and of its samples
  are worked out; networks from other stages must have the shapes they will have there, those from runs and
  files are read. What evaluates the last stage is checked by `check_evaluation`.

  Args:
    stages: of one run.
    sources: what opens its images.
    others: the abstract states of the runs that will be trained before it, by folder.

  Returns:
    The abstract state of the last stage.

  Raises:
    UserError: a config that cannot be run, or networks that do not fit.
  """
  mesh = parallel.make_mesh()
  states = dict(others)
  for stage in stages:
    config = stage.config
    configs.check(config)
    operator = make_operator(config)
    method = make_method(config, operator)
    parallel.check_shared(method.minibatch or config.train.batch, mesh)
    one = next(train_batches(sources(config.data), config.data, seed=0, batch=1, start=0))
    batch = {k: jax.ShapeDtypeStruct((config.train.batch, *v.shape[1:]), v.dtype) for k, v in one.items()}
    state = parallel.abstract_state(method, mesh, batch)
    # A run that has begun carries its networks: their sources may be gone.
    begun = whole_steps(stage.folder / "checkpoints")
    networks = ({}, {}) if begun else graft.read(config, stage.earlier, states)
    graft.check(state, networks)
    for role in () if begun else method.needs:
      if role not in networks[0]:
        raise UserError(
          f"Method {config.method.name!r} takes its network {role!r} from another run: name it in "
          f"config.init_from, as in ('{role}=FOLDER',)."
        )
    source = sources(config.eval.data, "config.eval.data")
    test = first_test_batch(source, config.eval.data, factor=operator.factor)
    _trace(config, method, operator, state, batch, test)
    states[stage.name] = state
  return states[stages[-1].name]


def facts(config: ConfigDict, sources: Mapping[str, Source]) -> dict[str, Any]:
  """What the processes of a job must have in common (`processes.agree`).

  Args:
    config: of the run. Where its images are, and what a machine spends on reading them, may differ.
    sources: the images by their key in the config, of which number and names must agree, and of prepared
      data sets the files' sizes.
  """
  found = {f"config.{key}": value for key, value in configs.flatten(config).items() if key not in PER_PROCESS}
  for key, source in sources.items():
    found[key] = summary(source)
  return found | versions() | {"the code of sr_jax": code()}


def _trace(
  config: ConfigDict, method: Method, operator: Operator, state: State, batch: dict, test: dict
) -> None:
  """Work out the shapes of a round, of the losses and of the samples, as a trained run will have them."""
  key = jax.random.key(0)
  after, _ = jax.eval_shape(lambda s, b: run_round(method, s, b, key), state, batch)
  expected, found = (jax.tree.map(lambda v: (v.shape, v.dtype), tree) for tree in (state, after))
  if expected != found:
    raise UserError(
      f"Method {config.method.name!r} changes the shapes or types of its state in a round: fix it."
    )
  if config.eval.losses or method.sample is None:
    jax.eval_shape(method.objective, state, test, key)
  if method.sample is None:
    return
  x = jax.ShapeDtypeStruct(operator.lr_shape(test["hr"].shape), jnp.float32)
  for temperature in config.eval.temperatures:
    draw = lambda s, x, t=temperature: method.sample(s, x, key, n=2, temperature=t)  # noqa: E731
    drawn = jax.eval_shape(draw, state, x)
    if drawn.shape != (2, *test["hr"].shape):
      raise UserError(
        f"Method {config.method.name!r} draws samples of {drawn.shape} where {(2, *test['hr'].shape)} are "
        "wanted: let its network enlarge by config.operator.factor."
      )


def check_evaluation(
  config: ConfigDict,
  sources: Sources,
  workdir: str | Path = "",
  flag: str = "",
  later: Collection[str] = (),
) -> None:
  """Refuse what would stop an evaluation, before a training is spent on it.

  Args:
    config: of the run that is evaluated.
    sources: of the images.
    workdir: where `evaluate_run` will write, if that is to be checked.
    flag: what names that folder.
    later: folders of runs that are not there yet but will be; what they hold is not checked.

  Raises:
    UserError: a baseline, metric, luma or run that does not exist or does not fit, a test set that is not
      there, whose images cannot be read or whose first one cannot be measured, or a folder that cannot be
      written.
  """
  configs.check(config)
  if workdir:
    check_writable(workdir, flag)
    check_writable(as_path(workdir) / "evaluation", flag)
  settings = config.eval
  for name in settings.baselines:
    find_function(BASELINES, name, "config.eval.baselines")
  rows = [short_name(name) for name in (*settings.baselines, config.method.name)]
  if twice := [row for row in dict.fromkeys(rows) if rows.count(row) > 1]:
    raise UserError(
      f"config.eval.baselines is {settings.baselines} of a method {config.method.name!r}: two rows would be "
      f"called {twice[0]!r}, so rename a function of yours."
    )
  if not settings.metrics:
    raise UserError(f"config.eval.metrics is empty: choose some of {', '.join(METRICS)}.")
  if len(columns(settings.metrics)) < len(settings.metrics):
    raise UserError(f"config.eval.metrics is {settings.metrics}: give each column once.")
  choose(LUMA, settings.luma, "config.eval.luma")
  source, operator = sources(settings.data, "config.eval.data"), make_operator(config)
  first = first_test_batch(source, settings.data, factor=operator.factor)
  sources.check_images(settings, operator.factor)
  if "nearest" in settings.baselines:
    given = first_test_batch(Readable(sources(config.data)), config.data, factor=operator.factor)["hr"]
    if given.shape != first["hr"].shape:
      raise UserError(
        "The baseline nearest needs training and test images of one size, and the first ones have "
        f"{given.shape[1:3]} and {first['hr'].shape[1:3]}: set resize in config.data and in "
        "config.eval.data, or take it out of config.eval.baselines."
      )
  coming = {absolute(folder, flag) for folder in later}
  for folder in (name for name in settings.beside if absolute(name, "config.eval.beside") not in coming):
    other = saved_config(folder)
    if not operator.same_degradation(make_operator(other)) or other.data.channels != config.data.channels:
      raise UserError(
        f"config.eval.beside names {folder}, a run with another config.operator or number of channels: give "
        "one whose inputs are made alike."
      )
  hr = jax.ShapeDtypeStruct(first["hr"].shape, jnp.float32)
  if settings.classifier and "label" not in first:
    raise UserError(
      f"config.eval.classifier is {settings.classifier}, but the test images have no labels: leave it empty."
    )
  if settings.classifier and absolute(settings.classifier, "config.eval.classifier") not in coming:
    jax.eval_shape(load_classifier(settings.classifier), hr)
  lr = jax.ShapeDtypeStruct(operator.lr_shape(hr.shape), jnp.float32)
  samples = jax.ShapeDtypeStruct((1, *hr.shape), jnp.float32)
  protocol, weights = make_protocol(operator, settings), read_weights(settings.metrics, settings)
  batch = {"hr": hr, "lr": lr}
  for found in (measure, features):
    jax.eval_shape(lambda s, b, w, f=found: f(settings.metrics, s, b, protocol, w), samples, batch, weights)
  count = min(settings.limit or len(source), len(source))
  check_count(settings.metrics, min(count, config.train.eval_limit) if config.train.eval_every else count)
