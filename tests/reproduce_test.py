"""A paper's table beside ours, trained as far as is needed."""

import json
import math
from pathlib import Path

import pytest

import small_runs
from sr_jax import cli, sweep
from sr_jax import config as configs
from sr_jax.configs.papers.tables import TABLES, Column, Row, Table
from sr_jax.metrics import columns
from sr_jax.reproduce import fill

CONFIG = (
  small_runs.ROLL
  + """
def sweep():
  for seed in range(2):
    yield "MSE", "mse", {"seed": seed}
  yield "no row of the table", "mse", {"optim.generator.learning_rate": 1e-5}
  yield "MAE", "mae", {}
"""
)
CLASSES = {"class_best", "class_mean", "class_probability", "classes", "one_class", "two_classes"}
BUILT_IN = [(paper, name, config) for paper, t in TABLES.items() for name in t for config in t[name].configs]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
  path = tmp_path_factory.mktemp("config") / "roll.py"
  path.write_text(CONFIG)
  return str(path)


@pytest.fixture(autouse=True)
def table(path, monkeypatch):
  columns = {
    "H, nats": Column("swiss_roll_nll"),
    "above MAP, millinats": Column("swiss_roll_nll", ".1f", 1000, "MAP"),
    "judged": Column(""),
  }
  rows = {
    "MAP": Row("swiss_roll_map", (3.0, 3.0, None)),
    "MSE": Row("MSE", (9.0, 9.0, 0.5)),
    "MAE": Row("MAE", (6.0, 6.0, None)),
    "theirs": Row("", (1.0, None, None)),
  }
  tables = {"table9": Table("a test", {path: ("Everything is smaller.",)}, columns, rows, ("A note.",))}
  monkeypatch.setitem(TABLES, "amap", tables)


def run(workdir, *words) -> int:
  return cli.main(["reproduce", "amap", "table9", "--workdir", str(workdir), *words])


def found(workdir):
  return json.loads((workdir / "amap_table9.json").read_text())


