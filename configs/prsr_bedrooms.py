"""Bedrooms 8x8 to 32x32 at the paper's sizes: Pixel Recursive Super Resolution, Table 1 and Figure 4.

  sr-jax prepare lsun/bedroom    # once, with TensorFlow
  sr-jax sweep --config prsr_bedrooms --workdir runs/prsr_bedrooms

Variants: prsr, regression, cross_entropy. For GPUs (the paper: 8, 2,000,000 rounds); only timed on one
(docs/results.md). The paper's Table 1, wrapped PSNR / SSIM / MS-SSIM / consistency: bicubic 28.94 / 0.70 /
0.70 / 0.002, regression 28.87 / 0.74 / 0.75 / 0.003, tau = 1.1 28.92 / 0.59 / 0.59 / 0.017.
"""

from ml_collections import ConfigDict

from sr_jax.configs import prsr, prsr_celeba

sweep = prsr_celeba.sweep


def get_config(variant: str = "prsr") -> ConfigDict:
  config = prsr.get_config(variant)
  prsr.conditioning(config).blocks = 10
  for source, split in ((config.data, "train"), (config.eval.data, "validation")):
    source.update({"name": "lsun/bedroom", "split": split, "resize": (32, 32)})
  config.data.crop = ()
  config.eval.update({"batch": 32, "baselines": ("bicubic", "nearest")})
  config.train.update({"rounds": 2_000_000, "log_every": 500})
  return config
