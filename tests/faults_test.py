"""What goes wrong in a value, a folder, a disk or a clock costs a sentence, and nothing that was saved."""

import contextlib
import errno
import gc
import logging
import os
import re
import secrets
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import small_runs
from sr_jax import cli, evaluate, files, parallel
from sr_jax.checkpoint import Checkpoints
from sr_jax.config import check
from sr_jax.configs import base
from sr_jax.errors import TRY_AGAIN, Diverged, Stopped, UserError, exit_code
from sr_jax.method import State
from sr_jax.ops import make_operator
from sr_jax.report.log import Writer
from sr_jax.run import load_run
from sr_jax.stages import Sources, check_evaluation
from sr_jax.train import train

BATCH = {"hr": jnp.zeros((2, 8, 8, 3), jnp.uint8)}
CONFIG = base.get_config("regression")


def changed(key: str, value: object):
  config = small_runs.get_config()
  *sections, last = key.split(".")
  node = config
  for section in sections:
    node = node[section]
  with config.unlocked():
    node[last] = value
  return config


@pytest.mark.parametrize(
  ("key", "value", "words"),
  [
    ("data.crop", ("a", "b"), r"give \(rows, columns\), or \(\) for none"),
    ("data.resize", (24,), r"give \(rows, columns\)"),
    ("operator.factor", (0, 4), "make it 1 or more"),
    ("operator.factor", (3,), r"give \(rows, columns\)\."),
    ("networks.generator.width", 0, "make it 1 or more"),
    ("networks.generator.width", 10**9, "make it 65536 or less"),
    ("networks.generator.blocks", -1, "make it 0 or more"),
    ("networks.generator.noise_scale", -1.0, "make it 0 or more"),
    ("networks.generator.outer_kernel", 0, "make it 1 or more"),
    ("train.rounds", 99999999999999999999, "make it 2147483647 or less"),
    ("train.profile_from", -1, "make it 0 or more"),
    ("optim.generator.learning_rate", -0.1, "make it 0 or more"),
    ("optim.generator.learning_rate", float("nan"), "make it a finite number"),
    ("optim.generator.learning_rate", float("inf"), "make it a finite number"),
    ("optim.generator.b1", 5.0, "make it 0.999999 or less"),
    ("optim.generator.clip", -1.0, "make it 0 or more"),
    ("optim.generator.eps", 0.0, "make it 1e-30 or more"),
    ("optim.generator.halve_at", (10, -1), "make it 0 or more"),
    ("optim.generator.warmup", None, "give a number"),
    ("method.warmup_rounds", -3, "make it 0 or more"),
    ("eval.batch", 10**9, "make it 65536 or less"),
    ("eval.temperatures", ("a",), "give a number"),
    ("eval.metrics", (1,), "give a tuple of words"),
    ("eval.baselines", (1,), "give a tuple of words"),
    ("eval.beside", (1,), "give a tuple of words"),
    ("init_from", (("a", "b"),), "give a tuple of words"),
    ("method.features.layers", (1,), "give a tuple of words"),
    ("method.mine", {1, 2}, "holds a set, which cannot be saved"),
    ("method.mine", print, "holds a builtin_function_or_method"),
    ("method.mine", np.zeros(2), "holds a ndarray"),
    ("method.mine", (1, [2]), "holds a list"),
  ],
)
def test_a_value_that_is_nonsense_or_cannot_be_saved_is_refused_by_its_key(key, value, words):
  with pytest.raises(UserError, match=rf"^config\.{re.escape(key)} .*{words}"):
    check(changed(key, value))


@pytest.mark.parametrize("name", [":x", ".a:b", "a:", "a..b:c", "a b:c"])
def test_what_names_nothing_in_a_module_is_refused_by_its_key(name):
  with pytest.raises(UserError, match=rf"config\.operator\.kernel is '{name}', which names nothing"):
    make_operator(changed("operator.kernel", name))


