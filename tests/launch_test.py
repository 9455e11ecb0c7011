"""The launchers: what they would submit, read back by the rules of each engine. Nothing is submitted."""

import json
import os
import runpy
import shlex
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest
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
# Stands for the command line where a launcher asks it which trials of a sweep there are.
SR_JAX = """#!/bin/sh
echo "$@" > asked
printf '0\\tMSE_seed=0\\tfinished\\n1\\tMSE_seed=1\\tnot begun\\n2\\tslow\\tfailed\\n'
"""


@pytest.fixture
def launch(tmp_path, monkeypatch):
  """(launcher, *words) -> the finished process; programs that it finds are those in `tmp_path`."""
  program(tmp_path / "sr-jax", SR_JAX)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

  def run(name: str, *words: str) -> subprocess.CompletedProcess:
    start = [sys.executable] if name.endswith(".py") else ["bash"]
    return subprocess.run([*start, LAUNCH / name, *words], capture_output=True, text=True, check=False)

  return run


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


@pytest.mark.parametrize("name", ENGINES)
def test_the_same_words_give_the_same_command_on_every_engine(launch, name):
  given = [*ENGINES[name].split(), "--dry-run", "--"]
  done = launch(name, *given, "train", *WORDS)
  assert (done.returncode, done.stderr) == (0, "")
  (command,) = commands(name, done.stdout)
  where = ["run-pods-0-0.run:8476,$(POD),2"] if name == "jobset.sh" else []
  assert command == ["sr-jax", "train", *WORDS, "--distributed", *where]


@pytest.mark.parametrize("name", ENGINES)
def test_of_a_sweep_every_trial_that_is_not_finished_is_launched(launch, name):
  done = launch(name, "--dry-run", *ENGINES[name].split(), "--", "sweep", *WORDS)
  assert (done.returncode, done.stderr) == (0, "")
  assert Path("asked").read_text().split() == ["sweep", *" ".join(WORDS).split(), "--list"]
  found = commands(name, done.stdout)
  numbers = [command[command.index("--trial") + 1] for command in found]
  if name == "slurm.sh":
    assert numbers == ["$SLURM_ARRAY_TASK_ID"]
    assert "--array=1,2" in shlex.split(done.stdout.splitlines()[0])
  else:
    assert numbers == ["1", "2"]
  for command in found:
    assert command[: len(WORDS) + 2] == ["sr-jax", "sweep", *WORDS]
    assert any(word == "--distributed" for word in command)
  for engine, flag in (("tpu.sh", "--node-id=run-"), ("gke.sh", "--workload=run-")):
    if name == engine:
      assert [f"{flag}{n}" in done.stdout for n in range(3)] == [False, True, True]


@pytest.mark.parametrize("name", ENGINES)
def test_what_is_missing_is_asked_for_in_one_sentence(launch, name):
  good = ENGINES[name].split()
  wrong = {"say what to run": good, "--workdir is missing": [*good, "--", "train", "--config", "x"]}
  wrong["--config is missing"] = [*good, "--", "sweep", "--workdir", "x", "--config.seed=1"]
  wrong["say what to run "] = [*good, "--", "evaluate", *WORDS]
  needed = {
    "tpu.sh": ("name", "zone", "accelerator-type", "runtime-version", "image"),
    "gke.sh": ("workload", "cluster", "tpu-type", "docker-image"),
    "jobset.sh": ("name", "image", "nodes", "gpus", "claim"),
    "submitit_job.py": ("timeout-min",),
  }
  joined = ENGINES[name].replace("--workload run", "--workload=run").replace("--cluster c", "--cluster=c")
  joined = joined.replace("--tpu-type v5", "--tpu-type=v5").replace("--docker-image r", "--docker-image=r")
  for key in needed.get(name, ()):
    rest = [word for word in joined.split() if not word.startswith(f"--{key}=")]
    wrong[f"--{key} is missing"] = [*rest, "--", "train", *WORDS]
  for sentence, words in wrong.items():
    done = launch(name, *words)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"launch/{name}: {sentence.strip()}")


