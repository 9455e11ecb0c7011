"""The methods by name. A paper has a file of its own, amortised MAP inference one for each of its parts."""

from collections.abc import Callable

from ml_collections import ConfigDict

from sr_jax.errors import find_function
from sr_jax.method import Method, averaged
from sr_jax.methods.amap_gan import amap_gan
from sr_jax.methods.amap_guided import guided
from sr_jax.methods.amap_priors import denoiser_prior, density_prior, train_prior
from sr_jax.methods.classifier import classifier
from sr_jax.methods.mr_gan import mr_gan
from sr_jax.methods.pixel_recursive import pixel_independent, pixel_recursive
from sr_jax.methods.regression import regression
from sr_jax.methods.srim import srim
from sr_jax.methods.srmap import srmap
from sr_jax.methods.varsr import varsr
from sr_jax.networks.layers import Training
from sr_jax.ops import Operator

METHODS: dict[str, Callable[[ConfigDict, Operator], Method]] = {
  "regression": regression,
  "srim": srim,
  "amap_gan": amap_gan,
  "amap_dg": guided(denoiser_prior),
  "amap_ll": guided(density_prior),
  "denoiser": train_prior(denoiser_prior),
  "density": train_prior(density_prior),
  "pixel_recursive": pixel_recursive,
  "pixel_independent": pixel_independent,
  "varsr": varsr,
  "mr_gan": mr_gan,
  "srmap": srmap,
  "classifier": classifier,
}


def make_method(config: ConfigDict, operator: Operator) -> Method:
  """The method that `config.method.name` names, perhaps as "module:function"; if asked for, its average.

  Raises:
    UserError: there is none, or its keys do not fit.
  """
  method = find_function(METHODS, config.method.name, "config.method.name")(config, operator)
  step = Training(config.remat, config.ghost_batch).of(method.step, f"method {config.method.name!r}")
  method = method._replace(step=step)
  return averaged(method, config.average) if config.average else method
