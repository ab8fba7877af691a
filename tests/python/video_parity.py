"""Frames and sound of video files in C++ against PyAV: which frames, their times, their pixels, the samples.

The files are made here, with the codecs that this PyAV can write: containers with and without an index, streams that
start late, edit lists, open groups of pictures, variable frame rates, colour matrices and ranges. Folders in
MMTRAIN_VIDEO_DIRS (separated by colons) add real files.
"""

import dataclasses
import fractions
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile

import parity
import numpy as np

try:
    import av
    from av.video.reformatter import ColorRange, Colorspace
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(parity.SKIPPED)

HEIGHT, WIDTH, FRAMES, RATE = 182, 318, 60, 24
SIZE = 112


@dataclasses.dataclass
class Recipe:
    """How a file is made."""

    suffix: str
    codec: str
    options: dict = dataclasses.field(default_factory=dict)
    format: str = "yuv420p"
    audio: str = ""
    layout: str = "stereo"
    gop: int = 12
    b_frames: int = 0
    colorspace: int = 2  # unspecified
    full_range: bool = False
    ticks: tuple = ()  # of 1/1000 s between frames, over and over; none: RATE
    video_start: float = 0
    audio_start: float = 0
    cut: float = 0  # stream copy from here on, as an edit list


X264 = {"preset": "veryfast", "crf": "20"}
RECIPES = {
    "h264": Recipe("mp4", "libx264", X264 | {"x264-params": "bframes=3:b-pyramid=normal"}, audio="aac"),
    "h264_open_gop": Recipe("mp4", "libx264", X264 | {"x264-params": "bframes=3:open-gop=1:keyint=10:min-keyint=10"}),
    "h264_no_b": Recipe("mp4", "libx264", X264 | {"x264-params": "bframes=0"}, gop=250),
    "h264_surround": Recipe("mp4", "libx264", X264, audio="aac", layout="5.1"),
    "h264_mono_late": Recipe("mp4", "libx264", X264, audio="aac", layout="mono", audio_start=0.4),
    "h264_video_late": Recipe("mp4", "libx264", X264, audio="aac", video_start=0.3),
    "h264_cut": Recipe("mp4", "libx264", X264 | {"x264-params": "keyint=20:min-keyint=20"}, audio="aac", cut=1.1),
    "h264_709": Recipe("mp4", "libx264", X264, colorspace=1),
    "h264_full": Recipe("mp4", "libx264", X264, format="yuvj420p", full_range=True),
    "h264_709_full": Recipe("mp4", "libx264", X264, colorspace=1, full_range=True),
    "h264_444": Recipe("mp4", "libx264", X264, format="yuv444p"),
    "h264_10bit": Recipe("mp4", "libx264", X264, format="yuv420p10le"),
    "h264_fragmented": Recipe("mp4", "libx264", X264 | {"movflags": "frag_keyframe+empty_moov"}, audio="aac"),
    "h264_variable": Recipe("mkv", "libx264", X264, audio="ac3", ticks=(20, 60, 41, 90, 33)),
    "h264_ts": Recipe("ts", "libx264", X264, audio="ac3", layout="5.1"),
    "h264_avi": Recipe("avi", "libx264", X264, audio="mp2"),
    "hevc": Recipe("mp4", "libx265", {"preset": "ultrafast", "x265-params": "bframes=3:keyint=15:log-level=none"}),
    "vp9": Recipe("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}, audio="libopus"),
    "mpeg1": Recipe("mpg", "mpeg1video", {"b": "2M"}, audio="mp2", b_frames=2),
    "mpeg2_ts": Recipe("ts", "mpeg2video", {"b": "2M"}, audio="mp2", b_frames=2),
    "mpeg4": Recipe("avi", "mpeg4", {"b": "2M"}, audio="mp2", b_frames=2),
    "mpeg4_mp4": Recipe("mp4", "mpeg4", {"b": "2M"}, audio="aac", b_frames=2),
    "mjpeg": Recipe("avi", "mjpeg", {"q": "3"}, format="yuvj420p", full_range=True, audio="pcm_s16le"),
}
# (frames, key frames only, start, duration)
READS = [(8, 0, 0, -1), (0, 0, 0, -1), (1, 0, 0, -1), (5, 0, 0.7, 0.9), (100, 0, 1.3, 0.5), (3, 0, 0.05, -1), (2, 1, 0, -1), (0, 1, 0.5, -1)]


def picture(index):
    """Moving colours with an edge and some texture."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    t = index / 10
    r = 128 + 100 * np.sin(x / 31 + t) * np.cos(y / 23 - t)
    g = 128 + 100 * np.sin((x + y) / 47 - 2 * t)
    b = np.where((x - 5 * index) % 160 < 60, 210, 40)
    grain = np.random.default_rng(index).normal(0, 3, (HEIGHT, WIDTH, 1))
    return np.clip(np.stack([r, g, b], -1) + grain, 0, 255).astype(np.uint8)


def write(path, recipe):
    with av.open(str(path), "w", options={k: recipe.options.pop(k) for k in ("movflags",) if k in recipe.options}) as file:
        video = file.add_stream(recipe.codec, rate=1000 if recipe.ticks else RATE)
        video.height, video.width, video.pix_fmt = HEIGHT, WIDTH, recipe.format
        video.options = recipe.options
        video.gop_size, video.codec_context.max_b_frames = recipe.gop, recipe.b_frames
        base = fractions.Fraction(1, 1000 if recipe.ticks else RATE)
        video.codec_context.time_base = base
        video.codec_context.colorspace = recipe.colorspace
        if recipe.full_range:
            video.codec_context.color_range = ColorRange.JPEG.value
        audio = file.add_stream(recipe.audio, rate=48000, layout=recipe.layout) if recipe.audio else None
        packets = []
        pts = round(recipe.video_start / base)
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(index), "rgb24")
            kind = Colorspace.ITU709 if recipe.colorspace == 1 else Colorspace.ITU601
            limits = ColorRange.JPEG if recipe.full_range else ColorRange.MPEG
            frame = frame.reformat(format=recipe.format, dst_colorspace=kind, dst_color_range=limits)
            frame.pts, frame.time_base = pts, base
            pts += recipe.ticks[index % len(recipe.ticks)] if recipe.ticks else 1
            packets += video.encode(frame)
        packets += video.encode(None)
        if audio:
            channels = audio.codec_context.layout.nb_channels
            seconds = FRAMES / RATE
            t = np.arange(int(48000 * seconds)) / 48000
            tones = [0.3 * np.sin(2 * np.pi * (300 + 170 * c) * t * (1 + 0.2 * t)) for c in range(channels)]
            samples = (np.stack(tones, -1) * 32767).astype(np.int16).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=recipe.layout)
            frame.sample_rate, frame.pts = 48000, round(recipe.audio_start * 48000)
            frame.time_base = fractions.Fraction(1, 48000)
            packets += audio.encode(frame)
            packets += audio.encode(None)
        for packet in sorted((p for p in packets if p.dts is not None), key=lambda p: p.dts * p.time_base):
            file.mux(packet)


def cut(source, target, seconds):
    """Copies what shows the film from `seconds` on: packets from the key frame before, at negative times."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        copies = {s.index: new.add_stream_from_template(s) for s in old.streams}
        old.seek(int(seconds * av.time_base))
        for packet in old.demux():
            if packet.dts is None:
                continue
            shift = round(seconds / packet.time_base)
            if packet.stream.type == "audio" and packet.pts < shift:
                continue
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = copies[packet.stream.index]
            new.mux(packet)


class Film:
    """All that PyAV makes of a file."""

    def __init__(self, path):
        with av.open(str(path)) as file:
            streams = [s for s in (*file.streams.video[:1], *file.streams.audio[:1])]
            self.zero = min(s.start_time * s.time_base for s in streams)
            streams[0].thread_type = "NONE"  # its threads were seen to wait for one another forever
            self.frames = list(file.decode(video=0))
        self.times = [float(f.pts * f.time_base - self.zero) for f in self.frames]
        if path.suffix == ".avi":  # has no presentation times: what PyAV gives is a guess, and one frame late with H.264
            self.times = [index / RATE for index in range(len(self.frames))]
        self.rate, self.samples, self.sound_start = 0, np.zeros((0, 0), np.float32), 0.0
        with av.open(str(path)) as file:
            if file.streams.audio:
                frames = list(file.decode(audio=0))
                self.rate = frames[0].sample_rate
                self.sound_start = float(frames[0].pts * frames[0].time_base - self.zero)
                self.samples = np.concatenate([self.to_float(f) for f in frames])

    @staticmethod
    def to_float(frame):
        samples, channels = frame.to_ndarray(), frame.layout.nb_channels
        samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
        return samples.astype(np.float32) / (1 if samples.dtype.kind == "f" else 2.0 ** (8 * samples.itemsize - 1))

    def read(self, count, keys, start, duration):
        end = start + duration if duration >= 0 else np.inf
        shown = [i for i, t in enumerate(self.times) if start - 1e-6 <= t < end - 1e-6 and (self.frames[i].key_frame or not keys)]
        if count:
            shown = [shown[(2 * i + 1) * len(shown) // (2 * count)] for i in range(count if shown else 0)]
        return shown

    def sound(self, start, duration):
        if not self.rate:
            return self.samples
        whole = self.samples
        late = round(self.sound_start * self.rate)
        whole = np.pad(whole, ((late, 0), (0, 0))) if late > 0 else whole[-late:] if late < 0 else whole
        return whole[round(start * self.rate) :][: round(duration * self.rate) if duration >= 0 else None]


def read_result(path):
    content = path.read_bytes()
    count, height, width, rate, channels, samples = np.frombuffer(content, np.int32, 6)
    times = np.frombuffer(content, np.float64, count, 24)
    pixels = np.frombuffer(content, np.uint8, count * height * width * 3, 24 + times.nbytes)
    sound = np.frombuffer(content, np.float32, samples, 24 + times.nbytes + pixels.nbytes)
    return times, pixels.reshape(count, height, width, 3), rate, sound.reshape(-1, max(channels, 1))


def compare(name, film, read, size, result):
    """Complaints about one read, and its worst mean difference of a frame."""
    times, pixels, rate, sound = result
    shown = film.read(*read)
    expected = [film.times[i] for i in shown]
    problems, worst = [], 0.0
    if not len(times) and not shown:  # refused, as it should be
        return problems, worst
    if len(times) != len(shown) or not np.allclose(times, expected, atol=1e-6):
        return [f"times {np.round(times, 3).tolist()}, expected {np.round(expected, 3).tolist()}"], worst
    for index, frame in zip(shown, pixels):
        kind = {"width": size, "height": size} if size else {}
        reference = film.frames[index].reformat(**kind, format="rgb24", interpolation="BILINEAR").to_ndarray()
        worst = max(worst, np.abs(frame.astype(np.int16) - reference).mean())
    if worst > 1:
        problems.append(f"a frame differs by {worst:.2f} grey levels on average")
    wanted = film.sound(*read[2:])
    if rate != film.rate:
        problems.append(f"rate {rate}, expected {film.rate}")
    elif wanted.size and wanted.shape != sound.shape:
        problems.append(f"sound {sound.shape}, expected {wanted.shape}")
    elif wanted.size:
        for channel in range(wanted.shape[1]):
            if wanted[:, channel].std() < 1e-3:
                continue
            correlation = np.corrcoef(wanted[:, channel], sound[:, channel])[0, 1]
            if not correlation > 0.999:
                problems.append(f"channel {channel}: correlation {correlation:.5f}")
    return problems, worst


def main():
    program = parity.parse_driver(__doc__)
    failures = 0
    with tempfile.TemporaryDirectory(prefix="mmtrain_video_") as folder:
        folder = pathlib.Path(folder)
        files = {}
        for name, recipe in RECIPES.items():
            try:
                av.codec.Codec(recipe.codec, "w"), recipe.audio and av.codec.Codec(recipe.audio, "w")
            except av.codec.codec.UnknownCodecError:
                print(f"{name}: this PyAV has no encoder {recipe.codec} or {recipe.audio}")
                continue
            path = folder / f"{name}.{recipe.suffix}"
            write(path, recipe)
            if recipe.cut:
                whole = path.rename(folder / f"whole_{path.name}")
                cut(whole, path, recipe.cut)
            files[name] = path
        for place in filter(None, os.environ.get("MMTRAIN_VIDEO_DIRS", "").split(":")):
            files |= {p.name: p for p in sorted(pathlib.Path(place).iterdir()) if p.is_file()}
        numbers = itertools.count()
        jobs = []
        for name, path in files.items():
            for read in READS:
                for size in (0, SIZE):
                    jobs.append((name, read, size, folder / f"{next(numbers)}.out"))
        lines = []
        for name, (count, keys, start, duration), size, output in jobs:
            lines.append(f"{files[name]} {output} {count} {keys} {start} {duration} {size} {size}\n")
        done = subprocess.run([program], input="".join(lines), text=True)
        if done.returncode:
            sys.exit(f"{program} failed with exit code {done.returncode}")
        film, shown_name, worst = None, "", 0.0
        for name, read, size, output in jobs:
            if name != shown_name:
                film, shown_name, worst, failed_before = Film(files[name]), name, 0.0, failures
            problems, difference = compare(name, film, read, size, read_result(output))
            output.unlink()
            worst = max(worst, difference)
            for problem in problems:
                print(f"FAILED {name} {read} size {size}: {problem}")
            failures += bool(problems)
            if (read, size) == (READS[-1], SIZE):
                verdict = "ok" if failures == failed_before else "FAILED"
                print(f"{verdict} {name}: {len(film.frames)} frames, largest mean difference {worst:.3f}")
    print(f"{failures} of {len(jobs)} reads differ")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
