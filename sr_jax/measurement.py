"""Any sampler on any test set: metrics of every image, averaged; and the images to look at."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sr_jax import metrics, parallel
from sr_jax.baselines import Sampler
from sr_jax.data import test_batches
from sr_jax.data.sources import Source
from sr_jax.images import fingerprint, save_samples
from sr_jax.metrics.classes import class_metrics
from sr_jax.ops import Operator, quantise, to_float, to_uint8
from sr_jax.processes import SLOW, watchdog

Images = list[dict[str, np.ndarray]]
Classify = Callable[[jax.Array], jax.Array]
Objective = Callable[[dict[str, jax.Array], jax.Array], dict[str, jax.Array]]


class Measured(NamedTuple):
  """Metrics of a test set.

  Attributes:
    means: of every metric over the images, and metrics of all images together.
    images: the first `config.eval.images`, with their samples.
    values: {metric: float32 [N]} of each image.
    places: [N], the places of these images in the test set, of which some may be left out.
    fingerprints: of their "truth" and "input", by which `compare` knows them: [N] each.
  """

  means: dict[str, float]
  images: Images
  values: dict[str, np.ndarray]
  places: np.ndarray
  fingerprints: dict[str, np.ndarray]


def evaluate(
  sampler: Sampler | None,
  source: Source,
  config: ConfigDict,
  operator: Operator,
  *,
  samples: int,
  objective: Objective | None = None,
  judge: Objective | None = None,
  classify: Classify | None = None,
  save: str | Path = "",
) -> Measured:
  """Metrics of `samples` draws per image, over a test set.

  The draws of an image depend on `config.eval.seed` and its position in the set alone, not on batches,
  devices or processes (up to rounding, which may tip a discrete choice).

  Args:
    sampler: (lr [B, h, w, C], key, n) -> [n, B, H, W, C]; None for a helper, which has losses alone.
    source: the test set.
    config: the run's config; `config.eval` says how to measure.
    operator: A, for inputs that the set does not bring and for the consistency metrics.
    samples: n.
    objective: (batch, key) -> {name: [B]}, measured beside the metrics, as "loss_<name>".
    judge: the same of the samples in the place of the truth, as "sample_loss_<name>"; see `Method.judge`.
    classify: images -> probabilities [B, K], of which `class_metrics` are measured.
    save: a folder for all samples as image files, see `save_samples`; "": none.

  Raises:
    UserError: an image or a weight file cannot be read, or a metric cannot be measured on these images.
  """
  settings = config.eval
  mesh = parallel.local_mesh()
  process, processes = parallel.process()
  names, protocol = tuple(settings.metrics), metrics.make_protocol(operator, settings)
  weights = jax.device_put(metrics.read_weights(names, settings), parallel.replicated(mesh))
  # Zero for the images of other processes, so that all images' values are the sum over the processes.
  places = np.zeros(min(settings.limit or len(source), len(source)), np.float32)
  metrics.check_count(names, len(places))
  each: dict[str, np.ndarray] = {}
  fingerprints = {name: np.zeros_like(places) for name in ("truth", "input")}
  sets: dict[str, np.ndarray] = {}
  images: Images = []
  with watchdog(config.train.watchdog) as alive:
    alive(times=SLOW)
    batches = test_batches(
      source,
      settings.data,
      batch=settings.batch,
      factor=operator.factor,
      limit=settings.limit,
      process=process,
      processes=processes,
    )
    done = 0
    for host_batch in batches:
      alive(times=SLOW)
      done += 1
      batch = parallel.put_local(host_batch, mesh)
      drawn, x, values, first = _draw(sampler, objective, judge, batch, samples, settings.seed, operator)
      seen: dict[str, Any] = {}
      if sampler:
        measured, seen = _measure(drawn, x, batch, classify, weights, protocol, names)
        values |= measured
      real = host_batch["mask"]
      kept = np.flatnonzero(real)[: settings.images - len(images) if sampler else 0]
      if not save and not len(kept):
        drawn = None
      # On the host: eager reductions of sharded arrays are programs of their own on all devices, and on a
      # CPU with several of them such programs wait for each other for ever.
      drawn, x, values, first, seen = jax.device_get((drawn, x, values, first, seen))
      numbers = host_batch["index"][real]
      places[numbers] = 1
      for name, shown in (("truth", host_batch["hr"]), ("input", x)):
        fingerprints[name][numbers] = [fingerprint(image) for image in shown[real]]
      for name, value in values.items():
        each.setdefault(name, np.zeros_like(places))[numbers] = value[real]
      for name, value in seen.items():
        if name not in sets:
          sets[name] = np.zeros((len(value), len(places), value.shape[-1]), np.float32)
        sets[name][:, numbers] = value[:, real]
      if save and sampler:
        for number, one in zip(numbers, np.moveaxis(drawn, 1, 0)[real], strict=True):
          save_samples(save, int(number), one)
      for i in kept:
        truth = np.asarray(to_float(host_batch["hr"][i]))
        judged = {name: value[i] for name, value in first.items()}
        arrays = {"place": host_batch["index"][i], "input": x[i], "samples": drawn[:, i], "truth": truth}
        images.append(arrays | judged)
    # The others have about as many batches; one that is stuck ends the job itself.
    alive(times=SLOW * (1 + done))
    places, each, fingerprints = parallel.gather_sums((places, each, fingerprints))
    places = np.flatnonzero(places)
    for value in sets.values():
      for draw in value:  # one by one, since each process receives the features of all images
        draw[:] = parallel.gather_sums(draw)
  # JAX sorts names; tables have the config's order.
  order = [column + kind for column in metrics.columns(names) for kind in ("", "/best", "/mean_image")]
  means = {name: float(v[places].mean(dtype=float)) for name, v in each.items()}
  means |= metrics.measure_sets(names, {name: v[:, places] for name, v in sets.items()})
  ordered = sorted(means, key=lambda name: order.index(name) if name in order else len(order))
  found = {name: each[name][places] for name in ordered if name in each}
  fingerprints = {name: values[places] for name, values in fingerprints.items()}
  return Measured({name: means[name] for name in ordered}, images, found, places, fingerprints)


@partial(jax.jit, static_argnames=("n", "seed", "operator"))
def _draw(
  sampler: Sampler | None,
  objective: Objective | None,
  judge: Objective | None,
  batch: dict[str, jax.Array],
  n: int,
  seed: int,
  operator: Operator,
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
  """Samples [n, B, H, W, C], inputs [B, h, w, C], losses [B] of one batch, and those of the first samples."""
  x = operator.lr(batch)

  def of_one(
    row: dict[str, jax.Array], lr: jax.Array
  ) -> tuple[jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
    key = jax.random.fold_in(jax.random.key(seed), row["index"])
    own = objective(jax.tree.map(lambda v: v[None], row), key) if objective else {}
    losses = {f"loss_{name}": value for name, value in own.items()}
    first: dict[str, jax.Array] = {}
    drawn = sampler(lr[None], key, n)[:, 0] if sampler else jnp.zeros((0,))
    if judge and sampler:
      given = row | {"lr": lr}
      images = to_uint8(drawn) if row["hr"].dtype == jnp.uint8 else drawn
      judged = jax.lax.map(lambda y: judge(jax.tree.map(lambda v: v[None], given | {"hr": y}), key), images)
      losses |= {f"sample_loss_{name}": value.mean(axis=0) for name, value in judged.items()}
      first = {f"sample_loss_{name}": value[0, 0] for name, value in judged.items()}
    return drawn, {name: value[0] for name, value in losses.items()}, first

  drawn, losses, first = jax.vmap(of_one, out_axes=(1, 0, 0))(batch, x)
  return drawn, x, losses, first


@partial(jax.jit, static_argnames=("protocol", "names"))
def _measure(
  drawn: jax.Array,
  x: jax.Array,
  batch: dict[str, jax.Array],
  classify: Classify | None,
  weights: dict[str, Any],
  protocol: metrics.Protocol,
  names: tuple[str, ...],
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
  """Metrics [B] and features [1 + n, B, D]; a program of its own, so that all rows of a table share it."""
  given = (names, drawn, {"hr": to_float(batch["hr"]), "lr": x}, protocol, weights)
  values = metrics.measure(*given)
  if classify:
    values |= class_metrics(jax.lax.map(classify, quantise(drawn)), batch["label"])
  return values, metrics.features(*given)
