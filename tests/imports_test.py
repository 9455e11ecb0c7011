"""Imports run one way: a file imports from lower floors or from its own package."""

import ast
import subprocess
import sys
from pathlib import Path

import sr_jax

FLOORS = [
  {"cli"},
  {"arguments"},
  {"sweep_commands"},
  {"commands"},
  {"inspection", "reproduce"},
  {"sweep_table"},
  {"sweep"},
  {"whole_run"},
  {"train", "evaluate", "score", "compare", "upscaling", "edit", "plan"},
  {"stages"},
  {"graft"},
  {"run"},
  {"measurement"},
  {"baselines", "report", "tiles"},
  {"parallel", "processes", "checkpoint", "versions", "data", "metrics", "methods"},
  {"orbax_manager", "soundness"},
  {"config", "images", "method", "networks"},
  {"losses"},
  {"ops", "ledger", "configs", "ranges", "hlo", "targets"},
  {"files"},
  {"bucket"},
  {"errors"},
]


def test_imports_run_one_way():
  floor = {name: number for number, names in enumerate(FLOORS) for name in names}
  root = Path(sr_jax.__file__).parent
  for path in root.rglob("*.py"):
    if path == root / "__init__.py":  # imports what is asked for, late
      continue
    room = path.relative_to(root).parts[0].removesuffix(".py")
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        assert not any(alias.name.startswith("sr_jax.") for alias in node.names), path
      assert not getattr(node, "level", 0), f"{path} imports relatively"
      if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sr_jax":
        parts = node.module.split(".")[1:2] or [alias.name for alias in node.names]
        for other in parts:
          assert other == room or floor[other] > floor[room], f"{path} imports {other}"


def test_the_public_functions_stay_functions_when_their_modules_are_imported():
  code = (
    "import sr_jax; sr_jax.upscale; sr_jax.load_run; import sr_jax.upscaling; print(callable(sr_jax.upscale))"
  )
  assert subprocess.check_output([sys.executable, "-c", code], text=True) == "True\n"
