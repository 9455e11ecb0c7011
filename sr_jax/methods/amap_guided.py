"""AffDG, SoftDG and AffLL: amortised MAP inference under a learned prior (Sonderby et al., arXiv 1610.04490).

Objective (Eq. 9): -E log p_Y(G(x)). A denoiser gives its gradient, (f(y) - y) / sigma^2 (Eq. 11, 12, 28 to
30: AffDG), a density its value (Eq. 32: AffLL). With `consistency` "project" the affine projection holds G(x)
to its input; with "none" and a `soft_weight` G also minimises MAE(x, A G(x)) (SoftDG). Deviation: the
generator's rounds are shared equally by the prior's snapshots, from coarse to fine (appendix E does not say
how).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sr_jax import losses
from sr_jax.method import Array, Batch, Key, Method, Metrics, Params, State, descend, first_state, optimiser
from sr_jax.methods.amap_priors import Apply, Prior, initial_snapshots
from sr_jax.methods.generator import is_deterministic, make_latents, make_sample, train_images
from sr_jax.networks import eval_pass, init, make_generator, normal_latent
from sr_jax.ops import Operator, to_float


def guided(make_prior: Callable[[ConfigDict], Prior]) -> Callable[[ConfigDict, Operator], Method]:
  """The method that trains a generator under a prior, its frozen network `snapshots`."""

  def make(config: ConfigDict, operator: Operator) -> Method:
    settings, rounds, count = config.method, config.train.rounds, config.method.snapshots
    prior, net = make_prior(config), make_generator(config)
    tx = optimiser(config.optim, "generator", rounds)
    latents = make_latents(net)
    sample = make_sample(operator, latents, is_deterministic(net))

    def snapshot(state: State, number: Array | int) -> tuple[Apply, Array]:
      """A snapshot as a function of images, and its noise level."""
      snapshots = state.params["snapshots"]
      params, stats = jax.tree.map(lambda v: v[number], (snapshots["net"], state.stats["snapshots"]))
      return lambda y: eval_pass(prior.net, params, stats, y), snapshots["sigmas"][number]

    def first(key: Key, batch: Batch) -> State:
      x = operator.lr(batch)
      networks = {
        "generator": init(net, jax.random.fold_in(key, 0), x, normal_latent(net, x, key)),
        "snapshots": initial_snapshots(
          prior, init(prior.net, jax.random.fold_in(key, 1), to_float(batch["hr"]))
        ),
      }
      return first_state(networks, {"generator": tx})

    def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
      x = operator.lr(batch)
      number = state.step * count // rounds
      guide, sigma = snapshot(state, number)
      latent_key, noise_key = jax.random.split(key)

      def loss_fn(params: Params):
        y, stats = train_images(net, operator, state, params, x, normal_latent(net, x, latent_key))
        distance = losses.lr_l1(operator, y, x).mean()
        energy = prior.energy(guide, y, noise_key, sigma).mean()  # Eq. 9
        return energy + settings.soft_weight * distance, (stats, {"lr_l1": distance})

      state, metrics = descend(state, "generator", loss_fn, tx)
      return state, metrics | {"snapshot": jnp.float32(number)}

    def judge(state: State, batch: Batch, key: Key) -> dict[str, Array]:
      """How probable the finest snapshot finds images, and MAE(x, Ay)."""
      y, (guide, sigma) = to_float(batch["hr"]), snapshot(state, count - 1)
      return prior.judge(guide, y, key, sigma) | {"lr_l1": losses.lr_l1(operator, y, operator.lr(batch))}

    def objective(state: State, batch: Batch, key: Key) -> dict[str, Array]:
      """What `judge` says of one sample."""
      x = operator.lr(batch)
      return judge(state, {"hr": sample(state, x, key, n=1)[0], "lr": x}, key)

    return Method(
      first,
      step,
      objective,
      sample,
      needs=("snapshots",),
      deterministic=is_deterministic(net),
      fixed_length=True,
      latents=latents,
      judge=judge,
    )

  return make
