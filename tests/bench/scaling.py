"""Two replicas beside the ceiling of the machine and beside Python's DistributedDataParallel, in turn.

    python tests/bench/scaling.py build/bin/mmtrain_bench --rounds 9 --seconds 6 --nets PEER_NETS.py --out rounds.jsonl

The ceiling is what two processes that know nothing of each other reach at the same time, with one device and one thread
each: the sum of their samples per second. PEER_NETS.py has `case("c_transformer")`, Python's form of transformer128.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def value(output):
    return json.loads(next(line for line in output.splitlines() if line.startswith("{")))["value"]


def together(commands):
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    outputs = [each.communicate()[0] for each in started]
    if any(each.returncode for each in started):
        sys.exit(f"failed: {commands}")
    return sum(value(output) for output in outputs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--batch_size", type=int, default=32, help="of each replica")
    parser.add_argument("--nets", help="file of Python's transformer128")
    parser.add_argument("--models", nargs="+", default=["residual", "transformer128"])
    parser.add_argument("--out", help="file to append the rounds to")
    args = parser.parse_args()
    for model in args.models:
        sizes = ["--width", "0.25"] if model == "residual" else []
        common = ["--seconds", str(args.seconds), "--batch_size", str(args.batch_size)]
        ours = [args.bench, "scaling", "--model", model, *sizes, *common, "--threads_per_replica", "1", "--replicas"]
        name = ["--model", "c_transformer", "--nets", args.nets] if model == "transformer128" else ["--model", model]
        python = [sys.executable, str(HERE / "peer_ddp.py"), *name, *sizes, *common]
        settings = {
            "replicas": lambda: together([[*ours, "2"]]),
            "ceiling": lambda: together([[*ours, "1"], [*ours, "1"]]),
            "ddp": lambda: together([python]),
        }
        rounds = []
        for number in range(args.rounds):
            order = list(settings)[number % 3 :] + list(settings)[: number % 3]
            rounds.append({key: settings[key]() for key in order})
            print(model, number, {key: round(rate, 1) for key, rate in rounds[-1].items()}, flush=True)
        for other in ("ceiling", "ddp"):
            ratios = [each["replicas"] / each[other] for each in rounds]
            print(f"{model}: replicas / {other} {statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})")
        if args.out:
            with open(args.out, "a", encoding="utf-8") as file:
                file.write(json.dumps({"model": model, "rounds": rounds}) + "\n")


if __name__ == "__main__":
    main()
