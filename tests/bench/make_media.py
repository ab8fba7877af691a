"""Makes what the media benchmarks read: the same bytes each time, as far as the encoders give them.

    python tests/bench/make_media.py OUT [--clips 8] [--sounds 60]

OUT/sounds: recordings of 3-10 s, 16 kHz mono, wav. OUT/clips: 3 s of 1280x720 at 24 frames/s, H.264 with B-frames, AAC
stereo at 48 kHz, mp4: what a scene of a series looks like to a decoder. What is there already is not made again.
"""

import argparse
import fractions
import pathlib

import av
import numpy as np
import soundfile

RATE, SECONDS, SOUND_RATE = 24, 3, 48000


def make_sound(path, rng, rate=16000):
    length = int(rng.uniform(3, 10) * rate)
    t = np.arange(length) / rate
    pitch = 110 * (1 + 0.3 * np.sin(2 * np.pi * 0.7 * t)) * rng.uniform(0.8, 2)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(np.sin(h * phase) / h for h in range(1, 12)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))
    soundfile.write(path, (0.2 * (voice + 0.05 * rng.standard_normal(length))).astype(np.float32), rate, subtype="PCM_16")


def pictures(number):
    """Frames of a test pattern or a fractal, with grain: the one is easy, the other hard to predict."""
    graph = av.filter.Graph()
    if number % 2:
        source = graph.add("mandelbrot", f"size=1280x720:rate={RATE}:start_scale={3 / (1 + number)}:start_x=-0.743643887:start_y=-0.131825904")
    else:
        source = graph.add("testsrc2", f"size=1280x720:rate={RATE}")
    chain = [source, graph.add("noise", f"alls=6:allf=t:all_seed={100 + number}"), graph.add("hue", f"h={9 * number}"),
             graph.add("format", "pix_fmts=yuv420p"), graph.add("buffersink")]
    for left, right in zip(chain, chain[1:]):
        left.link_to(right)
    graph.configure()
    for _ in range(RATE * SECONDS):
        frame = graph.pull()
        frame.pict_type = av.video.frame.PictureType.NONE  # the source calls all of its frames key frames
        yield frame


def make_clip(path, number):
    rng = np.random.default_rng(number)
    t = np.arange(SOUND_RATE * SECONDS) / SOUND_RATE
    tone = 0.1 * np.sin(2 * np.pi * (150 + 20 * number) * t)
    stereo = (tone + 0.05 * rng.standard_normal((2, t.size))).astype(np.float32)
    partial = path.with_suffix(".part")
    with av.open(partial, "w", format="mp4") as file:
        video = file.add_stream("libx264", rate=RATE, options={"preset": "medium", "crf": "26"})
        video.width, video.height, video.pix_fmt = 1280, 720, "yuv420p"
        sound = file.add_stream("aac", rate=SOUND_RATE, layout="stereo", bit_rate=128_000)
        for index, frame in enumerate(pictures(number)):
            frame.pts, frame.time_base = index, fractions.Fraction(1, RATE)
            file.mux(video.encode(frame))
        for begin in range(0, t.size, 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(stereo[:, begin : begin + 1024]), "fltp", "stereo")
            frame.pts, frame.sample_rate, frame.time_base = begin, SOUND_RATE, fractions.Fraction(1, SOUND_RATE)
            file.mux(sound.encode(frame))
        file.mux(video.encode(None))
        file.mux(sound.encode(None))
    partial.rename(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--sounds", type=int, default=60)
    args = parser.parse_args()
    sounds, clips = args.out / "sounds", args.out / "clips"
    sounds.mkdir(parents=True, exist_ok=True)
    clips.mkdir(exist_ok=True)
    for number in range(args.sounds):
        path = sounds / f"u{number:03}.wav"
        if not path.exists():
            make_sound(path, np.random.default_rng(1000 + number))
    for number in range(args.clips):
        path = clips / f"dia{number // 5}_utt{number % 5}.mp4"
        if not path.exists():
            make_clip(path, number)


if __name__ == "__main__":
    main()