def test_layers_of_every_network_are_counted_from_1():
  config = small_runs.tiny("density")
  config.networks.prior.layers = -3
  with pytest.raises(UserError, match=r"config\.networks\.prior\.layers is -3"):
    check(config)


def test_the_ranges_of_somebody_elses_network_are_its_own_but_its_numbers_are_finite():
  config = changed("networks.generator.name", "package:Network")
  config.networks.generator.width = 0
  check(config)
  config.networks.generator.noise_scale = float("nan")
  with pytest.raises(UserError, match="make it a finite number"):
    check(config)


@pytest.mark.parametrize(
  "where", ["127.0.0.1:1,5,2", "127.0.0.1:1,2,2", "127.0.0.1:1,-1,2", "host:99999,0,2"]
)
def test_a_process_that_cannot_be_one_of_the_others_is_refused_at_once(where):
  with pytest.raises(UserError, match=f"--distributed is '{where}'"):
    parallel.start_processes(where)


@pytest.fixture
def images(tmp_path, monkeypatch):
  folder = small_runs.write_images(tmp_path / "images", count=3)
  monkeypatch.setenv("SR_JAX_TRAIN_DIR", str(folder))
  return folder


@pytest.mark.parametrize(
  ("option", "words"),
  [
    ("--workdir={}/" + 256 * "x", "cannot be written (File name too long)"),
    ("--workdir=s3://bucket/run", "neither of this machine nor of a bucket"),
    ("--workdir={}/images/0.png", "cannot be written (Not a directory)"),
    ("--config.data.dir=gs://bucket/images", "config.data.dir is 'gs://bucket/images'"),
  ],
)
def test_a_folder_that_is_none_is_refused_before_anything_is_made(
  images, tmp_path, capsys, monkeypatch, option, words
):
  monkeypatch.chdir(tmp_path)
  before = sorted(tmp_path.rglob("*"))
  arguments = ["train", f"--config={small_runs.__file__}", f"--workdir={tmp_path / 'run'}"]
  assert cli.main([*arguments, option.format(tmp_path)]) == 2
  assert words in capsys.readouterr().err.splitlines()[-1]
  assert sorted(tmp_path.rglob("*")) == before


def test_what_would_stop_the_evaluation_is_found_before_the_training(images, tmp_path):
  config = small_runs.get_config()
  config.eval.metrics = ("psnr",)
  check_evaluation(config, Sources(), tmp_path / "run", "--workdir")
  assert not (tmp_path / "run").exists()
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / "evaluation").touch()
  with pytest.raises(UserError, match=r"--workdir .*evaluation cannot be written"):
    check_evaluation(config, Sources(), tmp_path / "run", "--workdir")
  last = images / "2.png"
  last.write_bytes(last.read_bytes()[:600])
  with pytest.raises(UserError, match=r"2\.png cannot be used"):
    check_evaluation(config, Sources())
  config.eval.limit = 2
  check_evaluation(config, Sources())


def test_a_test_image_found_corrupt_after_the_training_costs_the_evaluation_alone(
  images, tmp_path, monkeypatch, capsys, caplog
):
  monkeypatch.setattr("sr_jax.stages.check_test_images", lambda *_, **__: None)  # there was no time
  last = images / "2.png"
  whole = last.read_bytes()
  keys = ["--config.train.rounds=2", "--config.eval.metrics=('psnr',)", "--config.eval.baselines=()"]
  words = ["train", f"--config={small_runs.__file__}", f"--workdir={tmp_path / 'run'}", *keys]
  words += ["--config.data.split=[:2]"]
  last.write_bytes(whole[:600])
  assert cli.main(words) == 2
  said = capsys.readouterr().err.splitlines()[-1]
  assert re.search(
    r"2\.png cannot be used: .*; the training is saved, and the same command then goes on", said
  )
  assert int(load_run(tmp_path / "run").state.step) == 2
  last.write_bytes(whole)
  monkeypatch.setattr("sr_jax.parallel.compile_step", lambda *_: lambda *_: pytest.fail("trained again"))
  assert cli.main(words) == 0
  assert (tmp_path / "run" / "evaluation" / "table.md").exists()
  assert "2 of the 3 test images are trained on: take parts by config.data.split=[:90%]" in caplog.text


