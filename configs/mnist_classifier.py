"""A classifier of MNIST's digits at 24x24, which judges what other runs draw (VarSR, Tables 4 and 5).

  sr-jax prepare mnist_idx --from FOLDER_OF_IDX_FILES
  sr-jax train --config mnist_classifier --workdir runs/classifier
  sr-jax evaluate --workdir RUN --config.eval.classifier=runs/classifier

Two cores shared with other work, 4 minutes. To expect: 0.69 % of the test digits wrong (the paper: 1.96).
"""

from ml_collections import ConfigDict

from sr_jax.configs import base


def get_config() -> ConfigDict:
  config = base.get_config("classifier")
  for source in (config.data, config.eval.data):
    source.update({"name": "mnist_idx", "channels": 1, "centre": (24, 24)})
  config.data.update({"crop": (), "flip": False})
  config.eval.update({"metrics": ("mse",), "baselines": (), "border": 0, "batch": 500, "images": 0})
  config.train.update({"rounds": 2000, "batch": 64, "log_every": 200, "checkpoint_every": 1000})
  config.optim.classifier.update({"learning_rate": 1e-3, "schedule": "cosine"})
  return config
