"""Speed of a step of AdamW beside PyTorch's fused AdamW, in turns: the weights of a character GPT, and one large matrix.

    pip install torch numpy
    python benches/pytorch_adamw.py --rounds 5

Each round runs `cargo bench --bench parts -- adamw …` and then the same tensors here, once for each number of threads. Both
decay matrices only and have gradients already. The table has the median of the rounds' medians, and the fastest step.
"""

import argparse
import json
import os
import statistics
import subprocess
import time

import torch
from pytorch_gpt import Gpt


def tensors(case):
    """The weights of a case, in PyTorch's groups."""
    if case[0] == "gpt":
        groups = Gpt(256, 256, int(case[1]), int(case[2]), 4).groups(0.1)
    else:
        n = int(case[1])
        groups = [{"params": [torch.nn.Parameter(torch.zeros(n, n))], "weight_decay": 0.1}]
    for group in groups:
        for p in group["params"]:
            p.grad = torch.randn_like(p) * 1e-2
    return groups


def theirs(case, seconds):
    optimizer = torch.optim.AdamW(tensors(case), lr=3e-4, fused=True)
    times, begin = [], time.perf_counter()
    while len(times) < 7 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:]), min(times[2:])


def ours(case, threads):
    command = ["cargo", "bench", "-q", "--bench", "parts", "--", "adamw", *case]
    out = subprocess.run(command, env={**os.environ, "RAYON_NUM_THREADS": str(threads)}, capture_output=True, check=True)
    return json.loads(out.stdout)[0]


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--seconds", type=float, default=0.5)
    a.add_argument("--matrix", type=int, default=8192, help="rows and columns of the large matrix; 0 leaves it out")
    a = a.parse_args()
    cases = [("gpt", "4", "128"), ("gpt", "4", "256")] + ([("matrix", str(a.matrix))] if a.matrix else [])
    rows = {}
    for _ in range(a.rounds):
        for threads in a.threads:
            torch.set_num_threads(threads)
            for case in cases:
                mine, (other, fastest) = ours(case, threads), theirs(case, a.seconds)
                row = rows.setdefault((case, threads), ([], [], [], [], mine["elements"]))
                for column, value in zip(row, (mine["median"], mine["min"], other, fastest)):
                    column.append(value)
    print("| weights | threads | ringtape µs (best) | PyTorch fused µs (best) | ratio | of the best | GB/s |")
    print("|---|---|---|---|---|---|---|")
    for (case, threads), (mine, best, other, fastest, n) in rows.items():
        m, o = statistics.median(mine), statistics.median(other)
        print(
            f"| {' '.join(case)}, {n / 1e6:.2f} M | {threads} | {m * 1e6:.0f} ({min(best) * 1e6:.0f}) "
            f"| {o * 1e6:.0f} ({min(fastest) * 1e6:.0f}) | {o / m:.2f} | {min(fastest) / min(best):.2f} | {28 * n / m / 1e9:.1f} |"
        )


if __name__ == "__main__":
    main()
