"""bf16 beside f32, ringtape and PyTorch in turns: the training step of a character GPT, and its matrix products.

    pip install torch numpy
    cargo build --release
    python benches/pytorch_bf16.py --dims 256 --threads 2 1 --rounds 5

Steps are those of `pytorch_turns.py`; PyTorch's bf16 is autocast around forward and loss. Products start from f32 on both
sides: ringtape's rounds while it packs and gives f32; PyTorch's casts both operands and gives bf16, as autocast does
(its second figure is the product alone, of operands that were cast before).
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from pytorch_turns import HERE, ours, run, text


def step(a, precision, dim, threads):
    """Tokens a second of one run of `pytorch_step.py`."""
    script = [sys.executable, str(HERE / "pytorch_step.py"), "--threads", str(threads), "--steps", str(a.steps)]
    script += ["--dim", str(dim), "--heads", str(dim // 32), "--precision", precision]
    return json.loads(run(script, threads)[1])["tokens_per_s"]


def steps(a, scratch):
    """Tokens a second by case and program, a list over the rounds."""
    data = pathlib.Path(scratch) / "letters.rtd"
    text(data.with_suffix(".txt"))
    run([a.binary, "data", "pack", str(data.with_suffix(".txt")), "--out", str(data)], 1)
    found = {}
    for turn in range(a.rounds):
        for dim, threads in [(d, t) for d in a.dims for t in a.threads]:
            rates = found.setdefault((dim, threads), {})
            for precision in ["f32", "bf16"]:
                mine = argparse.Namespace(binary=a.binary, steps=a.steps, precision=precision)
                rate, _ = ours(mine, data, f"{scratch}/{turn}-{dim}-{threads}-{precision}", dim, threads)
                rates.setdefault(f"ringtape {precision}", []).append(rate)
                rates.setdefault(f"PyTorch {precision}", []).append(step(a, precision, dim, threads))
    return found


def bench(a, threads):
    """Median seconds of ringtape's products, by precision and by name with extents."""
    command = [a.binary, "bench", "gemm", "--json", "--seconds", str(a.seconds)]
    env = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    out = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    cases = [c for c in json.loads(out)["cases"] if c["name"].startswith("gemm")]
    return {(c["what"], "bf16" if c["name"].endswith("bf16") else "f32"): c["median"] for c in cases}


def products(cases, seconds):
    """Median seconds of PyTorch's products: in f32, in bf16 with both casts, in bf16 alone. They take turns, as those of
    `ringtape bench` do, so that operands are as seldom in the caches."""
    ways, times = [], []
    for what in cases:
        m, k, n = map(int, what.split()[-1].split("x"))
        a = torch.randn(k, m).t() if what.startswith("d weight") else torch.randn(m, k)
        b = torch.randn(k, n) if what.startswith("d ") else torch.randn(n, k).t()
        x, y = a.bfloat16(), b.bfloat16()
        ways += [
            lambda a=a, b=b: a @ b,
            lambda a=a, b=b: a.bfloat16() @ b.bfloat16(),
            lambda x=x, y=y: x @ y,
        ]
    times, start = [[] for _ in ways], time.perf_counter()
    while len(times[0]) < 5 or time.perf_counter() - start < len(ways) * seconds:
        for way, spent in zip(ways, times):
            begin = time.perf_counter()
            way()
            spent.append(time.perf_counter() - begin)
    medians = [statistics.median(t[2:]) for t in times]
    return {what: medians[3 * i : 3 * i + 3] for i, what in enumerate(cases)}


def of_step(what, dims):
    """True for the products of a linear layer of one of these widths."""
    extents = set(map(int, what.split()[-1].split("x")))
    return any(4096 in extents and extents <= {4096, d, 3 * d, 4 * d} for d in dims)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--dims", type=int, nargs="+", default=[256], help="128 and 256 have products too")
    a.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--steps", type=int, default=10, help="steps that are timed in a turn")
    a.add_argument("--seconds", type=float, default=0.1, help="for each product of each round")
    a.add_argument("--binary", default="target/release/ringtape")
    a = a.parse_args()
    programs = ["ringtape f32", "ringtape bf16", "PyTorch f32", "PyTorch bf16"]
    with tempfile.TemporaryDirectory() as scratch:
        print("k tokens/s: median (least–most) of the rounds\n")
        print("| d | threads | " + " | ".join(programs) + " | ours, bf16/f32 | PyTorch's | ours/PyTorch's in bf16 |")
        print("|---|---|---|---|---|---|---|---|---|")
        for (dim, threads), rates in steps(a, scratch).items():
            m = {p: statistics.median(r) / 1e3 for p, r in rates.items()}
            cells = [f"{m[p]:.1f} ({min(rates[p]) / 1e3:.1f}–{max(rates[p]) / 1e3:.1f})" for p in programs]
            ratios = [m[programs[i]] / m[programs[j]] for i, j in [(1, 0), (3, 2), (1, 3)]]
            print(f"| {dim} | {threads} | {' | '.join(cells)} | " + " | ".join(f"{r:.2f}" for r in ratios) + " |", flush=True)
    for threads in a.threads:
        torch.set_num_threads(threads)
        found = {}
        for _ in range(a.rounds):
            mine = bench(a, threads)
            cases = [what for what, precision in mine if precision == "f32" and of_step(what, a.dims)]
            for what, other in products(cases, a.seconds).items():
                found.setdefault(what, []).append([mine[what, "f32"], mine[what, "bf16"], *other])
        print(f"\nGFLOP/s, {threads} thread{'s' * (threads > 1)}\n")
        print("| product | " + " | ".join(programs) + " | PyTorch bf16, cast before | ours, bf16/f32 | ours/PyTorch's in bf16 |")
        print("|---|---|---|---|---|---|---|---|")
        sums = [0.0] * 5
        for what, rows in found.items():
            m, k, n = map(int, what.split()[-1].split("x"))
            medians = [statistics.median(column) for column in zip(*rows)]
            sums = [s + t for s, t in zip(sums, medians)]
            rates = " | ".join(f"{2e-9 * m * k * n / t:.0f}" for t in medians)
            print(f"| {what} | {rates} | {medians[0] / medians[1]:.2f} | {medians[3] / medians[1]:.2f} |")
        total = " | ".join(f"{t * 1e3:.1f} ms" for t in sums)
        print(f"| all, once each | {total} | {sums[0] / sums[1]:.2f} | {sums[3] / sums[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
