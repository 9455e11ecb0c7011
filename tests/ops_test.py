"""Properties of A, A+ and the projection, with PIL and a per-pixel loop as independent oracles."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from sr_jax.errors import UserError
from sr_jax.ops import Operator, luma, make_operator, quantise, resize, resize_matrix, to_float, to_uint8
from sr_jax.ops.operator import _pseudo_inverse
from sr_jax.ops.resize import BORDERS, KERNELS

# kernel, factor, border, HR size
OPERATORS = [
  ("bicubic", (4, 4), "replicate", (24, 16)),
  ("bicubic", (1, 2), "symmetric", (5, 18)),
  ("bicubic", (2, 2), "renormalise", (12, 20)),
  ("bilinear", (3, 3), "symmetric", (12, 9)),
  ("area", (4, 2), "replicate", (8, 14)),
  ("gaussian", (4, 4), "replicate", (32, 24)),
  ("gaussian", (2, 2), "symmetric", (10, 16)),
]


@pytest.fixture(params=OPERATORS, ids=lambda p: f"{p[0]}-{p[1][0]}x{p[1][1]}-{p[2]}")
def case(request):
  kernel, factor, border, size = request.param
  op = Operator(kernel, factor, border)
  rng = np.random.default_rng(0)
  y = rng.normal(size=(2, *size, 3)).astype(np.float32)
  return op, y, rng.random(op.lr_shape(y.shape), np.float32)


def dense(op: Operator, size: tuple[int, int]) -> np.ndarray:
  """A of one-channel images as a matrix [h w, H W], by what it does to every unit image."""
  units = np.eye(size[0] * size[1], dtype=np.float32).reshape(-1, *size, 1)
  return np.asarray(op.A(units), np.float64).reshape(len(units), -1).T


def test_the_pseudo_inverse_of_one_axis_is_that_of_moore_and_penrose_also_without_full_rank():
  for kernel in ("bicubic", "bilinear", "area", "gaussian"):
    found = _pseudo_inverse(64, 16, kernel, "replicate", True)
    np.testing.assert_allclose(found, np.linalg.pinv(resize_matrix(64, 16, kernel)), atol=1e-13)
  found = _pseudo_inverse(8, 4, f"{__name__}:constant", "replicate", True)
  np.testing.assert_allclose(found, np.full((8, 4), 1 / 4), atol=1e-13)


def constant(n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray]:
  """A kernel that gives every pixel the mean of all: rank 1."""
  return np.tile(np.arange(n_in), (n_out, 1)), np.ones((n_out, n_in))


def dense_pinv(op: Operator, size: tuple[int, int]) -> np.ndarray:
  low = op.lr_shape((*size, 1))
  units = np.eye(low[0] * low[1], dtype=np.float32).reshape(-1, *low)
  return np.asarray(op.pinv(units), np.float64).reshape(len(units), -1).T


def test_the_pseudo_inverse_meets_the_four_penrose_conditions(case):
  op, y, _ = case
  a, b = dense(op, y.shape[1:3]), dense_pinv(op, y.shape[1:3])
  scale = np.abs(b).max()
  np.testing.assert_allclose(a @ b @ a, a, atol=2e-6)
  np.testing.assert_allclose(b @ a @ b, b, atol=2e-6 * scale)
  np.testing.assert_allclose(a @ b, (a @ b).T, atol=2e-6)
  np.testing.assert_allclose(b @ a, (b @ a).T, atol=2e-6)
  np.testing.assert_allclose(a @ b, np.eye(len(a)), atol=2e-6)


def test_a_projected_image_returns_its_input(case):
  op, y, x = case
  projected = jax.jit(op.project)(y, x)
  assert float(jnp.mean((op.A(projected) - x) ** 2)) < 1e-12
  np.testing.assert_allclose(op.project(projected, x), projected, atol=2e-5)


def test_the_projection_is_the_nearest_feasible_image(case):
  op, y, x = case
  size, y, x = y.shape[1:3], y[:1, ..., :1], x[:1, ..., :1]
  a, flat = dense(op, size), y.ravel()
  projected = np.asarray(op.project(y, x)).ravel()
  move, *_ = np.linalg.lstsq(a, x.ravel() - a @ flat)
  np.testing.assert_allclose(projected, flat + move, atol=1e-4)

  # Whoever adds something from A's null space stays feasible and goes further away.
  noise = np.random.default_rng(0).normal(size=(5, flat.size))
  feasible = projected + noise - noise @ a.T @ np.linalg.pinv(a).T
  np.testing.assert_allclose(feasible @ a.T, np.tile(x.ravel(), (5, 1)), atol=1e-4)
  assert (np.linalg.norm(feasible - flat, axis=1) > np.linalg.norm(projected - flat)).all()


def test_the_gradient_passes_through_the_projection_as_its_null_space_part(case):
  """Amortised MAP, appendix B.2: the gradient is multiplied by I - A+A, which is symmetric."""
  op, y, x = case
  v = np.flip(y, axis=(0, 1))
  gradient = jax.jit(jax.grad(lambda y: jnp.vdot(op.project(y, x), v)))(y)
  np.testing.assert_allclose(gradient, v - op.pinv(op.A(v)), atol=2e-5)
  np.testing.assert_allclose(op.A(gradient), 0, atol=2e-5)


def test_leading_axes_broadcast_and_vmap_agrees(case):
  op, y, x = case
  samples = np.stack([y, 2 * y, -y])
  together = op.project(samples, x)
  np.testing.assert_allclose(together[1], op.project(2 * y, x), atol=1e-5)
  np.testing.assert_allclose(jax.jit(jax.vmap(op.project, (0, None)))(samples, x), together, atol=1e-5)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_constant_images_stay_constant_and_equal_sizes_change_nothing(kernel, border):
  np.testing.assert_allclose(resize(jnp.full((8, 12, 1), 0.7), (2, 6), kernel, border), 0.7, atol=1e-6)
  image = np.random.default_rng(0).random((5, 7, 3), np.float32)
  np.testing.assert_array_equal(resize(image, (5, 7), kernel, border), image)


@pytest.mark.parametrize(
  ("kernel", "pil"), [("bicubic", "BICUBIC"), ("bilinear", "BILINEAR"), ("area", "BOX")]
)
@pytest.mark.parametrize("size", [(6, 5), (8, 16), (48, 60), (17, 23)])
def test_the_renormalising_border_is_that_of_pil(kernel, pil, size):
  image = np.random.default_rng(0).random((24, 30), np.float32)
  oracle = Image.fromarray(image).resize(size[::-1], Image.Resampling[pil])
  ours = resize(image[..., None], size, kernel, "renormalise")[..., 0]
  np.testing.assert_allclose(ours, np.asarray(oracle), atol=2e-6)


def cubic(t: float) -> float:
  """The cubic through its values: 1 at 0, 0 at 1 and 2, slope -1/2 at 1 (a = -1/2)."""
  t = abs(t)
  if t >= 2:
    return 0.0
  return (t - 1) * (1.5 * t * t - t - 1) if t < 1 else -0.5 * (t - 1) * (t - 2) ** 2


def shrink_line(line: list[float], factor: int, mirror: bool) -> list[int]:
  """One pass of imresize over a line of bytes, pixel by pixel, rounded to bytes."""
  result = []
  for i in range(len(line) // factor):
    centre, total, weights = (i + 0.5) * factor - 0.5, 0.0, 0.0
    for j in range(-4 * factor, len(line) + 4 * factor):
      weight = cubic((j - centre) / factor)
      k = j
      if mirror:
        k = -1 - k if k < 0 else 2 * len(line) - 1 - k if k >= len(line) else k
      total += weight * line[min(max(k, 0), len(line) - 1)]
      weights += weight
    result.append(min(max(math.floor(total / weights + 0.5), 0), 255))
  return result


@pytest.mark.parametrize("border", ["replicate", "symmetric"])
@pytest.mark.parametrize("factor", [(4, 4), (2, 2), (2, 3)])
def test_rounding_twice_is_matlab_imresize_of_bytes(factor, border):
  # With this seed no value of either pass is within 0.001 of a half, so float32 cannot round it otherwise.
  hr = np.random.default_rng(58).choice(np.array([0, 10, 90, 200, 255], np.uint8), (24, 36))
  mirror = border == "symmetric"
  axes = [(0, factor[0]), (1, factor[1])]
  expected = hr.astype(int)
  for axis, f in sorted(axes, key=lambda pair: -pair[1]):  # MATLAB: the smallest scale first
    expected = np.apply_along_axis(lambda line, f=f: shrink_line(list(line), f, mirror), axis, expected)
  op = Operator("bicubic", factor, border, "twice")
  lr = jax.jit(op.degrade)(to_float(hr[..., None]))
  np.testing.assert_array_equal(to_uint8(lr)[..., 0], expected)


def test_a_golden_image_keeps_its_bytes():
  i, j = np.indices((16, 16))
  hr = ((37 * i + 59 * j + 11 * i * j) % 256).astype(np.uint8)[..., None]
  golden = [[124, 141, 116, 128], [128, 138, 122, 131], [126, 110, 126, 123], [136, 121, 131, 131]]
  lr = to_uint8(Operator(rounding="twice").degrade(to_float(hr)))
  np.testing.assert_array_equal(lr[..., 0], golden)


def test_a_gaussian_output_pixel_weighs_nine_taps_around_its_centre():
  for stride, centre in [(2, 4 * 2), (3, 4 * 3 + 1), (4, 4 * 4 + 1)]:
    row = resize_matrix(9 * stride, 9, "gaussian")[4]
    taps = np.flatnonzero(row)
    np.testing.assert_array_equal(taps, np.arange(centre - 4, centre + 5))
    np.testing.assert_allclose(row[centre + 3] / row[centre], math.exp(-(3**2) / (2 * 1.5**2)))
  with pytest.raises(ValueError, match="strides by an integer"):
    resize_matrix(10, 4, "gaussian")


def test_degrading_without_rounding_is_A_and_with_rounding_lies_on_the_byte_grid():
  hr = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
  np.testing.assert_array_equal(Operator().degrade(hr), Operator().A(hr))
  once = Operator(rounding="once").degrade(hr)
  assert float(jnp.abs(once - Operator().A(hr)).max()) <= 0.5 / 255 + 1e-6
  np.testing.assert_array_equal(to_float(to_uint8(once)), once)


def test_an_input_is_its_own_bytes_or_made_from_the_image():
  op = Operator(factor=(2, 2))
  hr = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
  lr = np.full((2, 4, 4, 3), 51, np.uint8)
  np.testing.assert_allclose(op.lr({"hr": hr, "lr": lr}), 0.2)
  np.testing.assert_allclose(op.lr({"hr": hr}), op.A(hr / np.float32(255)), atol=1e-6)
  for wrong, size in ((lr[:, 1:], "3x4"), (lr[:, :, 1:], "4x3")):
    with pytest.raises(
      UserError, match=rf"have {size} rows and columns.* 8x8, .*operator\.factor is \(2, 2\)"
    ):
      op.lr({"hr": hr, "lr": wrong})
  flat = Operator(factor=(4, 2))  # rows, columns
  assert flat.lr({"hr": hr, "lr": lr[:, :2]}).shape == (2, 2, 4, 3)
  with pytest.raises(UserError, match="4x2 rows and columns"):
    flat.lr({"hr": hr, "lr": lr[:, :, :2]})


def test_the_head_projects_only_when_asked(case):
  op, y, x = case
  np.testing.assert_array_equal(op.head(y, x), y)
  strict = Operator(op.kernel, op.factor, op.border, consistency="project")
  np.testing.assert_array_equal(strict.head(y, x), op.project(y, x))


def test_operators_compare_by_value_and_change_factor_alone():
  op = Operator("area", (4, 4), "symmetric")
  assert hash(op) == hash(Operator("area", (4, 4), "symmetric"))
  assert op.with_factor((2, 2)) == Operator("area", (2, 2), "symmetric")
  assert op.lr_shape((5, 8, 12, 3)) == (5, 2, 3, 3)
  assert op.hr_shape((5, 2, 3, 3)) == (5, 8, 12, 3)


def run_config(**changes):
  keys = {"kernel": "bicubic", "factor": (4, 2), "border": "symmetric", "rounding": "once", "antialias": True}
  consistency = changes.pop("consistency", "project")
  return ConfigDict({"operator": keys | changes, "consistency": consistency})


def test_the_operator_is_made_from_the_config():
  ours = ("bicubic", (4, 2), "symmetric", "once", "project")
  assert make_operator(run_config()) == Operator(*ours)
  assert make_operator(run_config(antialias=False)) == Operator(*ours, antialias=False)


def test_an_operator_sees_as_far_as_the_larger_factor_asks():
  reach = {factor: Operator("gaussian", factor).reach for factor in ((2, 2), (4, 2), (2, 4), (4, 4))}
  assert reach[2, 2] == reach[4, 2] == reach[2, 4] > reach[4, 4]


@pytest.mark.parametrize(
  ("key", "value", "allowed"),
  [
    ("kernel", "bicubik", "did you mean 'bicubic'"),
    ("border", "wrap", "choose one of 'replicate', 'symmetric', 'renormalise'"),
    ("rounding", "thrice", "did you mean 'twice'"),
    ("consistency", "yes", "choose one of 'none', 'project'"),
    ("factor", (2.5, 2), "two whole numbers"),
    ("factor", (4, 0), "two whole numbers"),
    ("factor", (4,), "two whole numbers"),
  ],
)
def test_a_value_that_is_not_allowed_raises_one_sentence(key, value, allowed):
  with pytest.raises(UserError) as error:
    make_operator(run_config(**{key: value}))
  message = str(error.value)
  assert key in message
  assert str(value) in message
  assert allowed in message
  assert "\n" not in message


def test_without_antialiasing_a_cubic_has_four_taps_at_the_centre_of_each_block_and_an_exact_pseudo_inverse():
  matrix = resize_matrix(24, 6, antialias=False)
  assert ((matrix != 0).sum(axis=1) == 4).all()
  ramp = np.arange(24) ** 2 / 24  # a cubic with a = -0.5 reproduces parabolas
  np.testing.assert_allclose((matrix @ ramp)[1:-1], ((np.arange(6) * 4 + 1.5) ** 2 / 24)[1:-1], rtol=1e-6)
  operator = Operator(antialias=False)
  x = jax.random.uniform(jax.random.key(0), (1, 6, 5, 1))
  np.testing.assert_allclose(operator.A(operator.pinv(x)), x, atol=1e-5)
  assert not operator.same_degradation(Operator())
  with pytest.raises(UserError, match="no interpolation"):
    resize_matrix(8, 2, "gaussian", antialias=False)


def test_sizes_that_do_not_fit_raise_one_sentence():
  with pytest.raises(UserError, match="30x32 pixels cannot be reduced"):
    Operator().A(jnp.zeros((1, 30, 32, 3)))
  with pytest.raises(UserError, match="does not belong to an output"):
    Operator().project(jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 1, 1, 3)))
  with pytest.raises(UserError, match="'lanczos'"):
    resize(jnp.zeros((4, 4, 1)), (2, 2), "lanczos")


def test_bytes_survive_the_way_through_floats_and_halves_go_up():
  levels = np.arange(256, dtype=np.uint8)
  np.testing.assert_array_equal(jax.jit(lambda b: to_uint8(to_float(b)))(levels), levels)
  np.testing.assert_array_equal(to_uint8(jnp.array([-1, 0.5 / 255, 2.5 / 255, 2])), [0, 1, 3, 255])
  np.testing.assert_allclose(quantise(jnp.array([-1, 0.4 / 255, 1.6 / 255, 2])), [0, 0, 2 / 255, 1])


def test_luma_is_studio_swing():
  colours = jnp.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0]], jnp.float32)
  # MATLAB: rgb2ycbcr([0 0 0; 1 1 1; 1 0 0; 0 1 0]) * 255, first column
  np.testing.assert_allclose(luma(colours)[:, 0] * 255, [16, 235, 81.481, 144.553], rtol=1e-6)
  np.testing.assert_allclose(luma(colours, "bt709")[:, 0] * 255, [16, 235, 62.5594, 172.6288], rtol=1e-6)
  grey = jnp.full((2, 2, 1), 0.3)
  np.testing.assert_array_equal(luma(grey), grey)
  with pytest.raises(UserError, match="bt602"):
    luma(colours, "bt602")
