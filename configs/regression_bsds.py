"""Regression on BSDS500 and T91: the network of srim_bsds without its noise.

  (the folders of srim_bsds)
  sr-jax train --config regression_bsds --workdir runs/regression_bsds

Not run yet.
"""

from ml_collections import ConfigDict

from sr_jax.configs import base, srim_bsds


def get_config() -> ConfigDict:
  return base.without_noise(srim_bsds.get_config())
