"""Regression with SRIM's own network without its noise, on SRIM's data.

  (the folders of srim_imagenet)
  sr-jax train --config regression_imagenet --workdir runs/regression_imagenet

The paper has no such row; it tells what the codes of srim_imagenet add to the same network.
"""

from ml_collections import ConfigDict

from sr_jax.configs import base, srim_imagenet


def get_config() -> ConfigDict:
  config = base.get_config("regression", "srim")
  ours = srim_imagenet.get_config()
  for section in ("network", "data", "eval", "train", "optim"):
    config[section] = ours[section]
  config.network.noise_channels = 0
  config.eval.samples = 1
  config.train.batch = 16
  return config
