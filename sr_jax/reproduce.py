"""A paper's table or figure made of what its sweep gave here, with the paper's numbers and the conditions."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sr_jax import files
from sr_jax.configs.papers.conditions import CONDITIONS
from sr_jax.configs.papers.figures import FIGURES, Figure
from sr_jax.configs.papers.tables import TABLES, Column, Row, Table
from sr_jax.errors import UserError, check_choice, choose
from sr_jax.ops.operator import Operator, make_operator
from sr_jax.report.figures import draw
from sr_jax.report.tables import finite, markdown
from sr_jax.sweep import Planned, failure, read_reports, state
from sr_jax.sweep_table import Rows, collect

Filled = dict[str, dict[str, Any]]
MISSING = "missing"  # stands where a number of ours is still to come


def overview(paper: str = "") -> str:
  """The tables and figures that there are, of one paper or of all, with the configs that make them, the first
  by default.

  Raises:
    UserError: there is no such paper.
  """
  if paper:
    check_choice(TABLES, paper, "PAPER")
  papers = [paper] if paper else TABLES
  return "\n".join(
    f"{name} {key}\n  {entry.title}. Configs: {', '.join(entry.configs)}."
    for name in papers
    for key, entry in _entries(name).items()
  )


def find(paper: str, name: str, config: str = "") -> tuple[Table | Figure, str]:
  """The table or figure of that name and the config that makes it, the given one or its first.

  Raises:
    UserError: there is no such paper, table or figure, or `config` does not make it.
  """
  check_choice(TABLES, paper, "PAPER")
  entry = choose(_entries(paper), name, "NAME")
  config = config or entry.configs[0]
  check_choice(entry.configs, config, "--config")
  return entry, config


def _entries(paper: str) -> dict[str, Table | Figure]:
  return {**TABLES[paper], **FIGURES[paper]}


def needed(entry: Table | Figure, runs: Sequence[Planned]) -> list[Planned]:
  """The trials of a sweep that a table or figure is made of.

  Of a table all of its rows; of a figure one of each row, the first that is finished or else the first.
  """
  found = [run for run in runs if run.entry.trial.row in entry.ours]
  if isinstance(entry, Table):
    return found
  reports = read_reports(found)
  first: dict[str, Planned] = {}
  for run in sorted(found, key=lambda run: run.entry.id not in reports):
    first.setdefault(run.entry.trial.row, run)
  return [run for run in found if first[run.entry.trial.row] is run]


def check(entry: Table | Figure, runs: Sequence[Planned]) -> None:
  """Refuse to train for what would stay empty; raises UserError."""
  for run in runs:
    measured = run.config.eval
    if entry.needs and not run.config[entry.needs]:
      raise UserError(
        f"{entry.title!r} needs config.{entry.needs}, which is {run.config[entry.needs]!r}: "
        f"set --config.{entry.needs}=..."
      )
    kinds = _kinds(entry, run.entry.trial.row)
    if kinds & {"best", "samples"} and measured.samples < 2:
      raise UserError(
        f"{entry.title!r} needs several samples of an image: set --config.eval.samples=4, for example."
      )
    if kinds & {"best", ""} and tuple(measured.temperatures) != (1.0,):
      raise UserError(
        f"{entry.title!r} has {run.entry.trial.row!r} at temperature 1, but config.eval.temperatures is "
        f"{tuple(measured.temperatures)}: leave it out."
      )


def _kinds(entry: Table | Figure, row: str) -> set[str]:
  """What a table's lines have of a row of ours, or the figure's kind."""
  return (
    {line.kind for line in entry.rows.values() if line.ours == row}
    if isinstance(entry, Table)
    else {entry.kind}
  )


def fill(
  table: Table, baselines: Rows, measured: Mapping[str, list[dict[str, float]]], samples: int
) -> Filled:
  """The paper's and our numbers of a table, as its JSON file has them.

  Args:
    table: the paper's.
    baselines, measured: see `collect`.
    samples: of an image, of which one is the best.

  Returns:
    {row: {"row", "kind", "trials": how many, "columns": {heading: {"paper", "column": our name of it, "ours":
    mean over the trials, "deviation": over them, 0 of one}}}}; nothing measured: without the last two.
  """

  def trials(row: Row) -> list[dict[str, float]]:
    kind = {"": "", "best": f", best of {samples}"}.get(row.kind, f", {row.kind}")
    return measured.get(row.ours + kind, [baselines[row.ours]] if row.ours in baselines else [])

  def cell(row: Row, i: int, column: Column) -> dict[str, Any]:
    printed = row.numbers[i]
    found = np.array([trial[column.ours] for trial in trials(row) if column.ours in trial], float)
    if column.above:
      zero = cell(table.rows[column.above], i, column._replace(above="", scale=1))
      printed = None if printed is None else printed - zero["paper"]
      found = found - zero["ours"] if zero.get("ours") is not None else found[:0]
    found = found * column.scale
    ours = (
      {"ours": found.mean(), "deviation": found.std(ddof=1) if found.size > 1 else 0} if found.size else {}
    )
    return {"paper": printed, "column": column.ours, **finite(ours)}

  return {
    title: {
      "row": row.ours,
      "kind": row.kind,
      "trials": len(trials(row)),
      "columns": {heading: cell(row, i, column) for i, (heading, column) in enumerate(table.columns.items())},
    }
    for title, row in table.rows.items()
  }


def write(paper: str, name: str, config: str, runs: Sequence[Planned], workdir: str, command: str) -> str:
  """Write PAPER_NAME.md and PAPER_NAME.json into the folder of the sweep, and of a figure PAPER_NAME.png.

  Args:
    paper, name, config: see `find`.
    runs: all trials of the config's sweep; those that the table does not need may have its baselines.
    workdir: of the sweep.
    command: kept in both files.

  Returns:
    The Markdown text.

  Raises:
    UserError: there is no such table, figure or folder.
  """
  entry, config = find(paper, name, config)
  if not files.as_path(workdir).is_dir():
    raise UserError(f"--workdir {workdir} does not exist: give the folder of a sweep of {config}.")
  path = files.as_path(workdir) / f"{paper}_{name}"
  reports, wanted = read_reports(runs), needed(entry, runs)
  if isinstance(entry, Figure):
    finished = [run for run in wanted if run.entry.id in reports]
    content, text = _figure(entry, finished, make_operator(runs[0].config), path.with_suffix(".png"))
  else:
    samples = max((run.config.eval.samples for run in wanted), default=1)
    content = fill(entry, *collect(runs, reports), samples)
    text = _table(entry, content)
  found = {run.entry.id: failure(run) or state(run, reports) for run in wanted}
  missing = "; ".join(f"{key} ({why})" for key, why in found.items() if why != "finished")
  conditions = [*CONDITIONS[config], *entry.notes] if entry.ours else [*entry.notes]
  if isinstance(entry, Table) and any(column.ours.startswith("lpips") for column in entry.columns.values()):
    conditions.append(f"LPIPS here is of the network {runs[0].config.eval.lpips.net}.")
  conditions += _protocols(wanted)
  meta = {
    "title": f"{paper} {name}: {entry.title}",
    "conditions": conditions,
    "config": config,
    "command": command,
    "missing": missing,
  }
  facts = [*meta["conditions"], f"config: {config}", f"command: {command}"]
  if missing:
    facts.append(f"missing: {missing}; what was trained with other keys is found by giving the same ones")
  text = f"# {meta['title']}\n\n{text}\n" + "".join(f"- {fact}\n" for fact in facts)
  whole = json.dumps({"meta": meta, "rows": content}, indent=2, allow_nan=False)
  files.write_text(path.with_suffix(".json"), f"{whole}\n")
  files.write_text(path.with_suffix(".md"), text)
  return text


def _protocols(runs: Sequence[Planned]) -> list[str]:
  """How long the rows were trained and on what they are measured, a line for those that have it in common."""
  rows: dict[str, list[str]] = {}
  for run in runs:
    train, measured = run.config.train, run.config.eval
    images = f"the first {measured.limit}" if measured.limit else "all"
    text = (
      f"{train.rounds:,} rounds with batches of {train.batch}; {images} test images, samples of each: "
      f"{measured.samples}, border {measured.border}, luma {measured.luma}"
    )
    rows.setdefault(text, []).append(run.entry.trial.row)
  return [f"{', '.join(dict.fromkeys(names))}: {text}." for text, names in rows.items()]


def _table(table: Table, rows: Filled) -> str:
  cells = [["", *(text for heading in table.columns for text in (f"{heading}: paper", "ours")), "trials"]]
  for title, row in rows.items():
    pairs = zip(table.columns.values(), row["columns"].values(), strict=True)
    shown = [text for column, values in pairs for text in _texts(column, values, bool(row["row"]))]
    cells.append([title, *shown, str(row["trials"] or "")])
  return markdown(cells)


def _figure(
  figure: Figure, wanted: Sequence[Planned], operator: Operator, path: Path
) -> tuple[dict[str, Any], str]:
  """Draw a figure of finished trials, of each row one.

  Returns:
    {name: {"row", "run": the id of the trial}} and the line of Markdown that shows the file, or says that
    there is nothing to draw.
  """
  trials = {run.entry.trial.row: run for run in wanted}
  shown = {name: trials[row] for name, row in figure.rows.items() if row in trials}
  content = {name: {"row": figure.rows[name], "run": run.entry.id} for name, run in shown.items()}
  if figure.rows and not shown:
    return content, "Nothing is finished.\n"
  draw(figure, {name: run.folder for name, run in shown.items()}, operator, path)
  return content, f"![{figure.title}]({path.name})\n"


def _texts(column: Column, values: Mapping[str, Any], ours: bool) -> tuple[str, str]:
  """A cell of the paper's and one of ours; `ours`: there is such a row."""
  printed = "" if values["paper"] is None else format(values["paper"], column.format)
  if "ours" not in values:
    return printed, MISSING if ours and column.ours else ""
  if values["ours"] is None:
    return printed, "diverged"
  spread = f" +- {values['deviation']:{column.format}}" if values["deviation"] else ""
  return printed, format(values["ours"], column.format) + spread
