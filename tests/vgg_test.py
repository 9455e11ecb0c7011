"""VGG-19 features from narrow weight files in both public layouts."""

import hashlib
import zipfile
import zlib

import jax
import numpy as np
import pytest
from scipy.signal import correlate2d

from sr_jax import graft
from sr_jax.errors import UserError
from sr_jax.networks.vgg import load_vgg, vgg_features
from sr_jax.networks.weights import read_arrays

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
WIDTHS = {"conv1_1": 4, "conv1_2": 5, "conv2_1": 6, "conv2_2": 3, "conv3_1": 4}
# Where each layer is in the files.
TORCHVISION = dict(zip(WIDTHS, (0, 2, 5, 7, 10), strict=True))
NORMALISED = dict(zip(WIDTHS, (2, 5, 9, 12, 16), strict=True))


@pytest.fixture(scope="module")
def weights():
  """OIHW kernels and biases that expect (RGB - MEAN) / STD."""
  rng, width, result = np.random.default_rng(0), 3, {}
  for layer, out in WIDTHS.items():
    result[layer] = rng.normal(size=(out, width, 3, 3)) / np.sqrt(9 * width), rng.normal(size=out) / 10
    width = out
  return result


@pytest.fixture(scope="module")
def files(weights, tmp_path_factory):
  """The same network in both layouts."""
  folder = tmp_path_factory.mktemp("nets")
  torchvision: dict[str, np.ndarray] = {}
  # BGR * 255 - mean: the first kernel takes its channels the other way round, scaled.
  normalised = {"0.weight": (np.eye(3)[::-1] * 255)[..., None, None], "0.bias": -255 * MEAN[::-1]}
  for layer, (kernel, bias) in weights.items():
    turned = kernel[:, ::-1] / (255 * STD[::-1])[:, None, None] if layer == "conv1_1" else kernel
    a, b = f"features.{TORCHVISION[layer]}", f"{NORMALISED[layer]}"
    torchvision |= {f"{a}.weight": kernel, f"{a}.bias": bias}
    normalised |= {f"{b}.weight": turned, f"{b}.bias": bias}
  np.savez(folder / "torchvision.npz", **torchvision)
  np.savez(folder / "normalised.npz", **normalised)
  return folder


def oracle(weights, image, padding):
  """Pre-activations of one image [H, W, 3] up to conv3_1, channel by channel with scipy."""
  x, result = ((image - MEAN) / STD).transpose(2, 0, 1), {}
  for layer, (kernel, bias) in weights.items():
    if result:
      x = np.maximum(x, 0)
    if layer in ("conv2_1", "conv3_1"):
      rows, columns = x.shape[1] // 2, x.shape[2] // 2
      x = x[:, : 2 * rows, : 2 * columns].reshape(-1, rows, 2, columns, 2).max(axis=(2, 4))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="constant" if padding == "zero" else "reflect")
    x = np.stack(
      [
        sum(correlate2d(plane, k, "valid") for plane, k in zip(padded, ks, strict=True)) + b
        for ks, b in zip(kernel, bias, strict=True)
      ]
    )
    result[layer] = x.transpose(1, 2, 0)
  return result


@pytest.fixture(scope="module")
def images():
  return np.asarray(jax.random.uniform(jax.random.key(0), (2, 10, 13, 3)))


@pytest.mark.parametrize("padding", ["zero", "reflect"])
@pytest.mark.parametrize("layout", ["torchvision", "normalised"])
def test_features_are_pre_activations_in_the_order_asked(layout, padding, weights, files, images):
  layers = ("conv3_1", "conv1_2", "conv2_2")
  params = load_vgg(str(files / f"{layout}.npz"), layers)
  features = jax.jit(vgg_features, static_argnums=(2, 3))(params, images, layers, padding)
  for b in range(len(images)):
    expected = oracle(weights, images[b], padding)
    for layer, feature in zip(layers, features, strict=True):
      np.testing.assert_allclose(feature[b], expected[layer], atol=1e-5)
  assert all((feature < 0).any() for feature in features)


def test_both_layouts_become_one_tree_that_ends_at_the_deepest_layer(files):
  trees = [
    load_vgg(str(files / f"{name}.npz"), ("conv2_1", "conv1_1")) for name in ("torchvision", "normalised")
  ]
  shapes = [jax.tree.map(lambda a: (a.shape, a.dtype.name), tree) for tree in trees]
  assert shapes[0] == shapes[1]
  assert list(trees[0]) == ["preprocess", "conv1_1", "conv1_2", "conv2_1"]
  assert shapes[0]["conv2_1"]["kernel"] == ((3, 3, 5, 6), "float32")


def test_the_gradient_reaches_the_image(files, images):
  params = load_vgg(str(files / "torchvision.npz"), ("conv2_2",))
  gradient = jax.grad(lambda i: (vgg_features(params, i, ("conv2_2",))[0] ** 2).sum())(images)
  assert np.isfinite(gradient).all()
  assert (gradient != 0).mean() > 0.5


def test_the_place_may_be_an_environment_variable(files, monkeypatch):
  monkeypatch.setenv("NETS", str(files))
  digest = hashlib.sha256((files / "torchvision.npz").read_bytes()).hexdigest()
  assert "conv1_1" in load_vgg("$NETS/torchvision.npz", ("conv1_1",), digest)


def test_what_is_wrong_with_a_file_raises_one_sentence(files, tmp_path):
  torchvision = str(files / "torchvision.npz")
  (tmp_path / "text.npz").write_text("no archive")
  np.savez(tmp_path / "other.npz", weight=np.zeros(3))
  complaints = {
    (str(tmp_path / "missing.npz"), ("conv1_1",), ""): "missing.npz, which does not exist",
    (str(tmp_path / "text.npz"), ("conv1_1",), ""): "text.npz is no .npz file",
    (str(tmp_path / "other.npz"), ("conv1_1",), ""): "other.npz has neither",
    (torchvision, ("conv1_1",), "0" * 64): "has the SHA-256 digest",
    (torchvision, ("conv4_4",), ""): "does not hold the layer conv3_2",
    (torchvision, ("conv2_3",), ""): "'conv2_3', which does not exist",
  }
  for arguments, complaint in complaints.items():
    with pytest.raises(UserError) as error:
      load_vgg(*arguments)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_padding_raises_a_user_error(files, images):
  with pytest.raises(UserError, match="'same'"):
    vgg_features(load_vgg(str(files / "torchvision.npz"), ("conv1_1",)), images, ("conv1_1",), "same")


@pytest.mark.parametrize("read", [lambda file: read_arrays(file, "key", ""), graft.read_file])
def test_weights_whose_bytes_were_changed_raise_one_sentence(tmp_path, read):
  file = tmp_path / "weights.npz"
  np.savez_compressed(file, **{"params/a": np.arange(999.0), "params/b": np.ones(999)})
  whole = file.read_bytes()
  read(str(file))
  kinds = set()
  for at in range(0, len(whole), 7):
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :])
    try:
      read(str(file))
    except UserError as error:
      kinds.add(type(error.__cause__.__cause__))  # of what told the reader of .npz files
  assert {zlib.error, zipfile.BadZipFile} <= kinds
