#!/usr/bin/env bash
# What the make targets do: `bash cmake/tasks.sh TARGET`. Steps say what they do, failures say what to do about them,
# and whatever is in place already is not done again, so that every target works offline after its first run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TORCH_PIN=2.11.0 # the version that is built and tested against
BUILD_DIR=${BUILD_DIR:-build}
PRESET=release
readonly MMTRAIN_HOME=${MMTRAIN_HOME:-$HOME/.cache/mmtrain} # outside the clone, so that clones share it
readonly VENV=$MMTRAIN_HOME/venv
readonly GPU_BUNDLE=.gpu-bundle

# Debian 12's names; Ubuntu 24.04 has the same ones (not checked there).
readonly BUILD_PACKAGES=(g++ make cmake ninja-build nlohmann-json3-dev libfmt-dev libcli11-dev libgloo-dev libjpeg-dev libopencv-dev
  pkg-config libsndfile1-dev libfftw3-dev libavformat-dev libavcodec-dev libswscale-dev libavutil-dev)
readonly TEST_PACKAGES=(catch2 ccache)
readonly VENV_PACKAGES=(python3 python3-venv)
readonly FORMAT_PACKAGES=(clang-format-14)
readonly FUZZ_PACKAGES=(g++ clang-14 libclang-rt-14-dev cmake ninja-build ccache nlohmann-json3-dev libfmt-dev)

say() { printf '\n==> %s\n' "$*"; }

