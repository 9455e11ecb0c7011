"""Flax linen modules, and the generators that a config can name.

A generator enlarges in stages. `net.stage_codes(lr_shape)` lists the shape [.., .., noise channels] of one
picture's code at each stage; `net(x, codes, train)` returns the output of each stage, the last being the
picture; `net.stage(s, x, previous, code, train)` runs stage s alone, so that codes can be chosen stage by
stage. Zero noise channels make it deterministic.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from sr_jax.errors import choose
from sr_jax.networks.srim import SRIM
from sr_jax.networks.srresnet import SRResNet

Generator = SRIM | SRResNet

NETWORKS: dict[str, Callable[..., Generator]] = {"srim": SRIM, "srresnet": SRResNet}


def make_generator(config: ConfigDict) -> Generator:
  """The generator of `config.network`, for `config.operator.factor` and `config.data.channels`."""
  keys = config.network.to_dict()
  network = choose(NETWORKS, keys.pop("name"), "config.network.name")
  dtype = choose({"float32": jnp.float32, "bfloat16": jnp.bfloat16}, config.dtype, "config.dtype")
  return network(
    factor=tuple(config.operator.factor), channels=config.data.channels, dtype=jnp.dtype(dtype), **keys
  )


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


def zero_codes(net: Generator, x: jax.Array) -> Sequence[jax.Array]:
  """Codes of zeros for inputs x [B, h, w, C]: the input of a generator that draws nothing."""
  return [jnp.zeros((x.shape[0], *shape)) for shape in net.stage_codes(x.shape[1:])]
