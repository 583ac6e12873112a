"""Two ranks, one of them slowed by added sleep: what balancing wins back.

    cargo build --release
    python benches/balance.py

Each round makes four runs of the same character GPT, one after the other, each rank with one thread:

  alone      one rank, nothing is slow: v samples a second
  even       two ranks, rank 1 slowed `--factor` times, each with half of every batch: the slow one decides, 2v/factor
  balanced   the same with balance = true: micro-shards go to the fast rank; ideal is v + v/factor
  quick      two ranks, nothing is slow: what this machine's processors can do at once, at most 2v

Speed is samples over the wall time between step `--skip` and the last, from metrics.jsonl. On a machine whose processors have other
work v changes from run to run, so there are two shares: of `alone` times 1 + 1/factor, and, in the column `of own`, of the sum of the
speeds that the ranks of the balanced run had while they computed, which leaves out what goes on with the machine meanwhile. The
table also says which micro-shards ranks ended with, and whether all runs of a round end with the same weights.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess

RECIPE = {
    "model.layers": 2, "model.heads": 2, "threads": 1, "batch_size": 32, "eval_every": 0, "eval_batches": 1, "snapshot_every": 0, "log_every": 10,
    "tensorboard": "false", "crossover": 65536,
}


def run(a, name, ranks, factor, settings):
    """Samples a second, the last micro-shards of each rank, the hash of the weights, and the sum of the ranks' own speeds."""
    folder = a.out / name
    shutil.rmtree(folder, ignore_errors=True)
    command = [a.binary] + (["launch", "-n", ranks, "--"] if ranks > 1 else [])
    command += ["train", "-q", "--out", folder, "--steps", a.steps]
    for key, value in (RECIPE | {"micro_shards": a.shards, "model.dim": a.dim} | settings).items():
        command += ["--set", f"{key}={value}"]
    slow = {"RINGTAPE_SLOW": f"1:{factor}"} if factor > 1 else {}
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=os.environ | slow)
    if done.returncode:
        raise SystemExit(f"{name}: exit code {done.returncode}: {done.stderr}")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    first, last = next(m for m in lines if m["step"] >= a.skip), lines[-1]
    speed = (last["step"] - first["step"]) * RECIPE["batch_size"] / (last["wall_s"] - first["wall_s"])
    looks = [m["balance"] for m in lines if m.get("balance") and m["step"] > a.skip]
    own = sum(p["samples_per_s"] for look in looks for p in look) / len(looks) if looks else None
    weights = (folder / f"step-{a.steps}" / "model.safetensors").read_bytes()
    return speed, [p["shards"] for p in looks[-1]] if looks else None, hashlib.sha256(weights).hexdigest(), own


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/balance"))
    a.add_argument("--binary", default="target/release/ringtape")
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--steps", type=int, default=150)
    a.add_argument("--skip", type=int, default=50)
    a.add_argument("--shards", type=int, default=16)
    a.add_argument("--factor", type=float, default=3.0)
    a.add_argument("--dim", type=int, default=64)
    a = a.parse_args()
    shares, rows = {"even": [], "balanced": [], "balanced, of own": []}, []
    for round in range(a.rounds):
        alone = run(a, "alone", 1, 1, {})
        even = run(a, "even", 2, a.factor, {})
        balanced = run(a, "balanced", 2, a.factor, {"balance": "true"})
        quick = run(a, "quick", 2, 1, {})
        ideal = alone[0] * (1 + 1 / a.factor)
        same = len({r[2] for r in (alone, even, balanced, quick)}) == 1
        for name, r in (("even", even), ("balanced", balanced)):
            shares[name].append(r[0] / ideal)
        shares["balanced, of own"].append(balanced[0] / balanced[3])
        speeds = [r[0] for r in (alone, even, balanced, quick)]
        percent = [f"{100 * shares[name][-1]:.0f} %" for name in ("balanced", "balanced, of own")]
        rows.append([f"{s:.0f}" for s in speeds] + [f"{ideal:.0f}"] + percent + [f"{balanced[1]}", f"{same}"])
        print("  " + "  ".join(rows[-1]), flush=True)
    print("\n| alone | even | balanced | quick | ideal | of the ideal | of own | shards | same weights |\n" + "|---" * 9 + "|")
    print("\n".join("| " + " | ".join(row) + " |" for row in rows))
    for name, all in shares.items():
        print(f"{name}: {100 * statistics.median(all):.0f} % of the ideal (median of {a.rounds} rounds)")


if __name__ == "__main__":
    main()
