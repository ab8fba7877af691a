#!/usr/bin/env bash
# What goes wrong in one rank of a training program ends all of them: in time, with an error that names the rank and the
# cause, with the exit code of the cause, and with no process left. A job that may restart goes on where it was.
# usage: faults.sh FOLDER_OF_THE_PROGRAMS FAULT_HOOK WORK_FOLDER [TORCHRUN]
# FAULT_HOOK: the library made of tools/fault_hook.cpp.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/programs_lib.sh"
bin=$1 torchrun=${4:-}
preload_copy "$2"
work_in "$3"
export OMP_NUM_THREADS=1

readonly TIMEOUT=10 # --dist_timeout: short, but not too short for processes to start in on a busy machine
readonly LIMIT=150  # what runs longer than this hangs

train=("$bin/tiny_imagenet_experiments" --data_dir "$PWD/data" --model baseline --width 0.125 --batch_size 4
  --num_workers 1 --epochs 3 --lr 1e-4 --device cpu --dist_timeout "$TIMEOUT")
"$bin/mmtrain_makedata" images --out data --classes 3 --per_class 15 --seed 4 >/dev/null

# check OUTPUT GOT CODE WORDS...: what a command did is what it should have done.
check() {
  local output=$1 got=$2 code=$3
  shift 3
  [[ $got -ne 124 ]] || { cat "$output" >&2; fail "${output%.txt} hangs"; }
  [[ $got -eq $code ]] || { cat "$output" >&2; fail "${output%.txt}: exit code $got instead of $code"; }
  local words
  for words in "$@"; do
    grep -qF -- "$words" "$output" || { cat "$output" >&2; fail "${output%.txt}: '$words' was not said"; }
  done
}

# fault NAME "KIND RANK CALL" FLAGS CODE WORDS...: so ends a job in which this fault happens.
fault() {
  local name=$1 what=$2 flags=$3 code=$4 got=0
  shift 4
  # shellcheck disable=SC2086 # several flags
  MMTRAIN_FAULT=$what LD_PRELOAD=$hook timeout -k 1 "$LIMIT" \
    "${train[@]}" $flags --name "$name" >"$name.txt" 2>&1 </dev/null || got=$?
  check "$name.txt" "$got" "$code" "$@"
}

# The same for a job whose ranks this script starts: ranks NAME "CODE OF RANK 0" "CODE OF RANK 1" WORDS..., with the
# variables and flags of rank i in the arrays env_i and flags_i.
ranks() {
  local name=$1 code_0=$2 code_1=$3 got_0=0 got_1=0
  shift 3
  env "${env_0[@]}" timeout -k 1 "$LIMIT" "${train[@]}" "${flags_0[@]}" --name "$name" >"$name-0.txt" 2>&1 </dev/null &
  local pid=$!
  env "${env_1[@]}" timeout -k 1 "$LIMIT" "${train[@]}" "${flags_1[@]}" --name "$name" >"$name-1.txt" 2>&1 </dev/null ||
    got_1=$?
  wait "$pid" || got_0=$?
  check "$name-0.txt" "$got_0" "$code_0"
  check "$name-1.txt" "$got_1" "$code_1"
  cat "$name-0.txt" "$name-1.txt" >"$name.txt"
  check "$name.txt" 0 0 "$@"
}

