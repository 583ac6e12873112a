"""What it brings not to wait at every step: fewer bytes, and less time where a rank is slow.

    cargo build --release
    python benches/asynchrony.py --out runs/asynchrony

Each run is the same character GPT by the same number of ranks. The first table is of ranks that are equally fast: held-out loss at
the end, its difference to summing every gradient, and how many times fewer bytes rank 0 sends. In the second the last rank is made
slow (RINGTAPE_SLOW): seconds of training until the held-out loss of the synchronous run's end is reached, over that run's. The
others get --more times as many steps to get there, over which their learning rate falls. Runs whose summary is in the folder are not made again.
"""

import argparse
import json
import os
import pathlib
import subprocess

RECIPE = {"model.layers": 2, "model.dim": 64, "model.heads": 2, "batch_size": 16, "optimizer.lr": 5e-3, "snapshot_every": 0}
RECIPE |= {"threads": 1, "crossover": 65536, "tensorboard": "false", "log_every": 1, "schedule.warmup_steps": 50}


def diloco(steps):
    return {"asynchronous.mode": "diloco", "asynchronous.inner_steps": steps}


EVEN = {
    "every step": {},
    "diloco, 100": diloco(100),
    "local_sgd, 100": {"asynchronous.mode": "local_sgd", "asynchronous.inner_steps": 100},
    "server, 8": {"asynchronous.mode": "server"},
    "diloco, 10": diloco(10),
    "local_sgd, 10": {"asynchronous.mode": "local_sgd", "asynchronous.inner_steps": 10},
}
SLOW = {
    "every step": {},
    "diloco, 100": diloco(100),
    "server, 3": {"asynchronous.mode": "server", "asynchronous.staleness": 3},
    "server, unbounded": {"asynchronous.mode": "server", "asynchronous.staleness": 1000000},
}


def run(a, name, settings, steps, slow):
    """The lines of a run."""
    folder = a.out / f"{name}-{a.ranks}-{steps}{'-slow' if slow else ''}".replace(" ", "_").replace(",", "")
    if not (folder / "summary.json").exists():
        command = [a.binary, "launch", "-n", a.ranks, "--", "train", "-q", "--out", folder, "--steps", steps]
        for key, value in (RECIPE | {"eval_every": a.eval_every} | settings).items():
            command += ["--set", f"{key}={value}"]
        variables = dict(os.environ, RAYON_NUM_THREADS="1")
        if slow:
            variables["RINGTAPE_SLOW"] = f"{a.ranks - 1}:{a.slow}"
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=variables)
        if done.returncode:
            raise SystemExit(f"{name}: exit code {done.returncode}: {done.stderr}")
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def chosen(a, modes):
    return [(n, s) for n, s in modes.items() if not a.modes or n in a.modes or n == "every step"]


def evaluations(lines):
    return [(line["wall_s"], line["val_loss"]) for line in lines if "val_loss" in line]


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/asynchrony"))
    a.add_argument("--steps", type=int, default=1000)
    a.add_argument("--eval-every", type=int, default=100)
    a.add_argument("--ranks", type=int, default=2)
    a.add_argument("--slow", type=float, default=3)
    a.add_argument("--more", type=float, default=1.5)
    a.add_argument("--modes", nargs="+", help="these, beside every step")
    a.add_argument("--binary", default="target/release/ringtape")
    a.add_argument("--only", choices=["even", "slow"])
    a = a.parse_args()
    if a.only != "slow":
        print("| mode | loss | to every step | fewer bytes | seconds |\n|---|---|---|---|---|")
        dense = None
        for name, settings in chosen(a, EVEN):
            lines = run(a, name, settings, a.steps, False)
            (seconds, loss), sent = evaluations(lines)[-1], sum(line["bytes_sent"] for line in lines)
            dense = dense or (loss, sent)
            row = f"| {name} | {loss:.4f} | {100 * (loss / dense[0] - 1):+.1f} % | {dense[1] / sent:.1f} | {seconds:.0f} |"
            print(row, flush=True)
    if a.only != "even":
        print(f"\n| mode, rank {a.ranks - 1} slowed {a.slow:g} times | loss | seconds to the loss of every step | of its time |")
        print("|---|---|---|---|")
        whole = None
        for name, settings in chosen(a, SLOW):
            steps = a.steps if whole is None else round(a.steps * a.more)
            found = evaluations(run(a, name, settings, steps, True))
            whole = whole or found[-1]
            there = next((seconds for seconds, loss in found if loss <= whole[1]), None)
            reached = f"{there:.0f} | {there / whole[0]:.2f}" if there else "not reached |"
            print(f"| {name} | {found[-1][1]:.4f} | {reached} |", flush=True)


if __name__ == "__main__":
    main()
