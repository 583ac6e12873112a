"""Matrix products of a GPT training step: ringtape, the crates `matrixmultiply` and `gemm`, and PyTorch, in turns.

    pip install torch numpy
    cargo build --release --manifest-path benches/compare/Cargo.toml --target-dir target/compare
    python benches/pytorch_gemm.py --threads 1 2

The table has GFLOP/s of the median of all rounds, and the ratio of ringtape's to the best of the others.
"""

import argparse
import json
import math
import statistics
import subprocess
import time

import torch


def shapes(dim, rows=4096):
    """Forward products x·Wᵀ, the gradients of x and of W; W is [out, in]."""
    found = []
    for name, i, o in [("qkv", dim, 3 * dim), ("projection", dim, dim), ("up", dim, 4 * dim), ("down", 4 * dim, dim), ("head", dim, 256)]:
        found += [
            (f"{name} {dim}", rows, i, o, "nt"),
            (f"dx {name} {dim}", rows, o, i, "nn"),
            (f"dw {name} {dim}", o, rows, i, "tn"),
        ]
    return found


SMALL = [
    ("Q·Kᵀ tile", 64, 32, 64, "nt"),
    ("P·V tile", 64, 64, 32, "nn"),
    ("Pᵀ·dO tile", 64, 64, 32, "tn"),
    ("Q·Kᵀ tile, d 64", 64, 64, 64, "nt"),
    ("scores of a head", 256, 32, 256, "nt"),
]


def theirs(m, k, n, form, seconds):
    a = torch.randn(k, m).t() if form == "tn" else torch.randn(m, k)
    b = torch.randn(n, k).t() if form == "nt" else torch.randn(k, n)
    c = torch.empty(m, n)
    bundle = math.ceil(2.5e6 / (m * k * n))
    times, start = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < seconds / 3:
        begin = time.perf_counter()
        for _ in range(bundle):
            torch.mm(a, b, out=c)
        times.append((time.perf_counter() - begin) / bundle)
    return statistics.median(times[2:])


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--seconds", type=float, default=0.2, help="for each product of each round")
    a.add_argument("--binary", default="target/compare/release/compare")
    a = a.parse_args()
    for threads in a.threads:
        torch.set_num_threads(threads)
        cases = shapes(128) + shapes(256) + (SMALL if threads == 1 else [])
        rows = {name: {} for name, *_ in cases}
        for _ in range(a.rounds):
            for name, m, k, n, form in cases:
                command = [a.binary, str(threads), str(a.seconds), f"case:{m}x{k}x{n}:{form}"]
                found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["case"]
                seconds = {library: t["median"] for library, t in found.items()}
                seconds["PyTorch"] = theirs(m, k, n, form, a.seconds)
                for library, s in seconds.items():
                    rows[name].setdefault(library, []).append(s)
        print(f"\n| {threads} thread{'s' * (threads > 1)} | m×k×n | ringtape | matrixmultiply | gemm | PyTorch | of the best |")
        print("|---|---|---|---|---|---|---|")
        ratios = []
        for name, m, k, n, _ in cases:
            rate = {library: 2e-9 * m * k * n / statistics.median(s) for library, s in rows[name].items()}
            ratios.append(rate["ringtape"] / max(v for library, v in rate.items() if library != "ringtape"))
            numbers = " | ".join(f"{rate[x]:.0f}" for x in ("ringtape", "matrixmultiply", "gemm", "PyTorch"))
            print(f"| {name} | {m}×{k}×{n} | {numbers} | {ratios[-1]:.2f} |")
        print(f"\nGeometric mean of the ratios to the best: {math.exp(statistics.mean(map(math.log, ratios))):.3f}, least {min(ratios):.2f}")


if __name__ == "__main__":
    main()
