"""Every metric against an independent one, and the summary over samples against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from skimage.color import rgb2ycbcr
from skimage.data import astronaut
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sr_jax import metrics
from sr_jax.errors import UserError
from sr_jax.metrics import METRICS, Protocol, lookup
from sr_jax.metrics.classes import class_metrics
from sr_jax.ops.operator import Operator

# One metric is of points, not of images.
PLAIN = [name for name, metric in METRICS.items() if name != "swiss_roll_nll" and not metric.read]

BORDER, SAMPLES = 2, 3
PROTOCOL = Protocol(Operator(factor=(2, 2)), BORDER, "bt601")

# Names and protocol are plain values: one compilation for each.
measure = jax.jit(metrics.measure, static_argnames=("names", "protocol"))


def truths() -> np.ndarray:
  image = astronaut()
  return np.stack([image[100:140, 200:248], image[300:340, 100:148]])


def batch_of(hr: np.ndarray) -> dict[str, jax.Array]:
  hr = jnp.asarray(hr, jnp.float32) / 255
  return {"hr": hr, "lr": PROTOCOL.operator.degrade(hr)}


def noisy(hr: np.ndarray) -> np.ndarray:
  """Samples that leave [0, 1], each noisier than the one before: [n, B, H, W, C]."""
  noise = np.random.default_rng(0).normal(size=(SAMPLES, *hr.shape))
  scale = np.array([0.05, 0.1, 0.2]).reshape(-1, 1, 1, 1, 1)
  return (hr / 255 + scale * noise).astype(np.float32)


HR = truths()
BATCH = batch_of(HR)
NOISY = noisy(HR)


@pytest.fixture(scope="module")
def results() -> dict[str, np.ndarray]:
  return {name: np.asarray(value) for name, value in run(PLAIN, NOISY, BATCH).items()}


def run(names, samples, batch, protocol=PROTOCOL) -> dict[str, jax.Array]:
  return measure(tuple(names), jnp.asarray(samples), batch, protocol)


def saved(image: np.ndarray) -> np.ndarray:
  """What an 8-bit file of the image holds, without the border, as whole numbers in 0 to 255."""
  image = np.floor(np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
  return image[..., BORDER:-BORDER, BORDER:-BORDER, :]


def bytes_of_luma(image: np.ndarray) -> np.ndarray:
  return np.round(rgb2ycbcr(image)[..., 0]).astype(np.uint8)


def reference(name: str, sample: np.ndarray, truth: np.ndarray) -> float:
  """scikit-image's value for one float sample [H, W, 3] and its uint8 truth."""
  x, y = saved(sample), truth[BORDER:-BORDER, BORDER:-BORDER]
  if name.endswith("_y"):
    x, y = bytes_of_luma(x), bytes_of_luma(y)
  if name.startswith("psnr"):
    return peak_signal_noise_ratio(y, x, data_range=255)
  channels = None if name.endswith("_y") else -1
  window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
  return structural_similarity(y / 255, x / 255, data_range=1, channel_axis=channels, **window)


@pytest.mark.parametrize("name", ["psnr", "psnr_y", "ssim", "ssim_y"])
def test_fidelity_agrees_with_scikit_image(name, results):
  expected = np.array([[reference(name, s, t) for s, t in zip(x, HR, strict=True)] for x in NOISY])
  np.testing.assert_allclose(results[name], expected.mean(0), atol=1e-4)
  np.testing.assert_allclose(results[f"{name}/best"], expected.max(0), atol=1e-4)
  mean = [reference(name, s, t) for s, t in zip(NOISY.mean(0), HR, strict=True)]
  np.testing.assert_allclose(results[f"{name}/mean_image"], mean, atol=1e-4)


