"""MNIST corners (Pixel Recursive Super Resolution, Figure 2): a digit, and half its size in a corner of two.

  sr-jax prepare mnist_corners/binary --from FOLDER_OF_IDX_FILES
  sr-jax train --config prsr_mnist_corners --workdir runs/corners

  sr-jax sweep --config prsr_mnist_corners --workdir runs/corners_all    # the three models of Figure 2

Variants: prsr, regression, cross_entropy. Two shared cores, 18 minutes. To expect of 2,000 samples
(benchmarks/mnist_corners.py): 51.5 % have the digit in the left corner, 48.2 % in the right one, 0.3 % in
both.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sr_jax.configs import prsr


def get_config(variant: str = "prsr") -> ConfigDict:
  config = prsr.get_config(variant)
  # A 3x3 network of the paper's size cannot carry a digit across the image.
  prsr.conditioning(config).update({"width": 16, "blocks": 1, "whole": 256, "norm": "none", "stddev": 0.0})
  config.operator.factor = (1, 1)
  # Black and white: one bit tells the corner, grey levels would hide it among three hundred.
  config.data.update({"name": "mnist_corners/binary", "channels": 1, "crop": (), "flip": False})
  config.eval.data.update({"name": "mnist_corners/binary", "channels": 1})
  config.eval.update(
    {"metrics": ("psnr", "mse"), "baselines": ("nearest",), "temperatures": (1.0,), "limit": 500}
  )
  config.eval.update({"judge": False, "images": 8, "samples": 4, "batch": 50})
  config.train.update({"rounds": 1500, "batch": 32, "log_every": 50, "checkpoint_every": 500})
  config.train.update({"eval_every": 500, "eval_limit": 50})
  config.optim.generator.update(
    {"name": "adam", "learning_rate": 2e-3, "schedule": "cosine", "warmup": 50, "clip": 1.0}
  )
  if variant == "prsr":
    # The first layer sees across the image: the two corners are 14 columns apart.
    config.networks.generator.prior.update(
      {"width": 16, "layers": 6, "first_kernel": 31, "head": 64, "stddev": 0.0}
    )
    # Eq. 8 asks A(x) to be right on its own, but B cannot know from blank rows whether x has ink in them: A
    # must give away the first corner and insist on the second one, which B then vetoes. Eq. 7 allows that.
    config.method.conditioning_weight = 0.0
  return config


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  for variant, row in (
    ("regression", "L2 regression"),
    ("cross_entropy", "cross-entropy"),
    ("prsr", "PixelCNN"),
  ):
    yield row, variant, {}
