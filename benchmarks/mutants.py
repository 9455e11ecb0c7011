"""Which small mistakes in the mathematics do the tests notice? Makes one at a time and runs the tests.

  python benchmarks/mutants.py [--count 110] [--seed 0] [--out mutants.json] [--jobs 1] [--only SUBSTRING]
      [--tree FOLDER] [--minutes 600]

Needs the package `coverage`. Works on a copy of the tracked files. Each test file runs once to learn which
lines it executes. Then each mutant meets the test files that execute its line until one fails, first those
that are short and spend most of their lines in its file. Finished mutants stay in --out, and the same command
goes on from there. Beside it lie two caches that may be deleted together: NAME_lines.json (who executes what)
and NAME_jax (compiled programs).
"""

import argparse
import ast
import collections
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from coverage import CoverageData

NAMES = ("methods/*", "networks/*", "ops/*", "metrics/*", "losses", "method", "stages")
PYTEST = ("-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider")

LIBRARY = re.compile(r"(jnp|np|jax|nn|lax|optax|math)\.[\w.]+")
# The first six are methods of arrays too; the last are operators.
PAIRS = """max min, argmax argmin, sum mean, any all, repeat tile, ones zeros, maximum minimum, square abs,
sin cos, zeros_like ones_like, linspace geomspace, floor ceil, logical_and logical_or, softmax log_softmax,
normal uniform, log log2, exp expm1, Add Sub, Mult Div, BitAnd BitOr, And Or, Lt LtE, Eq NotEq, In NotIn"""
SWAPS = dict(pair.split()[::way] for pair in PAIRS.split(",") for way in (1, -1)) | {"Gt": "GtE", "GtE": "Lt"}
OPERATORS = {getattr(ast, a): getattr(ast, b) for a, b in SWAPS.items() if hasattr(ast, a)}
METHODS = list(SWAPS)[:12]
UNWRAPPED = {"stop_gradient", "swapaxes", "transpose", "flip", "reversed", "clip"}
SYMMETRIC = {"min", "max", "minimum", "maximum", "logical_and", "logical_or", "array_equal", "allclose"}
DEFAULTED = {"axis", "precision", "use_bias", "keepdims", "padding", "train"}
# Changes here change speed, or nothing.
IGNORED = re.compile("(?i)^(name|__all__)$|chunk|unroll|static_arg|donate|prefetch|buffer|workers|cache")

running: set[subprocess.Popen] = set()


def altered(node: ast.AST, **fields) -> ast.AST:
  return type(node)(**(vars(node) | fields))


def call_variants(node: ast.Call) -> Iterator[ast.AST]:
  args, words = node.args, ast.unparse(node.func)
  library, name = LIBRARY.fullmatch(words), words.split(".")[-1]
  for i, keyword in enumerate(node.keywords):
    less = [altered(keyword, value=ast.UnaryOp(ast.Not(), keyword.value))] if keyword.arg == "train" else []
    if keyword.arg in DEFAULTED or (library and keyword.arg and not IGNORED.search(keyword.arg)):
      yield altered(node, keywords=node.keywords[:i] + less + node.keywords[i + 1 :])
  if name in UNWRAPPED:
    yield from [node.func.value] if isinstance(node.func, ast.Attribute) and not library else args[:1]
  if len(args) > 1 and name not in SYMMETRIC and not any(isinstance(a, ast.Starred) for a in args[:2]):
    yield altered(node, args=[args[1], args[0], *args[2:]])


def variants(node: ast.AST) -> Iterator[ast.AST]:
  """What may stand in the place of a node, or of the test of an `if`."""
  match node:
    case ast.Call():
      yield from call_variants(node)
    case ast.Slice(lower=None, upper=None, step=ast.UnaryOp()):
      yield ast.Slice()
    case ast.Attribute(attr=name) if name in (SWAPS if LIBRARY.fullmatch(ast.unparse(node)) else METHODS):
      yield altered(node, attr=SWAPS[name])
    case ast.Name(id="min" | "max" | "any" | "all" as name):
      yield altered(node, id=SWAPS[name])
    case ast.BinOp(left=left, op=ast.BitOr()):
      yield left
    case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in OPERATORS:
      yield altered(node, op=OPERATORS[type(op)]())
    case ast.Compare(ops=[op, *more]) if type(op) in OPERATORS:
      yield altered(node, ops=[OPERATORS[type(op)](), *more])
    case ast.UnaryOp(operand=operand):
      yield operand
    case ast.If(test=test) | ast.IfExp(test=test):
      yield ast.UnaryOp(ast.Not(), test)
    case ast.Constant(value=bool() | int() | float() as value):
      yield ast.Constant(not value if isinstance(value, bool) else value + 1)
    case ast.AugAssign() | ast.Expr():
      yield ast.Pass()


