"""Python PyTorch peer of `train`: the net of tests/python/fusion_models.py on the clips that `train` decoded.

    python tests/bench/peer_emotion.py --data_dir DIR --cache DIR/.mmtrain_cache --epochs 30

Takes the flags of `train` that it knows and reads the decode-once caches of a run of `train` on the same data (with the
same --frames, --image_size and --mel_frames), so that both see the same pixels. The last line of stdout is
`result {json}`, and test_results.json lies in the run directory, as of `train`.
"""

import argparse
import csv
import json
import math
import pathlib
import sys
import time

import torch
from safetensors import safe_open
from torch.nn import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))
import fusion_models  # noqa: E402

EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
MEAN, STD = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))


def load_split(args, split):
    """(frames, mel, labels) of the clips that can be used."""
    with open(next(args.data_dir.rglob(f"{split}_sent_emo.csv")), encoding="utf-8", newline="") as file:
        labels = torch.tensor([EMOTIONS.index(row["Emotion"]) for row in csv.DictReader(file)])
    cache = args.cache or args.data_dir / ".mmtrain_cache"
    name = f"{split}-{args.frames}x{args.image_size}-{args.mel_frames}*.safetensors"
    with safe_open(next(cache.rglob(name)), framework="pt") as file:
        good = (file.get_tensor("status") == 0) & (file.get_tensor("mel_length") > 0)
        return file.get_tensor("frames")[good], file.get_tensor("mel")[good], labels[good]


def augmented(frames, mel):
    """What `train --augment standard` does, but for the colors: crop, flip, loudness, shift and gaps."""
    rows, size = frames.shape[0], frames.shape[-1]
    images = []
    for clip in frames:
        area = torch.empty(1).uniform_(0.7, 1.0).item()
        ratio = math.exp(torch.empty(1).uniform_(math.log(3 / 4), math.log(4 / 3)).item())
        height, width = (min(size, round(size * math.sqrt(area * r))) for r in (1 / ratio, ratio))
        top, left = (torch.randint(0, size - n + 1, ()).item() for n in (height, width))
        part = clip[..., top : top + height, left : left + width]
        part = F.interpolate(part, (size, size), mode="bilinear", antialias=True)
        images.append(part.flip(-1) if torch.rand(()) < 0.5 else part)
    mels = []
    length, silence = mel.shape[-1], -3.0
    for one in mel:
        shift = torch.randint(-(length // 16), length // 16 + 1, ()).item()
        one = torch.where(one > silence, one + 2 / 20 * torch.randn(()), one).clamp_min(silence).roll(shift, -1)
        gap = torch.randint(0, length // 20 + 1, ()).item()
        begin = torch.randint(0, length - gap + 1, ()).item()
        one[:, begin : begin + gap] = silence
        gap = torch.randint(0, 7, ()).item()
        begin = torch.randint(0, one.shape[0] - gap + 1, ()).item()
        one[begin : begin + gap] = silence
        mels.append(one)
    return torch.stack(images), torch.stack(mels)


def batch_of(data, rows, augment):
    frames, mel, labels = (part[rows] for part in data)
    frames = ((frames.float() / 255 - MEAN) / STD).permute(0, 1, 4, 2, 3)
    mel = (mel.float() + 20) / 20
    if augment:
        frames, mel = augmented(frames, mel)
    return (frames[:, 0] if frames.shape[1] == 1 else frames).contiguous(), mel, labels


@torch.no_grad()
def confusion_of(net, data, args):
    net.eval()
    confusion = torch.zeros(len(EMOTIONS), len(EMOTIONS), dtype=torch.int64)
    for rows in torch.arange(len(data[2])).split(args.batch_size):
        image, mel, labels = batch_of(data, rows, augment=False)
        for truth, answer in zip(labels.tolist(), net(image, mel).argmax(1).tolist()):
            confusion[truth, answer] += 1
    return confusion


def weighted_f1(confusion):
    hits, support, said = confusion.diag().double(), confusion.sum(1).double(), confusion.sum(0).double()
    return (support * 2 * hits / (support + said).clamp_min(1)).sum().item() / support.sum().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=pathlib.Path, required=True)
    parser.add_argument("--cache", type=pathlib.Path)
    parser.add_argument("--save_dir", type=pathlib.Path, default=pathlib.Path("runs"))
    parser.add_argument("--log_dir", help="not used")
    parser.add_argument("--fusion_type", default="attention")
    parser.add_argument("--modality", default="both")
    parser.add_argument("--augment", default="standard", choices=("standard", "none"))
    for flag, default in (("epochs", 100), ("batch_size", 16), ("frames", 1), ("image_size", 224), ("mel_frames", 500)):
        parser.add_argument(f"--{flag}", type=int, default=default)
    for flag, default in (("d_model", 256), ("n_heads", 8), ("seed", 42)):
        parser.add_argument(f"--{flag}", type=int, default=default)
    for flag, default in (("lr_visual", 3e-4), ("lr_audio", 3e-4), ("lr_fusion", 3e-3), ("weight_decay", 1e-4)):
        parser.add_argument(f"--{flag}", type=float, default=default)
    parser.add_argument("--width", type=float, default=1.0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    train, dev, test = (load_split(args, split) for split in ("train", "dev", "test"))
    net = fusion_models.Emotion(len(EMOTIONS), args.d_model, args.n_heads, args.fusion_type, args.modality, args.width)
    net = net.to(memory_format=torch.channels_last) if args.frames == 1 else net
    groups = {"visual_encoder.": [], "audio_encoder.": [], "": []}
    for name, parameter in net.named_parameters():
        next(group for prefix, group in groups.items() if name.startswith(prefix)).append(parameter)
    rates = (args.lr_visual, args.lr_audio, args.lr_fusion)
    optimizer = torch.optim.Adam(
        [dict(params=p, lr=lr) for p, lr in zip(groups.values(), rates) if p], weight_decay=args.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
    best, best_state, seconds = -1.0, None, []
    for epoch in range(args.epochs):
        start = time.monotonic()
        net.train()
        for rows in torch.randperm(len(train[2])).split(args.batch_size):
            image, mel, labels = batch_of(train, rows, args.augment == "standard")
            optimizer.zero_grad()
            F.cross_entropy(net(image, mel), labels).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        confusion = confusion_of(net, dev, args)
        accuracy = confusion.diag().sum().item() / confusion.sum().item()
        if accuracy > best:
            best, best_state = accuracy, {k: v.clone() for k, v in net.state_dict().items()}
        seconds.append(time.monotonic() - start)
        print(f"Epoch {epoch + 1:3}/{args.epochs}: Test Acc: {100 * accuracy:.2f}%, Time: {seconds[-1]:.2f}s", flush=True)
    net.load_state_dict(best_state)
    confusion = confusion_of(net, test, args)
    args.save_dir.mkdir(parents=True, exist_ok=True)
    (args.save_dir / "test_results.json").write_text(json.dumps(dict(confusion_matrix=confusion.tolist())))
    accuracy = confusion.diag().sum().item() / confusion.sum().item()
    result = dict(run_dir=str(args.save_dir), epochs=args.epochs, best_val_acc=best, test_acc=accuracy)
    result.update(test_f1_weighted=weighted_f1(confusion), epoch_seconds=sorted(seconds)[len(seconds) // 2])
    print("result " + json.dumps(result))


if __name__ == "__main__":
    main()
