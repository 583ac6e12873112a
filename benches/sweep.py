"""Many short trainings side by side: what `lr_sensitivity.py` and `ablations_optim.py` share.

Each run has one thread, so that as many go side by side as there are cores. What it gave becomes a line of
`records.jsonl` in the folder of the sweep: runs whose line is there, with the same settings, are not made again, so a sweep
that was stopped goes on where it was. A run whose loss or gradient left the numbers (exit code 6) is a result too: a loss
that is infinite. Run folders are removed once their line is written.
"""

import argparse
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy

DIVERGED = 6


def arguments(description, out):
    a = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    a.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side [default: one for each core]")
    a.add_argument("--minutes", type=float, help="stop after so many, and show what is complete")
    a.add_argument("--quick", action="store_true", help="a few steps of each run: shows only that all of it works")
    a.add_argument("--dry-run", action="store_true", help="count the runs and stop")
    a.add_argument("--plot-only", action="store_true", help="tables and pictures of the runs that are complete")
    a.add_argument("--out", type=pathlib.Path, default=pathlib.Path(out))
    a.add_argument("--binary", default="target/release/ringtape")
    return a


class Run:
    """A training: a name within its sweep, a recipe, steps, a seed and settings; `cost` guesses its seconds."""

    def __init__(self, name, recipe, steps, seed, settings, cost=0.0):
        self.name, self.recipe, self.steps, self.seed, self.cost = name, recipe, steps, seed, cost
        self.settings = [f"{k}={v}" for k, v in settings.items()]

    def key(self):
        return json.dumps([self.name, self.recipe, self.steps, self.seed, self.settings])

    def command(self, binary, folder):
        command = [binary, "train", "-q", self.recipe, "--steps", self.steps, "--seed", self.seed, "--out", folder]
        for s in ["threads=1", "eval_every=0", "snapshot_every=0", "eval_batches=0", *self.settings]:
            command += ["--set", s]
        return [str(x) for x in command]


def records(out):
    """What earlier runs gave, by their keys. A last line that was cut off counts as none."""
    found, path = {}, out / "records.jsonl"
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            r = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[r["key"]] = r
    return found


def record(run, folder, code, seconds):
    """The line of a run that ended: final loss, hidden units, what a controller did."""
    r = {"key": run.key(), "val_loss": None, "user_s": seconds}
    if code == DIVERGED:
        return r
    loss = json.loads((folder / "summary.json").read_text())["val_loss"]
    r["val_loss"] = loss if loss is not None and math.isfinite(loss) else None
    cuts, last = 0, None
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        m = json.loads(line)
        r["activity"] = m.get("activity") or r.get("activity")
        last = m.get("controller") or last
        cuts += bool(m.get("controller") and m["controller"]["cut"])
    if last:
        r["cuts"], r["scale"] = cuts, last["scale"]
    return r


class Stopped(Exception):
    """Time is up, or somebody asked to end."""


def stop(*_):
    # Whoever asks twice must not cut the clearing up short.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped


def ended(process):
    """Exit code and seconds of processor time in user mode of a process that has ended; None while it has not."""
    pid, status, used = os.wait4(process.pid, os.WNOHANG)
    if not pid:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_utime


def make(runs, a):
    """Makes the runs that are missing, in their order, `a.jobs` side by side. Gives every record that there is."""
    have = records(a.out)
    todo = [r for r in runs if r.key() not in have]
    guess = sum(r.cost for r in todo)
    done = len(runs) - len(todo)
    print(f"{len(runs)} runs, {done} of them complete; the rest takes about {guess / 60:.1f} core minutes")
    if a.dry_run:
        raise SystemExit
    if a.plot_only or not todo:
        return have
    a.out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * (a.minutes or 1e6)
    signal.signal(signal.SIGTERM, stop)
    running, done, began = [], 0, time.monotonic()
    # A line that was cut off must not run into the next.
    with open(a.out / "records.jsonl", "a+b") as lines:
        if lines.tell():
            lines.seek(-1, os.SEEK_END)
            if lines.read(1) != b"\n":
                lines.write(b"\n")
        try:
            while todo or running:
                while todo and len(running) < a.jobs:
                    running.append(start(todo.pop(0), a))
                for item in list(running):
                    run, folder, process = item
                    told = ended(process)
                    if not told:
                        continue
                    running.remove(item)
                    if told[0] not in (0, DIVERGED):
                        raise SystemExit(f"{run.name}: exit code {told[0]}\n{errors_of(folder).read_text()}")
                    lines.write(json.dumps(record(run, folder, *told)).encode() + b"\n")
                    lines.flush()
                    clear(folder)
                    done += 1
                    if done % 20 == 0:
                        took = f"{time.monotonic() - began:.0f} s"
                        print(f"{done} done, {len(todo) + len(running)} left, {took}", file=sys.stderr)
                if time.monotonic() > until:
                    raise Stopped
                time.sleep(0.01)
        except (Stopped, KeyboardInterrupt):
            print(f"stopped with {len(todo) + len(running)} runs missing; the same command goes on", file=sys.stderr)
        finally:
            for _, folder, process in running:
                process.kill()
                process.wait()
                clear(folder)
    return records(a.out)


def errors_of(folder):
    return folder.with_name(folder.name + ".errors")


def clear(folder):
    shutil.rmtree(folder, ignore_errors=True)
    errors_of(folder).unlink(missing_ok=True)


def start(run, a):
    folder = a.out / "runs" / run.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # The errors lie beside the folder, which must be empty. A session of its own: who stops the sweep stops only the sweep,
    # not a run that would then end early as if it were complete.
    with open(errors_of(folder), "wb") as errors:
        how = {"stdout": subprocess.DEVNULL, "stderr": errors, "start_new_session": True}
        process = subprocess.Popen(run.command(a.binary, folder), **how)
    return run, folder, process


def losses(runs, have):
    """The final losses of those of `runs` that are complete, by seed; infinite for one that diverged."""
    found = {}
    for r in runs:
        if r.key() in have:
            loss = have[r.key()]["val_loss"]
            found[r.seed] = math.inf if loss is None else loss
    return found


def paired(here, there):
    """Mean of here/there - 1 over the seeds of both in percent, and its standard error."""
    seeds = here.keys() & there.keys()
    d = numpy.array([100 * (here[s] / there[s] - 1) for s in sorted(seeds)])
    if not len(d) or not numpy.isfinite(d).all():
        return "-"
    error = f" ± {d.std(ddof=1) / len(d) ** 0.5:.1f}" if len(d) > 1 else ""
    return f"{d.mean():+.1f}{error} %"


def canvas(columns, rows=1, width=3.2, height=3.0):
    """Figure and axes that give the same file for the same numbers."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "ringtape"
    return plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False)


def save(figure, path):
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
