"""Audio in C++ against Python: files against soundfile, spectra against torchaudio and librosa, resampling against
torchaudio, filters and spectra of series against scipy.

Spectra and resampled sound may differ by a share of the largest value, filters by a share of theirs; samples of
lossless files not at all.
"""

import itertools
import sys
import tempfile
import warnings

import parity
import numpy as np
import torch

try:
    import librosa
    import scipy.signal
    import soundfile
    import torchaudio
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(parity.SKIPPED)

warnings.filterwarnings("ignore")  # librosa and torchaudio speak of short signals and empty bands: both are meant

SILENCE = 1e-10


class Report:
    def __init__(self):
        self.failures, self.worst, self.counts = [], {}, {}

    def close(self, name, expected, actual, tolerance, details=""):
        """Largest difference over the largest value expected, or over the energy that counts as silence."""
        expected = np.asarray(expected)
        if expected.size != actual.size:
            self.failures.append(f"{name} {details}: {actual.size} values, wanted {expected.shape}")
            return
        wide = np.result_type(expected.dtype, np.float64)
        difference = np.abs(expected.astype(wide) - actual.reshape(expected.shape)).max(initial=0.0)
        error = difference / max(np.abs(expected).max(initial=0.0), SILENCE)
        self.worst[name] = max(self.worst.get(name, 0.0), error)
        self.counts[name] = self.counts.get(name, 0) + 1
        if not error <= tolerance:
            self.failures.append(f"{name} {details}: differs by {error:.3g}, allowed {tolerance:g}")

    def finish(self):
        for name, error in self.worst.items():
            print(f"{name:32} worst {error:.2e} of {self.counts[name]} cases")
        for failure in self.failures:
            print("FAILED", failure)
        return 1 if self.failures else 0


class Check:
    """Jobs of the driver with what they should give, compared after one run."""

    def __init__(self, program, folder, report):
        self.driver, self.report, self.expected = parity.LineDriver(program, folder), report, []

    def add(self, name, expected, tolerance, source, operation, *arguments):
        output = self.driver.add(source, operation, *arguments)
        self.expected.append((name, expected, tolerance, output, (operation, *arguments)))

    def array(self, values):
        return self.driver.file(np.ascontiguousarray(values).tobytes())

    def run(self):
        self.driver.run()
        for name, expected, tolerance, output, details in self.expected:
            actual = np.fromfile(output, np.asarray(expected).dtype)
            self.report.close(name, expected, actual, tolerance, details)
        self.expected.clear()


def signals():
    """Name -> mono float32: odd lengths, silence, clipped sound, quiet after loud."""
    rng = np.random.default_rng(7)
    noise = rng.standard_normal(12345).astype(np.float32) * 0.1
    t = np.arange(16001) / 16000
    sweep = (0.5 * np.sin(2 * np.pi * (100 + 1500 * t) * t) + 0.01 * rng.standard_normal(t.size)).astype(np.float32)
    step = np.where(np.arange(9999) < 5000, 1.0, 1e-3).astype(np.float32) * rng.standard_normal(9999).astype(np.float32)
    return {
        "noise": noise,
        "sweep": sweep,
        "silence": np.zeros(4801, np.float32),
        "clipped": np.clip(20 * sweep[:7777], -1, 1),
        "step": step,
    }


# rate, n_fft, hop, window, mels, f_min, f_max, scale, norm, power, center, pad
MEL_CASES = [
    (16000, 400, 160, 400, 64, 0.0, 8000.0, "htk", "none", 2, 1, "reflect"),
    (22050, 1024, 256, 1024, 80, 60.0, 7600.0, "slaney", "slaney", 2, 1, "constant"),
    (16000, 512, 128, 320, 40, 20.0, 8000.0, "htk", "slaney", 1, 1, "replicate"),
    (8000, 255, 100, 201, 23, 0.0, 4000.0, "slaney", "none", 2, 0, "reflect"),  # odd: another way of transforming
]
LOGS = {"none": (0, 0), "decibel": (1e-10, 80), "natural": (1e-6, 0)}


