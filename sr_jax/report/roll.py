"""The Swiss roll of Amortised MAP Inference as a picture: y1 to the right, y2 upwards, grey its density."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sr_jax.files import replacing
from sr_jax.ops import swiss_roll

REACH, PIXELS = 10.0, 900  # half the side of the square shown, and its pixels
INPUT = 0.5  # the input x of Figure 1a
LABELS = {"MAP": "black", "MSE": "#1f77b4", "MAE": "#2ca02c"}


def place(points: np.ndarray) -> list[tuple[float, float]]:
  """Points [n, 2] -> pixels (x, y)."""
  x = (points[:, 0] + REACH) / (2 * REACH) * PIXELS
  y = (REACH - points[:, 1]) / (2 * REACH) * PIXELS
  return list(zip(x.tolist(), y.tolist(), strict=True))


def density_picture() -> Image.Image:
  """The density, darker where it is higher."""
  side = ((np.arange(PIXELS) + 0.5) / PIXELS * 2 - 1) * REACH
  grid = np.stack(np.meshgrid(side, -side), axis=-1).astype(np.float32)[:, :, None, :, None]
  density = np.stack([jnp.exp(jax.jit(swiss_roll.log_density)(row)) for row in grid])
  return Image.fromarray((255 - 150 * density / density.max()).astype(np.uint8)).convert("RGB")


def dots(draw: ImageDraw.ImageDraw, points: np.ndarray, colour: str, radius: float = 2) -> None:
  """Points [..., 2] as discs."""
  for x, y in place(points.reshape(-1, 2)):
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def estimates(x: float) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
  """Bayes' answers to an input, by a fine grid along the line of points that it leaves open.

  Returns:
    {"MAP", "MSE", "MAE": the mode, the mean and the median of the posterior, [2]}, the grid [n, 2] and the
    posterior on it [n], which adds up to 1.
  """
  t = np.linspace(-14, 14, 28_001, dtype=np.float32)
  line = np.stack([x + t, x - t], axis=-1)
  logs = np.asarray(jax.jit(swiss_roll.log_density)(line[:, None, :, None]), np.float64)
  posterior = np.exp(logs - logs.max())
  posterior /= posterior.sum()
  median = line[np.searchsorted(np.cumsum(posterior), 0.5)]
  answers = {"MAP": line[posterior.argmax()], "MSE": posterior @ line, "MAE": median}
  return answers, line, posterior


def illustration(path: Path) -> None:
  """Writes Figure 1a: the line that x = 0.5 leaves open, the posterior on it in red, what Bayes answers under
  three losses, and the MAP estimates of inputs from -8 to 8 in black."""
  picture = density_picture()
  draw, font = ImageDraw.Draw(picture), ImageFont.load_default(18)
  answers, line, posterior = estimates(INPUT)
  draw.line(place(line[[0, -1]]), fill="#9467bd")
  dots(draw, np.asarray(swiss_roll.mode(jnp.linspace(-8, 8, 400).reshape(-1, 1, 1, 1))), LABELS["MAP"])
  # A disc for every fortieth point: the pixel is 0.022 wide, and the grid 0.0014.
  for point, weight in zip(line[::40], posterior[::40] / posterior.max(), strict=True):
    if weight > 0.01:
      dots(draw, point, "#d62728", 8 * weight)
  for name, point in answers.items():
    dots(draw, point, LABELS[name], 7)
    ((x, y),) = place(point[None])
    draw.text((x + 10, y - 10), name, fill=LABELS[name], font=font)
  with replacing(path) as temporary:
    picture.save(temporary, format="PNG")
