"""The first training losses of the emotion recognizer on clips, C++ against an independent Python run.

The C++ driver decodes the clips, trains, and leaves the decoded clips (its cache), what the net is given of them, the
first weights and the order of the batches behind. Python normalizes the same clips itself, which has to give the same
inputs, and trains the net of `fusion_models.py` on them with its own Adam in three groups of learning rates, weight decay
and clipping. Dropout and augmentation are off.

    python tests/python/emotion_losses.py --driver build/bin/emotion_losses
    python tests/python/emotion_losses.py --driver build/bin/emotion_losses --data_dir emotion-mini --steps 50 \\
        --image_size 112 --mel_frames 400 --d_model 256 --width 1 --batch 24

The first form, which ctest runs, takes generated clips and a small net. In double both agree to rounding. In float
training at the reference's learning rates is chaotic (the same run with the rows of each batch in another order ends some
0.1 away): only what rounds alike stays together. Here it does, operator for operator, with Python's fused optimizer and
with heads of more than 16 features (attention to smaller ones is by a kernel of our own).
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import parity
import torch
from torch.nn import functional as F

import fusion_models

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LR_VISUAL, LR_AUDIO, LR_FUSION, DECAY, CLIP = 3e-4, 3e-4, 3e-3, 1e-4, 1.0


def check_inputs(clips, given):
    """What the driver gave the net is what Python makes of the decoded clips."""
    frames = clips["frames"].to(torch.float32) / 255
    image = ((frames - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 1, 4, 2, 3)
    image = image[:, 0] if image.shape[1] == 1 else image
    mel = (clips["mel"].to(torch.float32) + 20) / 20
    torch.testing.assert_close(given["image"], image, rtol=0, atol=1e-5)
    torch.testing.assert_close(given["mel"], mel, rtol=0, atol=1e-6)


def make_optimizer(net, fused):
    groups = {"visual_encoder.": [], "audio_encoder.": [], "": []}
    for name, parameter in net.named_parameters():
        next(group for prefix, group in groups.items() if name.startswith(prefix)).append(parameter)
    rates = (LR_VISUAL, LR_AUDIO, LR_FUSION)
    return torch.optim.Adam(
        [dict(params=params, lr=lr) for params, lr in zip(groups.values(), rates)], weight_decay=DECAY, fused=fused
    )


def python_losses(given, weights, fusion, args, dtype):
    net = fusion_models.Emotion(d_model=args.d_model, fusion=fusion, width=args.width)
    net.load_state_dict(weights)
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, (torch.nn.GRU, torch.nn.MultiheadAttention)):
            module.dropout = 0.0
    net = net.to(dtype).train()
    optimizer = make_optimizer(net, fused=dtype == torch.float32)
    losses = []
    for rows, target in zip(given["ids"], given["targets"]):
        image, mel = given["image"][rows].to(dtype), given["mel"][rows].to(dtype)
        optimizer.zero_grad()
        loss = F.cross_entropy(net(image, mel), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        losses.append(loss.detach().double())
    return torch.stack(losses)


def compare(data, fusion, dtype, tolerance, args):
    with tempfile.TemporaryDirectory(prefix="mmtrain_emotion_") as folder:
        out = pathlib.Path(folder)
        settings = [args.steps, args.frames, args.image_size, args.mel_frames, args.d_model, args.width, fusion]
        settings += [args.batch, int(dtype == torch.float64)]
        subprocess.run([args.driver, data, out, *map(str, settings)], check=True, stdout=subprocess.DEVNULL)
        result = parity.load_file(out / "result.safetensors")
        weights = parity.load_file(out / "weights.safetensors")
        clips = parity.load_file(next((out / "cache").rglob("*.safetensors")))
        check_inputs(clips, result)
        losses = python_losses(result, weights, fusion, args, dtype)
        error = (result["losses"] - losses).abs().max().item()
    bad = not error <= tolerance
    kind, curve = str(dtype).removeprefix("torch."), f"loss {losses[0]:.4f} -> {losses[-5:].mean():.4f}"
    print(f"{'FAILED' if bad else 'ok':6} {fusion:12} {kind:8} {error:.1e}  {curve}", flush=True)
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", type=pathlib.Path, required=True)
    parser.add_argument("--data_dir", type=pathlib.Path, help="a data set in MELD's layout; without it one is made")
    parser.add_argument("--fusion", nargs="+", default=["attention", "concat", "transformer"])
    for flag, default in (("steps", 50), ("frames", 1), ("image_size", 32), ("mel_frames", 120), ("d_model", 256)):
        parser.add_argument(f"--{flag}", type=int, default=default)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--width", type=float, default=0.25)
    args = parser.parse_args()
    torch.set_num_threads(1)
    failed = False
    with tempfile.TemporaryDirectory(prefix="mmtrain_emotion_data_") as folder:
        data = args.data_dir or pathlib.Path(folder) / "made"
        for fusion in args.fusion:
            failed |= compare(data, fusion, torch.float64, 1e-10, args)
            failed |= compare(data, fusion, torch.float32, 1e-3, args)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
