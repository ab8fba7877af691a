#!/usr/bin/env bash
# Behavior classification beside the same recipe in Python, on smart-watch recordings and on generated ones.
# usage: behavior.sh FOLDER_OF_THE_PROGRAMS PYTHON WATCH_FOLDER OUT [EPOCHS]
# WATCH_FOLDER holds folders sNN_data/<LABEL>_<i>.csv at 50 Hz. Prints and keeps (OUT/results.jsonl) one JSON line a figure,
# on stderr the time of what has to end in time. OMP_NUM_THREADS says how many threads train on both sides, SEEDS which
# splits and weights the accuracies are of.
set -euo pipefail
bin=$1 python=$2 watch=$3 out=$4 epochs=${5:-8} threads=${OMP_NUM_THREADS:-2}
here=$(dirname -- "$(realpath -- "$0")")
mkdir -p -- "$out"
small=(--d_model 64 --num_layers 2 --d_ff 256 --cnn_width 0.25 --lr 1e-3 --device cpu --split-by person)
run() { "$bin/run_behavior_classification" "${small[@]}" --output_dir "$out/runs" "$@"; }
figure() { tee -a "$out/results.jsonl"; }
result() { sed -n 's/^result //p' | tail -n 1 | sed "s|^{|{\"name\": \"$1\", |" | figure; }

# Preparation: files to spectra, in windows a second.
rm -rf -- "$out/generated" "$out/ear" "$out/runs"
"$bin/mmtrain_makedata" behavior --out "$out/generated" >/dev/null
for folder in "$out"/generated/*_data; do # what both sides read: the ear's recordings that have a class
  mkdir -p -- "$out/ear/${folder##*/}"
  for file in "$folder"/耳道-*.txt; do
    [[ $file == *说话* ]] || cp -- "$file" "$out/ear/${folder##*/}/"
  done
done
for _ in 1 2 3 4 5; do
  "$bin/mmtrain_bench" sensors --data_dir "$out/ear" --threads 2 2>/dev/null | figure
  "$python" "$here/peer_behavior.py" prepare "$out/ear" | figure
done

# Generated recordings, person-wise: fusion, and the control on shuffled labels.
time run --data-dir "$out/generated" --models fusion --epochs 6 --name generated | result generated_fusion
run --data-dir "$out/generated" --models cnn --epochs 4 --shuffle_labels --name shuffled | result generated_shuffled

# Smart-watch recordings, person-wise: our nets and the same recipe in Python on the same split.
watch_options=(--data-dir "$watch" --fs 50 --overlap 0)
for seed in ${SEEDS:-42 1 2 3}; do
  run "${watch_options[@]}" --models cnn transformer fusion --epochs "$epochs" --seed "$seed" --name "watch_$seed" |
    result "watch_best_$seed"
  cat -- "$out/runs/watch_$seed/model_comparison.csv"
  "$python" "$here/peer_behavior.py" train "$watch" --run "$out/runs/watch_$seed" --seed "$seed" --threads "$threads" | figure
done

# Leave one person out.
run "${watch_options[@]}" --models cnn --epochs 20 --cv-folds 10 --name watch_lopo | result watch_lopo
"$python" -c 'import json, sys; print(json.dumps({"name": "watch_lopo_folds"} | json.load(open(sys.argv[1]))["cnn"]))' \
  "$out/runs/watch_lopo/cross_validation.json" | figure