def walk(node: ast.AST, statement: ast.stmt | None = None) -> Iterator[tuple[ast.AST, ast.stmt]]:
  """Every node that may be changed, with the statement it belongs to."""
  match node:
    case ast.Raise() | ast.JoinedStr() | ast.Expr(ast.Constant()):
      return
    case ast.Assign([ast.Name(n)]) | ast.AnnAssign(ast.Name(n)) | ast.keyword(str(n)) if IGNORED.search(n):
      return
  statement = node if isinstance(node, ast.stmt) else statement
  yield node, statement
  for field, value in ast.iter_fields(node):
    for child in value if isinstance(value, list) else [value]:
      if isinstance(child, ast.AST) and field not in {"annotation", "returns"}:
        yield from walk(child, statement)


def candidates(path: str, source: bytes) -> Iterator[dict]:
  """All mutants of a file; start and end are positions in its bytes."""
  rows, tree = source.splitlines(keepends=True), ast.parse(source)
  starts = [sum(map(len, rows[:i])) for i in range(len(rows) + 1)]
  plain = ast.dump(tree)
  for node, statement in walk(tree):
    for new in variants(node):
      body = getattr(statement, "body", None)
      head = [statement.lineno, body[0].lineno - 1 if body else statement.end_lineno]
      old, text = getattr(node, "test", node), ast.unparse(new)
      if isinstance(new, ast.BinOp | ast.BoolOp | ast.Compare | ast.UnaryOp | ast.IfExp):
        text = f"({text})"
      start, end = starts[old.lineno - 1] + old.col_offset, starts[old.end_lineno - 1] + old.end_col_offset
      changed = source[:start] + text.encode() + source[end:]
      with contextlib.suppress(SyntaxError):
        compile(changed, path, "exec")
        if ast.dump(ast.parse(changed)) != plain:
          line = [source[starts[old.lineno - 1] : start], source[end : starts[old.end_lineno]]]
          sides = [line[0].decode() + ast.unparse(side) + line[1].decode() for side in (old, new)]
          place = {"path": path, "line": old.lineno, "head": head, "start": start, "end": end}
          yield place | {"text": text, "change": difference(*sides), "key": f"{path}:{start}:{end}:{text}"}


def difference(before: str, after: str) -> str:
  """`before -> after`, cut to where they differ."""
  before, after = " ".join(before.split()), " ".join(after.split())
  place = next(i for i, (a, b) in enumerate(zip(f"{before}<", f"{after}>", strict=False)) if a != b)
  return " -> ".join(f"`{side[max(0, place - 40) : place + 40]}`" for side in (before, after))


def sample(tree: Path, only: str, count: int, draw: random.Random) -> list[dict]:
  """`count` mutants on as many lines; a file's share follows its number of lines with candidates."""
  files: dict[str, dict[int, list[dict]]] = collections.defaultdict(lambda: collections.defaultdict(list))
  for path in sorted(path for name in NAMES for path in tree.glob(f"sr_jax/{name}.py")):
    name = path.relative_to(tree).as_posix()
    for mutant in candidates(name, path.read_bytes()) if only in name else ():
      files[name][mutant["line"]].append(mutant)
  exact = {name: count * len(files[name]) / sum(map(len, files.values())) for name in files}
  share = {name: min(len(files[name]), max(1, int(exact[name]))) for name in files}
  for name in sorted(files, key=lambda name: int(exact[name]) - exact[name]):  # the largest remainder first
    share[name] += sum(share.values()) < count and share[name] < len(files[name])
  chosen = [draw.choice(files[f][line]) for f in files for line in draw.sample(sorted(files[f]), share[f])]
  draw.shuffle(chosen)  # so that a run that is cut short is a fair sample too
  return chosen


