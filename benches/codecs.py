"""What gradients in fewer bytes cost a training run, and what they save.

    pip install numpy
    cargo build --release
    python benches/codecs.py --out runs/codecs

Each run is the same character GPT by the same number of ranks, whose gradients go by another codec. The table has the held-out
loss at the end (mean over seeds, and range), its difference to `none` (paired by seed, ± the standard error), and how many times
fewer bytes a rank sends in the last step than the dense ring would. Some rows take an idea out: no
error feedback, or no warm-up. Runs whose summary is in the folder are not made again.
"""

import argparse
import json
import pathlib
import subprocess

import numpy

RECIPE = {"model.layers": 2, "model.dim": 64, "model.heads": 2, "batch_size": 16, "optimizer.lr": 5e-3, "eval_every": 0}
TOP_K = {"codec.name": "top_k", "codec.ratio": 0.01}
CODECS = {
    "none": {},
    "bf16": {"codec.name": "bf16"},
    "int8": {"codec.name": "int8"},
    "power_sgd, rank 4": {"codec.name": "power_sgd"},
    "power_sgd, rank 1": {"codec.name": "power_sgd", "codec.rank": 1},
    "top_k 1 %": TOP_K | {"codec.warmup_steps": 300},
    "one_bit": {"codec.name": "one_bit"},
    "one_bit, feedback": {"codec.name": "one_bit", "codec.feedback": "true"},
    "top_k 1 %, no warm-up": TOP_K,
    "top_k 1 %, no feedback": TOP_K | {"codec.warmup_steps": 300, "codec.feedback": "false"},
    "power_sgd, rank 4, no feedback": {"codec.name": "power_sgd", "codec.feedback": "false"},
}


def run(a, name, seed):
    """Held-out loss, and the compression of the last logged step."""
    folder = a.out / f"{name}-{seed}-{a.steps}-{a.ranks}".replace(" ", "_").replace(",", "")
    if not (folder / "summary.json").exists():
        command = [a.binary, "launch", "-n", a.ranks, "--", "train", "-q", "--out", folder, "--steps", a.steps, "--seed", seed]
        for key, value in (RECIPE | CODECS[name] | {"crossover": 65536, "snapshot_every": 0}).items():
            command += ["--set", f"{key}={value}"]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if done.returncode == 6:
            return float("inf"), float("nan")
        if done.returncode:
            raise SystemExit(f"{name}: exit code {done.returncode}: {done.stderr}")
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    return json.loads((folder / "summary.json").read_text())["val_loss"], last.get("compression") or 1.0


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/codecs"))
    a.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    a.add_argument("--steps", type=int, default=1500)
    a.add_argument("--ranks", type=int, default=2)
    a.add_argument("--only", nargs="+", choices=list(CODECS), help="these, beside none")
    a.add_argument("--binary", default="target/release/ringtape")
    a = a.parse_args()
    names = [n for n in CODECS if not a.only or n in a.only or n == "none"]
    found = {name: [] for name in names}
    for seed in a.seeds:
        for name in names:
            found[name].append(run(a, name, seed))
            print(f"  {name}, seed {seed}: {found[name][-1][0]:.4f}", flush=True)
    print("\n| codec | loss (seeds) | to none | fewer bytes |\n|---|---|---|---|")
    dense = numpy.array([loss for loss, _ in found["none"]])
    for name in names:
        losses = numpy.array([loss for loss, _ in found[name]])
        off = 100 * (losses / dense - 1)
        error = numpy.std(off, ddof=1) / len(off) ** 0.5 if len(off) > 1 else 0.0
        fewer = numpy.mean([c for _, c in found[name]])
        spread = f"{losses.mean():.4f} ({losses.min():.4f}–{losses.max():.4f})"
        print(f"| {name} | {spread} | {off.mean():+.1f} ± {error:.1f} % | {fewer:.1f} |")


if __name__ == "__main__":
    main()
