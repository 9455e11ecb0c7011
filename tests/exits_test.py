"""How a command ends: the exit code says whether to start again, and what is told is safe to show."""

import atexit
import errno
import importlib
import json
import logging
import os
import queue

import jax
import pytest
import requests

import small_runs
from sr_jax import cli, commands, inspection, processes, sweep, sweep_commands
from sr_jax.checkpoint import Checkpoints
from sr_jax.errors import TRY_AGAIN, Busy, Diverged, Stopped, UserError, explain
from sr_jax.ledger import Trial
from sr_jax.stages import Sources


def test_a_sweep_whose_disk_is_full_or_unreachable_ends_with_the_sentence_of_that(
  tmp_path, monkeypatch, caplog
):
  runs = sweep.plan([Trial("a"), Trial("b")], lambda trial: small_runs.get_config(), tmp_path)
  begun = []

  def fail(config, folder, *others):
    begun.append(folder.name)
    folder.mkdir(exist_ok=True)
    raise error

  monkeypatch.setattr(sweep, "check_evaluation", lambda *_: None)
  monkeypatch.setattr(sweep, "train_and_evaluate", fail)
  error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  with (
    small_runs.largest_file(0),
    pytest.raises(OSError, match="No space"),
  ):  # failure.txt cannot be written either
    sweep.run_here(runs, {}, Sources(), "")
  assert begun == ["a"]
  monkeypatch.setattr(inspection, "config", lambda *_: sweep.run_here(runs, {}, Sources(), ""))
  error = UserError("The training cannot go on.")
  error.__cause__ = OSError(errno.ESTALE, os.strerror(errno.ESTALE))
  assert cli.main(["config"]) == TRY_AGAIN
  assert "The training cannot go on" in sweep.failure(runs[0])
  error = MemoryError()  # of this trial, which may be larger than the next
  assert sweep.run_here(runs, {}, Sources(), "")
  assert begun == ["a", "a", "a", "b"]
  assert "Traceback" not in caplog.text


def raised_in(module: str, error: Exception) -> Exception:
  with pytest.raises(type(error)) as caught:
    exec("raise error", {"__name__": module, "error": error})
  return caught.value


@pytest.mark.parametrize(
  ("error", "words"),
  [
    (MemoryError(), "Cannot allocate memory"),
    (ValueError("Failed to write: No space left on device [os_error_code='28']"), "No space left on device"),
    (OSError(errno.EROFS, "", "/ro/table.md"), "Read-only file system: /ro/table.md"),
    (RuntimeError("a mistake of ours"), ""),
    (requests.ConnectionError("of a download"), ""),
    (requests.ConnectionError("of gs://bucket/run"), "of gs://bucket/run"),
    (raised_in("tensorflow_datasets.core", requests.ConnectionError("too")), ""),
    (raised_in("gcsfs.core", requests.ConnectionError("of a client")), "of a client"),
  ],
)
def test_what_the_machine_refused_is_told_by_the_first_error_of_a_chain(error, words):
  chained = RuntimeError("what a library makes of it")
  chained.__cause__ = error
  assert explain(chained).what == words


