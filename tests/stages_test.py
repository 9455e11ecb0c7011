"""Stages, networks taken from elsewhere, and sweeps, as a user runs them."""

import json
import re
import shutil
import sys
from argparse import Namespace
from contextlib import contextmanager

import jax
import numpy as np
import pytest
from flax import traverse_util

import small_runs
from sr_jax import cli, commands, graft, parallel, whole_run
from sr_jax import config as configs
from sr_jax.config import stage_config
from sr_jax.configs import base, derive
from sr_jax.errors import UserError
from sr_jax.graft import read_file
from sr_jax.run import load_run
from sr_jax.stages import Sources, check_stages, plan_stages

# A config file of a user's, with a sweep of a method that has a stage.
CONFIG = (
  small_runs.ROLL.replace("def get_config", "def roll")
  + """
def get_config(variant="affdg"):
  config = roll(variant)
  config.train.update({"rounds": 20, "log_every": 10, "checkpoint_every": 5})
  config.train.update({"eval_every": 10, "eval_limit": 8})
  if variant == "affdg":
    config.method.snapshots = 2
    config.networks.prior.widths = (8,)
    config.stages.prior.train.rounds = 10
  return config


def sweep():
  for seed in (0, 1):
    yield "MSE", "mse", {"seed": seed}
  yield "AffDG", "affdg"
"""
)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  path = tmp_path_factory.mktemp("config") / "roll.py"
  path.write_text(CONFIG)
  return str(path)


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("staged")
  assert cli.main(["train", "--config", config, "--workdir", str(workdir)]) == 0
  return workdir


def state(workdir):
  return jax.device_get(load_run(workdir).state)


def same(a, b) -> bool:
  return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def refusal(capsys, *words: str) -> str:
  assert cli.main(list(words)) == 2
  (line,) = capsys.readouterr().err.strip().splitlines()
  return line


def test_one_command_trains_the_stages_in_order_and_hands_their_networks_on(trained):
  prior, main = state(trained / "prior"), state(trained)
  assert int(prior.step) == 10
  assert int(main.step) == 20
  assert same(prior.params["snapshots"], main.params["snapshots"])
  assert "snapshots" not in main.opt
  stage = load_run(trained / "prior").config
  assert stage.method.name == "denoiser"
  assert stage.train.batch == 20  # what it does not say itself it has from the run
  assert stage.train.rounds == 10


def test_held_out_images_are_measured_while_it_trains(trained):
  for folder, column in ((trained, "eval/swiss_roll_nll"), (trained / "prior", "eval/loss_denoising_mse")):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    measured = {line["step"]: line[column] for line in lines if column in line}
    assert sorted(measured) == ([10, 20] if folder == trained else [10])
    assert all(np.isfinite(v) for v in measured.values())


def test_a_run_stopped_within_a_stage_ends_as_if_it_had_not_been(config, trained, tmp_path, monkeypatch):
  rounds = iter(range(1, 100))
  stops = {4}

  @contextmanager
  def stop_signals():
    yield lambda: next(rounds) in stops

  monkeypatch.setattr(parallel, "stop_signals", stop_signals)
  words = ["train", "--config", config, "--workdir", str(tmp_path)]
  assert cli.main(words) == commands.STOPPED
  assert int(state(tmp_path / "prior").step) == 4
  assert not (tmp_path / "checkpoints").exists()
  stops.clear()
  assert cli.main(words) == 0
  assert same(state(tmp_path), state(trained))


def test_a_seed_of_the_run_is_that_of_its_stages(config):
  run = configs.override(configs.load(config), ["--config.seed=7", "--config.stages.prior.train.rounds=3"])
  stage = stage_config(run, "prior")
  assert stage.seed == 7
  assert stage.train.rounds == 3
  assert not stage.stages
  assert not stage.init_from


def test_a_stage_goes_on_when_a_key_of_the_run_that_it_has_not_is_changed(config, trained, tmp_path):
  shutil.copytree(trained / "prior", tmp_path / "prior")
  words = [
    "train",
    f"--config={config}",
    f"--workdir={tmp_path}",
    "--config.optim.generator.learning_rate=2e-2",
  ]
  assert cli.main(words) == 0
  assert same(state(tmp_path / "prior"), state(trained / "prior"))
  assert "generator" not in load_run(tmp_path / "prior").config.optim
  assert "soft_weight" not in load_run(tmp_path / "prior").config.method