def kill(process: subprocess.Popen) -> None:
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)
  process.wait()


def programs_of(folder: Path) -> Path:
  """The compile cache of a copy."""
  return folder.with_name(f"{folder.name}_jax")


def run(folder: Path, *words: str, limit: float | None = None) -> tuple[int | None, str]:
  """Exit code, None after `limit` seconds, and output; nothing that was started is left running."""
  # No .pyc files: a mutant may have the size and the second of what it replaces.
  path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
  variables = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(folder.parent)}
  variables["JAX_COMPILATION_CACHE_DIR"] = str(programs_of(folder))
  with tempfile.TemporaryFile() as file:
    keys = {"cwd": folder, "env": os.environ | variables, "start_new_session": True}
    process = subprocess.Popen([sys.executable, *words], stdout=file, stderr=subprocess.STDOUT, **keys)
    running.add(process)
    try:
      code = process.wait(limit)
    except subprocess.TimeoutExpired:
      code = None
    finally:
      kill(process)
      running.discard(process)
    file.seek(0)
    return code, file.read().decode(errors="replace")


def make_copy(tree: Path, names: list[str], to: Path, programs: Path) -> Path:
  """The tracked files as they lie in the working tree, to be imported from there."""
  for name in names:
    (to / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(tree / name, to / name)
  if not (to / "sr_jax/configs").exists():  # setup.cfg installs configs/ inside the package
    (to / "sr_jax/configs").symlink_to("../configs")
  shutil.copytree(programs, programs_of(to))
  _, places = run(to, "-Pc", "import sr_jax, sr_jax.configs as c; print(sr_jax.__file__, *c.__path__)")
  if not all(place.startswith(f"{to}/") for place in places.split()):
    raise SystemExit(f"The package would not come from the copy {to}: {places}")
  return to


def save(path: Path, content: dict) -> None:
  path.with_suffix(".part").write_text(json.dumps(content, indent=1))
  path.with_suffix(".part").replace(path)


def measure(folders: list[Path], path: Path, digest: str, pool: ThreadPoolExecutor) -> dict[str, dict]:
  """Of each test file, the seconds it takes and the lines of each source file that it executes."""
  found = json.loads(path.read_text()) if path.exists() else {}
  found = found if found.get("tree") == digest else {"tree": digest, "tests": {}}
  files = {str(file.relative_to(folders[0])) for file in folders[0].glob("tests/**/*_test.py")}

  def learn(name: str) -> tuple[str, dict]:
    folder = folders.pop()
    start, data = time.monotonic(), CoverageData(str(folder / ".coverage"))
    flags = [f"--data-file={data.data_filename()}", f"--include={folder}/sr_jax/*"]
    code, output = run(folder, "-m", "coverage", "run", *flags, *PYTEST, name)
    if code:
      raise SystemExit(f"{output[-3000:]}\n{name} fails on the unchanged tree.")
    data.read()
    lines = {str(Path(f).relative_to(folder)): sorted(data.lines(f)) for f in data.measured_files()}
    folders.append(folder)
    return name, {"seconds": time.monotonic() - start, "lines": lines}

  for name, result in pool.map(learn, sorted(files - set(found["tests"]))):
    found["tests"][name] = result
    save(path, found)
    print(f"{name} passes in {result['seconds']:.0f} s", flush=True)
  return found["tests"]


def judge(mutant: dict, tests: dict[str, dict], copies: list[Path]) -> dict:
  """Runs the tests on a mutant in one of the copies: by which it was noticed, "" if by none."""
  folder = copies.pop()
  compiled, programs = programs_of(folder), set(os.listdir(programs_of(folder)))
  (first, last), names = mutant["head"], []
  for lines in ({mutant["line"]}, set(range(first, max(first, last) + 1))):  # its line, else its statement
    names = names or [n for n in tests if lines & set(tests[n]["lines"].get(mutant["path"], ()))]
  path, start, noticed = folder / mutant["path"], time.monotonic(), ""
  source = path.read_bytes()
  path.write_bytes(source[: mutant["start"]] + mutant["text"].encode() + source[mutant["end"] :])

  def cost(name: str) -> float:
    """Seconds for each part of the lines that the test file executes that is of the mutant's file."""
    lines = {file: len(numbers) for file, numbers in tests[name]["lines"].items()}
    return tests[name]["seconds"] * sum(lines.values()) / max(1, lines[mutant["path"]])

  for name in sorted(names, key=cost):
    code, output = run(folder, *PYTEST, name, limit=4 * tests[name]["seconds"] + 60)
    if code != 0:
      failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", output, re.MULTILINE)
      noticed = failed[1] if failed else f"{name} ({'hangs' if code is None else f'exit code {code}'})"
      break
  path.write_bytes(source)
  if "(hangs)" in noticed:  # what it was writing may be cut off
    for program in set(os.listdir(compiled)) - programs:
      (compiled / program).unlink()
  copies.append(folder)
  return mutant | {"covered": bool(names), "noticed": noticed, "seconds": round(time.monotonic() - start)}


def report(done: list[dict]) -> None:
  rows = [(name, mutant) for mutant in done for name in (os.path.dirname(mutant["path"]), "total")]
  total = collections.Counter(name for name, _ in rows)
  noticed = collections.Counter(name for name, mutant in rows if mutant["noticed"])
  print("\n| folder | mutants | noticed | share |\n|---|---|---|---|")
  for name in sorted(total):
    print(f"| {name} | {total[name]} | {noticed[name]} | {noticed[name] / total[name]:.0%} |")
  print("\nSurvivors:")
  for mutant in sorted((m for m in done if not m["noticed"]), key=lambda m: (m["path"], m["line"])):
    note = "" if mutant["covered"] else ", executed by no test"
    print(f"- {mutant['path']}:{mutant['line']} {mutant['change']}{note}")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  for name, default in {"count": 110, "seed": 0, "jobs": 1, "minutes": 600, "only": ""}.items():
    parser.add_argument(f"--{name}", type=type(default), default=default)
  parser.add_argument("--out", type=Path, default=Path("mutants.json"))
  parser.add_argument("--tree", type=Path, default=Path(__file__).resolve().parents[1])
  arguments = parser.parse_args()
  end, out, tree = time.time() + 60 * arguments.minutes, arguments.out.resolve(), arguments.tree.resolve()
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  words = subprocess.check_output(["git", "ls-files", "-z"], cwd=tree, text=True).split("\0")
  names = sorted(name for name in words if (tree / name).is_file())
  digest = hashlib.sha256(b"\0".join(f.encode() + (tree / f).read_bytes() for f in names)).hexdigest()
  results = json.loads(out.read_text()) if out.exists() else {"tree": digest, "done": {}}
  if results["tree"] != digest:
    raise SystemExit(f"{out} holds mutants of another tree: move it away.")
  mutants = sample(tree, arguments.only, arguments.count, random.Random(arguments.seed))
  rest = {i: mutant for i, mutant in enumerate(mutants, 1) if mutant["key"] not in results["done"]}
  with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(arguments.jobs) as pool:
    cache, room = out.with_name(f"{out.stem}_jax"), Path(scratch).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    # All at once: the tree may change while the tests run for the first time.
    folders = [make_copy(tree, names, room / str(i), cache) for i in range(arguments.jobs)]
    tests = measure(list(folders), out.with_name(f"{out.stem}_lines.json"), digest, pool)
    for folder in folders:
      shutil.copytree(programs_of(folder), cache, dirs_exist_ok=True)
    for folder in folders:
      shutil.copytree(cache, programs_of(folder), dirs_exist_ok=True)
    work = lambda mutant: judge(mutant, tests, folders) if time.time() < end else None  # noqa: E731
    try:
      for i, result in zip(rest, pool.map(work, rest.values()), strict=True):
        if result:
          results["done"][result["key"]] = result
          save(out, results)
          print(f"{i}/{len(mutants)} {result['path']}:{result['line']} {result['change']}", end="  ")
          print(result["noticed"] or "SURVIVED", flush=True)
    finally:
      pool.shutdown(wait=False, cancel_futures=True)
      for process in list(running):
        kill(process)
  report([results["done"][mutant["key"]] for mutant in mutants if mutant["key"] in results["done"]])


if __name__ == "__main__":
  main()
