"""Bedrooms 8x8 to 32x32 on a CPU: Pixel Recursive Super Resolution, small networks, a folder of images.

  export SR_JAX_DATA_DIR=bedrooms
  sr-jax sweep --config prsr_bedrooms_cpu --workdir runs/prsr_bedrooms_cpu

Variants as in prsr_bedrooms. Two shared cores, 12 minutes. Expect of 60 images: 5.26 bits per dimension; at
tau = 1 PSNR 14.2 dB, wrapped 28.1, SSIM 0.22: 368 images and 500 rounds are too few for good samples.
"""

from ml_collections import ConfigDict

from sr_jax.configs import prsr_celeba, prsr_celeba_cpu

sweep = prsr_celeba.sweep


def get_config(variant: str = "prsr") -> ConfigDict:
  config = prsr_celeba_cpu.get_config(variant)
  for source, split in ((config.data, "[:-60]"), (config.eval.data, "[-60:]")):
    source.update({"split": split, "centre": ()})
  config.train.rounds = 500
  return config
