"""SRIM with the numbers of the authors' later code, on the paper's data.

  (the data and the weight file of srim_imagenet)
  sr-jax train --config srim_imagenet_port --workdir runs/srim_port --config.method.features.file=vgg19.npz

Not run for want of the data. m = 100, |S| = 640, b = 16, M = 20,000; Adam at 1e-4, halved after 80k, 160k,
240k and 320k updates of 400k.
"""

from ml_collections import ConfigDict

from sr_jax.configs import srim_imagenet


def get_config() -> ConfigDict:
  config = srim_imagenet.get_config()
  config.method.update({"candidates": 100, "minibatch": 16, "inner_rounds": 20_000})
  # A pool takes 640 / 16 = 40 rounds of selection before its 20,000 of descent.
  config.train.update({"batch": 640, "rounds": 20 * 20_040})
  config.optim.generator.update({"schedule": "halve", "halve_at": (80_000, 160_000, 240_000, 320_000)})
  return config
