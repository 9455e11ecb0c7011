"""Samples that any program wrote as image files, scored as NTIRE 2021 did on the super-resolution space.

Lugmayr, Danelljan & Timofte, NTIRE 2021 Learning the Super-Resolution Space Challenge, CVPRW 2021. Its file
000012_sample00003.png is the fourth sample of the thirteenth image of the test set in the order of its names.
"""

import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sr_jax import metrics
from sr_jax.configs import base
from sr_jax.data import open_source, test_batches
from sr_jax.errors import UserError, choose
from sr_jax.files import as_path, check_writable, name_of
from sr_jax.images import fingerprint, image_suffixes, read_image
from sr_jax.metrics.diversity import diversity_scores, mse_maps
from sr_jax.metrics.lpips import lpips_maps, read_lpips
from sr_jax.metrics.protocol import Array
from sr_jax.ops import make_operator, to_float
from sr_jax.ops.colour import LUMA
from sr_jax.report.tables import clear_report, report_text, rows_of, write_per_image, write_report
from sr_jax.run import refuse_run

LEAST_LR_PSNR = 45  # dB of lr_psnr_truth that the challenge asks for
# Of the config, what a score depends on.
KEYS = (
  "operator",
  *(f"eval.{key}" for key in ("metrics", "border", "luma", "best_by", "lpips", "embedding")),
)


def default_config() -> ConfigDict:
  """How the challenge measures: no border is cut, and images are reduced as newer versions of MATLAB do."""
  config = base.get_config()
  config.operator.border = "symmetric"
  config.eval.update({"border": 0, "metrics": ("psnr", "ssim", "std", "s_n_mse")})
  config.eval.data.name = "folder"
  return config


def score(folder: str | Path, config: ConfigDict, out: str | Path = "", command: str = "") -> str:
  """Scores the samples in a folder.

  Measures "lr_psnr_truth" and "lr_psnr_worst"; "lr_psnr_given" if the inputs are given; "lpips_spatial" and
  "s_n" if `config.eval.lpips` names weights; and `config.eval.metrics`.

  Args:
    folder: of NAME_sample00000.png, NAME_sample00001.png, ..., or NAME.png for one sample. NAME is that of
      the truth, or its place in the set in six digits; every truth has equally many.
    config: from `default_config`; `config.eval.data` has the truths' `dir` and, if the inputs are given,
      `lr_dir`, and `config.operator` says how images are reduced.
    out: where to write evaluation/, with the files of an evaluation that `compare` reads; "": nowhere.
    command: kept in the JSON file.

  Returns:
    Two tables in Markdown: the metrics, and those of the first 1 to n samples.

  Raises:
    UserError: a file that is missing, belongs to no truth or has another size, a config that cannot be used,
      or a folder that cannot be written.
  """
  if out:
    check_writable(as_path(out) / "evaluation", "--out")
    refuse_run(out)
  config = config.copy_and_resolve_references()
  settings, operator = config.eval, make_operator(config)
  choose(LUMA, settings.luma, "config.eval.luma")
  for flag, given in (("--truth", settings.data.dir), ("--lr", settings.data.lr_dir)):
    if given and not as_path(given).is_dir():
      raise UserError(f"{flag} {given} is no folder: give one of images.")
  source = open_source(settings.data, "config.eval.data")
  truths = [Path(source.name(i)) for i in range(len(source))]
  files = find_samples(folder, truths)
  n, title = len(files[0]), name_of(folder)
  settings.samples = n
  given = ("lr_psnr_given",) if settings.data.lr_dir else ()
  names = tuple(dict.fromkeys(("lr_psnr_truth", "lr_psnr_worst", *given, *settings.metrics)))
  protocol = metrics.make_protocol(operator, settings)
  metrics.check_count(names, len(truths))
  weights = jax.device_put(metrics.read_weights(names, settings))
  # The backbone alone may be there for a metric of sets.
  wanted = settings.lpips.heads or (settings.lpips.backbone and not metrics.sets_note(names, len(truths)))
  lpips = jax.device_put(read_lpips(settings)) if wanted else None
  found = []
  # What the samples were made of is known where it was given.
  known = ("truth", "input") if settings.data.lr_dir else ("truth",)
  fingerprints: dict[str, list[float]] = {name: [] for name in known}
  for batch in test_batches(source, settings.data, batch=1, factor=operator.factor):
    truth = batch["hr"][0]
    samples = [_read(path, truth, operator.factor) for path in files[int(batch["index"][0])]]
    pair = {key: batch[key] for key in ("hr", "lr") if key in batch}
    for name, images in zip(fingerprints, pair.values(), strict=True):
      fingerprints[name].append(fingerprint(images[0]))
    found.append(jax.device_get(_measure(np.stack(samples)[:, None], pair, weights, lpips, protocol, names)))
  parts, seen = zip(*((part[:2], part[2]) for part in found), strict=True)
  values, curves = jax.tree.map(lambda *parts: np.concatenate(parts, axis=-1), *parts)
  sets = metrics.measure_sets(names, jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *seen))
  # JAX sorts names; the table has the challenge's first.
  order = ["lpips_spatial", "s_n", *metrics.columns(names)]
  values = {name: values[name] for name in sorted(values, key=lambda name: order.index(name.split("/")[0]))}
  rows = rows_of(title, n, {name: float(v.mean(dtype=float)) for name, v in values.items()} | sets)
  firsts = {
    f"of the first {k + 1}": {name: float(v[k].mean(dtype=float)) for name, v in curves.items()}
    for k in range(n)
  }
  consistency = rows[title]["lr_psnr_truth"]
  meta = {
    "command": command,
    "images": f"{len(truths)}, {n} samples each",
    "operator": str(operator),
    "border": settings.border,
    "luma": settings.luma,
    "lpips": f"of {settings.lpips.net}; the challenge took alex" if lpips else "without weights not measured",
    "lr_psnr_truth": f"{'passes' if consistency >= LEAST_LR_PSNR else 'fails'} the challenge's "
    f"{LEAST_LR_PSNR} dB",
    **metrics.sets_note(names, len(truths)),
    "single": {"": title},
    "eval": json.loads(settings.to_json()),
  }
  shown = metrics.METRICS | metrics.columns(names)
  text = report_text("table", rows, meta, shown) + "\n" + report_text("best", firsts, {}, shown)
  if out:
    target = as_path(out) / "evaluation"
    clear_report(target)
    write_report(target, "table", rows, meta, shown)
    write_report(target, "best", firsts, {"command": command}, shown)
    write_per_image(target, [truth.name for truth in truths], rows_of(title, n, values), fingerprints)
  return text


