"""Regression on the embedded photographs: the network of srim_demo without its noise.

sr-jax train --config regression_demo --workdir runs/regression
"""

from ml_collections import ConfigDict

from sr_jax.configs import base, srim_demo


def get_config() -> ConfigDict:
  config = base.get_config("regression", "srresnet")
  demo = srim_demo.get_config()
  config.network.update(demo.network.to_dict() | {"noise_channels": 0})
  config.consistency = demo.consistency
  config.train.update({"batch": 16, "rounds": 4000, "log_every": 200, "checkpoint_every": 2000})
  config.optim.generator.update({"learning_rate": 1e-3, "schedule": "cosine"})
  return config
