"""What dynamic attention loses when one idea is taken out of it, on made tasks that need that idea.

    cargo build --release
    python benches/attention_ablations.py --out runs/attention-ablations --jobs 2

| task | needs | idea | without it |
|---|---|---|---|
| `datasets/spans` | counts over 8 and over 64 tokens | spans that are learned | spans stay at their first size |
| `datasets/copy` | the token 96 back, hashing off | a place that is learned | the place stays where it began |
| `datasets/recall` | pairs 96 to 254 tokens back | blocks that hashing finds | no blocks; as many blocks by chance |

Trains each with every seed (runs that are complete already are kept), evaluates on the held-out sequences and prints the share
of right answers, and what the heads see. `without blocks` is the model that was trained with them.
"""

import argparse
import concurrent.futures
import json
import pathlib
import subprocess

RUNS = {
    "spans, learned": ("spans/learned", []),
    "spans, frozen": ("spans/frozen", []),
    "copy, learned": ("copy/learned", []),
    "copy, frozen": ("copy/frozen", []),
    "recall, window": ("recall/window", []),
    "recall, hashing": ("recall/lsh", []),
    "recall, by chance": ("recall/lsh", ["model.router=random"]),
}


def sets(settings):
    return [word for s in settings for word in ("--set", s)]


def train(a, name, seed):
    recipe, settings = RUNS[name]
    run = a.out / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    if not (run / "summary.json").exists():
        command = [a.binary, "-q", "train", f"datasets/{recipe}.toml", "--seed", seed, "--out", run]
        command += ["--steps", a.steps] if a.steps else []
        if (run / "config.toml").exists():
            command = [a.binary, "-q", "train", "--resume", run]
        command += sets([*settings, "threads=1"]) if "--resume" not in command else []
        subprocess.run([str(x) for x in command], check=True, stdout=subprocess.DEVNULL)
    found = {name: evaluate(a, run, [])}
    if name == "recall, hashing":
        found["without blocks"] = evaluate(a, run, ["model.router=none"])
    return seed, found


def evaluate(a, run, settings):
    command = [a.binary, "eval", run, "--json", *sets([*settings, "threads=1"])]
    return json.loads(subprocess.run([str(x) for x in command], check=True, stdout=subprocess.PIPE).stdout)


def sees(told):
    def numbers(key):
        return ", ".join(f"{h[key]:.1f}" for h in told["attention"])

    heads = told.get("attention") or []
    if any(h.get("lag") for h in heads):
        return f"lag {numbers('lag')}, half width {numbers('width')}"
    return f"span {numbers('span')}" if heads else ""


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    a.add_argument("--tasks", nargs="+", default=["spans", "copy", "recall"])
    a.add_argument("--steps", type=int, help="of each run [default: as the recipes say]")
    a.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/attention-ablations"))
    a.add_argument("--jobs", type=int, default=1, help="runs at a time, a thread each")
    a.add_argument("--binary", default="target/release/ringtape")
    a = a.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        # The slowest first, so that none is left alone at the end.
        jobs = [pool.submit(train, a, name, seed) for name in reversed(RUNS) if name.split(",")[0] in a.tasks for seed in a.seeds]
        done = [job.result() for job in jobs]
    table = {}
    for seed, found in done:
        for name, told in found.items():
            table.setdefault(name, {})[seed] = told
    order = list(RUNS) + ["without blocks"]
    print(f"| task | right, seeds {', '.join(map(str, a.seeds))} | what the heads see |\n|---|---|---|")
    for name in sorted(table, key=order.index):
        rows = [table[name][s] for s in a.seeds]
        right = ", ".join(f"{100 * r['accuracy']:.1f}" for r in rows)
        print(f"| {name} | {right} % | {'; '.join(filter(None, map(sees, rows)))} |")


if __name__ == "__main__":
    main()