free_port() {
  local port
  for ((port = 20000 + RANDOM % 10000; ; ++port)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

# These wait for timeouts and do nothing meanwhile: all at once.
pids=()
fault stop 'stop 1 9' '--nproc 2' 1 '[rank 1] does not answer any more' & pids+=($!)
fault hang 'hang 1 9' '--nproc 2' 1 '[rank 1] did not come to collective' & pids+=($!)
fault hang-thread 'hang_backward 1 9' '--replicas 2' 1 ' did not come to collective' 'are left behind' & pids+=($!)
for pid in "${pids[@]}"; do wait "$pid" || exit 1; done

fault kill 'kill 1 9' '--nproc 3' 137 '[rank 1] does not answer any more' '[launch] rank 1 was killed by signal 9'
fault kill-main 'kill_backward 0 9' '--nproc 2' 137 '[rank 0] does not answer any more' \
  '[launch] rank 0 was killed by signal 9'
fault exit 'exit 1 9' '--nproc 2' 1 '[rank 1] does not answer any more'
with_norm='--model residual --width 0.25'
for how in --nproc --replicas; do
  who='[rank 1' # thread ranks are numbered in the order in which they come to their first loss
  [[ $how == --nproc ]] || who='[rank '
  fault "throw$how" 'throw 1 9' "$how 2" 1 "$who" 'the planted fault'
  fault "throw_backward$how" 'throw_backward 1 9' "$how 2" 1 '[rank ' 'the planted fault'
  fault "memory$how" 'memory 1 9' "$how 2" 3 "$who" 'Out of memory on cpu' 'halve the batch'
  fault "memory_backward$how" 'memory_backward 1 9' "$how 2" 3 '[rank ' 'Out of memory on cpu'
  fault "unused$how" 'unused 1 0' "$how 2 $with_norm" 1 'no gradient reached ' 'bn1.bias' 'find_unused_parameters'
done
# One rank ran out of memory, and one says what to do about it.
[[ $(grep -c 'halve the batch' memory--nproc.txt) -eq 1 ]] || fail "each rank gives the advice of one"
fault unused-allowed 'unused 1 0' "--nproc 2 --find_unused_parameters $with_norm" 0 'result {'

# A signal to one rank stops all after the same step, saved.
fault term 'term 1 9' '--nproc 2' 143 'Stopped by signal 15: saved'
[[ -s runs/tiny_imagenet_experiments/term/checkpoints/last/state.json ]] || fail "nothing was saved after SIGTERM"

# What only one rank refuses keeps its exit code, and the others learn of it.
fault unbroken '' '--nproc 2' 0 'result {'
fault unbroken '' '--nproc 2 --resume auto --lr 0.5' 2 'lr differ'

# Ranks that do not fit together.
port=$(free_port)
env_0=(RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT="$port") flags_0=()
env_1=(RANK=1 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT="$port") flags_1=(--width 0.25)
ranks nets 1 1 'the ranks were given different nets'
flags_1=(--data_dir "$PWD/none")
ranks data 1 2 "no directory '$PWD/none'" '[rank 1] left the group'
flags_1=()
ranks whole 0 0 '"world_size":2'
env_1[1]=WORLD_SIZE=3
ranks world-size 1 1 'has WORLD_SIZE 3, another rank has 2'
# The port is in use by the first rank 0, which waits for a rank that never comes.
env_1=("${env_0[@]}")
ranks port 1 1 "cannot serve MASTER_PORT $port: Address already in use" 'rank 1 did not come within'

# What a restarted job has done in the end is what the unbroken one did.
same_as_unbroken() {
  local of=runs/tiny_imagenet_experiments
  [[ $(cut -d, -f1-8 "$of/$1/metrics.csv") == $(cut -d, -f1-8 "$of/unbroken/metrics.csv") ]] ||
    fail "$1 differs from the unbroken run"
}
fault restart 'kill 1 17' '--nproc 2 --max_restarts 1 --resume auto' 0 '[launch] restart 1 of 1' \
  'Resuming' 'result {'
same_as_unbroken restart
fault restart-early 'kill 0 2' '--nproc 2 --max_restarts 1 --resume auto' 0 '[launch] restart 1 of 1' 'result {'
same_as_unbroken restart-early-2 # before the first checkpoint there is nothing to go on with

if [[ -x $torchrun ]]; then
  got=0
  MMTRAIN_FAULT='kill 1 17' timeout -k 1 "$LIMIT" "$torchrun" --no-python --standalone --nproc-per-node 2 \
    --max-restarts 1 env LD_PRELOAD="$hook" "${train[@]}" --name torchrun --resume auto >torchrun.txt 2>&1 </dev/null ||
    got=$?
  check torchrun.txt "$got" 0 '[rank 1] does not answer any more' 'Resuming' 'result {'
  same_as_unbroken torchrun
else
  echo "skipped: there is no torchrun"
fi

# No process is left.
left=$(pgrep -af -- "$PWD/data" || true)
[[ -z $left ]] || fail "processes are left: $left"
echo "all faults ended as they should"
