"""Figure 3 of Amortised MAP Inference on a CPU: shorter, on patches of 64x64.

  export SR_JAX_DATA_DIR=grass_64
  sr-jax sweep --config amap_grass_cpu --workdir runs/grass

Variants as in amap_grass. Two shared cores, 3 minutes (AffMSE) to 20 (AffGAN, AffLL) each. To expect on 23
patches, SSIM and PSNR: AffInit 0.200, 19.28 dB; AffMSE 0.443, 24.07; AffGAN 0.241, 20.32; AffDG 0.435, 23.91
(measured on an H200); AffLL 0.434, 23.90, its density 5.06 bits per dimension.
"""

from ml_collections import ConfigDict

from sr_jax.configs import amap_grass

sweep = amap_grass.sweep


def get_config(variant: str = "affgan") -> ConfigDict:
  config = amap_grass.get_config(variant)
  # Few of the first 46 patches show grass. The cut lies between two photographs.
  for source, split in ((config.data, "[69:]"), (config.eval.data, "[46:69]")):
    source.update({"dir": "$SR_JAX_DATA_DIR", "split": split})
  config.train.update({"rounds": min(3000, config.train.rounds), "batch": 16, "log_every": 100})
  config.train.update({"checkpoint_every": 1000, "eval_every": 100, "eval_limit": 16})
  if config.train.rounds > 1:
    config.optim.generator.update({"learning_rate": 1e-3, "schedule": "cosine"})
  if variant == "affgan":
    config.train.rounds = 1500
    config.optim.generator.learning_rate = 2e-4
    config.optim.discriminator.update({"learning_rate": 2e-4, "schedule": "cosine"})
  if "prior" in config.networks:
    # The prior looks at parts: it is a convolution, and a pixel of it costs more than one of the generator.
    config.data.crop = (32, 32)
    config.train.rounds = config.stages.prior.train.rounds = 2000
    config.stages.prior.optim.prior.update({"learning_rate": 1e-3, "schedule": "cosine"})
  if variant == "affdg":
    # Where the denoiser's noise went on down to the paper's 0.01, training diverged at 0.03.
    config.method.end = 0.05
    config.networks.prior.widths = (64,) * 3
    config.optim.generator.learning_rate = 1e-4
  if variant == "affll":
    # Without batch normalisation the density was better by 1.3 bits per dimension in short trials.
    config.networks.prior.update({"width": 32, "norm": "none"})
    config.stages.prior.optim.prior.learning_rate = 5e-3
    config.train.rounds = config.stages.prior.train.rounds = 1000
    config.optim.generator.learning_rate = 3e-4
  return config
