"""SLURM from Python, by submitit (`pip install submitit`):

  python launch/submitit_job.py --dry-run --timeout-min=720 --nodes=2 --gpus-per-node=8 \
    -- train --config NAME --workdir FOLDER

Options before "--" are parameters of submitit's executor (--slurm-partition=..., --slurm-array-parallelism=4,
...). One process for each GPU of --gpus-per-node, as JAX expects on SLURM. Of a sweep every trial that is not
finished is a task of a job array. Ninety seconds before its time is up a job saves and is queued again.

Data and --workdir: folders that all nodes see, such as the cluster's NFS or Lustre; submitit's files and logs
go into WORKDIR/submitit, or for --workdir gs://BUCKET/FOLDER into ./submitit.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

EXAMPLE = "-- train --config NAME --workdir FOLDER"
STOPPED = 143


class Command:
  """A command that submitit runs until it has ended. It holds words alone, so nothing stale comes back."""

  def __init__(self, words: list[str]):
    self.words = words

  def __call__(self) -> None:
    # SLURM sends submitit's signal to all processes of the job: sr-jax inherits that it is not for it.
    handler = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    self.process = subprocess.Popen(self.words)
    signal.signal(signal.SIGUSR2, handler)
    code = self.process.wait()
    if code == STOPPED:  # another process of the job heard the signal
      sys.exit(code)
    if code:
      raise subprocess.CalledProcessError(code, self.words)

  def checkpoint(self):
    """What submitit calls in one process of a job on its signal: all save, and the job is queued again."""
    from submitit.helpers import DelayedSubmission

    self.process.terminate()
    # `wait` would wait for the one above, which this signal has interrupted.
    os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
    return DelayedSubmission(Command(self.words))


def main(argv: list[str]) -> None:
  """Submit, or with --dry-run print, what `argv` says."""
  end = argv.index("--") if "--" in argv else len(argv)
  options, words = argv[:end], argv[end + 1 :]
  pairs = [word.removeprefix("--").partition("=") for word in options if word != "--dry-run"]
  parameters = {key.replace("-", "_"): int(value) if value.isdigit() else value for key, _, value in pairs}
  parser = argparse.ArgumentParser(allow_abbrev=False)
  parser.add_argument("--config")
  parser.add_argument("--workdir")
  known, _ = parser.parse_known_args(words)
  if words[:1] not in (["train"], ["sweep"]):
    refuse(f"say what to run at the end, as in {EXAMPLE}.")
  for key in ("config", "workdir"):
    if not getattr(known, key):
      refuse(f"--{key} is missing: give it after {words[0]}, as in {EXAMPLE}.")
  for key, _, value in pairs:
    if not value:
      refuse(f"--{key} has no value: give it as --{key}=VALUE before {EXAMPLE}.")
  if "timeout_min" not in parameters:
    refuse(f"--timeout-min is missing: give the minutes that a job may take before {EXAMPLE}.")
  commands = [["sr-jax", *words, "--distributed"]]
  if words[0] == "sweep":
    commands = [[*commands[0], "--trial", number] for number in open_trials(words)]
  settings = {"name": "sr-jax", "tasks_per_node": parameters.get("gpus_per_node", 1), **parameters}
  folder = Path("" if known.workdir.startswith("gs://") else known.workdir).absolute() / "submitit"
  if "--dry-run" in options:
    print(f"{folder}: {json.dumps(settings)}", *map(shlex.join, commands), sep="\n")
    return
  import submitit

  executor = submitit.AutoExecutor(folder, slurm_max_num_timeout=100)
  executor.update_parameters(**settings)
  print(*(job.job_id for job in executor.submit_array([Command(words) for words in commands])))


def open_trials(words: list[str]) -> list[str]:
  """The numbers of a sweep's trials that are not finished."""
  listed = subprocess.run(["sr-jax", *words, "--list"], stdout=subprocess.PIPE, text=True, check=False)
  if listed.returncode:
    sys.exit(listed.returncode)
  trials = [line.split("\t") for line in listed.stdout.splitlines()]
  numbers = [number for number, _, state in trials if state != "finished"]
  if not numbers:
    print("All trials are finished.")
    sys.exit(0)
  return numbers


def refuse(sentence: str) -> NoReturn:
  print(f"launch/submitit_job.py: {sentence}", file=sys.stderr)
  sys.exit(2)


if __name__ == "__main__":
  main(sys.argv[1:])
