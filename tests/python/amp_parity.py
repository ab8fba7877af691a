"""GradScaler in C++ against torch.amp.GradScaler, step by step: scale, skipped steps and weights.

Gradients are prescribed: plain ones, infinite and NaN ones, and ones so large that they overflow at some scales only.
The C++ side passes its state through JSON text into a new scaler in the middle; states also pass from Python to C++ and
back. With fused optimizers, foreach ones and one that knows nothing of scales, with and without clipping.
"""

import json
import sys

import parity  # first: it skips the test where packages are missing
import optim_parity
import torch

TOLERANCE = 1e-6
STEPS, SIZE = 60, 67
OPTIMIZERS = {
    "SGD": lambda w: torch.optim.SGD([w], lr=0.1, momentum=0.9),
    "AdamW": lambda w: torch.optim.AdamW([w], lr=0.1, fused=True),
    "RMSprop": lambda w: torch.optim.RMSprop([w], lr=0.1, momentum=0.5),
    "foreign AdamW": lambda w: torch.optim.AdamW([w], lr=0.1),
}


def make_gradients():
    gradients = torch.randn(STEPS, SIZE)
    gradients[0, 5] = float("inf")  # the first step of all, when optimizers have no state
    gradients[11, 66] = float("nan")
    gradients[12, 0] = -float("inf")
    for step in (20, 33, 34, 50):
        gradients[step, 3] = 1e36  # overflows from a scale of 341 on
    return gradients


def python_run(weight, gradients, settings, scaler_state=None, optimizer_state=None):
    weight = weight.detach().clone().requires_grad_()
    optimizer = OPTIMIZERS[settings["optimizer"]](weight)
    if optimizer_state:
        optimizer.state[weight] = {key: value.clone() for key, value in optimizer_state.items()}
    names = ("init_scale", "growth_factor", "backoff_factor", "growth_interval")
    scaler = torch.amp.GradScaler("cpu", **{name: settings[name] for name in names})
    if scaler_state:
        scaler.load_state_dict(scaler_state)
    scales, skipped, weights, middle = [], [], [], None
    for step, gradient in enumerate(gradients):
        if step == len(gradients) // 2:
            state = {f"w/{k}": v.clone() for k, v in optimizer.state[weight].items() if torch.is_tensor(v)}
            middle = scaler.state_dict(), weight.detach().clone(), state
        weight.grad = None
        scaler.scale((weight * gradient).sum()).backward()
        if settings["clip"]:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_([weight], settings["clip"])
        before = weight.detach().clone()
        scaler.step(optimizer)
        scaler.update(3.0 if step == settings["set_scale_at"] else None)
        scales.append(scaler.get_scale())
        skipped.append(float(torch.equal(before, weight)))
        weights.append(weight.detach().clone())
    numbers = {
        "scales": torch.tensor(scales, dtype=torch.float64),
        "skipped": torch.tensor(skipped, dtype=torch.float64),
        "weights": torch.stack(weights),
    }
    return numbers, scaler.state_dict(), middle


def text_of(tensor):
    return json.loads(bytes(tensor.tolist()).decode())


def main():
    driver = parity.parse_driver(__doc__)
    torch.manual_seed(9)
    gradients, weight = make_gradients(), torch.randn(SIZE)
    base = dict(init_scale=65536.0, growth_factor=2.0, backoff_factor=0.5, growth_interval=4, clip=0, set_scale_at=-1)
    settings = {}
    for name in OPTIMIZERS:
        settings[name] = base | dict(optimizer=name)
        settings[name + ", clipped"] = base | dict(optimizer=name, clip=1.0)
        settings[name + ", odd scales"] = base | dict(
            optimizer=name, growth_factor=1.7, backoff_factor=0.3, init_scale=1000.0, set_scale_at=25
        )
    expected = {case: python_run(weight, gradients, given) for case, given in settings.items()}
    second_half, later = gradients[STEPS // 2 :].clone(), dict(set_scale_at=-1)

    cases = {}
    for case, given in settings.items():
        inputs = {"weight": weight, "gradients": gradients}
        cases[case] = ({}, inputs, given | dict(scaler_state=""), {})
        if not given["optimizer"].startswith("foreign"):
            scaler_state, middle, state = expected[case][2]
            inputs = {"weight": middle, "gradients": second_half}
            cases[case + ", from Python"] = (
                {},
                inputs,
                given | later | dict(scaler_state=json.dumps(scaler_state)),
                state,
            )
    answers = {case: files["result"] for case, files in optim_parity.run_driver(driver, cases).items()}

    failures = []

    def check(case, passed, text):
        if not passed:
            failures.append(case)
        print(f"{'ok' if passed else 'FAILED':6} {case:40} {text}")

    def compare(case, numbers, result, first=0):
        for key in ("scales", "skipped"):
            same = torch.equal(numbers[key][first:], result[key])
            check(case, same, f"{key} {'equal' if same else 'differ'}")
        reference = {"weights": numbers["weights"][first:]}
        error = parity.worst_error(reference, {"weights": result["weights"]})[0]
        check(case, error <= TOLERANCE, f"{error:.1e} weights")

    for case, given in settings.items():
        numbers, state, (scaler_state, _, _) = expected[case]
        assert 3 <= numbers["skipped"].sum() <= 12 and numbers["scales"].unique().numel() > 3, case
        result = answers[case]
        compare(case, numbers, result)
        check(case, text_of(result["scaler"]) == state, "state at the end")
        check(case, text_of(result["middle_scaler"]) == scaler_state, "state in the middle")
        if case + ", from Python" not in cases:
            continue
        compare(case + ", from Python", numbers, answers[case + ", from Python"], STEPS // 2)
        fields = {key.split("/")[1]: value for key, value in result.items() if key.startswith("middle_state.")}
        back = python_run(
            result["middle_weight"], second_half, given | later, text_of(result["middle_scaler"]), fields
        )[0]
        compare(case + ", to Python", numbers, back, STEPS // 2)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
