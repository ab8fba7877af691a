#!/usr/bin/env bash
# Sound, video, text and the decode-once cache beside their peers in Python, in turns; some 16 minutes with 9 pairs.
# usage: media.sh FOLDER_OF_THE_PROGRAMS PYTHON OUT
# PAIRS=1 for a try. Prints medians and ratios; the raw pairs are kept in OUT/pairs.jsonl, the data in OUT/data.
set -euo pipefail
bench=$1/mmtrain_bench python=$2 out=$3
pairs=${PAIRS:-9}
here=$(dirname -- "$(realpath -- "$0")")
data=$out/data
mkdir -p -- "$data"
export OMP_NUM_THREADS=1

# compare NAME OURS... -- PEER...
compare() {
  printf '%-46s' "$1"
  shift
  "$python" "$here/pairs.py" --pairs "$pairs" --out "$out/pairs.jsonl" -- "$bench" "$@"
}

"$python" "$here/make_media.py" "$data" --clips 8
[[ -f $data/recording.csv ]] || "$python" "$here/peer_text.py" --make "$data/recording.csv" --mb 100
printf '%-46s%10s %10s\n' "" ours peer

# Seconds of sound a second, one thread.
for setting in "400 160 64" "400 160 80" "1024 512 128"; do
  read -r n_fft hop n_mels <<<"$setting"
  mel=(--data_dir "$data/sounds" --n_fft "$n_fft" --hop "$hop" --n_mels "$n_mels" --seconds 1)
  for peer in torchaudio librosa; do
    [[ $peer == torchaudio || $n_mels != 80 ]] || continue
    compare "mel $n_fft/$hop/$n_mels, $peer" mel "${mel[@]}" -- "$python" "$here/peer_mel.py" "${mel[@]}" --peer "$peer"
  done
done

# Clips a second: frames of 224 x 224, sound of 16 kHz and its mel spectrogram, two workers.
video=(--data_dir "$data/clips" --num_workers 2 --seconds 3)
peer=("$python" "$here/peer_video.py" "${video[@]}")
compare "8 frames" video "${video[@]}" --frames 8 -- "${peer[@]}" --frames 8
compare "1 frame, the peer 8" video "${video[@]}" --frames 1 -- "${peer[@]}" --frames 8
compare "1 frame" video "${video[@]}" --frames 1 -- "${peer[@]}" --frames 1
compare "1 key frame, the peer 8 frames" video "${video[@]}" --frames 1 --key_frames_only -- "${peer[@]}" --frames 8
compare "1 key frame" video "${video[@]}" --frames 1 --key_frames_only -- "${peer[@]}" --frames 1 --key_frames_only

# MB of text a second to windows of nine columns, two threads.
text=(text --file "$data/recording.csv" --threads 2 --first_column 1 --columns 9)
for peer in pandas polars; do
  compare "text, $peer" "${text[@]}" -- "$python" "$here/peer_text.py" --file "$data/recording.csv" --what "$peer" --threads 2
done

# Samples a second from the cache, and how long a consumer of 10,000 a second waits.
for ((i = 0; i < (pairs + 2) / 3; ++i)); do
  "$bench" cache --place "$data" --num_workers 2 --seconds 10 2>>"$out/log.txt"
done | tee -a "$out/cache.jsonl"
