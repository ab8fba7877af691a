"""The Python side of the benchmarks on sensor recordings: the same recipe with numpy, scipy and PyTorch.

    python tests/bench/peer_behavior.py prepare FOLDER
    python tests/bench/peer_behavior.py train FOLDER --run RUN [--models cnn transformer fusion]

`prepare` reads text recordings, filters them, cuts windows and computes their spectra; it prints windows a second.
`train` takes CSV recordings, and from the run directory of run_behavior_classification what that was trained with: the
split, sizes, epochs, learning rate. It prints the test accuracy of each net at its best validation epoch, and the samples
a second of training.
"""

import argparse
import json
import math
import pathlib
import sys
import time
import warnings

import numpy as np
import scipy.signal as signal

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))


def spectra_of(windows, segment):
    """Log magnitudes `[N, channels, bins, frames]` of windows `[N, rows, channels]`."""
    _, _, z = signal.stft(windows.transpose(0, 2, 1), nperseg=segment, noverlap=segment // 2)
    return np.log(np.abs(z) + 1e-6)


def read_text(path):
    """The rows of six numbers; broken lines are left out."""
    try:
        return np.loadtxt(path, skiprows=1, encoding="utf-8")
    except ValueError:
        rows = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]]
        return np.array([row for row in rows if len(row) == 6], float)


def clean(values, rate):
    drift = signal.butter(2, 0.1, "highpass", fs=rate, output="sos")
    still = signal.butter(2, 0.3, "highpass", fs=rate, output="sos")
    band = signal.butter(3, [0.5, 15], "bandpass", fs=rate, output="sos")
    light = signal.sosfiltfilt(drift, values[:, :3], axis=0)
    return np.concatenate([light, signal.sosfiltfilt(band, signal.sosfiltfilt(still, values[:, 3:], axis=0), axis=0)], 1)


