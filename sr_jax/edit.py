"""Images changed by their latent: attributes, transfer, interpolation (VarSR, section 4.4 and Figure 4).

The latent of an image I_H is its code E_H(I_H), the posterior's mean, and that of an input I_L is z_LR, the
prior's mean. Functions take and return arrays of the host: images float32 in [0, 1], made ones unclipped.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.data import first_test_batch, test_batches
from sr_jax.data.sources import Source
from sr_jax.errors import UserError, choose
from sr_jax.files import on_disk
from sr_jax.method import Key, State
from sr_jax.ops import Operator, to_float
from sr_jax.run import Run

Row = dict[str, np.ndarray]  # images by the heading of their column, for `report.grids.labelled_grid`


def encode(run: Run, hr: np.ndarray) -> np.ndarray:
  """Codes [B, D] of images [B, H, W, C]. Raises UserError if the method learns none."""
  return _means(run, "posterior", hr)


def prior_mean(run: Run, lr: np.ndarray) -> np.ndarray:
  """z_LR [B, D] of inputs [B, h, w, C]. Raises UserError if the method learns none."""
  return _means(run, "prior", lr)


def draw(run: Run, lr: np.ndarray, key: Key) -> Any:
  """A latent for each input [B, h, w, C], as sampling draws it: a pytree of arrays with a first axis B.

  Raises:
    UserError: the method draws none.
  """
  latents = run.method.latents
  if latents is None or run.method.deterministic:
    raise UserError(
      f"Method {run.config.method.name!r} of this run draws no latents: give a run of one that does."
    )
  return jax.device_get(_drawn(latents.draw, run.state, lr, key))


def decode(run: Run, lr: np.ndarray, latents: Any) -> np.ndarray:
  """Images [B, K, H, W, C] of inputs [B, h, w, C] and K latents for each, whose leaves are [B, K, ...]."""
  assert run.method.latents is not None  # it made the latents
  function = run.method.latents.decode

  def images(k: int) -> np.ndarray:
    part = jax.tree.map(lambda z: z[:, k], latents)
    return jax.device_get(_images(function, run.operator, run.state, lr, part))

  return np.stack([images(k) for k in range(jax.tree.leaves(latents)[0].shape[1])], axis=1)


def edit(run: Run, lr: np.ndarray, direction: np.ndarray, strengths: Sequence[float]) -> np.ndarray:
  """Figure 4a: G(I_L, z_LR + k direction) for each strength k, which is k s in the paper.

  Args:
    run: of a method that learns a prior.
    lr: inputs [B, h, w, C].
    direction: [D], see `mean_codes`.
    strengths: K numbers; 0 gives the image that is drawn at temperature 0.

  Returns:
    [B, K, H, W, C].
  """
  moves = np.asarray(strengths, np.float32)[:, None] * direction
  return decode(run, lr, prior_mean(run, lr)[:, None] + moves)


def transfer(run: Run, lr: np.ndarray, codes: np.ndarray) -> np.ndarray:
  """Figure 4b: G(I_L^j, E_H(I_H^k)) of inputs [J, h, w, C] and codes [K, D] -> [J, K, H, W, C]."""
  return decode(run, lr, np.broadcast_to(codes, (len(lr), *codes.shape)))


def interpolate(run: Run, lr: np.ndarray, first: Any, last: Any, steps: int) -> np.ndarray:
  """G(I_L, (1 - t) first + t last), t in equal steps from 0 to 1.

  Args:
    run: of a method that draws latents.
    lr: inputs [B, h, w, C].
    first, last: latents, as `encode` or `draw` gives them.
    steps: T, 2 or more.

  Returns:
    [B, T, H, W, C].
  """
  times = np.linspace(0, 1, steps, dtype=np.float32)
  latents = jax.tree.map(lambda a, b: np.stack([(1 - t) * a + t * b for t in times], axis=1), first, last)
  return decode(run, lr, latents)


def read_attribute(path: str | Path, name: str) -> dict[str, bool]:
  """Which files have an attribute: {file name: whether}.

  Args:
    path: a CSV file with a heading; file names in its first column, 1 and 0, or 1 and -1, in the others.
    name: of a column.

  Raises:
    UserError: there is no such file or attribute, or a value is another one.
  """
  try:
    with on_disk(path, "--attributes").open(newline="", encoding="utf-8-sig") as file:
      heading, *lines = [[cell.strip() for cell in line] for line in csv.reader(file) if line] or [[]]
  except (OSError, ValueError, csv.Error) as error:
    reason = getattr(error, "strerror", None) or error
    raise UserError(f"--attributes {path} cannot be read ({reason}): give a CSV file.") from error
  if len(heading) < 2:
    raise UserError(f"--attributes {path} names no attributes in its first line: give a CSV file that does.")
  column = choose({word: number for number, word in enumerate(heading) if number}, name, "--attribute")
  values = {"1": True, "0": False, "-1": False}
  has = {}
  for line in lines:
    if len(line) <= column or line[column] not in values:
      raise UserError(f"--attributes {path} has no 0, 1 or -1 for {name} of {line[0]}: correct that line.")
    has[line[0]] = values[line[column]]
  return has


def mean_codes(run: Run, source: Source, has: Mapping[str, bool]) -> tuple[np.ndarray, np.ndarray]:
  """The mean code [D] of the images that have an attribute, Z_att of Figure 4a, and of those that do not.

  Args:
    run: of a method that learns a posterior.
    source: the images, of which all are used.
    has: file name without folders -> whether it has the attribute.

  Raises:
    UserError: `has` lacks an image, or all or none have the attribute.
  """
  codes: dict[bool, list[np.ndarray]] = {True: [], False: []}
  settings = run.config.eval
  for batch in test_batches(source, settings.data, batch=settings.batch, factor=run.operator.factor):
    found = encode(run, np.asarray(to_float(jnp.asarray(batch["hr"]))))
    for i in np.flatnonzero(batch["mask"]):
      name = Path(source.name(int(batch["index"][i]))).name
      if name not in has:
        raise UserError(f"--attributes has no line for {name}: give a file with a line for every image.")
      codes[has[name]].append(found[i])
  if not (codes[True] and codes[False]):
    raise UserError(
      f"{len(codes[True])} images have the attribute and {len(codes[False])} do not: give a set with both."
    )
  return np.mean(codes[True], axis=0), np.mean(codes[False], axis=0)


def first_images(run: Run, source: Source, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Inputs [B, h, w, C] and truths [B, H, W, C] of the first images of one size, at most `count`."""
  batch = first_test_batch(source, run.config.eval.data, batch=count, factor=run.operator.factor)
  real = {key: jnp.asarray(value[batch["mask"]]) for key, value in batch.items()}
  return jax.device_get((run.operator.lr(real), to_float(real["hr"])))


