"""Files of `torch.save` read by mmtrain: all types and forms of state dicts, torchvision's ResNet-18, hostile files."""

import collections
import os
import pathlib
import pickle
import random
import subprocess
import sys
import tempfile
import unittest

import parity
import torch
from safetensors.torch import load_file, save_file

try:
    import torchvision
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(parity.SKIPPED)

DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64, torch.complex64,
]  # fmt: skip
DRIVER = None


def drive(*arguments):
    done = subprocess.run([DRIVER, *map(str, arguments)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


class FolderTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="mmtrain_pth_")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def saved(self, value, name="saved.pth", **options):
        path = self.folder / name
        torch.save(value, path, **options)
        return path

    def check_reads(self, expected, path):
        for how in ("copy", "map"):
            target = self.folder / f"{how}.safetensors"
            drive("copy", path, target, how)
            read = load_file(target)
            self.assertEqual(set(read), set(expected))
            for name, tensor in expected.items():
                self.assertEqual(read[name].dtype, tensor.dtype)
                self.assertTrue(torch.equal(read[name], tensor), name)


class FormTest(FolderTest):
    def test_every_type(self):
        bits = torch.randint(0, 256, (4, 6, 16), dtype=torch.uint8)
        tensors = {}
        for dtype in DTYPES:
            full = bits.remainder(2).bool() if dtype == torch.bool else bits.remainder(60).view(dtype).clone()
            tensors[f"{dtype}.full"] = full
            tensors[f"{dtype}.scalar"] = full[1, 2, 0].clone()
            tensors[f"{dtype}.empty"] = torch.empty((0, 3), dtype=dtype)
        self.check_reads(tensors, self.saved(tensors))

    def test_views_parameters_and_layouts(self):
        base = torch.randn(6, 8)
        tensors = {
            "rows": base[1:3],
            "transposed": base.t(),
            "strided": base[::2, 1::3],
            "expanded": base[:, :1].expand(6, 4),
            "parameter": torch.nn.Parameter(base.clone()),
            "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        }
        self.check_reads({name: tensor.detach() for name, tensor in tensors.items()}, self.saved(tensors))

    def test_a_module_and_every_protocol(self):
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.GRU(4, 5))
        for protocol in (2, 3, 4, 5):
            self.check_reads(net.state_dict(), self.saved(net.state_dict(), pickle_protocol=protocol))

    def test_a_checkpoint_with_an_optimizer_beside_it(self):
        net = torch.nn.Linear(4, 3)
        optimizer = torch.optim.AdamW(net.parameters())
        net(torch.randn(2, 4)).sum().backward()
        optimizer.step()
        for key in ("state_dict", "model_state_dict", "model"):
            checkpoint = {"epoch": 3, "best": 0.5, "names": ["a", ("b", None)], key: net.state_dict(),
                          "optimizer": optimizer.state_dict(), "big": 1 << 40, "negative": -(1 << 40)}
            self.check_reads(net.state_dict(), self.saved(checkpoint))

    def test_many_tensors(self):
        tensors = {f"layer{i}.weight": torch.full((2,), float(i)) for i in range(5000)}
        self.check_reads(tensors, self.saved(tensors))


class ResNetTest(FolderTest):
    def test_torchvision_weights_load_by_name_and_give_its_features(self):
        torch.set_num_threads(1)
        torch.manual_seed(2)
        net = torchvision.models.resnet18()
        with torch.no_grad():
            for name, tensor in net.state_dict().items():
                if tensor.dim() == 1 and tensor.is_floating_point():
                    tensor.add_(0.3 * torch.rand_like(tensor))
        path = self.saved(net.state_dict())
        image = torch.randn(3, 3, 96, 80)
        save_file({"image": image}, self.folder / "image.safetensors")

        expected = {"train.logits": net(image).detach()}
        net.load_state_dict(torch.load(path))
        net.eval()
        logits = net(image)
        logits.square().sum().backward()
        expected["eval.logits"] = logits.detach()
        expected["eval.conv1_grad"] = net.conv1.weight.grad
        head, net.fc = net.fc, torch.nn.Identity()
        expected["eval.features"] = expected["emotion.features"] = net(image).detach()

        report, frozen = drive("resnet18", path, self.folder)
        error, name = parity.worst_error(expected, load_file(self.folder / "result.safetensors"))
        print(f"resnet18: {error:.1e} {name}")
        self.assertLess(error, 1e-4)
        self.assertEqual(report, "120 0 fc.weight fc.bias")
        self.assertEqual(int(frozen), sum(p.numel() for p in net.parameters()))
        del head


class Command:
    """What a hostile pickle holds: code to run when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class HostileTest(FolderTest):
    def refusals(self, *paths):
        return drive("check", *paths)

    def test_code_is_refused_by_name_and_not_run(self):
        trap = self.folder / "owned"
        for value in (Command(trap), {"w": Command(trap)}, {"w": torch.ones(2), "x": [Command(trap)]}):
            (reason,) = self.refusals(self.saved(value))
            self.assertIn(f"'{os.system.__module__}.system'", reason)
        self.assertFalse(trap.exists())

    def test_whole_modules_numpy_and_sets_are_refused_by_name(self):
        import numpy

        for value, name in (
            (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
            ({"w": numpy.ones(2)}, "_reconstruct"),
            ({"w": {1, 2}}, "set"),
            ({"w": torch.sparse_coo_tensor(torch.zeros(1, 1).long(), torch.ones(1), (3,))}, "_rebuild_sparse_tensor"),
        ):
            (reason,) = self.refusals(self.saved(value))
            self.assertIn(name, reason)

    def test_the_old_format_and_other_archives_are_refused_with_the_remedy(self):
        old = self.saved({"w": torch.ones(2)}, _use_new_zipfile_serialization=False)
        script = self.folder / "script.pt"
        torch.jit.script(torch.nn.Linear(2, 2)).save(script)
        plain = self.folder / "plain.pth"
        plain.write_bytes(pickle.dumps({"w": 1}))
        reasons = self.refusals(old, script, plain)
        self.assertIn("before PyTorch 1.6", reasons[0])
        self.assertIn("[pth]", reasons[1])
        self.assertIn("no zip archive", reasons[2])

    def test_damaged_files_never_crash(self):
        good = self.saved(collections.OrderedDict(a=torch.randn(3, 4), b=torch.arange(5))).read_bytes()
        generator = random.Random(3)
        paths = []
        for number in range(3000):
            bytes_ = bytearray(good)
            for _ in range(generator.choice((1, 1, 2, 5, 20))):
                bytes_[generator.randrange(len(bytes_))] = generator.randrange(256)
            if number % 5 == 0:
                del bytes_[generator.randrange(len(bytes_)) :]
            paths.append(self.folder / f"{number}.pth")
            paths[-1].write_bytes(bytes_)
        reasons = self.refusals(*paths)
        self.assertEqual(len(reasons), len(paths))
        self.assertTrue(all(reason == "ok" or reason.startswith("[pth] ") for reason in reasons))
        self.assertGreater(sum(reason != "ok" for reason in reasons), 600)


if __name__ == "__main__":
    DRIVER = parity.parse_driver(__doc__)
    unittest.main(argv=sys.argv[:1])
