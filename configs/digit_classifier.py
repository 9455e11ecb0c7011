"""A classifier of digits or plate characters, which judges what other runs draw (VarSR, Tables 4 and 5).

  sr-jax prepare mnist_idx --from FOLDER_OF_IDX_FILES
  sr-jax train --config digit_classifier --workdir runs/classifier
  sr-jax evaluate --workdir RUN --config.eval.classifier=runs/classifier

Variants: mnist (24x24), plates (16x8, of plate_chars). Two cores shared with other work, 4 minutes for mnist.
To expect: 0.69 % of the test digits wrong (the paper: 1.96), 0.85 % of the plates' characters.
"""

from ml_collections import ConfigDict

from sr_jax.configs import base
from sr_jax.errors import choose


def get_config(variant: str = "mnist") -> ConfigDict:
  use = choose({"mnist": use_mnist, "plates": use_plates}, variant, "--config NAME:VARIANT")
  config = base.get_config("classifier")
  use(config)
  config.networks.classifier.classes = {"mnist": 10, "plates": 36}[variant]
  config.eval.update({"metrics": ("mse",), "baselines": (), "border": 0, "batch": 500, "images": 0})
  config.train.update({"rounds": 2000, "batch": 64, "log_every": 200, "checkpoint_every": 1000})
  config.optim.classifier.update({"learning_rate": 1e-3, "schedule": "cosine"})
  return config


def use_mnist(config: ConfigDict) -> None:
  """Digits of 24x24: 28 does not divide by 4 into the paper's 6, the centre does."""
  for source in (config.data, config.eval.data):
    source.update({"name": "mnist_idx", "channels": 1, "centre": (24, 24)})
  config.data.update({"crop": (), "flip": False})


def use_plates(config: ConfigDict) -> None:
  """Characters 16 high and 8 wide, from 20x20: the outer columns are empty, and no letter loses one."""
  for source in (config.data, config.eval.data):
    source.update({"name": "plate_chars", "channels": 1, "centre": (20, 14), "resize": (16, 8)})
  config.data.update({"crop": (), "flip": False})
