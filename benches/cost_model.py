"""Does time per token grow as the arithmetic says? The GPT's step against width, depth, context and batch.

    pip install numpy matplotlib
    cargo build --release
    python benches/cost_model.py --plot benches/cost.svg

Each point is trained a few steps by `ringtape train` in a fresh process, all points in turns; the first two seconds do
not count, while a thread counts the text's n-grams beside the steps. Arithmetic for a token: 6
for each weight of a matrix (2 forward, 4 backward), and 7·T·d for causal attention of each layer (half of T keys; 4 d
forward, 10 d backward). What is no product (norms, activations, the residual stream, the optimizer's memory) goes with layers·d, and
a step costs something whatever its size. So a token takes α·flops + β·layers·d + γ/(tokens of a step); the three constants
are fitted to all points at once, by least squares of relative errors, and the table has how far each point is from them.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import tempfile

BASE = {"dim": 128, "layers": 4, "context": 256, "batch": 16}
POINTS = {"dim": [64, 128, 192, 256, 384], "layers": [1, 2, 4, 6, 8], "context": [64, 128, 256, 512, 1024], "batch": [4, 8, 16, 32]}
VOCABULARY = 83
UNTIMED = 2  # seconds, at the 100 Gflop/s that two threads have at least


def flops(p):
    d, layers, t = p["dim"], p["layers"], p["context"]
    return 6 * (12 * layers * d * d + VOCABULARY * d) + 7 * layers * t * d


def parts(p):
    """What the three constants are multiplied by."""
    return [flops(p), p["layers"] * p["dim"], 1 / (p["batch"] * p["context"])]


def fit(rows):
    import numpy

    x = numpy.array([parts(p) for _, p, _, _ in rows])
    t = numpy.array([s for *_, s in rows])
    scale = numpy.abs(x / t[:, None]).max(axis=0)
    # A negative constant means nothing: it is left out.
    kept = [0, 1, 2]
    while True:
        found = numpy.linalg.lstsq(x[:, kept] / t[:, None] / scale[kept], numpy.ones_like(t), rcond=None)[0]
        if (found >= 0).all():
            constants = numpy.zeros(3)
            constants[kept] = found / scale[kept]
            return constants
        kept.pop(int(found.argmin()))


def seconds(a, p, folder):
    """Median seconds a token of one process."""
    keys = {
        "model.dim": p["dim"], "model.heads": p["dim"] // 32, "model.layers": p["layers"], "model.context": p["context"],
        "batch_size": p["batch"], "log_every": 1, "eval_batches": 1, "tensorboard": "false",
    }  # fmt: skip
    sets = [w for k, v in keys.items() for w in ("--set", f"{k}={v}")]
    beside = math.ceil(UNTIMED / (flops(p) * p["batch"] * p["context"] / 1e11))
    command = [a.binary, "train", "--quiet", "--steps", str(beside + a.steps), "--out", folder, *sets]
    env = {**os.environ, "RAYON_NUM_THREADS": str(a.threads)}
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)
    lines = map(json.loads, (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines())
    return statistics.median([1 / line["tokens_per_s"] for line in lines if "tokens_per_s" in line][-a.steps:])


def plot(path, rows, constants):
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(POINTS), figsize=(13, 3.2), sharey=False)
    for ax, name in zip(axes, POINTS):
        mine = [(p[name], told(p, constants), s) for n, p, _, s in rows if n == name]
        ax.plot([x for x, *_ in mine], [1e6 * t for _, t, _ in mine], color="0.6", label="model")
        ax.plot([x for x, *_ in mine], [1e6 * s for *_, s in mine], "o", color="tab:blue", label="measured")
        ax.set_xlabel({"dim": "width d", "context": "context T"}.get(name, name))
        ax.set_ylim(bottom=0)
    axes[0].set_ylabel("µs a token")
    axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)


def told(p, constants):
    return sum(c * x for c, x in zip(constants, parts(p)))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--steps", type=int, default=6, help="steps that are timed in a turn")
    a.add_argument("--plot", help="file for the picture")
    a.add_argument("--binary", default="target/release/ringtape")
    a = a.parse_args()
    points = [(name, {**BASE, name: value}) for name, values in POINTS.items() for value in values]
    times = [[] for _ in points]
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(a.rounds):
            for i, (_, p) in enumerate(points):
                times[i].append(seconds(a, p, f"{scratch}/{turn}-{i}"))
    rows = [(name, p, flops(p), statistics.median(t)) for (name, p), t in zip(points, times)]
    constants = fit(rows)
    alpha, beta, gamma = constants
    print(f"{1e-9 / alpha:.0f} Gflop/s, {1e9 * beta:.2f} ns for each layer and unit of width, {1e3 * gamma:.2f} ms a step\n")
    print("| varied | value | Mflop a token | µs a token | Gflop/s | model, µs | off |")
    print("|---|---|---|---|---|---|---|")
    for name, p, f, s in rows:
        t = told(p, constants)
        print(f"| {name} | {p[name]} | {f / 1e6:.2f} | {s * 1e6:.1f} | {f / s / 1e9:.0f} | {t * 1e6:.1f} | {100 * (s / t - 1):+.0f} % |")
    if a.plot:
        plot(a.plot, rows, constants)


if __name__ == "__main__":
    main()
