"""Delimited text in C++ equals what pandas reads, and records of text what Python's csv module reads.

Doubles are compared bit by bit (pandas' round_trip parser is exact, its default is not), floats with the doubles rounded:
they may differ in the last place where that rounds twice.
"""

import argparse
import csv
import io
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

SKIPPED = 77

try:
    import numpy as np
    import pandas as pd
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)

DRIVER = None
COLUMNS = [f"{sensor}_{axis}" for sensor in ("acc", "gyr", "mag") for axis in "xyz"]


def drive(job):
    done = subprocess.run([DRIVER], input=json.dumps(job) + "\n", check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def sensor_frame(rows, seed):
    """Values of all sizes, some missing, and a label that changes now and then."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, 9)) * 10.0 ** rng.integers(-6, 7, 9)
    values[rng.random((rows, 9)) < 0.02] = np.nan
    frame = pd.DataFrame(values, columns=COLUMNS)
    frame.insert(0, "timestamp", np.arange(rows, dtype=np.int64) * 20 + 1600000000000)
    frame["activity"] = np.repeat(rng.choice(["walk", "run", "sit, or stand", "Größe", "咳嗽"], rows // 10 + 1), 10)[:rows]
    return frame


class Tables(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="mmtrain_text_")
        self.addCleanup(self.folder.cleanup)

    def check(self, text, expected, encoding="utf-8", malformed=()):
        """`expected`: the frame that pandas makes of it, texts as texts."""
        path = pathlib.Path(self.folder.name) / "table.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        for kind, dtype in (("double", np.float64), ("float", np.float32)):
            for threads in (1, 3):
                out = path.with_suffix(".out")
                table = drive(dict(kind=kind, path=str(path), out=str(out), threads=threads))
                self.assertEqual((table["rows"], table["columns"]), expected.shape)
                self.assertEqual(table["malformed"], list(malformed))
                values = np.fromfile(out, dtype).reshape(expected.shape)
                for index, name in enumerate(expected.columns):
                    column, categories = values[:, index], table["categories"][index]
                    if categories:
                        texts = [None if np.isnan(v) else categories[int(v)] for v in column]
                        wanted = [None if pd.isna(v) else v for v in expected[name]]
                        self.assertEqual(texts, wanted)
                        self.assertEqual(categories, list(dict.fromkeys(v for v in wanted if v is not None)))
                        continue
                    wanted = expected[name].to_numpy(np.float64)
                    if kind == "float":
                        near = np.abs(column.astype(np.float64) - wanted) <= np.abs(wanted) * 2.0**-23.99
                        self.assertTrue(np.all(near | (np.isnan(column) & np.isnan(wanted))), name)
                    else:
                        np.testing.assert_array_equal(column, wanted, err_msg=name)
        if isinstance(expected.columns[0], str):
            self.assertEqual(table["names"], list(expected.columns))

    def read(self, text, **options):
        return pd.read_csv(io.StringIO(text), float_precision="round_trip", **options)

    def test_forms_of_numbers(self):
        for number, form in enumerate(("%.6f", "%.3e", "%.17g", "%g", None)):
            text = sensor_frame(20000, number).to_csv(index=False, float_format=form)
            self.check(text, self.read(text))

    def test_separators(self):
        frame = sensor_frame(3000, 10)
        for separator in ",;\t":
            text = frame.to_csv(index=False, sep=separator, float_format="%.5f", lineterminator="\r\n")
            self.check(text, self.read(text, sep=separator))
        text = frame.to_csv(index=False, sep=";", decimal=",")
        self.check(text, self.read(text, sep=";", decimal=","))

    def test_blanks_and_no_header(self):
        values = np.random.default_rng(3).standard_normal((2947, 128))
        text = "".join("".join("%16.7e" % v for v in row) + "\n" for row in values)  # UCI HAR's form
        self.check(text, self.read(text, sep=r"\s+", header=None))
        text = "".join(" ".join("NaN" if v > 2 else "%.5f" % v for v in row) + "\n" for row in values)  # PAMAP2's
        self.check(text, self.read(text, sep=r"\s+", header=None))

    def test_everything_quoted(self):
        text = sensor_frame(2000, 20).to_csv(index=False, quoting=csv.QUOTE_ALL)
        self.check(text, self.read(text))

    def test_encodings(self):
        frame = sensor_frame(500, 30).rename(columns={"timestamp": "时间", "activity": "标签"})
        frame.loc[frame["标签"] == "Größe", "标签"] = "静息"
        text = frame.to_csv(index=False)
        for encoding in ("utf-8-sig", "utf-16", "gbk"):
            self.check(text, self.read(text), encoding)
        west = sensor_frame(500, 31).rename(columns={"timestamp": "Zeit é", "activity": "Größe"})
        west.loc[west["Größe"] == "咳嗽", "Größe"] = "süß"
        text = west.to_csv(index=False)
        self.check(text, self.read(text), "cp1252")

    def test_comments_empty_and_malformed_lines(self):
        text = sensor_frame(300, 40).drop(columns="activity").to_csv(index=False)
        lines = text.splitlines()
        lines.insert(5, "# recording was stopped, 1, 2")
        lines.insert(40, "")
        lines.insert(100, lines[99] + ",1")  # pandas skips what is too long
        lines.insert(200, lines[199] + ",")  # a separator behind the last field is none
        text = "\n".join(lines)
        expected = self.read("\n".join(lines[:200] + [lines[199]] + lines[201:]), comment="#", on_bad_lines="skip")
        self.check(text, expected, malformed=[101])


class Records(unittest.TestCase):
    def check(self, text, encoding="utf-8"):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "records.csv"
            path.write_bytes(text.encode(encoding))
            found = drive(dict(kind="records", path=str(path)))
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
        self.assertEqual(found["names"], rows[0])
        self.assertEqual(found["records"], rows[1:])
        self.assertEqual(found["malformed"], 0)

    def test_random_records(self):
        rng = random.Random(5)
        alphabet = ['"', ",", "\n", "\r\n", " ", ";", "a", "b", "’", "é", "咳"]
        for number in range(200):
            width = rng.randint(1, 5)
            stream = io.StringIO(newline="")
            writer = csv.writer(stream, quoting=rng.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]), lineterminator=rng.choice(["\n", "\r\n"]))
            for _ in range(20):
                writer.writerow("x" + "".join(rng.choices(alphabet, k=rng.randint(0, 8))) for _ in range(width))
            self.check(stream.getvalue())

    def test_annotations(self):
        text = 'Sr No.,Utterance,Speaker\r\n1,"Oh my God, he’s ""lost"" it.",Phoebe\r\n2,What’s up?,Chandler\r\n'
        self.check(text)
        self.check(text, "cp1252")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--driver", required=True)
    arguments, rest = parser.parse_known_args()
    DRIVER = arguments.driver
    unittest.main(argv=[sys.argv[0], *rest], warnings="ignore")  # pandas deprecates what older ones need
