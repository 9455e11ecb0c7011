"""Pixel Recursive Super Resolution as in its Table 2, and the two pixel-independent models it compares with.

  sr-jax train --config prsr:prsr --workdir runs/prsr

Variants: prsr, regression (tanh residuals over bicubic), cross_entropy. prsr_celeba, prsr_bedrooms and
prsr_mnist_corners give them their data; on the embedded photographs not run to the end.
"""

from ml_collections import ConfigDict

from sr_jax.configs import base
from sr_jax.errors import choose

# Method and network of the generator.
MODELS = {
  "prsr": ("pixel_recursive", "pixel_recursive"),
  "regression": ("regression", "tanh_residual"),
  "cross_entropy": ("pixel_independent", "conditioning"),
}


def get_config(variant: str = "prsr") -> ConfigDict:
  method, network = choose(MODELS, variant, "--config NAME:VARIANT")
  config = base.get_config(method, generator=network)
  config.data.crop = (32, 32)
  config.eval.update(
    {
      "metrics": ("psnr", "psnr_uint8_wrapped", "ssim", "ms_ssim", "lr_mse", "lr_l2"),
      "baselines": ("bicubic",),
      "border": 0,
      "samples": 1,
    }
  )
  config.train.update({"rounds": 200_000, "batch": 32})
  config.optim.generator.update(
    {
      "name": "rmsprop",
      "learning_rate": 4e-4,
      "schedule": "halve",
      "halve_at": (500_000, 1_000_000, 1_500_000),
    }
  )
  if variant == "prsr":
    # tau of 1.0, 1.1 and 1.2, and greedy decoding.
    config.eval.update({"temperatures": (1.0, 1 / 1.1, 1 / 1.2, 0.0), "judge": True})
  return config


def conditioning(config: ConfigDict) -> ConfigDict:
  """The keys of the conditioning network, which is a part of prsr and the whole of the other variants."""
  return config.networks.generator.get("conditioning", config.networks.generator)
