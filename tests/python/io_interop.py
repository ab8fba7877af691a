"""Files pass both ways between mmtrain and Python's safetensors and tensorboard; the console behaves on a terminal."""

import argparse
import fcntl
import json
import os
import pathlib
import pty
import random
import struct
import subprocess
import sys
import tempfile
import termios
import unittest

SKIPPED = 77

try:
    import torch
    from safetensors import safe_open
    from safetensors.torch import save, save_file
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)

DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64,
    torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu,
]
DRIVER = None


def drive(*arguments):
    return subprocess.run([DRIVER, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def all_tensors():
    """Every dtype, with random bits, as a block, a 0-d and an empty tensor."""
    bits = torch.randint(0, 256, (4, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    tensors = {}
    for dtype in DTYPES:
        full = bits.remainder(2).bool() if dtype == torch.bool else bits.clone().view(dtype)
        tensors[f"{dtype}.full"] = full
        tensors[f"{dtype}.scalar"] = full[1, 2, 0].clone()
        tensors[f"{dtype}.empty"] = torch.empty((0, 3), dtype=dtype)
    return tensors


def python_accepts(path):
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():
                file.get_tensor(name)
        return True
    except Exception:  # the library raises many kinds
        return False


class FolderTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="mmtrain_interop_")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)


class SafetensorsTest(FolderTest):
    def test_all_dtypes_and_metadata_pass_both_ways(self):
        tensors = all_tensors()
        metadata = {"format": "pt", "Größe": 'line\nwith "quotes" \\ and \u0001', "empty": ""}
        source = self.folder / "python.safetensors"
        save_file(tensors, source, metadata)
        for mode in ("copy", "map"):
            target = self.folder / f"{mode}.safetensors"
            drive("copy", source, target, mode)
            with safe_open(target, "pt") as file:
                self.assertEqual(file.metadata(), metadata)
                self.assertEqual(set(file.keys()), set(tensors))
                for name, tensor in tensors.items():
                    loaded = file.get_tensor(name)
                    self.assertEqual((loaded.dtype, loaded.shape), (tensor.dtype, tensor.shape), name)
                    if tensor.numel():
                        same = torch.equal(loaded.flatten().view(torch.uint8), tensor.flatten().view(torch.uint8))
                        self.assertTrue(same, name)

    def test_files_are_those_that_python_writes_byte_for_byte(self):
        for metadata in (None, {"only": "one: the library shuffles more"}):
            source, target = self.folder / "python.safetensors", self.folder / "ours.safetensors"
            source.write_bytes(save(all_tensors(), metadata))
            drive("copy", source, target)
            self.assertEqual(target.read_bytes(), source.read_bytes())

    def test_damaged_files_are_never_accepted_where_python_refuses(self):
        """Random damage to good files: what we accept, Python must accept; where we are stricter, it is on purpose."""
        # The format's text demands that the header starts with a brace and that names are given once.
        stricter = ("not a JSON object", "given twice", "share a byte", "fields other than", "overflows")
        rng = random.Random(1)
        paths = []
        for index in range(1500):
            path = self.folder / f"{index}.safetensors"
            path.write_bytes(damage(rng))
            paths.append(path)
        answers = drive("check", *paths).splitlines()
        self.assertEqual(len(answers), len(paths))
        accepted = 0
        for path, answer in zip(paths, answers):
            ours, theirs = answer == "ok", python_accepts(path)
            accepted += ours
            explained = ours == theirs or (theirs and any(reason in answer for reason in stricter))
            self.assertTrue(explained, f"{answer} / Python accepts: {theirs} / {path.read_bytes()[:400]}")
        self.assertTrue(100 < accepted < 1400, f"{accepted} of 1500 accepted: the damage is too small or too large")


def damage(rng):
    """The bytes of a small safetensors file with one to three random changes, most of them to the header's values."""
    header = {
        "__metadata__": {"k": "v"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "U8", "shape": [5], "data_offsets": [24, 29]},
        "c": {"dtype": "BF16", "shape": [], "data_offsets": [29, 31]},
    }
    size = 31
    values = [0, 1, 2, 3, 5, 6, 24, 29, 31, -1, 2**31, 2**32, 2**62, 2**63, 2**64, 1.5, "0", None, [], {}]
    for _ in range(rng.randint(0, 2)):
        kind = rng.randrange(6)
        tensor = header.get(rng.choice("abc"))
        if not isinstance(tensor, dict):
            continue
        if kind == 0:
            tensor["shape"] = [rng.choice(values[:9] + values) for _ in range(rng.randint(0, 3))]
        elif kind == 1:
            tensor["data_offsets"] = [rng.choice(values) for _ in range(rng.choice([1, 2, 2, 2, 3]))]
        elif kind == 2:
            tensor["dtype"] = rng.choice(["F32", "I32", "U8", "I8", "BOOL", "F16", "F64", "F8_E4M3", "F4", "x", 1])
        elif kind == 3:
            tensor.pop(rng.choice(["dtype", "shape", "data_offsets"]), None)
        elif kind == 4:
            header[rng.choice(["a", "b", "c", "__metadata__"])] = rng.choice(values)
        else:
            size += rng.choice([-1, 1, 24])
    text = json.dumps(header).encode() + b" " * rng.choice([0, 0, 3, 7])
    if rng.random() < 0.3:
        place = rng.randrange(len(text))
        text = text[:place] + bytes([rng.choice(b'{}[]",:0 9e-\\\0\xff\n')]) + text[place + rng.randint(0, 1):]
    length = len(text) + (rng.choice([-1, 1, 2**40]) if rng.random() < 0.1 else 0)
    data = struct.pack("<Q", length) + text + bytes(max(size, 0))
    return data[: rng.randrange(len(data))] if rng.random() < 0.1 else data


class EventsTest(FolderTest):
    def test_tensorboard_reads_scalars_and_text(self):
        drive("events", self.folder)
        events = EventAccumulator(str(self.folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
        self.assertEqual(events.file_version, 2.0)
        self.assertEqual(set(events.Tags()["scalars"]), {"loss/train", "Größe", "negative step"})
        points = events.Scalars("loss/train")
        self.assertEqual([point.step for point in points], list(range(300)))
        for point in points:
            self.assertAlmostEqual(point.value, 1 / (point.step + 1), delta=1e-7)
        self.assertAlmostEqual(points[0].wall_time, points[-1].wall_time, delta=60)
        (large,) = events.Scalars("Größe")
        self.assertEqual(large.step, 2**40)
        self.assertAlmostEqual(large.value / -1e30, 1, delta=1e-6)
        (negative,) = events.Scalars("negative step")
        self.assertEqual((negative.step, negative.value), (-1, 0.25))
        self.assertEqual(events.Tags()["tensors"], ["notes"])
        (text,) = events.Tensors("notes")
        self.assertEqual((text.step, list(text.tensor_proto.string_val)), (7, [b"**bold** " + b"x" * 500]))
        self.assertEqual(events.SummaryMetadata("notes").plugin_data.plugin_name, "text")


class ConsoleTest(unittest.TestCase):
    """The driver's `progress` on a pseudo terminal."""

    def show(self, columns, **variables):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
        environment |= {"TERM": "xterm", **variables}
        with subprocess.Popen([DRIVER, "progress"], stdout=slave, stderr=slave, env=environment) as process:
            os.close(slave)
            output = b""
            try:
                while piece := os.read(master, 4096):
                    output += piece
            except OSError:  # Linux: the other side is closed
                pass
            self.assertEqual(process.wait(), 0)
        os.close(master)
        return output.decode().replace("\r\n", "\n")

    def test_one_line_is_redrawn_and_the_log_appears_above_it(self):
        erase = "\r\x1b[K"
        bar = "epoch 1/2 [==========>                   ]  33% 1/3 loss 1.5, ETA 0:01"
        output = self.show(100)
        self.assertTrue(output.startswith(f"{erase}{bar}{erase}a line of the log\n{bar}"), output)
        self.assertIn(f"{bar}{erase}\x1b[33ma warning\x1b[0m\n{bar}{erase}", output)
        self.assertTrue(output.endswith(f"66% 2/3 loss 1.25, ETA 0:01{erase}the end\n"), output)

    def test_no_color_leaves_escape_codes_for_color_out(self):
        output = self.show(100, NO_COLOR="1")
        self.assertNotIn("\x1b[33m", output)
        self.assertIn("\x1b[Ka warning\n", output)

    def test_no_line_is_wider_than_the_terminal(self):
        for columns in (10, 30, 45, 60, 80):
            for line in self.show(columns).replace("\r\x1b[K", "\n").split("\n"):
                self.assertLess(len(line.replace("\x1b[33m", "").replace("\x1b[0m", "")), max(columns, 18), line)
            self.assertEqual("[=" in self.show(columns), columns >= 60)

    def test_columns_wins_over_the_terminal(self):
        self.assertNotIn("ETA", self.show(100, COLUMNS="30"))

    def test_dumb_terminals_and_pipes_get_plain_lines(self):
        plain = "a line of the log\n{}the end\n"
        self.assertEqual(self.show(100, TERM="dumb"), plain.format("a warning\n"))
        piped = subprocess.run([DRIVER, "progress"], capture_output=True, text=True, check=True)
        self.assertEqual((piped.stdout, piped.stderr), (plain.format(""), "a warning\n"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", required=True)
    DRIVER = parser.parse_args().driver
    unittest.main(argv=sys.argv[:1])
