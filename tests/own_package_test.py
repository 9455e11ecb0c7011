"""A method, a network, a metric, a baseline and a kernel of somebody else's package, used by their names."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

import small_runs
from sr_jax import cli
from sr_jax.run import load_run

# Heteroscedastic regression: a network with two outputs, the mean and the scale of a Laplace distribution.
METHOD = '''
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.tree_util import Partial

from sr_jax.method import Method, descend, first_state, optimiser
from sr_jax.metrics import Metric
from sr_jax.networks import eval_pass, init, make_network, train_pass
from sr_jax.ops import to_float
from sr_jax.ops.resize import resize


class TwoOutputs(nn.Module):
  """x [B, h, w, C] -> mean and log scale [B, H, W, C]."""

  factor: tuple[int, int]
  channels: int
  width: int = 8

  @nn.compact
  def __call__(self, x, train):
    enlarged = resize(x, (x.shape[1] * self.factor[0], x.shape[2] * self.factor[1]))
    h = nn.relu(nn.Conv(self.width, (3, 3))(enlarged))
    mean, log_scale = jnp.split(nn.Conv(2 * self.channels, (3, 3))(h), 2, axis=-1)
    return enlarged + mean, log_scale


def laplace(config, operator):
  net = make_network(config, "generator")
  tx = optimiser(config.optim, "generator", config.train.rounds)

  def losses(output, batch):
    mean, log_scale = output
    scale = jnp.exp(log_scale) + config.method.floor
    return (jnp.abs(to_float(batch["hr"]) - mean) / scale + jnp.log(2 * scale)).mean(axis=(1, 2, 3))

  def first(key, batch):
    return first_state({"generator": init(net, key, operator.lr(batch))}, {"generator": tx})

  def step(state, batch, key):
    def loss_fn(params):
      output, stats = train_pass(net, params, state.stats["generator"], operator.lr(batch))
      return losses(output, batch).mean(), (stats, {})

    return descend(state, "generator", loss_fn, tx)

  def predict(state, x):
    return eval_pass(net, state.params["generator"], state.stats["generator"], x)

  def objective(state, batch, key):
    return {"nll": losses(predict(state, operator.lr(batch)), batch)}

  def sample(state, lr, key, *, n, temperature=1.0):
    mean, log_scale = predict(state, lr)
    noise = jax.random.laplace(key, (n, *mean.shape))
    return mean + temperature * jnp.exp(log_scale) * noise

  return Method(first, step, objective, sample)


def _scaled(samples, batch, protocol, weight):
  return weight * jnp.abs(samples - batch["hr"]).mean(axis=(-3, -2, -1))


scaled_error = Metric(_scaled, "lower", ".3f", lambda keys: jnp.float32(255))


def black(operator, config):
  return Partial(lambda lr, key, n: jnp.zeros((n, *operator.hr_shape(lr.shape))))


def nearest_kernel(n_in, n_out):
  import numpy as np

  return (np.arange(n_out) * n_in // n_out)[:, None], np.ones((n_out, 1))


def short_kernel(n_in, n_out):
  return [[0]], [[1.0]] * n_out
'''

CONFIG = """
from sr_jax.configs import base, derive


def get_config(variant="laplace"):
  config = base.get_config(
    {
      "method": {"name": "outside.laplace:laplace", "floor": 1e-2},
      "networks": {"generator": {"name": "outside.laplace:TwoOutputs", "width": 4}},
    }
  )
  config.operator.update({"kernel": "outside.laplace:nearest_kernel", "factor": (2, 2)})
  config.data.update({"name": "folder", "dir": "$OUTSIDE_IMAGES", "crop": (8, 8)})
  config.eval.data.update({"name": "folder", "dir": "$OUTSIDE_IMAGES"})
  config.eval.update({"samples": 2, "border": 2, "images": 1, "limit": 2})
  config.eval.metrics = ("psnr", "outside.laplace:scaled_error")
  config.eval.baselines = ("bicubic", "outside.laplace:black")
  config.train.update({"batch": 4, "rounds": 3})
  if variant == "staged":
    derive.add_stage(config, "narrow", method={"floor": 0.5}, train={"rounds": 2})
    config.init_from = ("generator=narrow",)
  return config


