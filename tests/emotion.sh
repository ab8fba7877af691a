#!/usr/bin/env bash
# The programs of emotion recognition end to end on tiny generated clips with all known faults.
# usage: emotion.sh FOLDER_OF_THE_PROGRAMS WORK_FOLDER
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/programs_lib.sh"
bin=$1
work_in "$2"

"$bin/mmtrain_makedata" emotion --out data --seed 3 --train 28 --dev 7 --test 7 --quirks >/dev/null
"$bin/mmtrain_makedata" emotion --out again --seed 3 --train 28 --dev 7 --test 7 --quirks >/dev/null
diff -r data again || fail "the same seed gave other files"

small=(--image_size 32 --mel_frames 80 --d_model 32 --n_heads 4 --width 0.25 --device cpu)
train=("$bin/train" --data_dir data "${small[@]}" --batch_size 8 --num_workers 2 --epochs 2)
runs=checkpoints

# A run leaves everything behind. Each unusable clip is named once with its reason; the counts are right.
expect 0 'result {' "${train[@]}" --name first --save_freq 1
says '^result \{.*"test_f1_weighted":'
says 'Samples: 30 train, 8 val, 9 test, 7 classes'
says 'single device, not parallel'
says 'Test F1: macro 0\.[0-9]{4}, weighted 0\.[0-9]{4}'
says 'First batch: image \[[78],3,32,32\] Float, mel \[[78],64,80\] Float, target \[[78]\] Long, on cpu'
[[ $(grep -c 'skipped .*mp4: ' output.txt) -eq 4 ]] || fail "the bad clips were not named once each"
for clip in train_splits/dia4_utt0 train_splits/dia5_utt0 dev_splits_complete/dia1_utt0 \
  output_repeated_splits_test/dia1_utt0; do
  [[ $(grep -c "skipped .*$clip.mp4: ." output.txt) -eq 1 ]] || fail "$clip was not named once"
done
says '4 broken samples were skipped, each named above \(2 of train, 1 of val, 1 of test\)'
run=$runs/first
for file in config.json env.json training.log metrics.csv test_results.json classification_report.txt report.html result.json \
  plots/curves.png plots/confusion_matrix.png \
  checkpoints/{last,best,epoch_001,epoch_002}/{model.safetensors,optimizer.safetensors,state.json}; do
  [[ -s $run/$file ]] || fail "$file is missing in the run directory"
done
compgen -G "$run/events.out.tfevents.*" >/dev/null || fail "there are no TensorBoard events"
compgen -G "logs/first/events.out.tfevents.*" >/dev/null || fail "there are no events in --log_dir"
for tag in lr/visual lr/audio lr/fusion grad_norm memory_mib/cpu/allocated f1_weighted/val; do
  grep -qaF "$tag" "$run"/events.out.tfevents.* || fail "the events have no $tag"
done
grep -q '"neutral"' "$run/checkpoints/best/state.json" || fail "the checkpoint does not hold the names of the classes"

# The same with other workers, without the cache, and with the single-process program of the other name.
losses_of() { cut -d, -f1-8 "$1/metrics.csv"; }
expect 0 'result {' "${train[@]}" --name plain --cache off --num_workers 0
[[ $(losses_of "$run") == $(losses_of "$runs/plain") ]] || fail "cache and workers change the losses"
expect 0 'result {' "$bin/train_multi_gpu" --data_dir data "${small[@]}" --batch_size 8 --num_workers 4 --epochs 2 \
  --output_dir "$runs" --name multi --log_dir '' --save_best_only
[[ $(losses_of "$run") == $(losses_of "$runs/multi") ]] || fail "train and train_multi_gpu differ"
[[ ! -e $runs/multi/checkpoints/epoch_001 ]] || fail "--save_best_only kept a checkpoint"

# Interrupted and taken up: the losses of the unbroken run.
expect 0 'result {' "${train[@]}" --name parted --epochs 1 --scheduler step
expect 0 'Resuming' "${train[@]}" --name parted --scheduler step --resume auto
expect 0 'result {' "${train[@]}" --name whole --scheduler step
[[ $(losses_of "$runs/parted") == $(losses_of "$runs/whole") ]] || fail "the resumed run differs"
expect 2 'lr_visual differ' "${train[@]}" --name whole --scheduler step --resume auto --lr_visual 1

# Two replicas train as one device on the joined batch. Options that only have to work together.
expect 0 'Training on: 2 CPU replicas' "${train[@]}" --name two --batch_size 4 --replicas 2 --auto_scale_lr
says 'Learning rates times 2: visual 0.0006, audio 0.0006, fusion 0.006'
expect 0 'result {' "${train[@]}" --name every --epochs 3 --frames 2 --fusion_type transformer --amp bf16 \
  --accumulation_steps 2 --scheduler plateau --patience 1 --factor 0.5 --class_weights balanced --weighted_sampling \
  --label_smoothing 0.1 --ema_decay 0.9 --val_interval 2 --early_stopping --early_stopping_patience 5 --log_interval 1
