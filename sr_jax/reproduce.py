"""A paper's table beside what its sweep gave here: the paper's number, ours, and the conditions."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sr_jax import files
from sr_jax.configs.papers.tables import TABLES, Column, Row, Table
from sr_jax.errors import UserError, choose
from sr_jax.report.tables import finite, markdown
from sr_jax.sweep import Planned, failure, read_reports, state
from sr_jax.sweep_table import Rows, collect

Filled = dict[str, dict[str, Any]]
MISSING = "missing"  # stands where a number of ours is still to come


def overview(paper: str = "") -> str:
  """The tables that there are, of one paper or of all, with the configs that make them, the first by default.

  Raises:
    UserError: there is no such paper.
  """
  papers = {paper: choose(TABLES, paper, "PAPER")} if paper else TABLES
  return "\n".join(
    f"{name} {key}\n  {table.title}. Configs: {', '.join(table.configs)}."
    for name, tables in papers.items()
    for key, table in tables.items()
  )


def find(paper: str, name: str, config: str = "") -> tuple[Table, str]:
  """The table of that name and the config that makes it, the given one or its first.

  Raises:
    UserError: there is no such paper or table, or `config` does not make it.
  """
  table = choose(choose(TABLES, paper, "PAPER"), name, "TABLE")
  names = {key: key for key in table.configs}
  return table, choose(names, config or next(iter(names)), "--config")


def needed(table: Table, runs: Sequence[Planned]) -> list[Planned]:
  """The trials of a sweep that the table has rows of."""
  rows = {row.ours for row in table.rows.values()}
  return [run for run in runs if run.entry.trial.row in rows]


def check(table: Table, runs: Sequence[Planned]) -> None:
  """Refuse to train for a table whose columns would stay empty; raises UserError."""
  if table.needs and any(not run.config[table.needs] for run in runs):
    raise UserError(f"This table needs config.{table.needs}, which is empty: set --config.{table.needs}=...")


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
  """Write PAPER_TABLE.md and PAPER_TABLE.json into the folder of the sweep.

  Args:
    paper, name, config: see `find`.
    runs: all trials of the config's sweep; those that the table does not need may have its baselines.
    workdir: of the sweep.
    command: kept in both files.

  Returns:
    The Markdown text.

  Raises:
    UserError: there is no such table or folder.
  """
  table, config = find(paper, name, config)
  if not files.as_path(workdir).is_dir():
    raise UserError(f"--workdir {workdir} does not exist: give the folder of a sweep of {config}.")
  reports, wanted = read_reports(runs), needed(table, runs)
  samples = max((run.config.eval.samples for run in wanted), default=1)
  rows = fill(table, *collect(runs, reports), samples)
  cells = [["", *(text for heading in table.columns for text in (f"{heading}: paper", "ours")), "trials"]]
  for title, row in rows.items():
    pairs = zip(table.columns.values(), row["columns"].values(), strict=True)
    shown = [text for column, values in pairs for text in _texts(column, values, bool(row["row"]))]
    cells.append([title, *shown, str(row["trials"] or "")])
  found = {run.entry.id: failure(run) or state(run, reports) for run in wanted}
  missing = "; ".join(f"{key} ({why})" for key, why in found.items() if why != "finished")
  meta = {
    "table": f"{paper} {name}: {table.title}",
    "conditions": [*table.configs[config], *table.notes],
    "config": config,
    "command": command,
    "missing": missing,
  }
  facts = [*meta["conditions"], f"config: {config}", f"command: {command}"]
  if missing:
    facts.append(f"missing: {missing}; what was trained with other keys is found by giving the same ones")
  text = f"# {meta['table']}\n\n{markdown(cells)}\n" + "".join(f"- {fact}\n" for fact in facts)
  path = files.as_path(workdir) / f"{paper}_{name}"
  content = json.dumps({"meta": meta, "rows": rows}, indent=2, allow_nan=False)
  files.write_text(path.with_suffix(".json"), f"{content}\n")
  files.write_text(path.with_suffix(".md"), text)
  return text


def _texts(column: Column, values: Mapping[str, Any], ours: bool) -> tuple[str, str]:
  """A cell of the paper's and one of ours; `ours`: there is such a row."""
  printed = "" if values["paper"] is None else format(values["paper"], column.format)
  if "ours" not in values:
    return printed, MISSING if ours and column.ours else ""
  if values["ours"] is None:
    return printed, "diverged"
  spread = f" +- {values['deviation']:{column.format}}" if values["deviation"] else ""
  return printed, format(values["ours"], column.format) + spread