@pytest.mark.parametrize(
  ("keys", "words"),
  [({"trian": {"rounds": 3}}, "did you mean 'train'"), ({"train": {"round": 3}}, "did you mean 'rounds'")],
)
def test_an_unknown_key_of_a_stage_raises_a_user_error_with_the_nearest_one(config, keys, words):
  run = configs.load(config)
  derive.add_stage(run, "extra", **keys)
  with pytest.raises(UserError, match=words):
    stage_config(run, "extra")


def test_networks_come_from_a_run_under_another_name_or_from_a_weight_file(config, trained, tmp_path, capsys):
  whole = state(trained)
  flat = traverse_util.flatten_dict({"params": whole.params["generator"]}, sep="/")
  np.savez(tmp_path / "generator.npz", **flat)
  assert same(read_file(tmp_path / "generator.npz")[0], whole.params["generator"])
  words = ["train", "--config", f"{config}:mse", "--config.optim.generator.learning_rate=0.0"]
  for i, source in enumerate((tmp_path / "generator.npz", trained)):
    folder = tmp_path / str(i)
    given = f"--config.init_from=('generator={source}',)"
    assert cli.main([*words, f"--workdir={folder}", given]) == 0
    assert same(state(folder).params["generator"], whole.params["generator"])


def test_a_run_that_has_begun_goes_on_without_the_run_its_network_came_from(config, trained, tmp_path):
  shutil.copytree(trained, tmp_path / "source")
  words = ["train", f"--config={config}:mse", f"--workdir={tmp_path / 'run'}", "--config.train.eval_every=0"]
  words.append(f"--config.init_from=('generator={tmp_path / 'source'}',)")
  words.append("--config.optim.generator.schedule=constant")
  assert cli.main([*words, "--config.train.rounds=5"]) == 0
  shutil.rmtree(tmp_path / "source")
  assert cli.main([*words, "--config.train.rounds=6"]) == 0
  assert int(state(tmp_path / "run").step) == 6


@pytest.mark.parametrize(
  ("entry", "reason"),
  [
    ("generator", "ROLE=SOURCE"),
    ("snapshots=nowhere", "no earlier stage"),
    ("snapshots=prior:generator", "has prior, snapshots"),
    ("generator=prior:snapshots", "do not fit it"),
    ("critic=prior:snapshots", "no network 'critic'"),
    ("snapshots=prior:prior", "name one source for 'snapshots'"),
  ],
)
def test_a_network_from_nowhere_raises_one_sentence(config, trained, tmp_path, capsys, entry, reason):
  given = f"--config.init_from=('{entry}', 'snapshots=prior')"
  words = ["train", f"--config={config}", f"--workdir={tmp_path}", given]
  assert reason in refusal(capsys, *words)
  assert not any(tmp_path.iterdir())


def test_test_images_that_a_critic_cannot_see_are_measured_without_its_losses(tmp_path):
  config = small_runs.tiny("srmap")
  for source, size in ((config.data, (24, 32)), (config.eval.data, (12, 8))):
    folder = small_runs.write_images(tmp_path / str(size), 2, size)
    source.update({"name": "folder", "dir": str(folder)})
  config.eval.losses = True
  with pytest.raises(UserError, match=r"SRMAPCritic.*set config\.eval\.losses=False"):
    check_stages(plan_stages(config, tmp_path), Sources())
  config.eval.losses = False
  check_stages(plan_stages(config, tmp_path), Sources())


def test_a_profile_ends_with_its_stage(config, tmp_path, capsys):
  words = [f"--config={config}", f"--workdir={tmp_path}", "--config.train.profile_from=2"]
  assert cli.main(["train", *words]) == 0
  for folder in (tmp_path / "prior", tmp_path):
    assert any(path.is_file() for path in (folder / "profile").rglob("*"))
  assert "No profile" not in capsys.readouterr().err


