#!/usr/bin/env bash
# Faults of random kind, place and time in random sets of ranks: each job ends in time, with the exit code and the words
# of its fault, and leaves no process.
# usage: random_faults.sh FOLDER_OF_THE_PROGRAMS FAULT_HOOK WORK_FOLDER [COUNT [SEED]]
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/programs_lib.sh"
bin=$1 count=${4:-10} seed=${5:-$(date +%s)}
preload_copy "$2"
work_in "$3"
export OMP_NUM_THREADS=1
RANDOM=$((seed % 32768))

readonly LIMIT=150 # seconds; what runs longer than this hangs
readonly LAST_CALL=24 # every rank has at least so many batches
"$bin/mmtrain_makedata" images --out data --classes 3 --per_class 15 --seed 4 >/dev/null

fail() {
  cat output.txt >&2
  printf 'FAILED with seed %s, fault %s: %s\n' "$seed" "$i" "$*" >&2
  exit 1
}

for ((i = 1; i <= count; ++i)); do
  hows=(nproc replicas) sizes=(2 3)
  how=${hows[RANDOM % 2]} size=${sizes[RANDOM % 2]}
  kinds=(hang hang_backward term throw throw_backward memory memory_backward)
  [[ $how == replicas ]] || kinds+=(kill kill_backward stop exit) # these befall processes
  kind=${kinds[RANDOM % ${#kinds[@]}]} rank=$((RANDOM % size)) call=$((1 + RANDOM % LAST_CALL))
  case $kind in
    kill*) code=137 words="[rank $rank] does not answer any more" ;;
    stop | exit) code=1 words="[rank $rank] does not answer any more" ;;
    hang*) code=1 words='] did not come to ' ;;
    term) code=143 words='Stopped by signal 15: saved' ;;
    throw*) code=1 words='the planted fault' ;;
    memory*) code=3 words='Out of memory on cpu' ;;
  esac
  start=$SECONDS got=0
  MMTRAIN_FAULT="$kind $rank $call" LD_PRELOAD=$hook timeout -k 1 "$LIMIT" "$bin/tiny_imagenet_experiments" \
    --data_dir "$PWD/data" --model baseline --width 0.125 --batch_size 4 --num_workers 1 --epochs 8 --lr 1e-4 \
    --device cpu --dist_timeout 8 "--$how" "$size" --name "$i" >output.txt 2>&1 </dev/null || got=$?
  printf '%d: %s in call %d of rank %d of --%s %d: exit code %d after %d s\n' \
    "$i" "$kind" "$call" "$rank" "$how" "$size" "$got" $((SECONDS - start))
  [[ $got -eq $code ]] || fail "exit code $got instead of $code"
  grep -qF -- "$words" output.txt || fail "'$words' was not said"
  left=$(pgrep -af -- "$PWD/data" || true)
  [[ -z $left ]] || fail "processes are left: $left"
done
echo "$count random faults ended as they should (seed $seed)"
