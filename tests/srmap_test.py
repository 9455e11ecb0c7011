"""SRMAP: its critic's losses, its noise and its networks, against mathematics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from small_runs import network, tiny
from sr_jax import losses
from sr_jax.config import check
from sr_jax.errors import UserError
from sr_jax.method import run_round
from sr_jax.methods import make_method
from sr_jax.networks import init, zero_latent
from sr_jax.networks.srmap import Block, act, blur_halve
from sr_jax.ops import make_operator

KEY = jax.random.key(0)


def images(seed: int = 0, count: int = 8) -> dict[str, np.ndarray]:
  return {"hr": np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)}


@functools.cache
def made(**keys):
  """The method, and its compiled init and round."""
  config = tiny("srmap")
  config.consistency = "none"
  config.method.update(keys)
  method = make_method(config, make_operator(config))
  return method, jax.jit(method.init), jax.jit(functools.partial(run_round, method))


def after(rounds: int, **keys):
  """State and metrics after some rounds, each on another batch."""
  _, init, step = made(**keys)
  state = init(KEY, images())
  for i in range(rounds):
    state, metrics = step(state, images(i), jax.random.key(i))
  return state, metrics


def test_r1_is_the_squared_gradient_at_real_images_alone():
  y = jax.random.normal(KEY, (3, 4, 4, 2))
  np.testing.assert_allclose(
    losses.r1(lambda v: (v**2).sum((1, 2, 3)), y), 4 * (y**2).sum((1, 2, 3)), rtol=1e-5
  )
  slope = jnp.arange(32.0).reshape(4, 4, 2)
  np.testing.assert_allclose(
    losses.r1(lambda v: (v * slope).sum((1, 2, 3)), y), (slope**2).sum() * jnp.ones(3), rtol=1e-5
  )


def test_the_relativistic_loss_falls_as_one_value_rises_above_the_other():
  gaps = jnp.array([-20.0, 0.0, 20.0])
  np.testing.assert_allclose(losses.relativistic(gaps, jnp.zeros(3)), [20, np.log(2), 0], atol=1e-6)


def test_the_critic_learns_to_tell_images_apart_and_the_generator_to_be_taken_for_one():
  """The update of one player, the other as it was, moves the adversarial loss its own way."""
  keys = {"fidelity_weight": 0.0, "r1_weight": 0.0}
  method, _, step = made(**keys)
  state, _ = after(1, **keys)
  moved, _ = step(state, images(), KEY)
  objective = jax.jit(method.objective)

  def adversarial(**params) -> float:
    return float(objective(state.replace(params=state.params | params), images(), KEY)["adversarial"].mean())

  critic, generator = moved.params["critic"], moved.params["generator"]
  assert adversarial(critic=critic) > adversarial()
  assert adversarial(critic=critic, generator=generator) < adversarial(critic=critic)


def test_the_losses_are_the_weighted_sums_of_their_terms():
  _, metrics = after(1)
  np.testing.assert_allclose(metrics["loss"], 100 * metrics["fidelity"] + metrics["adversarial"], rtol=1e-5)
  _, without = after(1, fidelity_weight=0.0, r1_weight=0.0)
  penalty = metrics["critic_loss"] - without["critic_loss"]
  np.testing.assert_allclose(penalty, 2.5 / 2 * metrics["critic_r1"], rtol=1e-3, atol=1e-6)
  _, metrics = after(2, diversity_weight=1.0)
  expected = 100 * metrics["fidelity"] + metrics["adversarial"] - jnp.log(metrics["diversity"] + 1e-4)
  np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


def test_fidelity_is_the_mean_distance_from_the_generators_inputs():
  """Equation 4, in the first round, in which noise has no weight yet."""
  method, init, step = made()
  state = init(KEY, images())
  operator = make_operator(tiny("srmap"))
  x = operator.lr(images())[::2]
  y = method.sample(state, x, KEY, n=1)[0]
  expected = np.abs(np.asarray(operator.A(y)) - x).mean()
  np.testing.assert_allclose(step(state, images(), KEY)[1]["fidelity"], expected, rtol=1e-4)


def test_each_player_takes_its_own_half_of_the_batch():
  """The truths of the generator's inputs are never shown: every second image alone is real to the critic."""
  state, _ = after(1)
  step = made()[2]
  batch, other = images(), images()
  x = make_operator(tiny("srmap")).lr(batch)
  other["hr"][::2] = 255 - other["hr"][::2]
  rounds = [step(state, {**b, "lr": x}, KEY) for b in (batch, other)]
  jax.tree.map(np.testing.assert_array_equal, rounds[0][0].params, rounds[1][0].params)
  other["hr"][1::2] = 255 - other["hr"][1::2]
  rounds.append(step(state, {**other, "lr": x}, KEY))
  assert rounds[0][1]["critic_loss"] != rounds[2][1]["critic_loss"]
  assert rounds[0][1]["adversarial"] != rounds[2][1]["adversarial"]


