"""Regression on BSDS500 and T91: the network of srim_bsds without its noise.

(the folders of srim_bsds)
sr-jax train --config regression_bsds --workdir runs/regression_bsds
"""

from ml_collections import ConfigDict

from sr_jax.configs import base, srim_bsds


def get_config() -> ConfigDict:
  config = base.get_config("regression", "srresnet")
  ours = srim_bsds.get_config()
  for section in ("network", "data", "eval", "train", "optim"):
    config[section] = ours[section]
  config.network.noise_channels = 0
  config.eval.samples = 1
  config.consistency = ours.consistency
  config.train.batch = 16
  return config
