"""Regression with SRIM's own network without its noise, on SRIM's data.

  (the folders of srim_imagenet)
  sr-jax train --config regression_imagenet --workdir runs/regression_imagenet

The paper has no such row; it tells what the codes of srim_imagenet add to the same network. Not run yet.
"""

from ml_collections import ConfigDict

from sr_jax.configs import base, srim_imagenet


def get_config() -> ConfigDict:
  return base.without_noise(srim_imagenet.get_config())
