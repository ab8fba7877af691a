#!/usr/bin/env bash
# The programs on sensor recordings end to end: outputs, configuration files, resume, cross-validation, exit codes.
# usage: behavior.sh FOLDER_OF_THE_PROGRAMS WORK_FOLDER
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/programs_lib.sh"
bin=$1
work_in "$2"

"$bin/mmtrain_makedata" behavior --out data --people 3 --seconds 20 --seed 3 --quirks >/dev/null
"$bin/mmtrain_makedata" behavior --out again --people 3 --seconds 20 --seed 3 --quirks >/dev/null
diff -r data again || fail "the same seed gave other files"

small=(--d_model 32 --num_heads 2 --num_layers 1 --d_ff 32 --cnn_width 0.125 --batch_size 32 --num_workers 2)
run=("$bin/run_behavior_classification" "${small[@]}" --device cpu)

# The whole pipeline leaves everything behind, and names what it left out.
expect 0 'result {' "${run[@]}" --full-pipeline --data-dir data --models cnn transformer fusion dual --epochs 2 --split-by person \
  --lr 1e-3 --name all
last=$(tail -n 1 output.txt)
[[ $last == 'result {'*'"model":"'* ]] || fail "the last line is not the result: $last"
for words in '吞咽五列.txt: left out' '5 malformed lines' 'ppg_infrared never changes' 'single device, not parallel' \
  'Memory of cpu' 'Memory summary' 'Best model'; do
  grep -qF -- "$words" output.txt || fail "'$words' was not said"
done
for words in '吞咽五列.txt: left out' 'Split test: ' 'Memory of cpu' 'No notch at 50 Hz'; do
  grep -qF -- "$words" all/training.log || fail "'$words' is not in training.log"
done
for file in config.json env.json training.log model_comparison.csv classification_report.txt report.html test_results.json result.json \
  comprehensive_results.png experiment_summary.json plots/{curves,confusion_matrix}.png \
  best_{cnn,transformer,fusion,dual}_model.safetensors; do
  [[ -s all/$file ]] || fail "$file is missing in the run directory"
done
for model in cnn transformer fusion dual; do
  for file in preparation.json metrics.csv test_results.json checkpoints/{last,best}/{model.safetensors,state.json}; do
    [[ -s all/$model/$file ]] || fail "$file is missing in the directory of $model"
  done
done
[[ $(wc -l <all/model_comparison.csv) -eq 5 ]] || fail "model_comparison.csv has not one row a model"

# Without a name the directory bears the time; by pattern, with mixed precision that a CPU leaves.
expect 0 'result {' "$bin/run_behavior_classification" "${small[@]}" --quick-start --data-glob './da*/p?_data' --mixed-precision \
  --no-gpu --epochs 1
compgen -G 'training_results_*/cnn/metrics.csv' >/dev/null || fail "no run directory with the time in its name"

# The guide's configuration file; flags win over it.
cat >gpu_config.json <<'JSON'
{
  "_comment": "as in the guide",
  "data_dir": "./data", "batch_size": 16, "learning_rate": 1e-3, "num_epochs": 100, "model_types": ["cnn"],
  "use_gpu": true, "device_id": 0, "use_amp": true, "compile_model": true, "multi_gpu": false,
  "patience": 7, "k_folds": 0, "test_size": 0.3, "use_class_weights": true, "augmentation": false,
  "feature_types": ["stft", "time_series"], "device_count": 1,
  "data_params": {"window_size": 5.0, "overlap": 0.5, "fs": 100},
  "training_params": {"optimizer": "adamw", "scheduler": "cosine_annealing", "gradient_clip_norm": 2.0},
  "dataloader_params": {"num_workers": "auto_half_cores", "pin_memory": true, "persistent_workers": true,
                        "prefetch_factor": 4, "drop_last": true}
}
JSON
expect 0 '"early_stopping_patience": 7' "$bin/run_behavior_classification" --config gpu_config.json --print-config
for words in '"lr": 0.001' '"epochs": 100' '"prefetch_factor": 4' '"grad_clip": 2' '"scheduler": "warmup_cosine"' '"drop_last": true' '"augmentation": false'; do
  grep -qF -- "$words" output.txt || fail "$words is not in the merged configuration"
done
expect 0 'result {' "${run[@]}" --config gpu_config.json --epochs 1 --name guide
expect 0 '"early_stopping_patience": 7' "$bin/run_behavior_classification" --config guide/config.json --print-config
echo '{"dataloader_params": {"num_worker": 3}}' >unknown.json
expect 2 "'dataloader_params.num_workers'" "${run[@]}" --config unknown.json