def reference_ms_ssim(x: np.ndarray, y: np.ndarray) -> float:
  """Multi-scale SSIM of bytes [H, W, C] as the evaluation code of 2016 had it, with SciPy's convolutions."""
  x, y = x.astype(np.float64), y.astype(np.float64)
  c1, c2, result = (0.01 * 255) ** 2, (0.03 * 255) ** 2, 1.0
  for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
    size = min(11, *x.shape[:2])
    sigma = size * 1.5 / 11
    at = np.mgrid[:size, :size] - (size - 1) / 2
    window = (
      np.exp(-(at**2).sum(0) / (2 * sigma**2))[..., None] / np.exp(-(at**2).sum(0) / (2 * sigma**2)).sum()
    )
    blur = lambda v, window=window: scipy.signal.fftconvolve(v, window, mode="valid", axes=(0, 1))  # noqa: E731
    mx, my = blur(x), blur(y)
    covariance = blur(x * y) - mx * my
    value = (2 * covariance + c2) / (blur(x * x) - mx**2 + blur(y * y) - my**2 + c2)
    if scale == 4:
      value = value * (2 * mx * my + c1) / (mx**2 + my**2 + c1)
    result *= max(value.mean(), 0) ** weight
    x, y = (scipy.ndimage.convolve(v, np.full((2, 2, 1), 0.25), mode="reflect")[::2, ::2] for v in (x, y))
  return result


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 37), (96, 64)])
def test_multi_scale_ssim_is_that_of_the_reference_code_with_its_shrinking_window(height, width):
  hr = astronaut()[None, 100 : 100 + height, 200 : 200 + width]
  protocol = PROTOCOL._replace(operator=Operator(factor=(1, 1)), border=0)
  samples = noisy(hr)
  found = run(["ms_ssim"], samples, {"hr": jnp.asarray(hr, jnp.float32) / 255, "lr": hr / 255}, protocol)
  files = np.floor(np.clip(samples, 0, 1) * 255 + 0.5)[:, 0]
  expected = [reference_ms_ssim(file, hr[0]) for file in files]
  assert found["ms_ssim"][0] == pytest.approx(np.mean(expected), abs=1e-4)
  assert found["ms_ssim/best"][0] == pytest.approx(max(expected), abs=1e-4)
  assert min(expected) < 0.97


def test_a_negative_contrast_counts_as_zero_and_too_small_images_raise_one_sentence():
  hr = np.linspace(0, 1, 32 * 32 * 3, dtype=np.float32).reshape(1, 32, 32, 3)
  protocol = PROTOCOL._replace(operator=Operator(factor=(1, 1)), border=0)
  assert run(["ms_ssim"], 1 - hr[None], {"hr": hr, "lr": hr}, protocol)["ms_ssim"][0] == 0
  with pytest.raises(UserError, match="ms_ssim"):
    run(["ms_ssim"], hr[None], {"hr": hr, "lr": hr}, protocol._replace(border=9))


def test_the_wrapped_psnr_is_numpys_arithmetic_of_bytes(results):
  for b, truth in enumerate(HR):
    inner = truth[BORDER:-BORDER, BORDER:-BORDER]
    wrapped = [10 * np.log10(255**2 / ((saved(x[b]) - inner) ** 2).mean()) for x in NOISY]
    assert results["psnr_uint8_wrapped"][b] == pytest.approx(np.mean(wrapped), abs=1e-3)
    assert results["psnr_uint8_wrapped"][b] > results["psnr"][b] + 5


@pytest.mark.parametrize(("name", "distance"), [("mse", np.square), ("mae", np.abs)])
def test_errors_are_of_clipped_unrounded_samples_without_the_border(name, distance, results):
  inner = np.s_[..., BORDER:-BORDER, BORDER:-BORDER, :]
  expected = distance(np.clip(NOISY, 0, 1)[inner] - HR[inner] / 255).mean((-3, -2, -1))
  np.testing.assert_allclose(results[name], expected.mean(0), rtol=1e-5)
  np.testing.assert_allclose(results[f"{name}/best"], expected.min(0), rtol=1e-5)


def test_consistency_is_of_the_whole_unclipped_sample(results):
  difference = np.asarray(PROTOCOL.operator.A(NOISY)) - np.asarray(BATCH["lr"])
  l1, mse = np.abs(difference).mean((-3, -2, -1)), np.square(difference).mean((-3, -2, -1))
  np.testing.assert_allclose(results["lr_l1"], l1.mean(0), rtol=1e-5)
  np.testing.assert_allclose(results["lr_mse"], mse.mean(0), rtol=1e-5)
  np.testing.assert_allclose(results["lr_mse/best"], mse.min(0), rtol=1e-5)
  l2 = np.sqrt(np.square(difference).sum((-3, -2, -1)))
  np.testing.assert_allclose(results["lr_l2"], l2.mean(0), rtol=1e-5)
  np.testing.assert_allclose(results["lr_psnr"], -10 * np.log10(mse).mean(0), atol=1e-4)


