"""One image in, n plausible larger images out."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.baselines import Sampler
from sr_jax.data.decode import CorruptRecord, decode
from sr_jax.errors import UserError
from sr_jax.ops import to_float, to_uint8
from sr_jax.report import save_png
from sr_jax.run import Run, load_run

MAX_PIXELS = 4_000_000  # of an output: the memory of a 64-channel network at that size is about 1 GB a layer


def upscale(
  run: Run, image: np.ndarray, *, samples: int = 4, seed: int = 0, temperature: float = 1.0
) -> np.ndarray:
  """Plausible enlargements of one image.

  Args:
    run: from `load_run(workdir)`.
    image: uint8 [h, w, C], C as the run was trained.
    samples: n.
    seed: the same seed gives the same images.
    temperature: 1 is the model, 0 its mode, larger is more diverse.

  Returns:
    uint8 [n, H, W, C].

  Raises:
    UserError: the output would be larger than MAX_PIXELS, or the image has other channels.
  """
  channels = run.config.data.channels
  if image.ndim != 3 or image.shape[-1] != channels:
    raise UserError(f"The image has shape {image.shape}, but the run was trained on {channels} channels.")
  height, width = run.operator.hr_shape(image.shape)[:2]
  if height * width > MAX_PIXELS:
    raise UserError(
      f"The image would become {width}x{height} pixels, more than the {MAX_PIXELS:,} that are computed at "
      "once: crop it or make it smaller."
    )
  return np.asarray(_draw(run.sampler(temperature), jnp.asarray(image), jax.random.key(seed), samples))


def read_image(path: str | Path, channels: int) -> np.ndarray:
  """An image file -> uint8 [h, w, channels], turned as its camera says.

  Raises:
    UserError: there is no such file, or it is no image.
  """
  if not Path(path).is_file():
    raise UserError(f"{path} does not exist: give the path of an image.")
  try:
    return decode(Path(path), str(path), channels)
  except CorruptRecord as error:
    raise UserError(f"{error}: give a PNG, JPEG or the like.") from error


@partial(jax.jit, static_argnums=3)
def _draw(sampler: Sampler, image: jax.Array, key: jax.Array, samples: int) -> jax.Array:
  """uint8 [h, w, C] -> uint8 [n, H, W, C]."""
  return to_uint8(sampler(to_float(image)[None], key, samples)[:, 0])


def upscale_file(
  path: str | Path,
  workdir: str | Path,
  out: str | Path = ".",
  *,
  samples: int = 4,
  seed: int = 0,
  temperature: float = 1.0,
) -> list[Path]:
  """Enlarge an image file with the run in `workdir`.

  Writes photo_x4_0.png, photo_x4_1.png, ... into the folder `out`, and returns their paths.

  Raises:
    UserError: as `upscale` and `load_run`; or `out` cannot be written.
  """
  run = load_run(workdir)
  image = read_image(path, run.config.data.channels)
  images = upscale(run, image, samples=samples, seed=seed, temperature=temperature)
  fy, fx = run.operator.factor
  scale = f"x{fy}" if fy == fx else f"x{fy}x{fx}"
  paths = [Path(out) / f"{Path(path).stem}_{scale}_{i}.png" for i in range(samples)]
  try:
    Path(out).mkdir(parents=True, exist_ok=True)
    for target, image in zip(paths, images, strict=True):
      save_png(target, image)
  except OSError as error:
    raise UserError(f"--out {out} cannot be written ({error.strerror}): choose another folder.") from error
  return paths