# Events, cross-validation with one person left out each, and the report on everything.
expect 0 'over 3 folds' "${run[@]}" --data-dir data --event-config --models cnn --epochs 1 --split-by person --cv-folds 3 \
  --eval-set all --weighted_sampling --name events
[[ -s events/cross_validation.json && -s events/cnn/fold_03/test_results.json ]] || fail "folds left nothing behind"
grep -qF 'other' events/classification_report.txt || fail "the six classes are not reported"

# Killed and taken up: the losses of the unbroken run, and the models that were done are not trained again.
two=(--data-dir data --models cnn transformer --split-by person --lr 1e-3)
expect 0 'result {' "${run[@]}" "${two[@]}" --epochs 3 --name unbroken
"${run[@]}" "${two[@]}" --epochs 3 --name killed >killed.txt 2>&1 &
pid=$!
for _ in $(seq 600); do
  [[ ! -f killed/transformer/checkpoints/last/state.json ]] || break
  sleep 0.1
done
kill -9 "$pid"
wait "$pid" 2>/dev/null || true
expect 0 'Resuming' "${run[@]}" "${two[@]}" --epochs 3 --name killed --resume auto
for model in cnn transformer; do
  [[ $(cut -d, -f1-5 killed/$model/metrics.csv) == $(cut -d, -f1-5 unbroken/$model/metrics.csv) ]] ||
    fail "the resumed run differs from the unbroken one in $model"
done
expect 0 'result {' "${run[@]}" "${two[@]}" --epochs 3 --name killed --resume auto
[[ $(wc -l <output.txt) -lt 40 ]] || fail "a finished run was trained again"
expect 2 'lr differ' "${run[@]}" "${two[@]}" --epochs 3 --name killed --resume auto --lr 0.5

# A signal ends the run after a step, saved.
"${run[@]}" "${two[@]}" --epochs 300 --name stopped >stopped.txt 2>&1 &
pid=$!
for _ in $(seq 300); do
  ! grep -q '^Epoch   1' stopped.txt || break
  sleep 0.1
done
kill -TERM "$pid"
code=0
wait "$pid" || code=$?
[[ $code -eq 143 ]] || fail "SIGTERM gave exit code $code"

# Wrong use.
expect 2 'there is no folder' "${run[@]}" --data-dir /nope
expect 2 'no folder fits' "${run[@]}" --data-glob './nothing*'
expect 2 "did you mean 'fusion'" "${run[@]}" --models fusoin
expect 2 'contradict' "$bin/run_behavior_classification" --no-gpu --gpu-id 0
expect 2 'exclude each other' "${run[@]}" --quick-start --full-pipeline
expect 2 'people' "${run[@]}" --data-dir data --split-by person --cv-folds 9 --name parted
[[ ! -e parted ]] || fail "folds that cannot be were found out after training"
expect 2 'must be between 1 and' "${run[@]}" --data-dir data --max_file_mb 0
expect 2 'must be between 0 and 1' "${run[@]}" --gpu-memory-fraction 1.5
expect 2 'time_series' "${run[@]}" --feature_types stft --models transformer
expect 2 'below 1' "${run[@]}" --data-dir data --test_size 0.9 --val_size 0.3
[[ -e /dev/nvidia0 ]] || expect 2 'was asked for' "$bin/run_behavior_classification" --gpu-id 0 --data-dir data

# Checks of the machine.
expect 0 'PASS basic operations' "$bin/test_gpu_training" --device cpu
grep -q '^SKIP device' output.txt || fail "no GPU, and no reason given"
expect 0 'PASS loader' "$bin/run_behavior_classification" --test-gpu --no-gpu

# One line a window of a recording; broken ones get a line too.
if [[ -x $bin/mmtrain_predict ]]; then
  predict=("$bin/mmtrain_predict" --checkpoint all/fusion)
  expect 0 '"class"' "${predict[@]}" data/p1_data/耳道-咳嗽每5秒一次共20秒.txt
  [[ $(grep -c '"start"' output.txt) -eq 7 ]] || fail "20 s are not seven windows of 5 s"
  expect 0 '"error"' "${predict[@]}" data/p1_data
  head -n 300 data/p2_data/耳道-静息共20秒.txt >growing.txt
  "${predict[@]}" --follow --idle 3 growing.txt >followed.txt 2>&1 &
  pid=$!
  sleep 1
  tail -n +301 data/p2_data/耳道-静息共20秒.txt >>growing.txt
  code=0
  wait "$pid" || code=$?
  [[ $code -eq 0 && $(grep -c '"class"' followed.txt) -ge 6 ]] || { cat followed.txt >&2; fail "a growing file was not followed"; }
fi
echo "all programs did what they should"
