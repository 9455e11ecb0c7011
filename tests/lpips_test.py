"""LPIPS from plain weight files, against the same network written with SciPy.

On real images and weights it is what PyTorch 2.13.0 gives with the architecture of torchvision's SqueezeNet
1.1 and LPIPS's heads v0.1: 0.326166 for a part of scikit-image's astronaut and its enlargement from a quarter
of the size, 0.172590 for a part of coffee with uniform noise of +-20 levels (both to six digits). AlexNet and
VGG-16 of random weights with the same heads: 0.0092786 and 0.0289747 for a part of astronaut with Gaussian
noise, in PyTorch 2.13.0 and here (seven digits).
"""

import hashlib
import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from numpy.lib.stride_tricks import sliding_window_view

import small_runs
from sr_jax.configs import base
from sr_jax.errors import UserError
from sr_jax.images import save_png, save_samples
from sr_jax.metrics import METRICS, Protocol, measure, read_weights
from sr_jax.metrics.diversity import diversity_scores
from sr_jax.metrics.lpips import lpips_distance, read_lpips
from sr_jax.ops import Operator, quantise
from sr_jax.report.tables import read_per_image
from sr_jax.score import default_config, score

HEADS = (64, 128, 256, 384, 384, 512, 512)
NAMES = ("lpips", "lpips_diversity")


@pytest.fixture(scope="module")
def arrays():
  """Random weights under the names of both files."""
  rng = np.random.default_rng(0)
  backbone = small_runs.squeezenet(rng)
  heads = {
    f"v0.1/squeeze/lin{i}.model.1.weight": rng.random((1, width, 1, 1)).astype(np.float32)
    for i, width in enumerate(HEADS)
  }
  return backbone, heads


@pytest.fixture(scope="module")
def keys(arrays, tmp_path_factory) -> ConfigDict:
  folder = tmp_path_factory.mktemp("nets")
  keys = base.get_config().eval
  for name, content in zip(("backbone", "heads"), arrays, strict=True):
    np.savez(folder / f"{name}.npz", **content)
    keys.lpips[name] = str(folder / f"{name}.npz")
    keys.lpips[f"{name}_sha256"] = hashlib.sha256((folder / f"{name}.npz").read_bytes()).hexdigest()
  keys.metrics = NAMES
  return keys


def conv(weights, x, layer, pad=0, stride=1):
  """A convolution and its ReLU, plane by plane: [C, H, W] -> [O, h, w]."""
  kernels, biases = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
  x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
  windows = sliding_window_view(x, kernels.shape[2:], axis=(1, 2))
  out = np.tensordot(kernels, windows, axes=((1, 2, 3), (0, 3, 4))) + biases[:, None, None]
  return np.maximum(out[:, ::stride, ::stride], 0)


def pool(x, side, rounded=np.floor):
  """The largest of each window, two pixels apart; `rounded` up, the last one may stick out."""
  height, width = (int(rounded((length - side) / 2)) + 1 for length in x.shape[1:])
  windows = [
    [x[:, 2 * r : 2 * r + side, 2 * c : 2 * c + side].max(axis=(1, 2)) for c in range(width)]
    for r in range(height)
  ]
  return np.array(windows).transpose(2, 0, 1)


def squeeze(weights, x):
  x = conv(weights, x, "features.0", stride=2)
  found = [x]
  for i in small_runs.FIRES:
    if i in (3, 6, 9):
      x = pool(x, 3, np.ceil)
    x = conv(weights, x, f"features.{i}.squeeze")
    x = np.concatenate(
      [conv(weights, x, f"features.{i}.expand1x1"), conv(weights, x, f"features.{i}.expand3x3", pad=1)]
    )
    if i not in (3, 6):
      found.append(x)
  return found


def alex(weights, x):
  found = [conv(weights, x, "features.0", pad=2, stride=4)]
  found.append(conv(weights, pool(found[0], 3), "features.3", pad=2))
  found.append(conv(weights, pool(found[1], 3), "features.6", pad=1))
  found.append(conv(weights, found[2], "features.8", pad=1))
  return [*found, conv(weights, found[3], "features.10", pad=1)]


def vgg(weights, x):
  found = []
  for number in range(30):  # torchvision's: convolutions and ReLUs in turn, but for a pooling after a block
    if number in (4, 9, 16, 23):
      found.append(x)
      x = pool(x, 2)
    elif f"features.{number}.weight" in weights:
      x = conv(weights, x, f"features.{number}", pad=1)
  return [*found, x]


