# shellcheck shell=bash
# Sourced by the launchers. All take [--dry-run] [options of the engine] -- train|sweep WORDS, where WORDS are those
# of `sr-jax train` or `sr-jax sweep`. Leaves here:
#   dry_run       not empty: print what would be run, run nothing
#   options       what stands before "--"
#   words         what stands after it
#   trials        of a sweep, the numbers of the trials that are not finished
#   workdir       the value of --workdir
#   restarts      --max-restarts: how often a job may start again
#   again         for which exit codes it does, as bash's arithmetic says it
launcher=launch/$(basename "$0")
example="-- train --config NAME --workdir FOLDER"
dry_run='' options=() words=() trials=()
# Stopped, killed, or a fault of a machine: those on which xpk restarts. Smaller ones would come again.
# shellcheck disable=SC2034  # the launchers read it
again='code == 42 || code >= 127'

refuse() {
  echo "$launcher: $1" >&2
  exit 2
}

# take KEY VARIABLE [WHAT]: moves the value of --KEY from `options` into VARIABLE; refuses if it has none, or if WHAT is
# given and it is missing.
take() {
  local rest=() value='' i
  for ((i = 0; i < ${#options[@]}; i++)); do
    case ${options[i]} in
      "--$1="*) value=${options[i]#*=} ;;
      "--$1")
        value=${options[i + 1]-} i=$((i + 1))
        [[ $value && $value != -* ]] || refuse "--$1 has no value: give it as --$1=VALUE before $example."
        ;;
      *) rest+=("${options[i]}") ;;
    esac
  done
  [[ $value || -z ${3-} ]] || refuse "--$1 is missing: give $3 before $example."
  options=("${rest[@]}")
  printf -v "$2" %s "$value"
}

# below MOUNT: refuses a work directory that ends with the container, which is all that is not below MOUNT.
below() {
  [[ $workdir == gs://* || ($workdir == "$1"/?* && $workdir/ != */../*) ]] ||
    refuse "--workdir $workdir would be lost with the container: give a folder below $1, or gs://BUCKET/FOLDER."
}

# quoted WORD...: the words as a shell reads them.
quoted() {
  local text
  printf -v text '%q ' "$@"
  printf %s "${text% }"
}

# run WORD...: the command, or with --dry-run its text.
run() {
  if [[ $dry_run ]]; then
    quoted "$@" && echo
  else
    "$@"
  fi
}

# feed TEXT WORD...: the command with TEXT on its standard input, or with --dry-run all of it as a shell reads it.
feed() {
  if [[ $dry_run ]]; then
    printf '%s\n' "$(quoted "${@:2}") <<'EOF'" "$1" EOF
  else
    "${@:2}" <<<"$1"
  fi
}

while (($#)); do
  case $1 in
    --dry-run) dry_run=yes ;;
    --) words=("${@:2}") && break ;;
    *) options+=("$1") ;;
  esac
  shift
done
[[ ${words[0]-} == train || ${words[0]-} == sweep ]] || refuse "say what to run at the end, as in $example."
for key in config workdir; do
  value=''
  for ((i = 1; i < ${#words[@]}; i++)); do
    case ${words[i]} in
      "--$key="*) value=${words[i]#*=} ;;
      "--$key") value=${words[i + 1]-} && value=${value/#-*/} ;;
    esac
  done
  [[ $value ]] || refuse "--$key is missing or has no value: give it after ${words[0]}, as in $example."
done
workdir=$value
take max-restarts restarts
restarts=${restarts:-20}
[[ $restarts =~ ^[0-9]+$ ]] || refuse "--max-restarts is $restarts: give a number before $example."
if [[ ${words[0]} == sweep ]]; then
  listed=$(sr-jax "${words[@]}" --list) || exit
  mapfile -t trials < <(awk -F '\t' '$3 != "finished" { print $1 }' <<<"$listed")
  ((${#trials[@]})) || { echo "All trials are finished." && exit; }
fi
