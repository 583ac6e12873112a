"""What the gradient-variance controller and sparse activations owe to their ideas: the same runs with the idea taken out.

    pip install numpy matplotlib
    cargo build --release
    python benches/ablations_optim.py --out runs/ablations --plot book/src/images/ablations_optim.svg

Four parts (--parts), each a table of means over seeds; differences are paired, in percent, ± the standard error over seeds.

- `density`: the character GPT with gelu, relu and sparse activations of several rules and target densities, equal in
  parameters and steps. Density is the share of active hidden units, measured on held-out text: mean over layers, the
  layer with the fewest and the most, and the extremes over single tokens. Dead units were 0 for every token looked at.
  Frozen: thresholds that stay where they began (homeostatic with a gain of nearly 0), or whose density costs nothing
  (learned without its penalty).
- `dead`: units that die at a rate that is too large, in a network of two layers on the small digits: relu, the rule of the
  running mean with a jump, soft, and thresholds of each unit.
- `controller-gpt`, `controller-cnn`: gvc beside cuts that do not ask for the slopes, or not for the losses, or for neither
  (at the end of every window), beside none at all, and a cosine that knows the number of steps.
"""

import math

import numpy
import sweep

TEXT = {"schedule.name": "cosine", "schedule.min_lr": 0.0, "schedule.warmup_steps": 75, "optimizer.lr": 2e-3}
GVC = {"schedule.name": "constant", "controller.name": "gvc"}
# z of 100 slopes is at most 8.66, how surely 100 losses fall at most 9.95: a bound near that is no condition any more.
CONTROLLED = {
    "cosine": {},
    "gvc": GVC,
    "gvc without slopes": GVC | {"controller.threshold": 8.6},
    "gvc without losses": GVC | {"controller.fall": 10.0},
    "gvc by timetable": GVC | {"controller.threshold": 8.6, "controller.fall": 10.0},
    "constant": {"schedule.name": "constant"},
}


def sparse(rule, density, **more):
    keys = {"rule": rule, "density": density, **more}
    return {"model.activation": "sparse"} | {f"model.sparse.{k}": v for k, v in keys.items()}


class Part:
    """Variants of one run; the first is what the others are compared with."""

    def __init__(self, recipe, steps, second, settings, variants):
        self.recipe, self.steps, self.second, self.settings, self.variants = recipe, steps, second, settings, variants


PARTS = {
    "density": Part(
        "datasets/moby-dick/gpt.toml",
        1500,
        0.035,
        {"model.layers": 2, "batch_size": 16} | TEXT,
        {
            "gelu": {},
            "relu": {"model.activation": "relu"},
            "top_k .15": sparse("top_k", 0.15),
            "top_k .10": sparse("top_k", 0.1),
            "top_k .08": sparse("top_k", 0.08),
            "homeostatic .10": sparse("homeostatic", 0.1),
            "homeostatic .10, frozen": sparse("homeostatic", 0.1, gain=1e-12),
            "learned .10": sparse("learned", 0.1),
            "learned .10, no penalty": sparse("learned", 0.1, penalty=0.0),
            "running_mean .10": sparse("running_mean", 0.1),
        },
    ),
    "dead": Part(
        "datasets/digits/mlp.toml",
        1500,
        0.0006,
        {"model.dim": 256, "model.dropout": 0.0, "optimizer.lr": 0.02, "schedule.name": "constant"},
        {
            "relu": {},
            "running_mean .2125, hard": sparse("running_mean", 0.2125, mode="hard"),
            "running_mean .2125": sparse("running_mean", 0.2125),
            "top_k .2125": sparse("top_k", 0.2125),
            "homeostatic .2125": sparse("homeostatic", 0.2125),
            "homeostatic .2125, frozen": sparse("homeostatic", 0.2125, gain=1e-12),
            "learned .2125": sparse("learned", 0.2125),
            "learned .2125, no penalty": sparse("learned", 0.2125, penalty=0.0),
        },
    ),
    "controller-gpt": Part(
        "datasets/moby-dick/gpt.toml",
        1500,
        0.011,
        {"model.dim": 64, "model.layers": 2, "model.heads": 2, "batch_size": 16} | TEXT | {"optimizer.lr": 1e-2},
        CONTROLLED,
    ),
    "controller-cnn": Part(
        "datasets/mnist/cnn.toml",
        2000,
        0.0042,
        {"model.dim": 8, "schedule.warmup_steps": 50, "schedule.min_lr": 0.0, "optimizer.lr": 3e-3},
        CONTROLLED,
    ),
}


def runs(a):
    """Every run of every part, seeds outermost."""
    found = []
    for seed in a.seeds:
        for name in a.parts:
            part = PARTS[name]
            steps = (a.steps or part.steps) if not a.quick else 20
            for variant, changes in part.variants.items():
                if a.only and not any(variant.startswith(v) for v in a.only):
                    continue
                label = f"{name}-{variant}-{seed}".replace(" ", "_").replace(",", "")
                cost = part.second * steps + 0.2
                run = sweep.Run(label, part.recipe, steps, seed, part.settings | changes, cost)
                found.append((name, variant, run))
    return found


