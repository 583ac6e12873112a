"""The training step of a character GPT, ringtape and PyTorch eager in turns: tokens a second and peak memory.

    pip install torch numpy
    cargo build --release
    python benches/pytorch_turns.py --dims 128 256 --threads 2 1 --rounds 5

Both train 4 layers on 16 x 256 tokens of a vocabulary of 256 in f32 with AdamW. Ours is the whole of `ringtape train` with
its data, clipping and log; PyTorch's (`pytorch_step.py`) is forward, backward and the fused optimizer on random tokens.
Each turn is a fresh process; a turn's figure is the median of its steps, the table has the median of the turns.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent


def text(path):
    """Half a million letters, 256 different ones."""
    letters = [chr(c) for c in range(0x100, 0x200)]
    draw = random.Random(0)
    path.write_text("".join(letters) + "".join(draw.choices(letters, k=500_000)), encoding="utf-8")


def run(command, threads):
    """Largest resident set in bytes, of a process that must succeed; and what it printed."""
    env = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen(command, env=env, stdout=out)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            sys.exit(f"{' '.join(command)} ended with {child.returncode}")
        out.seek(0)
        return usage.ru_maxrss * 1024, out.read().decode()


def ours(a, data, folder, dim, threads):
    """Tokens a second and bytes of one run of `ringtape train`."""
    keys = {
        "data.path": data, "model.layers": 4, "model.dim": dim, "model.heads": dim // 32, "model.context": 256,
        "batch_size": 16, "log_every": 1, "eval_batches": 1, "precision": a.precision,
    }  # fmt: skip
    command = [a.binary, "train", "--quiet", "--steps", str(a.steps + 3), "--out", folder]
    memory, _ = run(command + [w for k, v in keys.items() for w in ("--set", f"{k}={v}")], threads)
    lines = map(json.loads, (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines())
    rates = [line["tokens_per_s"] for line in lines if "tokens_per_s" in line]
    return statistics.median(rates[3:]), memory


def theirs(a, dim, threads):
    script = [sys.executable, str(HERE / "pytorch_step.py"), "--threads", str(threads), "--steps", str(a.steps)]
    memory, out = run(script + ["--dim", str(dim), "--heads", str(dim // 32)], threads)
    found = json.loads(out)
    return found["tokens_per_s"], memory, memory - found["bytes_imported"]


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--dims", type=int, nargs="+", default=[128, 256])
    a.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--steps", type=int, default=10, help="steps that are timed in a turn")
    a.add_argument("--precision", default="f32", help="of ringtape")
    a.add_argument("--binary", default="target/release/ringtape")
    a = a.parse_args()
    cases = [(dim, threads) for dim in a.dims for threads in a.threads]
    mine, other = {c: [] for c in cases}, {c: [] for c in cases}
    with tempfile.TemporaryDirectory() as scratch:
        data = pathlib.Path(scratch) / "letters.rtd"
        text(data.with_suffix(".txt"))
        run([a.binary, "data", "pack", str(data.with_suffix(".txt")), "--out", str(data)], 1)
        for turn in range(a.rounds):
            for dim, threads in cases:
                mine[dim, threads].append(ours(a, data, f"{scratch}/{turn}-{dim}-{threads}", dim, threads))
                other[dim, threads].append(theirs(a, dim, threads))
    print("| d | threads | ringtape, k tokens/s | PyTorch | ratio | ringtape, peak MiB | PyTorch | its peak above the import |")
    print("|---|---|---|---|---|---|---|---|")
    for case in cases:
        (m, memory), (o, whole, above) = (list(map(statistics.median, zip(*x[case]))) for x in (mine, other))
        spread = [f"{min(r[0] for r in x[case]) / 1e3:.1f}–{max(r[0] for r in x[case]) / 1e3:.1f}" for x in (mine, other)]
        mib = [f"{x / 2**20:.0f}" for x in (memory, whole, above)]
        print(f"| {case[0]} | {case[1]} | {m / 1e3:.1f} ({spread[0]}) | {o / 1e3:.1f} ({spread[1]}) | {m / o:.2f} | {' | '.join(mib)} |")


if __name__ == "__main__":
    main()