def test_8_bit_consistency_is_of_the_saved_sample(results):
  files = np.floor(np.clip(NOISY, 0, 1) * 255 + 0.5).astype(np.float32) / 255
  mse = np.square(np.asarray(PROTOCOL.operator.A(files)) - np.asarray(BATCH["lr"])).mean((-3, -2, -1))
  np.testing.assert_allclose(results["lr_psnr_8bit"], -10 * np.log10(mse).mean(0), atol=1e-4)


def test_a_projected_sample_loses_consistency_only_by_rounding():
  projected = PROTOCOL.operator.project(NOISY, BATCH["lr"])
  found = run(["lr_psnr", "lr_psnr_8bit"], projected, BATCH)
  assert (found["lr_psnr"] > 120).all()
  assert (found["lr_psnr_8bit"] < 60).all()


def test_a_perfect_image_reaches_the_ceiling():
  hr = BATCH["hr"]
  batch = BATCH | {"lr": PROTOCOL.operator.A(hr)}
  found = run(PLAIN, hr[None], batch)
  for name, ceiling in {"psnr": 100, "psnr_y": 100, "lr_psnr": 150, "ssim": 1, "ssim_y": 1, "std": 0}.items():
    np.testing.assert_allclose(found[name], ceiling, atol=1e-5)


def test_differences_do_not_wrap():
  # 5 - 250 in uint8 is 11, whose square is 121: the true error is 245.
  hr = np.full((1, 16, 16, 3), 250, np.uint8)
  found = run(["psnr"], jnp.full((1, *hr.shape), 5 / 255), batch_of(hr))
  np.testing.assert_allclose(found["psnr"], -20 * np.log10(245 / 255), atol=1e-4)


def test_std_is_numpys_in_grey_levels(results):
  inner = np.clip(NOISY, 0, 1)[..., BORDER:-BORDER, BORDER:-BORDER, :]
  np.testing.assert_allclose(results["std"], 255 * inner.std(0, ddof=1).mean((-3, -2, -1)), rtol=1e-5)
  assert not any(name.startswith("std/") for name in results)


def test_a_deviation_without_a_range_is_numpys_of_all_values():
  far = 100 * NOISY - 50
  np.testing.assert_allclose(
    run(["deviation"], far, BATCH)["deviation"], far.std(0, ddof=1).mean((-3, -2, -1)), rtol=1e-5
  )


def test_one_sample_has_a_best_but_no_mean_image_and_no_deviation():
  found = run(["psnr", "std", "deviation"], NOISY[:1], BATCH)
  assert set(found) == {"psnr", "psnr/best", "std", "deviation"}
  np.testing.assert_array_equal(found["psnr"], found["psnr/best"])
  np.testing.assert_array_equal([found["std"], found["deviation"]], np.zeros((2, 2)))


def test_grey_images_are_their_own_luma():
  grey = NOISY[..., :1]
  found = run(["psnr", "psnr_y", "ssim", "ssim_y"], grey, batch_of(HR[..., :1]))
  np.testing.assert_allclose(found["psnr"], found["psnr_y"], rtol=1e-6)
  np.testing.assert_allclose(found["ssim"], found["ssim_y"], atol=1e-4)


def test_the_best_sample_may_be_that_of_one_metric_for_all():
  """Two samples of a flat image: one is noisier, the other is further from the input in low resolution."""
  hr = np.full((1, 16, 16, 3), 128, np.uint8)
  checks = 0.1 * (-1) ** np.add.outer(np.arange(16), np.arange(16))[..., None]
  samples = np.stack([hr / 255 + checks, hr / 255 + 0.05]).astype(np.float32)
  names, batch = ("psnr", "lr_mse"), batch_of(hr)
  own = run(names, samples, batch)
  by_psnr = run(names, samples, batch, PROTOCOL._replace(best_by="psnr"))
  by_input = run(names, samples, batch, PROTOCOL._replace(best_by="lr_mse"))
  assert by_psnr["psnr/best"] == own["psnr/best"] > by_input["psnr/best"]
  assert by_input["lr_mse/best"] == own["lr_mse/best"] < by_psnr["lr_mse/best"]
  for wrong in ("ssim", "std"):
    with pytest.raises(UserError, match="best_by"):
      run(("psnr", "std"), samples, batch, PROTOCOL._replace(best_by=wrong))


