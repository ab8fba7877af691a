#!/usr/bin/env bash
# Two hosts train together: two network namespaces that a pair of virtual interfaces connects, with two ranks each, give
# the losses of one device; when the cable is cut, all ranks end in time.
# usage: two_hosts.sh FOLDER_OF_THE_PROGRAMS WORK_FOLDER [TORCHRUN]; exit code 77: namespaces are not allowed here
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/programs_lib.sh"
bin=$1 torchrun=${3:-}
work_in "$2"
export OMP_NUM_THREADS=1

skip() { printf 'skipped: %s\n' "$*"; exit 77; }

readonly A=mmtrain-$$-a B=mmtrain-$$-b ADDRESS_A=198.18.77.1 ADDRESS_B=198.18.77.2 # of the range for tests
command -v ip >/dev/null || skip "there is no ip (package iproute2)"
reason=$(ip netns add "$A" 2>&1) || skip "no network namespace can be made: $reason"
# shellcheck disable=SC2064 # now: these are their names
trap "ip netns del $A; ip netns del $B 2>/dev/null || true" EXIT
ip netns add "$B"
reason=$(ip -n "$A" link add eth0 type veth peer name eth0 netns "$B" 2>&1) || skip "no virtual interfaces: $reason"
ip -n "$A" address add "$ADDRESS_A/24" dev eth0
ip -n "$B" address add "$ADDRESS_B/24" dev eth0
for host in "$A" "$B"; do
  ip -n "$host" link set lo up
  ip -n "$host" link set eth0 up
done

"$bin/mmtrain_makedata" images --out data --classes 4 --per_class 12 --seed 4 >/dev/null
train=("$bin/tiny_imagenet_experiments" --data_dir data --model baseline --width 0.125 --num_workers 1 --lr 1e-4
  --device cpu)

# on RANK NAME FLAGS...: rank RANK of four, two on each host.
on() {
  local rank=$1 name=$2 host=$A
  shift 2
  [[ $rank -lt 2 ]] || host=$B
  timeout -k 1 150 ip netns exec "$host" env RANK="$rank" WORLD_SIZE=4 LOCAL_RANK=$((rank % 2)) LOCAL_WORLD_SIZE=2 \
    MASTER_ADDR="$ADDRESS_A" MASTER_PORT=29500 "${train[@]}" --batch_size 3 --name "$name" "$@" \
    >"$name-$rank.txt" 2>&1 </dev/null
}

losses_of() { tail -n +2 "runs/tiny_imagenet_experiments/$1/metrics.csv" | cut -d, -f2,4; }
same_losses() {
  paste -d, <(losses_of one) <(losses_of "$1") |
    awk -F, 'function off(a, b) { return (a - b) ^ 2 > 1e-6 * b ^ 2 } off($3, $1) || off($4, $2) { bad = 1 } END { exit bad || !NR }' ||
    fail "the losses of $1 and of one device differ"
}

"${train[@]}" --batch_size 12 --epochs 2 --name one >one.txt 2>&1 </dev/null || { cat one.txt >&2; fail "one device"; }
pids=()
for rank in 0 1 2 3; do on "$rank" four --epochs 2 --dist_timeout 60 & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid" || { cat four-*.txt >&2; fail "two hosts: a rank ended with exit code $?"; }; done
grep -q '"world_size":4' four-0.txt || fail "rank 0 gave no result"
same_losses four

if [[ -x $torchrun ]]; then
  for host in 0 1; do
    names=("$A" "$B")
    timeout -k 1 150 ip netns exec "${names[host]}" "$torchrun" --no-python --nnodes 2 --node-rank "$host" \
      --nproc-per-node 2 --master-addr "$ADDRESS_A" --master-port 29600 "${train[@]}" --batch_size 3 --epochs 2 \
      --dist_timeout 60 --name torchrun >"torchrun-$host.txt" 2>&1 </dev/null & pids[host]=$!
  done
  for pid in "${pids[@]:0:2}"; do wait "$pid" || { cat torchrun-*.txt >&2; fail "torchrun on two hosts: exit code $?"; }; done
  same_losses torchrun
else
  echo "not with torchrun: there is none"
fi

# The cable is cut in the middle of training.
pids=()
for rank in 0 1 2 3; do on "$rank" cut --epochs 500 --dist_timeout 10 & pids+=($!); done
for _ in $(seq 600); do
  ! grep -q '^Epoch   2' cut-0.txt 2>/dev/null || break
  sleep 0.1
done
ip -n "$A" link set eth0 down
start=$SECONDS
for rank in 0 1 2 3; do
  code=0
  wait "${pids[rank]}" || code=$?
  [[ $code -eq 1 ]] || { cat cut-*.txt >&2; fail "after the cut rank $rank ended with exit code $code"; }
done
[[ $((SECONDS - start)) -lt 60 ]] || fail "the ranks took $((SECONDS - start)) s to see that the cable was cut"
grep -q 'is cut off' cut-2.txt || { cat cut-*.txt >&2; fail "rank 2 does not say that it is cut off"; }
grep -q '\[rank 2\|\[rank 3' cut-0.txt || { cat cut-*.txt >&2; fail "rank 0 does not say who is cut off"; }
echo "two hosts train together"
