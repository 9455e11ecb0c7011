"""The models of Amortised MAP Inference; amap_swiss_roll, amap_grass and amap_celeba give them their data.

  sr-jax train --config amap:affgan --workdir runs/amap

On the embedded photographs with the grass network; not run to the end. Variants: mse, mae, affmse,
affmse_fixed_trained, affmse_fixed_random, affmse_trainable_trained, affmse_trainable_random (the learned A+),
affgan, softgan, stochastic, affdg, softdg, affll.
"""

from ml_collections import ConfigDict

from sr_jax.configs import base
from sr_jax.errors import choose

# The paper's names: method, and whether its output is projected.
MODELS = {
  "mse": ("regression", "none"),
  "mae": ("regression", "none"),
  "affmse": ("regression", "project"),
  "affmse_fixed_trained": ("regression", "learned"),
  "affmse_fixed_random": ("regression", "learned"),
  "affmse_trainable_trained": ("regression", "learned"),
  "affmse_trainable_random": ("regression", "learned"),
  "affgan": ("amap_gan", "project"),
  "softgan": ("amap_gan", "none"),
  "stochastic": ("amap_gan", "project"),  # appendix F
  "affdg": ("amap_dg", "project"),
  "softdg": ("amap_dg", "none"),
  "affll": ("amap_ll", "project"),
}


def get_config(variant: str = "affgan") -> ConfigDict:
  """The config of a model with the generator of appendix D."""
  method, consistency = choose(MODELS, variant, "--config NAME:VARIANT")
  config = base.get_config(method, generator="convnet")
  config.consistency = consistency
  if method == "regression":
    config.method.loss = "mae" if variant == "mae" else "mse"
  if consistency == "learned":
    _, moves, start = variant.split("_")
    config.projection.update({"trainable": moves == "trainable", "start": start})
  if variant.startswith("soft"):
    config.method.soft_weight = 1.0
  if variant == "stochastic":
    config.networks.generator.noise_channels = 8
    config.eval.samples = 10
  return config
