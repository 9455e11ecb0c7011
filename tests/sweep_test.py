"""Trials of a sweep on many machines and at many times, and the one table of them."""

import argparse
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import small_runs
from sr_jax import cli, ledger, parallel, sweep, sweep_commands, sweep_table, whole_run
from sr_jax import config as configs
from sr_jax.errors import STOPPED, TryAgain, UserError
from sr_jax.evaluate import Report, conditions_of
from sr_jax.files import locked
from sr_jax.ledger import Trial
from sr_jax.report.plots import plot
from sr_jax.report.tables import write_per_image
from sr_jax.run import load_run
from sr_jax.stages import Sources

CONFIG = (
  small_runs.ROLL
  + """
def sweep():
  yield "MSE", "mse", {"seed": 0}
  yield "MSE", "mse", {"seed": 1}
  yield "slow", "mse", {"optim.generator.learning_rate": 1e-5}
"""
)
IDS = ["MSE_seed=0", "MSE_seed=1", "slow"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  path = tmp_path_factory.mktemp("config") / "roll.py"
  path.write_text(CONFIG)
  return str(path)


def run(config, workdir, *words) -> int:
  return cli.main(["sweep", "--config", config, "--workdir", str(workdir), *words])


def rows(workdir):
  return json.loads((workdir / "sweep.json").read_text())["rows"]


def states(capsys, config, workdir, *words) -> list[str]:
  capsys.readouterr()
  assert run(config, workdir, "--list", *words) == 0
  lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
  assert [line[:2] for line in lines] == [[str(n), name] for n, name in enumerate(IDS)]
  return [line[2] for line in lines]


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
  """The sweep in one command."""
  workdir = tmp_path_factory.mktemp("whole")
  assert run(config, workdir) == 0
  return workdir


def test_trials_run_one_by_one_give_the_table_of_one_command_at_any_time(config, whole, tmp_path, capsys):
  assert states(capsys, config, tmp_path) == ["not begun"] * 3
  assert list(tmp_path.iterdir()) == []
  assert run(config, tmp_path, "--trial=1") == 0
  assert states(capsys, config, tmp_path) == ["not begun", "finished", "not begun"]
  assert list(rows(tmp_path)) == ["swiss_roll_map", "MSE"]
  for trial in (2, 0):
    assert run(config, tmp_path, f"--trial={trial}") == 0
  measured = [
    list(json.loads((tmp_path / name / "evaluation/table.json").read_text())["rows"]) for name in IDS
  ]
  assert [("swiss_roll_map" in names) for names in measured] == [False, True, False], "once is enough"
  for name in ("sweep.json", "sweep.md", "sweep_plot.png"):
    (tmp_path / name).unlink()
  capsys.readouterr()
  assert run(config, tmp_path, "--table") == 0
  assert "missing" not in capsys.readouterr().out
  assert rows(tmp_path) == rows(whole)
  assert list(rows(tmp_path)) == ["swiss_roll_map", "MSE", "MSE, +- over 2", "slow"]
  assert (tmp_path / "sweep_plot.png").exists()
  lines = json.loads((tmp_path / "ledger.json").read_text())
  assert [line["id"] for line in lines] == IDS
  assert lines[1] == {"id": "MSE_seed=1", "row": "MSE", "variant": "mse", "overrides": {"seed": "1"}}


def test_several_at_once_give_the_same_table_and_do_nothing_twice(config, whole, tmp_path, capsys):
  shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
  for name in IDS[1:]:
    shutil.rmtree(tmp_path / name)
  assert run(config, tmp_path, "--jobs=2") == 0
  assert rows(tmp_path) == rows(whole)
  kept = {path: path.stat().st_mtime_ns for name in IDS for path in (tmp_path / name).rglob("*.json*")}
  logs = {path: path.read_text() for path in tmp_path.glob("*.log")}
  assert run(config, tmp_path, "--jobs=2") == run(config, tmp_path) == run(config, tmp_path, "--trial=0") == 0
  assert {path: path.stat().st_mtime_ns for path in kept} == kept
  assert {path: path.read_text() for path in logs} == logs
  assert len(logs) == 2
  capsys.readouterr()
  assert (
    run(config, tmp_path, "--list", "--config.train.log_every=1") == 0
  )  # nothing that was trained otherwise
  assert capsys.readouterr().out.count("\tfinished\n") == 3


def test_a_trial_that_failed_is_named_and_run_again_alone(config, whole, tmp_path, capsys, monkeypatch):
  train = whole_run.train_stages

  def failing(config, folder, sources):
    if folder.name == IDS[0]:
      raise RuntimeError("no memory left\nin the middle")
    return train(config, folder, sources)

  monkeypatch.setattr(whole_run, "train_stages", failing)
  (tmp_path / IDS[1]).mkdir()
  with locked(tmp_path / IDS[1]):  # as if another machine were at it
    assert run(config, tmp_path) == 1
  assert (
    "missing: MSE_seed=0 (RuntimeError: no memory left); MSE_seed=1 (unfinished)" in capsys.readouterr().out
  )
  assert states(capsys, config, tmp_path) == ["failed", "unfinished", "finished"]
  with pytest.raises(RuntimeError, match="no memory"):
    sweep.run_trial(*planned(config, tmp_path), {}, Sources(), "")
  monkeypatch.undo()
  trained = []
  monkeypatch.setattr(whole_run, "train_stages", lambda *args: trained.append(args[1].name) or train(*args))
  assert run(config, tmp_path) == 0
  assert trained == IDS[:2]
  assert states(capsys, config, tmp_path) == ["finished"] * 3
  assert rows(tmp_path) == rows(whole)


def planned(config, workdir):
  trial = Trial("MSE", "mse", {"seed": 0})
  return sweep.plan([trial], lambda trial: configs.load(config), workdir)


def three_programs(script, tmp_path, config, monkeypatch) -> list[sweep.Planned]:
  """Three trials whose programs are this shell script, for which --trial=N is $5."""
  small_runs.replace_python(script, tmp_path, monkeypatch)
  monkeypatch.chdir(tmp_path)
  trials = [Trial("row", "mse", {"seed": seed}) for seed in range(3)]
  return sweep.plan(trials, lambda trial: configs.load(config), tmp_path)


def test_a_program_waits_for_the_trial_that_judges_its_own(tmp_path, config, monkeypatch):
  script = "echo begin $5 >> told\nsleep 0.5\necho end $5 >> told"
  judge, judged, other = three_programs(script, tmp_path, config, monkeypatch)
  judged.config.eval.classifier = str(judge.folder)
  assert sweep.run_programs([judge, judged, other], {}, ["sweep", "words"], jobs=3)
  told = (tmp_path / "told").read_text().splitlines()
  assert told.index("begin --trial=2") < told.index("end --trial=0") < told.index("begin --trial=1")


def test_a_trial_needs_others_by_any_path_but_not_itself(tmp_path, config, monkeypatch):
  script = "echo begin $5 >> told\nsleep 0.5\necho end $5 >> told"
  first, second, third = three_programs(script, tmp_path, config, monkeypatch)
  # As a flag gives it to all: the one that it names is not shown beside itself.
  trials = [one.entry.trial for one in (first, second, third)]
  beside = configs.override(configs.load(config), [f"--config.eval.beside=('{first.folder.name}',)"])
  runs = sweep.plan(trials, lambda trial: beside.copy_and_resolve_references(), tmp_path)
  assert [len(run.config.eval.beside) for run in runs] == [0, 1, 1]
  sweep.check(runs, Sources())  # the first one will be there, by a path from here too
  for run in (first, second):
    run.config.eval.beside = (f"./{first.folder.name}",)
  assert sweep.with_needed([second], [third, first, second]) == [first, second]
  assert sweep.run_programs([second, first], {}, ["sweep", "words"], jobs=2)
  begun = [word for word in (tmp_path / "told").read_text().splitlines() if word.startswith("begin")]
  assert begun == ["begin --trial=0", "begin --trial=1"]
  first.config.eval.beside = (str(second.folder),)
  assert sweep.with_needed([second], [first, second]) == [first, second]
  with pytest.raises(UserError, match="waits for another of them"):
    sweep.run_programs([first, second], {}, ["sweep", "words"], jobs=2)


def test_a_trial_whose_program_is_killed_or_cannot_begin_has_failed(tmp_path, config, monkeypatch):
  script = "case $5 in --trial=1) kill -9 $$ ;; --trial=2) exit 3 ;; esac"
  runs = three_programs(script, tmp_path, config, monkeypatch)
  assert sweep.run_programs(runs, {}, ["sweep", "words"], jobs=2)
  assert [sweep.state(run, {}) for run in runs] == ["not begun", "failed", "failed"]
  assert sweep.failure(runs[1]) == "Killed: signal 9 ended its program."
  assert sweep.failure(runs[2]) == "Its program ended with exit code 3: see row_seed=2.log."


def test_sigterm_stops_all_programs_and_starts_no_more(tmp_path, config, monkeypatch):
  runs = three_programs("echo $5 >> started\nexec sleep 60", tmp_path, config, monkeypatch)

  def stop() -> None:
    while not (tmp_path / "started").exists() or (tmp_path / "started").read_text().count("\n") < 2:
      time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=stop, daemon=True).start()
  assert sweep.run_programs(runs, {}, ["sweep", "words"], jobs=2) is False
  assert sorted((tmp_path / "started").read_text().split()) == ["--trial=0", "--trial=1"]


