#!/usr/bin/env bash
# SLURM:
#   launch/slurm.sh --dry-run --nodes=2 --gpus-per-node=8 --time=12:00:00 -- train --config NAME --workdir FOLDER
#
# Options before "--" are sbatch's (--partition, --account, ...). One process for each GPU of --gpus-per-node, which
# is what JAX expects on SLURM; without it, one for each node. Of a sweep every trial that is not finished is a task
# of a job array, with --array=%N N of them at once. Two minutes before the time limit, and when it is preempted, a
# job saves and goes back into the queue, as it does after a fault of a machine, --max-restarts times (20); scancel
# ends it.
#
# Data, and --workdir unless that is gs://BUCKET/FOLDER: folders that all nodes see, such as the cluster's NFS or
# Lustre. Run it with the environment of sr-jax active: sbatch hands it on.
# shellcheck disable=SC2154  # `take` sets variables
set -euo pipefail
. "$(dirname "$0")/words.sh"
take gpus-per-node gpus
take job-name name
take array parallel
[[ ! " ${options[*]}" =~ " "(-G|--gpus|--gres[= ][^ -]*gpu) ]] ||
  refuse "GPUs must be given as --gpus-per-node=NUMBER before $example: each gets a process."

[[ -z $parallel || (${words[0]} == sweep && $parallel =~ ^%[1-9][0-9]*$) ]] ||
  refuse "--array is $parallel: leave it out, or give --array=%N before -- sweep for N trials at once."

command="$(quoted sr-jax "${words[@]}") --distributed"
array=()
if ((${#trials[@]})); then
  command+=" --trial \"\$SLURM_ARRAY_TASK_ID\""
  array=("--array=$(IFS=, && echo "${trials[*]}")$parallel")
fi
# A process that fails ends the others with its own exit code; --kill-on-bad-exit would hide it behind a signal's.
# --wait ends those that cannot hear.
script="#!/usr/bin/env bash
srun --kill-on-bad-exit=0 --wait=30 $command
code=\$? count=\${SLURM_RESTART_COUNT:-0}
if (($again)) && ((count < $restarts)); then
  echo \"Exit code \$code: restart \$((count + 1)) of at most $restarts.\" >&2
  scontrol requeue \"\$SLURM_JOB_ID\"
elif ((code)); then
  echo \"Exit code \$code after \$count restarts of at most $restarts: the job ends.\" >&2
fi
exit \$code"
tasks=${gpus##*:} # of "8" or "h100:8"
feed "$script" sbatch "--job-name=${name:-sr-jax}" --requeue --open-mode=append --signal=TERM@120 \
  "--ntasks-per-node=${tasks:-1}" ${gpus:+"--gpus-per-node=$gpus"} "${array[@]}" "${options[@]}"