fail() {
  printf '\nerror: %s\n' "$1" >&2
  shift
  [[ $# -eq 0 ]] || printf '  %s\n' "$@" >&2
  exit 1
}

# attempt REMEDY COMMAND...: runs COMMAND; where it fails, the remedy is the last thing said.
attempt() {
  local remedy=$1
  shift
  "$@" || fail "this failed: $*" "$remedy"
}

# One compiler for each core, but no more than memory carries: a LibTorch file takes up to 1.5 GB.
jobs() {
  local cores memory_gb
  cores=$(nproc)
  memory_gb=$(awk '/^MemAvailable:/ {print int($2 / 1048576)}' /proc/meminfo)
  local by_memory=$((memory_gb / 2 > 1 ? memory_gb / 2 : 1))
  echo "${JOBS:-$((cores < by_memory ? cores : by_memory))}"
}

# --- packages of the system ---

missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || echo "$package"
  done
}

# Installs those of the packages that are missing; needs no right and no network where none is.
need_packages() {
  if ! command -v dpkg-query >/dev/null; then
    say "No dpkg here: these Debian packages, or what matches them, have to be there: $*"
    return
  fi
  local missing
  mapfile -t missing < <(missing_packages "$@")
  [[ ${#missing[@]} -gt 0 ]] || return 0

  local -a as_root=()
  local -a install=(apt-get install -y --no-install-recommends "${missing[@]}")
  if [[ $(id -u) -ne 0 ]]; then
    command -v sudo >/dev/null ||
      fail "these packages are missing, and installing them needs root or sudo. As root, run:" "apt-get update" "${install[*]}"
    as_root=(sudo)
  fi
  say "Installing ${#missing[@]} missing packages: ${missing[*]}"
  local -r remedy="Is there network? What apt-get says above has to be mended; then run this target again."
  attempt "$remedy" "${as_root[@]}" apt-get update -qq
  attempt "$remedy" "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}"
}

# --- LibTorch and Python ---

make_venv() {
  if [[ -x $VENV/bin/python ]] && "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then return; fi
  need_packages "${VENV_PACKAGES[@]}"
  say "Making a private Python environment in $VENV"
  attempt "Can $MMTRAIN_HOME be written? MMTRAIN_HOME=DIR puts it elsewhere." python3 -m venv --clear "$VENV"
}

# The folder of TorchConfig.cmake below a prefix, if it is there.
torch_below() {
  local place
  for place in "$1" "$1/Torch" "$1/share/cmake/Torch" "$1/torch/share/cmake/Torch"; do
    if [[ -f $place/TorchConfig.cmake ]]; then echo "$place" && return; fi
  done
  return 1
}

torch_given() {
  if [[ -n ${Torch_DIR:-} ]]; then torch_below "$Torch_DIR" && return; fi
  local prefix
  while IFS= read -r prefix; do
    torch_below "$prefix" && return
  done < <(tr ':;' '\n' <<<"${CMAKE_PREFIX_PATH:-}")
  return 1
}

# What the build folder was configured with: another shell must not cause another LibTorch and a whole new build.
torch_of_build() {
  [[ -f $BUILD_DIR/CMakeCache.txt ]] || return 1
  local place
  place=$(sed -n 's/^Torch_DIR:[A-Z]*=//p' "$BUILD_DIR/CMakeCache.txt")
  [[ -n $place ]] && torch_below "$place"
}

# torch_of_python PYTHON: its torch, if that is of the series that is supported. Nothing is imported: it takes no time.
torch_of_python() {
  command -v "$1" >/dev/null || return 1
  "$1" - "${TORCH_PIN%.*}." <<'PYTHON' 2>/dev/null
import importlib.metadata, importlib.util, pathlib, sys
if not importlib.metadata.version("torch").startswith(sys.argv[1]):
    sys.exit(1)
print(pathlib.Path(importlib.util.find_spec("torch").submodule_search_locations[0]) / "share/cmake/Torch")
PYTHON
}

# Sets TORCH_CMAKE_DIR. Only the last way needs network, and only once.
find_torch() {
  if TORCH_CMAKE_DIR=$(torch_given); then
    say "LibTorch: as given, in $TORCH_CMAKE_DIR"
    return
  elif [[ -n ${Torch_DIR:-} ]]; then
    fail "Torch_DIR=$Torch_DIR holds no TorchConfig.cmake" "Correct it, or unset it: then LibTorch is installed for you."
  elif [[ -n ${CMAKE_PREFIX_PATH:-} ]]; then
    say "CMAKE_PREFIX_PATH=$CMAKE_PREFIX_PATH has no LibTorch: looking elsewhere"
  fi
  if TORCH_CMAKE_DIR=$(torch_of_build); then
    say "LibTorch: the one that $BUILD_DIR is configured with, in $TORCH_CMAKE_DIR"
  elif TORCH_CMAKE_DIR=$(torch_of_python python3) || TORCH_CMAKE_DIR=$(torch_of_python python); then
    say "LibTorch: that of the active Python, in $TORCH_CMAKE_DIR"
  elif TORCH_CMAKE_DIR=$(torch_of_python "$VENV/bin/python"); then
    say "LibTorch: that of the private environment, in $TORCH_CMAKE_DIR"
  else
    install_torch
  fi
}

install_torch() {
  make_venv
  say "Installing LibTorch $TORCH_PIN into $VENV (download about 2.7 GB, 5 GB on disk, once)"
  attempt "Without network, give a LibTorch ${TORCH_PIN%.*} that is there: make ... CMAKE_PREFIX_PATH=/path/to/libtorch" \
    "$VENV/bin/python" -m pip install --disable-pip-version-check --progress-bar off "torch==$TORCH_PIN"
  TORCH_CMAKE_DIR=$(torch_of_python "$VENV/bin/python") || fail "pip succeeded, but $VENV has no torch ${TORCH_PIN%.*}" \
    "Remove $VENV and run this target again."
}

# Sets TEST_PYTHON, the Python that the parity tests compare with: MMTRAIN_PYTHON if given, else the private one. It is
# a wish: without it those tests are shown as skipped.
find_test_python() {
  TEST_PYTHON=${MMTRAIN_PYTHON:-$VENV/bin/python}
  [[ -z ${MMTRAIN_PYTHON:-} ]] || return 0
  local -r wanted=tests/requirements.txt installed=$VENV/mmtrain-test-requirements.txt
  cmp -s "$wanted" "$installed" && return
  make_venv
  say "Installing the Python packages that tests compare with ($wanted) into $VENV"
  if "$VENV/bin/python" -m pip install --disable-pip-version-check --progress-bar off --quiet -r "$wanted"; then
    cp "$wanted" "$installed"
  else
    say "They could not be installed (no network?): tests that compare with PyTorch in Python will be skipped."
  fi
}

# --- build ---

# configure OPTION...: a build folder that is there keeps its settings.
configure() {
  local -a fresh=()
  # What a preset says of sanitizers and modules holds anew each time; settings of a usual build are the user's.
  [[ -f $BUILD_DIR/CMakeCache.txt && $PRESET != [at]san* ]] || fresh=(--preset "$PRESET")
  say "Configuring in $BUILD_DIR"
  attempt "The message above names what is missing. After moving or copying the clone: make clean." \
    cmake -S . -B "$BUILD_DIR" --log-level=NOTICE "${fresh[@]}" -DTorch_DIR="$TORCH_CMAKE_DIR" "$@"
}

# build TARGET...
build() {
  say "Building $* with $(jobs) jobs (the first time takes minutes)"
  attempt "If the compiler was killed, memory was short: try again with JOBS=1." \
    cmake --build "$BUILD_DIR" -j "$(jobs)" --target "$@"
}

prepare_build() {
  need_packages "${BUILD_PACKAGES[@]}"
  find_torch
}

prepare_tests() {
  need_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
  find_torch
  find_test_python
  configure -DMMTRAIN_BUILD_TESTS=ON -DMMTRAIN_BUILD_EXAMPLES=ON -DMMTRAIN_PYTHON="$TEST_PYTHON"
}

# --- targets ---

task_help() {
  cat <<'TEXT'
make quickstart    install what is missing, build, train a small net on generated images
make test          build and run all tests
make build         build everything into build/
make bench         measure image loading and training steps (JSON lines)
make gpu-bundle    collect in .gpu-bundle/ what the GPU tests need on a bare machine with LibTorch
make gpu-check     run the GPU tests of .gpu-bundle/ here
make asan, tsan    build and run the tests that sanitizers watch
make tsan-engine   the same for the parallel engine
make fuzz          build the harnesses of tests/fuzz and run each for FUZZ_SECONDS (20)
make format        format all sources; check-format only looks
make clean         remove build folders and .gpu-bundle/
Variables: BUILD_DIR (build), JOBS (cores), CMAKE_PREFIX_PATH or Torch_DIR (LibTorch), MMTRAIN_HOME (~/.cache/mmtrain),
MMTRAIN_PYTHON (the Python that tests compare with), FUZZ_SECONDS, FUZZ_TARGET (one harness).
TEXT
}

task_quickstart() {
  prepare_build
  local -a options=()
  [[ -f $BUILD_DIR/CMakeCache.txt ]] || options=(-DMMTRAIN_BUILD_TESTS=OFF) # Catch2 is not needed for this
  configure "${options[@]}"
  build tiny_imagenet_experiments
  say "Training a small residual net on generated images (they are made once, in demo_data/images)"
  local log
  log=$(mktemp)
  # shellcheck disable=SC2064 # now: the variable is gone when the trap runs
  trap "rm -f -- '$log'" EXIT
  "$BUILD_DIR/bin/tiny_imagenet_experiments" --name quickstart | tee "$log" ||
    fail "training failed; the message above says why" "'make test' checks the build."
  show_result "$log"
}

# Where to look, from the program's last line: result {"run_dir": ..., ...}
show_result() {
  local result run_dir accuracy
  result=$(sed -n 's/^result //p' "$1" | tail -n 1)
  run_dir=$(sed -n 's/.*"run_dir": *"\([^"]*\)".*/\1/p' <<<"$result")
  accuracy=$(sed -n 's/.*"best_val_acc": *\([0-9.]*\).*/\1/p' <<<"$result")
  say "It works: validation accuracy $accuracy (1 is perfect, 0.1 is guessing)"
  cat <<TEXT
Look at   $run_dir/plots/curves.png and confusion_matrix.png
          $run_dir/metrics.csv and training.log
          tensorboard --logdir $run_dir
Next      $BUILD_DIR/bin/tiny_imagenet_experiments --help
          make test
TEXT
}

task_build() {
  prepare_tests
  build all
}

task_test() {
  task_build
  say "Running the tests (ctest --test-dir $BUILD_DIR)"
  attempt "Run one test again: ctest --test-dir $BUILD_DIR -R NAME --output-on-failure" \
    ctest --test-dir "$BUILD_DIR" --output-on-failure -j "$(jobs)"
}

task_asan() { sanitize asan; }
task_tsan() { sanitize tsan; }
task_tsan_engine() { sanitize tsan-engine; }

# sanitize PRESET: builds the tests that are worth it with a sanitizer, and runs them.
sanitize() {
  PRESET=$1
  BUILD_DIR=$BUILD_DIR-$PRESET
  need_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
  find_torch
  configure
  build "${PRESET}_tests"
  say "Running the tests of preset $PRESET"
  attempt "Run one test again: ctest --test-dir $BUILD_DIR -R NAME --output-on-failure" \
    ctest --test-dir "$BUILD_DIR" -L "^$PRESET\$" --output-on-failure
}

# The harnesses are a project of their own: Clang builds the few sources without LibTorch in a minute. What they find to
# be new stays in the build folder, for the next run.
task_fuzz() {
  need_packages "${FUZZ_PACKAGES[@]}"
  BUILD_DIR=$BUILD_DIR-fuzz
  say "Building the harnesses of tests/fuzz in $BUILD_DIR"
  cmake -S tests/fuzz -B "$BUILD_DIR" -G Ninja -DCMAKE_CXX_COMPILER=clang++-14 --log-level=NOTICE
  cmake --build "$BUILD_DIR" -j "$(jobs)"
  local seeds name
  for seeds in tests/fuzz/corpus/*; do
    name=$(basename "$seeds")
    [[ -z ${FUZZ_TARGET:-} || $FUZZ_TARGET == "$name" ]] || continue
    say "Fuzzing $name for ${FUZZ_SECONDS:-20} s"
    mkdir -p "$BUILD_DIR/corpus/$name" "$BUILD_DIR/findings"
    attempt "Run it again with that file: $BUILD_DIR/${name}_fuzz FILE" \
      "$BUILD_DIR/${name}_fuzz" -max_total_time="${FUZZ_SECONDS:-20}" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
      -print_final_stats=1 -artifact_prefix="$BUILD_DIR/findings/$name-" "$BUILD_DIR/corpus/$name" "$seeds"
  done
}

task_bench() {
  prepare_build
  configure
  build mmtrain_bench mmtrain_makedata
  local -r data=demo_data/bench_images
  if [[ ! -d $data ]]; then
    say "Making 10,000 images in $data"
    attempt "Is the disk full, or the folder read-only?" "$BUILD_DIR/bin/mmtrain_makedata" images --out "$data" --classes 100 --per_class 100
  fi
  say "Measuring (docs/benchmarks.md explains the figures; peers in Python are in tests/bench)"
  local transform
  for transform in crop_flip reference; do
    "$BUILD_DIR/bin/mmtrain_bench" images --data_dir "$data" --transform "$transform"
  done
  "$BUILD_DIR/bin/mmtrain_bench" images --data_dir "$data" --transform crop_flip --source cache
  local model
  for model in baseline residual; do
    "$BUILD_DIR/bin/mmtrain_bench" step --model "$model" --width 0.5 --batch_size 64 --threads 2
  done
}

# Header-only packages go in as a prefix that CMake can search: with it, the library can be built on the other machine.
readonly BUNDLED_PACKAGES=(catch2 libcli11-dev libfmt-dev libgloo-dev nlohmann-json3-dev)

task_gpu_bundle() {
  prepare_tests_for_bundle
  local tests
  mapfile -t tests < <(grep -l '\[gpu\]' tests/*_test.cpp | xargs -r -n 1 basename -s .cpp)
  build "${tests[@]}" test_multi_gpu
  say "Collecting programs, libraries and headers in $GPU_BUNDLE"
  rm -rf -- "$GPU_BUNDLE"
  mkdir -p "$GPU_BUNDLE/bin" "$GPU_BUNDLE/lib"
  local program
  for program in "${tests[@]}" test_multi_gpu; do
    strip -o "$GPU_BUNDLE/bin/$program" "$BUILD_DIR/bin/$program"
    bundle_libraries "$BUILD_DIR/bin/$program"
  done
  dpkg -L "${BUNDLED_PACKAGES[@]}" | grep -E '^/usr/(include|lib|share/cmake)/' | while IFS= read -r file; do
    [[ -d $file ]] || install -D -m 644 "$file" "$GPU_BUNDLE/${file#/usr/}"
  done
  du -sh "$GPU_BUNDLE" | cut -f 1
  say "Copy this folder with $GPU_BUNDLE to a machine with a GPU and LibTorch $TORCH_PIN, and there: make gpu-check"
}

prepare_tests_for_bundle() {
  BUILD_DIR=$BUILD_DIR-gpu
  need_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
  find_torch
  configure -DMMTRAIN_WITH_IMAGE=OFF -DMMTRAIN_WITH_AUDIO=OFF -DMMTRAIN_WITH_VIDEO=OFF
}

# Everything that the program loads but the other machine's LibTorch, driver and C++ run time.
bundle_libraries() {
  local library
  ldd "$1" | sed -n 's/^.* => \(\/.*\) (0x[0-9a-f]*)$/\1/p' |
    grep -v -E '/(torch|nvidia)/|/lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s|gomp)[.-]' | while IFS= read -r library; do
      strip --strip-unneeded -o "$GPU_BUNDLE/lib/$(basename "$library")" "$library"
    done
}

task_gpu_check() {
  if ! nvidia-smi -L 2>/dev/null && ! compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
    say "There is no NVIDIA GPU here: nothing was checked. Run 'make gpu-check' on a machine that has one."
    return
  fi
  [[ -d $GPU_BUNDLE ]] || fail "there is no $GPU_BUNDLE" "make gpu-bundle makes it, on any machine with network."
  find_torch
  local torch_libraries
  torch_libraries=$(realpath "$TORCH_CMAKE_DIR/../../../lib")
  export LD_LIBRARY_PATH=$PWD/$GPU_BUNDLE/lib:$torch_libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  local test failed=()
  for test in "$GPU_BUNDLE"/bin/*_test; do
    say "$(basename "$test")"
    "$test" '[gpu]' || failed+=("$(basename "$test")")
  done
  say "test_multi_gpu"
  "$GPU_BUNDLE/bin/test_multi_gpu" || failed+=(test_multi_gpu)
  [[ ${#failed[@]} -eq 0 ]] || fail "failed on this GPU: ${failed[*]}"
  say "All GPU tests passed"
}

task_format() { all_sources | xargs -0 "$(formatter)" -i; }

task_check_format() {
  say "Checking the format of all sources"
  all_sources | xargs -0 "$(formatter)" --dry-run -Werror || fail "the format differs" "make format mends it."
}

all_sources() { find libmmtrain examples tests -name '*.h' -print0 -o -name '*.cpp' -print0 -o -name '*.inl' -print0; }

# Releases of clang-format differ: one is the rule.
formatter() {
  command -v clang-format-14 >/dev/null || need_packages "${FORMAT_PACKAGES[@]}" >&2
  echo clang-format-14
}

task_clean() {
  say "Removing $BUILD_DIR and $GPU_BUNDLE (generated data, runs and $MMTRAIN_HOME stay)"
  local folder
  for folder in "$BUILD_DIR" "$BUILD_DIR"-{dev,gpu,asan,tsan,tsan-engine,fuzz}; do
    [[ ! -f $folder/CMakeCache.txt ]] || rm -rf -- "$folder"
  done
  rm -rf -- "$GPU_BUNDLE"
}

main() {
  local -r task=task_${1//-/_}
  declare -F "$task" >/dev/null || fail "no target '$1'" "make help lists them."
  "$task"
}
main "${1:-help}"
