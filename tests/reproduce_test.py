"""A paper's table beside ours, trained as far as is needed."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import small_runs
from sr_jax import cli, whole_run
from sr_jax import config as configs
from sr_jax.configs.papers.conditions import CONDITIONS
from sr_jax.configs.papers.figures import BICUBIC, FIGURES, Figure
from sr_jax.configs.papers.tables import TABLES, Column, Row, Table
from sr_jax.errors import UserError
from sr_jax.methods import make_method
from sr_jax.metrics import columns
from sr_jax.ops import swiss_roll
from sr_jax.ops.operator import Operator, make_operator
from sr_jax.report.figures import draw, kernels
from sr_jax.report.grids import MARGIN
from sr_jax.report.log import read_history
from sr_jax.report.roll import estimates, illustration
from sr_jax.reproduce import fill

CONFIG = (
  small_runs.ROLL
  + """
def sweep():
  for seed in range(2):
    yield "MSE", "mse", {"seed": seed}
  yield "no row of the table", "mse", {"optim.generator.learning_rate": 1e-5}
  yield "MAE", "mae", {}
  yield "MAE on", "mae", {"init_from": ("generator={workdir}/MAE",)}
"""
)
CLASSES = {"class_best", "class_mean", "class_probability", "classes", "one_class", "two_classes"}


def built_in(entries):
  return [(paper, name, config) for paper, e in entries.items() for name in e for config in e[name].configs]


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
  monkeypatch.setitem(TABLES, "amap", {"table9": Table("a test", (path,), columns, rows, ("A note.",))})
  shown = {"squares": "MSE", "absolute": "MAE", "Bicubic": "bicubic"}
  figures = {
    "figure7": Figure("a test", "images", (path,), shown),
    "figure8": Figure("a test", "samples", (path,), shown, notes=("A note.",)),
    "figure9": Figure("a test", "curves", (path,), shown, {"loss": "loss", "lost": "nothing"}),
    "figure10": Figure("a test", "kernels", (path,), {}, notes=("A note.",)),
    "figure11": Figure("a test", "evaluation", (path,), {"squares": "MSE"}),
    "figure12": Figure("a test", "images", (path,), {"gone on": "MAE on"}),
  }
  monkeypatch.setitem(FIGURES, "amap", figures)
  monkeypatch.setitem(CONDITIONS, path, ("Everything is smaller.",))


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
  assert "- MSE, MAE: 4 rounds with batches of 20; the first 8 test images, samples of each: 1, bor" in text
  assert "missing" not in text

  monkeypatch.setattr(whole_run, "train_stages", None)  # nothing is trained again
  assert run(tmp_path) == 0
  assert found(tmp_path)["rows"] == rows


def test_a_table_whose_trial_fails_says_so_and_exits_with_1(tmp_path, monkeypatch, capsys):
  def failing(*_):
    raise RuntimeError("no memory left")

  monkeypatch.setattr(whole_run, "train_stages", failing)
  assert run(tmp_path) == 1
  assert "MAE (RuntimeError: no memory left)" in capsys.readouterr().out
  assert "ours" not in found(tmp_path)["rows"]["MSE"]["columns"]["H, nats"]


@pytest.mark.parametrize(
  ("words", "sentence"),
  [
    (["psrr"], "PAPER"),
    (["varsr", "table9", "--workdir=new"], "NAME"),
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
  assert all(
    f"{paper} {name}\n" in text for kind in (TABLES, FIGURES) for paper in kind for name in kind[paper]
  )
  assert cli.main(["reproduce", "srmap"]) == 0
  text = capsys.readouterr().out
  assert "srmap_bsds, srmap_div2k" in text
  assert "varsr" not in text


@pytest.mark.parametrize(("paper", "name", "config"), built_in(TABLES))
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
    if row.ours in settings and row.kind in ("", "best"):
      assert own.temperatures == (1.0,), title
    if row.kind == "best":
      assert own.samples > 1
    elif row.kind:
      assert row.kind in [f"tau = {1 / t:.3g}" for t in own.temperatures if t], title
    known = set(columns(own.metrics)) | (CLASSES if table.needs == "eval.classifier" else {""})
    assert {column.ours for column in table.columns.values()} <= known | {""}, title
  assert {column.above for column in table.columns.values()} <= {"", *table.rows}
  assert all(text.endswith(".") for text in (*CONDITIONS[config], *table.notes))


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
  made = fill(Table("", (), headings, rows), {"bicubic": {"part": 0.7}}, measured, 5)
  ours = {title: row["columns"]["%"].get("ours", "none") for title, row in made.items()}
  assert ours == {"mean": pytest.approx(20), "best": 50, "tau": None, "base": 70, "gone": "none"}
  assert made["mean"]["columns"]["%"]["deviation"] == pytest.approx(100 * math.sqrt(0.02))
  assert {title: row["trials"] for title, row in made.items()} == {
    **{"mean": 2, "best": 1, "tau": 2, "base": 1},
    "gone": 0,
  }
  assert all(row["columns"]["lost"] == {"paper": None, "column": "nothing"} for row in made.values())


def png(path):
  with Image.open(path) as image:
    return np.asarray(image.convert("RGB"), np.int32)


def test_figures_are_drawn_of_runs_that_are_trained_once(tmp_path, capsys):
  def make(name, *words) -> int:
    keys = [f"--config.eval.{key}" for key in ("images=2", "samples=2", "judge=True")]
    return cli.main(["reproduce", "amap", name, "--workdir", str(tmp_path), *keys, *words])

  assert make("figure8") == 0
  text = capsys.readouterr().out
  assert text == (tmp_path / "amap_figure8.md").read_text() + "\n"
  assert "![a test](amap_figure8.png)\n\n- Everything is smaller.\n- A note.\n" in text
  assert "missing" not in text
  assert json.loads((tmp_path / "amap_figure8.json").read_text())["rows"] == {
    "squares": {"row": "MSE", "run": "MSE_seed=0"},
    "absolute": {"row": "MAE", "run": "MAE"},
  }
  before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/checkpoints/*")}
  assert len(before) == 4, "of several seeds the first is enough"
  assert make("figure7") == make("figure9", "--read") == make("figure11") == 0
  assert {file: file.stat().st_mtime_ns for file in before} == before
  # Two test images under each other, and three models: 1x2 pixels, shown as 64x128.
  heights = [png(tmp_path / f"amap_figure{n}.png").shape[0] for n in (7, 8)]
  assert heights[1] - heights[0] == 64 + MARGIN
  curves = png(tmp_path / "amap_figure9.png")
  assert all((curves == colour).all(axis=-1).sum() > 20 for colour in ([51, 102, 204], [220, 57, 18]))
  evaluated = png(tmp_path / "MSE_seed=0" / "evaluation" / "rows.png")
  np.testing.assert_array_equal(png(tmp_path / "amap_figure11.png"), evaluated)


def test_a_figure_of_images_has_the_rows_in_its_order_and_says_of_bicubic_nothing_of_the_run(
  tmp_path, monkeypatch
):
  shown = []
  monkeypatch.setattr("sr_jax.report.figures.comparison_grid", lambda rows, path: shown.append(rows))
  names = ("input", "bicubic", "truth", "samples", "sample_loss_bits_per_dim")
  images = [{name: np.full((1, 1, 1), i) for i, name in enumerate(names)}]
  monkeypatch.setattr("sr_jax.report.figures.read_images", lambda path: images * (1 + ("b" in path.parts)))
  figure = Figure("", "images", (), {"one": "A", "Bicubic": BICUBIC, "gone": "G", "two": "B"})
  draw(figure, {"one": Path("a"), "two": Path("b")}, Operator(), tmp_path)
  (rows,) = shown
  assert list(rows) == ["one", "Bicubic", "two"]
  assert [len(own) for own in rows.values()] == [1, 1, 1], "as many as all have"
  assert rows["one"][0]["samples"] == 3
  assert rows["Bicubic"][0].keys() == {"input", "bicubic", "truth", "samples"}
  assert rows["Bicubic"][0]["samples"][0] == 1


def test_a_figure_shows_a_finished_trial_rather_than_the_first(tmp_path, path, capsys):
  words = ["sweep", "--config", path, "--workdir", str(tmp_path), "--config.eval.images=1", "--trial=1"]
  assert cli.main(words) == 0
  words = ["reproduce", "amap", "figure7", "--workdir", str(tmp_path), "--config.eval.images=1", "--read"]
  assert cli.main(words) == 0
  found = json.loads((tmp_path / "amap_figure7.json").read_text())
  assert found["rows"] == {"squares": {"row": "MSE", "run": "MSE_seed=1"}}
  assert "missing: MAE (not begun)" in capsys.readouterr().out


def test_a_figure_without_runs_of_its_own_is_drawn_from_the_config(tmp_path, capsys):
  assert cli.main(["reproduce", "amap", "figure10", "--workdir", str(tmp_path / "new")]) == 0
  text = capsys.readouterr().out
  assert "![a test]" in text
  assert "- A note." in text
  assert "Everything is smaller" not in text
  assert len(set(map(tuple, png(tmp_path / "new" / "amap_figure10.png").reshape(-1, 3)))) > 2
  assert not list(tmp_path.glob("new/*/checkpoints"))


def test_what_a_trial_begins_from_is_trained_before_it(tmp_path):
  words = ["reproduce", "amap", "figure12", "--workdir", str(tmp_path), "--config.eval.images=1"]
  assert cli.main(words) == 0
  trained = sorted(tmp_path.glob("*/evaluation/table.json"), key=lambda file: file.stat().st_mtime_ns)
  assert [file.parent.parent.name for file in trained] == ["MAE", "MAE-on"]


@pytest.mark.parametrize("x", [0.5, 3.0])
def test_bayes_answers_on_the_roll_are_those_of_many_draws(x):
  answers, line, posterior = estimates(x)
  np.testing.assert_allclose(answers["MAP"], swiss_roll.mode(jnp.full((1, 1, 1, 1), x)).ravel(), atol=2e-3)
  # The density is the noiseless roll smoothed by 0.2: draws of it whose mean is close to the input.
  rng = np.random.default_rng(0)
  angle = rng.normal(10, 3, 2_000_000)
  points = 0.4 * angle[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
  points += rng.normal(0, 0.2, points.shape)
  near = points[abs(points.mean(axis=1) - x) < 0.02]
  error = 4 / np.sqrt(len(near))  # four standard errors, of a deviation of 1
  np.testing.assert_allclose(answers["MSE"], near.mean(axis=0), atol=error * near.std(axis=0).max())
  assert (near[:, 0] < answers["MAE"][0]).mean() == pytest.approx(0.5, abs=0.5 * error)
  quarter = line[np.searchsorted(np.cumsum(posterior), 0.25), 0]
  assert (near[:, 0] < quarter).mean() == pytest.approx(0.25, abs=0.5 * error)


def test_the_picture_of_the_roll_is_a_square(tmp_path, monkeypatch):
  monkeypatch.setattr("sr_jax.report.roll.PIXELS", 300)
  illustration(tmp_path / "roll.png")
  assert png(tmp_path / "roll.png").shape == (300, 300, 3)


def test_a_figure_of_nothing_finished_says_so(tmp_path, capsys):
  words = ["reproduce", "amap", "figure7", "--workdir", str(tmp_path), "--config.eval.images=1", "--read"]
  assert cli.main(words) == 0
  assert "Nothing is finished." in capsys.readouterr().out
  assert not (tmp_path / "amap_figure7.png").exists()


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("figure7", "needs config.eval.images, which is 0"),
    ("figure8", "needs several samples of an image"),
    ("figure11", "needs config.eval.judge, which is False"),
  ],
)
def test_a_figure_that_would_be_empty_is_refused_before_anything_is_trained(tmp_path, capsys, name, words):
  keys = [] if name == "figure7" else ["--config.eval.images=1"]
  assert cli.main(["reproduce", "amap", name, "--workdir", str(tmp_path / "new"), *keys]) == 2
  assert words in capsys.readouterr().err
  assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
  ("kind", "key", "words"),
  [
    ("best", "samples=1", "needs several samples of an image"),
    ("best", "temperatures=(0.5,)", "has 'MSE' at temperature 1, but config.eval.temperatures is (0.5,)"),
    ("", "temperatures=(1.0,0.5)", "leave it out"),
  ],
)
def test_a_table_whose_rows_would_be_missing_is_refused(tmp_path, capsys, path, kind, key, words):
  rows = {"of the paper": Row("MSE", (1.0,), kind), "another": Row("MAE", (1.0,), "tau = 2")}
  TABLES["amap"]["table9"] = Table("a test", (path,), {"H": Column("swiss_roll_nll")}, rows)
  given = ["reproduce", "amap", "table9", "--workdir", str(tmp_path / "new"), "--config.eval.samples=2"]
  assert cli.main([*given, f"--config.eval.{key}"]) == 2
  assert words in capsys.readouterr().err
  assert not (tmp_path / "new").exists()


def test_a_damaged_history_raises_one_sentence_and_a_last_line_that_is_cut_off_is_left_out(tmp_path):
  (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"st')
  assert read_history(tmp_path) == [{"step": 1, "loss": 1.0}]
  (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"st\n')
  with pytest.raises(UserError, match=r"metrics\.jsonl cannot be read"):
    read_history(tmp_path)
  assert read_history(tmp_path / "none") == []


def test_the_kernels_are_those_of_the_sums_and_of_the_image_of_one_pixel():
  found = kernels(Operator("area", (2, 3)))
  block = np.zeros((14, 21, 1))
  block[6:8, 9:12] = 1
  np.testing.assert_allclose(found["A"], block / 6, atol=1e-6)
  np.testing.assert_allclose(found["A+"], block, atol=1e-6)


@pytest.mark.parametrize(("paper", "name", "config"), built_in(FIGURES))
def test_every_figure_has_rows_and_curves_of_its_configs(paper, name, config, monkeypatch):
  monkeypatch.undo()
  figure = FIGURES[paper][name]
  trials = {row: (variant, keys) for row, variant, keys in configs.load_module(config)["sweep"]()}
  assert figure.ours <= {BICUBIC, *trials}
  assert all(text.endswith(".") for text in (*CONDITIONS[config], *figure.notes))
  for row in figure.ours - {BICUBIC}:
    variant, keys = trials[row]
    words = [f"--config.{key}={value}" for key, value in keys.items()]
    own = configs.override(configs.load(f"{config}:{variant}"), words)
    if figure.needs:
      assert own[figure.needs]
    measured = {f"eval/{column}" for column in columns(own.eval.metrics)}
    drawn = set(figure.curves.values())
    assert {name for name in drawn if name.startswith("eval/")} <= measured
    if trained := {name for name in drawn if not name.startswith("eval/")}:
      run = small_runs.tiny(own.method.name)
      method = make_method(run, make_operator(run))
      batch = {"hr": jax.ShapeDtypeStruct((8, *run.data.crop, 3), "uint8")}
      state = jax.eval_shape(method.init, jax.random.key(0), batch)
      _, losses = jax.eval_shape(method.step, state, batch, jax.random.key(0))
      assert trained <= losses.keys()