def test_numbers_and_ids_stay_when_trials_join_and_leave(tmp_path):
  first = [Trial("MSE", "", {"seed": 0}), Trial("MAE")]
  entries = ledger.number_trials(first, tmp_path)
  assert [(e.number, e.id) for e in entries] == [(0, "MSE"), (1, "MAE")]
  assert not (tmp_path / "ledger.json").exists()
  ledger.write(entries, tmp_path)
  later = [Trial("MAE", "", {"seed": 5}), Trial("MSE", "", {"seed": 1}), Trial("MSE", "", {"seed": 0})]
  entries = ledger.number_trials(later, tmp_path)
  assert [(e.number, e.id) for e in entries] == [(2, "MAE_2"), (3, "MSE_seed=1"), (0, "MSE")]
  ledger.write(entries, tmp_path)
  ledger.write(entries, tmp_path)
  assert [line["id"] for line in json.loads((tmp_path / "ledger.json").read_text())] == [
    *("MSE", "MAE", "MAE_2", "MSE_seed=1")
  ]
  assert ledger.number_trials(first, tmp_path)[1][:2] == (1, "MAE")


def test_trials_that_two_programs_add_at_once_are_not_lost(tmp_path):
  ours, theirs = (ledger.number_trials([Trial(row)], tmp_path) for row in ("ours", "theirs"))
  ledger.write(theirs, tmp_path)
  with pytest.raises(TryAgain, match="Another program has just added trials"):
    ledger.write(ours, tmp_path)
  assert [line["id"] for line in json.loads((tmp_path / "ledger.json").read_text())] == ["theirs"]


