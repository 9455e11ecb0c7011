"""SRMAP, small: BSDS500 (train and test parts) and T91, x4, tested on bsd100 or set14.

  export SR_JAX_TRAIN_DIR=bsds400:t91            # 491 images
  export SR_JAX_TEST_DIR=bsd100/hr SR_JAX_TEST_LR_DIR=bsd100/lr
  sr-jax train --config srmap_bsds --workdir runs/srmap_bsds --config.eval.limit=25 \\
      --config.eval.lpips.backbone=squeezenet1_1.npz --config.eval.lpips.heads=lpips_linear.npz

Variants: srmap (L1, then the GAN), l1 (the first stage alone), scratch (the GAN without it), diverse (with
the term that asks two samples to differ). A generator an eighth as wide as the paper's with a quarter of its
blocks, whose compression factor is 2; 64x64 patches, 16 of them in a batch. L1 took 80 s on an H200, the GAN
28 minutes on two shared cores. To expect of 25 images of bsd100: LPIPS (SqueezeNet's) .276 of L1 and .185 of
SRMAP, LR-PSNR 48.8 and 54.6 dB. Of the sweep's trials after L1 with 1,500 rounds (7 minutes each on two
cores): SRMAP .205 and 53.7 dB, from scratch .227 and 44.9, with a fidelity weight of 100 .197 and 56.9,
diverse .250 with a deviation of 7.4.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sr_jax.configs import derive, srmap_div2k
from sr_jax.errors import check_choice

L1_ROUNDS, GAN_ROUNDS = 6_000, 3_000


def get_config(variant: str = "srmap") -> ConfigDict:
  check_choice(("srmap", "l1", "scratch", "diverse"), variant, "--config NAME:VARIANT")
  config = srmap_div2k.get_config("srmap" if variant == "diverse" else variant)
  config.networks.generator.update({"stem": 32, "width": 64, "blocks": 4, "ratio": 2, "widths": (48, 32)})
  config.data.update({"name": "folder", "split": "train", "dir": "$SR_JAX_TRAIN_DIR", "crop": (64, 64)})
  config.eval.data.update(
    {"name": "folder", "split": "test", "dir": "$SR_JAX_TEST_DIR", "lr_dir": "$SR_JAX_TEST_LR_DIR"}
  )
  config.operator.border = "replicate"  # as the given low-resolution images
  config.eval.border, config.eval.lpips.net = 4, "squeeze"
  perceptual = ("lpips", "lpips_spatial", "lpips_diversity")
  consistency = ("lr_psnr", "lr_psnr_8bit", "lr_psnr_truth", "lr_l1")
  config.eval.metrics = ("psnr", "psnr_y", "ssim_y", *perceptual, *consistency, "std")
  rounds = L1_ROUNDS if variant == "l1" else GAN_ROUNDS
  config.train.update({"batch": 16, "rounds": rounds, "log_every": 100, "checkpoint_every": 1000})
  for optim in config.optim.values():
    optim.update({"learning_rate": 5e-4, "schedule": "cosine", "clip": 1.0})
  if variant == "l1":
    return config
  config.networks.critic.update({"widths": (32, 64, 96, 128), "ratio": 2, "head": 128})
  config.method.update({"r1_every": 4, "r1_weight": 1.0, "fidelity_weight": 10.0})
  config.average = 0.995  # as StyleGAN2 averages its generator's weights; the rate stays constant to the end
  derive.keep_optimisers(config, "l1", "generator")
  with config.unlocked():
    config.stages.l1.average = 0.0
  config.stages.l1.train.rounds = L1_ROUNDS
  for role, rate in (("generator", 1e-4), ("critic", 5e-4)):
    # Fidelity's gradient is so much larger that a common clip would leave nothing of the critic's. b1 is
    # DCGAN's, b2 StyleGAN2's.
    keys = {"learning_rate": rate, "schedule": "constant", "clip": 0.0, "b1": 0.5, "b2": 0.99}
    config.optim[role].update(keys)
  if variant == "diverse":
    config.method.diversity_weight = 0.02
  return config


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  yield "L1", "l1", {}
  for seed in range(3):
    yield "SRMAP", "srmap", {"seed": seed}
  for seed in range(3):
    yield "SRMAP from scratch", "scratch", {"seed": seed}
  yield "SRMAP, diverse", "diverse", {}
  for key, values in (("fidelity_weight", (1.0, 100.0)), ("r1_weight", (0.1, 10.0))):
    yield from derive.grid({f"method.{key}": values}, "SRMAP", "srmap")
  yield "SRMAP, projected", "srmap", {"consistency": "project"}
