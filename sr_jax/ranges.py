"""What the values of a config may be: those that a saved run can hold, and numbers that mean something."""

import fnmatch
from collections.abc import Mapping
from typing import Any

from sr_jax.errors import UserError

INT32_MAX = 2**31 - 1  # the largest whole number that programs count with
FLOAT32_MAX = 3.4e38  # the largest float32
SIZE = 2**16  # of a layer, a batch or a number of samples
TINY = 1e-30  # stands for "more than 0"
BELOW_1 = 0.999999

# The least and the most that numbers may be, by patterns of their keys ("*" stands for dots too). The first
# that fits counts.
RANGES = {
  pattern: (least, most)
  for least, most, patterns in (
    (0, INT32_MAX, "seed eval.seed train.eval_every train.profile_from train.watchdog data.cache_mb"),
    (0, INT32_MAX, "eval.border eval.limit eval.images data.max_corrupt *data.min_bytes"),
    (1, 2**20, "train.batch"),
    (0, 2**20, "ghost_batch"),
    (1, INT32_MAX, "train.*"),
    (1, 1024, "data.threads"),
    (1, 2**15, "*data.crop *data.centre *data.resize"),
    (1, SIZE, "eval.samples eval.batch"),
    (0, FLOAT32_MAX, "eval.temperatures"),
    (1, 64, "operator.factor"),
    (0, BELOW_1, "average optim.*.b1 optim.*.b2 optim.*.decay optim.*.momentum"),
    (0, FLOAT32_MAX, "optim.*.learning_rate optim.*.clip optim.*.weight_decay"),
    (TINY, FLOAT32_MAX, "optim.*.eps method.variance_floor networks.*.scale"),
    (0, 1, "optim.*.final method.noise.until"),
    (0, INT32_MAX, "optim.*.halve_at optim.*.warmup method.warmup_rounds"),
    (0, FLOAT32_MAX, "method.*_weight method.*start method.*end method.noise.target method.noise.rate"),
    (1, INT32_MAX, "method.discriminator_updates method.r1_every method.candidates method.minibatch"),
    (1, INT32_MAX, "method.inner_rounds method.chunk optim.*.accumulate"),
    (1, 10_000, "method.snapshots networks.*.layers networks.*.stages"),
    (0, 10_000, "networks.*.blocks networks.*.skip"),
    (2, SIZE, "method.samples"),
    (0, FLOAT32_MAX, "networks.*.noise_scale networks.*.stddev"),
    (0, SIZE, "networks.*.noise_channels networks.generator.latent_size networks.*.whole"),
    (1, SIZE, "networks.*.latent_size networks.*.width networks.*.widths networks.*.stem networks.*.head"),
    (1, SIZE, "networks.*.ratio networks.*.classes networks.*.components networks.*.quadratic"),
    (1, SIZE, "networks.*.scales method.features.width"),
    (1, 255, "projection.kernel networks.*kernel networks.*.strides networks.*.fold"),
  )
  for pattern in patterns.split()
}
# Keys of (rows, columns), and whether () will do.
PAIRS = {
  "operator.factor": False,
  "networks.*.fold": False,
  "*data.crop": True,
  "*data.centre": True,
  "*data.resize": True,
}
# Keys of tuples of text.
TEXT_TUPLES = ("eval.metrics", "eval.baselines", "eval.beside", "init_from", "method.features.layers")


def check_values(values: Mapping[str, Any], foreign: tuple[str, ...] = ()) -> None:
  """Refuse values that cannot be saved or counted with, and numbers out of their ranges.

  Args:
    values: of the config, by their dotted keys.
    foreign: beginnings of the keys of somebody else's package, whose ranges are not known here.

  Raises:
    UserError: naming the key, what it is and what it may be.
  """
  for path, value in values.items():
    parts = _parts(path, value)
    if path.startswith(foreign):
      continue
    texts = isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    if path in TEXT_TUPLES and not texts:
      raise UserError(f"config.{path} is {value!r}: give a tuple of words, such as ('a', 'b').")
    if (empty := _first(PAIRS, path)) is not None:
      right = isinstance(value, tuple) and (len(value) == 2 or (empty and not value))
      if not right or any(type(part) is not int for part in parts):
        raise UserError(f"config.{path} is {value}: give (rows, columns){', or () for none' * empty}.")
    if (limits := _first(RANGES, path)) is None:
      continue
    least, most = limits
    for part in parts:
      if isinstance(part, bool | str | None):
        raise UserError(f"config.{path} is {value!r}: give a number.")
      if part < least:
        raise UserError(f"config.{path} is {value!r}: make it {least} or more.")
      if part > most:
        raise UserError(f"config.{path} is {value!r}: make it {most} or less.")


def _first(table: Mapping[str, Any], path: str) -> Any:
  return next((table[pattern] for pattern in table if fnmatch.fnmatchcase(path, pattern)), None)


def _parts(path: str, value: Any) -> list[Any]:
  """The plain values in a value: itself, or those of a tuple."""
  if isinstance(value, tuple):
    return [part for one in value for part in _parts(path, one)]
  if not isinstance(value, bool | int | float | str | None):
    raise UserError(
      f"config.{path} holds a {type(value).__name__}, which cannot be saved with the run: give a number, "
      "text, True or False, or a tuple of these."
    )
  if isinstance(value, int) and abs(value) > INT32_MAX:
    raise UserError(
      f"config.{path} is {value}: make it {INT32_MAX} or less, and -{INT32_MAX} or more (32 bits)."
    )
  if isinstance(value, float) and not abs(value) <= FLOAT32_MAX:
    raise UserError(f"config.{path} is {value}: make it a finite number.")
  return [value]