def test_the_objectives_critic_sees_the_centre_of_a_larger_truth():
  method, init, _ = made()
  state = init(KEY, images())
  rng = np.random.default_rng(1)
  hr, x = (rng.integers(0, 256, (2, side, side, 3), dtype=np.uint8) for side in (32, 8))
  inside, outside = hr.copy(), hr.copy()
  inside[:, 8:24, 8:24] = 0
  outside[:, :8], outside[:, 24:], outside[:, :, :8], outside[:, :, 24:] = 0, 0, 0, 0
  of = [method.objective(state, {"hr": v, "lr": x}, KEY)["adversarial"] for v in (hr, outside, inside)]
  np.testing.assert_array_equal(of[0], of[1])
  assert not np.any(of[0] == of[2])


def test_r1_sees_the_part_of_the_real_images_that_its_key_says():
  """With one of two, the second real image of each pair does not matter to it."""
  method, init, step = made(r1_every=2)
  assert method.minibatch == 2
  state = init(KEY, images())
  batch, other = images(), images()
  other["hr"][3::4] = 255 - other["hr"][3::4]
  r1 = [float(step(state, b, KEY)[1]["critic_r1"]) for b in (batch, other)]
  assert r1[0] == r1[1]
  other["hr"][1::4] = 255 - other["hr"][1::4]
  assert r1[0] != float(step(state, other, KEY)[1]["critic_r1"])


def test_asking_for_diversity_brings_more_of_it():
  x, spread = make_operator(tiny("srmap")).lr(images()), []
  for keys in ({}, {"diversity_weight": 1.0}):
    drawn = jax.jit(made(**keys)[0].sample, static_argnames="n")(after(12, **keys)[0], x, KEY, n=4)
    spread.append(float(jnp.std(drawn, axis=0).mean()))
  assert spread[1] > 1.5 * spread[0] > 0


def test_noise_starts_without_effect_and_each_plane_enters_its_own_block():
  net = network("srmap", stem=4, width=8, stages=2, blocks=2, widths=(4, 4))
  x = jax.random.uniform(KEY, (1, 5, 6, 3))
  zero = zero_latent(net, x)
  assert zero.shape == (1, 5, 6, 4)
  params, _ = init(net, KEY, x, zero)
  loud = jax.random.normal(KEY, zero.shape)
  apply = functools.partial(net.apply, train=False)
  np.testing.assert_array_equal(apply({"params": params}, x, zero), apply({"params": params}, x, loud))
  for number in range(4):
    params[f"Block_{number}"]["noise_weight"] += 1.0
    slope = jax.grad(lambda z, p=params: apply({"params": p}, x, z).sum())(loud)
    assert [bool(jnp.abs(slope[..., i]).max() > 0) for i in range(4)] == [i <= number for i in range(4)]


def test_what_a_block_computes_is_added_to_its_input():
  block = Block(ratio=2, kernel=3, attention=False, dtype=jnp.dtype(jnp.float32))
  h = jax.random.normal(KEY, (1, 5, 6, 4))
  params = jax.tree.map(jnp.zeros_like, block.init(KEY, h)["params"])
  params["Conv_1"]["bias"] += jnp.arange(4.0)
  np.testing.assert_allclose(block.apply({"params": params}, h), act(h + jnp.arange(4.0)), rtol=1e-6)


def test_each_stage_is_added_to_its_input():
  """Blocks that do nothing and positive features: each stage doubles what is added to the enlarged image."""
  one, three = (network("srmap", stem=4, width=8, stages=n, blocks=1, widths=(4, 4)) for n in (1, 3))
  x = jax.random.uniform(KEY, (1, 5, 6, 3))
  params, _ = init(three, KEY, x, zero_latent(three, x))
  params = {
    name: jax.tree.map(jnp.zeros_like if name.startswith("Block") else jnp.abs, part)
    for name, part in params.items()
  }

  def added(net):
    def image(params):
      return net.apply({"params": params}, x, zero_latent(net, x), train=False)

    return image(params) - image(jax.tree.map(jnp.zeros_like, params))

  assert float(added(one).min()) > 0
  np.testing.assert_allclose(added(three), 4 * added(one), rtol=1e-4)


