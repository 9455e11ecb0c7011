#!/usr/bin/env bash
# GPUs of any Kubernetes cluster that has JobSet:
#   launch/jobset.sh --dry-run --name=run --image=IMAGE --nodes=2 --gpus=8 --claim=CLAIM \
#     -- train --config NAME --workdir /mnt/data/run
#
# Other options before "--" are those of `kubectl apply` (--namespace, --context, ...). IMAGE is built from
# launch/Dockerfile.cuda. One process for each of --nodes pods, with --gpus GPUs each. A run that is stopped or loses
# a machine starts again, --max-restarts times (20); one that fails does not. Of a sweep every trial that is
# not finished is a JobSet: NAME-0, NAME-1, ...
#
# Data, and --workdir unless that is gs://BUCKET/FOLDER: a volume claim, mounted at /mnt/data; several pods need one
# with the access mode ReadWriteMany (Filestore, NFS, a bucket by gcsfuse).
# shellcheck disable=SC2154  # `take` sets variables
set -euo pipefail
. "$(dirname "$0")/words.sh"
take name name "a name for the JobSet"
take image image "the address of an image built from launch/Dockerfile.cuda"
take nodes nodes "the number of pods"
take gpus gpus "the number of GPUs of a pod"
take claim claim "the name of a volume claim, which becomes /mnt/data"
below /mnt/data

# strings WORD...: the words as strings of JSON, which are strings of YAML too.
strings() {
  local word text=''
  for word in "$@"; do
    word=${word//\\/\\\\}
    text+=", \"${word//\"/\\\"}\""
  done
  echo "[${text#, }]"
}

# jobset NAME WORD...
jobset() {
  cat <<EOF
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $1
spec:
  failurePolicy:
    maxRestarts: $restarts
    rules:
      - name: fails
        action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: pods
      replicas: 1
      template:
        spec:
          parallelism: $nodes
          completions: $nodes
          completionMode: Indexed
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes: {containerName: sr-jax, operator: NotIn, values: [42, $(seq -s, 127 255)]}
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 120
              containers:
                - name: sr-jax
                  image: $image
                  command: $(strings "${@:2}" --distributed "$1-pods-0-0.$1:8476,\$(POD),$nodes")
                  env:
                    - name: POD
                      valueFrom:
                        fieldRef: {fieldPath: "metadata.annotations['batch.kubernetes.io/job-completion-index']"}
                  resources:
                    limits: {nvidia.com/gpu: $gpus}
                  volumeMounts:
                    - {name: data, mountPath: /mnt/data}
                    - {name: memory, mountPath: /dev/shm}
              volumes:
                - {name: data, persistentVolumeClaim: {claimName: $claim}}
                - {name: memory, emptyDir: {medium: Memory}}
EOF
}

if [[ ${words[0]} == train ]]; then
  text=$(jobset "$name" sr-jax "${words[@]}")
else
  text=$(for trial in "${trials[@]}"; do
    echo ---
    jobset "$name-$trial" sr-jax "${words[@]}" --trial "$trial"
  done)
fi
feed "$text" kubectl apply -f - "${options[@]}"
