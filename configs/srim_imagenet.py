"""SRIM as in the paper: ImageNet 64x64 -> 256x256, section 2.5's network, VGG-19 features.

  export SR_JAX_TRAIN_DIR=...   # 3,000 images of 20 classes
  export SR_JAX_TEST_DIR=...    # held-out images
  sr-jax train --config srim_imagenet --workdir runs/srim_imagenet --config.method.features.file=vgg19.npz

vgg19.npz holds torchvision's VGG-19 weights under its own names (`features.0.weight`, ...). Variants: srim,
port (the learning rate of the authors' later code, halved after 80k, 160k, 240k and 320k updates of 400k),
regression (the same network without its noise, which the paper has not). Eight rounds were run on a CPU, its
steps were timed on a GPU; not trained, for want of the data. To expect of srim (Table 1, luma of BT.709, 8
bits): PSNR 25.36, SSIM 0.7153; bicubic 23.38 and 0.6832. The paper does not give |S|, m, M, b and the
learning rate: papers/srim.py has the authors' later choice.
"""

from ml_collections import ConfigDict

from sr_jax.configs import base, derive, srim_demo
from sr_jax.errors import choose

sweep = srim_demo.sweep


def _port(config: ConfigDict) -> ConfigDict:
  # A pool takes 640 / 16 = 40 rounds of selection before its 20,000 of descent.
  config.train.rounds = 20 * 20_040
  config.optim.generator.update({"schedule": "halve", "halve_at": (80_000, 160_000, 240_000, 320_000)})
  return config


VARIANTS = {"srim": lambda config: config, "port": _port, "regression": derive.regression_of}


def get_config(variant: str = "srim") -> ConfigDict:
  change = choose(VARIANTS, variant, "--config NAME:VARIANT")
  config = base.get_config("srim")
  # All of an image becomes 256x256, whatever its shape, as in the paper.
  framed = {"name": "folder", "resize": (256, 256), "stretch": True}
  config.data.update({**framed, "dir": "$SR_JAX_TRAIN_DIR", "crop": ()})
  config.eval.data.update({**framed, "dir": "$SR_JAX_TEST_DIR"})
  config.eval.update({"luma": "bt709", "border": 0, "batch": 1})
  config.train.update({"batch": 640, "rounds": 200_400, "checkpoint_every": 5_000})
  return change(config)
