#!/usr/bin/env bash
# The programs end to end on tiny generated data: results, run directory, resume, exit codes.
# usage: programs.sh FOLDER_OF_THE_PROGRAMS WORK_FOLDER
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/programs_lib.sh"
bin=$1
work_in "$2"

"$bin/mmtrain_makedata" images --out data --classes 4 --per_class 10 --seed 3 --quirks >/dev/null
"$bin/mmtrain_makedata" images --out again --classes 4 --per_class 10 --seed 3 --quirks >/dev/null
diff -r data again || fail "the same seed gave other files"

# An array, not a function: in the background a function runs in a shell of its own, which would get the signals.
train=("$bin/tiny_imagenet_experiments" --data_dir data --model residual --width 0.25 --batch_size 8 --num_workers 2)

# A run leaves everything behind, and skips what is broken by name.
expect 0 'result {' "${train[@]}" --name first --epochs 2
last=$(tail -n 1 output.txt)
[[ $last == 'result {'*'"world_size":1}' ]] || fail "the last line is not the result: $last"
grep -q 'skipped .*JPEG' output.txt || fail "broken images were not named"
run=runs/tiny_imagenet_experiments/first
for file in config.json env.json training.log metrics.csv test_results.json classification_report.txt report.html result.json \
  plots/curves.png plots/confusion_matrix.png checkpoints/{last,best}/{model.safetensors,optimizer.safetensors,state.json}; do
  [[ -s $run/$file ]] || fail "$file is missing in the run directory"
done
compgen -G "$run/events.out.tfevents.*" >/dev/null || fail "there are no TensorBoard events"
[[ $(wc -l <"$run/metrics.csv") -eq 3 ]] || fail "metrics.csv has not one row an epoch"

# The same without the cache, with other workers: the same losses.
expect 0 'result {' "${train[@]}" --name plain --epochs 2 --cache off --num_workers 0
[[ $(cut -d, -f1-8 "$run/metrics.csv") == $(cut -d, -f1-8 runs/tiny_imagenet_experiments/plain/metrics.csv) ]] ||
  fail "cache and workers change the losses"

# Every part of the training step at once; interrupted and resumed it gives the same.
all=(--epochs 2 --scheduler cosine --warmup_epochs 1 --grad_clip 1 --accumulation_steps 2 --label_smoothing 0.1
  --ema_decay 0.9 --mixup --cutmix --amp fp16 --optimizer adamw --augment crop_flip --compile_model)
expect 0 'nothing is compiled' "${train[@]}" --name every "${all[@]}"
expect 0 'result {' "${train[@]}" --name parted "${all[@]}" --epochs 1 --scheduler none
expect 2 'scheduler differ' "${train[@]}" --name parted "${all[@]}" --resume auto
[[ $(sed -n 2p runs/tiny_imagenet_experiments/every/metrics.csv | cut -d, -f9) == 3e-06 ]] ||
  fail "the learning rate does not warm up"

# Replicas and processes train as one device does on the joined batch, dropout included.
losses_of() { tail -n +2 "runs/tiny_imagenet_experiments/$1/metrics.csv" | cut -d, -f2,4; }
same_losses() {
  paste -d, <(losses_of "$1") <(losses_of "$2") |
    awk -F, 'function off(a, b) { return (a - b) ^ 2 > 1e-6 * b ^ 2 } off($3, $1) || off($4, $2) { bad = 1 } END { exit bad || !NR }' ||
    fail "the losses of $1 and $2 differ"
}
"$bin/mmtrain_makedata" images --out whole --classes 3 --per_class 15 --seed 4 >/dev/null
ranks=("$bin/tiny_imagenet_experiments" --data_dir whole --model baseline --width 0.125 --num_workers 1 --epochs 2 --lr 1e-4
  --device cpu --dist_timeout 60)
expect 0 '"world_size":1' "${ranks[@]}" --batch_size 12 --name one
expect 0 'Training on: 2 CPU replicas' "${ranks[@]}" --batch_size 6 --replicas 2 --name threads
same_losses one threads
expect 0 '"world_size":3' "${ranks[@]}" --batch_size 4 --nproc 3 --name processes
same_losses one processes
expect 0 '"world_size":4' "${ranks[@]}" --batch_size 3 --nproc 2 --replicas 2 --name both
same_losses one both
# Another number of ranks takes a run up.
expect 0 '"world_size":2' "${ranks[@]}" --batch_size 6 --replicas 2 --name grown
expect 0 '"epochs":3' "${ranks[@]}" --batch_size 6 --nproc 3 --name grown --resume auto --epochs 3

# Killed and taken up: the losses of the unbroken run. Finished: the result again.
"${train[@]}" --name killed --epochs 40 >killed.txt 2>&1 &
pid=$!
for _ in $(seq 300); do
  [[ ! -f runs/tiny_imagenet_experiments/killed/checkpoints/last/state.json ]] || break
  sleep 0.1
