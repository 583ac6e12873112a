"""How much does the learning rate matter? Final validation loss against it, over four decades, for AdamW at a constant
rate and by a cosine that knows the number of steps, and for schedule-free AdamW without and with the gradient-variance
controller (gvc), neither of which knows it.

    pip install numpy matplotlib
    cargo build --release
    python benches/lr_sensitivity.py --out runs/lr --plot book/src/images/lr_sensitivity.svg

Three tasks: a small character GPT on Moby-Dick, a small CNN on 10,000 digits of MNIST, and the body mass of penguins (a
regression; its runs take a tenth of a second and its held-out set has 67 rows, so it gets four times the seeds). All
methods share the model, the batches, the warm-up and AdamW's other settings; they start from the same weights, seed by seed.

Two tables. The first has the mean loss at each rate. In the second, `best` is the least of them with its rate, `untuned`
the loss at one rate for all tasks (--default), each beside the best of the cosine: mean of the paired differences in
percent, ± the standard error over seeds. Widths are the decades of rates, around the method's best, where the mean loss
stays within so many percent of the least that any method reached on that task, straight lines drawn between the rates.
"""

import math

import numpy
import sweep

METHODS = {
    "constant": {"schedule.name": "constant"},
    "cosine": {"schedule.name": "cosine", "schedule.min_lr": 0.0},
    "schedule-free": {"schedule.name": "constant", "optimizer.name": "schedule_free_adamw"},
    "gvc": {"schedule.name": "constant", "optimizer.name": "schedule_free_adamw", "controller.name": "gvc"},
}
RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0]
WITHIN = [3, 5, 10]


class Task:
    """A recipe with its changes, steps, the seconds of a step, how many seeds stand for one, and what its loss is in."""

    def __init__(self, recipe, steps, second, settings, unit, copies=1):
        self.recipe, self.steps, self.second = recipe, steps, second
        self.settings, self.unit, self.copies = settings, unit, copies


TASKS = {
    "gpt": Task(
        "datasets/moby-dick/gpt.toml",
        1500,
        0.011,
        {"model.dim": 64, "model.layers": 2, "model.heads": 2, "batch_size": 16, "schedule.warmup_steps": 75},
        "nats a character",
    ),
    "cnn": Task(
        "datasets/mnist/cnn.toml", 2000, 0.0042, {"model.dim": 8, "schedule.warmup_steps": 50}, "nats a digit"
    ),
    "penguins": Task(
        "datasets/penguins/mass.toml", 5000, 0.00004, {"schedule.warmup_steps": 50}, "squared error", copies=4
    ),
}
# What AdamW has in the recipes; named anew because another optimizer does not inherit it.
SHARED = {
    "gpt": {"optimizer.beta2": 0.99, "optimizer.weight_decay": 0.1},
    "cnn": {"optimizer.weight_decay": 0.05},
    "penguins": {"optimizer.weight_decay": 0.01},
}


def runs(a):
    """Every run, seeds outermost: what is complete after a while has all rates."""
    found = []
    for seed in a.seeds:
        for name in a.tasks:
            task = TASKS[name]
            steps = (a.steps or task.steps) if not a.quick else 30
            for s in [seed + 1000 * i for i in range(task.copies)]:
                for method in a.methods:
                    for rate in a.rates:
                        settings = task.settings | SHARED[name] | METHODS[method] | {"optimizer.lr": rate}
                        label = f"{name}-{method}-{rate:g}-{s}"
                        run = sweep.Run(label, task.recipe, steps, s, settings, task.second * steps + 0.1)
                        found.append((name, method, rate, run))
    return found


def mean(by_seed):
    return numpy.mean(list(by_seed.values())) if by_seed else math.nan