def sweep():
  yield from derive.grid({"method.floor": (0.01, 0.1), "seed": (0, 1)}, row="Laplace")
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
  """A folder with the package `outside` and its config, which the interpreter finds."""
  folder = tmp_path_factory.mktemp("elsewhere")
  (folder / "outside").mkdir()
  (folder / "outside" / "__init__.py").write_text("")
  (folder / "outside" / "laplace.py").write_text(METHOD)
  (folder / "config.py").write_text(CONFIG)
  images = small_runs.write_images(folder / "images", 4)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("OUTSIDE_IMAGES", str(images))
    patch.syspath_prepend(str(folder))
    yield folder
  for name in [name for name in sys.modules if name.startswith("outside")]:
    del sys.modules[name]


def rows(folder, name="evaluation/table.json"):
  return json.loads((folder / name).read_text())["rows"]


def test_a_method_network_metric_baseline_and_kernel_outside_the_package_are_trained_measured_and_drawn_from(
  outside, tmp_path, capsys
):
  run = tmp_path / "run"
  assert cli.main(["train", "--config", str(outside / "config.py"), "--workdir", str(run)]) == 0
  table = rows(run)
  assert list(table) == ["bicubic", "black", "laplace", "laplace, best of 2", "laplace, mean of 2"]
  assert table["laplace"].keys() == {"psnr", "scaled_error", "loss_nll"}
  assert table["black"]["scaled_error"] > table["bicubic"]["scaled_error"] > 0.5, "the weight of 255 counts"
  assert load_run(run).config.networks.generator.width == 4
  assert cli.main(["evaluate", "--workdir", str(run), "--out", str(tmp_path), "--config.eval.samples=1"]) == 0
  assert rows(tmp_path)["bicubic"] == table["bicubic"]
  photo = outside / "images" / "0.png"
  assert cli.main(["upscale", str(photo), "--workdir", str(run), "--out", str(tmp_path), "--samples=2"]) == 0
  drawn = [np.asarray(Image.open(tmp_path / f"0_x2_{i}.png")) for i in range(2)]
  assert not np.array_equal(*drawn)
  capsys.readouterr()


def test_a_sweep_finds_them_and_a_grid_gives_each_combination_its_folder(outside, tmp_path, capsys):
  words = ["sweep", "--config", str(outside / "config.py"), "--workdir", str(tmp_path)]
  assert cli.main([*words, "--config.train.rounds=1"]) == 0
  table = rows(tmp_path, "sweep.json")
  kinds = [kind + spread for kind in ("", ", best of 2", ", mean of 2") for spread in ("", ", +- over 2")]
  ours = [f"Laplace, floor {floor}{kind}" for floor in (0.01, 0.1) for kind in kinds]
  assert list(table) == ["bicubic", "black", *ours]
  folders = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
  assert folders == [f"Laplace--floor-{floor}_seed={seed}" for floor in (0.01, 0.1) for seed in (0, 1)]
  assert load_run(tmp_path / "Laplace--floor-0.1_seed=1").config.method.floor == 0.1
  capsys.readouterr()


def test_a_stage_of_such_a_method_has_its_own_keys(outside, tmp_path, capsys):
  assert cli.main(["train", f"--config={outside / 'config.py'}:staged", f"--workdir={tmp_path}"]) == 0
  assert load_run(tmp_path / "narrow").config.method.floor == 0.5
  assert load_run(tmp_path).config.method.floor == 0.01
  capsys.readouterr()


@pytest.mark.parametrize(
  ("old", "new", "words"),
  [
    ("outside.laplace:laplace", "outside.laplac:laplace", "no module 'outside.laplac'"),
    ("outside.laplace:TwoOutputs", "outside.laplace:TwoOutput", "has no 'TwoOutput'"),
    ('"width": 4', '"width": 4, "depth": 2', "unexpected keyword argument 'depth'"),
    ("outside.laplace:scaled_error", "outside.laplace:black", "no sr_jax.metrics.Metric"),
    ("outside.laplace:black", "sys:path", "'sys:path', which is no function"),
    ("outside.laplace:nearest_kernel", "sys:path", "'sys:path', which is no function"),
    ("outside.laplace:nearest_kernel", "json:JSONDecoder", "return positions and weights"),
    ("outside.laplace:nearest_kernel", "outside.laplace:short_kernel", "positions (1, 1), weights (4, 1)"),
  ],
)
def test_a_name_that_leads_nowhere_raises_one_sentence(outside, tmp_path, capsys, old, new, words):
  (tmp_path / "config.py").write_text(CONFIG.replace(old, new))
  command = ["train", "--config", str(tmp_path / "config.py"), "--workdir", str(tmp_path / "run")]
  assert cli.main(command) == 2
  (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("sr-jax:")]
  assert words in line
  assert not (tmp_path / "run").exists()
