"""The generators: what the papers say of their layers, and what every method asks of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from small_runs import network
from sr_jax.errors import UserError
from sr_jax.networks import eval_pass, init, normal_latent, train_pass, zero_latent
from sr_jax.networks.projection import LearnedProjection
from sr_jax.networks.shuffle import depth_to_space, space_to_depth
from sr_jax.ops import Operator, resize

F32 = jnp.dtype("float32")
KEY = jax.random.key(0)


def image(*shape: int) -> jax.Array:
  return jax.random.uniform(KEY, shape)


def test_srim_has_nine_convolutions_of_5x5_in_each_of_two_stages_and_the_skip_enters_all_but_the_first():
  net, x = network("srim"), image(1, 4, 4, 3)
  params = jax.eval_shape(lambda: init(net, KEY, x, zero_latent(net, x)))[0]
  for stage in ("subnetworks_0", "subnetworks_1"):
    shapes = [params[stage][f"Conv_{i}"]["kernel"].shape for i in range(9)]
    assert shapes == [(5, 5, 3 + 5, 64), *[(5, 5, 64 + 3, 64)] * 7, (5, 5, 64 + 3, 3)]
    assert sum(name.startswith("BatchNorm") for name in params[stage]) == 8
  assert [part.shape for part in net.latent((4, 4, 3))] == [(8, 8, 5), (16, 16, 5)]


def test_srim_doubles_in_each_stage_stays_between_0_and_1_and_stages_make_the_whole():
  net, x = network("srim", width=4, layers=3, kernel=3), image(2, 4, 6, 3)
  latent = normal_latent(net, x, KEY)
  params, stats = init(net, KEY, x, latent)
  outputs = [x]
  for s, part in enumerate(latent):
    outputs.append(eval_pass(net, params, stats, s, x, outputs[-1], part, method="stage"))
  assert [y.shape for y in outputs[1:]] == [(2, 8, 12, 3), (2, 16, 24, 3)]
  assert all((y > 0).all() and (y < 1).all() for y in outputs[1:])
  np.testing.assert_array_equal(eval_pass(net, params, stats, x, latent), outputs[-1])


def test_every_stage_of_srim_sees_the_input_itself_and_its_own_latent():
  net, x = network("srim", factor=(8, 8), width=4, layers=3, kernel=3), image(1, 4, 4, 3)
  latent = normal_latent(net, x, KEY)
  params, stats = init(net, KEY, x, latent)
  previous = [x, image(1, 8, 8, 3), image(1, 16, 16, 3)]

  def stage(s, x):
    return eval_pass(net, params, stats, s, x, previous[s], latent[s], method="stage")

  def outputs(latent):
    return eval_pass(net, params, stats, x, latent, method="outputs")

  given = outputs(latent)
  for s in range(3):
    assert not np.allclose(stage(s, 1 - x), stage(s, x), atol=1e-4), "the skip is of the input"
    other = outputs([part + 1.0 if i == s else part for i, part in enumerate(latent)])
    equal = [np.allclose(a, b, atol=1e-4) for a, b in zip(other, given, strict=True)]
    assert equal == [True] * s + [False] * (3 - s)


def test_srim_refuses_a_factor_that_is_no_power_of_two():
  with pytest.raises(UserError, match="power of two"):
    network("srim", (1, 2)).latent((4, 4, 3))


def test_a_latent_by_film_scales_and_shifts_each_feature_map_and_a_tiled_one_shifts_alone():
  x, z = jnp.stack([jnp.zeros((4, 4, 3)), jax.random.uniform(KEY, (4, 4, 3))]), jnp.ones((2, 1))
  keys = {"width": 2, "blocks": 0, "outer_kernel": 1, "latent_size": 1}
  moved = {}
  for entry in ("film", "concatenate"):
    net = network("srresnet", latent_entry=entry, **keys)
    params, stats = init(net, KEY, x, z)
    params["Conv_0"]["bias"] = jnp.ones(2)

    def entered(kernel, net=net, params=params, stats=stats):
      """What the first PReLU, here the identity, gives out: h [2, 4, 4, 2]."""
      own = params | {"Dense_0": {"kernel": kernel}, "PReLU_0": {"negative_slope": jnp.ones(())}}
      _, seen = net.apply(
        {"params": own, "batch_stats": stats}, x, z, train=False, capture_intermediates=True
      )
      return seen["intermediates"]["PReLU_0"]["__call__"][0]

    shape = params["Dense_0"]["kernel"].shape
    plain = entered(jnp.zeros(shape))
    moved[entry] = entered(jnp.arange(1.0, 1 + shape[1])[None]), plain
  (film, plain), (tiled, before) = moved["film"], moved["concatenate"]
  np.testing.assert_allclose(film, plain * jnp.array([2.0, 3.0]) + jnp.array([3.0, 4.0]), rtol=1e-5)
  np.testing.assert_allclose(tiled, before + jnp.array([1.0, 2.0]), rtol=1e-5)
  with pytest.raises(UserError, match="latent_entry"):
    network("srresnet", latent_entry="film", noise_channels=1)


@pytest.mark.parametrize("factor", [(1, 2), (2, 2), (3, 3), (4, 4)])
@pytest.mark.parametrize("tail", ["shuffle", "direct"])
def test_srresnet_enlarges_by_any_factor_and_starts_at_bicubic_when_residual(factor, tail):
  keys = {"width": 8, "blocks": 1, "outer_kernel": 3, "norm": "none", "residual": True}
  net = network("srresnet", factor, 1, tail=tail, **keys)
  x = image(1, 4, 5, 1)
  params, stats = init(net, KEY, x, zero_latent(net, x))
  y = eval_pass(net, params, stats, x, zero_latent(net, x))
  size = (4 * factor[0], 5 * factor[1])
  assert y.shape == (1, *size, 1)
  bicubic = resize(x, size)
  assert 0 < np.abs(y - bicubic).mean() < 0.2 * np.abs(bicubic).mean()


def test_a_latent_changes_the_image_and_bfloat16_keeps_float32_parameters_and_output():
  net = network("srresnet", (2, 2), dtype="bfloat16", width=8, blocks=1, noise_channels=2)
  x = image(1, 4, 4, 3)
  zeros = zero_latent(net, x)
  params, stats = init(net, KEY, x, zeros)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {F32}
  y = eval_pass(net, params, stats, x, zeros)
  assert y.dtype == F32
  assert not np.array_equal(y, eval_pass(net, params, stats, x, zeros + 1))


@pytest.mark.parametrize("name", ["srim", "srresnet", "convnet", "tanh_residual"])
def test_running_statistics_move_a_tenth_of_the_way_to_the_batchs(name):
  small = {
    "srim": {"width": 4, "layers": 3, "kernel": 3},
    "srresnet": {"width": 4, "blocks": 1, "outer_kernel": 3},
    "convnet": {"widths": (4, 4)},
    "tanh_residual": {"width": 4, "blocks": 1},
  }
  net, x = network(name, **small[name]), image(2, 4, 4, 3)
  latent = normal_latent(net, x, KEY)
  params, stats = init(net, KEY, x, latent)
  after = stats
  for _ in range(2):
    _, after = train_pass(net, params, after, x, latent)
  once = train_pass(net, params, stats, x, latent)[1]
  # From 0 with momentum 0.9: 0.1 m, then 0.19 m.
  pairs = zip(jax.tree.leaves(once), jax.tree.leaves(after), jax.tree.leaves(stats), strict=True)
  for one, two, start in pairs:
    np.testing.assert_allclose(two - start, 1.9 * (one - start), rtol=1e-3, atol=1e-6)


def test_depth_to_space_puts_each_channel_in_its_place():
  x = jnp.arange(2 * 3 * 8).reshape(1, 2, 3, 8)
  y = depth_to_space(x, (2, 4))
  assert y.shape == (1, 4, 12, 1)
  for i, j in np.ndindex(4, 12):
    assert y[0, i, j, 0] == x[0, i // 2, j // 4, (i % 2) * 4 + j % 4]


@pytest.mark.parametrize("name", ["srresnet", "conditioning", "encoder", "critic", "classifier"])
def test_an_unknown_norm_is_refused(name):
  with pytest.raises(UserError, match="is 'group', which does not exist"):
    network(name, norm="group")


@pytest.mark.parametrize("keys", [{"activation": "swich"}, {"norm": "group"}])
def test_a_trunk_refuses_an_unknown_activation_and_an_unknown_norm(keys):
  net, x = network("convnet", **keys), image(1, 4, 4, 3)
  with pytest.raises(UserError, match="which does not exist"):
    init(net, KEY, x, zero_latent(net, x))


@pytest.mark.parametrize(
  ("name", "keys", "expected"),
  [
    ("srim", {"width": 4, "layers": 3, "kernel": 3}, (0.108832, -0.32572, -0.187461)),
    ("srresnet", {"width": 4, "blocks": 1, "tail": "shuffle"}, (10.8143, 34.8221, 9.36887)),
    ("tanh_residual", {"width": 4, "blocks": 1}, (0.272905, 0.796974, 0.70942)),
    ("tanh_residual", {"width": 4, "blocks": 1, "whole": 4}, (0.274667, 0.554559, 0.822824)),
    ("convnet", {"widths": (4,) * 5, "skip": 2, "output": "sigmoid"}, (0.0579457, 0.356221, 0.726458)),
    ("convnet", {"widths": (4,), "output": "linear", "scale": 10.0}, (2.78389, 5.58749, -0.560119)),
    (
      "srmap",
      {"stem": 4, "width": 4, "stages": 1, "blocks": 1, "widths": (4, 4)},
      (0.630867, 1.6792, 0.8728),
    ),
    ("denoiser", {"widths": (4,), "scale": 10.0}, (1.66324, 2.40437, -0.599501)),
    ("denoiser", {"widths": (4,), "residual": True}, (0.348907, 0.87452, -0.628791)),
    (
      "discriminator",
      {"widths": (4, 4), "strides": (2, 2), "scale": 10.0},
      (0.000314161, -0.351941, -0.043553),
    ),
    ("critic", {"widths": (4,), "head": 4}, (0.0708977, -0.148194, 0.106279)),
    ("srmap_critic", {"widths": (4, 4), "head": 4}, (0.000180757, -0.00235301, -0.00290522)),
    ("classifier", {"widths": (4,)}, (0.140945, 0.0358915, 0.27358)),
    (
      "encoder",
      {"width": 4, "layers": 1, "latent_size": 2, "fold": (2, 2)},
      (0.194514, -0.107394, 0.0353987),
    ),
  ],
)
def test_a_network_of_given_weights_computes_what_it_did_when_runs_were_saved(name, keys, expected):
  """So that a run of an earlier version draws the same images.

  Expected are the deviation of the outputs and two random projections of them, as this test first found them.
  """
  net, rng = network(name, **keys), np.random.default_rng(0)
  x = jnp.asarray(rng.random((2, 8, 8, 3)), jnp.float32)
  given = (x, normal_latent(net, x, KEY)) if hasattr(net, "latent") else (x,)
  given = jax.tree.map(lambda v: jnp.asarray(rng.random(v.shape), jnp.float32), given)
  shapes = jax.eval_shape(lambda: net.init(KEY, *given, train=False))
  weights = jax.tree.map(lambda s: jnp.asarray(rng.uniform(-0.3, 0.35, s.shape), s.dtype), shapes)
  weights = {
    kind: jax.tree.map(abs, part) if kind == "batch_stats" else part for kind, part in weights.items()
  }
  values = jnp.concatenate(
    [leaf.ravel() for leaf in jax.tree.leaves(net.apply(weights, *given, train=False))]
  )
  found = [values.std(), *(values @ rng.normal(size=(values.size, 2)) / np.sqrt(values.size))]
  np.testing.assert_allclose(found, expected, atol=5e-5 * float(jnp.abs(values).max()))


@pytest.mark.parametrize(
  ("name", "keys"), [("srresnet", {"width": 4, "blocks": 1}), ("convnet", {"widths": (4,)})]
)
def test_the_scale_of_noise_is_how_much_of_it_a_network_begins_with(name, keys):
  x, moved = image(1, 4, 4, 3), []
  for scale in (1.0, 0.1):
    net = network(name, **keys, norm="none", noise_channels=2, noise_scale=scale)
    latent = normal_latent(net, x, KEY)
    params, stats = init(net, KEY, x, latent)
    still = eval_pass(net, params, stats, x, jax.tree.map(jnp.zeros_like, latent))
    moved.append(jnp.abs(eval_pass(net, params, stats, x, latent) - still).mean())
  assert moved[0] > 3 * moved[1] > 0


def test_every_part_of_a_latent_is_drawn_with_a_key_of_its_own():
  latent = normal_latent(network("srim"), image(1, 4, 4, 3), KEY)
  assert not np.isin(latent[0].ravel(), latent[1].ravel()).any()


def test_space_to_depth_is_undone_by_depth_to_space():
  y = jnp.arange(4.0 * 12 * 2).reshape(1, 4, 12, 2)
  np.testing.assert_array_equal(depth_to_space(space_to_depth(y, (2, 4)), (2, 4)), y)


def test_a_learned_projection_projects_the_last_stage_alone():
  net = network("srim", width=4, layers=2, kernel=3)
  net = LearnedProjection(net, Operator(), kernel=3, start="random", trainable=True)
  x = image(1, 4, 4, 3)
  latent = normal_latent(net, x, KEY)
  params, stats = init(net, KEY, x, latent)
  whole = eval_pass(net, params, stats, x, latent)
  lower, last = eval_pass(net, params, stats, x, latent, method="outputs")
  first = eval_pass(net, params, stats, 0, x, x, latent[0], method="stage")
  np.testing.assert_allclose(first, lower, atol=1e-6)
  for y in (last, eval_pass(net, params, stats, 1, x, lower, latent[1], method="stage")):
    np.testing.assert_allclose(y, whole, atol=1e-6)