def layers(arrays, a: np.ndarray, b: np.ndarray, net=squeeze) -> list[np.ndarray]:
  """The distances [h, w] of each layer of two images [H, W, 3] in [0, 1], channel by channel."""
  backbone, heads = arrays

  def features(image):
    x = (2 * image - 1 - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
    return [f / (np.sqrt((f**2).sum(axis=0)) + 1e-10) for f in net(backbone, x.transpose(2, 0, 1))]

  found = []
  for i, (p, q) in enumerate(zip(features(a), features(b), strict=True)):
    head = heads[f"v0.1/{net.__name__}/lin{i}.model.1.weight"].reshape(-1, 1, 1)
    found.append((head * (p - q) ** 2).sum(axis=0))
  return found


def oracle(arrays, a: np.ndarray, b: np.ndarray) -> float:
  """LPIPS of two images [H, W, 3] in [0, 1]."""
  return sum(part.mean() for part in layers(arrays, a, b))


def enlarged(part: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """[h, w] at a larger size, interpolated between the centres of its pixels along each axis in turn."""
  for axis, length in enumerate(size):
    places = (np.arange(length) + 0.5) * part.shape[axis] / length - 0.5
    part = np.apply_along_axis(lambda v, x=places: np.interp(x, np.arange(len(v)), v), axis, part)
  return part


def measured(keys, samples, hr):
  protocol = Protocol(Operator(factor=(1, 1)), 1, "bt601")
  batch = {"hr": jnp.asarray(hr), "lr": jnp.asarray(hr)}
  return measure(NAMES, jnp.asarray(samples), batch, protocol, read_weights(NAMES, keys))


def test_lpips_and_its_diversity_are_those_of_the_network_written_out(arrays, keys):
  rng = np.random.default_rng(1)
  hr = rng.random((1, 20, 21, 3), np.float32)
  samples = np.clip(hr + rng.normal(size=(2, 1, 20, 21, 3)) * 0.3, 0, 1).astype(np.float32)
  found = measured(keys, samples, hr)
  files = np.asarray(quantise(samples))[:, :, 1:-1, 1:-1]
  values = np.array([[oracle(arrays, files[s, 0], hr[0, 1:-1, 1:-1])] for s in range(2)])
  np.testing.assert_allclose(found["lpips"], values.mean(axis=0), rtol=1e-4)
  np.testing.assert_allclose(found["lpips/best"], values.min(axis=0), rtol=1e-4)
  between = oracle(arrays, files[0, 0], files[1, 0])
  np.testing.assert_allclose(found["lpips_diversity"], between, rtol=1e-4)


@pytest.mark.parametrize(
  ("net", "kernels", "compared", "size"),
  [
    (alex, {0: 11, 3: 5, 6: 3, 8: 3, 10: 3}, (0, 3, 6, 8, 10), (31, 36)),
    (
      vgg,
      dict.fromkeys((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), 3),
      (2, 7, 14, 21, 28),
      (16, 33),
    ),
  ],
)
def test_lpips_of_alexnet_and_vgg_is_that_of_the_networks_written_out(net, kernels, compared, size, tmp_path):
  """Of narrow ones with random weights, to which another width would be an error."""
  rng = np.random.default_rng(0)
  backbone, heads, inputs = {}, {}, 3
  for i, side in kernels.items():
    outputs = 3 + i % 4
    kernel = rng.normal(size=(outputs, inputs, side, side)) / np.sqrt(inputs * side**2)
    backbone |= {f"features.{i}.weight": kernel, f"features.{i}.bias": 0.1 * rng.normal(size=outputs)}
    if i in compared:
      heads[f"v0.1/{net.__name__}/lin{compared.index(i)}.model.1.weight"] = rng.random((1, outputs, 1, 1))
    inputs = outputs
  settings = base.get_config().eval
  settings.lpips.net = net.__name__
  for name, content in (("backbone", backbone), ("heads", heads)):
    np.savez(tmp_path / f"{name}.npz", **content)
    settings.lpips[name] = str(tmp_path / f"{name}.npz")
  a, b = rng.random((2, *size, 3))
  found = lpips_distance(read_lpips(settings), a[None], b[None])
  np.testing.assert_allclose(
    found, sum(part.mean() for part in layers((backbone, heads), a, b, net)), rtol=1e-4
  )


def test_a_score_is_of_the_sum_of_the_enlarged_layers(arrays, keys, tmp_path):
  rng = np.random.default_rng(4)
  truth, noise = rng.integers(40, 216, (20, 24, 3)), rng.integers(-40, 40, (2, 20, 24, 3))[::-1]
  (tmp_path / "truth").mkdir()
  (tmp_path / "samples").mkdir()
  save_png(tmp_path / "truth" / "a.png", truth.astype(np.uint8))
  save_samples(tmp_path / "samples", 0, (truth + noise).astype(np.uint8))
  config = default_config()
  config.eval.lpips = keys.lpips
  config.eval.metrics = ("psnr",)
  config.eval.data.dir = str(tmp_path / "truth")
  score(tmp_path / "samples", config, tmp_path)
  _, rows, _ = read_per_image(tmp_path / "evaluation")
  files = (truth + noise) / 255
  maps = np.array([sum(enlarged(v, (20, 24)) for v in layers(arrays, f, truth / 255)) for f in files])
  whole, local = maps.mean((1, 2)), maps.min(axis=0).mean()
  assert rows["samples"]["lpips_spatial"] == pytest.approx(whole.mean(), rel=1e-4)
  assert rows["samples, best of 2"]["lpips_spatial"] == pytest.approx(whole.min(), rel=1e-4)
  assert rows["samples"]["s_n"] == pytest.approx(100 * (1 - local / whole.min()), rel=1e-3)
  assert rows["samples"]["s_n"] > 1
  # The better of the first k, whichever comes first.
  firsts = json.loads((tmp_path / "evaluation" / "best.json").read_text())["rows"]
  best = [firsts[f"of the first {k}"]["lpips_spatial"] for k in (1, 2)]
  assert best == pytest.approx([whole[0], whole.min()], rel=1e-4)
  assert whole[0] < whole[1]


def test_the_metrics_of_maps_are_their_mean_and_their_diversity_score(monkeypatch):
  maps = jnp.asarray(np.random.default_rng(0).random((3, 2, 5, 4)), jnp.float32)
  monkeypatch.setattr(sys.modules["sr_jax.metrics.lpips"], "lpips_maps", lambda *_: maps)
  arguments = (None, {}, Protocol(Operator(), 0, "bt601"), {})
  np.testing.assert_allclose(METRICS["lpips_spatial"].fn(*arguments), maps.mean((2, 3)), rtol=1e-6)
  np.testing.assert_allclose(METRICS["s_n"].fn(*arguments), diversity_scores(maps)[2], rtol=1e-6)


def test_diversity_is_the_mean_over_all_pairs_of_samples(keys):
  hr = np.random.default_rng(2).random((1, 20, 21, 3), np.float32)
  samples = np.random.default_rng(3).random((3, 1, 20, 21, 3), np.float32)
  pairs = [measured(keys, samples[[i, j]], hr)["lpips_diversity"] for i, j in ((0, 1), (0, 2), (1, 2))]
  np.testing.assert_allclose(
    measured(keys, samples, hr)["lpips_diversity"], np.mean(pairs, axis=0), rtol=1e-5
  )


def test_an_image_is_at_no_distance_from_itself_and_one_sample_has_no_diversity(keys):
  hr = np.asarray(quantise(np.random.default_rng(0).random((1, 20, 20, 3))))
  found = measured(keys, hr[None], hr)
  np.testing.assert_allclose(found["lpips"], 0, atol=1e-6)
  assert found["lpips_diversity"] == 0


def test_missing_weights_other_digests_small_images_and_grey_ones_raise_one_sentence(keys, tmp_path):
  with pytest.raises(UserError, match=r"config\.eval\.lpips\.backbone is empty: name .*, or take lpips"):
    read_weights(NAMES, base.get_config().eval)
  for key, value, words in (
    ("heads", str(tmp_path / "gone.npz"), "does not exist"),
    ("heads", keys.lpips.backbone, "digest"),
    ("backbone_sha256", "0" * 64, "digest"),
    ("net", "vgg16", "did you mean|choose one"),
    ("net", "vgg", "lack 'features.2.weight'"),
  ):
    wrong = ConfigDict(keys.to_dict())
    wrong.lpips[key] = value
    with pytest.raises(UserError, match=words):
      read_weights(NAMES, wrong)
  wrong = ConfigDict(keys.to_dict())
  wrong.lpips.update({"heads": keys.lpips.backbone, "heads_sha256": ""})
  with pytest.raises(UserError, match="lack"):
    read_weights(NAMES, wrong)
  for shape, words in (((1, 18, 20, 3), "17x17"), ((1, 20, 20, 1), "RGB")):
    with pytest.raises(UserError, match=words):
      measured(keys, np.zeros((1, *shape)), np.zeros(shape))


def test_maps_are_of_the_images_without_their_border(keys):
  rng = np.random.default_rng(5)
  hr, samples = rng.random((1, 22, 24, 3), np.float32), rng.random((2, 1, 22, 24, 3), np.float32)
  weights = read_weights(("lpips_spatial",), keys)

  def spatial(samples, hr, border):
    batch = {"hr": jnp.asarray(hr), "lr": jnp.asarray(hr)}
    protocol = Protocol(Operator(factor=(1, 1)), border, "bt601")
    return measure(("lpips_spatial",), jnp.asarray(samples), batch, protocol, weights)["lpips_spatial"]

  cut = spatial(samples[:, :, 2:-2, 2:-2], hr[:, 2:-2, 2:-2], 0)
  np.testing.assert_allclose(spatial(samples, hr, 2), cut, rtol=1e-5)