def torchaudio_mel(case):
    rate, n_fft, hop, window, mels, f_min, f_max, scale, norm, power, center, pad = case
    return torchaudio.transforms.MelSpectrogram(
        rate, n_fft, window, hop, f_min, f_max, n_mels=mels, power=power, center=bool(center), pad_mode=pad,
        norm=None if norm == "none" else norm, mel_scale=scale)


def librosa_mel(signal, case):
    rate, n_fft, hop, window, mels, f_min, f_max, scale, norm, power, center, pad = case
    return librosa.feature.melspectrogram(
        y=signal, sr=rate, n_fft=n_fft, hop_length=hop, win_length=window, center=bool(center), power=power, n_mels=mels,
        pad_mode={"replicate": "edge"}.get(pad, pad), fmin=f_min, fmax=f_max, htk=scale == "htk",
        norm=None if norm == "none" else norm, dtype=np.float32)


def compressed(mel, log, power):
    if log == "decibel":
        kind = "power" if power == 2 else "magnitude"
        return torchaudio.transforms.AmplitudeToDB(kind, top_db=80)(mel)
    return torch.log(mel + 1e-6) if log == "natural" else mel


def check_spectra(check):
    for (name, signal), case in itertools.product(signals().items(), MEL_CASES):
        rate, n_fft, hop, window, mels, *_, power, center, pad = case
        source, wave = check.array(signal), torch.from_numpy(signal)
        stft = torch.stft(wave, n_fft, hop, window, torch.hann_window(window), bool(center), pad, return_complex=True)
        check.add("stft, torch", stft.numpy(), 1e-5, source, "stft", n_fft, hop, window, center, pad)
        check.add("energy, torch", stft.abs().square().numpy(), 1e-5, source, "energy", n_fft, hop, window, center, pad)
        # For odd sizes torchaudio places the bins as if the last one were at half the sample rate.
        mel = torchaudio_mel(case)(wave) if n_fft % 2 == 0 else torch.from_numpy(librosa_mel(signal, case))
        for log, settings in LOGS.items():
            expected = compressed(mel, log, power).numpy()
            check.add(f"mel {log}, torchaudio", expected, 1e-4, source, "mel", *case, log, *settings)
            check.add(f"mel {log}, device", expected, 1e-4, source, "device_mel", 1, *case, log, *settings)
        check.add("mel, librosa", librosa_mel(signal, case), 1e-4, source, "mel", *case, "none", *LOGS["none"])
    # Shorter than half a frame: torch takes none of these but for silence around.
    for length, case in itertools.product((1, 2, 57, 199), MEL_CASES[:3]):
        signal = signals()["noise"][:length]
        for pad in ("reflect", "constant", "replicate"):
            short = (*case[:-1], pad)
            for operation in (["mel"], ["device_mel", 1]):
                check.add(f"short {operation[0]}, librosa", librosa_mel(signal, short), 1e-4, check.array(signal),
                          *operation, *short, "none", *LOGS["none"])
        constant = (*case[:-1], "constant")
        check_short_transforms(check, signal, constant)
        expected = torchaudio_mel(constant)(torch.from_numpy(signal)).numpy()
        check.add("short mel, torchaudio", expected, 1e-4, check.array(signal), "mel", *constant, "none", *LOGS["none"])


def check_short_transforms(check, signal, case):
    rate, n_fft, hop, window, mels, f_min, f_max, scale, norm, power, center, pad = case
    source, wave = check.array(signal), torch.from_numpy(signal)
    stft = torch.stft(wave, n_fft, hop, window, torch.hann_window(window), bool(center), pad, return_complex=True)
    check.add("short stft, torch", stft.numpy(), 1e-5, source, "stft", n_fft, hop, window, center, pad)
    if power == 2 and window == n_fft:
        settings = dict(n_fft=n_fft, hop_length=hop, n_mels=mels, f_min=f_min, f_max=f_max, pad_mode=pad,
                        norm=None if norm == "none" else norm, mel_scale=scale)
        mfcc = torchaudio.transforms.MFCC(rate, 13, melkwargs=settings)(wave).numpy()
        check.add("short mfcc, torchaudio", mfcc, 1e-4, source, "mfcc", 13, *case, "decibel", *LOGS["decibel"])


