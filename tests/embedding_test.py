"""A network of the user's as a metric."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr_jax.configs import base
from sr_jax.errors import UserError
from sr_jax.metrics import Protocol, measure, read_weights
from sr_jax.ops import Operator, quantise

NAMES = ("embedding",)


def embed(arrays, images):
  """What a user's package might have."""
  return images.mean((1, 2)) @ arrays["matrix"]


@pytest.fixture
def settings(tmp_path):
  settings = base.get_config().eval
  path = tmp_path / "faces.npz"
  np.savez(path, matrix=np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32))
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  settings.embedding.update({"function": "embedding_test:embed", "file": str(path), "sha256": digest})
  return settings


def test_an_embedding_is_compared_by_its_angle_in_what_a_file_would_hold(settings):
  rng = np.random.default_rng(1)
  hr = np.asarray(quantise(rng.random((2, 6, 7, 3), np.float32)))
  samples = jnp.asarray(rng.normal(0.5, 0.5, (3, 2, 6, 7, 3)), jnp.float32)
  weights = read_weights(NAMES, settings)
  protocol = Protocol(Operator(factor=(1, 1)), 1, "bt601")
  found = measure(NAMES, samples, {"hr": hr, "lr": hr}, protocol, weights)
  matrix = np.load(settings.embedding.file)["matrix"]
  cut = np.asarray(quantise(jnp.concatenate([hr[None], samples])))[:, :, 1:-1, 1:-1].astype(float)
  truth, *drawn = cut.mean((2, 3)) @ matrix
  lengths = [np.linalg.norm(one, axis=-1) for one in (truth, *drawn)]
  values = np.array(
    [1 - (truth * one).sum(-1) / lengths[0] / length for one, length in zip(drawn, lengths[1:], strict=True)]
  )
  np.testing.assert_allclose(found["embedding"], values.mean(0), atol=1e-5)
  np.testing.assert_allclose(found["embedding/best"], values.min(0), atol=1e-5)


@pytest.mark.parametrize(
  ("key", "value", "words"),
  [
    ("function", "", "sees by a network that you give"),
    ("function", "embedding_test:nothing", "has no 'nothing'"),
    ("file", "", r"config\.eval\.embedding\.file is empty"),
    ("function", "embedding_test:NAMES", "is no function"),
    ("sha256", "0" * 64, "digest"),
  ],
)
def test_without_a_network_or_its_own_file_the_metric_raises_one_sentence(settings, key, value, words):
  settings.embedding[key] = value
  with pytest.raises(UserError, match=words):
    read_weights(NAMES, settings)


@pytest.mark.parametrize(
  ("function", "words"),
  [
    (lambda arrays, images: images @ arrays["other"], "lacks 'other'"),
    (lambda arrays, images: images.mean((1, 2, 3)), r"returns \[2\] for 2 images"),
  ],
)
def test_a_function_that_asks_for_or_returns_something_else_raises_one_sentence(function, words):
  hr = np.zeros((2, 6, 7, 3), np.float32)
  weights = {"embedding": jax.tree_util.Partial(function, {})}
  with pytest.raises(UserError, match=words):
    measure(NAMES, hr[None], {"hr": hr, "lr": hr}, Protocol(Operator(factor=(1, 1)), 1, "bt601"), weights)
