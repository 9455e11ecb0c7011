"""Regression on the embedded photographs: the network of srim_demo without its noise.

sr-jax train --config regression_demo --workdir runs/regression_demo
"""

from ml_collections import ConfigDict

from sr_jax.configs import base, srim_demo


def get_config() -> ConfigDict:
  config = base.get_config("regression", "srresnet")
  ours = srim_demo.get_config()
  for section in ("network", "train", "optim"):
    config[section] = ours[section]
  config.network.noise_channels = 0
  config.eval.samples = 1
  config.consistency = ours.consistency
  config.train.batch = 16
  return config
