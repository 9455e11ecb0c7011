"""The loop: stopped, killed and resumed runs equal those that were not; what goes wrong is said."""

import contextlib
import gc
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import small_runs
from sr_jax import config as configs
from sr_jax import parallel
from sr_jax import train as training
from sr_jax.checkpoint import Checkpoints
from sr_jax.config import from_json
from sr_jax.configs import amap_swiss_roll, base
from sr_jax.errors import Diverged, UserError
from sr_jax.evaluate import evaluate_run
from sr_jax.images import SAME_IMAGE
from sr_jax.methods import make_method
from sr_jax.ops import make_operator
from sr_jax.report.log import read_history
from sr_jax.report.tables import read_per_image
from sr_jax.run import load_run
from sr_jax.stages import facts
from sr_jax.train import train

CONFIG = str(Path(__file__).with_name("small_runs.py"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
  folder = small_runs.write_images(tmp_path_factory.mktemp("data") / "images")
  os.environ["SR_JAX_TRAIN_DIR"] = str(folder)
  yield folder
  del os.environ["SR_JAX_TRAIN_DIR"]


@pytest.fixture(scope="module")
def uninterrupted(images, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("whole")
  return workdir, jax.device_get(train(small_runs.get_config().lock(), workdir).state)


def assert_same(a, b):
  leaves = zip(jax.tree.leaves(jax.device_get(a)), jax.tree.leaves(jax.device_get(b)), strict=True)
  assert all(np.array_equal(x, y) for x, y in leaves)


def command(workdir, *more: str) -> list[str]:
  return [sys.executable, "-m", "sr_jax.cli", "train", "--config", CONFIG, "--workdir", str(workdir), *more]


def wait_for(path: Path, process: subprocess.Popen) -> None:
  deadline = time.monotonic() + 120
  while not path.exists():
    assert process.poll() is None, "the run ended before it was to be stopped"
    assert time.monotonic() < deadline
    time.sleep(0.05)


def test_a_resumed_run_equals_the_uninterrupted_one(uninterrupted, tmp_path):
  """Stopped in the middle of a pool, with chosen codes that only the checkpoint remembers."""
  config = small_runs.get_config()
  config.train.rounds = 17
  train(config.lock(), tmp_path)
  assert_same(train(small_runs.get_config().lock(), tmp_path).state, uninterrupted[1])


def test_a_killed_run_resumes_to_the_same_state(uninterrupted, tmp_path):
  process = subprocess.Popen(command(tmp_path), stderr=subprocess.PIPE)
  wait_for(tmp_path / "checkpoints" / "8", process)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert_same(train(small_runs.get_config().lock(), tmp_path).state, uninterrupted[1])


def test_a_training_goes_on_on_another_number_of_devices(images, tmp_path, monkeypatch):
  """With plain gradient descent, which magnifies no rounding; four devices, then two."""
  config = small_runs.get_config()
  config.optim.generator.update({"name": "sgd", "learning_rate": 1e-5})
  config.train.rounds = 7
  train(config, tmp_path / "resumed")
  config.train.rounds = 12
  whole = jax.device_get(train(config, tmp_path / "whole").state)
  make_mesh = parallel.make_mesh
  monkeypatch.setattr(parallel, "make_mesh", lambda devices=None: make_mesh(devices or jax.devices()[:2]))
  resumed = train(config, tmp_path / "resumed").state
  assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(resumed)} == {2}
  for a, b in zip(jax.tree.leaves(jax.device_get(resumed)), jax.tree.leaves(whole), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_sigterm_saves_and_says_how_to_go_on(uninterrupted, tmp_path):
  process = subprocess.Popen(
    command(tmp_path, "--config.train.rounds=100000"),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  wait_for(tmp_path / "checkpoints" / "8", process)
  process.send_signal(signal.SIGTERM)
  output, errors = process.communicate(timeout=120)
  assert process.returncode == 143, errors
  assert "the same command goes on" in output
  stopped = int(output.split("round ")[1].split()[0])
  assert (tmp_path / "checkpoints" / str(stopped)).is_dir()


def test_two_processes_train_what_one_trains(images, tmp_path):
  """With plain gradient descent, which hides no wrong factor; each process has one device."""
  keys = ["--config.optim.generator.name=sgd", "--config.optim.generator.learning_rate=1e-5"]
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    address = f"localhost:{probe.getsockname()[1]}"
  environment = os.environ | small_runs.ONE_DEVICE | {"SR_JAX_TRAIN_DIR": str(images)}
  two = [
    subprocess.Popen(
      command(tmp_path / "two", *keys, "--distributed", f"{address},{number},2"),
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in range(2)
  ]
  try:
    tables, errors = zip(*(process.communicate(timeout=240) for process in two), strict=True)
  finally:
    for process in two:
      process.kill()  # JAX catches SIGTERM
  assert [process.returncode for process in two] == [0, 0], errors
  config = small_runs.get_config()
  config.optim.generator.update({"name": "sgd", "learning_rate": 1e-5})
  one = train(config.lock(), tmp_path / "one")
  for a, b in zip(jax.tree.leaves(load_run(tmp_path / "two").state), jax.tree.leaves(one.state), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
  saved = (tmp_path / "two" / "evaluation" / "table.json").read_text()
  evaluate_run(one, tmp_path / "one")
  alone = json.loads((tmp_path / "one" / "evaluation" / "table.json").read_text())["rows"]
  for row, values in json.loads(saved)["rows"].items():
    assert small_runs.same_numbers(values, alone[row]), (row, values, alone[row])
  (names, ours, fingerprints), (_, theirs, alike) = (
    read_per_image(tmp_path / name / "evaluation") for name in ("two", "one")
  )
  for kind in ("truth", "input"):
    np.testing.assert_allclose(fingerprints[kind], alike[kind], atol=SAME_IMAGE)
  assert names == [f"{i}.png" for i in range(6)]
  for row, values in theirs.items():
    np.testing.assert_allclose(ours[row]["psnr"], values["psnr"], rtol=1e-3)
  assert "bicubic" in tables[0]


def test_metrics_are_written_once_a_round_also_after_a_resume(uninterrupted, tmp_path):
  config = small_runs.get_config()
  config.train.rounds = 10
  train(config.lock(), tmp_path)
  train(small_runs.get_config().lock(), tmp_path)
  for workdir in (tmp_path, uninterrupted[0]):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["step"] % 5 == 0] == [5, 10, 15, 20]
    assert all(np.isfinite(line["loss"]) for line in lines)
  assert list((tmp_path / "events").iterdir())


def test_a_loss_that_is_not_finite_ends_the_run_and_is_not_saved(images, tmp_path):
  config = small_runs.get_config()
  config.optim.generator.update({"name": "sgd", "learning_rate": 1e30})
  with pytest.raises(
    UserError, match=r"(loss|gradient_norm) is (nan|inf) at round 4, whose state was not saved"
  ):
    train(config.lock(), tmp_path)
  assert not (tmp_path / "checkpoints").exists()


def test_a_state_that_is_not_finite_is_not_saved_and_the_last_good_checkpoint_is_named(images, tmp_path):
  """The first update has a rate of 0, the second one of 5e37: its loss is finite, what it leaves is not."""
  config = base.get_config("regression", generator="convnet")
  config.networks.generator.update({"widths": (4,), "scale": 1000.0})
  config.data.update({"name": "folder", "dir": str(images), "crop": (16, 16)})
  config.train.update({"batch": 4, "rounds": 2, "checkpoint_every": 1})
  config.optim.generator.update({"name": "sgd", "learning_rate": 1e38, "warmup": 2})
  config.optim.generator.schedule = "constant"
  with pytest.raises(Diverged, match=r"params.* is not finite and was not saved; the checkpoint of round 1"):
    train(config.lock(), tmp_path)
  assert int(load_run(tmp_path).state.step) == 1


def test_two_trainings_in_one_workdir_raise_a_user_error_and_the_lock_ends_with_the_first(
  uninterrupted, tmp_path
):
  shutil.copytree(uninterrupted[0], tmp_path, dirs_exist_ok=True)
  with Checkpoints(tmp_path, create=True, lock=True):
    with pytest.raises(UserError, match="Another training is working in"):
      train(small_runs.get_config().lock(), tmp_path)
    assert int(load_run(tmp_path).state.step) == 20, "others may read"
  train(small_runs.get_config().lock(), tmp_path)
  assert not (tmp_path / ".lock").exists()


def test_a_run_says_what_made_it(uninterrupted, tmp_path):
  workdir = uninterrupted[0]
  assert from_json((workdir / "config.json").read_text()) == load_run(workdir).config
  (part,) = json.loads((workdir / "versions.json").read_text())
  assert part["after_round"] == 0
  assert part["jax"] == jax.__version__
  text = repr(load_run(workdir))
  assert "\n" not in text
  assert len(text) < 300
  assert "srim" in text
  config = small_runs.get_config()
  config.train.rounds = 10
  train(config.lock(), tmp_path)
  train(small_runs.get_config().lock(), tmp_path)
  parts = json.loads((tmp_path / "versions.json").read_text())
  assert [part["after_round"] for part in parts] == [0, 10]


def test_a_run_that_goes_on_with_other_images_says_so(tmp_path, caplog):
  folder = small_runs.write_images(tmp_path / "images", 4)
  config = small_runs.get_config()
  config.data.update({"name": "folder", "dir": str(folder)})

  def told(rounds: int) -> str:
    caplog.clear()
    config.train.rounds = rounds
    with caplog.at_level("WARNING", "sr_jax"):
      train(config.lock(), tmp_path / "run")
    return caplog.text

  assert not told(2)
  assert not told(4)
  shutil.copy(folder / "0.png", folder / "4.png")
  assert "this is another run: 4 images" in told(6)
  assert not told(8)
  parts = json.loads((tmp_path / "run" / "versions.json").read_text())
  assert [part["images"].split(",")[0] for part in parts] == ["4 images"] * 2 + ["5 images"] * 2


def test_a_checkpoint_of_another_shape_raises_one_sentence(uninterrupted):
  config = small_runs.get_config()
  config.networks.generator.width = 9
  with pytest.raises(UserError, match=r"does not fit the config: .*float32\[.*8\].* there"):
    train(config.lock(), uninterrupted[0])


def test_a_run_does_not_go_on_under_another_config(uninterrupted):
  config = small_runs.get_config()
  config.train.rounds = 30  # a longer run, measured otherwise, is still this run
  config.eval.samples = 1
  config.optim.generator.learning_rate = 1e-3
  with pytest.raises(
    UserError, match=r"config\.optim\.generator\.learning_rate is 0\.0001 there and 0\.001 here"
  ):
    train(config.lock(), uninterrupted[0])
  config = small_runs.get_config()
  config.train.rounds = 19
  with pytest.raises(UserError, match=r"a run of 20 rounds, but config\.train\.rounds is 19"):
    train(config.lock(), uninterrupted[0])


def test_a_damaged_checkpoint_of_a_later_round_does_not_stop_saving(uninterrupted, tmp_path):
  shutil.copytree(uninterrupted[0], tmp_path, dirs_exist_ok=True)
  empty(tmp_path / "checkpoints" / "20")
  config = small_runs.get_config()
  config.train.rounds = 18
  train(config.lock(), tmp_path)
  assert int(load_run(tmp_path).state.step) == 18


def test_a_checkpoint_of_another_method_raises_one_sentence(uninterrupted, images):
  config = base.get_config("regression")
  config.data.update(small_runs.get_config().data)
  with pytest.raises(UserError, match="of method 'srim', not 'regression'"):
    train(config.lock(), uninterrupted[0])


def cut(checkpoint: Path) -> None:
  """Half of every data file."""
  for path in (checkpoint / "state").rglob("*"):
    if path.is_file() and path.parent.name == "d":
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change(checkpoint: Path) -> None:
  """What a flipped bit does: the numbers are others than those of the digest."""
  shutil.rmtree(checkpoint / "state")
  shutil.copytree(checkpoint.with_name("16") / "state", checkpoint / "state")


def empty(checkpoint: Path) -> None:
  shutil.rmtree(checkpoint)
  checkpoint.mkdir()


def flip(path: Path, draw: random.Random) -> None:
  """One bit of a file."""
  data = bytearray(path.read_bytes())
  data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
  path.write_bytes(bytes(data))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_bit_flipped_in_any_file_of_a_checkpoint_is_harmless_or_noticed(uninterrupted, tmp_path):
  files = [p.relative_to(uninterrupted[0]) for p in (uninterrupted[0] / "checkpoints" / "20").rglob("*")]
  files = [path for path in files if (uninterrupted[0] / path).is_file()]
  metadata = [path for path in files if "about" in path.parts]
  assert metadata
  for seed, path in enumerate([*files, *metadata * 4]):
    shutil.rmtree(tmp_path)
    shutil.copytree(uninterrupted[0], tmp_path)
    flip(tmp_path / path, random.Random(seed))
    run = load_run(tmp_path)
    if int(run.state.step) == 20:
      assert_same(run.state, uninterrupted[1])
    assert run.config == load_run(uninterrupted[0]).config, path
  gc.collect()  # what Orbax left unread, while its warnings are ignored


# Orbax leaves the other reads of a failed restore to an event loop that is closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("harm", [cut, change, empty])
def test_a_damaged_checkpoint_is_passed_over_and_replaced(uninterrupted, tmp_path, caplog, harm):
  shutil.copytree(uninterrupted[0], tmp_path, dirs_exist_ok=True)
  harm(tmp_path / "checkpoints" / "20")
  assert int(load_run(tmp_path).state.step) == 16
  assert "Checkpoint 20" in caplog.text
  gc.collect()
  train(small_runs.get_config().lock(), tmp_path)
  assert_same(load_run(tmp_path).state, uninterrupted[1])


def test_a_folder_without_a_run_raises_one_sentence(tmp_path):
  with pytest.raises(UserError, match="holds no checkpoints"):
    Checkpoints(tmp_path / "nothing")
  assert not (tmp_path / "nothing").exists()


def roll(**keys):
  """A run of a few rounds that compiles fast."""
  config = amap_swiss_roll.get_config("mse")
  config.networks.generator.widths = (8,)
  config.train.update({"rounds": 4, "batch": 20, "log_every": 1, "checkpoint_every": 1, **keys})
  config.optim.generator.schedule = "constant"
  return config


def noted(seen: list, function, key: str):
  """The function, which notes its argument of that name, or else its last one."""

  def call(*arguments, **keys):
    seen.append(keys.get(key, arguments[-1]))
    return function(*arguments, **keys)

  return call


def test_the_seed_is_that_of_the_images_the_start_and_the_rounds(tmp_path, monkeypatch):
  seen = []
  monkeypatch.setattr(training, "train_batches", noted(seen, training.train_batches, "seed"))
  for name in ("compile_init", "compile_step"):
    monkeypatch.setattr(parallel, name, noted(seen, getattr(parallel, name), "seed"))
  config = roll(rounds=1)
  config.seed = 5
  train(config.lock(), tmp_path)
  assert seen == [5] * 3


def test_weights_that_a_method_reads_are_in_the_run_that_begins(tmp_path, monkeypatch):
  def reading(config, operator):
    method = make_method(config, operator)
    zeros = {"hr": jnp.zeros((20, 1, 2, 1)), "index": jnp.arange(20)}
    shapes = jax.eval_shape(method.init, jax.random.key(0), zeros).params["generator"]
    halves = jax.tree.map(lambda s: np.full(s.shape, 0.5, s.dtype), shapes)
    return method._replace(weights={"generator": lambda: halves})

  monkeypatch.setattr(training, "make_method", reading)
  config = roll(rounds=1)
  config.optim.generator.learning_rate = 0.0
  state = jax.device_get(train(config.lock(), tmp_path).state)
  assert all((leaf == 0.5).all() for leaf in jax.tree.leaves(state.params["generator"]))


def test_a_batch_is_kept_for_the_rounds_that_its_method_says(images, tmp_path, monkeypatch):
  compile_step, seen = parallel.compile_step, []

  def watched(*arguments):
    step = compile_step(*arguments)

    def call(state, batch):
      seen.append(batch["index"])
      return step(state, batch)

    return call

  monkeypatch.setattr(parallel, "compile_step", watched)
  config = small_runs.get_config()
  kept = make_method(config, make_operator(config)).rounds_per_batch
  config.train.rounds = kept + 1
  train(config.lock(), tmp_path)
  assert kept > 1
  order = [np.asarray(index).tolist() for index in seen]
  assert order[:kept] == [order[0]] * kept
  assert order[kept] == [config.train.batch + i for i in order[0]]


def test_as_many_checkpoints_stay_as_are_asked_for_and_a_logged_loss_is_the_mean_since_the_last(tmp_path):
  losses = {}
  for every in (1, 2):
    train(roll(log_every=every, keep=3, checkpoint_every=every).lock(), tmp_path / str(every))
    losses[every] = [line["loss"] for line in read_history(tmp_path / str(every)) if "loss" in line]
  assert {path.name for path in (tmp_path / "1" / "checkpoints").iterdir()} == {"2", "3", "4"}
  assert losses[2] == pytest.approx([np.mean(losses[1][:2]), np.mean(losses[1][2:])], rel=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_run_becomes_longer_unless_its_rounds_depend_on_their_number(tmp_path, schedule):
  for rounds in (1, 2):
    config = roll(rounds=rounds)
    config.optim.generator.schedule = schedule
    refused = rounds == 2 and schedule == "cosine"
    words = r"train\.rounds is 1 there and 2 here"
    with pytest.raises(UserError, match=words) if refused else contextlib.nullcontext():
      train(config.lock(), tmp_path)


@pytest.mark.parametrize(
  ("key", "value"),
  [("data.flip", False), ("data.crop", (8, 8)), ("train.batch", 16), ("seed", 1), ("data.lr_dir", "lr")],
)
def test_what_a_run_was_trained_on_may_not_change_when_it_goes_on(key, value):
  config, other = small_runs.get_config(), small_runs.get_config()
  other.update_from_flattened_dict({key: value})
  assert configs.differences(config, other, configs.RESUMING).keys() == {key}
  assert configs.differences(other, config, configs.RESUMING).keys() == {key}


def test_what_a_run_was_trained_on_may_move():
  config, other = small_runs.get_config(), small_runs.get_config()
  for which, place in ((config, "old"), (other, "new")):
    which.data.update({"dir": place, "lr_dir": f"{place}_lr"})
  assert not configs.differences(config, other, configs.MEASURING)
  assert {"config.data.dir", "config.data.lr_dir"}.isdisjoint(facts(config, {})), "processes may differ in it"
