"""Python's DistributedDataParallel as the peer of `mmtrain_bench scaling`: processes of one thread each, Gloo.

    python tests/bench/peer_ddp.py --model residual --width 0.25 --batch_size 32 --replicas 2

Takes the nets and flags of peer_step.py; the batch is that of each process. Prints one line of JSON: the samples per
second of all processes together, the median over steps.
"""

import json
import os
import statistics
import sys
import time

import torch
from torch import distributed, multiprocessing
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import peer_step


def work(rank, args, port, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    distributed.init_process_group("gloo", rank=rank, world_size=args.replicas)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model, inputs, target = peer_step.make(args)
    if args.memory_format == "channels_last":
        model = model.to(memory_format=torch.channels_last)
        inputs = [x.to(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs]
    model.train()
    parallel = DistributedDataParallel(model)
    optimizer = peer_step.make_optimizer(args, model.parameters())

    def step():
        F.cross_entropy(parallel(*inputs), target).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(3):
        step()
    start = time.perf_counter()
    step()
    # The same number of steps on every rank.
    steps = torch.tensor([max(3, int(args.seconds / (time.perf_counter() - start)))])
    distributed.broadcast(steps, 0)
    times = []
    for _ in range(int(steps)):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    if rank == 0:
        results.put(args.replicas * target.size(0) / statistics.median(times))
        results.close()
        results.join_thread()
    distributed.barrier()
    sys.stdout.flush()
    os._exit(0)  # the ends of DDP's reducer and of Gloo can wait for each other


def main():
    parser = peer_step.parser()
    parser.add_argument("--replicas", type=int, default=2)
    parser.set_defaults(threads=1)
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    port = 20000 + os.getpid() % 20000
    ranks = [context.Process(target=work, args=(rank, args, port, results)) for rank in range(args.replicas)]
    for rank in ranks:
        rank.start()
    rate = results.get(timeout=600)
    for rank in ranks:
        rank.join()
    print(json.dumps({"name": f"ddp/{args.model}", "value": rate, "unit": "samples/s"}))


if __name__ == "__main__":
    main()
