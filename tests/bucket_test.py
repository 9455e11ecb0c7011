"""Work directories in a bucket hold what a folder would, whatever stops a run, and every verb finds them."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from PIL import Image

import small_runs
from sr_jax import bucket, cli, files, graft, sweep
from sr_jax.checkpoint import Checkpoints
from sr_jax.config import load
from sr_jax.data import open_source
from sr_jax.edit import read_attribute
from sr_jax.errors import TRY_AGAIN, UserError
from sr_jax.files import as_path, growing, locked
from sr_jax.ledger import Trial
from sr_jax.metrics.lpips import read_backbone
from sr_jax.networks.vgg import load_vgg
from sr_jax.report.log import Writer
from sr_jax.run import load_run
from sr_jax.soundness import digest
from sr_jax.stages import Sources, check_stages, plan_stages

CONFIG = small_runs.__file__
# What this file is not about is left out.
CHEAP = ["--config.eval.samples=2", "--config.eval.losses=False"]


@pytest.fixture(scope="module", autouse=True)
def server(storage):
  """Nothing here goes without it."""


@pytest.fixture(scope="module")
def local(tmp_path_factory):
  """A run in a folder."""
  folder = tmp_path_factory.mktemp("local") / "run"
  assert cli.main(["train", "--config", CONFIG, "--workdir", str(folder), *CHEAP]) == 0
  return folder


@pytest.fixture(scope="module")
def run():
  """The same run in a bucket, killed and resumed."""
  words = ["train", "--config", CONFIG, "--workdir", "gs://bucket/run", *CHEAP]
  program = subprocess.Popen([sys.executable, "-m", "sr_jax.cli", *words], stderr=subprocess.PIPE)
  folder, deadline = as_path("gs://bucket/run"), time.monotonic() + 120
  while not (folder / "checkpoints" / "8" / "commit_success.txt").exists():
    assert program.poll() is None, program.stderr.read()
    assert time.monotonic() < deadline
    time.sleep(0.02)
  program.send_signal(signal.SIGKILL)
  program.communicate()
  assert not (folder / "checkpoints" / "20").exists()
  assert (folder / ".lock").exists()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(bucket, "LEASE", 1)
    assert cli.main(words) == 0
  return folder


def metrics(folder) -> list[dict]:
  lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
  return [{k: v for k, v in line.items() if k not in ("time", "images_per_second")} for line in lines]


def table(folder) -> dict:
  return json.loads((folder / "evaluation" / "table.json").read_text())["rows"]


def names(folder) -> set[str]:
  return {path.name for path in folder.iterdir()}


def test_a_killed_and_resumed_run_in_a_bucket_equals_one_in_a_folder(local, run):
  assert digest(load_run("gs://bucket/run").state) == digest(load_run(local).state)
  assert metrics(run) == metrics(local)
  assert table(run) == table(local)
  assert (run / "config.json").read_text() == (local / "config.json").read_text()
  assert [part["after_round"] for part in json.loads((run / "versions.json").read_text())] == [0, 8]
  for part in ("checkpoints", "evaluation", ""):
    assert names(run / part) == names(local / part)
  assert len(names(run / "events")) == 2  # of both programs


def test_a_half_written_checkpoint_is_none_and_is_cleared_away_by_the_next_training(run):
  (run / "checkpoints" / "24" / "state" / "manifest").write_text("half")
  with Checkpoints(run) as checkpoints:
    assert checkpoints._steps() == [20, 16]
  assert "24" in names(run / "checkpoints")
  with Checkpoints(run, create=True, lock=True):
    assert names(run / "checkpoints") == {"16", "20"}


def test_a_run_has_not_begun_by_a_half_written_checkpoint(run):
  config = load(CONFIG)
  config.init_from = ("generator=gs://bucket/gone",)
  check_stages(plan_stages(config, run), Sources())
  half = as_path("gs://bucket/half")
  (half / "checkpoints" / "4" / "state" / "manifest").write_text("half")
  with pytest.raises(UserError, match="gs://bucket/gone"):
    check_stages(plan_stages(config, half), Sources())


def test_a_training_that_lost_its_lock_says_so_and_writes_and_deletes_nothing_more(run):
  folder, trained = as_path("gs://bucket/lost"), load_run(run)
  checkpoints = Checkpoints(folder, create=True, lock=True)
  (folder / ".lock").write_text("of somebody who took it")
  (folder / "checkpoints" / "24" / "state" / "manifest").write_text("half")
  with pytest.raises(UserError, match=r"lock of gs://bucket/lost was lost"), checkpoints:
    checkpoints.save(trained.state, trained.config, {})
  assert names(folder / "checkpoints") == {"24"}
  assert (folder / ".lock").read_text() == "of somebody who took it"


def test_metrics_of_a_training_that_lost_its_lock_stay_away():
  folder = as_path("gs://bucket/lost_metrics")
  with locked(folder) as renew:
    writer = Writer(folder, 0, check=renew)
    writer.write(1, {"loss": 1.0})
    writer.flush()
    before = (folder / "metrics.jsonl").read_text()
    (folder / ".lock").write_text("of somebody who took it")
    writer.write(2, {"loss": 2.0})
    with pytest.raises(UserError, match="was lost"):
      writer.close()
  assert (folder / "metrics.jsonl").read_text() == before


def test_every_verb_that_takes_a_run_takes_one_in_a_bucket(local, run, tmp_path, capsys):
  words = ["--config.eval.beside=('gs://bucket/run',)", "--out=gs://bucket/again"]
  assert cli.main(["evaluate", f"--workdir={run}", *words, "--save-samples=gs://bucket/samples"]) == 0
  again = as_path("gs://bucket/again/")
  assert table(again)["srim"] == table(run)["srim"]
  assert table(again)["run"]["psnr"] == pytest.approx(table(run)["srim"]["psnr"], abs=0.5)  # other draws
  assert {"000000_sample00000.png", "000005_sample00001.png"} < names(as_path("gs://bucket/samples"))
  truth = f"--truth={os.environ['SR_JAX_TRAIN_DIR']}"
  assert cli.main(["score", "gs://bucket/samples", truth, "--out=gs://bucket/scored"]) == 0
  assert table(as_path("gs://bucket/scored"))["samples, best of 2"]
  assert cli.main(["edit", f"--workdir={run}", "--interpolate=prior", "--out=gs://bucket/edited"]) == 0
  assert (as_path("gs://bucket/edited") / "interpolation_prior.png").exists()
  Image.new("RGB", (8, 6), "green").save(tmp_path / "photo.png")
  capsys.readouterr()
  for place in ("gs://bucket/photos", tmp_path / "photos"):
    arguments = [str(tmp_path / "photo.png"), f"--workdir={run}", f"--out={place}", "--samples=2"]
    assert cli.main(["upscale", *arguments]) == 0
    shown, kept = capsys.readouterr().out.split(), [f"{place}/photo_x4_{i}.png" for i in range(2)]
    assert shown == kept
  for name in ("photo_x4_0.png", "photo_x4_1.png"):
    assert (as_path("gs://bucket/photos") / name).read_bytes() == (tmp_path / "photos" / name).read_bytes()
  assert cli.main(["show", "gs://bucket/run"]) == 0
  assert "round 20 of 20" in capsys.readouterr().out.replace(",", "")
  assert cli.main(["diff", "gs://bucket/run", str(local)]) == 0
  assert not capsys.readouterr().out
  assert cli.main(["compare", "gs://bucket/run", "gs://bucket/again"]) == 0
  assert "Differences to run" in capsys.readouterr().out
  assert cli.main(["report", "gs://bucket/run", str(local), "--out=gs://bucket/report.html"]) == 0
  assert "No comparison" not in as_path("gs://bucket/report.html").read_text()


def test_networks_are_taken_from_a_run_in_a_bucket(run, tmp_path):
  assert graft.parse("prior=gs://bucket/run:generator") == ("prior", "gs://bucket/run", "generator")
  assert graft.parse("prior=gs://bucket/run") == ("prior", "gs://bucket/run", "prior")
  config = load(CONFIG)
  config.init_from = ("generator=gs://bucket/run:generator",)
  params, _ = graft.read(config, {})
  kernel = params["generator"]["Conv_0"]["kernel"]
  assert (kernel == load_run(run).state.params["generator"]["Conv_0"]["kernel"]).all()
  config.init_from = ("generator=gs://bucket/none",)
  with pytest.raises(UserError, match="'gs://bucket/none' is no earlier stage"):
    graft.read(config, {})


def test_a_sweep_and_its_table_are_in_a_bucket(tmp_path, capsys):
  config = tmp_path / "roll.py"
  config.write_text(
    small_runs.ROLL
    + """
