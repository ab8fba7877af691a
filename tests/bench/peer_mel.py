"""Python peer of `mmtrain_bench mel`: seconds of sound per second that become mel spectrograms, one file after the other.

    python tests/bench/peer_mel.py --data_dir DIR --n_fft 400 --hop 160 --n_mels 64 --peer torchaudio

torchaudio.transforms.MelSpectrogram on tensors or librosa.feature.melspectrogram on arrays, sound already in memory, as
HTK bands without norm. Prints one line of JSON.
"""

import argparse
import json
import pathlib
import statistics
import time
import warnings

import soundfile
import torch

warnings.filterwarnings("ignore")
REPEATS = 5


def make(args):
    """(function of one sound, sounds)"""
    paths = sorted(pathlib.Path(args.data_dir).glob("*.wav"))
    sounds = [soundfile.read(path, dtype="float32")[0] for path in paths]
    if args.peer == "torchaudio":
        import torchaudio

        mel = torchaudio.transforms.MelSpectrogram(
            args.sample_rate, n_fft=args.n_fft, hop_length=args.hop, n_mels=args.n_mels)
        return mel, [torch.from_numpy(sound) for sound in sounds]
    import librosa

    return lambda sound: librosa.feature.melspectrogram(
        y=sound, sr=args.sample_rate, n_fft=args.n_fft, hop_length=args.hop, n_mels=args.n_mels, htk=True, norm=None), sounds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    for name, value in (("sample_rate", 16000), ("n_fft", 400), ("hop", 160), ("n_mels", 64), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--peer", choices=("torchaudio", "librosa"), default="torchaudio")
    parser.add_argument("--seconds", type=float, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    mel, sounds = make(args)
    seconds = sum(len(sound) for sound in sounds) / args.sample_rate
    rates = []
    with torch.inference_mode():
        for _ in range(2):  # librosa keeps what it makes on first use
            [mel(sound) for sound in sounds]
        for _ in range(REPEATS):
            start, passes = time.perf_counter(), 0
            while passes == 0 or time.perf_counter() - start < args.seconds / REPEATS:
                for sound in sounds:
                    mel(sound)
                passes += 1
            rates.append(passes * seconds / (time.perf_counter() - start))
    name = f"mel/{args.peer}/n_fft{args.n_fft}/hop{args.hop}/mels{args.n_mels}/threads{args.threads}"
    print(json.dumps(dict(name=name, value=statistics.median(rates), unit="audio-s/s", repeats=rates)))


if __name__ == "__main__":
    main()