def test_the_strength_of_the_noise_is_reported():
  state, metrics = after(1)
  weights = [state.params["generator"][f"Block_{i}"]["noise_weight"] for i in range(2)]
  np.testing.assert_allclose(metrics["noise_weight"], np.sqrt(np.mean(np.square(weights))), rtol=1e-5)
  assert metrics["noise_weight"] > 0


def test_the_papers_sizes_make_81_million_parameters():
  net = network("srmap")
  x = jnp.zeros((1, 8, 8, 3))
  shapes = jax.eval_shape(lambda: init(net, KEY, x, zero_latent(net, x)))[0]
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == pytest.approx(81.5e6, rel=0.01)


def test_a_fresh_critic_sees_detail_and_not_brightness():
  net = network("srmap_critic", widths=(8, 8), head=8)
  flat = jnp.linspace(0, 1, 5)[:, None, None, None] * jnp.ones((5, 16, 16, 3))
  params, _ = init(net, KEY, flat)
  kernel = params["Conv_0"]["kernel"]
  np.testing.assert_allclose(kernel.mean((0, 1)), 0, atol=1e-6)
  np.testing.assert_allclose(kernel.std(), (2 / 27) ** 0.5, rtol=0.3)  # less what the mean takes
  detailed = flat + 0.1 * jax.random.normal(KEY, flat.shape)
  inside = [net.apply({"params": params}, y, train=False) for y in (flat[1:4], detailed[1:4])]
  # The borders, beyond which there is black, are what a flat image is judged by.
  assert jnp.std(inside[0]) < 0.5 * jnp.abs(inside[1] - inside[0]).mean()


def test_the_reduction_keeps_flat_images_and_removes_the_finest_pattern():
  flat = jnp.full((1, 8, 8, 2), 0.3)
  np.testing.assert_allclose(blur_halve(flat), jnp.full((1, 4, 4, 2), 0.3), rtol=1e-6)
  stripes = jnp.tile(jnp.array([1.0, -1.0]), 4)[None, None, :, None] * jnp.ones((1, 8, 8, 1))
  np.testing.assert_allclose(blur_halve(stripes)[:, :, 1:-1], 0, atol=1e-6)
  np.testing.assert_allclose(blur_halve(stripes.swapaxes(1, 2))[:, 1:-1], 0, atol=1e-6)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"train.batch": 6, "method.r1_every": 2}, "multiple of twice"),
    ({"method.fidelity_weight": -1.0}, "make it 0 or more"),
    ({"networks.generator.widths": (4,)}, "give a width for each"),
  ],
)
def test_a_config_that_cannot_be_run_is_refused(change, message):
  config = tiny("srmap")
  config.update_from_flattened_dict(change)

  def checked():
    check(config)
    return make_method(config, make_operator(config))

  with pytest.raises(UserError, match=message):
    checked()


def test_a_critic_that_cannot_halve_its_images_is_refused():
  net = network("srmap_critic", widths=(4, 4, 4), head=4)
  with pytest.raises(UserError, match="halves its images of 12x12 3 times"):
    init(net, KEY, jnp.zeros((1, 12, 12, 3)))


def test_the_reductions_filter_is_1_3_3_1_in_both_directions():
  point = jnp.zeros((1, 8, 8, 1)).at[:, 3, 3].set(64.0)
  np.testing.assert_allclose(blur_halve(point)[0, :, :, 0], np.pad([[9, 3], [3, 1]], 1), atol=1e-5)


def test_attention_weighs_each_channel_between_nothing_and_all():
  block, plain = (Block(2, 3, on, jnp.dtype("float32")) for on in (True, False))
  h = jax.random.uniform(KEY, (1, 5, 6, 4))
  params = block.init(KEY, h)["params"]
  convolutions = {name: values for name, values in params.items() if name.startswith("Conv")}
  for bias, part in ((50.0, 1.0), (0.0, 0.5), (-50.0, 0.0)):
    gated = params | {"Dense_1": {"kernel": jnp.zeros((2, 4)), "bias": jnp.full(4, bias)}}
    scaled = convolutions | {"Conv_1": jax.tree.map(lambda v, part=part: part * v, params["Conv_1"])}
    np.testing.assert_allclose(
      block.apply({"params": gated}, h), plain.apply({"params": scaled}, h), atol=1e-5
    )
