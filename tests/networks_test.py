"""The generators: what the papers say of their layers, and what every method asks of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from small_runs import network
from sr_jax.errors import UserError
from sr_jax.networks import eval_pass, init, normal_latent, train_pass, zero_latent
from sr_jax.networks.shuffle import depth_to_space
from sr_jax.ops import resize

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