@pytest.mark.parametrize("row", ["..", ".", "x" * 300])
def test_a_row_that_no_folder_can_be_called_is_refused(tmp_path, row):
  with pytest.raises(UserError, match="cannot be a folder"):
    ledger.number_trials([Trial(row)], tmp_path)


@pytest.mark.parametrize(
  ("words", "sentence"),
  [
    (["--trial=7"], "--trial 7 is none of this sweep"),
    (["--table"], "does not exist"),
  ],
)
def test_what_a_sweep_cannot_do_is_one_sentence_and_writes_nothing(config, tmp_path, capsys, words, sentence):
  assert run(config, tmp_path / "new", *words) == 2
  (line,) = capsys.readouterr().err.strip().splitlines()
  assert sentence in line
  assert not (tmp_path / "new").exists()


def test_processes_share_a_trial_and_no_sweep():
  with pytest.raises(UserError, match="--distributed only with --trial"):
    sweep_commands.sweep(argparse.Namespace(distributed="auto", trial=None), [])


def test_the_metric_that_is_asked_for_is_plotted_if_it_is_a_column(config, whole, capsys, monkeypatch):
  assert run(config, whole, "--table=pnsr") == 2
  assert "--table is 'pnsr'" in capsys.readouterr().err
  drawn = []
  monkeypatch.setattr(sweep_table, "plot", lambda points, title, path: drawn.append((title, points)))
  assert run(config, whole, "--table=swiss_roll_nll") == 0
  ((title, points),) = drawn
  assert title == "swiss_roll_nll"
  assert points["MSE"][0] == pytest.approx(rows(whole)["MSE"]["swiss_roll_nll"])


