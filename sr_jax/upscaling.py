"""Images in, n plausible larger images of each out."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.baselines import Sampler
from sr_jax.errors import UserError
from sr_jax.files import absolute, as_path, check_writable, make
from sr_jax.images import read_image, save_png
from sr_jax.ops import to_float, to_uint8
from sr_jax.run import Run, load_run
from sr_jax.tiles import MEMORY, Budget, activations

log = logging.getLogger(__name__)


def upscale(
  run: Run,
  image: np.ndarray,
  *,
  samples: int = 4,
  seed: int = 0,
  temperature: float = 1.0,
  memory: int = MEMORY,
  margin: int | None = None,
) -> np.ndarray:
  """Plausible enlargements of one image, of any size: a large one is made in tiles.

  Args:
    run: from `load_run(workdir)`.
    image: uint8 [h, w, C], C as the run was trained.
    samples: n; all are equal where the method is deterministic or the temperature 0.
    seed: the same seed gives the same images.
    temperature: 1 is the model, larger is more diverse, 0 draws nothing: greedy decoding of a pixel recursive
      model; other generators get the mean of the latent's distribution (0, or VarSR's learned prior mean).
    memory: MiB of the networks' activations; an image that needs more is made in tiles.
    margin: of a tile, in pixels of the image; None: as far as the network sees, so that tiles are exact.

  Returns:
    uint8 [n, H, W, C].

  Raises:
    UserError: the image has other channels or is not of bytes, or needs more memory and cannot be made in
      tiles; or the temperature is so high that the network overflows.
  """
  channels = run.config.data.channels
  if image.ndim != 3 or image.shape[-1] != channels:
    raise UserError(f"The image has shape {image.shape}, but the run was trained on {channels} channels.")
  if image.dtype != np.uint8:
    raise UserError(f"The image holds {image.dtype}: give bytes, uint8 from 0 to 255, as `read_image` does.")
  sampler = run.sampler(temperature, Budget(memory << 20, margin, strict=True))
  arguments = (sampler, jnp.asarray(image), jax.random.key(seed), samples)
  if run.method.latents is None:  # compiled once, here
    needed = activations(_draw.lower(*arguments).compile()) >> 20
    if needed > memory:
      raise UserError(
        f"An input of {image.shape[1]}x{image.shape[0]} pixels needs {needed:,} MiB and --memory is "
        f"{memory}, but {run.config.method.name!r} makes an image as a whole: give one of the size that "
        "it was trained on, or more memory."
      )
  # Waited for first: XLA aborts the program that reads an image for which there was too little memory.
  images, finite = jax.device_get(jax.block_until_ready(_draw(*arguments)))
  if not finite:
    raise UserError(
      f"The images have numbers that are not finite at --temperature {temperature}: choose a smaller one."
    )
  return images


@partial(jax.jit, static_argnums=3)
def _draw(sampler: Sampler, image: jax.Array, key: jax.Array, samples: int) -> tuple[jax.Array, jax.Array]:
  """uint8 [h, w, C] -> uint8 [n, H, W, C], and whether all numbers were finite before they were bytes."""
  y = sampler(to_float(image)[None], key, samples)[:, 0]
  return to_uint8(y), jnp.isfinite(y).all()


def upscale_files(
  paths: Sequence[str | Path],
  workdir: str | Path,
  out: str | Path = ".",
  *,
  samples: int = 4,
  seed: int = 0,
  temperature: float = 1.0,
  memory: int = MEMORY,
  margin: int | None = None,
) -> Iterator[Path]:
  """Enlarge image files with the run in `workdir`, each as if it were the only one.

  Writes photo_x4_0.png, photo_x4_1.png, ... for photo.jpg into the folder `out`, one alone where all would be
  equal, and yields their paths as they are written.

  Raises:
    UserError: as `upscale`, `read_image` and `load_run`; an image would be written over another one; or `out`
      cannot be written. What was written before stays.
  """
  folder, paths = check_writable(out, "--out"), list(dict.fromkeys(paths))
  for path in paths:
    if not as_path(path).is_file():
      read_image(path, 3)  # says what is wrong, before anything is made
  run = load_run(workdir)
  count = run.count(samples, temperature)
  if count < samples:
    log.info("All samples of an image would be equal: one is written.")
  fy, fx = run.operator.factor
  scale = f"x{fy}" if fy == fx else f"x{fy}x{fx}"
  targets = {path: [folder / f"{Path(path).stem}_{scale}_{i}.png" for i in range(count)] for path in paths}
  _check_overwriting(targets)
  for path in paths:
    image = read_image(path, run.config.data.channels)
    try:
      images = upscale(
        run, image, samples=count, seed=seed, temperature=temperature, memory=memory, margin=margin
      )
    except UserError as error:
      raise UserError(f"{path}: {error}") from error
    make(folder)
    for target, enlarged in zip(targets[path], images, strict=True):
      save_png(target, enlarged)
      yield target


def _check_overwriting(targets: Mapping[str | Path, Sequence[Path]]) -> None:
  """Refuse to write over an image that is to be enlarged, or over what is made from another one."""
  taken = {absolute(path, "an image"): "which is itself to be enlarged" for path in targets}
  for path, files in targets.items():
    for file in files:
      place = absolute(file, "--out")
      if place in taken:
        raise UserError(
          f"{path} would be written to {file}, {taken[place]}: enlarge it in a command of its own, with "
          "another --out."
        )
      taken[place] = f"as {path} would"
