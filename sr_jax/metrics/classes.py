"""Which classes a classifier sees in the samples of an input (VarSR, Tables 4 and 5)."""

import jax
import jax.numpy as jnp

from sr_jax.metrics.protocol import Array

OF_SETS = ("class_best", "classes", "one_class", "two_classes")  # these depend on how many samples there are


def class_metrics(probabilities: Array, labels: Array) -> dict[str, Array]:
  """Probabilities [n, B, K] of n samples and labels [B] -> float [B] each.

  "class_best": one sample at least has the right class; "class_mean": the part of the samples that have it;
  "class_probability": the mean probability of the right class; "classes": the number of different classes
  among the samples; "one_class" and "two_classes": that there are no more.
  """
  predicted = jnp.argmax(probabilities, axis=-1)
  right = (predicted == labels).astype(jnp.float32)
  seen = jax.nn.one_hot(predicted, probabilities.shape[-1]).max(axis=0)
  count = seen.sum(axis=-1)
  given = jnp.take_along_axis(probabilities, labels[None, :, None], axis=-1)[..., 0]
  return {
    "class_best": right.max(axis=0),
    "class_mean": right.mean(axis=0),
    "class_probability": given.mean(axis=0),
    "classes": count,
    "one_class": (count <= 1).astype(jnp.float32),
    "two_classes": (count <= 2).astype(jnp.float32),
  }