def width(rates, means, limit):
    """Decades of rates around the least of `means` where straight lines between the means stay at or below `limit`."""
    x, y = numpy.log10(rates), numpy.array(means)
    best = int(numpy.nanargmin(y))
    if not y[best] <= limit:
        return 0.0
    ends = []
    for step in (-1, 1):
        i = best
        while 0 <= i + step < len(y) and y[i + step] <= limit:
            i += step
        end, j = x[i], i + step
        if 0 <= j < len(y) and math.isfinite(y[j]):
            end += (x[j] - x[i]) * (limit - y[i]) / (y[j] - y[i])
        ends.append(end)
    return float(ends[1] - ends[0])


def show(name, a, found):
    """The two tables of a task; `found` has losses by seed for each method and rate."""
    task = TASKS[name]
    print(f"\n{name}: {task.unit}, {len({s for by in found.values() for s in by})} seeds\n")
    means = {m: [mean(found[m, r]) for r in a.rates] for m in a.methods}
    print(f"| {name} | " + " | ".join(f"{r:g}" for r in a.rates) + " |\n|---" + "|---" * len(a.rates) + "|")
    for m in a.methods:
        cells = ("-" if math.isnan(v) else "diverged" if math.isinf(v) else f"{v:.4g}" for v in means[m])
        print(f"| {m} | " + " | ".join(cells) + " |")
    complete = [m for m in a.methods if numpy.isfinite(means[m]).any()]
    if not complete:
        return
    best = {m: a.rates[int(numpy.nanargmin(means[m]))] for m in complete}
    least = min(numpy.nanmin(means[m]) for m in complete)
    tuned = found["cosine", best["cosine"]] if "cosine" in best else {}
    print(f"\n| {name} | best | at | to the best cosine | untuned, at {a.default:g} | to the best cosine | ", end="")
    print(" | ".join(f"decades within {p} %" for p in WITHIN) + " |\n|---" + "|---" * (5 + len(WITHIN)) + "|")
    for m in complete:
        untuned = found.get((m, a.default), {})
        row = [m, f"{numpy.nanmin(means[m]):.4g}", f"{best[m]:g}", sweep.paired(found[m, best[m]], tuned)]
        row += [f"{mean(untuned):.4g}", sweep.paired(untuned, tuned)]
        row += [f"{width(a.rates, means[m], least * (1 + p / 100)):.1f}" for p in WITHIN]
        print("| " + " | ".join(row) + " |")


def plot(path, a, found):
    figure, axes = sweep.canvas(len(a.tasks))
    for ax, name in zip(axes[0], a.tasks):
        every = [mean(by) for by in found[name].values()]
        every = [v for v in every if math.isfinite(v)]
        if not every:
            continue
        least = min(every)
        top = max(1.15 * least, min(3 * least, max(every)))
        for m in a.methods:
            x = [r for r in a.rates if found[name][m, r]]
            each = [list(found[name][m, r].values()) for r in x]
            middle, low, high = ([min(f(v), top) for v in each] for f in (numpy.mean, min, max))
            line = ax.plot(x, middle, ".-", label=m, linewidth=1.2)[0]
            ax.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        ax.set(xscale="log", xlabel="learning rate", ylabel=f"validation loss, {TASKS[name].unit}", title=name)
        ax.set_ylim(least - 0.05 * (top - least), top)
    axes[0][0].legend(frameon=False, fontsize=8)
    sweep.save(figure, path)


def main():
    a = sweep.arguments(__doc__, "runs/lr")
    a.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    a.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    a.add_argument("--rates", type=float, nargs="+", default=RATES)
    a.add_argument("--default", type=float, default=3e-2, help="the rate of who does not tune")
    a.add_argument("--steps", type=int, help="of each run [default: by task]")
    a.add_argument("--plot", help="file for the picture")
    a = a.parse_args()
    every = runs(a)
    have = sweep.make([run for *_, run in every], a)
    found = {
        name: {
            (m, r): sweep.losses([run for n, k, q, run in every if (n, k, q) == (name, m, r)], have)
            for m in a.methods
            for r in a.rates
        }
        for name in a.tasks
    }
    for name in a.tasks:
        show(name, a, found[name])
    if a.plot:
        plot(a.plot, a, found)


if __name__ == "__main__":
    main()
