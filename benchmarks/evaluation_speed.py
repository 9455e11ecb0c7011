"""Where the time of an evaluation goes: images/s, and what compilation, drawing and measuring take of it.

  python benchmarks/evaluation_speed.py RUN [RUN ...] [--config.eval.KEY=VALUE ...]

Of the run's own rows, without its baselines. Each case is measured with an empty compile cache and again with
what that has left there, as a program that starts anew would. Prints Markdown.
"""

import argparse
import tempfile
import time
from pathlib import Path

import jax

from sr_jax import config as configs
from sr_jax.data import open_source
from sr_jax.measurement import evaluate
from sr_jax.run import Run, load_run

# What JAX calls the parts of getting a program ready; the last one includes reading it from the cache.
PARTS = ("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration", "backend_compile_duration")
HEADING = "| run | case | images | samples | cache | s | to compile, s | images/s | without compiling |"

spent: list[float] = []


def listen(event: str, seconds: float, **_: object) -> None:
  if event.rpartition("/")[2] in PARTS:
    spent.append(seconds)


def measure(run: Run, samples: int, names: tuple[str, ...]) -> tuple[int, float, float]:
  """Images, seconds, and those of them that went into compiling."""
  config = run.config.copy_and_resolve_references()
  config.eval.update({"metrics": names, "images": 0, "best_by": ""})
  source = open_source(config.eval.data, "config.eval.data")
  jax.clear_caches()
  spent.clear()
  start = time.perf_counter()
  found = evaluate(run.sampler(), source, config, run.operator, samples=samples)
  return len(found.places), time.perf_counter() - start, sum(spent)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("runs", nargs="+", metavar="RUN")
  arguments, overrides = parser.parse_known_args()
  jax.monitoring.register_event_duration_secs_listener(listen)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
  print(HEADING + "\n| --- | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |")
  for folder in arguments.runs:
    run = load_run(folder)
    run = run._replace(config=configs.override(run.config, overrides))
    n, names = run.config.eval.samples, tuple(run.config.eval.metrics)
    cases = {
      "all metrics": (n, names),
      "PSNR alone": (n, ("psnr",)),
      "one sample, PSNR alone": (1, ("psnr",)),
    }
    for case, (samples, wanted) in cases.items():
      with tempfile.TemporaryDirectory() as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.experimental.compilation_cache.compilation_cache.reset_cache()
        for state in ("empty", "filled"):
          images, seconds, compiling = measure(run, samples, wanted)
          rest = images / max(seconds - compiling, 1e-9)
          words = f"| {Path(folder).name} | {case} | {images} | {samples} | {state} | {seconds:.1f} "
          print(f"{words}| {compiling:.1f} | {images / seconds:.3g} | {rest:.3g} |", flush=True)


if __name__ == "__main__":
  main()
