"""SRMAP as in the paper: DIV2K x4, patches of 48x48 to 192x192, batches of 64, EDSR's schedule.

  sr-jax prepare div2k/bicubic_x4      # needs TensorFlow, once; or a folder: --config.data.name=folder ...
  sr-jax train --config srmap_div2k --workdir runs/srmap_div2k \\
      --config.eval.lpips.backbone=alexnet.npz --config.eval.lpips.heads=lpips_linear.npz

Variants: srmap (L1, then the GAN), l1 (the first stage alone), scratch (the GAN without it, which did not
converge in the paper). Not trained; its steps were timed on a GPU (docs/results.md). The paper took 10 hours
for L1 and five days for the GAN on a V100. To expect (Table 2, NTIRE 2021's protocol): lpips_spatial 0.153
and lr_psnr_truth 58.40 dB, of l1 0.267 and 52.80. The paper does not give alpha, gamma and the rate of the
GAN stage: those here are untested, those of srmap_bsds were tried on a small network.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sr_jax.configs import base
from sr_jax.configs.papers.srmap import L1_ROUNDS
from sr_jax.errors import check_choice


def get_config(variant: str = "srmap") -> ConfigDict:
  check_choice(("srmap", "l1", "scratch"), variant, "--config NAME:VARIANT")
  config = base.get_config("regression" if variant == "l1" else "srmap", generator="srmap")
  if variant == "l1":
    config.method.loss = "mae"
  for source, split in ((config.data, "train"), (config.eval.data, "validation")):
    source.update({"name": "div2k/bicubic_x4", "split": split})
  # The 800 images are kept decoded: a pod takes crops faster than hosts decode (docs/plan.md).
  config.data.update({"crop": (192, 192), "turn": True, "cache_mb": 7000})
  # As in NTIRE 2021: no border is cut, LPIPS is AlexNet's, images are reduced with mirrored borders.
  config.eval.update({"batch": 1, "border": 0})
  config.eval.metrics = ("psnr", "psnr_y", "ssim_y", "lpips_spatial", "lr_psnr", "lr_psnr_truth")
  config.eval.lpips.net = "alex"
  config.operator.border = "symmetric"
  rounds = L1_ROUNDS if variant == "l1" else 200_000
  config.train.update({"batch": 64, "rounds": rounds, "checkpoint_every": 1000})
  # 1,000 batches an epoch, halved after 200 epochs, which is the end of the paper's runs.
  for optim in config.optim.values():
    optim.update({"schedule": "halve", "halve_at": (200_000,)})
  if variant == "scratch":
    config.init_from = ()
  return config


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  for row in ("L1", "SRMAP"):
    yield row, row.lower(), {}
