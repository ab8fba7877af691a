"""What the parity tests share: folders of safetensors that a C++ driver answers, and the measure of difference.

A case is a folder: `inputs.safetensors` (tensors, settings as metadata) and `weights.safetensors` (a state dict) from
here, `result.safetensors` from the driver. Import this module first: without torch or safetensors it ends the test
with the code that ctest shows as skipped.
"""

import argparse
import itertools
import pathlib
import subprocess
import sys
import tempfile

SKIPPED = 77

try:
    import torch
    from safetensors.torch import load_file, save_file
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)


def parse_driver(doc):
    """The driver given by `--driver`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", type=pathlib.Path, required=True)
    return parser.parse_args().driver


def run_both(driver, cases, python_side):
    """Runs the driver on all cases `{name: (model, inputs, settings)}` while `python_side(*case)` does the same here.

    Yields `(name, what python_side returned, {file stem: tensors of the driver's files})`. One thread each, so that
    neither waits for the other and both round alike.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="mmtrain_parity_") as root:
        folders = {name: pathlib.Path(root) / name for name in cases}
        for name, (model, inputs, settings) in cases.items():
            folders[name].mkdir()
            metadata = {key: str(value) for key, value in settings.items()}
            save_file(inputs, folders[name] / "inputs.safetensors", metadata)
            save_file(model.state_dict(), folders[name] / "weights.safetensors")
        with subprocess.Popen([driver, *folders.values()]) as process:
            expected = {name: python_side(*case) for name, case in cases.items()}
        if process.returncode:
            sys.exit(f"{driver} failed with exit code {process.returncode}")
        for name, folder in folders.items():
            written = set(folder.glob("*.safetensors")) - {folder / "inputs.safetensors", folder / "weights.safetensors"}
            yield name, expected[name], {path.stem: load_file(path) for path in written}


def worst_error(reference, result):
    """(error, name) of the tensor that differs most. Names must be the same on both sides.

    The error of a tensor is its largest difference over its largest value, the latter at least 1e-3 of the largest
    value of all tensors: some true gradients are 0 (a bias before batch norm).
    """
    assert reference.keys() == result.keys(), sorted(reference.keys() ^ result.keys())
    largest = max(t.abs().max().item() for t in reference.values())
    worst = (0.0, "")
    for name, expected in reference.items():
        assert expected.shape == result[name].shape, name
        scale = max(expected.abs().max().item(), 1e-3 * largest)
        error = (result[name].double() - expected.double()).abs().max().item() / scale
        worst = max(worst, (error if error == error else float("inf"), name))
    return worst


class LineDriver:
    """Collects jobs for a C++ program that takes `INPUT OUTPUT OPERATION ARGUMENTS...` a line, and runs them in one go."""

    def __init__(self, program, folder):
        self.program, self.folder = program, pathlib.Path(folder)
        self.lines, self.numbers = [], itertools.count()

    def file(self, content, suffix=".in"):
        path = self.folder / f"{next(self.numbers)}{suffix}"
        path.write_bytes(content)
        return path

    def add(self, source, operation, *arguments):
        output = self.folder / f"{next(self.numbers)}.out"
        self.lines.append(" ".join(map(str, (source, output, operation, *arguments))))
        return output

    def run(self):
        subprocess.run([self.program], input="".join(line + "\n" for line in self.lines), text=True, check=True)
        self.lines.clear()
