"""Imports run one way: a file imports from lower floors or from its own package."""

import ast
from pathlib import Path

import sr_jax

FLOORS = [
  {"cli"},
  {"sweep"},
  {"train", "evaluate", "upscale"},
  {"stages"},
  {"run"},
  {"baselines"},
  {"parallel", "checkpoint", "report", "data", "metrics", "methods"},
  {"method", "networks"},
  {"ops"},
  {"errors"},
]


def test_imports_run_one_way():
  floor = {name: number for number, names in enumerate(FLOORS) for name in names}
  root = Path(sr_jax.__file__).parent
  for path in root.rglob("*.py"):
    room = path.relative_to(root).parts[0].removesuffix(".py")
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        assert not any(alias.name.startswith("sr_jax") for alias in node.names), path
      assert not getattr(node, "level", 0), f"{path} imports relatively"
      if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sr_jax":
        parts = node.module.split(".")[1:2] or [alias.name for alias in node.names]
        for other in parts:
          assert other == room or floor[other] > floor[room], f"{path} imports {other}"
