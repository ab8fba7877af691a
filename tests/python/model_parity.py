"""The C++ nets against independent Python modules: names, weights both ways, logits, gradients, batch-norm buffers.

Every case runs forward and backward twice with the weights written here: in training mode with dropout off, and in
evaluation mode with dropout in place. The weights of a freshly built C++ net come back and must load strictly.
"""

import sys

import parity
import torch

try:
    import fusion_models
    import tiny_models
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(parity.SKIPPED)

NUM_CLASSES = 11
BATCH = 4
# Width 0.35 lies between multiples of 16 for most layers, so it tests the rule of rounding. Layouts in memory are
# compared in double: in float their convolutions round differently, and where that flips the ReLU of an activation next
# to 0 a gradient jumps by 1e-2.
VARIANTS = [
    dict(width=0.25, dtype=torch.float32, channels_last=0, tolerance=1e-4),
    dict(width=0.35, dtype=torch.float32, channels_last=0, tolerance=1e-4),
    dict(width=0.25, dtype=torch.float64, channels_last=1, tolerance=1e-9),
]
SMALL = dict(d_model=32, num_heads=4, width=0.25)
# Emotion and behavior nets: (net, frames of the clip, sizes). Without sizes: the reference's.
FUSION_CASES = [
    *(("emotion", frames, dict(SMALL, fusion=fusion))
      for fusion in ("attention", "concat", "transformer") for frames in (1, 4)),
    ("emotion", 1, dict()),
    ("emotion", 4, dict(SMALL, modality="visual")),
    ("emotion", 1, dict(SMALL, modality="audio")),
    *((net, None, dict(SMALL, num_layers=2, d_ff=48)) for net in ("cnn", "transformer", "fusion", "dual")),
    *((net, None, dict(SMALL, num_layers=1, channels=5)) for net in ("fusion", "dual")),
    *((net, None, dict()) for net in ("cnn", "transformer", "fusion", "dual")),
]


def disturbed(model):
    """Batch-norm scales, shifts and statistics away from their initial 1 and 0, so that a mix-up shows."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.add_(0.3 * torch.rand_like(tensor))
    return model


def read(name, inputs):
    """What the net called `name` takes, in order; an input that its modality leaves out is None."""
    return [inputs.get(key) for key in fusion_models.INPUTS.get(name, ("image",))]


def make(settings):
    names = ("num_classes", "width", "channels", "d_model", "num_heads", "num_layers", "d_ff", "fusion", "modality")
    sizes = {key: settings[key] for key in names if key in settings}
    nets = fusion_models if settings["model"] in fusion_models.MODELS else tiny_models
    return nets.make(settings["model"], **sizes).to(settings["dtype"])


def forward_backward(model, arguments, target):
    model.zero_grad()
    logits = model(*arguments)
    torch.nn.functional.cross_entropy(logits, target).backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return logits.detach(), gradients, buffers


def python_passes(model, inputs, settings):
    """{mode: forward_backward(...)}; the model's state is left as it was."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    passes = {}
    for mode in ("train", "eval"):
        model.train(mode == "train")
        tiny_models.set_dropout(model, 0.0 if mode == "train" else 0.5)
        passes[mode] = forward_backward(model, read(settings["model"], inputs), inputs["target"])
        model.load_state_dict(before)
    return passes


def part(tensors, prefix):
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def check_fresh_weights(settings, files, inputs):
    """Error of a net whose state dict C++ wrote: it must load, mean the same, and be spread as Python initializes."""
    model = make(settings)
    spread = {key: tensor.std().item() for key, tensor in model.named_parameters() if tensor.numel() >= 1000}
    model.load_state_dict(files["fresh"], strict=True)
    for key, expected in spread.items():
        actual = files["fresh"][key].std().item()
        assert abs(actual - expected) <= 0.15 * expected, f"{key}: initial spread {actual}, Python's {expected}"
    logits = model.eval()(*read(settings["model"], inputs)).detach()
    return parity.worst_error({"logits": logits}, {"logits": files["result"]["fresh.logits"]})


def errors_of(passes, files):
    """{what: (error, name of the tensor)} of one case."""
    result, errors = files["result"], {}
    for mode, (logits, gradients, buffers) in passes.items():
        errors[f"{mode} logits"] = parity.worst_error({"logits": logits}, {"logits": result[f"{mode}.logits"]})
        errors[f"{mode} gradients"] = parity.worst_error(gradients, part(result, f"{mode}.grad."))
        if buffers:
            errors[f"{mode} buffers"] = parity.worst_error(buffers, part(result, f"{mode}.buffer."))
    return errors


def image_cases():
    for name in tiny_models.MODELS:
        for variant in VARIANTS:
            settings = dict(model=name, num_classes=NUM_CLASSES, **variant)
            inputs = {"image": torch.randn(BATCH, 3, 64, 64, dtype=variant["dtype"])}
            layout = "channels_last" if variant["channels_last"] else "contiguous"
            yield f"{name}-{variant['width']}-{layout}", settings, inputs


def fusion_cases():
    for name, frames, sizes in FUSION_CASES:
        settings = dict(model=name, num_classes=NUM_CLASSES, dtype=torch.float32, channels_last=0, tolerance=1e-4, **sizes)
        channels = sizes.get("channels", 6)
        tensors = {
            "image": torch.randn(BATCH, *([frames] if frames and frames > 1 else []), 3, 64, 64),
            "mel": torch.randn(BATCH, 64, 61),
            "stft": torch.randn(BATCH, channels, 129, 5),
            "series": torch.randn(BATCH, 75, channels),
        }
        unread = {"visual": "mel", "audio": "image"}.get(sizes.get("modality"))
        inputs = {key: tensors[key] for key in fusion_models.INPUTS[name] if key != unread}
        kind = sizes.get("modality", sizes.get("fusion", "channels5" if channels == 5 else ""))
        case = "-".join(filter(None, [name, kind, f"{frames}frames" if frames else ""]))
        yield f"{case}-{'small' if sizes else 'reference'}", settings, inputs
        if sizes and channels == 6:
            exact = dict(settings, dtype=torch.float64, channels_last=1, tolerance=1e-9)
            yield f"{case}-channels_last", exact, {key: tensor.double() for key, tensor in inputs.items()}


def main():
    driver = parity.parse_driver(__doc__)
    torch.manual_seed(1)
    cases = {}
    for case, settings, inputs in [*image_cases(), *fusion_cases()]:
        inputs["target"] = torch.randint(NUM_CLASSES, (BATCH,))
        cases[case] = (disturbed(make(settings)), inputs, settings)

    failed = False
    for case, passes, files in parity.run_both(driver, cases, python_passes):
        _, inputs, settings = cases[case]
        errors = errors_of(passes, files)
        errors["fresh logits"] = check_fresh_weights(settings, files, inputs)
        for what, (error, tensor) in errors.items():
            bad = not error <= settings["tolerance"]
            failed |= bad
            print(f"{'FAILED' if bad else 'ok':6} {case:40} {what:16} {error:.1e} {tensor}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
