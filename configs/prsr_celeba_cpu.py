"""Table 1 of Pixel Recursive Super Resolution on a CPU: faces 8x8 to 32x32, small networks, 10,000 images.

  export SR_JAX_DATA_DIR=celeba_10k_89x109/images
  sr-jax sweep --config prsr_celeba_cpu --workdir runs/prsr_celeba_cpu

Variants as in prsr_celeba. Two shared cores, 50 minutes for prsr, 4 for 1,000 rounds of regression. Expect
of 256 faces: 4.50 bits per dimension; at tau = 1 PSNR 16.5 dB, wrapped 28.3, SSIM 0.47: grainy images. On a
GPU, 8 minutes of an H100 shared with 14 other trainings, stopped at round 10,571, gave 3.35 bits, 18.4 dB
and SSIM 0.617 (and 3 more of an H200, docs/results.md, 3.24 bits, 18.5 dB and 0.630):

  sr-jax train --config prsr_celeba_cpu --workdir runs/prsr --config.dtype=bfloat16 \\
      --config.networks.generator.prior.width=64 --config.networks.generator.prior.layers=12 \\
      --config.train.batch=32 --config.train.rounds=12000

For Figure 5, several samples of an input, and Figure 6, with the regression:

  sr-jax reproduce prsr figure5 --workdir runs/prsr_celeba_cpu --config.eval.samples=5 \\
      --config.eval.temperatures="(0.833,)"
  sr-jax reproduce prsr figure6 --workdir runs/prsr_celeba_cpu \\
      --config.eval.beside="('runs/prsr_celeba_cpu/Regression',)"
"""

from ml_collections import ConfigDict

from sr_jax.configs import prsr, prsr_celeba

sweep = prsr_celeba.sweep


def get_config(variant: str = "prsr") -> ConfigDict:
  config = prsr_celeba.get_config(variant)
  for source, split in ((config.data, "[:9500]"), (config.eval.data, "[9500:]")):
    # The images are half as large as CelebA's own.
    source.update({"dir": "$SR_JAX_DATA_DIR", "split": split, "centre": (64, 64)})
  prsr.conditioning(config).update({"blocks": 2, "stddev": 0.0})
  config.eval.update({"limit": 256, "images": 8})
  config.train.update({"rounds": 2000, "batch": 16, "log_every": 50, "checkpoint_every": 200})
  config.train.update({"eval_every": 200, "eval_limit": 32})
  # RMSProp needs more rounds than a CPU has time for.
  config.optim.generator.update(
    {"name": "adam", "learning_rate": 1e-3, "schedule": "cosine", "warmup": 50, "clip": 1.0}
  )
  if variant == "prsr":
    config.networks.generator.prior.update({"width": 32, "layers": 8, "head": 128, "stddev": 0.0})
  return config
