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

from launching import ENGINES, LAUNCH, WORDS, commands, container, launch, manifests, program

# Stands for the command line where a launcher asks it which trials of a sweep there are.
SR_JAX = """#!/bin/sh
echo "$@" > asked
printf '0\\tMSE_seed=0\\tfinished\\n1\\tMSE_seed=1\\tnot begun\\n2\\tslow\\tfailed\\n'
"""


@pytest.fixture(autouse=True)
def programs(tmp_path, monkeypatch):
  """In a folder whose programs are found first."""
  program(tmp_path / "sr-jax", SR_JAX)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.parametrize("name", ENGINES)
def test_the_same_words_give_the_same_command_on_every_engine(name):
  given = [*ENGINES[name].split(), "--dry-run", "--"]
  done = launch(name, *given, "train", *WORDS)
  assert (done.returncode, done.stderr) == (0, "")
  (command,) = commands(name, done.stdout)
  where = ["run-pods-0-0.run:8476,$(POD),2"] if name == "jobset.sh" else []
  assert command == ["sr-jax", "train", *WORDS, "--distributed", *where]


@pytest.mark.parametrize("name", ENGINES)
def test_of_a_sweep_every_trial_that_is_not_finished_is_launched(name):
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


def test_slurm_runs_as_many_trials_at_once_as_array_says_and_no_training_twice():
  good = ["--dry-run", "--array=%4", *ENGINES["slurm.sh"].split(), "--"]
  done = launch("slurm.sh", *good, "sweep", *WORDS)
  assert "--array=1,2%4" in shlex.split(done.stdout.splitlines()[0])
  for array, verb in (("%4", "train"), ("0-9", "train"), ("0-9%4", "sweep"), ("%0", "sweep")):
    done = launch("slurm.sh", "--dry-run", f"--array={array}", "--time=1", "--", verb, *WORDS)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"launch/slurm.sh: --array is {array}: leave it out")


def test_submitit_starts_a_process_for_each_gpu_of_a_kind():
  words = ["--dry-run", "--timeout-min=5", "--gpus-per-node=h100:8", "--", "train", *WORDS]
  settings = json.loads(launch("submitit_job.py", *words).stdout.splitlines()[0].partition(": ")[2])
  assert (settings["tasks_per_node"], settings["gpus_per_node"]) == (8, "h100:8")
  done = launch("submitit_job.py", *(word.replace("h100:8", "h100") for word in words))
  assert (done.returncode, done.stdout) == (2, "")
  assert done.stderr.startswith("launch/submitit_job.py: --gpus-per-node is h100: give NUMBER or KIND:NUMBER")


@pytest.mark.parametrize("name", ENGINES)
def test_what_is_missing_is_asked_for_in_one_sentence(name):
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
def test_a_value_that_is_missing_is_no_value_and_words_may_stand_apart(name):
  good = ENGINES[name].split()
  for words, key in (
    (["--workdir=/mnt/data/s", "--config"], "config"),
    (["--config", "--workdir=/mnt/data/s"], "config"),
    (["--config=x", "--workdir="], "workdir"),
  ):
    done = launch(name, *good, "--dry-run", "--", "train", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"launch/{name}: --{key} is missing or has no value")
  for wrong in (["--max-restarts=many"], ["--max-restarts"]):
    done = launch(name, *good, *wrong, "--dry-run", "--", "train", *WORDS)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"launch/{name}: --max-restarts ")
  together = launch(name, *good, "--dry-run", "--", "train", *WORDS).stdout
  if name != "slurm.sh":  # whose options sbatch reads
    apart = [part for word in good for part in word.split("=", 1)]
    done = launch(name, *apart, "--dry-run", "--", "train", *WORDS)
    assert done.stdout.replace("--namespace team", "--namespace=team") == together


@pytest.mark.parametrize("name", ["gke.sh", "jobset.sh", "tpu.sh"])
def test_a_work_directory_that_would_end_with_its_container_is_refused(name):
  for folder in ("runs/demo", "/tmp/run", "/mnt", "/mnt/data/../../tmp", "s3://bucket/run", "/mnt/data/.."):
    words = ["--config", "x", f"--workdir={folder}"]
    done = launch(name, *ENGINES[name].split(), "--dry-run", "--", "train", *words)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"launch/{name}: --workdir {folder} would be lost with the container: ")
  for folder in ("gs://bucket/run", "/mnt/data/run"):
    words = ["--config", "x", f"--workdir={folder}"]
    assert launch(name, *ENGINES[name].split(), "--dry-run", "--", "train", *words).returncode == 0


