"""Peers of `mmtrain_bench text`: MB/s of a sensor CSV (time, nine values, label) to windows of 128 rows, step 64, float32.

    python tests/bench/peer_text.py --make FILE [--mb 50]
    python tests/bench/peer_text.py --file FILE --what pandas|pandas_pyarrow|polars|pyarrow [--threads 2]

`--make` writes the file. Windows are [windows, 9, 128] without gaps, as nets want them. Prints one line of JSON.
"""

import argparse
import json
import os
import statistics
import sys
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--make")
parser.add_argument("--mb", type=int, default=50)
parser.add_argument("--file")
parser.add_argument("--what", choices=["pandas", "pandas_pyarrow", "polars", "pyarrow"])
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--repeats", type=int, default=5)
args = parser.parse_args()
for name in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "ARROW_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = str(args.threads)  # before the libraries are loaded

import numpy as np
import pandas as pd

COLUMNS = [f"{sensor}_{axis}" for sensor in ("acc", "gyr", "mag") for axis in "xyz"]


def make(path, megabytes):
    rows = int(megabytes * 1e6 / 98.5)
    rng = np.random.default_rng(4)
    phase = np.arange(rows)[:, None] * rng.uniform(0.01, 0.3, 9)
    frame = pd.DataFrame(np.sin(phase) * rng.uniform(1, 20, 9) + rng.standard_normal((rows, 9)), columns=COLUMNS)
    frame.insert(0, "timestamp", np.arange(rows, dtype=np.int64) * 20 + 1600000000000)
    frame["label"] = np.repeat(rng.integers(0, 6, rows // 2000 + 1), 2000)[:rows]
    frame.to_csv(path, index=False, float_format="%.6f")


def read_pandas(path):
    frame = pd.read_csv(path, dtype={name: np.float32 for name in COLUMNS})
    return frame[COLUMNS].to_numpy(np.float32), frame["label"].to_numpy()


def read_pandas_pyarrow(path):
    frame = pd.read_csv(path, engine="pyarrow")
    return frame[COLUMNS].to_numpy(np.float32), frame["label"].to_numpy()


def read_polars(path):
    import polars

    frame = polars.read_csv(path, schema_overrides={name: polars.Float32 for name in COLUMNS})
    return frame.select(COLUMNS).to_numpy(), frame["label"].to_numpy()


def read_pyarrow(path):
    import pyarrow
    from pyarrow import csv

    table = csv.read_csv(
        path,
        read_options=csv.ReadOptions(use_threads=args.threads > 1),
        convert_options=csv.ConvertOptions(column_types={name: pyarrow.float32() for name in COLUMNS}),
    )
    return np.stack([table[name].to_numpy() for name in COLUMNS], 1), table["label"].to_numpy()


def windows(values, labels, length=128, step=64):
    view = np.lib.stride_tricks.sliding_window_view(values, length, axis=0)[::step]
    return np.ascontiguousarray(view), labels[length - 1 :: step][: len(view)].astype(np.int64)


if args.make:
    make(args.make, args.mb)
    sys.exit()
read = globals()["read_" + args.what]
rates = []
for repeat in range(1 + args.repeats):
    start = time.perf_counter()
    windows(*read(args.file))
    rates.append(os.path.getsize(args.file) / 1e6 / (time.perf_counter() - start))
rates = rates[1:]  # the first one loads
print(json.dumps(dict(name=f"text/{args.what}/threads{args.threads}", value=statistics.median(rates), unit="MB/s", repeats=rates)))
