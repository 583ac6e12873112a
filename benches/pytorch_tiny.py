"""A training step of a tiny network, ringtape and PyTorch eager in turns: what the machinery costs.

    pip install torch numpy
    cargo build --release
    python benches/pytorch_tiny.py

64 inputs, two hidden layers of 64, 10 classes, batch 32: forward, cross-entropy, backward, AdamW, on one thread.
"""

import argparse
import json
import os
import statistics
import subprocess
import time

import torch


def theirs(seconds, fused):
    def linear(i, o):
        return torch.nn.Linear(i, o)

    net = torch.nn.Sequential(linear(64, 64), torch.nn.GELU(), linear(64, 64), torch.nn.GELU(), linear(64, 10))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=fused)
    x, y = torch.randn(32, 64), torch.randint(10, (32,))
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[10:])


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--rounds", type=int, default=7)
    a.add_argument("--seconds", type=float, default=0.5)
    a.add_argument("--binary", default="target/release/ringtape")
    a = a.parse_args()
    torch.set_num_threads(1)
    found = {"ringtape": [], "PyTorch, fused AdamW": [], "PyTorch, foreach AdamW": []}
    for _ in range(a.rounds):
        command = [a.binary, "bench", "tiny", "--json", "--quiet", "--seconds", str(a.seconds)]
        out = subprocess.run(command, env={**os.environ, "RAYON_NUM_THREADS": "1"}, capture_output=True, check=True)
        case = next(c for c in json.loads(out.stdout)["cases"] if c["name"] == "tiny")
        found["ringtape"].append(case["median"])
        found["PyTorch, fused AdamW"].append(theirs(a.seconds, True))
        found["PyTorch, foreach AdamW"].append(theirs(a.seconds, None))
    for name, times in found.items():
        us = [t * 1e6 for t in times]
        print(f"{name:24} {statistics.median(us):7.1f} µs a step ({min(us):.1f}–{max(us):.1f})")


if __name__ == "__main__":
    main()
