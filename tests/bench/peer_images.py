"""Peers of `mmtrain_bench images`: images per second of torchvision's loaders and of torch in memory.

    python tests/bench/peer_images.py --data_dir DIR --what pillow|decode_jpeg|reference|memory|raw [--jpegloop FILE.c]

`pillow` and `decode_jpeg`: torchvision's ImageFolder in a DataLoader with 2 worker processes, padded crop, flip, normalize
(transforms v1 with Pillow; v2 with torchvision's decode_jpeg). `reference`: random resized crop, flip, jitter, the faster
of both ways. `memory`: all images in one uint8 tensor, crops by slicing, 2 threads. `raw`: a C loop over libjpeg-turbo
that reads and decodes the files on 2 threads. DIR has TinyImageNet's layout. Prints one line of JSON.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import torch
from torch.utils.data import DataLoader
from torchvision import transforms as v1
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def decoded(path):
    return decode_jpeg(read_file(path), mode=ImageReadMode.RGB)


def make_loader(args):
    crop_flip = [v2.RandomCrop(64, padding=4), v2.RandomHorizontalFlip()]
    reference = [v2.RandomResizedCrop(64, antialias=True), v2.RandomHorizontalFlip(), v2.ColorJitter(0.2, 0.2, 0.2, 0.1)]
    end = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    root = args.data_dir / "train"
    if args.what == "pillow":
        steps = [v1.RandomCrop(64, padding=4), v1.RandomHorizontalFlip(), v1.ToTensor(), v1.Normalize(MEAN, STD)]
        data = ImageFolder(root, v1.Compose(steps))
    else:
        steps = (crop_flip if args.what == "decode_jpeg" else reference) + end
        data = ImageFolder(root, v2.Compose(steps), loader=decoded)
    return DataLoader(data, batch_size=64, shuffle=True, num_workers=2, persistent_workers=True)


def loader_rate(args):
    loader = make_loader(args)
    rates = []
    for epoch in range(1 + args.epochs):
        start, rows = time.perf_counter(), 0
        for images, _ in loader:
            rows += len(images)
            if time.perf_counter() - start > (args.seconds if epoch > 0 else 2):
                break  # the first pass starts the workers and warms the page cache
        if epoch > 0:
            rates.append(rows / (time.perf_counter() - start))
    return statistics.median(rates)


def memory_rate(args):
    torch.set_num_threads(2)
    paths = sorted((args.data_dir / "train").glob("*/images/*.JPEG"))
    images = torch.stack([decoded(str(path)) for path in paths])
    mean, inverse = torch.tensor(MEAN).view(1, 3, 1, 1) * 255, 1 / (torch.tensor(STD).view(1, 3, 1, 1) * 255)

    def augment(batch):
        padded = torch.nn.functional.pad(batch, (4, 4, 4, 4))
        out = torch.empty(len(batch), 3, 64, 64)
        places, flips = torch.randint(0, 9, (len(batch), 2)).tolist(), (torch.rand(len(batch)) < 0.5).tolist()
        for k, (top, left) in enumerate(places):
            crop = padded[k, :, top : top + 64, left : left + 64]
            out[k] = crop.flip(2) if flips[k] else crop
        return out.sub_(mean).mul_(inverse)

    def epoch():
        start, order = time.perf_counter(), torch.randperm(len(images))
        for begin in range(0, len(images), 64):
            augment(images[order[begin : begin + 64]])
        return len(images) / (time.perf_counter() - start)

    epoch()
    return statistics.median(epoch() for _ in range(3))


def raw_rate(args):
    with tempfile.TemporaryDirectory() as folder:
        program, names = pathlib.Path(folder, "loop"), pathlib.Path(folder, "names")
        subprocess.run(["gcc", "-O2", "-o", program, args.jpegloop, "-ljpeg", "-lpthread"], check=True)
        paths = sorted((args.data_dir / "train").glob("*/images/*.JPEG"))
        names.write_text("".join(f"{path}\n" for path in paths))
        done = subprocess.run([program, "2", "file", names], capture_output=True, text=True, check=True)
        return statistics.median(float(word) for word in done.stdout.split())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=pathlib.Path, required=True)
    parser.add_argument("--what", choices=("pillow", "decode_jpeg", "reference", "memory", "raw"), required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--jpegloop", help="C source of the raw loop")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rate = dict(memory=memory_rate, raw=raw_rate).get(args.what, loader_rate)(args)
    print(json.dumps(dict(value=rate)))


if __name__ == "__main__":
    main()