def find_samples(folder: str | Path, truths: list[Path]) -> list[list[Path]]:
  """The files of each truth's samples in `folder`, in order.

  Raises:
    UserError: one is missing, is there twice, belongs to no truth or is no PNG file.
  """
  folder = as_path(folder)
  if not folder.is_dir():
    raise UserError(f"{folder} is no folder: give one of samples NAME_sample00000.png, NAME_sample00001.png.")
  found: dict[str, dict[int, Path]] = {}
  suffixes = image_suffixes()
  for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes):
    if path.suffix.lower() != ".png":
      raise UserError(f"{path} is no PNG file, as samples are: write it as one, or take it away.")
    name, _, number = path.stem.rpartition("_sample")
    if not (name and number.isdecimal()):
      name, number = path.stem, "0"
    if other := found.setdefault(name, {}).get(int(number)):
      raise UserError(f"{other} and {path} are both sample {int(number)} of {name}: take one away.")
    found[name][int(number)] = path
  stems = [truth.stem for truth in truths]
  places = [f"{i:06d}" for i in range(len(truths))]
  by_name = len(set(stems)) == len(stems) and found.keys() & set(stems) and found.keys() != set(places)
  wanted = stems if by_name else places
  if strange := sorted(found.keys() - set(wanted)):
    file = next(iter(found[strange[0]].values()))
    raise UserError(
      f"{file} belongs to no truth: name samples NAME_sample00000.png by a truth's name, such as "
      f"{stems[0]}, or by its place in the set in six digits, and take other files away."
    )
  n = max((max(numbers) for numbers in found.values()), default=0) + 1
  for name, truth in zip(wanted, truths, strict=True):
    numbers = found.get(name, {})
    if len(numbers) < n:
      missing = next(k for k in itertools.count() if k not in numbers)
      raise UserError(
        f"{folder / name}_sample{missing:05d}.png is missing: give every truth ({truth} is one) "
        f"the same number of samples, which is {n} here."
      )
  return [[found[name][i] for i in range(n)] for name in wanted]


def _read(path: Path, truth: np.ndarray, factor: tuple[int, int]) -> np.ndarray:
  """A sample as uint8 of the shape of the truth, which was cut to a multiple of the factor."""
  image = read_image(path, truth.shape[-1])
  height, width = (side // f * f for side, f in zip(image.shape, factor, strict=False))
  if (height, width) != truth.shape[:2]:
    raise UserError(
      f"{path} has {image.shape[0]}x{image.shape[1]} pixels and its truth {truth.shape[0]}x{truth.shape[1]}: "
      "give samples of the truth's size."
    )
  return image[:height, :width]


@partial(jax.jit, static_argnames=("protocol", "names"))
def _measure(
  samples: Array,
  pair: dict[str, Array],
  weights: dict[str, Any],
  lpips: dict[str, Any] | None,
  protocol: metrics.Protocol,
  names: tuple[str, ...],
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
  """Of bytes [n, B, H, W, C]: metrics [B]; those of the best of the first 1 to n samples [n, B]; features."""
  drawn = to_float(samples)
  batch = {"hr": to_float(pair["hr"]), "lr": protocol.operator.lr(pair)}
  values = metrics.measure(names, drawn, batch, protocol, weights)
  maps = mse_maps(drawn, batch, protocol)
  curves = {"mse": jax.lax.cummin(maps.mean((-2, -1))), "s_n_mse": diversity_scores(maps)}
  if lpips:
    maps = lpips_maps(drawn, batch, protocol, lpips)
    whole = maps.mean((-2, -1))
    curves |= {"lpips_spatial": jax.lax.cummin(whole), "s_n": diversity_scores(maps)}
    values |= {"s_n": curves["s_n"][-1]}
    values |= {"lpips_spatial": whole.mean(axis=0), "lpips_spatial/best": whole.min(axis=0)}
  return values, curves, metrics.features(names, drawn, batch, protocol, weights)