done
kill -9 "$pid"
wait "$pid" 2>/dev/null || true
expect 0 'Resuming' "${train[@]}" --name killed --epochs 3 --resume auto
expect 0 'result {' "${train[@]}" --name unbroken --epochs 3
[[ $(cut -d, -f1-8 runs/tiny_imagenet_experiments/killed/metrics.csv | head -n 4) == \
   $(cut -d, -f1-8 runs/tiny_imagenet_experiments/unbroken/metrics.csv | head -n 4) ]] ||
  fail "the resumed run differs from the unbroken one"
expect 0 'result {' "${train[@]}" --name unbroken --epochs 3 --resume auto
expect 2 'lr differ' "${train[@]}" --name unbroken --epochs 3 --resume auto --lr 0.5

# A finished run that goes on and is killed goes on from there.
"${train[@]}" --name unbroken --epochs 60 --resume auto >killed.txt 2>&1 &
pid=$!
for _ in $(seq 600); do
  ! grep -q '^Epoch   4' killed.txt || break
  sleep 0.1
done
kill -9 "$pid"
wait "$pid" 2>/dev/null || true
expect 0 'Resuming' "${train[@]}" --name unbroken --epochs 5 --resume auto
[[ $(wc -l <runs/tiny_imagenet_experiments/unbroken/metrics.csv) -ge 6 ]] || fail "the run did not go on"

# A signal ends the run after a step, saved.
"${train[@]}" --name stopped --epochs 400 >stopped.txt 2>&1 &
pid=$!
for _ in $(seq 300); do
  ! grep -q 'First batch' stopped.txt || break
  sleep 0.1
done
kill -TERM "$pid"
code=0
wait "$pid" || code=$?
[[ $code -eq 143 ]] || fail "SIGTERM gave exit code $code"
[[ -f runs/tiny_imagenet_experiments/stopped/checkpoints/last/state.json ]] || fail "nothing was saved after SIGTERM"

# Wrong use.
expect 0 'Test Acc' "${train[@]}" --evaluate "$run/checkpoints/best"
expect 0 'Test Acc' "${train[@]}" --nproc 2 --evaluate "$run/checkpoints/best"
[[ $(grep -c 'Test Acc' output.txt) -eq 1 ]] || fail "several processes evaluated, each its share"
expect 2 "no directory '/nope'" "${train[@]}" --data_dir /nope
mkdir empty
expect 2 'wnids.txt' "${train[@]}" --data_dir empty
expect 2 'did you mean --batch_size' "${train[@]}" --bach_size 3
expect 2 'batch_size must be positive, got 0' "${train[@]}" --batch_size 0
expect 2 'lr must be positive' "${train[@]}" --lr -1
expect 2 'lr must be positive' "${train[@]}" --lr inf
expect 2 'step_size must be positive' "${train[@]}" --step_size 0
expect 2 'no such file' "${train[@]}" --pretrained /nope.safetensors
expect 2 'onecycle' "${train[@]}" --scheduler onecycle --warmup_epochs 1
echo '{"epocs": 3}' >unknown.json
expect 2 "'epochs'" "${train[@]}" --config unknown.json
printf '{\n "epochs": 3,,\n}' >broken.json
expect 2 'broken.json:2:14' "${train[@]}" --config broken.json
expect 2 'cannot be written' "${train[@]}" --output_dir /proc/none
# Wherever there is no GPU, asking for one is wrong use.
[[ -e /dev/nvidia0 ]] || expect 2 "'cuda' was asked for" "${train[@]}" --device cuda

expect 0 '"unit":"images/s"' "$bin/mmtrain_bench" images --data_dir data --seconds 0.5
mkdir -p sounds # two seconds of noise
{ printf 'RIFF\x24\xfa\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\0\xfa\0\0' && head -c 64000 /dev/urandom; } >sounds/noise.wav
expect 0 '"name":"mel/n_fft400/hop160/mels64/threads1/read"' "$bin/mmtrain_bench" mel --data_dir sounds --seconds 0.2
expect 2 'a folder of sound files' "$bin/mmtrain_bench" mel
expect 2 'a folder of video files' "$bin/mmtrain_bench" video
for row in {1..200}; do echo "$row;0,5;-1.25"; done >recording.txt
expect 0 '"name":"text/threads2","value":' "$bin/mmtrain_bench" text --file recording.txt
expect 2 'no whole window' "$bin/mmtrain_bench" text --file recording.txt --window 201
expect 0 '"name":"cache/workers2/wait_at_100"' "$bin/mmtrain_bench" cache --place . --samples 100 --consume_rate 100 --seconds 0.5
expect 0 '"unit":"samples/s"' "$bin/mmtrain_bench" step --model residual --width 0.25 --batch_size 4 --seconds 0.2
expect 0 'PASS' "$bin/test_multi_gpu" --width 0.25
expect 0 '' "$bin/minimal"
echo "all programs did what they should"