def test_a_batch_larger_than_the_test_set_leaves_each_image_its_share_of_the_memory():
  config = small_runs.get_config()
  config.eval.batch = 65536
  assert evaluate._budget(config, [None] * 4).memory == evaluate.MEMORY << 18


def state(step: int, size: int = 20_000) -> State:
  """Many leaves, so that some are still read when one has failed."""
  params = {str(i): jnp.full((size // 20,), step, jnp.float32) for i in range(20)}
  return State(step=jnp.int32(step), params=params, stats={}, opt={})


def target() -> State:
  return jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=v.sharding), state(0))


def restored(folder) -> int:
  with Checkpoints(folder) as checkpoints:
    found = checkpoints.restore(target(), checkpoints.latest()[0])
  assert all(float(leaf[0]) == int(found.step) for leaf in found.params.values())
  return int(found.step)


def fill_the_disk_at_the_second_save(folder) -> None:
  drawn = np.random.default_rng(0).normal(size=(20, 1000)).astype(np.float32)
  with contextlib.ExitStack() as limit, Checkpoints(folder, create=True, lock=True) as checkpoints:
    checkpoints.save(state(1), CONFIG, BATCH)
    checkpoints.manager.wait_until_finished()
    limit.enter_context(small_runs.largest_file(5000))
    checkpoints.save(
      state(2).replace(params={str(i): jnp.asarray(v) for i, v in enumerate(drawn)}), CONFIG, BATCH
    )


def test_a_full_disk_costs_one_sentence_and_keeps_the_last_checkpoint(tmp_path):
  said = rf"cannot go on \({os.strerror(errno.EFBIG)}\); the checkpoint of round 1 is the last good one"
  with pytest.raises(UserError, match=said):
    fill_the_disk_at_the_second_save(tmp_path)
  assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
  assert restored(tmp_path) == 1


@pytest.mark.parametrize("lock", [True, False])
def test_only_the_process_with_the_lock_clears_away_what_is_half_written(tmp_path, lock):
  half = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
  checkpoints = Checkpoints(tmp_path, create=True, lock=lock)
  half.mkdir()
  checkpoints.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
  assert half.exists() != lock


def test_a_half_written_checkpoint_that_still_grows_is_cleared_away_when_it_can_be(tmp_path, monkeypatch):
  half = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
  checkpoints = Checkpoints(tmp_path, create=True, lock=True)
  half.mkdir()
  refusals = iter([True, True, False])

  def remove_tree(path) -> None:
    if next(refusals):
      raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
    files.remove_tree(path)

  monkeypatch.setattr("sr_jax.checkpoint.remove_tree", remove_tree)
  checkpoints.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
  assert not half.exists()


def write_much(folder) -> None:
  with small_runs.largest_file(8000), Writer(folder, 0) as writer:
    for step in range(2000):
      writer.write(step, dict.fromkeys("abcdefgh", 1.0))


def test_metrics_on_a_full_disk_are_an_error_and_no_endless_wait(tmp_path):
  with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
    write_much(tmp_path)


def test_a_clock_that_jumps_an_hour_at_every_look_does_not_end_a_save(tmp_path, monkeypatch):
  real, looks = time.time, iter(range(10**6))
  monkeypatch.setattr(time, "time", lambda: real() + 3600 * next(looks))
  with Checkpoints(tmp_path, create=True) as checkpoints:
    checkpoints.save(state(1), CONFIG, BATCH)
  assert restored(tmp_path) == 1


def test_a_reader_beside_a_training_that_deletes_what_it_saw_finds_the_next(tmp_path, monkeypatch, caplog):
  with Checkpoints(tmp_path, keep=1, create=True) as training:
    training.save(state(1), CONFIG, BATCH)
    training.manager.wait_until_finished()
    with Checkpoints(tmp_path) as reader:
      training.save(state(2), CONFIG, BATCH)
      training.manager.wait_until_finished()
      seen = iter([[1]])
      monkeypatch.setattr(reader, "_steps", lambda: next(seen, [2]))
      assert int(reader.restore(target(), reader.latest()[0]).step) == 2
  assert not caplog.records


def test_a_damaged_checkpoint_is_one_line(tmp_path, capfd, caplog):
  with Checkpoints(tmp_path, create=True) as checkpoints:
    for step in (1, 2):
      checkpoints.save(state(step), CONFIG, BATCH)
  for path in (tmp_path / "checkpoints" / "2" / "state").rglob("d/*"):
    path.write_bytes(path.read_bytes()[:-9])
  with caplog.at_level(logging.WARNING, "sr_jax"):
    assert restored(tmp_path) == 1
  gc.collect()
  assert [
    record.message.split(" in ")[0] for record in caplog.records if record.name.startswith("sr_jax")
  ] == ["Checkpoint 2"]
  assert "Traceback" not in capfd.readouterr().err


def test_a_checkpoint_that_asks_for_any_memory_is_taken_for_a_damaged_one(tmp_path, monkeypatch):
  with Checkpoints(tmp_path, create=True) as checkpoints:
    for step in (1, 2):
      checkpoints.save(state(step), CONFIG, BATCH)
  with Checkpoints(tmp_path) as reader:
    read = reader.manager.restore

    def refuse(step, args):
      if step == 2:
        raise MemoryError
      return read(step, args=args)

    monkeypatch.setattr(reader.manager, "restore", refuse)
    assert int(reader.restore(target(), CONFIG).step) == 1


def test_going_on_from_a_checkpoint_deletes_what_is_newer_and_keeps_the_checkpoint_itself(tmp_path):
  with Checkpoints(tmp_path, create=True, keep=3) as checkpoints:
    for step in (1, 2, 3):
      checkpoints.save(state(step), CONFIG, BATCH)
    checkpoints.manager.wait_until_finished()
    assert checkpoints.newer_than(2) == [3]
    checkpoints.delete([3])
    assert sorted(checkpoints.manager.all_steps()) == [1, 2]
  assert restored(tmp_path) == 2


def test_a_reader_whose_only_checkpoint_is_damaged_is_told_what_a_reader_can_do(tmp_path):
  with Checkpoints(tmp_path, create=True) as checkpoints:
    checkpoints.save(state(1), CONFIG, BATCH)
  (about,) = (tmp_path / "checkpoints" / "1" / "about").rglob("metadata")
  about.write_bytes(about.read_bytes()[:-9])
  with Checkpoints(tmp_path) as reader, pytest.raises(UserError, match="what is there is damaged: give"):
    reader.latest()
  with Checkpoints(tmp_path) as reader, pytest.raises(UserError, match="what is there is damaged: give"):
    reader.restore(target(), CONFIG)
  with (
    pytest.raises(UserError, match="choose another --workdir to start anew"),
    Checkpoints(tmp_path, create=True) as training,
  ):
    training.restore(target(), CONFIG)


@pytest.mark.parametrize("item", ["about", "state"])
@pytest.mark.parametrize(
  ("number", "words", "code"),
  [(errno.ESTALE, "mount", TRY_AGAIN), (errno.EMFILE, "raise", 2), (errno.EACCES, "give yourself access", 2)],
)
def test_a_checkpoint_out_of_reach_is_not_taken_for_a_damaged_one(
  tmp_path, monkeypatch, item, number, words, code
):
  with Checkpoints(tmp_path, create=True) as checkpoints:
    for step in (1, 2):
      checkpoints.save(state(step), CONFIG, BATCH)
  training = Checkpoints(tmp_path, create=True)
  read = training.manager.restore

  def refuse(step, args):
    if step == 2 and item in args.keys():  # noqa: SIM118 (no mapping)
      raise OSError(number, os.strerror(number))
    return read(step, args=args)

  monkeypatch.setattr(training.manager, "restore", refuse)
  with (
    pytest.raises(UserError, match=rf"cannot go on .*round 2 is the last good one: {words}") as told,
    training,
  ):
    training.restore(target(), CONFIG)
  assert exit_code(told.value) == code
  assert restored(tmp_path) == 2


def small_regression(images):
  config = base.get_config("regression", generator="convnet")
  config.networks.generator.update({"widths": (4,), "scale": 1000.0})
  config.data.update({"name": "folder", "dir": str(images), "crop": (16, 16)})
  config.train.update({"batch": 4, "rounds": 2, "checkpoint_every": 1})
  config.optim.generator.update({"name": "sgd", "warmup": 2})
  return config


def test_a_run_that_diverged_goes_on_as_its_message_says(images, tmp_path):
  config = small_regression(images)
  config.optim.generator.learning_rate = 1e38
  with pytest.raises(Diverged, match="the checkpoint of round 1 is the last good one") as told:
    train(config, tmp_path / "run")
  (given,) = re.findall(r'--config\.init_from="(.*)"\.$', str(told.value))
  config.optim.generator.learning_rate = 1e-6
  config.init_from = eval(given)
  config.train.rounds = 1
  config.optim.generator.learning_rate = 0.0
  went_on = jax.device_get(train(config, tmp_path / "other").state.params)
  saved = jax.device_get(load_run(tmp_path / "run").state.params)
  jax.tree.map(np.testing.assert_array_equal, went_on, saved)


def test_a_signal_during_the_last_save_stops_before_the_evaluation_with_the_state_saved(
  images, tmp_path, monkeypatch
):
  save = Checkpoints.save

  def interrupted(self, state, *others):
    save(self, state, *others)
    if int(state.step) == 2:
      signal.raise_signal(signal.SIGTERM)

  monkeypatch.setattr(Checkpoints, "save", interrupted)
  with pytest.raises(Stopped):
    train(small_regression(images), tmp_path / "run")
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
  assert int(load_run(tmp_path / "run").state.step) == 2


def test_a_signal_that_was_heard_is_not_told_twice(monkeypatch):
  with parallel.stop_signals() as asked_to_stop:
    signal.raise_signal(signal.SIGTERM)
    assert asked_to_stop()


def test_a_link_in_the_place_of_a_temporary_file_or_a_lock_is_not_followed(tmp_path, monkeypatch):
  victim = tmp_path / "victim"
  victim.write_text("mine")
  monkeypatch.setattr(secrets, "token_hex", lambda size: "known")
  for name in (f".table.md.{os.getpid()}", ".sr_jax.known"):
    (tmp_path / name).symlink_to(victim)
  with pytest.raises(FileExistsError):
    files.write_text(tmp_path / "table.md", "theirs")
  monkeypatch.undo()
  files.write_text(tmp_path / "table.md", "theirs")
  assert (tmp_path / "table.md").stat().st_mode == victim.stat().st_mode
  (tmp_path / ".lock").symlink_to(tmp_path / "made")
  with pytest.raises(UserError, match=r"\.lock is a link"), files.locked(tmp_path):
    pass
  assert victim.read_text() == "mine"
  assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("create", [True, False])
def test_a_folder_whose_name_is_no_text_is_refused_before_anything_is_made(tmp_path, create):
  folder = tmp_path / "run\udcff"
  with pytest.raises(UserError, match="is not UTF-8"):
    Checkpoints(folder, create=create)
  assert not folder.exists()