def attribute_rows(
  run: Run, lr: np.ndarray, hr: np.ndarray, direction: np.ndarray, strengths: Sequence[float]
) -> list[Row]:
  """A row per image: its input, `edit` at each strength, the truth."""
  return _rows(lr, [f"{k:g}" for k in strengths], edit(run, lr, direction, strengths), {"truth": hr})


def transfer_rows(run: Run, lr: np.ndarray, hr: np.ndarray) -> list[Row]:
  """A row per input and a column per image that lends its code; a first row shows these images."""
  headings = [f"code of {k}" for k in range(1, len(hr) + 1)]
  images = transfer(run, lr, encode(run, hr))
  return _rows(np.concatenate([np.ones_like(lr[:1]), lr]), headings, np.concatenate([hr[None], images]), {})


def interpolation_rows(
  run: Run, lr: np.ndarray, hr: np.ndarray, steps: int, seed: int | None = None
) -> list[Row]:
  """A row per image: its input, `interpolate` between two latents, the truth.

  Args:
    run: a trained run.
    lr, hr: inputs [B, h, w, C] and truths [B, H, W, C].
    steps: 2 or more.
    seed: of two draws; None: from the image's code to that of the next image, which stands at the end.

  Raises:
    UserError: fewer than two steps, or one image alone without a seed.
  """
  if steps < 2:
    raise UserError(f"--steps is {steps}, and an interpolation has two ends: make it 2 or more.")
  ends = {"truth": hr}
  if seed is not None:
    first, last = (draw(run, lr, key) for key in jax.random.split(jax.random.key(seed)))
  elif len(hr) < 2:
    raise UserError(
      "Only one image is shown, and --interpolate=posterior goes from each image's code to the next one's: "
      "give --count 2 or more, and a set whose first images have one size."
    )
  else:
    ends["truth at 1"] = np.roll(hr, -1, axis=0)
    first, last = (encode(run, images) for images in ends.values())
  headings = [f"{t:.3g}" for t in np.linspace(0, 1, steps)]
  return _rows(lr, headings, interpolate(run, lr, first, last, steps), ends)


def _rows(
  lr: np.ndarray, headings: list[str], images: np.ndarray, ends: Mapping[str, np.ndarray]
) -> list[Row]:
  """Inputs [B, h, w, C], images [B, K, H, W, C] by K headings, and what stands at the end by its heading."""
  columns = {"input": lr, **dict(zip(headings, images.swapaxes(0, 1), strict=True)), **ends}
  return [{heading: column[i] for heading, column in columns.items()} for i in range(len(lr))]


def _means(run: Run, role: str, images: np.ndarray) -> np.ndarray:
  """Means [B, D] of a Gaussian that the method learns, the posterior or the prior."""
  gaussian = getattr(run.method.latents, role, None)
  if gaussian is None:
    raise UserError(
      f"Method {run.config.method.name!r} of this run learns no {role} of latents: give a run of one that "
      "does, such as varsr with a latent."
    )
  return jax.device_get(_mean(gaussian, run.state, images))


@partial(jax.jit, static_argnums=0)
def _mean(gaussian: Callable[..., Any], state: State, images: jax.Array) -> jax.Array:
  return gaussian(state, images)[0]


@partial(jax.jit, static_argnums=0)
def _drawn(function: Callable[..., Any], state: State, lr: jax.Array, key: Key) -> Any:
  return function(state, lr, key, 1.0)


@partial(jax.jit, static_argnums=(0, 1))
def _images(
  function: Callable[..., jax.Array], operator: Operator, state: State, lr: jax.Array, latent: Any
) -> jax.Array:
  return operator.head(function(state, lr, latent), lr)
