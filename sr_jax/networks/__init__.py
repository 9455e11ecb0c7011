"""The networks that a config can name, made by one factory.

A network is made from what the run has (`factor`, `channels`, `dtype`: those that its constructor takes) and
from its own keys. A **generator** is a Flax module with

- `latent(lr_shape)`: a pytree of `jax.ShapeDtypeStruct`, the shapes of the standard normal numbers that it
  draws for one input [h, w, C]; `()` if it draws nothing;
- `__call__(x, latent, train)`: inputs [B, h, w, C] and latents with a first axis B -> images [B, H, W, C];
- `reach`, if it can be used in tiles: see `method.Latents`.

One that works in stages may also have `latent_stages`, `stage(s, x, previous, latent, train)` and
`outputs(x, latent, train)`; its latent is then a list with an entry for each stage (see `srim.py`).
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.errors import ScopeParamShapeError
from ml_collections import ConfigDict

from sr_jax.errors import UserError, check_choice, choose, find_function
from sr_jax.networks.conditioning import Conditioning, TanhResidual
from sr_jax.networks.convnet import ConvNet, Denoiser, Discriminator
from sr_jax.networks.critic import Classifier, Critic
from sr_jax.networks.encoder import Encoder
from sr_jax.networks.gated_pixelcnn import make_pixel_recursive
from sr_jax.networks.pixelcnn import PixelDensity
from sr_jax.networks.projection import LearnedProjection
from sr_jax.networks.srim import SRIM
from sr_jax.networks.srmap import SRMAP, SRMAPCritic
from sr_jax.networks.srresnet import SRResNet
from sr_jax.ops import make_operator

NETWORKS: dict[str, Callable[..., Any]] = {
  "srresnet": SRResNet,
  "srim": SRIM,
  "convnet": ConvNet,
  "discriminator": Discriminator,
  "denoiser": Denoiser,
  "density": PixelDensity,
  "conditioning": Conditioning,
  "tanh_residual": TanhResidual,
  "pixel_recursive": make_pixel_recursive,
  "encoder": Encoder,
  "critic": Critic,
  "classifier": Classifier,
  "srmap": SRMAP,
  "srmap_critic": SRMAPCritic,
}


def make_network(config: ConfigDict, role: str) -> Any:
  """The network of `config.networks.<role>`.

  Raises:
    UserError: there is no such network, or it does not take these keys.
  """
  settings = config.networks[role].to_dict()
  name = settings.pop("name")
  network = find_function(NETWORKS, name, f"config.networks.{role}.name")
  run = {
    "factor": tuple(config.operator.factor),
    "channels": config.data.channels,
    "dtype": jnp.dtype(choose({"float32": "float32", "bfloat16": "bfloat16"}, config.dtype, "config.dtype")),
  }
  signature = inspect.signature(network)
  run = {key: value for key, value in run.items() if key in signature.parameters}
  try:
    signature.bind(**run, **settings)
  except TypeError as error:
    raise UserError(
      f"config.networks.{role} does not fit the network {name!r} ({error}): correct it."
    ) from error
  return network(**run, **settings)


def make_generator(config: ConfigDict) -> Any:
  """The generator of a run. With `config.consistency` "learned" it projects its output itself.

  Raises:
    UserError: as `make_network`, or the network is no generator.
  """
  net = make_network(config, "generator")
  if not hasattr(net, "latent"):
    raise UserError(
      f"config.networks.generator.name is {config.networks.generator.name!r}, which method "
      f"{config.method.name!r} cannot use, because it is no generator: choose another."
    )
  if config.consistency != "learned":
    return net
  check_choice(("trained", "random"), config.projection.start, "config.projection.start")
  if config.projection.kernel < 1 or config.projection.kernel % 2 == 0:
    raise UserError(f"config.projection.kernel is {config.projection.kernel}: take an odd size.")
  return LearnedProjection(net, make_operator(config), **config.projection)


def init(net: nn.Module, key: jax.Array, *args: Any) -> tuple[Any, Any]:
  """Parameters and batch statistics ({} where there are none) of a fresh network."""
  variables = net.init(key, *args, train=False)
  return variables["params"], variables.get("batch_stats", {})


def train_pass(
  net: nn.Module, params: Any, stats: Any, *args: Any, method: str | None = None
) -> tuple[Any, Any]:
  """The output in training mode, and the new batch statistics."""
  output, updated = net.apply(
    {"params": params, "batch_stats": stats}, *args, train=True, mutable=["batch_stats"], method=method
  )
  return output, updated.get("batch_stats", {})


def eval_pass(net: nn.Module, params: Any, stats: Any, *args: Any, method: str | None = None) -> Any:
  """The output with the running batch statistics.

  Raises:
    UserError: a layer that sees the whole image was trained on images of another size.
  """
  try:
    return net.apply({"params": params, "batch_stats": stats}, *args, train=False, method=method)
  except ScopeParamShapeError as error:
    raise UserError(
      f"The network {type(net).__name__} has a layer that sees the whole image and was trained on images of "
      "another size: give it images of that size, train it with config.data.crop set to theirs, or, if only "
      "the losses of test images need it, set config.eval.losses=False."
    ) from error


def zero_latent(net: Any, x: jax.Array) -> Any:
  """Latents of zeros for inputs x [B, h, w, C]."""
  return jax.tree.map(lambda s: jnp.zeros((x.shape[0], *s.shape), s.dtype), net.latent(x.shape[1:]))


def normal_latent(net: Any, x: jax.Array, key: jax.Array) -> Any:
  """Latents N(0, I) for inputs x [B, h, w, C]."""
  shapes, tree = jax.tree.flatten(net.latent(x.shape[1:]))
  drawn = [
    jax.random.normal(jax.random.fold_in(key, number), (x.shape[0], *s.shape))
    for number, s in enumerate(shapes)
  ]
  return jax.tree.unflatten(tree, drawn)