@pytest.mark.parametrize("name", ENGINES)
def test_a_sweep_that_is_finished_or_cannot_be_listed_launches_nothing(launch, name, tmp_path):
  words = [*ENGINES[name].split(), "--", "sweep", *WORDS]
  program(tmp_path / "sr-jax", "#!/bin/sh\nprintf '0\\tMSE\\tfinished\\n'\n")
  done = launch(name, *words)
  assert (done.returncode, done.stdout) == (0, "All trials are finished.\n")
  program(tmp_path / "sr-jax", "#!/bin/sh\necho 'sr-jax: no.' >&2; exit 2\n")
  done = launch(name, *words)
  assert (done.returncode, done.stdout, done.stderr) == (2, "", "sr-jax: no.\n")


@pytest.mark.parametrize(("code", "queued"), [(143, "requeue 7"), (2, ""), (0, "")])
def test_a_slurm_job_goes_back_into_the_queue_if_it_was_stopped_and_only_then(
  launch, tmp_path, monkeypatch, code, queued
):
  # What sbatch is given runs with an srun that ends as sr-jax would.
  program(tmp_path / "sbatch", '#!/bin/sh\necho "$@" > options\nexec bash\n')
  program(tmp_path / "srun", f'#!/bin/sh\nfor word; do echo "$word"; done > run\nexit {code}\n')
  program(tmp_path / "scontrol", '#!/bin/sh\necho "$@" > queued\n')
  monkeypatch.setenv("SLURM_JOB_ID", "7")
  done = launch("slurm.sh", *ENGINES["slurm.sh"].split(), "--", "train", *WORDS)
  assert done.returncode == code
  assert Path("run").read_text().splitlines() == [
    *("--kill-on-bad-exit=1", "sr-jax", "train", *WORDS, "--distributed")
  ]
  assert (Path("queued").read_text().strip() if Path("queued").exists() else "") == queued
  options = Path("options").read_text().split()
  assert {"--requeue", "--signal=TERM@120", "--ntasks-per-node=8", "--gpus-per-node=h100:8"} < set(options)


def test_a_tpu_that_was_preempted_is_asked_for_again_until_the_run_has_ended(launch, tmp_path):
  program(
    tmp_path / "gcloud",
    """#!/bin/sh
echo "$@" | cut -d' ' -f3,4 >> calls
case "$*" in
  *describe*) echo ACTIVE ;;
  *ssh*) [ "$(grep -c ssh calls)" = 3 ] || exit 255 ;;
esac
""",
  )
  program(tmp_path / "sleep", "#!/bin/sh\n")
  words = [*ENGINES["tpu.sh"].split(), "--", "train", *WORDS]
  done = launch("tpu.sh", *words)
  assert done.returncode == 0, done.stderr
  once = ["queued-resources create", "queued-resources describe", "tpu-vm ssh", "queued-resources delete"]
  assert Path("calls").read_text().splitlines() == once * 3
  program(tmp_path / "gcloud", "#!/bin/sh\ncase $* in *describe*) echo ACTIVE;; *ssh*) exit 2;; esac\n")
  assert launch("tpu.sh", *words).returncode == 2
  sweep = [*ENGINES["tpu.sh"].split(), "--", "sweep", *WORDS]
  assert launch("tpu.sh", *sweep).returncode == 2, "the code of a trial that failed"
  program(tmp_path / "gcloud", "#!/bin/sh\ncase $* in *describe*) echo FAILED;; *ssh*) exit 255;; esac\n")
  assert launch("tpu.sh", *words).returncode == 1