[[ $(sed -n 2p "$runs/every/metrics.csv" | cut -d, -f4) == nan ]] || fail "--val_interval 2 validated the first epoch"
for modality in visual audio; do
  expect 0 'result {' "${train[@]}" --name "$modality" --epochs 1 --modality "$modality" --fusion_type concat
done
# A clip without sound is of use to who does not listen.
expect 0 '(1 of train, 1 of val, 1 of test)' "${train[@]}" --name seeing --epochs 1 --modality visual

# The guide's configuration runs as it stands, after one warning where its GPUs are not there.
cat >config_3x4090.json <<'JSON'
{
    "use_multi_gpu": true,
    "gpu_ids": [0, 1, 2],
    "batch_size": 22,
    "num_workers": 12,
    "lr_visual": 3e-4,
    "lr_audio": 3e-4,
    "lr_fusion": 3e-3,
    "auto_scale_lr": false,
    "fusion_type": "attention",
    "scheduler": "cosine",
    "grad_clip": 1.0,
    "epochs": 100
}
JSON
if [[ ! -e /dev/nvidia0 ]]; then
  expect 0 'GPUs 0, 1, 2 were wished for' "$bin/train_multi_gpu" --config config_3x4090.json --data_dir data \
    "${small[@]:0:10}" --epochs 1 --log_dir ''
  [[ $(grep -c 'wished for' output.txt) -eq 1 ]] || fail "the wish was mentioned more than once"
  expect 2 "was asked for" "${train[@]}" --device auto --gpu_ids 0 1 2
fi
expect 2 'contradict each other' "${train[@]}" --gpu_ids 0 1 2
expect 0 'Test Acc' "${train[@]}" --evaluate "$run/checkpoints/best"
says 'neutral .* [0-9]'
cp output.txt evaluated.txt
expect 0 'Test Acc' "$bin/train" --data_dir data --batch_size 8 --evaluate "$run" # which says what its net is
diff <(grep 'Test Loss' evaluated.txt) <(grep 'Test Loss' output.txt) || fail "a run is evaluated otherwise than its checkpoint"

# Validations are rare, and patience ends; a net may tell more classes apart than there are.
expect 0 'no better accuracy in 1 validations' "${train[@]}" --name rare --epochs 9 --val_interval 2 --lr 1e-12 --early_stopping \
  --early_stopping_patience 1
expect 0 'result {' "${train[@]}" --name wide --epochs 1 --num_classes 9 --class_weights balanced
"$bin/mmtrain_predict" --device cpu --checkpoint "$runs/wide" data >answers.txt || fail "a net with more classes cannot be used"
grep -q '"class 8"' answers.txt || fail "an unnamed class has no name"
expect 2 "no directory '/nope'" "${train[@]}" --data_dir /nope
mkdir empty
expect 2 'train_sent_emo.csv' "${train[@]}" --data_dir empty
expect 2 'did you mean' "${train[@]}" --modality sight
expect 2 'lr_visual must be positive' "${train[@]}" --lr_visual 0
expect 2 "no parameter begins with 'ears'" "${train[@]}" --freeze ears
expect 2 "unexpected argument 'stray'" "${train[@]}" stray
expect 2 'EmoEvaluation' "${train[@]}" --dataset IEMOCAP

# Answers for clips: one line each, errors where they belong, windows of a long one.
expect 0 '"class"' "$bin/mmtrain_predict" --checkpoint "$run" data/MELD.Raw/output_repeated_splits_test /nope.mp4
[[ $(grep -c '"file"' output.txt) -eq 11 ]] || { cat output.txt; fail "there is not one line for each clip"; }
[[ $(grep -c '"error"' output.txt) -eq 2 ]] || { cat output.txt; fail "not both bad files have an error"; }
tail -n 1 output.txt | grep -q '/nope.mp4.*"error"' || fail "the order of the answers is another"
long=$(find data -name 'dia2_utt0.mp4' -path '*test*')
expect 0 '"start":10.0' "$bin/mmtrain_predict" --checkpoint "$run/checkpoints/last" --window 10 --stride 5 "$long"
[[ $(wc -l <output.txt) -eq 5 ]] || { cat output.txt; fail "30 s are not five windows of 10 s each 5 s"; }
expect 2 '--checkpoint is needed' "$bin/mmtrain_predict" data
echo "the emotion programs did what they should"
