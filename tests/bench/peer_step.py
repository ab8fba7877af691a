"""Python eager peer of `mmtrain_bench step`: samples per second of a whole training step on random data in memory.

    python tests/bench/peer_step.py --model residual --width 0.5 --batch_size 64 --threads 2 --memory_format channels_last

The nets of the study are those of tests/python/tiny_models.py, those for sensors and emotion those of fusion_models.py
there, on the shapes that `mmtrain_bench` takes; with --nets FILE.py any `case(name) -> (module, inputs,
target, rows)` of another file. SGD with foreach, momentum 0.9, weight decay 1e-4, or AdamW. Prints one line of JSON.
"""

import argparse
import importlib.util
import json
import pathlib
import resource
import statistics
import sys
import time

import torch
from torch.nn import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))
import tiny_models  # noqa: E402


SIZES = ("width", "d_model", "num_heads", "num_layers", "d_ff")
SERIES, STFT = (500, 6), (6, 129, 5)
# Shapes of the inputs, classes, usual batch.
FUSION_SHAPES = {
    "cnn": ([STFT], 4, 32),
    "transformer": ([SERIES], 4, 32),
    "fusion": ([STFT, SERIES], 4, 32),
    "dual": ([SERIES], 4, 32),
    "emotion": ([(3, 224, 224), (64, 500)], 7, 16),
}


def make(args):
    if args.nets:
        spec = importlib.util.spec_from_file_location("nets", args.nets)
        nets = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(nets)
        module, inputs, target, _ = nets.case(args.model)
        return module, list(inputs), target
    if args.model in FUSION_SHAPES:
        import fusion_models

        shapes, classes, rows = FUSION_SHAPES[args.model]
        rows = args.batch_size or rows
        sizes = {name: value for name, value in vars(args).items() if name in SIZES and value}
        model = fusion_models.make(args.model, num_classes=classes, **sizes)
        return model, [torch.randn(rows, *shape) for shape in shapes], torch.randint(classes, (rows,))
    args.batch_size = args.batch_size or 64
    images = torch.randn(args.batch_size, 3, 64, 64)
    return tiny_models.make(args.model, 200, args.width, 64), [images], torch.randint(200, (args.batch_size,))


def make_optimizer(args, parameters):
    if args.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=1e-4, foreach=True)
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=1e-4, foreach=True)


def parser():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--model", required=True)
    flags.add_argument("--width", type=float, default=1.0)
    for size in SIZES[1:]:
        flags.add_argument(f"--{size}", type=int, default=0, help="0: the reference")
    flags.add_argument("--batch_size", type=int, default=0, help="0: the net's usual number")
    flags.add_argument("--threads", type=int, default=2)
    flags.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd")
    flags.add_argument("--memory_format", choices=("channels_last", "contiguous"), default="channels_last")
    flags.add_argument("--seconds", type=float, default=10)
    flags.add_argument("--nets", help="a Python file with case(name)")
    return flags


def main():
    args = parser().parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model, inputs, target = make(args)
    model.train()
    if args.memory_format == "channels_last":
        model = model.to(memory_format=torch.channels_last)
        inputs = [x.to(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs]
    optimizer = make_optimizer(args, list(model.parameters()))

    times = []
    begin = None
    while begin is None or len(times) < 3 or time.perf_counter() - begin < args.seconds:
        start = time.perf_counter()
        loss = F.cross_entropy(model(*inputs), target)
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        end = time.perf_counter()
        times.append((end - start, forward - start, backward - forward, end - backward))
        if begin is None and len(times) == 2:  # warm
            times, begin = [], time.perf_counter()
    whole, forward, backward, update = (statistics.median(column) for column in zip(*times))
    print(json.dumps(dict(value=len(target) / whole, forward_ms=1e3 * forward, backward_ms=1e3 * backward,
                          optimizer_ms=1e3 * update,
                          peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)))


if __name__ == "__main__":
    main()