def spread(x, form):
    x = [v for v in x if v is not None]
    if not x:
        return "-"
    return format(numpy.mean(x), form) + (f" ({min(x):{form}}–{max(x):{form}})" if len(x) > 1 else "")


def activity(records):
    """Density by layer and token, dead and always active units, as cells: of all layers of all `records`."""
    layers = [layer for r in records for layer in r.get("activity") or []]
    if not layers:
        return ["-"] * 4
    units = sum(x["units"] for x in layers)
    share = [100 * sum(x[key] for x in layers) / units for key in ("dead", "always_on")]
    low, high = min(x["range"][0] for x in layers), max(x["range"][1] for x in layers)
    cells = [spread([100 * x["density"] for x in layers], ".1f"), f"{100 * low:.1f}–{100 * high:.1f}"]
    return cells + [f"{v:.1f}" for v in share]


def show(name, variants):
    """The table of a part; `variants` has the records of each by seed."""
    print(f"\n{name}\n")
    control = name.startswith("controller")
    heads = ["cuts", "rate at the end, of the first"]
    if not control:
        heads = ["active, % (layers)", "of a row, %", "dead, %", "always on, %"]
    first = next(iter(variants))
    heads = [name, "loss (seeds)", f"to {first}", *heads, "s"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for variant, by_seed in variants.items():
        if not by_seed:
            continue
        loss = {s: math.inf if r["val_loss"] is None else r["val_loss"] for s, r in by_seed.items()}
        against = {s: r["val_loss"] or math.inf for s, r in variants[first].items()}
        row = [variant, spread(list(loss.values()), ".4f"), sweep.paired(loss, against)]
        records = list(by_seed.values())
        if control:
            row += [spread([r.get("cuts") for r in records], ".0f"), spread([r.get("scale") for r in records], ".3f")]
        else:
            row += activity(records)
        print("| " + " | ".join([*row, f"{numpy.mean([r['user_s'] for r in records]):.1f}"]) + " |")


def plot(path, parts):
    """Loss against density on text; dead units on digits; losses under the controller."""
    figure, axes = sweep.canvas(len(parts), width=4.2, height=3.4)
    for ax, (name, variants) in zip(axes[0], parts.items()):
        variants = {k: list(v.values()) for k, v in variants.items() if v}
        if name == "density":
            for k, records in variants.items():
                losses = [r["val_loss"] or math.nan for r in records]
                layers = [x["density"] for r in records for x in r.get("activity") or []]
                ax.errorbar(
                    100 * numpy.mean(layers) if layers else 100,
                    numpy.mean(losses),
                    [[numpy.mean(losses) - min(losses)], [max(losses) - numpy.mean(losses)]],
                    fmt="o",
                    label=k,
                )
            ax.set(xscale="log", xlabel="active hidden units, %", ylabel="validation loss, nats a character")
            if variants:
                ax.legend(frameon=False, fontsize=6)
            continue
        names = list(variants)
        if name == "dead":
            values = [[100 * sum(x["dead"] for x in r["activity"]) / sum(x["units"] for x in r["activity"])
                       for r in variants[k] if r.get("activity")] for k in names]  # fmt: skip
            ax.set(xlabel="dead hidden units, %")
        else:
            values = [[r["val_loss"] or math.nan for r in variants[k]] for k in names]
            ax.set(xlabel=f"validation loss, {name}")
            # A bar from 0 would hide differences of some percent.
            least = min(min(v) for v in values)
            ax.set_xlim(left=0.95 * least)
        ax.barh(names, [numpy.mean(v) if v else 0.0 for v in values], color="lightgray")
        for i, v in enumerate(values):
            ax.plot(v, [i] * len(v), "k.", markersize=3)
        ax.invert_yaxis()
        ax.tick_params(axis="y", labelsize=7)
    sweep.save(figure, path)


def main():
    a = sweep.arguments(__doc__, "runs/ablations")
    a.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    a.add_argument("--only", nargs="+", help="variants that begin so")
    a.add_argument("--steps", type=int, help="of each run [default: by part]")
    a.add_argument("--plot", help="file for the picture")
    a = a.parse_args()
    every = runs(a)
    have = sweep.make([run for *_, run in every], a)
    parts = {}
    for name, variant, run in every:
        by_seed = parts.setdefault(name, {}).setdefault(variant, {})
        if run.key() in have:
            by_seed[run.seed] = have[run.key()]
    for name, variants in parts.items():
        show(name, variants)
    if a.plot:
        plot(a.plot, parts)


if __name__ == "__main__":
    main()
