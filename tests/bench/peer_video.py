"""Python peer of `mmtrain_bench video`: clips per second that become frames, sound of 16 kHz and its mel spectrogram.

    python tests/bench/peer_video.py --data_dir DIR_OF_MP4 --frames 8 --size 224 --num_workers 2

PyAV, in a DataLoader. Like the library it skips non-reference frames that nobody asked for (exact for those asked for),
which makes it the fastest of the Python ways tried. Prints one line of JSON.
"""

import argparse
import json
import pathlib
import statistics
import time

import av
import numpy as np
import torch
import torchaudio
from torch.utils.data import DataLoader, Dataset

RATE = 16000
REPEATS = 5


def read_frames(path, count, size, key_frames_only):
    with av.open(path) as file:
        stream = file.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        context, got = stream.codec_context, {}
        if key_frames_only:
            context.skip_frame = "NONKEY"
            frames = list(file.decode(stream))
            kept = [frames[(2 * i + 1) * len(frames) // (2 * count)] for i in range(count)]
            got = {i: frame.reformat(size, size, "rgb24", interpolation="BILINEAR").to_ndarray() for i, frame in enumerate(kept)}
            return torch.from_numpy(np.stack([got[i] for i in range(count)]))
        step = int(round(1 / (stream.time_base * stream.average_rate)))
        start = stream.start_time or 0
        wanted = [start + (2 * i + 1) * stream.frames // (2 * count) * step for i in range(count)]
        for packet in file.demux(stream):
            context.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in wanted else "NONREF"
            for frame in context.decode(packet):
                if frame.pts in wanted:
                    got[frame.pts] = frame.reformat(size, size, "rgb24", interpolation="BILINEAR").to_ndarray()
            if len(got) == len(set(wanted)):
                break
        return torch.from_numpy(np.stack([got[pts] for pts in wanted]))


def read_sound(path):
    with av.open(path) as file:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        parts = [part.to_ndarray() for frame in file.decode(audio=0) for part in resampler.resample(frame)]
        parts += [part.to_ndarray() for part in resampler.resample(None)]
        return torch.from_numpy(np.concatenate(parts, 1)[0])


class Clips(Dataset):
    def __init__(self, paths, args):
        self.paths, self.args = paths, args
        self.mel = torchaudio.transforms.MelSpectrogram(RATE, n_fft=400, hop_length=160, n_mels=64)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        torch.set_num_threads(1)
        result = []
        if self.args.parts != "audio":
            result.append(read_frames(self.paths[index], self.args.frames, self.args.size, self.args.key_frames_only))
        if self.args.parts != "video":
            with torch.inference_mode():
                mel = self.mel(read_sound(self.paths[index]))
            result.append(torch.nn.functional.pad(mel, (0, max(0, 320 - mel.shape[1])))[:, :320].clone())
        return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--parts", choices=("video", "audio", "all"), default="all")
    parser.add_argument("--key_frames_only", action="store_true")
    for name, value in (("frames", 8), ("size", 224), ("num_workers", 2), ("seconds", 10)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(1)
    paths = [str(path) for path in sorted(pathlib.Path(args.data_dir).glob("*.mp4"))]
    loader = DataLoader(Clips(paths, args), batch_size=4, num_workers=args.num_workers, persistent_workers=args.num_workers > 0)
    rates = []
    for repeat in range(REPEATS + 1):
        start, clips = time.perf_counter(), 0
        while clips == 0 or time.perf_counter() - start < args.seconds / REPEATS:
            clips += sum(len(batch[0]) for batch in loader)
        rates.append(clips / (time.perf_counter() - start))
    rates = rates[1:]  # the first one starts the workers
    name = f"video/pyav/{args.parts}/frames{args.frames}{'/key' if args.key_frames_only else ''}/size{args.size}/workers{args.num_workers}"
    print(json.dumps(dict(name=name, value=statistics.median(rates), unit="clips/s", repeats=rates)))


if __name__ == "__main__":
    main()
