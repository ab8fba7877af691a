"""Optimizers, schedules, clipping and moving averages in C++ against torch.optim on the same numbers.

Every optimizer: 50 steps of two groups with weight decay and a cosine schedule, some parameters without gradient at
times; the C++ side saves everything in the middle and goes on in new objects; state passes by name from Python to C++
and back. `--bench` compares the time of optimizer steps instead, in turns.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

import parity  # first: it skips the test where packages are missing
import torch
from safetensors.torch import load_file, save_file
from torch import nn

warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")  # before optimizer.step(): only learning rates count

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
LR_TOLERANCE = 1e-9
THREADS = 2  # of the benchmark
STEPS, LR_STEPS = 50, 200
SHAPES = {"encoder.0.weight": (67,), "encoder.1.weight": (8, 5, 3, 3), "encoder.1.bias": (8,), "head.weight": (7, 13),
          "head.scale": (), "head.frozen": (4,)}  # fmt: skip

SGD = dict(optimizer="SGD", lr=0.1, weight_decay=0.01, momentum=0.0, dampening=0.0, nesterov=0)
ADAM = dict(optimizer="Adam", lr=0.01, weight_decay=0.01, amsgrad=0)
RMSPROP = dict(optimizer="RMSprop", lr=0.01, weight_decay=0.01, momentum=0.0, centered=0)
OPTIMIZERS = {
    "sgd": SGD,
    "sgd-momentum": SGD | dict(momentum=0.9),
    "sgd-dampening": SGD | dict(momentum=0.9, dampening=0.3),
    "sgd-nesterov": SGD | dict(momentum=0.9, nesterov=1),
    "adam": ADAM,
    "adam-amsgrad": ADAM | dict(amsgrad=1),
    "adamw": ADAM | dict(optimizer="AdamW", weight_decay=0.1),
    "adamw-amsgrad": ADAM | dict(optimizer="AdamW", amsgrad=1),
    "rmsprop": RMSPROP,
    "rmsprop-momentum": RMSPROP | dict(momentum=0.5),
    "rmsprop-centered": RMSPROP | dict(momentum=0.5, centered=1),
}


def run_driver(driver, cases):
    """The files that the driver leaves for `{name: (weights, inputs, settings, state)}`, as {name: {stem: tensors}}."""
    with tempfile.TemporaryDirectory(prefix="mmtrain_parity_") as root:
        folders = {name: pathlib.Path(root) / str(i) for i, name in enumerate(cases)}
        for name, (weights, inputs, settings, state) in cases.items():
            folders[name].mkdir()
            save_file(inputs, folders[name] / "inputs.safetensors", {key: str(value) for key, value in settings.items()})
            save_file(detached(weights), folders[name] / "weights.safetensors")
            save_file(state, folders[name] / "state.safetensors")
        subprocess.run([driver, *folders.values()], check=True)
        return {
            name: {path.stem: load_file(path) for path in folder.glob("*.safetensors")}
            for name, folder in folders.items()
        }


def detached(tensors):
    return {name: tensor.detach() for name, tensor in tensors.items()}


# ---- optimizers


def make_inputs(dtype):
    """Gradients of all steps, and which of them are there: one comes late, one never."""
    inputs = {}
    for name, shape in SHAPES.items():
        inputs[f"grad.{name}"] = torch.randn(STEPS, *shape, dtype=dtype)
        present = torch.ones(STEPS, dtype=torch.bool)
        if name == "encoder.1.bias":
            present[:10] = False
        if name == "head.weight":
            present[30:33] = False
        if name == "head.frozen":
            present[:] = False
        inputs[f"present.{name}"] = present
    return inputs


def make_optimizer(weights, settings):
    options = {
        key: bool(value) if key in ("nesterov", "amsgrad", "centered") else value
        for key, value in settings.items()
        if key in ("lr", "weight_decay", "momentum", "dampening", "nesterov", "amsgrad", "centered")
    }
    encoder = dict(lr=settings["encoder_lr"], weight_decay=settings["encoder_weight_decay"])
    groups = [
        dict(params=[w for name, w in weights.items() if name.startswith("encoder.")], **encoder),
        dict(params=[w for name, w in weights.items() if not name.startswith("encoder.")]),
    ]
    return getattr(torch.optim, settings["optimizer"])(groups, **options)


def state_by_name(optimizer, weights):
    return {
        f"{name}/{field}": value.clone()
        for name, weight in weights.items()
        for field, value in optimizer.state.get(weight, {}).items()
        if torch.is_tensor(value)
    }


def load_state(optimizer, weights, state):
    for name, weight in weights.items():
        fields = {key.split("/")[1]: value for key, value in state.items() if key.split("/")[0] == name}
        if fields:
            optimizer.state[weight] = fields


def leaves(weights):
    return {name: w.detach().clone().requires_grad_() for name, w in weights.items()}


def python_run(weights, inputs, settings, start=0, state=None):
    """(weights at the end, weights in the middle, state in the middle)"""
    weights = leaves(weights)
    optimizer = make_optimizer(weights, settings)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS, 1e-3)
    if state:
        load_state(optimizer, weights, state)
    for _ in range(start):
        scheduler.step()
    middle = None
    for step in range(start, STEPS):
        if step == STEPS // 2:
            middle = leaves(weights), state_by_name(optimizer, weights)
        for name, weight in weights.items():
            weight.grad = inputs[f"grad.{name}"][step].clone() if inputs[f"present.{name}"][step] else None
        optimizer.step()
        scheduler.step()
    return weights, *middle


def check_optimizers(driver, report):
    torch.manual_seed(5)
    runs, cases = {}, {}
    for dtype in TOLERANCE:
        for name, settings in OPTIMIZERS.items():
            settings = settings | dict(
                kind="optimizer", steps=STEPS, encoder_lr=settings["lr"] / 5, encoder_weight_decay=0.05
            )
            weights = {key: torch.randn(shape, dtype=dtype) for key, shape in SHAPES.items()}
            inputs = make_inputs(dtype)
            case = f"{name}-{str(dtype)[6:]}"
            runs[case] = (dtype, weights, inputs, settings, python_run(weights, inputs, settings))
            cases[case] = (weights, inputs, settings | dict(start=0), {})
            _, middle, state = runs[case][-1]
            cases[case + " from Python"] = (middle, inputs, settings | dict(start=STEPS // 2), state)
    answers = run_driver(driver, cases)

    for case, (dtype, _, inputs, settings, (end, _, state)) in runs.items():
        answer, end = answers[case], detached(end)
        report(case, parity.worst_error(end, answer["result"]), TOLERANCE[dtype])
        ours = answer.get("middle_state", {})
        if state or ours:
            report(case + " state", parity.worst_error(state, ours), TOLERANCE[dtype])
        report(case + " from Python", parity.worst_error(end, answers[case + " from Python"]["result"]), TOLERANCE[dtype])
        back = python_run(answer["middle_weights"], inputs, settings, STEPS // 2, ours)[0]
        report(case + " to Python", parity.worst_error(end, detached(back)), TOLERANCE[dtype])


# ---- schedules

BASES = dict(lr_a=0.7, lr_b=0.02)
SCHEDULES = {
    "step": dict(schedule="step", step_size=30, gamma=0.3),
    "multistep": dict(schedule="multistep", gamma=0.5),
    "exponential": dict(schedule="exponential", gamma=0.98),
    "cosine": dict(schedule="cosine", t_max=200, eta_min=0.001),
    "cosine there and back": dict(schedule="cosine", t_max=60, eta_min=0.0),
    "restarts": dict(schedule="restarts", t_0=30, t_mult=1, eta_min=0.0),
    "restarts, longer each": dict(schedule="restarts", t_0=10, t_mult=2, eta_min=0.001),
    "linear": dict(schedule="linear", total=50, start_factor=0.1, end_factor=1.0),
    "linear down": dict(schedule="linear", total=150, start_factor=1.0, end_factor=0.05),
    "polynomial": dict(schedule="polynomial", total=120, power=0.9),
    "one cycle": dict(schedule="one_cycle", total=200, pct_start=0.3, anneal="cos", three_phase=0),
    "one cycle, lines": dict(schedule="one_cycle", total=200, pct_start=0.25, anneal="linear", three_phase=0),
    "one cycle, three phases": dict(schedule="one_cycle", total=200, pct_start=0.4, anneal="cos", three_phase=1),
    "warm-up and cosine": dict(schedule="warmup_cosine", warmup=20, t_max=180),
    "sequence": dict(schedule="sequence"),
    "plateau": dict(schedule="plateau", mode="min", factor=0.5, patience=3, threshold=1e-4, threshold_mode="rel",
                    cooldown=0, min_lr=0.0),
    "plateau, max": dict(schedule="plateau", mode="max", factor=0.7, patience=2, threshold=0.02, threshold_mode="abs",
                         cooldown=4, min_lr=1e-3),
}  # fmt: skip


def make_scheduler(optimizer, settings):
    schedulers = torch.optim.lr_scheduler
    get = settings.__getitem__
    match settings["schedule"]:
        case "step":
            return schedulers.StepLR(optimizer, get("step_size"), get("gamma"))
        case "multistep":
            return schedulers.MultiStepLR(optimizer, [70, 20, 150, 150], get("gamma"))
        case "exponential":
            return schedulers.ExponentialLR(optimizer, get("gamma"))
        case "cosine":
            return schedulers.CosineAnnealingLR(optimizer, get("t_max"), get("eta_min"))
        case "restarts":
            return schedulers.CosineAnnealingWarmRestarts(optimizer, get("t_0"), get("t_mult"), get("eta_min"))
        case "linear":
            return schedulers.LinearLR(optimizer, get("start_factor"), get("end_factor"), get("total"))
        case "polynomial":
            return schedulers.PolynomialLR(optimizer, get("total"), get("power"))
        case "one_cycle":
            return schedulers.OneCycleLR(
                optimizer,
                list(BASES.values()),
                get("total"),
                pct_start=get("pct_start"),
                anneal_strategy=get("anneal"),
                three_phase=bool(get("three_phase")),
            )
        case "warmup_cosine":
            warmup = schedulers.LinearLR(optimizer, 0.01, 1.0, get("warmup"))
            cosine = schedulers.CosineAnnealingLR(optimizer, get("t_max"))
            return schedulers.SequentialLR(optimizer, [warmup, cosine], [get("warmup")])
        case "sequence":
            parts = [
                schedulers.LinearLR(optimizer, 0.1, 1.0, 10),
                schedulers.CosineAnnealingWarmRestarts(optimizer, 15, 2, 1e-3),
                schedulers.ExponentialLR(optimizer, 0.97),
                schedulers.PolynomialLR(optimizer, 40, 2.0),
            ]
            return schedulers.SequentialLR(optimizer, parts, [10, 60, 120])
        case "plateau":
            names = ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr")
            return schedulers.ReduceLROnPlateau(optimizer, **{name: get(name) for name in names})


def python_schedule(settings, metrics):
    groups = [dict(params=[nn.Parameter(torch.zeros(1))], lr=lr) for lr in BASES.values()]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.5)
    scheduler = make_scheduler(optimizer, settings)
    lrs, momenta = [], []
    for step, metric in enumerate(metrics.tolist()):
        lrs.append([group["lr"] for group in optimizer.param_groups])
        momenta.append(optimizer.param_groups[0]["momentum"])
        if settings["schedule"] == "plateau":
            scheduler.step(metric)
        elif step + 1 < len(metrics):
            scheduler.step()
    return torch.tensor(lrs, dtype=torch.float64), torch.tensor(momenta, dtype=torch.float64)


def check_schedules(driver, report):
    torch.manual_seed(6)
    steps = torch.arange(LR_STEPS, dtype=torch.float64)
    falling = 1 / (1 + steps / 20) + 0.1 * torch.rand(LR_STEPS, dtype=torch.float64)
    cases = {}
    for name, settings in SCHEDULES.items():
        metrics = -falling if settings.get("mode") == "max" else falling
        cases[name] = ({}, {"metrics": metrics}, dict(kind="schedule", **BASES, **settings), {})
    answers = run_driver(driver, cases)
    for name, (_, inputs, settings, _) in cases.items():
        lrs, momenta = python_schedule(settings, inputs["metrics"])
        result = answers[name]["result"]
        assert lrs.unique().numel() > 2 and lrs.shape == (LR_STEPS, 2)
        report(name, ((result["lrs"] - lrs).abs().max().item(), "lr"), LR_TOLERANCE)
        report(name, ((result["momenta"] - momenta).abs().max().item(), "momentum"), LR_TOLERANCE)


# ---- clipping


def check_clipping(driver, report):
    torch.manual_seed(7)
    weights = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    weights["double"] = torch.randn(9, dtype=torch.float64)
    grads = {f"grad.{name}": torch.randn_like(w) * 3 for name, w in weights.items()}
    cases = {}
    for order in ("1", "2", "inf", "3.5"):
        for limit in (0.5, 1e4):
            cases[f"norm {order}, limit {limit}"] = dict(kind="clip", by="norm", norm_type=order, limit=limit)
    cases["value"] = dict(kind="clip", by="value", limit=1.5)
    answers = run_driver(driver, {name: (weights, grads, settings, {}) for name, settings in cases.items()})
    for name, settings in cases.items():
        mine = leaves(weights)
        for key, weight in mine.items():
            weight.grad = grads[f"grad.{key}"].clone()
        expected = {}
        if settings["by"] == "value":
            nn.utils.clip_grad_value_(mine.values(), settings["limit"])
        else:
            norm = nn.utils.clip_grad_norm_(mine.values(), settings["limit"], float(settings["norm_type"]))
            expected["norm"] = norm.reshape(1)
        expected |= {key: weight.grad for key, weight in mine.items()}
        report("clip " + name, parity.worst_error(expected, answers[name]["result"]), 1e-6)


# ---- moving average


def timm_decay(step, decay, min_decay, update_after_step, warmup, warmup_gamma, warmup_power):
    """ModelEmaV3.get_decay of timm 1.0."""
    step = max(0, step - update_after_step - 1)
    if step <= 0:
        return 0.0
    if warmup:
        return max(min(1 - (1 + step / warmup_gamma) ** -warmup_power, decay), min_decay)
    return decay


EMAS = {
    "constant": dict(decay=0.9, min_decay=0.0, update_after_step=0, warmup=0, warmup_gamma=1.0, warmup_power=2 / 3),
    "late": dict(decay=0.99, min_decay=0.0, update_after_step=12, warmup=0, warmup_gamma=1.0, warmup_power=2 / 3),
    "warm-up": dict(decay=0.9, min_decay=0.5, update_after_step=3, warmup=1, warmup_gamma=2.0, warmup_power=0.75),
}


def check_ema(driver, report):
    torch.manual_seed(8)
    steps = 60
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    parameters = dict(net.named_parameters())
    weights = {name: t.detach().clone() for name, t in net.state_dict().items()}
    inputs = {
        f"step.{name}": torch.randn(steps, *t.shape) if t.is_floating_point() else torch.arange(steps)
        for name, t in weights.items()
    }
    cases = {
        name: (weights, inputs, dict(kind="ema", steps=steps, **settings), {})
        for name, settings in EMAS.items()
    }
    answers = run_driver(driver, cases)
    for name, settings in EMAS.items():
        average = {key: t.clone() for key, t in weights.items()}
        decays = [timm_decay(step + 1, **settings) for step in range(steps)]
        for step, decay in enumerate(decays):
            for key, value in average.items():
                now = inputs[f"step.{key}"][step]
                value.lerp_(now, 1 - decay) if key in parameters else value.copy_(now)
        average["decays"] = torch.tensor(decays, dtype=torch.float64)
        report("ema " + name, parity.worst_error(average, answers[name]["result"]), 1e-6)


# ---- time


def bench_weights():
    """Parameter sets of the nets in the project's step benchmark."""
    layer = nn.TransformerEncoderLayer(128, 8, 256, batch_first=True, norm_first=True)
    transformer = nn.ModuleDict(
        dict(
            inp=nn.Linear(9, 128),
            enc=nn.TransformerEncoder(layer, 4, enable_nested_tensor=False),
            norm=nn.LayerNorm(128),
            head=nn.Linear(128, 6),
        )
    )
    transformer.register_parameter("pos", nn.Parameter(torch.randn(1, 128, 128)))
    nets = {"transformer128": transformer}
    try:
        import torchvision

        nets["resnet18"] = torchvision.models.resnet18(num_classes=200)
        nets["resnet18"].conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    except ImportError:
        pass
    return {name: {key: p.detach().clone() for key, p in net.named_parameters()} for name, net in nets.items()}