def test_programs_at_once_share_the_gpus_of_a_machine(monkeypatch):
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5,7")
  shares = [parallel.share_of_gpus(slot, 2) for slot in range(2)]
  assert shares == [{"CUDA_VISIBLE_DEVICES": "2,3"}, {"CUDA_VISIBLE_DEVICES": "5,7"}]
  shares = [parallel.share_of_gpus(slot, 6) for slot in range(6)]
  assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["2", "3", "5", "7", "2", "3"]
  assert {share["XLA_PYTHON_CLIENT_MEM_FRACTION"] for share in shares} == {"0.45"}
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
  assert parallel.share_of_gpus(0, 2) == {}


def test_a_stopped_run_has_the_code_of_one_that_sigterm_killed():
  assert STOPPED == 143


def reported(monkeypatch, tmp_path, trials):
  """Runs of these (row, factor, columns), as if each had measured "bicubic" and its own row."""
  runs, reports = [], {}
  for number, (row, factor, columns) in enumerate(trials):
    config = small_runs.tiny("regression")
    config.operator.factor = factor
    config.eval.metrics = ("psnr",)
    runs.append(sweep.Planned(ledger.Entry(number, str(number), Trial(row)), config, tmp_path / str(number)))
    bicubic = {"bicubic": {"psnr": 20.0 + number}}
    reports[str(number)] = Report("", bicubic, {"": columns}, [], ("bicubic", "pinv"), conditions_of(config))
  monkeypatch.setattr(sweep_table, "read_reports", lambda runs: reports)
  monkeypatch.setattr(sweep_table, "read_images", lambda path: [])
  return runs, reports


def test_trials_of_another_operator_have_baselines_of_their_own(monkeypatch, tmp_path):
  by_factor = [("a", (4, 4)), ("b", (4, 4)), ("c", (2, 2))]
  runs, reports = reported(monkeypatch, tmp_path, [(*trial, {"psnr": 30.0}) for trial in by_factor])
  baselines, _ = sweep_table.collect(runs, reports)
  assert baselines == {"bicubic": {"psnr": 20.0}, "bicubic (c)": {"psnr": 22.0}}
  first = {"0": reports["0"]}
  assert [sweep._baselines(run, first) for run in runs[1:]] == [{"pinv"}, {"bicubic", "pinv"}]


def test_a_trial_measures_a_baseline_that_lacks_a_column_and_the_table_has_all(monkeypatch, tmp_path):
  alike = [("a", (4, 4), {"psnr": 30.0}), ("b", (4, 4), {"psnr": 31.0, "mse": 0.1})]
  runs, reports = reported(monkeypatch, tmp_path, alike)
  runs[1].config.eval.metrics = ("psnr", "mse")
  assert sweep._baselines(runs[1], {"0": reports["0"]}) == {"bicubic", "pinv"}
  reports["1"].rows["bicubic"]["mse"] = 0.2
  assert sweep._baselines(runs[0], {"1": reports["1"]}) == {"pinv"}
  assert sweep_table.collect(runs, reports)[0] == {"bicubic": {"psnr": 20.0, "mse": 0.2}}


def test_what_models_judge_differently_is_left_out_of_the_row_that_they_share(monkeypatch, tmp_path):
  runs, reports = reported(monkeypatch, tmp_path, [(row, (4, 4), {"psnr": 30.0}) for row in "ab"])
  for bits, report in zip((5.0, 7.0), reports.values(), strict=True):
    report.rows["bicubic"]["sample_loss_bits"] = bits
  assert sweep_table.collect(runs, reports)[0] == {"bicubic": {"psnr": 20.0}}
  assert sweep_table.collect(runs[:1], reports)[0] == {"bicubic": {"psnr": 20.0, "sample_loss_bits": 5.0}}