def check_cepstra(check):
    for name, signal in signals().items():
        source, wave = check.array(signal), torch.from_numpy(signal)
        for count, case in ((40, MEL_CASES[0]), (13, MEL_CASES[1])):
            rate, n_fft, hop, window, mels, f_min, f_max, scale, norm, power, center, pad = case
            settings = dict(n_fft=n_fft, hop_length=hop, n_mels=mels, f_min=f_min, f_max=f_max, pad_mode=pad,
                            norm=None if norm == "none" else norm, mel_scale=scale)
            for log, is_natural in (("decibel", False), ("natural", True)):
                mfcc = torchaudio.transforms.MFCC(rate, count, log_mels=is_natural, melkwargs=settings)(wave).numpy()
                check.add(f"mfcc {log}, torchaudio", mfcc, 1e-4, source, "mfcc", count, *case, log, *LOGS[log])
                check.add(f"mfcc {log}, device", mfcc, 1e-4, source, "device_mfcc", 1, count, *case, log, *LOGS[log])
            expected = librosa.feature.mfcc(S=librosa.power_to_db(librosa_mel(signal, case)), n_mfcc=count)
            check.add("mfcc, librosa", expected, 1e-4, source, "mfcc", count, *case, "decibel", *LOGS["decibel"])


def check_batches(check):
    rows = np.stack([signals()["noise"][:8001], 0.01 * signals()["sweep"][:8001], signals()["step"][1000:9001]])
    for case, (log, settings) in itertools.product(MEL_CASES[:3], LOGS.items()):
        # Decibels count from the largest value of each row.
        expected = np.stack([compressed(torchaudio_mel(case)(torch.from_numpy(r)), log, case[9]).numpy() for r in rows])
        check.add("batch of rows", expected, 1e-4, check.array(rows), "device_mel", 3, *case, log, *settings)


def check_resampling(check):
    pairs = [(48000, 16000), (44100, 16000), (16000, 44100), (8000, 16000), (22050, 16000), (16000, 16000), (16000, 48000),
             (11025, 8000), (16010, 15990)]
    wanted = {**signals(), "one": np.float32([0.7]), "two": np.float32([0.7, -0.2]), "none": np.float32([])}
    for (name, signal), (source_rate, target_rate) in itertools.product(wanted.items(), pairs):
        expected = signal
        if signal.size:
            expected = torchaudio.functional.resample(torch.from_numpy(signal), source_rate, target_rate).numpy()
        check.add("resample, torchaudio", expected, 1e-5, check.array(signal), "resample", source_rate, target_rate)


