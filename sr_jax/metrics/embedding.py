"""How far a sample is from the truth as a network of the user sees it, such as one that knows faces."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sr_jax.errors import UserError, find_function
from sr_jax.metrics.protocol import Array, Batch, Protocol, as_saved
from sr_jax.networks.weights import read_arrays


def read_embedding(settings: ConfigDict) -> jax.tree_util.Partial:
  """The function that `config.eval.embedding` names, with the arrays of its file.

  Raises:
    UserError: none is named or found, or its file is not there or another.
  """
  keys = settings.embedding
  if ":" not in keys.function:
    raise UserError(
      "The metric embedding sees by a network that you give: name it in config.eval.embedding.function as "
      "module:function, (arrays of the file, RGB or grey images [B, H, W, C] in [0, 1]) -> [B, D]."
    )
  function = find_function({}, keys.function, "config.eval.embedding.function")
  without = "take embedding out of config.eval.metrics"
  arrays = read_arrays(keys.file, "config.eval.embedding.file", keys.sha256, without)
  return jax.tree_util.Partial(function, arrays)


def embedding(samples: Array, batch: Batch, protocol: Protocol, weights: jax.tree_util.Partial) -> Array:
  """One minus the cosine of the angle between embeddings [D] of the 8-bit sample and truth -> [n, B].

  Half of the squared distance of embeddings of unit length, FaceNet's (Schroff et al., 2015).
  """
  images, truths = as_saved(samples, batch, protocol)

  def unit(one: Array) -> Array:
    try:
      found = weights(one)
    except KeyError as error:
      raise UserError(
        f"The file of config.eval.embedding lacks {error}, which its function asks for."
      ) from error
    if found.ndim != 2 or len(found) != len(one):
      raise UserError(
        f"The function of config.eval.embedding returns {list(found.shape)} for {len(one)} images, but must "
        "return one embedding each, [B, D]."
      )
    return found / (jnp.linalg.norm(found, axis=-1, keepdims=True) + 1e-12)

  return 1 - jnp.sum(jax.lax.map(unit, images) * unit(truths), axis=-1)
