"""The first 50 training losses of the five nets in C++ against an independent Python run, with Adam and with SGD.

Same weights, same batches, dropout off, the study's learning rate for Adam. In float, Python takes its fused optimizers:
then the losses of both sides agree to the last bit here. A training run is chaotic: with Python's default optimizers,
which round otherwise, Python differs from itself by 1e-2 after 50 steps for some nets. So these are compared in double,
where rounding stays far below any mistake.
"""

import sys

import parity
import tiny_models
import torch
from torch.nn import functional as F

STEPS, NUM_CLASSES, WIDTH = 50, 10, 0.25
ADAM = dict(optimizer="adam", weight_decay=1e-6, lr=3e-4)
SGD = dict(optimizer="sgd", weight_decay=1e-4, lr=1e-2, momentum=0.9)
RUNS = {
    "double-adam": (torch.float64, 32, 4, dict(ADAM, fused=False, tolerance=1e-8)),
    "double-sgd": (torch.float64, 32, 4, dict(SGD, fused=False, tolerance=1e-8)),
    "float-adam": (torch.float32, 64, 16, dict(ADAM, fused=True, tolerance=1e-3)),
    "float-sgd": (torch.float32, 64, 16, dict(SGD, fused=True, tolerance=1e-3)),
}


def make_batches(dtype, size, rows):
    """Images that can be learned: each class has a smooth pattern, seen through noise."""
    patterns = F.interpolate(torch.randn(NUM_CLASSES, 3, 4, 4), size=(size, size), mode="bicubic")
    target = torch.randint(NUM_CLASSES, (STEPS, rows))
    return {"image": (patterns[target] + torch.randn(STEPS, rows, 3, size, size)).to(dtype), "target": target}


def make_optimizer(model, settings):
    options = {key: settings[key] for key in ("lr", "weight_decay", "fused")}
    if settings["optimizer"] == "adam":
        return torch.optim.Adam(model.parameters(), **options)
    return torch.optim.SGD(model.parameters(), momentum=settings["momentum"], **options)


def python_losses(model, batches, settings):
    model.train()
    tiny_models.set_dropout(model, 0.0)
    optimizer = make_optimizer(model, settings)
    losses = []
    for image, target in zip(batches["image"], batches["target"]):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(image), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def main():
    driver = parity.parse_driver(__doc__)
    torch.manual_seed(1)
    cases = {}
    for run, (dtype, size, rows, options) in RUNS.items():
        for name in tiny_models.MODELS:
            model = tiny_models.make(name, NUM_CLASSES, WIDTH, size).to(dtype)
            settings = dict(model=name, width=WIDTH, num_classes=NUM_CLASSES, **options)
            cases[f"{name}-{run}"] = (model, make_batches(dtype, size, rows), settings)

    failed = False
    for case, losses, files in parity.run_both(driver, cases, python_losses):
        error = ((files["result"]["losses"] - losses).abs() / losses.abs().clamp_min(1e-9)).max().item()
        bad = not error <= cases[case][2]["tolerance"]
        failed |= bad
        print(f"{'FAILED' if bad else 'ok':6} {case:26} {error:.1e}  loss {losses[0]:.4f} -> {losses[-5:].mean():.4f}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