def python_steps(weights, settings, **kind):
    weights = leaves(weights)
    optimizer = getattr(torch.optim, settings["optimizer"])(
        weights.values(), lr=settings["lr"], weight_decay=settings["weight_decay"], **kind
    )
    for weight in weights.values():
        weight.grad = torch.randn_like(weight) * 1e-3
    for _ in range(3):
        optimizer.step()

    def run(count):
        start = time.perf_counter()
        for _ in range(count):
            optimizer.step()
        return (time.perf_counter() - start) * 1e3 / count

    return run


def bench(driver, rounds=9):
    for net, weights in bench_weights().items():
        count = 100 if sum(w.numel() for w in weights.values()) < 5e6 else 10
        settings = dict(ADAM, optimizer="AdamW", encoder_lr=0.01, encoder_weight_decay=0.0, threads=THREADS)
        with tempfile.TemporaryDirectory() as folder:
            save_file({"unused": torch.zeros(1)}, folder + "/inputs.safetensors", {k: str(v) for k, v in settings.items()})
            save_file(weights, folder + "/weights.safetensors")
            process = subprocess.Popen(
                [driver, "--bench", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )

            def ours(count):
                process.stdin.write(f"{count}\n")
                process.stdin.flush()
                return float(process.stdout.readline())

            contenders = {
                "mmtrain": ours,
                "foreach": python_steps(weights, settings, foreach=True),
                "fused": python_steps(weights, settings, fused=True),
            }
            for run in contenders.values():
                run(count)
            times = {name: [] for name in contenders}
            for _ in range(rounds):
                for name, run in contenders.items():
                    times[name].append(run(count))
            process.stdin.close()
            process.wait()
        print(f"{net}: AdamW, {len(weights)} tensors, ms a step, median of {rounds} in turns")
        for name, values in times.items():
            ratio = statistics.median(value / own for value, own in zip(values, times["mmtrain"]))
            raw = " ".join(f"{value:.3f}" for value in values)
            print(f"  {name:8} {statistics.median(values):8.3f}  {ratio:6.2f} x mmtrain's   [{raw}]")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", type=pathlib.Path, required=True)
    parser.add_argument("--bench", action="store_true")
    arguments = parser.parse_args()
    if arguments.bench:
        torch.set_num_threads(THREADS)
        bench(arguments.driver)
        return
    failures = []

    def report(case, worst, tolerance):
        error, name = worst
        bad = not error <= tolerance
        if bad:
            failures.append(case)
        print(f"{'FAILED' if bad else 'ok':6} {case:40} {error:.1e}  {name}")

    check_optimizers(arguments.driver, report)
    check_schedules(arguments.driver, report)
    check_clipping(arguments.driver, report)
    check_ema(arguments.driver, report)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