def test_a_table_trains_its_rows_once_and_stands_beside_the_papers(tmp_path, path, capsys, monkeypatch):
  assert cli.main(["sweep", "--config", path, "--workdir", str(tmp_path), "--trial=1"]) == 0
  capsys.readouterr()
  before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/checkpoints/*")}
  assert run(tmp_path, "--read") == 0
  text = capsys.readouterr().out
  assert "| missing" in text
  assert "- missing: MSE_seed=0 (not begun); MAE (not begun)" in text
  assert found(tmp_path)["rows"]["MSE"]["trials"] == 1
  assert not (tmp_path / "MAE").exists()

  assert run(tmp_path) == 0
  text = capsys.readouterr().out
  assert text == (tmp_path / "amap_table9.md").read_text() + "\n"
  assert not (tmp_path / "no-row-of-the-table").exists()
  assert {file: file.stat().st_mtime_ns for file in before} == before
  assert (tmp_path / "sweep_plot.png").exists()
  own = json.loads((tmp_path / "sweep.json").read_text())["rows"]
  nll = {row: own[row]["swiss_roll_nll"] for row in ("swiss_roll_map", "MSE", "MAE")}
  spread = own["MSE, +- over 2"]["swiss_roll_nll"]
  rows = found(tmp_path)["rows"]
  assert rows["MSE"]["columns"]["H, nats"] == {
    **{"paper": 9.0, "column": "swiss_roll_nll", "ours": pytest.approx(nll["MSE"])},
    "deviation": pytest.approx(spread),
  }
  above = rows["MSE"]["columns"]["above MAP, millinats"]
  assert above["paper"] == 6.0
  assert above["ours"] == pytest.approx(1000 * (nll["MSE"] - nll["swiss_roll_map"]))
  assert above["deviation"] == pytest.approx(1000 * spread)
  assert {name: row["trials"] for name, row in rows.items()} == {"MAP": 1, "MSE": 2, "MAE": 1, "theirs": 0}
  lines = {
    line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in text.splitlines()[2:8]
  }
  assert lines["MSE"] == [
    *("9.00", f"{nll['MSE']:.2f} +- {spread:.2f}", "6.0"),
    *(f"{above['ours']:.1f} +- {1000 * spread:.1f}", "0.50", "", "2"),
  ]
  assert lines["MAE"][1] == f"{nll['MAE']:.2f}"
  assert lines["theirs"] == ["1.00", *[""] * 6]
  assert "- Everything is smaller.\n- A note.\n" in text
  assert "missing" not in text

  monkeypatch.setattr(sweep, "train_stages", None)  # nothing is trained again
  assert run(tmp_path) == 0
  assert found(tmp_path)["rows"] == rows


def test_a_table_whose_trial_fails_says_so_and_exits_with_1(tmp_path, monkeypatch, capsys):
  def failing(*_):
    raise RuntimeError("no memory left")

  monkeypatch.setattr(sweep, "train_stages", failing)
  assert run(tmp_path) == 1
  assert "MAE (RuntimeError: no memory left)" in capsys.readouterr().out
  assert "ours" not in found(tmp_path)["rows"]["MSE"]["columns"]["H, nats"]


@pytest.mark.parametrize(
  ("words", "sentence"),
  [
    (["psrr"], "PAPER"),
    (["varsr", "table9", "--workdir=new"], "TABLE"),
    (["varsr", "table3", "--workdir=new", "--config=srim_demo"], "--config"),
    (["varsr", "table3"], "--workdir is missing"),
    (["varsr", "table3", "--workdir=new", "--read"], "does not exist"),
    (["varsr", "table4", "--workdir=new"], "needs config.eval.classifier"),
    (["--config.seed=1"], "no option of reproduce"),
  ],
)
def test_what_cannot_be_reproduced_is_one_sentence(tmp_path, monkeypatch, capsys, words, sentence):
  monkeypatch.chdir(tmp_path)
  assert cli.main(["reproduce", *words]) == 2
  (line,) = capsys.readouterr().err.strip().splitlines()
  assert sentence in line
  assert not list(Path().iterdir())


def test_all_tables_are_listed(capsys):
  assert cli.main(["reproduce"]) == 0
  text = capsys.readouterr().out
  assert all(f"{paper} {name}\n" in text for paper, tables in TABLES.items() for name in tables)
  assert cli.main(["reproduce", "srmap"]) == 0
  text = capsys.readouterr().out
  assert "srmap_bsds, srmap_div2k" in text
  assert "varsr" not in text


@pytest.mark.parametrize(("paper", "name", "config"), BUILT_IN)
def test_every_table_has_the_rows_and_columns_that_its_configs_measure(paper, name, config, monkeypatch):
  monkeypatch.undo()
  table = TABLES[paper][name]
  trials = {row: (variant, keys) for row, variant, keys in configs.load_module(config)["sweep"]()}
  settings = {}
  for row, (variant, keys) in trials.items():
    words = [f"--config.{key}={value}" for key, value in keys.items()]
    settings[row] = configs.override(configs.load(f"{config}:{variant}"), words).eval
  for title, row in table.rows.items():
    assert len(row.numbers) == len(table.columns), title
    if not row.ours:
      continue
    if row.ours not in settings:
      assert all(row.ours in own.baselines for own in settings.values()), title
      assert not row.kind
    own = settings.get(row.ours) or next(iter(settings.values()))
    if row.kind == "best":
      assert own.samples > 1
    elif row.kind:
      assert row.kind in [f"tau = {1 / t:.3g}" for t in own.temperatures if t], title
    known = set(columns(own.metrics)) | (CLASSES if table.needs == "eval.classifier" else {""})
    assert {column.ours for column in table.columns.values()} <= known | {""}, title
  assert {column.above for column in table.columns.values()} <= {"", *table.rows}
  assert all(text.endswith(".") for text in (*table.configs[config], *table.notes))


def test_ours_is_of_the_kind_and_unit_that_the_table_asks_for():
  headings = {"%": Column("part", scale=100), "lost": Column("nothing")}
  rows = {
    "mean": Row("VarSR", (1.0, None)),
    "best": Row("VarSR", (2.0, None), "best"),
    "tau": Row("VarSR", (3.0, None), "tau = 1.1"),
    "base": Row("bicubic", (4.0, None)),
    "gone": Row("GAN", (5.0, None)),
  }
  measured = {
    "VarSR": [{"part": 0.1}, {"part": 0.3}],
    "VarSR, best of 5": [{"part": 0.5}],
    "VarSR, best of 6": [{"part": 9.0}],
    "VarSR, tau = 1.1": [{"part": 0.6}, {"part": math.nan}],
  }
  made = fill(Table("", {}, headings, rows), {"bicubic": {"part": 0.7}}, measured, 5)
  ours = {title: row["columns"]["%"].get("ours", "none") for title, row in made.items()}
  assert ours == {"mean": pytest.approx(20), "best": 50, "tau": None, "base": 70, "gone": "none"}
  assert made["mean"]["columns"]["%"]["deviation"] == pytest.approx(100 * math.sqrt(0.02))
  assert {title: row["trials"] for title, row in made.items()} == {
    **{"mean": 2, "best": 1, "tau": 2, "base": 1},
    "gone": 0,
  }
  assert all(row["columns"]["lost"] == {"paper": None, "column": "nothing"} for row in made.values())
