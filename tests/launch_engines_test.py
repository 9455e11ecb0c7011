"""What the launchers print, checked by each engine's own tool where that is installed, without a network."""

import json
import os
import re
import shlex
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from launching import ENGINES, LAUNCH, WORDS, launch, manifests, program

SCRIPTS = sorted(path.name for path in LAUNCH.glob("*.sh"))
# The fields that jobset.sh may use, with the types that JobSet's definition gives them: in the repository
# kubernetes-sigs/jobset, config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml. A list's one item says
# what its items are; in a dict `...` stands for any other key.
POD = {
  "restartPolicy": str,
  "terminationGracePeriodSeconds": int,
  "containers": [
    {
      **{"name": str, "image": str, "command": [str]},
      "env": [{"name": str, "valueFrom": {"fieldRef": {"fieldPath": str}}}],
      "resources": {"limits": {...: int}},
      "volumeMounts": [{"name": str, "mountPath": str}],
    }
  ],
  "volumes": [{"name": str, "persistentVolumeClaim": {"claimName": str}, "emptyDir": {"medium": str}}],
}
JOB = {
  **{"parallelism": int, "completions": int, "completionMode": str, "backoffLimit": int},
  "podFailurePolicy": {
    "rules": [{"action": str, "onExitCodes": {"containerName": str, "operator": str, "values": [int]}}]
  },
  "template": {"spec": POD},
}
JOBSET = {
  **{"apiVersion": str, "kind": str, "metadata": {"name": str}},
  "spec": {
    "failurePolicy": {
      "maxRestarts": int,
      "rules": [{"name": str, "action": str, "onJobFailureReasons": [str]}],
    },
    "replicatedJobs": [{"name": str, "replicas": int, "template": {"spec": JOB}}],
  },
}


def tool(name: str) -> str:
  return shutil.which(name) or pytest.skip(f"{name} is not installed")


def output(*command: str, **options: Any) -> str:
  """What a command prints; its errors where it fails."""
  done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
  assert done.returncode == 0, done.stderr or done.stdout
  return done.stdout


def dry(name: str, *more: str) -> str:
  done = launch(name, *ENGINES[name].split(), *more, "--dry-run", "--", "train", *WORDS)
  assert done.returncode == 0, done.stderr
  return done.stdout


def misfits(value: Any, schema: Any, path: str = "") -> list[str]:
  """Paths of what is not in the schema or of another type."""
  if isinstance(schema, dict) and isinstance(value, dict):
    known = [(schema.get(key, schema.get(...)), v, f"{path}.{key}") for key, v in value.items()]
    return [found for part, v, where in known for found in misfits(v, part, where)]
  if isinstance(schema, list) and isinstance(value, list):
    return [found for i, v in enumerate(value) for found in misfits(v, schema[0], f"{path}[{i}]")]
  return [] if isinstance(schema, type) and type(value) is schema else [path]


@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_reads_a_launcher(name):
  output("bash", "-n", str(LAUNCH / name))


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_finds_nothing_in_a_launcher(name):
  output(tool("shellcheck"), "--external-sources", name, cwd=LAUNCH)


def test_gcloud_knows_every_command_and_option_of_the_tpu_launcher(tmp_path, monkeypatch):
  gcloud = tool("gcloud")
  monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
  printed = dry("tpu.sh").splitlines()
  given = [re.sub(r" --command=.*", " --command=x", line) for line in printed]  # its linter takes no quotes
  given.append("gcloud compute tpus queued-resources describe run --zone=z --format=value(state.state)")
  assert "describe" in (LAUNCH / "tpu.sh").read_text()
  wrong = given[0].replace("--spot", "--spott")
  (tmp_path / "commands").write_text(json.dumps([{"command_string": line} for line in (*given, wrong)]))
  found = json.loads(
    output(gcloud, "meta", "lint-gcloud-commands", f"--commands-file={tmp_path / 'commands'}")
  )
  assert [(one["success"], one["error_message"]) for one in found[:-1]] == [(True, None)] * 4
  assert not found[-1]["success"]


def test_xpk_makes_a_manifest_that_restarts_on_the_same_exit_codes(tmp_path, monkeypatch):
  tool("xpk")
  monkeypatch.setenv("HOME", str(tmp_path))
  command = shlex.split(dry("gke.sh", "--zone=us-east5-a", "--project=p"))
  text = output(*command, "--dry-run", cwd=tmp_path)
  (start,) = re.finditer(r"apiVersion: jobset.*?(?=\n\[XPK\])", text, re.DOTALL)
  spec = yaml.safe_load(start[0])["spec"]
  job = spec["replicatedJobs"][0]["template"]["spec"]
  assert int(spec["failurePolicy"]["maxRestarts"]) == 20
  assert job["template"]["spec"]["terminationGracePeriodSeconds"] == 120
  (theirs,) = job["podFailurePolicy"]["rules"]
  (jobset,) = manifests(dry("jobset.sh"))
  (ours,) = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
  for key in ("operator", "values"):
    assert ours["onExitCodes"][key] == theirs["onExitCodes"][key]


def test_a_jobset_has_the_fields_that_its_definition_knows():
  (jobset,) = manifests(dry("jobset.sh"))
  assert misfits(jobset, JOBSET) == []
  (rule,) = jobset["spec"]["failurePolicy"]["rules"]
  assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
  jobset["spec"]["failurePolicy"]["maxRestart"] = jobset["spec"]["failurePolicy"].pop("maxRestarts")
  assert misfits(jobset, JOBSET) == [".spec.failurePolicy.maxRestart"]


def test_sbatch_would_start_what_the_slurm_launcher_gives_it():
  tool("sbatch")
  ping = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, check=False)
  if "UP" not in ping.stdout:
    pytest.skip("no slurmctld answers: sbatch --test-only asks it")
  done = launch("slurm.sh", "--test-only", "--nodes=2", "--time=10", "--", "train", *WORDS)
  assert done.returncode == 0, done.stderr
  assert re.search(r"Job \d+ to start at .* on nodes", done.stderr)
  done = launch("slurm.sh", "--test-only", "--nodes=999", "--", "train", *WORDS)
  assert done.returncode != 0


def test_submitit_asks_for_a_process_for_each_gpu(tmp_path, monkeypatch):
  pytest.importorskip("submitit")
  program(tmp_path / "sbatch", '#!/bin/sh\ncp "$1" batch && echo Submitted batch job 7\n')
  program(tmp_path / "srun", "#!/bin/sh\n")
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
  words = ["train", "--config=srim_demo", f"--workdir={tmp_path}"]
  done = launch("submitit_job.py", *ENGINES["submitit_job.py"].split(), "--", *words)
  assert (done.returncode, done.stdout.strip()) == (0, "7"), done.stderr
  options = [line for line in (tmp_path / "batch").read_text().splitlines() if line.startswith("#SBATCH")]
  for wanted in ("--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--time=720"):
    assert f"#SBATCH {wanted}" in options
