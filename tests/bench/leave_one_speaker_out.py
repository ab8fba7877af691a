"""Makes a leave-one-speaker-out split of a data set in MELD's layout, and trains on each part.

    python tests/bench/leave_one_speaker_out.py --data_dir emotion-mini --out loso
    python tests/bench/leave_one_speaker_out.py --data_dir emotion-mini --out loso --train build/bin/train -- --epochs 30

For each speaker a folder OUT/<speaker>/ in MELD's layout: that speaker is the test split, the next one dev, the others
train. Clips are symbolic links, renumbered, since numbers are unique in a split only. With --train, runs the program on
each (everything behind -- is passed on) and prints weighted F1 of each speaker and of all test clips together.
"""

import argparse
import csv
import json
import pathlib
import re
import subprocess
import sys

SPLITS = ("train", "dev", "test")


def find_clips(root, split):
    """{(dialogue, utterance): path} of the folder that speaks of the split; the corrected ones win."""
    clips = {}
    for path in sorted(root.rglob("*.mp4")):
        match = re.fullmatch(r"(final_videos_test)?dia(\d+)_utt(\d+)\.mp4", path.name)
        if match and split in str(path.parent.relative_to(root)).lower():
            key = int(match[2]), int(match[3])
            if match[1] or key not in clips:
                clips[key] = path
    return clips


def read_rows(root):
    """All rows of all splits with their clip, and the fields' names."""
    rows, names = [], None
    for split in SPLITS:
        clips = find_clips(root, split)
        annotations = next(root.rglob(f"{split}_sent_emo.csv"))
        with open(annotations, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            names = names or reader.fieldnames
            for row in reader:
                clip = clips.get((int(row["Dialogue_ID"]), int(row["Utterance_ID"])))
                if clip:
                    rows.append((row, clip))
    return rows, names


def write_fold(folder, test_speaker, speakers, rows, names):
    dev_speaker = speakers[(speakers.index(test_speaker) + 1) % len(speakers)]
    for split in SPLITS:
        clips = folder / f"{split}_splits"
        clips.mkdir(parents=True, exist_ok=True)
        kept = []
        for row, clip in rows:
            of = {test_speaker: "test", dev_speaker: "dev"}.get(row["Speaker"], "train")
            if of != split:
                continue
            number = len(kept)
            kept.append(dict(row, Dialogue_ID=number // 20, Utterance_ID=number % 20))
            link = clips / f"dia{number // 20}_utt{number % 20}.mp4"
            link.unlink(missing_ok=True)
            link.symlink_to(clip.resolve())
        with open(folder / f"{split}_sent_emo.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(kept)


def weighted_f1(confusion):
    total, score = sum(map(sum, confusion)), 0.0
    for k, row in enumerate(confusion):
        support, predicted = sum(row), sum(other[k] for other in confusion)
        if support:
            score += support * 2 * row[k] / (support + predicted)
    return score / total


def train(program, folder, flags):
    interpreter = [sys.executable] if program.endswith(".py") else []
    command = [*interpreter, program, "--data_dir", folder, "--save_dir", folder / "runs", "--log_dir", "", *flags]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{program} failed on {folder}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    result = json.loads(done.stdout.strip().splitlines()[-1].removeprefix("result "))
    return json.loads((pathlib.Path(result["run_dir"]) / "test_results.json").read_text())["confusion_matrix"]


def main():
    own, passed = sys.argv[1:], []
    if "--" in own:
        own, passed = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--train", help="program to run on each part: ours, or tests/bench/peer_emotion.py")
    args = parser.parse_args(own)
    rows, names = read_rows(args.data_dir)
    speakers = sorted({row["Speaker"] for row, _ in rows})
    if len(speakers) < 3:
        sys.exit(f"{len(speakers)} speakers are too few for train, dev and test")
    pooled = None
    for speaker in speakers:
        folder = args.out / speaker
        write_fold(folder, speaker, speakers, rows, names)
        if not args.train:
            continue
        confusion = train(args.train, folder, passed)
        pooled = confusion if pooled is None else [[a + b for a, b in zip(*pair)] for pair in zip(pooled, confusion)]
        print(f"{speaker}: weighted F1 {weighted_f1(confusion):.4f}", flush=True)
    if pooled:
        print(json.dumps(dict(name="leave_one_speaker_out", value=weighted_f1(pooled), unit="weighted F1")))


if __name__ == "__main__":
    main()
