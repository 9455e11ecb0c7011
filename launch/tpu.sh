#!/usr/bin/env bash
# Cloud TPU, as queued resources, on all workers of a slice:
#   launch/tpu.sh --dry-run --name=run --zone=us-east5-a --accelerator-type=v5litepod-16 \
#     --runtime-version=v2-alpha-tpuv5-lite --image=IMAGE --spot -- train --config NAME --workdir /mnt/data/run
#
# Other options before "--" are those of `gcloud compute tpus queued-resources create`. IMAGE is built from
# launch/Dockerfile.tpu. It waits for the TPU, runs, and deletes the TPU; one that is preempted, or whose connection is
# lost, is asked for again, --max-restarts times (20). So leave it running (in tmux); Ctrl-C leaves the TPU behind, to be
# deleted by `gcloud compute tpus queued-resources delete NAME --force`. Of a sweep every trial that is not finished
# gets a TPU of its own, all at once: NAME-0, NAME-1, ...
#
# Data, and --workdir unless that is gs://BUCKET/FOLDER: folders below /mnt, which the container sees.
# --setup='COMMAND' runs on every worker first:
#   Filestore, NFS: sudo apt-get install -qy nfs-common; sudo mkdir -p /mnt/data; sudo mount ADDRESS:/SHARE /mnt/data
#   a bucket: sudo mkdir -p /mnt/data; sudo gcsfuse -o allow_other --uid 1000 BUCKET /mnt/data (gcsfuse installed)
#   a private image: gcloud auth configure-docker REGION-docker.pkg.dev --quiet
# shellcheck disable=SC2154  # `take` sets variables
set -euo pipefail
. "$(dirname "$0")/words.sh"
take name name "a name for the TPU"
take zone zone "its zone"
take accelerator-type type "a type such as v5litepod-16"
take runtime-version runtime "the software of its machines, such as v2-alpha-tpuv5-lite"
take image image "the address of an image built from launch/Dockerfile.tpu"
take setup setup
below /mnt
tpus=(gcloud compute tpus)

state() {
  "${tpus[@]}" queued-resources describe "$1" "--zone=$zone" "--format=value(state.state)"
}

# on_tpu NAME WORD...: a TPU of that name, the command on its workers, and the end of the TPU.
on_tpu() {
  local now code restart unknown on=$1 command
  command="${setup:+$setup && }sudo docker run --rm --privileged --net=host -v /mnt:/mnt $(quoted "$image" "${@:2}")"
  for ((restart = 0; ; restart++)); do
    run "${tpus[@]}" queued-resources create "$on" "--node-id=$on" "--zone=$zone" "--accelerator-type=$type" \
      "--runtime-version=$runtime" "${options[@]}"
    now=${dry_run:+ACTIVE} code=1 unknown=0
    # To wait for a TPU may take days; one whose state cannot be told for 10 minutes was deleted.
    until [[ $now =~ ACTIVE|FAILED|SUSPENDED ]] || ((unknown == 20)); do
      sleep 30
      if now=$(state "$on"); then unknown=0; else unknown=$((unknown + 1)); fi
    done
    case $now in
      ACTIVE)
        code=0
        run "${tpus[@]}" tpu-vm ssh "$on" "--zone=$zone" --worker=all "--command=$command" || code=$?
        ;;
      SUSPENDED) code=143 ;; # it was preempted before it began
    esac
    run "${tpus[@]}" queued-resources delete "$on" "--zone=$zone" --force --quiet || ((unknown))
    if ((!again || restart == restarts)); then break; fi
    echo "$launcher: $on: exit code $code, restart $((restart + 1)) of at most $restarts." >&2
  done
  ((!code)) || echo "$launcher: $on: ${now:-no such TPU}, exit code $code after $restart restarts." >&2
  return "$code"
}

if [[ ${words[0]} == train ]]; then
  on_tpu "$name" sr-jax "${words[@]}" --distributed
  exit
fi
for trial in "${trials[@]}"; do
  on_tpu "$name-$trial" sr-jax "${words[@]}" --distributed --trial "$trial" &
  [[ -z $dry_run ]] || wait
done
code=0
for job in $(jobs -p); do wait "$job" || code=$?; done
exit "$code"