@pytest.mark.parametrize(
  ("error", "code"),
  [
    (OSError(errno.ESTALE, os.strerror(errno.ESTALE)), TRY_AGAIN),
    (OSError(errno.EIO, os.strerror(errno.EIO)), TRY_AGAIN),
    (ValueError("UNAVAILABLE: Connection reset, of GCS object"), TRY_AGAIN),
    (ValueError("DEADLINE_EXCEEDED: of a Gcs read"), TRY_AGAIN),
    (raised_in("gcsfs.core", ConnectionResetError("by the network")), TRY_AGAIN),
    (type("HttpError", (Exception,), {"__module__": "gcsfs.retry"})("Backend Error, 503"), TRY_AGAIN),
    (jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer"), TRY_AGAIN),
    (Busy("run"), TRY_AGAIN),
    (OSError(errno.ENOSPC, "full"), 2),
    (ValueError("PERMISSION_DENIED: of a GCS object"), 2),
    (type("HttpError", (Exception,), {"__module__": "gcsfs.retry"})("Not yours, 403"), 2),
    (UserError("config.seed is wrong: fix it."), 2),
  ],
)
def test_a_fault_that_the_same_command_survives_has_an_exit_code_of_its_own(error, code, capsys, monkeypatch):
  sentence = UserError("--out cannot be written: fix it.")
  sentence.__cause__ = error
  for raised in (error, sentence) if not isinstance(error, UserError) else (error,):

    def fail(*arguments, raised=raised):
      raise raised

    monkeypatch.setattr(inspection, "config", fail)
    assert cli.main(["config"]) == code
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_nobody_waits_to_save_with_a_process_that_is_gone(tmp_path, monkeypatch):
  gone = jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer")
  checkpoints = Checkpoints(tmp_path, create=True, lock=True)
  monkeypatch.setattr(checkpoints.manager, "wait_until_finished", lambda: pytest.fail("waited"))
  checkpoints.__exit__(type(gone), gone, None)
  assert not (tmp_path / ".lock").exists()


def test_a_run_stopped_at_its_end_exits_as_one_stopped_within(monkeypatch, capsys):
  def stop(*arguments):
    raise Stopped

  monkeypatch.setattr(inspection, "config", stop)
  assert cli.main(["config"]) == cli.STOPPED
  assert "the same command goes on" in capsys.readouterr().out


def test_names_reach_the_terminal_without_their_control_characters(capsys):
  name = "\x1b]0;title\x07\n\u202e\udcff.py"
  assert cli.main(["train", f"--config={name}", "--workdir=run"]) == 2
  assert r"\x1b]0;title\x07\n\u202e\udcff.py is no file" in capsys.readouterr().err
  record = logging.LogRecord("sr_jax", logging.INFO, "", 0, "%s:\n\t|", (name[:-3],), None)
  assert cli._Lines("%(message)s").format(record) == "\\x1b]0;title\\x07\n\\u202e\\udcff:\n\t|"


def test_what_is_written_and_why_others_ended_are_told_without_control_characters(capsys, monkeypatch):
  name = "\x1b]0;title\x07\n\udcff"
  monkeypatch.setattr(commands, "begin", lambda: None)
  monkeypatch.setattr(
    importlib.import_module("sr_jax.upscaling"),
    "upscale_files",
    lambda *_, **__: [f"{name}_0.png", f"{name}_1.png"],
  )
  assert cli.main(["upscale", "photo.png", "--workdir=run", "--samples=2"]) == 0
  escaped = r"\x1b]0;title\x07\n\udcff"
  assert capsys.readouterr().out == f"{escaped}_0.png\n{escaped}_1.png\n"

  class Client:
    def key_value_try_get(self, key):
      return json.dumps([1, 2, f"no {name}"])

  told = queue.Queue()
  monkeypatch.setattr(processes, "_job", lambda: (Client(), 0, 2))
  monkeypatch.setattr(processes, "_leave", lambda code, shown: told.put(shown))
  stops = []
  monkeypatch.setattr(atexit, "register", stops.append)
  monkeypatch.setattr(processes.faulthandler, "enable", lambda: None)
  processes.listen()
  assert told.get(timeout=30) == f"sr-jax: process 1 ended: no {escaped}"
  stops[0]()


def test_a_trial_that_diverged_is_told_without_control_characters(capsys, monkeypatch, tmp_path):
  def diverge(*_):
    raise Diverged("\x1b[2J diverged")

  config = small_runs.get_config()
  runs = sweep.plan([Trial("a")], lambda trial: config, tmp_path)
  monkeypatch.setattr(sweep_commands, "_planned", lambda *_: runs)
  monkeypatch.setattr(sweep_commands, "begin", lambda: None)
  monkeypatch.setattr(sweep, "check", lambda *_: None)
  monkeypatch.setattr(sweep, "check_evaluation", lambda *_: None)
  monkeypatch.setattr(sweep, "train_and_evaluate", diverge)
  assert cli.main(["sweep", "--config=roll", f"--workdir={tmp_path}", "--trial=0"]) == 0
  assert r"a: \x1b[2J diverged" in capsys.readouterr().err