def test_the_luma_is_a_choice():
  bt709 = run(["psnr_y"], NOISY, BATCH, PROTOCOL._replace(luma="bt709"))["psnr_y"]
  bt601 = run(["psnr_y"], NOISY, BATCH)["psnr_y"]
  assert (jnp.abs(bt709 - bt601) > 0.01).all()
  exact = run(["psnr_y"], BATCH["hr"][None], BATCH, PROTOCOL._replace(luma="bt709"))["psnr_y"]
  np.testing.assert_allclose(exact, 100, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in PLAIN if METRICS[name].better and "wrapped" not in name])
def test_the_best_sample_is_the_one_with_the_least_noise(name, results):
  np.testing.assert_allclose(results[f"{name}/best"], run([name], NOISY[:1], BATCH)[name], rtol=1e-4)


def test_of_a_negative_log_likelihood_the_lower_is_the_better():
  assert METRICS["swiss_roll_nll"].better == "lower"


def test_metrics_with_weights_choose_their_own_best_sample(monkeypatch):
  own = metrics.Metric(lambda samples, batch, protocol, values: values, "lower", ".2f", lambda keys: None)
  monkeypatch.setitem(METRICS, "own", own)
  weights = {"own": jnp.array([[3.0, 3.0], [2.0, 2.0], [1.0, 1.0]])}  # best where PSNR is worst
  by_psnr = PROTOCOL._replace(best_by="psnr")
  found = metrics.measure(("psnr", "own"), jnp.asarray(NOISY), BATCH, by_psnr, weights)
  np.testing.assert_array_equal(found["own/best"], [1, 1])


def test_the_diversity_score_of_squared_errors_is_that_of_all_channels(results):
  files = np.stack([saved(sample) for sample in NOISY]) / 255
  maps = np.square(files - HR[..., BORDER:-BORDER, BORDER:-BORDER, :] / 255).mean(-1)
  whole, local = maps.mean((-2, -1)).min(0), maps.min(0).mean((-2, -1))
  np.testing.assert_allclose(results["s_n_mse"], 100 * (whole - local) / whole, rtol=1e-3)


def test_images_are_measured_alone():
  alone = [jax.tree.map(lambda x, i=i: x[i : i + 1], BATCH) for i in range(2)]
  names = ["psnr_y", "ssim", "lr_psnr", "std"]
  together = run(names, NOISY, BATCH)
  for i, batch in enumerate(alone):
    for name, value in run(names, NOISY[:, i : i + 1], batch).items():
      np.testing.assert_allclose(value[0], together[name][i], rtol=1e-5)


@pytest.mark.parametrize(
  ("name", "nearest"), [("pnsr", "psnr"), ("ssimy", "ssim_y"), ("lr_psnr8", "lr_psnr")]
)
def test_an_unknown_metric_raises_a_user_error_with_the_nearest_right_one(name, nearest):
  with pytest.raises(UserError, match=rf"'{name}', which does not exist: did you mean '{nearest}"):
    lookup(name)


@pytest.mark.parametrize("border", [6, 7])
def test_a_border_may_leave_as_little_as_two_pixels(border):
  hr = HR[:, :16, :16]
  found = run(["mse"], hr[None] / 255 + 0.01, batch_of(hr), PROTOCOL._replace(border=border))
  np.testing.assert_allclose(found["mse"], 1e-4, rtol=0.3)


@pytest.mark.parametrize(("name", "border", "message"), [("ssim", 3, "11x11"), ("psnr", 8, "border = 8")])
def test_an_image_too_small_for_the_protocol_is_an_error(name, border, message):
  hr = HR[:, :16, :16]
  with pytest.raises(UserError, match=message):
    run([name], hr[None] / 255, batch_of(hr), PROTOCOL._replace(border=border))


def test_class_metrics_count_right_answers_and_different_classes():
  # Three samples of three inputs whose classes are 0, 2 and 1.
  predicted = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 2]])
  probabilities = 0.8 * np.eye(3)[predicted] + 0.1 * (1 - np.eye(3)[predicted])
  found = class_metrics(jnp.asarray(probabilities), jnp.array([0, 2, 1]))
  expected = {
    "class_best": [1, 0, 1],
    "class_mean": [2 / 3, 0, 1 / 3],
    "class_probability": [(0.8 + 0.1 + 0.8) / 3, 0.1, (0.8 + 0.1 + 0.1) / 3],
    "classes": [2, 1, 3],
    "one_class": [0, 1, 0],
    "two_classes": [1, 1, 0],
  }
  assert found.keys() == expected.keys()
  for name, values in expected.items():
    np.testing.assert_allclose(found[name], values, rtol=1e-5)