def test_a_jobset_starts_again_but_for_a_mistake_and_mounts_its_claim(launch):
  done = launch(
    "jobset.sh", *ENGINES["jobset.sh"].split(), "--max-restarts=9", "--dry-run", "--", "train", *WORDS
  )
  (jobset,) = manifests(done.stdout)
  assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
  (rule,) = jobset["spec"]["failurePolicy"]["rules"]
  assert rule["action"] == "FailJobSet"
  assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
  assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 9
  job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
  assert (job["parallelism"], job["completions"], job["completionMode"]) == (2, 2, "Indexed")
  assert job["backoffLimit"] == 0, "the JobSet restarts all pods together"
  (rule,) = job["podFailurePolicy"]["rules"]
  pod = job["template"]["spec"]
  assert rule["onExitCodes"] == {
    "containerName": pod["containers"][0]["name"],
    "operator": "In",
    "values": [2],
  }
  assert pod["restartPolicy"] == "Never"
  ours = container(jobset)
  assert ours["resources"]["limits"] == {"nvidia.com/gpu": 8}
  mounts = {mount["name"]: mount["mountPath"] for mount in ours["volumeMounts"]}
  assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
  assert {"name": "data", "persistentVolumeClaim": {"claimName": "disk"}} in pod["volumes"]
  assert mounts["data"] == "/mnt/data"


def test_words_with_quotes_reach_the_command_as_they_are(launch):
  words = ["train", "--config", "a", "--workdir", r"""/b/"c" \d 'e' $HOME""", "--config.data.name=x"]
  for name, options in ENGINES.items():
    done = launch(name, *options.split(), "--dry-run", "--", *words)
    assert commands(name, done.stdout)[0][: len(words) + 1] == ["sr-jax", *words], name


def test_submitit_gets_words_and_settings(launch):
  done = launch(
    "submitit_job.py",
    "--slurm-partition=gpu",
    *ENGINES["submitit_job.py"].split(),
    "--dry-run",
    "--",
    "train",
    *WORDS,
  )
  folder, _, settings = done.stdout.splitlines()[0].partition(": ")
  assert folder == "/mnt/data/a b/submitit"
  assert json.loads(settings) == {
    **{"name": "sr-jax", "tasks_per_node": 8, "slurm_partition": "gpu"},
    **{"timeout_min": 720, "nodes": 2, "gpus_per_node": 8},
  }


def test_a_submitit_job_saves_on_its_signal_and_hands_back_the_same_words(tmp_path, monkeypatch):
  program(
    tmp_path / "run",
    "#!/bin/sh\ntrap 'echo > saved; exit 143' TERM\necho > begun\nwhile :; do sleep .02; done\n",
  )
  monkeypatch.chdir(tmp_path)
  helpers = types.SimpleNamespace(DelayedSubmission=lambda function: function)
  monkeypatch.setitem(sys.modules, "submitit", types.SimpleNamespace(helpers=helpers))
  monkeypatch.setitem(sys.modules, "submitit.helpers", helpers)
  command = runpy.run_path(str(LAUNCH / "submitit_job.py"))["Command"]([str(tmp_path / "run")])
  again = []

  def requeue(number: int, frame: object) -> None:  # as submitit does
    again.append(command.checkpoint())
    assert (tmp_path / "saved").exists()
    sys.exit(7)

  def preempt() -> None:
    while not (tmp_path / "begun").exists() or signal.getsignal(signal.SIGUSR2) is not requeue:
      time.sleep(0.02)
    os.kill(command.process.pid, signal.SIGUSR2)
    os.kill(os.getpid(), signal.SIGUSR2)

  previous = signal.signal(signal.SIGUSR2, requeue)
  threading.Thread(target=preempt, daemon=True).start()
  try:
    with pytest.raises(SystemExit, match="7"):
      command()
  finally:
    signal.signal(signal.SIGUSR2, previous)
    command.process.wait()
  assert again[0].words == command.words
  assert not hasattr(again[0], "process")


@pytest.mark.parametrize("extra", ["tpu", "cuda"])
def test_a_container_file_copies_what_it_installs_and_is_not_root_when_it_runs(extra):
  lines = (LAUNCH / f"Dockerfile.{extra}").read_text().splitlines()
  steps = [line.split() for line in lines if line and not line.startswith("#")]
  for step in steps:
    if step[0] == "COPY":
      assert all((LAUNCH.parent / path).exists() for path in step[1:-1]), step
  assert "USER" in [step[0] for step in steps]
  (install,) = [line for line in lines if '".[' in line]
  for name in install.partition("[")[2].partition("]")[0].split(","):
    assert f"\n{name} =" in (LAUNCH.parent / "setup.cfg").read_text()