def check_files(check):
    rng = np.random.default_rng(3)
    exact = [("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "PCM_32"), ("wav", "PCM_U8"), ("wav", "FLOAT"), ("wav", "ULAW"),
             ("flac", "PCM_16"), ("flac", "PCM_24"), ("aiff", "PCM_16")]
    lossy = [("ogg", "VORBIS"), ("ogg", "OPUS"), ("mp3", "MPEG_LAYER_III")]
    for (kind, subtype), channels in itertools.product(exact + lossy, (1, 2, 6)):
        if kind == "mp3" and channels > 2:
            continue
        rate = 16000 if subtype == "OPUS" else 22050
        path = check.driver.folder / f"{subtype}_{channels}.{kind}"
        t = np.arange(30001)[:, None] / rate
        sound = 0.8 * np.sin(2 * np.pi * 220 * (1 + np.arange(channels)) * t) + 0.01 * rng.standard_normal((1, channels))
        soundfile.write(path, sound, rate, subtype=subtype)
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        if kind == "ogg" and channels == 6:
            samples = samples[:, [0, 2, 1, 5, 3, 4]]  # soundfile has the order of the codec
        lossless = (kind, subtype) in exact
        check.add("format", np.float32([rate, channels]), 0, path, "format", 0, 0, 0, -1)
        name, tolerance = ("lossless files", 0) if lossless else ("lossy files", 1e-3)
        check.add(name, samples, tolerance, path, "read", 0, 0, 0, -1)
        if lossless:
            part = samples[int(0.25 * rate + 0.5):][:round(0.5 * rate)]
            check.add("spans", part, 0, path, "read", 0, 0, 0.25, 0.5)
            check.add("span over the end", samples[rate:], 0, path, "read", 0, 0, 1, 1e9)
        if channels == 2:
            mono = samples.mean(1, keepdims=True)
            check.add("mono", mono, 1e-6 if lossless else 1e-3, path, "read", 0, 1, 0, -1)
        if channels == 6:
            weights = np.array([0.5**0.5, 0.5**0.5, 1, 0, 0.5, 0.5]) / (2 * 0.5**0.5 + 2)
            check.add("5.1 mono", (samples @ weights[:, None]).astype(np.float32), max(tolerance, 1e-6), path, "read", 0, 1, 0, -1)
            rows = torchaudio.functional.resample(torch.from_numpy(samples.T.copy()), rate, 16000).numpy().T
            check.add("6 channels at 16 kHz", rows, 1e-5, path, "read", 16000, 0, 0, -1)


def check_filters(check):
    rng = np.random.default_rng(5)
    fs = 50.0
    designs = {("notch", 12.5, 30): scipy.signal.iirnotch(12.5, 30, fs), ("notch", 20, 2): scipy.signal.iirnotch(20, 2, fs)}
    for order, low, high in [(2, 0.1, 0), (2, 0.3, 0), (3, 0.5, 15), (3, 1, 0), (1, 5, 0), (4, 0, 10), (5, 0, 3), (1, 2, 9),
                             (6, 1, 20), (2, 0.5, 24.9)]:
        kind = "highpass" if not high else "lowpass" if not low else "bandpass"
        edges = low if not high else high if not low else (low, high)
        designs["butterworth", order, low, high] = scipy.signal.butter(order, edges, kind, fs=fs, output="zpk")
    for (name, *arguments), design in designs.items():
        is_notch = name == "notch"
        sos = scipy.signal.tf2sos(*design) if is_notch else scipy.signal.zpk2sos(*design)
        for length in (200, 501, 3001):
            series = 3e4 + 500 * rng.standard_normal(length).cumsum()
            source = check.array(series)
            check.add("sosfilt, scipy", scipy.signal.sosfilt(sos, series), 1e-9, source, "sosfilt", name, *arguments, fs)
            check.add("filtfilt, scipy's sos", scipy.signal.sosfiltfilt(sos, series), 1e-9, source, "filtfilt", name,
                      *arguments, fs)
            b, a = design if is_notch else scipy.signal.zpk2tf(*design)
            if len(a) <= 5:  # beyond, scipy's polynomials lose digits themselves
                check.add("filtfilt, scipy's b and a", scipy.signal.filtfilt(b, a, series), 1e-6, source, "filtfilt", name,
                          *arguments, fs)


def check_segments(check):
    rng = np.random.default_rng(6)
    cases = itertools.product((256, 500, 501, 3000), ((256, 128), (64, 48), (255, 100), (100, 0)), (True, False), (True, False))
    for length, (segment, overlap), boundary, padded in cases:
        series = 1e4 + 1e3 * rng.standard_normal(length)
        _, _, expected = scipy.signal.stft(series, nperseg=segment, noverlap=overlap, padded=padded,
                                           boundary="zeros" if boundary else None)
        check.add("segments, scipy", expected, 1e-9, check.array(series), "segments", segment, overlap, int(boundary),
                  int(padded))


def main():
    program = parity.parse_driver(__doc__)
    torch.set_num_threads(1)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="mmtrain_audio_") as folder:
        check = Check(program, folder, report)
        for group in (check_spectra, check_cepstra, check_batches, check_resampling, check_files, check_filters,
                      check_segments):
            group(check)
            check.run()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
