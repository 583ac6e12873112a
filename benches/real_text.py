"""Does attention beyond the window help on real text? Dense, dynamic and windowed attention on the King James Bible.

    pip install numpy matplotlib safetensors
    cargo build --release
    python benches/real_text.py --out runs/real-text --plot book/src/images/real_text.svg

Trains `datasets/kjv/{dense,dynamic,window}.toml` with each seed (runs that are complete already are kept), writes the loss
of every held-out character by `ringtape eval --losses`, and compares the models on the same characters: on all, and by how
far back the last 8 characters stand in the same sequence: nowhere, within the window of the windowed model, or only beyond
it. What a model costs is counted in the shares of keys that its heads see (density), and for the dynamic one what
hashing adds. Differences are paired: mean over all characters of a class for each seed, and over seeds; the standard
error is that of the sequences' sums (Cochran's ratio estimator), of all seeds together.
"""

import argparse
import concurrent.futures
import json
import pathlib
import subprocess

import numpy

MODELS = ["dense", "dynamic", "window"]
LAST = 8


def train(a, model, seed):
    run = a.out / f"{model}-{seed}"
    if not (run / "summary.json").exists():
        command = [a.binary, "train", f"datasets/kjv/{model}.toml", "--seed", seed, "--out", run, "--device", a.device]
        command += ["--steps", a.steps] if a.steps else []
        if (run / "config.toml").exists():
            command = [a.binary, "train", "--resume", run]
        command += ["--quiet"] if a.jobs > 1 else []
        subprocess.run([str(x) for x in command], check=True)
    losses = run / "losses.safetensors"
    if not losses.exists():
        command = [a.binary, "eval", run, "--losses", losses, "--json", "--device", a.device]
        told = subprocess.run([str(x) for x in command], check=True, stdout=subprocess.PIPE).stdout
        (run / "eval.json").write_bytes(told)
    from safetensors.numpy import load_file

    return json.loads((run / "eval.json").read_text()), load_file(losses)


def distances(row):
    """How far back the last LAST symbols ended before, at each position of a sequence: 0 for nowhere."""
    seen, far = {}, numpy.zeros(len(row), int)
    for t in range(LAST - 1, len(row)):
        last = row[t - LAST + 1 : t + 1].tobytes()
        far[t] = t - seen.get(last, t)
        seen[last] = t
    return far


def ratio(numerator, denominator):
    """Mean and standard error of Σ numerator / Σ denominator, both one number a sequence."""
    mean = numerator.sum() / denominator.sum()
    rest = numerator - mean * denominator
    n = len(rest)
    return mean, numpy.sqrt(n / (n - 1) * (rest**2).sum()) / denominator.sum()


def settings(model):
    import tomllib

    return tomllib.loads(pathlib.Path(f"datasets/kjv/{model}.toml").read_text())["model"]


def hashing(model):
    """Multiply-adds that hashing a query and a key takes, in keys of attention: 2·width multiply-adds each."""
    d = settings(model).get("dynamic", {})
    if settings(model).get("router") != "lsh":
        return 0.0
    shared = 1 if d.get("shared_keys") else 2
    return shared * d["rounds"] * d["hashes"] * d["buckets"] / 2 / 2


def plot(path, heads, context):
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "ringtape"
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    names = sorted({(h["layer"], h["head"]) for seed in heads for h in seed})
    for ax, key, what in zip(axes, ("span", "lag"), ("span of the window, tokens", "lag of the second window, tokens")):
        for seed, rows in enumerate(heads, 1):
            ax.plot(range(len(names)), [h[key] for h in rows], "o", alpha=0.7, label=f"seed {seed}")
        ax.set_xticks(range(len(names)), [f"layer {layer}\nhead {head}" for layer, head in names])
        ax.set_ylabel(what)
        ax.set_ylim(bottom=0)
    axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    a.add_argument("--steps", type=int, help="of each run [default: as the recipes say]")
    a.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/real-text"))
    a.add_argument("--plot", help="file for the picture of learned spans and lags")
    a.add_argument("--binary", default="target/release/ringtape")
    a.add_argument("--device", default="cpu", help="cpu or cuda:0")
    a.add_argument("--jobs", type=int, default=1, help="runs at a time")
    a = a.parse_args()
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        found = {(m, s): pool.submit(train, a, m, s) for s in a.seeds for m in MODELS}
        found = {run: job.result() for run, job in found.items()}

    window, context = settings("window")["dynamic"]["window"], settings("dense")["context"]
    first = found[MODELS[0], a.seeds[0]][1]
    far = numpy.stack([distances(row) for row in first["input"]])
    counts = first["target"] >= 0
    classes = {
        "all": counts,
        "not before": counts & (far == 0),
        f"within {window}": counts & (far > 0) & (far <= window),
        f"beyond {window} only": counts & (far > window),
    }
    for told, losses in found.values():
        assert (losses["input"] == first["input"]).all(), "runs of other data"

    print(f"{a.seeds[0]}..{a.seeds[-1]}: {len(a.seeds)} seeds, {first['input'].shape[0]} sequences of {context} characters\n")
    print("| model | keys seen | hashing | of dense |")
    print("|---|---|---|---|")
    for m in MODELS:
        heads = [h for s in a.seeds for h in found[m, s][0]["attention"] or []]
        density = numpy.mean([h["density"] for h in heads]) if heads else 1.0
        extra = hashing(m) / (context / 2)
        print(f"| {m} | {100 * density:.1f} % | {100 * extra:.1f} % | {100 * (density + extra):.1f} % |")
    print(f"\n| characters whose last {LAST} stood before | share | {' | '.join(MODELS)} | dynamic - dense | dynamic - window |")
    print("|---" * (4 + len(MODELS)) + "|")
    for name, chosen in classes.items():
        sums = {k: (v[1]["loss"].astype(float) * chosen).sum(1) for k, v in found.items()}
        each = chosen.sum(1)
        means = [numpy.mean([sums[m, s].sum() / each.sum() for s in a.seeds]) for m in MODELS]
        row = [name, f"{100 * each.sum() / counts.sum():.1f} %", *(f"{v:.4f}" for v in means)]
        for other in ("dense", "window"):
            # One sequence's differences in all seeds go together: they are of the same characters.
            d = sum(sums["dynamic", s] - sums[other, s] for s in a.seeds) / len(a.seeds)
            mean, error = ratio(d, each)
            by_seed = [(sums["dynamic", s] - sums[other, s]).sum() / each.sum() for s in a.seeds]
            spread = numpy.std(by_seed, ddof=1) / len(a.seeds) ** 0.5 if len(a.seeds) > 1 else numpy.nan
            row.append(f"{mean:+.4f} ± {error:.4f} (seeds ± {spread:.4f})")
        print("| " + " | ".join(row) + " |")
    if a.plot:
        plot(a.plot, [found["dynamic", s][0]["attention"] for s in a.seeds], context)


if __name__ == "__main__":
    main()
