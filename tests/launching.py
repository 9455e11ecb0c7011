"""What the tests of the launchers share: options for each, and what they print taken apart."""

import shlex
import subprocess
import sys
from pathlib import Path

import yaml

LAUNCH = Path(__file__).parent.parent / "launch"
# Every launcher with all that it needs before "--".
ENGINES = {
  "slurm.sh": "--nodes=2 --gpus-per-node=h100:8 --time=12:00:00",
  "tpu.sh": "--name=run --zone=us-east5-a --accelerator-type=v5litepod-16 "
  "--runtime-version=v2-alpha-tpuv5-lite --image=registry/image --spot",
  "gke.sh": "--workload run --cluster c --tpu-type v5litepod-16 --docker-image registry/image",
  "jobset.sh": "--name=run --image=registry/image --nodes=2 --gpus=8 --claim=disk --namespace=team",
  "submitit_job.py": "--timeout-min=720 --nodes=2 --gpus-per-node=8",
}
WORDS = ["--config", "srim_demo", "--workdir", "/mnt/data/a b", "--config.operator.factor=(2,2)"]


def launch(name: str, *words: str) -> subprocess.CompletedProcess:
  """A launcher with these words, in the current folder; programs are found by PATH."""
  start = [sys.executable] if name.endswith(".py") else ["bash"]
  return subprocess.run([*start, LAUNCH / name, *words], capture_output=True, text=True, check=False)


def program(path: Path, text: str) -> None:
  path.write_text(text)
  path.chmod(0o755)


def commands(name: str, text: str) -> list[list[str]]:
  """The sr-jax commands in what a launcher prints, word by word as the engine's shell takes them apart."""
  if name == "jobset.sh":
    return [job["command"] for job in map(container, manifests(text))]
  lines = text.splitlines()
  if name in ("tpu.sh", "gke.sh"):
    given = [word for line in lines for word in shlex.split(line) if word.startswith("--command=")]
    lines = [word.removeprefix("--command=") for word in given]
  found = [shlex.split(line) for line in lines if "sr-jax train" in line or "sr-jax sweep" in line]
  return [words[words.index("sr-jax") :] for words in found]


def manifests(text: str) -> list[dict]:
  head, _, body = text.partition("\n")
  assert head == "kubectl apply -f - --namespace=team <<'EOF'"
  return [document for document in yaml.safe_load_all(body.removesuffix("EOF\n")) if document]


def container(jobset: dict) -> dict:
  (job,) = jobset["spec"]["replicatedJobs"]
  (found,) = job["template"]["spec"]["template"]["spec"]["containers"]
  return found
