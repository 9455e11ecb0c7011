"""Distances between a set of samples and the set of the truths, in a network's features.

Features are those of SqueezeNet 1.1's last layer, averaged over its positions. FID is the same distance in
Inception's features: its numbers are others, so these metrics carry their network's name.
"""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sr_jax.errors import UserError
from sr_jax.metrics.lpips import read_backbone, standardise
from sr_jax.metrics.protocol import Array, Batch, Protocol, as_saved
from sr_jax.networks.backbones import Backbone

SIDE = 64  # pixels that the shorter side of an image is enlarged to, if it has fewer
NEIGHBOURS = 3  # k of precision and recall
MEGABYTES = 256  # of distances computed at once


def read_squeeze(settings: ConfigDict) -> Backbone:
  """SqueezeNet 1.1, as `config.eval.lpips` names it.

  Raises:
    UserError: it names another network, or as `read_backbone`.
  """
  if settings.lpips.net != "squeeze":
    raise UserError(
      "frechet_squeeze, precision_squeeze and recall_squeeze see by SqueezeNet, but config.eval.lpips.net is "
      f"{settings.lpips.net!r}: measure them in an evaluation of their own."
    )
  return read_backbone(settings.lpips)


def squeeze_features(samples: Array, batch: Batch, protocol: Protocol, weights: Backbone) -> Array:
  """Features of the truths, then of each draw: samples [n, B, H, W, C] -> [1 + n, B, 512].

  Of 8-bit images without the border; grey ones count as RGB. Small images are enlarged bilinearly, so that
  the last layer has some positions to average over; large ones are not reduced, as detail is what counts.
  """
  images, truths = as_saved(samples, batch, protocol)
  H, W = truths.shape[1:3]
  scale = max(1.0, SIDE / min(H, W))
  size = (round(H * scale), round(W * scale))

  def features(one: Array) -> Array:
    one = jnp.broadcast_to(one, (*one.shape[:-1], 3))
    large = jax.image.resize(one, (len(one), *size, 3), "bilinear") if scale > 1 else one
    return weights.features(standardise(large))[-1].mean((1, 2))

  return jax.lax.map(features, jnp.concatenate([truths[None], images]))


def frechet(truths: np.ndarray, samples: np.ndarray) -> float:
  """Squared Frechet distance between Gaussians fitted to features [N, D] and [M, D].

  |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) (Heusel et al., GANs Trained by a Two Time-Scale Update Rule,
  2017). With X the centred features divided by sqrt(N - 1), S = X'X, and the trace of (S1 S2)^(1/2) is the
  sum of the singular values of X1 X2'; X may be replaced by the R of its QR decomposition. No root of a
  covariance is taken, so identical sets have 0 although few images make it singular. The fewer images,
  the larger the distance: two sets of one distribution are far from 0.
  """
  means = [features.mean(axis=0, dtype=float) for features in (truths, samples)]
  first, second = (
    np.asarray(np.linalg.qr((features - mean) / np.sqrt(len(features) - 1), mode="r"))
    for features, mean in zip((truths, samples), means, strict=True)
  )
  shared = np.linalg.svdvals(first @ second.T).sum()
  spread = np.square(first).sum() + np.square(second).sum() - 2 * shared
  return float(np.square(means[0] - means[1]).sum() + max(spread, 0.0))


def precision(truths: np.ndarray, samples: np.ndarray) -> float:
  """The part of the samples [M, D] that lie in the manifold of the truths [N, D].

  Kynkaanniemi et al., Improved Precision and Recall Metric for Assessing Generative Models, 2019, Eq. 1, 2:
  the manifold is a ball around each feature, up to its third nearest neighbour in its own set.
  """
  from sklearn.metrics import pairwise_distances_chunked  # takes a second to import

  given, asked = (features.astype(np.float64) for features in (truths, samples))

  def furthest(distances: np.ndarray, _: int) -> np.ndarray:
    # The nearest is the feature itself.
    return np.partition(distances, NEIGHBOURS, axis=1)[:, NEIGHBOURS]

  radii = np.concatenate(
    list(pairwise_distances_chunked(given, reduce_func=furthest, working_memory=MEGABYTES))
  )
  inside = pairwise_distances_chunked(
    asked, given, reduce_func=lambda d, _: (d <= radii).any(axis=1), working_memory=MEGABYTES
  )
  return float(np.concatenate(list(inside)).mean())


def recall(truths: np.ndarray, samples: np.ndarray) -> float:
  """The part of the truths [N, D] that lie in the manifold of the samples [M, D]; see `precision`."""
  return precision(samples, truths)
