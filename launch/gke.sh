#!/usr/bin/env bash
# TPUs of a GKE cluster, by xpk:
#   launch/gke.sh --dry-run --workload=run --cluster=CLUSTER --tpu-type=v5litepod-16 --docker-image=IMAGE \
#     -- train --config NAME --workdir /mnt/data/run
#
# Options before "--" are those of `xpk workload create` (--num-slices, --spot, --zone, --project, ...). IMAGE is
# built from launch/Dockerfile.tpu. A workload that is stopped or loses a machine starts again, --max-restarts times
# (20); one that fails does not. Of a sweep every trial that is not finished is a workload: NAME-0, NAME-1, ...
#
# Data, and --workdir unless that is gs://BUCKET/FOLDER: a storage that is mounted below /mnt into every workload, attached
# to the cluster once:
#   xpk storage attach data --type=gcpfilestore --cluster=CLUSTER --instance=INSTANCE --vol=SHARE \
#     --mount-point=/mnt/data --readonly=false --auto-mount=true      (or --type=gcsfuse --bucket=BUCKET --size=1)
# shellcheck disable=SC2154  # `take` sets variables
set -euo pipefail
. "$(dirname "$0")/words.sh"
take workload name "a name for the workload"
take cluster cluster "the cluster's name"
take tpu-type type "a type such as v5litepod-16"
take docker-image image "the address of an image built from launch/Dockerfile.tpu"
below /mnt

# workload NAME WORD...: `exec`, so that xpk's SIGTERM reaches sr-jax and no shell around it.
workload() {
  run xpk workload create "--workload=$1" "--cluster=$cluster" "--tpu-type=$type" "--docker-image=$image" \
    "--max-restarts=$restarts" --termination-grace-period-seconds=120 "--command=exec $(quoted "${@:2}")" "${options[@]}"
}

if [[ ${words[0]} == train ]]; then
  workload "$name" sr-jax "${words[@]}" --distributed
fi
for trial in "${trials[@]}"; do
  workload "$name-$trial" sr-jax "${words[@]}" --distributed --trial "$trial"
done