@pytest.mark.parametrize(
  ("name", "options"),
  [
    *(("slurm.sh", given) for given in ("--gres=gpu:8", "--gres nvme:1,gpu:8", "--gpus=8", "-G8")),
    ("slurm.sh", "--gpus-per-task=1"),
    *(("submitit_job.py", given) for given in ("--slurm-gres=gpu:8", "--slurm-gpus-per-task 1")),
  ],
)
def test_gpus_that_would_get_no_process_are_refused(name, options):
  words = ["--timeout-min=720", "--dry-run", "--", "train", *WORDS]
  done = launch(name, *options.split(), *(words if name.endswith(".py") else words[1:]))
  assert (done.returncode, done.stdout) == (2, "")
  assert done.stderr.startswith(f"launch/{name}: GPUs must be given as --gpus-per-node=NUMBER")


@pytest.mark.parametrize("name", ENGINES)
def test_a_sweep_that_is_finished_or_cannot_be_listed_launches_nothing(name, tmp_path):
  words = [*ENGINES[name].split(), "--", "sweep", *WORDS]
  program(tmp_path / "sr-jax", "#!/bin/sh\nprintf '0\\tMSE\\tfinished\\n'\n")
  done = launch(name, *words)
  assert (done.returncode, done.stdout) == (0, "All trials are finished.\n")
  program(tmp_path / "sr-jax", "#!/bin/sh\necho 'sr-jax: no.' >&2; exit 2\n")
  done = launch(name, *words)
  assert (done.returncode, done.stdout, done.stderr) == (2, "", "sr-jax: no.\n")


# Exit codes of sr-jax, and whether the same command starts again.
RESTARTS = [(code, code in (42, 127, 137, 142, 143)) for code in (0, 1, 2, 42, 126, 127, 137, 142, 143)]


@pytest.mark.parametrize(("code", "again"), RESTARTS)
def test_a_slurm_job_goes_back_into_the_queue_if_a_machine_failed_or_stopped_it_and_not_for_ever(
  tmp_path, monkeypatch, code, again
):
  # What sbatch is given runs with an srun that ends as sr-jax would.
  program(tmp_path / "sbatch", '#!/bin/sh\necho "$@" > options\nexec bash\n')
  program(tmp_path / "srun", f'#!/bin/sh\nfor word; do echo "$word"; done > run\nexit {code}\n')
  program(tmp_path / "scontrol", '#!/bin/sh\necho "$@" > queued\n')
  monkeypatch.setenv("SLURM_JOB_ID", "7")
  given = [*ENGINES["slurm.sh"].split(), "--max-restarts=3", "--", "train", *WORDS]
  for count, queues in (("", again), ("2", again), ("3", False)):
    Path("queued").unlink(missing_ok=True)
    with monkeypatch.context() as patch:
      if count:
        patch.setenv("SLURM_RESTART_COUNT", count)
      done = launch("slurm.sh", *given)
    assert done.returncode == code
    assert Path("queued").exists() == queues
    assert not queues or Path("queued").read_text() == "requeue 7\n"
    assert (f"Exit code {code}" in done.stderr) == bool(code)
  # --kill-on-bad-exit would end the others by a signal, and srun with 143 whatever the first code was.
  assert Path("run").read_text().splitlines() == [
    *("--kill-on-bad-exit=0", "--wait=30", "sr-jax", "train", *WORDS, "--distributed")
  ]
  options = Path("options").read_text().split()
  assert {"--requeue", "--signal=TERM@120", "--ntasks-per-node=8", "--gpus-per-node=h100:8"} < set(options)


FAKE_GCLOUD = """#!/bin/sh
echo "$@" | cut -d' ' -f3,4 >> calls
case "$*" in
  *describe*) echo {state} ;;
  *ssh*) [ "$(grep -c ssh calls)" = {good} ] || exit {code} ;;
esac
"""


