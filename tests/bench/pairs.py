"""Runs two commands in turn and compares the figures they print: noise of a shared machine then hits both.

    python tests/bench/pairs.py --pairs 9 --out pairs.jsonl -- OURS... -- PEER...

Each command prints JSON lines; the `value` of its first one counts (what `mmtrain_bench` and the peers here print). The
median ratio ours / peer is the result; the raw pairs are kept.
"""

import argparse
import json
import statistics
import subprocess
import sys


def value(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        sys.exit(f"failed: {' '.join(command)}\n{done.stdout}{done.stderr}")
    return json.loads(lines[0])["value"]


def main():
    if sys.argv.count("--") != 2:
        sys.exit(__doc__)
    first = sys.argv.index("--")
    second = sys.argv.index("--", first + 1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--out", help="file to append the raw pairs to, as a JSON line")
    args = parser.parse_args(sys.argv[1:first])
    ours, peer = sys.argv[first + 1 : second], sys.argv[second + 1 :]
    pairs = []
    for number in range(args.pairs):
        # In turn who comes first: what the other left in caches and clocks then favors neither.
        pairs.append((value(ours), value(peer)) if number % 2 == 0 else (value(peer), value(ours))[::-1])
    left, right = (statistics.median(column) for column in zip(*pairs))
    ratios = [a / b for a, b in pairs]
    ratio = statistics.median(ratios)
    print(f"{left:10.1f} {right:10.1f}  ratio {ratio:.3f}  ({min(ratios):.3f}-{max(ratios):.3f})")
    if args.out:
        with open(args.out, "a", encoding="utf-8") as file:
            file.write(json.dumps(dict(ours=ours, peer=peer, ratio=ratio, pairs=pairs)) + "\n")


if __name__ == "__main__":
    main()