def sweep():
  yield "MSE", "mse", {"seed": 0}
  yield "beside", "mse", {"eval.beside": "('{workdir}/MSE',)"}
"""
  )
  words = ["sweep", "--config", str(config), "--workdir", "gs://bucket/sweep"]
  assert cli.main([*words, "--trial=0"]) == 0
  capsys.readouterr()
  assert cli.main([*words, "--list"]) == 0
  assert [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()] == ["finished", "not begun"]
  assert cli.main([*words, "--jobs=2"]) == 0
  assert cli.main([*words, "--table"]) == 0
  folder = as_path("gs://bucket/sweep")
  assert set(json.loads((folder / "sweep.json").read_text())["rows"]) > {"MSE", "beside"}
  assert {"ledger.json", "sweep.md", "sweep_plot.png", "MSE", "beside", "beside.log"} < names(folder)
  capsys.readouterr()
  assert cli.main(["reproduce", "amap", "table1", "--read", "--workdir", "gs://bucket/sweep"]) == 0
  assert "missing" in capsys.readouterr().out
  assert {"amap_table1.md", "amap_table1.json"} < names(folder)
  assert "round 4/4" in (folder / "beside.log").read_text()
  assert ".lock" not in names(folder)


def test_two_processes_train_in_a_bucket_and_one_goes_on():
  """With plain gradient descent, which magnifies no rounding; the two have one device each, the one four."""
  keys = ["--config.optim.generator.name=sgd", "--config.optim.generator.learning_rate=1e-5", *CHEAP]
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    address = f"localhost:{probe.getsockname()[1]}"
  words = ["train", "--config", CONFIG, *keys, "--config.train.rounds=6"]
  two = [*words, "--workdir=gs://bucket/two"]
  job = [
    subprocess.Popen(
      [sys.executable, "-m", "sr_jax.cli", *two, "--distributed", f"{address},{number},2"],
      env=os.environ | small_runs.ONE_DEVICE,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in range(2)
  ]
  try:
    errors = [program.communicate(timeout=500)[1] for program in job]
  finally:
    for program in job:
      program.kill()  # JAX catches SIGTERM
  assert [program.returncode for program in job] == [0, 0], errors
  folder = as_path("gs://bucket/two")
  assert {"checkpoints", "evaluation", "metrics.jsonl", "versions.json"} < names(folder)
  assert ".lock" not in names(folder)
  assert cli.main([*two, "--config.train.rounds=10"]) == 0
  assert cli.main([*words, "--workdir=gs://bucket/one", "--config.train.rounds=10"]) == 0
  ours, theirs = (jax.tree.leaves(load_run(f"gs://bucket/{name}").state) for name in ("two", "one"))
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
  assert [line["step"] for line in metrics(folder)] == [4, 5, 6, 8, 10]


def test_a_second_training_in_the_same_bucket_folder_is_refused(capsys, monkeypatch):
  monkeypatch.setattr(bucket, "LEASE", 2)
  with locked(as_path("gs://bucket/mine")):
    assert cli.main(["train", "--config", CONFIG, "--workdir=gs://bucket/mine", *CHEAP]) == TRY_AGAIN
  assert "Another training is working in gs://bucket/mine" in capsys.readouterr().err
  assert not as_path("gs://bucket/mine").exists()


def test_what_grows_goes_on_in_the_bucket_and_is_copied_if_it_changed():
  folder = as_path("gs://bucket/grown")
  for text in ("one\n", "two\n"):
    with growing(folder, "log") as (here, copy):
      with (here / "log").open("a") as file:
        file.write(text)
      copy(60)
      assert not (folder / "log").exists() or not (folder / "log").read_text().endswith(text)
      copy()
      assert (folder / "log").read_text().endswith(text)
      (folder / "log").write_text("not to be overwritten")
      copy()
    assert (folder / "log").read_text() == "not to be overwritten"
    (folder / "log").write_text("one\n")
  with growing(folder, "log") as (here, _):
    assert (here / "log").read_text() == "one\n"


def test_the_log_of_a_trial_is_in_the_bucket_while_its_program_runs(tmp_path, monkeypatch):
  monkeypatch.setattr(files, "PAUSE", 0)
  folder = as_path("gs://bucket/logged")
  script = f"echo begun\nwhile [ ! -e {tmp_path}/seen ]; do sleep 0.1; done"
  small_runs.replace_python(script, tmp_path, monkeypatch)

  def look():
    while not (folder / "MSE.log").exists():
      time.sleep(0.05)
    (tmp_path / "seen").touch()

  threading.Thread(target=look, daemon=True).start()
  runs = sweep.plan([Trial("MSE", "", {})], lambda trial: load(CONFIG), folder)
  late = threading.Timer(30, (tmp_path / "seen").touch)
  late.start()
  assert sweep.run_programs(runs, {}, [], jobs=2)
  assert late.is_alive()
  late.cancel()
  assert (folder / "MSE.log").read_text() == "begun\n"


def test_a_file_of_weights_or_attributes_in_a_bucket_is_refused_in_one_sentence():
  with pytest.raises(UserError, match=r"config\.method\.features\.file is gs://bucket/a\.npz, .*copy it"):
    load_vgg("gs://bucket/a.npz", ("conv1_1",))
  settings = load(CONFIG).eval.lpips
  settings.backbone = "gs://bucket/a.npz"
  with pytest.raises(UserError, match=r"config\.eval\.lpips\.backbone is gs://bucket/a\.npz, .*copy it"):
    read_backbone(settings)
  with pytest.raises(UserError, match=r"--attributes is gs://bucket/a\.csv, .*copy it"):
    read_attribute("gs://bucket/a.csv", "Male")


@pytest.mark.parametrize(
  ("workdir", "words"),
  [
    ("gs://nobody-has-this/run", "There is no bucket gs://nobody-has-this"),
    ("gs://forbidden/run", "gs://forbidden cannot be read (Forbidden"),
    ("gs://unknown-caller/run", "gcloud auth application-default login"),
    ("gs:///run", "names no bucket"),
    ("gs:/bucket/run", "--workdir is gs:/bucket/run"),
    ("s3://bucket/run", "--workdir is s3://bucket/run"),
    ("https://host/run", "--workdir is https://host/run"),
  ],
)
def test_a_place_that_cannot_be_used_costs_one_sentence(capsys, workdir, words):
  for verb in (["train", "--config", CONFIG], ["evaluate"]):
    assert cli.main([*verb, f"--workdir={workdir}"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1


def test_without_gcsfs_the_extra_is_named(monkeypatch):
  monkeypatch.setattr(bucket, "_reached", set())
  monkeypatch.setattr(bucket.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(UserError, match=r"gs://bucket/run is in a bucket.* pip install -e '\.\[gcs\]'"):
    as_path("gs://bucket/run")


@pytest.mark.parametrize("name", ["folder", "div2k"])
def test_images_are_not_read_from_a_bucket_and_its_address_is_not_cut(monkeypatch, name):
  monkeypatch.setenv("SR_JAX_TRAIN_DIR", "gs://bucket/a:gs://bucket/b")
  config = load(CONFIG)
  config.data.name = name
  with pytest.raises(UserError, match=r"config\.data\.dir is 'gs://bucket/a:gs://bucket/b'.*gcsfuse"):
    open_source(config.data)
