# shellcheck shell=bash disable=SC2034 # hook is for those who source this
# What the scripts that run programs share. Sourced with set -euo pipefail in force.

fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

# work_in FOLDER: an empty folder of this name is the current one from here on.
work_in() {
  rm -rf -- "$1"
  mkdir -p -- "$1"
  cd -- "$1"
}

# expect CODE WORDS COMMAND...: the command ends with CODE and says WORDS, in output.txt.
expect() {
  local code=$1 words=$2 got=0
  shift 2
  "$@" >output.txt 2>&1 </dev/null || got=$?
  [[ $got -eq $code ]] || { cat output.txt >&2; fail "exit code $got instead of $code: $*"; }
  grep -qF -- "$words" output.txt || { cat output.txt >&2; fail "'$words' was not said by: $*"; }
}

# says PATTERN: the last command of expect said a line like this.
says() { grep -qE -- "$1" output.txt || { cat output.txt >&2; fail "'$1' was not said"; }; }

# preload_copy LIBRARY: $hook is a copy of it that LD_PRELOAD can take, which takes no path with a space; gone at the end.
preload_copy() {
  hook=$(mktemp -d /tmp/mmtrain-faults.XXXXXX)/hook.so
  trap 'rm -rf -- "${hook%/*}"' EXIT
  cp -- "$1" "$hook"
}
