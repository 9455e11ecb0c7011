"""SLURM from Python, by submitit (`pip install submitit`):

  python launch/submitit_job.py --dry-run --timeout-min=720 --nodes=2 --gpus-per-node=8 \
    -- train --config NAME --workdir FOLDER

Options before "--" are parameters of submitit's executor (--slurm-partition=..., --slurm-array-parallelism=4,
...). One process for each GPU of --gpus-per-node, as JAX expects on SLURM. Of a sweep every trial that is not
finished is a task of a job array. Ninety seconds before its time is up a job saves and is queued again, as it
is after a fault of a machine, --max-restarts times (20); scancel ends it.

Data and --workdir: folders that all nodes see, such as the cluster's NFS or Lustre; submitit's files and logs
go into WORKDIR/submitit, or for --workdir gs://BUCKET/FOLDER into ./submitit.
"""

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

  def __init__(self, words: list[str], restarts: int):
    self.words, self.restarts = words, restarts

  def __call__(self) -> None:
    # SLURM sends submitit's signal to all processes of the job: sr-jax inherits that it is not for it.
    handler = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    self.process = subprocess.Popen(self.words)
    signal.signal(signal.SIGUSR2, handler)
    code = self.process.wait()
    if code < 0:  # a signal killed it
      code = 128 - code
    # By `checkpoint` in one of the processes, which queues the job again, or by scancel, which ends it.
    if code == STOPPED:
      sys.exit(code)
    count = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    # Those on which xpk restarts: killed, or a fault of a machine. One process that sees it is enough.
    if (code == 42 or code >= 127) and count < self.restarts:
      report(f"Exit code {code}: restart {count + 1} of at most {self.restarts}.")
      subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
      sys.exit(code)
    if code:
      report(f"Exit code {code} after {count} restarts of at most {self.restarts}: the job ends.")
      raise subprocess.CalledProcessError(code, self.words)

  def checkpoint(self):
    """What submitit calls in one process of a job on its signal: all save, and the job is queued again."""
    from submitit.helpers import DelayedSubmission

    self.process.terminate()
    # `wait` would wait for the one above, which this signal has interrupted.
    os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
    return DelayedSubmission(Command(self.words, self.restarts))


def main(argv: list[str]) -> None:
  """Submit, or with --dry-run print, what `argv` says."""
  end = argv.index("--") if "--" in argv else len(argv)
  options, words = argv[:end], argv[end + 1 :]
  if words[:1] not in (["train"], ["sweep"]):
    refuse(f"say what to run at the end, as in {EXAMPLE}.")
  given = values(words)
  for key in ("config", "workdir"):
    if not given.get(key):
      refuse(f"--{key} is missing or has no value: give it after {words[0]}, as in {EXAMPLE}.")
  parameters: dict[str, int | str] = {}
  for key, value in values([word for word in options if word != "--dry-run"]).items():
    if not key:
      refuse(f"options are --KEY=VALUE or --KEY VALUE: correct {value or 'those'} before {EXAMPLE}.")
    if not value:
      refuse(f"--{key} has no value: give it as --{key}=VALUE before {EXAMPLE}.")
    name = key.replace("-", "_")
    if name != "gpus_per_node" and ("gpus" in name or ("gres" in name and "gpu" in value)):
      refuse(f"GPUs must be given as --gpus-per-node=NUMBER before {EXAMPLE}: each gets a process.")
    parameters[name] = int(value) if value.isdigit() else value
  if "timeout_min" not in parameters:
    refuse(f"--timeout-min is missing: give the minutes that a job may take before {EXAMPLE}.")
  restarts = parameters.pop("max_restarts", 20)
  if not isinstance(restarts, int):
    refuse(f"--max-restarts is {restarts}: give a number before {EXAMPLE}.")
  commands = [["sr-jax", *words, "--distributed"]]
  if words[0] == "sweep":
    commands = [[*commands[0], "--trial", number] for number in open_trials(words)]
  gpus = str(parameters.get("gpus_per_node", 1)).rpartition(":")[2]  # of 8 or "h100:8"
  if not gpus.isdigit():
    refuse(f"--gpus-per-node is {parameters['gpus_per_node']}: give NUMBER or KIND:NUMBER before {EXAMPLE}.")
  settings = {"name": "sr-jax", "tasks_per_node": int(gpus), **parameters}
  workdir = given["workdir"]
  folder = Path("" if workdir.startswith("gs://") else workdir).absolute() / "submitit"
  if "--dry-run" in options:
    print(f"{folder}: {json.dumps(settings)}", *map(shlex.join, commands), sep="\n")
    return
  import submitit

  executor = submitit.AutoExecutor(folder, slurm_max_num_timeout=restarts)
  executor.update_parameters(**settings)
  print(*(job.job_id for job in executor.submit_array([Command(words, restarts) for words in commands])))


def values(words: list[str]) -> dict[str, str]:
  """KEY -> VALUE of each --KEY=VALUE and --KEY VALUE, "" if it has none; the last one counts.

  What is no such pair has the key "".
  """
  found, key = {}, ""
  for word in words:
    if word.startswith("--"):
      key, equals, value = word.removeprefix("--").partition("=")
      found[key] = value
      key = "" if equals else key
    else:
      found[key] = "" if word.startswith("-") else word
      key = ""
  return found


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
  report(f"launch/submitit_job.py: {sentence}")
  sys.exit(2)


def report(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
  main(sys.argv[1:])