@pytest.mark.parametrize(("names", "truth"), [(["x", "y"], [1.0, 2.1]), (["x", "z"], [1.0, 2.0])])
def test_a_trial_with_other_test_images_is_named_below_the_table(monkeypatch, tmp_path, names, truth):
  runs, _ = reported(monkeypatch, tmp_path, [(row, (4, 4), {"psnr": 30.0}) for row in "abc"])
  measured = [(["x", "y"], [1.0, 2.0]), (["x", "y"], [1.0, 2.0 + 1e-5]), (names, truth)]
  for run, (images, marks) in zip(runs, measured, strict=True):
    own = {"a": {"psnr": np.array([30.0, 30.0])}}
    (run.folder / "evaluation").mkdir(parents=True)
    write_per_image(run.folder / "evaluation", images, own, {"truth": np.array(marks)})
  assert "2 had other test images than the first trial" in sweep_table.tabulate(runs, tmp_path)
  assert "other test images" not in sweep_table.tabulate(runs[:2], tmp_path)


def test_a_sweep_that_was_moved_is_still_finished(config, whole, tmp_path, capsys):
  old, new = tmp_path / "old", tmp_path / "new"
  shutil.copytree(whole, new)

  def listed(name: str, asked: Path = new) -> list[str]:
    """The states, where the first trial was measured beside old/NAME and is to be beside ASKED/slow."""
    table = new / "MSE_seed=0" / "evaluation" / "table.json"
    content = json.loads(table.read_text())
    content["meta"]["eval"]["beside"] = [str(old / name)]
    table.write_text(json.dumps(content))
    return states(capsys, config, new, f"--config.eval.beside=({str(asked / 'slow')!r},)")

  assert listed("slow") == ["finished", "unfinished", "finished"]
  assert listed("MSE_seed=1")[0] == "unfinished"
  assert listed("slow", tmp_path / "elsewhere")[0] == "unfinished"


def test_the_folder_of_a_sweep_may_have_an_apostrophe(tmp_path):
  (tmp_path / "sweep.py").write_text(CONFIG.replace('"seed": 1}', '"eval.beside": ("{workdir}/slow",)}'))
  (run,) = [
    run
    for run in sweep_commands._planned(
      argparse.Namespace(config=str(tmp_path / "sweep.py"), workdir=str(tmp_path / "o'ne")), []
    )
    if run.config.eval.beside
  ]
  assert run.config.eval.beside == (f"{tmp_path}/o'ne/slow",)


def test_trials_of_one_row_share_the_columns_that_all_of_them_have(monkeypatch, tmp_path):
  both = [("a", (4, 4), {"psnr": 30.0, "loss_mse": 1.0}), ("a", (4, 4), {"psnr": 32.0, "loss_mae": 2.0})]
  runs, _ = reported(monkeypatch, tmp_path, both)
  text = sweep_table.tabulate(runs, tmp_path)
  assert "| a            |  31.00 |" in text
  assert "loss" not in text


def test_a_plot_puts_means_in_order_and_draws_spreads(tmp_path):
  plot({"low": (1.0, 0.0), "high": (3.0, 1.0), "gone": (float("nan"), 0.0)}, "psnr", tmp_path / "a.png")
  dark = np.asarray(Image.open(tmp_path / "a.png").convert("L")) < 64
  low, high = (np.flatnonzero(dark[line, 40:]) for line in (36, 60))  # the middles of the two rows
  assert 5 < len(low) < 12, "a dot"
  assert low.max() < high.min()
  assert len(high) > 200, "two standard deviations of the four between the ends"
  plot({}, "psnr", tmp_path / "b.png")
  assert not (tmp_path / "b.png").exists()