def test_a_guided_method_without_its_prior_raises_a_user_error_before_anything_is_trained(
  config, tmp_path, capsys
):
  words = ["train", f"--config={config}", f"--workdir={tmp_path / 'run'}", "--config.init_from=()"]
  assert "snapshots" in refusal(capsys, *words)
  assert not (tmp_path / "run").exists()


def test_stages_build_on_earlier_ones_and_those_nobody_asks_for_are_left_out(config, trained, tmp_path):
  text = """
import roll
from sr_jax.configs import derive


def get_config():
  config = roll.get_config("mse")
  for name, source in (("one", ()), ("two", ("generator=one",)), ("idle", ())):
    derive.add_stage(config, name, init_from=source, train={"rounds": 3}, seed=5)
  config.init_from = ("generator=two",)
  config.optim.generator.learning_rate = 0.0
  return config
"""
  (tmp_path / "chain.py").write_text(text)
  (tmp_path / "roll.py").write_text(CONFIG)
  sys.path.insert(0, str(tmp_path))
  try:
    assert cli.main(["train", f"--config={tmp_path / 'chain.py'}", f"--workdir={tmp_path / 'run'}"]) == 0
  finally:
    sys.path.remove(str(tmp_path))
  one, two, run = (state(tmp_path / "run" / name) for name in ("one", "two", ""))
  # Nothing moves at a rate of zero: all have what the first began with.
  assert same(one.params, two.params)
  assert same(two.params, run.params)
  assert not (tmp_path / "run" / "idle").exists()
  # A prior that another run has made is not made again.
  words = ["train", f"--config={config}", f"--workdir={tmp_path / 'other'}"]
  assert cli.main([*words, f"--config.init_from=('snapshots={trained / 'prior'}',)"]) == 0
  assert not (tmp_path / "other" / "prior").exists()
  assert same(state(tmp_path / "other"), state(trained))


def test_a_bad_trial_raises_a_user_error_before_the_first_is_trained(tmp_path, capsys):
  text = (
    CONFIG
    + """
  yield "bad", "affdg", {"init_from": "('snapshots=prior:generator',)"}
"""
  )
  (tmp_path / "bad.py").write_text(text)
  words = ["sweep", f"--config={tmp_path / 'bad.py'}", f"--workdir={tmp_path / 'sweep'}"]
  assert "has prior, snapshots" in refusal(capsys, *words)
  assert not (tmp_path / "sweep").exists()


def test_half_precision_in_a_weight_file_becomes_the_networks_own(trained, tmp_path):
  run = load_run(trained)
  half = jax.tree.map(lambda v: np.asarray(v, np.float16), jax.device_get(run.state.params["generator"]))
  moved = graft.put(run.state, ({"generator": half}, {"generator": {}}))
  assert {v.dtype for v in jax.tree.leaves(moved.params["generator"])} == {np.dtype(np.float32)}
  for ours, theirs in zip(jax.tree.leaves(moved.params["generator"]), jax.tree.leaves(half), strict=True):
    np.testing.assert_allclose(ours, theirs)


def test_a_weight_file_with_other_keys_raises_a_user_error(tmp_path):
  np.savez(tmp_path / "bad.npz", kernel=np.zeros(3))
  with pytest.raises(UserError, match="params/"):
    read_file(tmp_path / "bad.npz")
  (tmp_path / "worse.npz").write_text("nothing")
  with pytest.raises(UserError, match=r"no \.npz"):
    read_file(tmp_path / "worse.npz")


