"""Several processes: they start alike, stop in one round, and none waits for one that is gone or stuck."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import pytest

import small_runs
from sr_jax import processes
from sr_jax.errors import STOPPED, TRY_AGAIN, TryAgain
from sr_jax.stages import Sources, facts

CONFIG = str(Path(__file__).with_name("small_runs.py"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
  return small_runs.write_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture
def address():
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    return f"localhost:{probe.getsockname()[1]}"


@contextmanager
def started(*commands: list[str], data: str | Path = "") -> Iterator[list[subprocess.Popen]]:
  """A process for each command, with one device; killed at the end, for JAX catches SIGTERM."""
  environment = os.environ | small_runs.ONE_DEVICE | {"SR_JAX_TRAIN_DIR": str(data)}
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  running = [subprocess.Popen([sys.executable, *words], env=environment, **pipes) for words in commands]
  try:
    yield running
  finally:
    for process in running:
      process.kill()
      process.communicate()


def training(workdir: Path, address: str, number: int, *more: str) -> list[str]:
  words = ["-m", "sr_jax.cli", "train", "--config", CONFIG, "--workdir", str(workdir), *more]
  return [*words, "--distributed", f"{address},{number},2"]


def results(running: list[subprocess.Popen]) -> tuple[list[int], list[str], list[str]]:
  outputs, errors = zip(*(process.communicate(timeout=200) for process in running), strict=True)
  return [process.returncode for process in running], list(outputs), list(errors)


def wait_for_round(workdir: Path, number: int, running: list[subprocess.Popen]) -> None:
  """Until the metrics of a round are written."""
  deadline = time.monotonic() + 200
  metrics = workdir / "metrics.jsonl"
  while not metrics.exists() or f'"step": {number},' not in metrics.read_text():
    assert all(process.poll() is None for process in running), "a process ended by itself"
    assert time.monotonic() < deadline
    time.sleep(0.05)


def test_processes_with_other_seeds_all_say_so_and_write_nothing(images, address, tmp_path):
  one, other = (training(tmp_path / "run", address, i, f"--config.seed={i}") for i in range(2))
  with started(one, other, data=images) as running:
    codes, _, errors = results(running)
  assert codes == [2, 2], errors
  for text in errors:
    assert "config.seed is 0 in process 0 and 1 in process 1: start all with one command" in text
    assert "Traceback" not in text
  assert not (tmp_path / "run").exists()


def test_a_mistake_in_one_process_ends_the_other_within_seconds(images, address, tmp_path):
  missing = f"--config.data.dir={tmp_path / 'nowhere'}"
  with started(
    training(tmp_path / "run", address, 0), training(tmp_path / "run", address, 1, missing), data=images
  ) as running:
    running[1].wait(timeout=200)
    ended = time.monotonic()
    codes, _, errors = results(running)
    assert time.monotonic() - ended < 20
  assert codes == [2, 2], errors
  assert "process 1 ended: config.data.dir: there is no folder" in errors[0]


def test_ctrl_c_in_one_process_saves_one_round_in_all_and_one_that_is_stuck_ends_the_job(
  images, address, tmp_path
):
  keys = ["--config.train.rounds=1000000", "--config.train.checkpoint_every=1000000"]
  with started(*(training(tmp_path, address, i, *keys) for i in range(2)), data=images) as running:
    wait_for_round(tmp_path, 10, running)
    running[1].send_signal(signal.SIGINT)
    codes, outputs, errors = results(running)
  assert codes == [STOPPED, STOPPED], errors
  assert len({output.splitlines()[-1] for output in outputs}) == 1
  stopped = int(outputs[0].split("round ")[1].split()[0])
  assert (tmp_path / "checkpoints" / str(stopped)).is_dir()
  # It goes on, until a process stops for ever.
  keys.append("--config.train.watchdog=5")
  with started(*(training(tmp_path, address, i, *keys) for i in range(2)), data=images) as running:
    wait_for_round(tmp_path, (stopped // 5 + 3) * 5, running)
    running[1].send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    _, errors = running[0].communicate(timeout=100)
    assert time.monotonic() - begin < 60
  assert running[0].returncode == TRY_AGAIN
  assert "stuck for longer than config.train.watchdog allows" in errors
  assert '/train.py", line' in errors, "the stacks say where"


def test_a_signal_during_the_last_save_is_heard_by_all_and_another_checkpoint_seen_by_one_is_refused_by_all(
  images, address, tmp_path
):
  """The clock jumps an hour at every look meanwhile."""
  program = (
    "import itertools, signal, sys, time; from sr_jax import checkpoint, cli, soundness\n"
    "*words, number, mode = sys.argv[1:]\n"
    "save, real, looks = checkpoint.Checkpoints.save, time.time, itertools.count()\n"
    "time.time = lambda: real() + 3600 * next(looks)\n"
    "def told(self, state, *others):\n"
    "  save(self, state, *others)\n"
    "  if int(state.step) == 2: signal.raise_signal(signal.SIGTERM)\n"
    "if number == '1' and mode == 'signal': checkpoint.Checkpoints.save = told\n"
    "if number == '1' and mode == 'other': checkpoint.whole_steps = lambda folder: [1]\n"
    "sys.exit(cli.main(words))"
  )
  keys = ["--config.train.rounds=2", "--config.train.checkpoint_every=1", "--config.train.keep=3"]

  def job(mode: str) -> list[list[str]]:
    return [["-c", program, *training(tmp_path, address, i, *keys)[2:], str(i), mode] for i in range(2)]

  with started(*job("signal"), data=images) as running:
    codes, outputs, errors = results(running)
  assert codes == [STOPPED, STOPPED], errors
  assert all("the same command goes on" in output for output in outputs)
  assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"1", "2"}
  assert not (tmp_path / "evaluation").exists()
  keys[0] = "--config.train.rounds=4"
  with started(*job("other"), data=images) as running:
    codes, _, errors = results(running)
  assert codes == [TRY_AGAIN, TRY_AGAIN], errors
  for text in errors:
    assert "the round of the newest whole checkpoint is 2 in process 0 and 1 in process 1" in text
  assert (tmp_path / "checkpoints" / "2").exists()


def test_a_process_that_is_stuck_in_an_evaluation_ends_the_job(images, address, tmp_path):
  run = ["train", "--config", CONFIG, "--workdir", str(tmp_path), "--config.train.rounds=1"]
  with started(["-m", "sr_jax.cli", *run], data=images) as running:
    assert results(running)[0] == [0]
  program = (
    "import sys, time; from sr_jax import cli, measurement\n"
    "*words, number = sys.argv[1:]; measurement.SLOW = 1\n"
    "if number == '1': measurement.test_batches = lambda *_, **__: time.sleep(1000)\n"
    "sys.exit(cli.main(words))"
  )
  words = ["evaluate", "--workdir", str(tmp_path), "--config.train.watchdog=8"]
  commands = (["-c", program, *words, "--distributed", f"{address},{i},2", str(i)] for i in range(2))
  with started(*commands, data=images) as running:
    codes, _, errors = results(running)
  assert codes == [TRY_AGAIN, TRY_AGAIN], errors
  assert any("in evaluate" in text and "stuck for longer" in text for text in errors)


def test_a_workdir_that_is_not_shared_raises_one_sentence_everywhere(address, tmp_path):
  program = (
    "import sys; from pathlib import Path; from sr_jax import parallel, processes\n"
    "processes.SHARED = 1\n"
    "parallel.start_processes(sys.argv[1])\n"
    "processes.agree({'seed': 0}, Path(sys.argv[2], 'run'))\n"  # the same folder
    "try: processes.agree({'seed': 0}, Path(sys.argv[2], sys.argv[1][-3]))\n"
    "except Exception as error: print(error)"
  )
  with started(*(["-c", program, f"{address},{i},2", str(tmp_path)] for i in range(2))) as running:
    codes, outputs, errors = results(running)
  assert codes == [0, 0], errors
  assert "1 is not the same folder in process 0 and in process 1" in outputs[0]
  assert outputs[0] == outputs[1]
  assert not list(tmp_path.iterdir())


def test_processes_that_do_not_come_or_are_not_found_cost_one_sentence(address, tmp_path):
  alone = f"from sr_jax import parallel; parallel.JOIN = 2; parallel.start_processes('{address},1,2')"
  by_itself = ["-m", "sr_jax.cli", "train", "--config", CONFIG, "--workdir", str(tmp_path), "--distributed"]
  with started(["-c", alone], by_itself) as running:
    codes, _, (late, unknown) = results(running)
  assert codes == [TRY_AGAIN, 2]
  assert late.startswith("sr-jax: the processes of --distributed did not find each other within 2 seconds")
  assert unknown.startswith("sr-jax: --distributed finds neither SLURM, nor a TPU, Open MPI or Kubernetes")
  assert unknown.count("\n") == 1


def test_what_differs_between_processes_is_named():
  ours = {"config.seed": 0, "config.data": "6 images"}
  assert processes.difference(ours, dict(ours), 3) == ""
  assert "config.data is '6 images' in process 0 and '5 images' in process 3" in processes.difference(
    ours, ours | {"config.data": "5 images"}, 3
  )
  assert "train.new is 'missing' in process 0" in processes.difference(ours, ours | {"train.new": 1}, 3)


def test_images_may_be_elsewhere_but_neither_fewer_nor_others(images, tmp_path):
  config = small_runs.get_config()

  def found(folder: Path) -> dict:
    config.data.dir = config.eval.data.dir = str(folder)
    return facts(config, {"the images": Sources()(config.data)})

  shutil.copytree(images, tmp_path / "copy")
  here = found(images)
  assert here["config.seed"] == 0
  assert here["jax"]
  assert here["the code of sr_jax"]
  assert found(tmp_path / "copy") == here
  (tmp_path / "copy" / "5.png").rename(tmp_path / "copy" / "6.png")
  assert "the images is '6 images" in processes.difference(here, found(tmp_path / "copy"), 1)
  (tmp_path / "copy" / "6.png").unlink()
  assert "and '5 images" in processes.difference(here, found(tmp_path / "copy"), 1)


def test_prepared_data_sets_of_equal_number_but_other_contents_are_told_apart(tmp_path):
  config = small_runs.get_config()
  (tmp_path / "a").mkdir()
  config.data.update({"name": "photos", "dir": str(tmp_path / "a"), "cache_mb": 1})

  def found() -> dict:
    return facts(config, {"the images": Sources()(config.data)})

  here = found()
  shutil.copytree(tmp_path / "a", tmp_path / "b")
  config.data.dir = str(tmp_path / "b")
  assert found() == here
  (shard, *_) = (tmp_path / "b").rglob("*.array_record*")
  with shard.open("ab") as file:
    file.write(b"another image")
  other = found()
  assert here["the images"].split(",")[0] == other["the images"].split(",")[0]
  assert "the images is '" in processes.difference(here, other, 1)


def test_a_file_may_be_seen_late(tmp_path):
  threading.Timer(0.3, (tmp_path / "token").touch).start()
  assert processes.sees(tmp_path, "token", 10)
  assert not processes.sees(tmp_path, "other", 0.1)


def test_a_watchdog_within_another_is_that_one(monkeypatch):
  monkeypatch.setattr(processes, "_job", lambda: (None, 0, 2))
  ended, before = [], threading.active_count()

  def end(*reason):
    ended.append(reason)
    time.sleep(0.5)

  monkeypatch.setattr(processes, "end", end)
  with processes.watchdog(0.4) as alive:
    alive()
    with processes.watchdog(0.4) as inner:
      for _ in range(8):  # for longer than the outer one allows
        inner()
        time.sleep(0.1)
    assert not ended
    time.sleep(0.8)
  assert ended
  assert threading.active_count() == before  # nothing is left that could end the process later


def test_nobody_watches_a_single_process():
  before = threading.active_count()
  with processes.watchdog(0.01) as alive:
    alive()
    assert threading.active_count() == before
    time.sleep(0.1)


def test_a_process_whose_interpreter_is_stuck_prints_its_stack_and_ends():
  program = (
    "import ctypes; from sr_jax import processes\n"
    "processes.LAST_RESORT = 0; processes._job = lambda: (None, 0, 2)\n"
    "with processes.watchdog(0.5) as alive:\n"
    "  alive(); ctypes.PyDLL(None).sleep(60)"  # which keeps the interpreter's lock
  )
  with started(["-c", program]) as running:
    codes, _, errors = results(running)
  assert codes == [1]
  assert 'File "<string>", line 4 in <module>' in errors[0]


@pytest.mark.parametrize("wait", [processes.meet, lambda: processes.agree({})])
def test_a_process_that_does_not_come_is_one_sentence(monkeypatch, wait):
  class Client:
    def late(self, *_):
      raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out.")

    wait_at_barrier = blocking_key_value_get = late

  monkeypatch.setattr(processes, "_job", lambda: (Client(), 1, 2))
  with pytest.raises(TryAgain, match="within 600 seconds"):
    wait()
