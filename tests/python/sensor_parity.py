"""Sensor recordings as they are prepared in C++ against numpy and scipy: rate, filters, windows, spectrum, scale.

In double precision filters and spectra agree within 1e-9 of the largest value. Recordings are kept as float32: what is
read from files agrees to that precision (1e-6), and what is computed from them to a few times of it.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

SKIPPED = 77

try:
    import numpy as np
    import scipy.signal as signal
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)

RATE, WINDOW, STRIDE = 100, 500, 250


def write_recordings(folder, rng):
    """Text recordings as `{name: (rows, true rate)}`; the name tells the duration."""
    recordings = {}
    for name, rows, seconds in (("咳嗽", 2000, 20), ("咀嚼", 1410, 30), ("静息", 1234, 12.34), ("吞咽", 3000, 12)):
        t = np.arange(rows) / rows * seconds
        base = np.array([3e4, 2.4e5, 2.6e5, -1.5e4, 5e3, 2e3])
        waves = [np.sin(2 * np.pi * f * t + p) for f, p in zip(rng.uniform(0.2, 20, 6), rng.uniform(0, 6, 6))]
        values = base + 2000 * np.stack(waves, 1) + 300 * rng.normal(size=(rows, 6)) + 100 * t[:, None]
        values = np.round(values).astype(int)
        file = folder / "p_data" / f"耳道-{name}共{seconds:g}秒.txt"
        file.parent.mkdir(exist_ok=True)
        lines = "\n".join(" ".join(map(str, row)) for row in values)
        file.write_text(f"2025-08-24 01:59:29    绿光---红外光---红光---X轴---Y轴---Z轴\n{lines}\n", encoding="utf-8")
        recordings[file.name] = (values.astype(float), rows / seconds)
    return recordings


def filtered(values, rate):
    """The reference's zero-phase filters; the power line's notch where the rate holds 50 Hz."""
    light = values[:, :3]
    if rate > 100:
        light = signal.filtfilt(*signal.iirnotch(50, 30, fs=rate), light, axis=0)
    drift = signal.butter(2, 0.1, "highpass", fs=rate, output="sos")
    still = signal.butter(2, 0.3, "highpass", fs=rate, output="sos")
    band = signal.butter(3, [0.5, 15], "bandpass", fs=rate, output="sos")
    light = signal.sosfiltfilt(drift, light, axis=0)
    motion = signal.sosfiltfilt(band, signal.sosfiltfilt(still, values[:, 3:], axis=0), axis=0)
    return np.concatenate([light, motion], 1)


def prepare(values, rate):
    """Filters at the higher of the two rates."""
    if rate > 1.01 * RATE:
        values = filtered(values, rate)
    if abs(RATE / rate - 1) > 0.01:
        count = round(len(values) * RATE / rate)
        at = np.arange(count) * rate / RATE
        values = np.stack([np.interp(at, np.arange(len(values)), channel) for channel in values.T], 1)
    return values if rate > 1.01 * RATE else filtered(values, RATE)


def spectrum_of(series):
    """Log magnitudes `[channels, bins, frames]` of a series `[rows, channels]`."""
    _, _, z = signal.stft(series.T, nperseg=256, noverlap=128)
    return np.log(np.abs(z) + 1e-6)


def check(what, found, expected, tolerance):
    error = np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()
    print(f"{what}: {error:.2e} (allowed {tolerance:.0e})")
    return error <= tolerance


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", required=True)
    driver = parser.parse_args().driver
    with tempfile.TemporaryDirectory(prefix="mmtrain_parity_") as root:
        recordings = write_recordings(pathlib.Path(root), np.random.default_rng(7))
        rows = {name: {"values": values.ravel().tolist(), "rate": rate} for name, (values, rate) in recordings.items()}
        job = {"folder": root, "train": [0, 1, 2, 9, 10], "window": 4, "mfcc": False, "rows": rows}
        done = subprocess.run([driver], input=json.dumps(job) + "\n", check=True, capture_output=True, text=True)
    answer = json.loads(done.stdout)
    passed = answer["rate"] == RATE and answer["window_rows"] == WINDOW and len(answer["recordings"]) == len(recordings)

    prepared, exact = [], answer["exact"]
    for recording in answer["recordings"]:
        name = pathlib.Path(recording["path"]).name
        values, rate = recordings[name]
        expected = prepare(values, rate)
        found = np.reshape(exact["recordings"][name], (-1, 6))
        for channel in range(6):
            passed &= check(f"{name} channel {channel} in double", found[:, channel], expected[:, channel], 1e-9)
        found = np.reshape(recording["samples"], (-1, 6))
        passed &= found.shape == expected.shape
        for channel in range(6):
            passed &= check(f"{name} channel {channel}", found[:, channel], expected[:, channel], 1e-6)
        prepared.append(expected)
    windows = [(k, row) for k, values in enumerate(prepared) for row in range(0, len(values) - WINDOW + 1, STRIDE)]
    passed &= windows == [(w["recording"], w["first_row"]) for w in answer["windows"]]

    series = np.stack([prepared[k][row : row + WINDOW] for k, row in windows])
    train = series[job["train"]]
    scaled = (series - train.mean((0, 1))) / train.std((0, 1))
    spectra = np.stack([spectrum_of(one) for one in scaled])
    chosen = spectra[job["train"]]
    mean, deviation = chosen.mean((0, 3))[..., None], chosen.std((0, 3))[..., None]
    passed &= (answer["bins"], answer["frames"]) == spectra.shape[2:]
    window = job["window"]
    passed &= check("series to scale", answer["series"], scaled[window].ravel(), 1e-5)
    by = np.array(exact["series_mean"]), np.array(exact["series_std"])
    passed &= check("means", by[0], train.mean((0, 1)), 1e-6) & check("deviations", by[1], train.std((0, 1)), 1e-6)
    found = np.reshape(exact["spectrum"], spectra.shape[1:])
    passed &= check("spectrum in double", found, spectrum_of((series[window] - by[0]) / by[1]), 1e-6)
    # Of the very series, rounded to float32: where filters leave next to nothing, the logarithm shows the rounding, in
    # the statistics too.
    rounded = spectrum_of(np.reshape(answer["series"], series.shape[1:]))
    found = np.reshape(answer["spectrum"], spectra.shape[1:])
    passed &= check("spectrum to scale", found, (rounded - mean) / deviation, 2e-4)
    sys.exit(0 if passed else "the preparations differ")


if __name__ == "__main__":
    main()