def test_a_tpu_that_was_preempted_is_asked_for_again_until_the_run_has_ended(tmp_path):
  program(tmp_path / "gcloud", FAKE_GCLOUD.format(state="ACTIVE", good=3, code=255))
  program(tmp_path / "sleep", "#!/bin/sh\n")
  words = [*ENGINES["tpu.sh"].split(), "--", "train", *WORDS]
  done = launch("tpu.sh", *words)
  assert done.returncode == 0, done.stderr
  once = ["queued-resources create", "queued-resources describe", "tpu-vm ssh", "queued-resources delete"]
  assert Path("calls").read_text().splitlines() == once * 3
  program(tmp_path / "gcloud", FAKE_GCLOUD.format(state="FAILED", good=0, code=255))
  assert launch("tpu.sh", *words).returncode == 1
  program(tmp_path / "gcloud", FAKE_GCLOUD.format(state="ACTIVE", good=0, code=2))
  sweep = [*ENGINES["tpu.sh"].split(), "--", "sweep", *WORDS]
  assert launch("tpu.sh", *sweep).returncode == 2, "the code of a trial that failed"


@pytest.mark.parametrize(("code", "again"), RESTARTS)
def test_a_tpu_is_asked_for_again_after_a_fault_of_a_machine_and_not_for_ever(tmp_path, code, again):
  program(tmp_path / "gcloud", FAKE_GCLOUD.format(state="ACTIVE", good=0, code=code))
  program(tmp_path / "sleep", "#!/bin/sh\n")
  done = launch("tpu.sh", *ENGINES["tpu.sh"].split(), "--max-restarts=2", "--", "train", *WORDS)
  assert done.returncode == code
  assert Path("calls").read_text().count("ssh") == (3 if again else 1)
  assert (f"exit code {code} after {2 * again} restarts" in done.stderr) == bool(code)


def test_a_tpu_that_somebody_deleted_is_not_waited_for(tmp_path):
  program(tmp_path / "gcloud", "#!/bin/sh\ncase $* in *describe* | *delete*) exit 1 ;; esac\n")
  program(tmp_path / "sleep", "#!/bin/sh\n")
  done = launch("tpu.sh", *ENGINES["tpu.sh"].split(), "--", "train", *WORDS)
  assert done.returncode == 1
  assert done.stderr == "launch/tpu.sh: run: no such TPU, exit code 1 after 0 restarts.\n"


def test_a_jobset_starts_again_but_for_a_mistake_and_mounts_its_claim():
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
  on = rule["onExitCodes"]
  assert (rule["action"], on["containerName"], on["operator"]) == (
    *("FailJob", pod["containers"][0]["name"], "NotIn"),
  )
  assert [code in on["values"] for code, _ in RESTARTS[1:]] == [again for _, again in RESTARTS[1:]]
  assert on["values"] == sorted(set(on["values"])), "as Kubernetes wants them"
  assert pod["restartPolicy"] == "Never"
  ours = container(jobset)
  assert ours["resources"]["limits"] == {"nvidia.com/gpu": 8}
  mounts = {mount["name"]: mount["mountPath"] for mount in ours["volumeMounts"]}
  assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
  assert {"name": "data", "persistentVolumeClaim": {"claimName": "disk"}} in pod["volumes"]
  assert mounts["data"] == "/mnt/data"


def test_words_with_quotes_reach_the_command_as_they_are():
  words = ["train", "--config", "a", "--workdir", r"""/mnt/data/"c" \d 'e' $HOME""", "--config.data.name=x"]
  for name, options in ENGINES.items():
    done = launch(name, *options.split(), "--dry-run", "--", *words)
    assert commands(name, done.stdout)[0][: len(words) + 1] == ["sr-jax", *words], name


def test_submitit_gets_words_and_settings():
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
  command = runpy.run_path(str(LAUNCH / "submitit_job.py"))["Command"]([str(tmp_path / "run")], 20)
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


@pytest.mark.parametrize(("code", "again"), [*RESTARTS[1:], (-9, True)])
def test_a_submitit_job_is_queued_again_if_a_machine_failed_and_not_for_ever(
  tmp_path, monkeypatch, capfd, code, again
):
  ends = f"exit {code}" if code > 0 else f"kill {code} $$"
  program(tmp_path / "run", f"#!/bin/sh\n{ends}\n")
  program(tmp_path / "scontrol", '#!/bin/sh\necho "$@" >&2\n')
  monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
  monkeypatch.setenv("SLURM_JOB_ID", "7")
  command = runpy.run_path(str(LAUNCH / "submitit_job.py"))["Command"]([str(tmp_path / "run")], 3)
  # 143 is for whoever stopped it: submitit's signal queues the job again (`checkpoint`), scancel must end it.
  for count, queues in ((2, again and code != 143), (3, False)):
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(count))
    with pytest.raises((SystemExit, subprocess.CalledProcessError)):
      command()
    assert ("requeue 7" in capfd.readouterr().err) == queues


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
