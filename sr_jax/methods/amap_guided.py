"""AffDG, SoftDG and AffLL: amortised MAP inference under a learned prior (Sonderby et al., arXiv 1610.04490).

Objective (Eq. 9): -E log p_Y(G(x)). A denoiser gives its gradient, (f(y) - y) / sigma^2 (Eq. 11, 12, 29, 30:
AffDG), a density its value (Eq. 32: AffLL). With `consistency` "project" the affine projection holds G(x) to
its input; with "none" and a `soft_weight` G also minimises MAE(x, A G(x)) (SoftDG). Deviation: none; the
generator's rounds are shared equally by the prior's snapshots, from coarse to fine
  (appendix E).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sr_jax.method import Array, Batch, Key, Method, Metrics, Params, State, descend, optimiser
from sr_jax.methods.generator import lr_mae, make_sample
from sr_jax.methods.priors import Apply, Prior, stack
from sr_jax.networks import eval_pass, init, make_generator, normal_codes, train_pass
from sr_jax.ops import Operator, to_float


def guided(make_prior: Callable[[ConfigDict], Prior]) -> Callable[[ConfigDict, Operator], Method]:
  """The method that trains a generator under a prior, its frozen network `snapshots`."""

  def make(config: ConfigDict, operator: Operator) -> Method:
    keys, rounds, count = config.method, config.train.rounds, config.method.prior.snapshots
    prior, net = make_prior(config), make_generator(config)
    tx = optimiser(config.optim.generator, rounds)

    def snapshot(state: State, number: Array | int) -> tuple[Apply, Array]:
      """A snapshot as a function of images, and its mark."""
      snapshots = state.params["snapshots"]
      params, stats = jax.tree.map(lambda v: v[number], (snapshots["net"], state.stats["snapshots"]))
      return lambda y: eval_pass(prior.net, params, stats, y), snapshots["marks"][number]

    def init_state(key: Key, batch: Batch) -> State:
      x = operator.lr(batch)
      params, stats = init(net, jax.random.fold_in(key, 0), x, normal_codes(net, x, key))
      theirs, their_stats = init(prior.net, jax.random.fold_in(key, 1), to_float(batch["hr"]))
      snapshots = {"net": stack(theirs, count), "marks": jnp.asarray(prior.marks)}
      return State(
        step=jnp.int32(0),
        params={"generator": params, "snapshots": snapshots},
        stats={"generator": stats, "snapshots": stack(their_stats, count)},
        opt={"generator": tx.init(params)},
      )

    def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
      x = operator.lr(batch)
      number = state.step * count // rounds
      guide, mark = snapshot(state, number)
      code_key, noise_key = jax.random.split(key)

      def loss_fn(params: Params):
        codes = normal_codes(net, x, code_key)
        outputs, stats = train_pass(net, params, state.stats["generator"], x, codes)
        y = operator.head(outputs[-1], x)
        miss = lr_mae(operator, y, x).mean()
        value = prior.energy(guide, y, noise_key, mark).mean()
        return value + keys.soft_weight * miss, (stats, {"lr_mae": miss})

      state, metrics = descend(state, "generator", loss_fn, tx)
      images = jnp.float32(x.shape[0])
      return state.replace(step=state.step + 1), metrics | {"snapshot": jnp.float32(number), "images": images}

    def objective(state: State, batch: Batch, key: Key) -> dict[str, Array]:
      """What the finest snapshot says of one sample, and MAE(x, Ay)."""
      x = operator.lr(batch)
      y = sample(state, x, key, n=1)[0]
      guide, mark = snapshot(state, count - 1)
      return prior.judge(guide, y, key, mark) | {"lr_mae": lr_mae(operator, y, x)}

    sample = make_sample(net, operator)
    return Method(init_state, step, objective, sample, needs=("snapshots",))

  return make