def prepare(folder):
    rate, seconds, rows = 100, 60, 500
    start = time.perf_counter()
    recordings = []
    for path in sorted(folder.glob("*_data/*.txt")):
        values = read_text(path)
        count = rate * seconds
        at = np.arange(count) * len(values) / (rate * seconds)
        values = np.stack([np.interp(at, np.arange(len(values)), channel) for channel in values.T], 1)
        recordings.append(clean(values, rate))
    windows = np.concatenate([np.stack([r[k : k + rows] for k in range(0, len(r) - rows + 1, rows // 2)]) for r in recordings])
    scaled = (windows - windows.mean((0, 1))) / windows.std((0, 1))
    spectra = spectra_of(scaled, 256)
    deviation = spectra.std((0, 3))
    elapsed = time.perf_counter() - start
    print(json.dumps({"name": "prepare_python", "value": len(windows) / elapsed, "unit": "windows/s", "check": float(deviation.mean())}))


def read_csv(folder, config):
    """Windows `[N, rows, channels]`, labels and people, as run_behavior_classification cuts them."""
    rows = round(config["window_seconds"] * (config["fs"] or 100))
    stride = max(1, round(rows * (1 - config["overlap"])))
    windows, labels, people = [], [], []
    for path in sorted(folder.glob("*_data/*.csv")):
        values = np.loadtxt(path, delimiter=",", skiprows=1)
        for k in range(0, len(values) - rows + 1, stride):
            windows.append(values[k : k + rows])
            labels.append(path.stem.rsplit("_", 1)[0])
            people.append(path.parent.name.removesuffix("_data"))
    names = sorted(set(labels))
    return np.stack(windows), np.array([names.index(label) for label in labels]), np.array(people), names


class Augmented:
    """The training windows, changed anew for each batch."""

    def __init__(self, windows, rng):
        self.windows, self.rng = windows, rng

    def batch(self, index):
        x = self.windows[index].copy()
        n, rows, channels = x.shape
        for k in range(n):
            x[k] = np.roll(x[k], self.rng.integers(-rows // 20, rows // 20 + 1), 0)
        x *= 1 + 0.05 * self.rng.standard_normal((n, 1, channels))
        x += 0.01 * self.rng.standard_normal(x.shape)
        for k in range(n):
            width = int(self.rng.random() * 0.05 * rows)
            first = int(self.rng.random() * (rows - width))
            x[k, first : first + width] = 0
        return x


def train(args):
    import torch
    import torch.nn.functional as F

    import fusion_models

    torch.set_num_threads(args.threads)
    summary = json.loads((args.run / "experiment_summary.json").read_text())
    config = summary["config"]
    windows, labels, people, names = read_csv(args.folder, config)
    part = {name: np.isin(people, list(summary["split"][name]["windows_of_person"])) for name in ("train", "val", "test")}
    for name, mask in part.items():
        assert mask.sum() == summary["split"][name]["windows"], f"{name}: {mask.sum()} windows, another split"
    scaled = (windows - windows[part["train"]].mean((0, 1))) / windows[part["train"]].std((0, 1))
    rows = scaled.shape[1]
    segment = 256
    while segment > 8 and 2 * segment > rows + segment / 4:
        segment //= 2
    spectra = spectra_of(scaled, segment)
    mean = spectra[part["train"]].mean((0, 3))[None, :, :, None]
    deviation = spectra[part["train"]].std((0, 3))[None, :, :, None]
    counts = np.bincount(labels[part["train"]], minlength=len(names))
    weights = torch.tensor(counts.sum() / (len(names) * np.maximum(counts, 1)), dtype=torch.float32)

    def tensors(x):
        return torch.tensor(x, dtype=torch.float32), torch.tensor((spectra_of(x, segment) - mean) / deviation, dtype=torch.float32)

    def loss_of(logits, target):
        log_p = F.log_softmax(logits, 1).gather(1, target[:, None]).squeeze(1)
        w = weights[target]
        return (w * (-log_p) * ((1 - log_p.exp()) ** config["focal_gamma"] + 1)).sum() / w.sum()

    sizes = {"channels": scaled.shape[2], "num_classes": len(names), "width": config["cnn_width"]}
    sizes |= {key: config[key] for key in ("d_model", "num_heads", "num_layers", "d_ff") if config[key]}
    for name in args.models:
        torch.manual_seed(args.seed)
        rng = np.random.default_rng(args.seed)
        net = fusion_models.MODELS[name](**sizes)
        batch, epochs = config["batch_size"], config["epochs"]
        steps = epochs * math.ceil(part["train"].sum() / batch)
        optimizer = torch.optim.AdamW(net.parameters(), lr=config["lr"], weight_decay=config["weight_decay"])
        warmup = max(1, round(0.1 * steps))
        schedule = torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=warmup),
                torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - warmup)),
            ],
            [warmup],
        )
        inputs = {"cnn": lambda s, f: (f,), "transformer": lambda s, f: (s,), "dual": lambda s, f: (s,)}.get(name, lambda s, f: (f, s))
        source = Augmented(scaled[part["train"]], rng)
        target = torch.tensor(labels[part["train"]])

        def accuracy(which):
            net.eval()
            right = 0
            index = np.flatnonzero(part[which])
            with torch.no_grad():
                for chosen in np.array_split(index, max(1, len(index) // 64)):
                    right += (net(*inputs(*tensors(scaled[chosen]))).argmax(1).numpy() == labels[chosen]).sum()
            return right / len(index)

        best, best_state, since, seconds, seen = -1.0, None, 0, 0.0, 0
        for epoch in range(epochs):
            net.train()
            losses = 0.0
            order = rng.permutation(len(target))
            start = time.perf_counter()
            for first in range(0, len(order), batch):
                index = order[first : first + batch]
                loss = loss_of(net(*inputs(*tensors(source.batch(index)))), target[index])
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), config["grad_clip"])
                optimizer.step()
                losses += loss.item() * len(index)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    schedule.step()
            seconds += time.perf_counter() - start
            seen += len(order)
            now = accuracy("val")
            print(f"{name} epoch {epoch + 1}: train loss {losses / len(order):.4f}, val acc {now:.4f}", file=sys.stderr)
            since += 1
            if now > best:
                best, since = now, 0
                best_state = {key: value.clone() for key, value in net.state_dict().items()}
            if config["early_stopping_patience"] and since >= config["early_stopping_patience"]:
                break
        net.load_state_dict(best_state)
        result = {"name": f"train_python_{name}", "value": accuracy("test"), "unit": "accuracy"}
        print(json.dumps(result | {"best_val_acc": best, "samples_per_second": seen / seconds}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prepare", "train"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--run", type=pathlib.Path)
    parser.add_argument("--models", nargs="+", default=["cnn", "transformer", "fusion"])
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    prepare(args.folder) if args.what == "prepare" else train(args)


if __name__ == "__main__":
    main()
