"""A run killed with SIGKILL again and again, in rounds, saves and restores, against one that was left alone.

  python benchmarks/kill_and_resume.py [--kills 10] [--seed 0]

Prints the digest of both final states; exits with 1 if they differ.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sr_jax.run import load_run
from sr_jax.soundness import digest

# Pools of 8 rounds of selection and 56 of descent; a checkpoint every 10 rounds, mostly in mid-pool.
KEYS = (
  "train.rounds=640",
  "train.checkpoint_every=10",
  "method.warmup_rounds=128",
  "networks.generator.width=16",
)


def start(workdir: Path) -> subprocess.Popen:
  words = [sys.executable, "-m", "sr_jax.cli", "train", "--config", "srim_demo", "--workdir", str(workdir)]
  words += [f"--config.{key}" for key in (*KEYS, "eval.limit=1", "eval.samples=1")]
  return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def newest(workdir: Path) -> int:
  """The round of the newest checkpoint, 0 if there is none."""
  return max((int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit()), default=0)


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--kills", type=int, default=10)
  parser.add_argument("--seed", type=int, default=0)
  arguments = parser.parse_args()
  draw = random.Random(arguments.seed)
  with tempfile.TemporaryDirectory() as folder:
    whole, killed = Path(folder) / "whole", Path(folder) / "killed"
    if code := start(whole).wait():
      raise SystemExit(f"The uninterrupted run failed with exit code {code}.")
    starting = 1.0  # seconds from a start to the next checkpoint, as the last one took
    for number, moment in enumerate(sorted(draw.sample(range(10, 630, 10), arguments.kills))):
      process, begun, before = start(killed), time.monotonic(), newest(killed)
      if number % 3 == 2:  # while it starts, restores and compiles
        time.sleep(draw.uniform(0.3, 1) * starting)
      else:
        while newest(killed) < moment and process.poll() is None:
          if newest(killed) == before:
            starting = time.monotonic() - begun
          time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.5))  # into a round or a write
      if process.poll() is not None:
        raise SystemExit(f"The run ended before it was to be killed at round {moment}.")
      process.send_signal(signal.SIGKILL)
      process.wait()
      print(f"killed after the checkpoint of round {newest(killed)}", flush=True)
    if code := start(killed).wait():
      raise SystemExit(f"The resumed run failed with exit code {code}.")
    ends = [digest(load_run(workdir).state) for workdir in (whole, killed)]
  print(f"uninterrupted    {ends[0]}\nkilled {arguments.kills:>2} times  {ends[1]}")
  return int(ends[0] != ends[1])


if __name__ == "__main__":
  sys.exit(main())