def test_a_trial_takes_networks_from_an_earlier_one_and_from_none_that_will_not_be_there(tmp_path, capsys):
  text = (
    CONFIG[: CONFIG.index("def sweep")]
    + """
def sweep():
  yield "first", "mse", {}
  yield "second", "mse", {"init_from": ("generator={workdir}/first",), "seed": 1}
"""
  )
  path = tmp_path / "after.py"
  path.write_text(text)
  assert run(str(path), tmp_path / "runs", "--config.optim.generator.learning_rate=0.0") == 0
  a, b = (load_run(tmp_path / "runs" / name).state.params["generator"] for name in ("first", "second"))
  jax.tree.map(np.testing.assert_array_equal, a, b)
  shutil.rmtree(tmp_path / "runs" / "first" / "checkpoints" / "4")  # as if it were at round 2
  shutil.rmtree(tmp_path / "runs" / "second")
  capsys.readouterr()
  assert run(str(path), tmp_path / "runs", "--trial=1") == 2
  assert "needs the trial first, whose training stopped after round 2 of 4" in capsys.readouterr().err
  assert not (tmp_path / "runs" / "second" / "checkpoints").exists()
  path.write_text(text.replace("{workdir}/first", "{workdir}/nobody"))
  capsys.readouterr()
  assert run(str(path), tmp_path / "others") == 2
  assert "/nobody' is no earlier stage (none), run or file" in capsys.readouterr().err
  assert not (tmp_path / "others").exists()


@pytest.mark.parametrize(
  ("listing", "words"),
  [
    ('yield "MSE"', "yields 'MSE': let it yield tuples"),
    ('yield ("MSE", {"seed": 0})', "let it yield tuples (row, variant, {key: value})"),
    ("yield ()", "yields ()"),
    ("return 3", "fails (TypeError"),
    ('yield "MSE", "", {"init_from": "(1,)"}', "config.init_from is (1,): give a tuple of words"),
  ],
)
def test_a_sweep_that_lists_no_trials_is_refused_in_one_sentence(tmp_path, capsys, listing, words):
  (tmp_path / "roll.py").write_text(f"{small_runs.ROLL}\ndef sweep():\n  {listing}\n")
  assert cli.main(["sweep", f"--config={tmp_path / 'roll.py'}", f"--workdir={tmp_path}", "--list"]) == 2
  (line,) = capsys.readouterr().err.strip().splitlines()
  assert words in line


@pytest.mark.parametrize("content", ['{"a": 1}', "[1]", '[{"row": "MSE"}]', "3"])
def test_a_ledger_that_is_none_is_refused_in_one_sentence(tmp_path, content):
  (tmp_path / "ledger.json").write_text(content)
  with pytest.raises(UserError, match=r"ledger\.json cannot be read \(it is no list of trials\)"):
    ledger.number_trials([Trial("MSE")], tmp_path)


def test_programs_get_the_flags_of_the_sweep_and_gpus_of_their_own(config, tmp_path, monkeypatch):
  small_runs.replace_python("echo $CUDA_VISIBLE_DEVICES $* >> told; sleep 0.5", tmp_path, monkeypatch)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
  run(config, tmp_path / "runs", "--jobs=2", "--config.train.log_every=1")
  lines = (tmp_path / "told").read_text().splitlines()
  assert len(lines) == 3
  assert all("--config.train.log_every=1" in line for line in lines)
  assert {line.split()[0] for line in lines} == {"2", "3"}


def test_a_flag_wins_over_what_a_trial_sets(config, tmp_path):
  arguments = argparse.Namespace(config=config, workdir=str(tmp_path))
  runs = sweep_commands._planned(arguments, ["--config.optim.generator.learning_rate=0.5"])
  assert [run.config.optim.generator.learning_rate for run in runs] == [0.5] * 3


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("data.split", "test[:5]"),
    ("limit", 3),
    ("border", 1),
    ("luma", "bt709"),
    ("best_by", "lr_psnr"),
    ("classifier", "x"),
    ("lpips.net", "alex"),
    ("embedding.function", "a:b"),
  ],
)
def test_baselines_that_are_measured_otherwise_are_others(key, value):
  a, b = (small_runs.tiny("regression") for _ in range(2))
  b.update_from_flattened_dict({f"eval.{key}": value})
  assert conditions_of(a) != conditions_of(b)


def test_a_row_may_not_have_the_name_of_a_baseline(config, tmp_path):
  planned = configs.override(configs.load(config), ["--config.eval.baselines=('bicubic',)"])
  with pytest.raises(UserError, match="row 'bicubic' has the name of a baseline: give it another"):
    sweep.plan([Trial("bicubic", "mse", {})], lambda _: planned, tmp_path)
