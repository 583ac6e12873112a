"""Windowed and dynamic attention beside PyTorch's dense attention and its blocked window, forward and backward, in turns.

    pip install torch numpy
    cargo build --release
    python benches/pytorch_attention.py --rounds 3 --tokens 8192 16384

4 heads of 64, causal, f32, batch 1. PyTorch: `scaled_dot_product_attention` (dense), and an exact window of 256 by blocks of
256 queries against two blocks of keys with a mask, the usual way without a kernel of one's own. ringtape: `bench attention`,
hashing and votes included. A round runs one after the other; medians. Memory, for one forward and backward: of PyTorch the
peak of the process above that before the call, of ringtape the most that its pool had handed out beside the inputs (results
and gradients count in both).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

WINDOW = 256
HEADS, WIDTH = 4, 64


def torch_window(q, k, v):
    """Exact causal window: query block i against key blocks i-1 and i."""
    import torch
    import torch.nn.functional as F

    b, h, t, d = q.shape
    n = t // WINDOW
    split = lambda x: x.view(b, h, n, WINDOW, d)
    before = lambda x: torch.cat([torch.zeros_like(x[:, :, :1]), x[:, :, :-1]], 2)
    q, k, v = split(q), split(k), split(v)
    k, v = torch.cat([before(k), k], 3), torch.cat([before(v), v], 3)
    i = torch.arange(WINDOW)[:, None] + WINDOW
    j = torch.arange(2 * WINDOW)[None]
    mask = (j <= i) & (j > i - WINDOW)
    first = mask & (j >= WINDOW)
    mask = torch.cat([first[None], mask[None].expand(n - 1, -1, -1)])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).view(b, h, t, d)


def one(kind, t, threads):
    """Seconds of a forward and backward, and peak bytes above those before, in this process."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    x = [torch.randn(1, HEADS, t, WIDTH, requires_grad=True) for _ in range(3)]
    dy = torch.ones(1, HEADS, t, WIDTH)
    run = {"dense": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), "window": torch_window}[kind]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(4):
        for p in x:
            p.grad = None
        start = time.perf_counter()
        run(*x).backward(dy)
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return statistics.median(times[1:]), peak * 1024


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--seconds", type=float, default=1.0, help="time for each case of ringtape in a round")
    a.add_argument("--tokens", type=int, nargs="+", default=[8192, 16384])
    a.add_argument("--binary", default="target/release/ringtape")
    a.add_argument("--one", nargs=2, metavar=("KIND", "TOKENS"), help=argparse.SUPPRESS)
    a = a.parse_args()
    if a.one:
        print(json.dumps(one(a.one[0], int(a.one[1]), a.threads)))
        return
    ours, theirs, peaks, pools = {}, {}, {}, {}
    for _ in range(a.rounds):
        for t in a.tokens:
            for kind in ["dense", "window"]:
                command = [sys.executable, __file__, "--one", kind, str(t), "--threads", str(a.threads)]
                seconds, peak = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
                theirs.setdefault((kind, t), []).append(seconds)
                peaks[kind, t] = peak
        env = {**os.environ, "RAYON_NUM_THREADS": str(a.threads)}
        command = [a.binary, "bench", "attention", "--json", "--seconds", str(a.seconds)]
        out = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True).stdout
        for case in json.loads(out)["cases"]:
            if case["name"] == "attention":
                what, tokens, *_ = case["what"].rsplit(", ", 2)
                ours.setdefault((what, int(tokens.split()[0])), []).append(case["median"])
                pools[what, int(tokens.split()[0])] = case["memory"]
    print("| tokens | PyTorch dense ms | PyTorch window ms | dense | window | dynamic | window / PyTorch's | dense / dynamic |")
    print("|---|---|---|---|---|---|---|---|")
    mine = lambda what, t: statistics.median(ours[what, t]) if (what, t) in ours else float("nan")
    for t in sorted({t for _, t in ours}):
        dense, window, dynamic = mine("dense", t), mine("window 256", t), mine("window 256, 8 blocks by LSH", t)
        d, w = [statistics.median(theirs[k, t]) if (k, t) in theirs else float("nan") for k in ("dense", "window")]
        cells = [1e3 * x for x in (d, w, dense, window, dynamic)]
        print(f"| {t} | " + " | ".join(f"{x:.0f}" for x in cells) + f" | {w / window:.2f} | {d / dynamic:.2f} |")
    for (what, t), peak in sorted(pools.items()):
        print(f"{what}, {t} tokens: {peak / 2**20:.0f} MiB above the inputs")
    for (kind, t), peak in sorted(peaks.items()):
        print(f"PyTorch {kind}, {t} tokens: {peak / 2**20:.0f} MiB above the inputs")


if __name__ == "__main__":
    main()
