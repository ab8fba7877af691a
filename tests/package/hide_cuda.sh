#!/bin/sh
# Runs a command where no CUDA toolkit can be seen: in a mount namespace of its own, with empty folders over the
# toolkit's and an empty file over a compiler elsewhere in PATH. Exit code 77 (skipped) where that is not permitted.
set -eu

toolkits() {
  for place in /usr/local/cuda* /opt/cuda* /usr/lib/nvidia-cuda-toolkit /usr/lib/cuda; do
    if [ -d "$place" ] && [ ! -L "$place" ]; then echo "$place"; fi
  done
}

if [ "${1:-}" = --inside ]; then
  shift
  toolkits | while IFS= read -r place; do mount -t tmpfs none "$place"; done
  empty=$(mktemp)
  while nvcc=$(command -v nvcc); do mount --bind "$empty" "$(realpath "$nvcc")"; done
  rm -f "$empty"
  unset CUDA_HOME CUDA_PATH CUDACXX
  exec "$@"
fi

if [ -z "$(toolkits)" ] && ! command -v nvcc >/dev/null; then
  echo "There is no CUDA toolkit to hide here."
  exec "$@"
elif ! unshare --mount true 2>/dev/null; then
  echo "skipped: hiding the CUDA toolkit needs the right to make a mount namespace (root)"
  exit 77
fi
exec unshare --mount "$0" --inside "$@"
