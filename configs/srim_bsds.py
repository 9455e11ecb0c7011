"""SRIM on a CPU: BSDS500 (train and test parts) and T91, x4 with MATLAB's bicubic, the LR images given.

  export SR_JAX_TRAIN_DIR=bsds400:t91            # 491 images
  export SR_JAX_TEST_DIR=bsd100/hr SR_JAX_TEST_LR_DIR=bsd100/lr
  sr-jax train --config srim_bsds --workdir runs/srim_bsds

Variants: srim, regression (the same network without its noise; not run yet). Two cores, 1 hour. To expect on
bsd100: Y-PSNR 26.92 dB for a single sample, 27.00 dB for the mean of 10, bicubic 25.96 (before the cosine
became 5 % longer). Beyond srim_demo: a deeper network, larger crops and a longer run.
"""

from ml_collections import ConfigDict

from sr_jax.configs import srim_demo
from sr_jax.errors import choose

sweep = srim_demo.sweep


def get_config(variant: str = "srim") -> ConfigDict:
  change = choose(srim_demo.VARIANTS, variant, "--config NAME:VARIANT")
  config = srim_demo.get_config()
  config.networks.generator.blocks = 5
  config.data.update({"name": "folder", "dir": "$SR_JAX_TRAIN_DIR", "crop": (64, 64)})
  config.eval.data.update({"name": "folder", "dir": "$SR_JAX_TEST_DIR", "lr_dir": "$SR_JAX_TEST_LR_DIR"})
  config.eval.batch = 1
  config.train.update({"rounds": 24_000, "log_every": 500, "checkpoint_every": 2_000})
  config.method.warmup_rounds = 9_600
  return change(config)