def test_a_sweep_is_one_table_of_means_and_spreads_beside_the_baseline(config, tmp_path, capsys):
  words = ["sweep", f"--config={config}", f"--workdir={tmp_path}", "--config.train.log_every=20"]
  assert cli.main(words) == 0
  rows = json.loads((tmp_path / "sweep.json").read_text())["rows"]
  assert list(rows) == ["swiss_roll_map", "MSE", "MSE, +- over 2", "AffDG"]
  single = [
    json.loads((tmp_path / f"MSE_seed={s}" / "evaluation" / "table.json").read_text())["rows"]["regression"]
    for s in (0, 1)
  ]
  values = [row["swiss_roll_nll"] for row in single]
  assert values[0] != values[1]
  assert rows["MSE"]["swiss_roll_nll"] == pytest.approx(np.mean(values))
  assert rows["MSE, +- over 2"]["swiss_roll_nll"] == pytest.approx(np.std(values, ddof=1))
  assert rows["swiss_roll_map"]["swiss_roll_nll"] < rows["MSE"]["swiss_roll_nll"]
  assert load_run(tmp_path / "MSE_seed=1").config.seed == 1
  # The same command goes on where it was: nothing is trained again.
  kept = [tmp_path / "AffDG" / name for name in ("metrics.jsonl", "evaluation/table.json")]
  before = [path.stat().st_mtime_ns for path in kept]
  assert cli.main(words) == 0
  assert [path.stat().st_mtime_ns for path in kept] == before, "neither trained nor measured again"
  assert json.loads((tmp_path / "sweep.json").read_text())["rows"] == rows


def test_keys_that_a_saved_config_lacks_have_their_defaults_and_are_named(trained, caplog):
  whole = load_run(trained).config
  config = whole.copy_and_resolve_references()
  with config.unlocked():
    del config.optim.generator["clip"], config.networks.prior["residual"], config.method["input"]
    del config.eval["judge"]
  with caplog.at_level("WARNING"):
    completed = configs.complete(config, "runs/old")
  assert completed == whole
  assert not configs.differences(completed, whole)
  for key in ("optim.generator.clip", "networks.prior.residual", "method.input", "eval.judge"):
    assert key in caplog.text


def test_a_trial_that_diverges_is_marked_and_the_others_go_on(config, tmp_path, capsys):
  text = CONFIG.replace(
    'yield "AffDG", "affdg"', 'yield "MSE", "mse", {"optim.generator.learning_rate": 1e30}'
  )
  (tmp_path / "diverging.py").write_text(text)
  words = ["sweep", f"--config={tmp_path / 'diverging.py'}", f"--workdir={tmp_path / 'sweep'}"]
  assert cli.main(words) == 0
  rows = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["rows"]
  assert list(rows) == ["swiss_roll_map", "MSE", "MSE, +- over 2", "MSE, 1 diverged"]
  assert "diverged |" in capsys.readouterr().out
  assert cli.main([*words, "--list"]) == 0
  ((number, name),) = re.findall(r"(\d+)\t(\S+)\tdiverged", capsys.readouterr().out)
  assert cli.main([*words, f"--trial={number}"]) == 0, "as that of the whole sweep"
  assert f"{name}: gradient_norm is" in capsys.readouterr().err


def test_a_config_without_a_sweep_or_a_variant_that_does_not_exist_raises_a_user_error(tmp_path, capsys):
  assert "no sweep()" in refusal(capsys, "sweep", "--config=digit_classifier", f"--workdir={tmp_path}")
  line = refusal(capsys, "train", "--config=amap_swiss_roll:afgan", f"--workdir={tmp_path}")
  assert re.search("afgan.*affgan", line)


def test_a_stage_with_an_optimiser_of_its_own_leaves_the_runs_own_as_it_was():
  """Of another method and of the same one."""
  for method, stage in (("srmap", "l1"), ("varsr", "pixel")):
    config = base.get_config(method)
    with config.unlocked():
      config.stages[stage].optim = {"generator": {"learning_rate": 0.5, "b1": 0.1}}
    before = config.to_json()
    assert stage_config(config, stage).optim.generator.learning_rate == 0.5
    assert config.to_json() == before


def test_a_stage_trains_and_is_measured_on_images_of_its_own(config, tmp_path, monkeypatch):
  run, given = configs.load(config), []
  own = {"data": {"split": "validation"}, "eval": {"data": {"split": "train"}}}
  with run.unlocked():
    run.stages.prior.update(own)
  monkeypatch.setattr(whole_run, "make_watch", lambda config, source: given.append(source.title))

  def stopped(config, folder, watch, earlier, source):
    given.append(source.title)
    return Namespace(state=Namespace(step=0))

  monkeypatch.setattr(whole_run, "train", stopped)
  whole_run.train_stages(run, tmp_path)
  assert [title.rsplit(" ")[-1] for title in given] == ["train", "validation"]
