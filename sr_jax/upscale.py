"""One image in, n plausible larger images out."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.baselines import Sampler
from sr_jax.errors import UserError
from sr_jax.images import read_image, save_png
from sr_jax.ops import to_float, to_uint8
from sr_jax.run import Run, load_run

MAX_PIXELS = 4_000_000  # of an output: the memory of a 64-channel network at that size is about 1 GB a layer


def upscale(
  run: Run, image: np.ndarray, *, samples: int = 4, seed: int = 0, temperature: float = 1.0
) -> np.ndarray:
  """Plausible enlargements of one image.

  Args:
    run: from `load_run(workdir)`.
    image: uint8 [h, w, C], C as the run was trained.
    samples: n; all are equal where the method is deterministic or the temperature 0.
    seed: the same seed gives the same images.
    temperature: 1 is the model, larger is more diverse, 0 draws nothing: greedy decoding of a pixel recursive
      model, the latent 0 of other generators.

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

  Writes photo_x4_0.png, photo_x4_1.png, ... into the folder `out`, one alone where all would be equal, and
  returns their paths.

  Raises:
    UserError: as `upscale`, `read_image` and `load_run`; or `out` cannot be written.
  """
  run = load_run(workdir)
  fy, fx = run.operator.factor
  image = read_image(path, run.config.data.channels, MAX_PIXELS // (fy * fx))
  samples = run.count(samples, temperature)
  images = upscale(run, image, samples=samples, seed=seed, temperature=temperature)
  scale = f"x{fy}" if fy == fx else f"x{fy}x{fx}"
  paths = [Path(out) / f"{Path(path).stem}_{scale}_{i}.png" for i in range(samples)]
  try:
    Path(out).mkdir(parents=True, exist_ok=True)
    for target, enlarged in zip(paths, images, strict=True):
      save_png(target, enlarged)
  except OSError as error:
    raise UserError(f"--out {out} cannot be written ({error.strerror}): choose another folder.") from error
  return paths
