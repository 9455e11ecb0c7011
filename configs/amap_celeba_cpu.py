"""Table 2 and Figures 2 and 4 of Amortised MAP Inference on a CPU: smaller networks, 10,000 faces.

  export SR_JAX_DATA_DIR=celeba_10k_89x109/images
  sr-jax sweep --config amap_celeba_cpu --workdir runs/celeba

Variants as in amap_celeba. Two cores, 10 to 20 minutes for MSE and AffMSE, 25 for each GAN, 1 to 2 for each
run of Figure 2 (measured while they shared the cores). To expect on 256 faces, SSIM and PSNR: MSE 0.752,
24.44 dB; AffMSE 0.780, 24.95; SoftGAN 0.505, 19.15; AffGAN 0.580, 21.36.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sr_jax.configs import amap_celeba, derive

# The projections that Figure 2 compares, "(F)ixed or (T)rainable, (T)rained or (R)andom", in shorter runs.
FIGURE_2 = (
  "mse",
  "affmse",
  *(f"affmse_{m}_{s}" for m in ("fixed", "trainable") for s in ("trained", "random")),
)


def get_config(variant: str = "affgan") -> ConfigDict:
  config = amap_celeba.get_config(variant)
  config.networks.generator.update({"widths": (64,) * 6, "skip": 2})
  for source, split in ((config.data, "[:9500]"), (config.eval.data, "[9500:]")):
    source.update({"dir": "$SR_JAX_DATA_DIR", "split": split, "centre": (64, 64), "resize": ()})
  config.train.update({"rounds": 4000, "batch": 16, "log_every": 100, "checkpoint_every": 1000})
  config.train.update({"eval_every": 100, "eval_limit": 64})
  config.eval.update({"limit": 256, "images": 8})
  config.optim.generator.update({"learning_rate": 1e-3, "schedule": "cosine"})
  if config.method.name == "amap_gan":
    config.networks.discriminator.update({"widths": (32, 64, 128, 256), "strides": (2,) * 4, "kernel": 4})
    config.train.rounds = 3000
    config.optim.discriminator.update({"learning_rate": 2e-4, "schedule": "cosine"})
    # A few thousand rounds from a random start leave the grid of A+ in the images: begin at the mean.
    derive.add_stage(
      config,
      "mean",
      method={"name": "regression", "loss": "mse"},
      optim={"generator": config.optim.generator.to_dict()},
      train={"rounds": 1200},
    )
    config.init_from = ("generator=mean",)
    config.optim.generator.learning_rate = 2e-4
  return config


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  yield from amap_celeba.sweep()
  for variant in FIGURE_2:
    yield f"Figure 2, {variant}", variant, {"train.rounds": 1200}
