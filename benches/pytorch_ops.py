"""Speed of single operations beside PyTorch's, forward and backward, in turns.

    pip install torch numpy
    cargo build --release
    python benches/pytorch_ops.py --rounds 5 layer_norm gelu

Each round runs `ringtape bench op NAME --json` and then the same shapes here, once for each number of threads; the table
has the median of the rounds' medians. A forward runs without a graph on both sides; a backward is the sweep alone, from a
given gradient of the output to the gradients of every real input. GB/s count each operand and each result once, and stand
beside `copy`, which ringtape measures in the same runs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F


def normal(*dims):
    return torch.randn(*dims)


def ids(limit, *dims):
    return torch.randint(limit, dims)


def shapes():
    """For each op, in the order of its large samples: what it is run on, the inputs, and the call."""
    n = normal
    return {
        "layer_norm": [("4096 x 128", [n(4096, 128), n(128), n(128)], lambda x, w, b: F.layer_norm(x, [128], w, b))],
        "rms_norm": [("4096 x 128", [n(4096, 128), n(128)], lambda x, w: F.rms_norm(x, [128], w))],
        "gelu": [
            ("4096 x 512", [n(4096, 512)], F.gelu),
            ("4096 x 512, tanh", [n(4096, 512)], lambda x: F.gelu(x, approximate="tanh")),
        ],
        "softmax": [
            ("4096 x 256", [n(4096, 256)], lambda x: x.softmax(-1)),
            ("middle of 64 x 256 x 64", [n(64, 256, 64)], lambda x: x.softmax(1)),
        ],
        "log_softmax": [
            ("4096 x 256", [n(4096, 256)], lambda x: x.log_softmax(-1)),
            ("middle of 64 x 256 x 64", [n(64, 256, 64)], lambda x: x.log_softmax(1)),
        ],
        "cross_entropy": [
            ("4096 x 256", [n(4096, 256), ids(256, 4096)], F.cross_entropy),
            ("4096 x 83", [n(4096, 83), ids(83, 4096)], F.cross_entropy),
        ],
        "dropout": [("4096 x 512", [n(4096, 512)], lambda x: F.dropout(x, 0.1))],
        "embedding": [("16 x 256 of 256, width 128", [ids(256, 16, 256), n(256, 128)], F.embedding)],
        "mse_loss": [("4096 x 512", [n(4096, 512), n(4096, 512)], F.mse_loss)],
        "max_pool2d": [("64 x 16 x 28 x 28", [n(64, 16, 28, 28)], lambda x: F.max_pool2d(x, 2))],
        "gather": [
            ("one of 256 in 4096 rows", [n(4096, 256), ids(256, 4096, 1)], lambda x, i: x.gather(1, i)),
            ("4096 x 512 along rows", [n(4096, 512), ids(4096, 4096, 512)], lambda x, i: x.gather(0, i)),
        ],
        "scaled_dot_product_attention": [
            (
                f"{b} x 4 heads x {t} x {d}",
                [n(b, 4, t, d) for _ in range(3)],
                lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
            )
            for b, t, d in [(16, 256, 32), (1, 1024, 64), (1, 2048, 64), (1, 4096, 64), (1, 8192, 64)]
        ],
        "scatter_add": [
            (
                "4096 x 512 along columns",
                [n(4096, 512), ids(512, 4096, 512), n(4096, 512)],
                lambda x, i, s: x.scatter_add(1, i, s),
            ),
        ],
    }


def timed(run, seconds):
    """Median seconds of `run`, which gives the time of the part that counts."""
    run(), run()
    times, spent = [], time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - spent < seconds and len(times) < 500):
        times.append(run())
    return statistics.median(times)


def theirs(inputs, call, seconds):
    """PyTorch's seconds forward and backward."""
    real = [x.detach().requires_grad_() if x.is_floating_point() else x for x in inputs]
    wanted = [x for x in real if x.requires_grad]

    def forward():
        with torch.no_grad():
            start = time.perf_counter()
            call(*real)
            return time.perf_counter() - start

    seed = torch.ones_like(call(*real))

    def backward():
        y = call(*real)
        start = time.perf_counter()
        torch.autograd.grad(y, wanted, seed)
        return time.perf_counter() - start

    return timed(forward, seconds), timed(backward, seconds)


def ours(binary, op, threads, seconds):
    """The cases of one run of `ringtape bench op`: (what, forward or backward) -> timing; and bytes a second of copy."""
    command = [binary, "bench", "op", op, "--json", "--quiet", "--seconds", str(seconds)]
    out = subprocess.run(command, env={**os.environ, "RAYON_NUM_THREADS": str(threads)}, capture_output=True, check=True)
    cases = json.loads(out.stdout)["cases"]
    copy = next(c for c in cases if c["name"] == "copy")
    found = [(c["what"].split(", ", 1), c) for c in cases if c["name"] == op]
    return [(w[0], w[1], c) for w, c in found], copy["bytes"] / copy["min"]


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("ops", nargs="*", help="all that are known when none is named")
    a.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--seconds", type=float, default=0.2, help="for each case of each round")
    a.add_argument("--binary", default="target/release/ringtape")
    a = a.parse_args()
    torch.manual_seed(0)
    known = shapes()
    rows = {}  # (op, what, way, threads) -> ours, theirs, GB/s, copy
    for _ in range(a.rounds):
        for threads in a.threads:
            torch.set_num_threads(threads)
            for op in a.ops or known:
                measured, copy = ours(a.binary, op, threads, a.seconds)
                for k, (what, inputs, call) in enumerate(known[op]):
                    mine = measured[2 * k : 2 * k + 2]
                    for (way, note, case), other in zip(mine, theirs(inputs, call, a.seconds)):
                        if not what.startswith(note):
                            sys.exit(f"{op}: ringtape measured `{note}`, not `{what}`")
                        row = rows.setdefault((op, what, way, threads), ([], [], [], [], case["bytes"]))
                        for column, value in zip(row, (case["median"], other, case["min"], copy)):
                            column.append(value)
    print("| op | on | way | threads | ringtape µs (best) | PyTorch µs (best) | ratio | GB/s | of copy |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (op, what, way, threads), (mine, other, best, copy, size) in sorted(rows.items(), key=lambda r: (r[0][0], r[0][1], r[0][2] != "forward", r[0][3])):
        m, o, rate = statistics.median(mine), statistics.median(other), max(copy)
        print(
            f"| {op} | {what} | {way} | {threads} | {m * 1e6:.0f} ({min(best) * 1e6:.0f}) | {o * 1e6:.0f} ({min(other) * 1e6:.0f}) "
            f"| {o / m:.2f} | {size / m / 1e9:.1f} | {size / m / rate:.0%} |"
        )


if __name__ == "__main__":
    main()
