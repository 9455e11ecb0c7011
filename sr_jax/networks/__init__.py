"""Flax linen modules, and the generators that a config can name.

A generator enlarges in stages. `net.stage_codes(lr_shape)` lists the shape [.., .., noise channels] of one
image's code at each stage; `net(x, codes, train)` returns the output of each stage, the last being the
image; `net.stage(s, x, previous, code, train)` runs stage s alone, so that codes can be chosen stage by
stage. Zero noise channels make it deterministic.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from sr_jax.errors import UserError, choose
from sr_jax.networks.conditioning import Conditioning, Trunk, ResidualNet
from sr_jax.networks.convnet import ConvNet, Critic, Denoiser
from sr_jax.networks.gated_pixelcnn import GatedPixelCNN
from sr_jax.networks.pixelcnn import PixelDensity
from sr_jax.networks.projection import LearnedProjection
from sr_jax.networks.srim import SRIM
from sr_jax.networks.srresnet import SRResNet
from sr_jax.ops import make_operator

Generator = SRIM | SRResNet | ConvNet | ResidualNet | LearnedProjection

NETWORKS: dict[str, Callable[..., Generator]] = {
  "srim": SRIM,
  "srresnet": SRResNet,
  "convnet": ConvNet,
  "conditioning": ResidualNet,
}
STARTS = {"trained": 0, "random": 0}


def make_generator(config: ConfigDict) -> Generator:
  """The generator of `config.network`, for `config.operator.factor` and `config.data.channels`.

  With `config.consistency` "learned" it projects its output itself, by `config.projection`.
  """
  keys = config.network.to_dict()
  network = choose(NETWORKS, keys.pop("name"), "config.network.name")
  net = network(
    factor=tuple(config.operator.factor), channels=config.data.channels, dtype=make_dtype(config), **keys
  )
  if config.consistency != "learned":
    return net
  choose(STARTS, config.projection.start, "config.projection.start")
  if config.projection.kernel < 1 or config.projection.kernel % 2 == 0:
    raise UserError(f"config.projection.kernel is {config.projection.kernel}: take an odd size.")
  return LearnedProjection(net, make_operator(config), **config.projection)


def make_critic(config: ConfigDict) -> Critic:
  """The discriminator of `config.method.discriminator`."""
  return Critic(dtype=make_dtype(config), **config.method.discriminator)


def make_denoiser(config: ConfigDict) -> Denoiser:
  """The denoiser of `config.method.prior.network`."""
  return Denoiser(dtype=make_dtype(config), **config.method.prior.network)


def make_density(config: ConfigDict) -> PixelDensity:
  """The density of `config.method.prior.network`."""
  return PixelDensity(config.data.channels, dtype=make_dtype(config), **config.method.prior.network)


def make_conditioning(config: ConfigDict, levels: int) -> Conditioning:
  """The network of `config.network`, which must be "conditioning", with logits of `levels` values.

  Raises:
    UserError: it is another one.
  """
  keys = config.network.to_dict()
  if keys.pop("name") != "conditioning":
    raise UserError(
      f"config.network.name is {config.network.name!r}: {config.method.name} takes the network conditioning."
    )
  trunk = Trunk(tuple(config.operator.factor), make_dtype(config), **keys)
  return Conditioning(trunk, config.data.channels, levels)


def make_pixel_prior(config: ConfigDict, levels: int) -> GatedPixelCNN:
  """The gated PixelCNN of `config.method.prior`."""
  return GatedPixelCNN(config.data.channels, make_dtype(config), levels=levels, **config.method.prior)


def make_dtype(config: ConfigDict) -> jnp.dtype:
  """What the networks compute in."""
  return jnp.dtype(choose({"float32": jnp.float32, "bfloat16": jnp.bfloat16}, config.dtype, "config.dtype"))


def init(net: nn.Module, key: jax.Array, *args: Any) -> tuple[Any, Any]:
  """Parameters and batch statistics ({} where there are none) of a fresh network."""
  variables = net.init(key, *args, train=False)
  return variables["params"], variables.get("batch_stats", {})


def train_pass(net: nn.Module, params: Any, stats: Any, *args: Any) -> tuple[Any, Any]:
  """The output in training mode, and the new batch statistics."""
  output, updated = net.apply(
    {"params": params, "batch_stats": stats}, *args, train=True, mutable=["batch_stats"]
  )
  return output, updated.get("batch_stats", {})


def eval_pass(net: nn.Module, params: Any, stats: Any, *args: Any, method: str | None = None) -> Any:
  """The output with the running batch statistics."""
  return net.apply({"params": params, "batch_stats": stats}, *args, train=False, method=method)


def zero_codes(net: Generator, x: jax.Array) -> list[jax.Array]:
  """Codes of zeros for inputs x [B, h, w, C]: the input of a generator that draws nothing."""
  return [jnp.zeros((x.shape[0], *shape)) for shape in net.stage_codes(x.shape[1:])]


def normal_codes(net: Generator, x: jax.Array, key: jax.Array) -> list[jax.Array]:
  """Codes N(0, I) for inputs x [B, h, w, C], one of each stage."""
  shapes = net.stage_codes(x.shape[1:])
  return [
    jax.random.normal(jax.random.fold_in(key, s), (x.shape[0], *shape)) for s, shape in enumerate(shapes)
  ]
