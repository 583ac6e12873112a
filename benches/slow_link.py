"""What a slow network costs: ranks in network namespaces of their own, joined by a bridge, each with its link shaped.

    pip install numpy matplotlib
    cargo build --release
    python benches/slow_link.py --plot book/src/images/slow_link.svg        (as root, with iproute2)

Two measurements at each rate, both over TCP:

- `ringtape bench all-reduce`: time of one all-reduce of 1, 16 and 64 MiB, beside 2(p − 1)/p · N / rate, or what it takes
  where the link is not shaped, if that is more (there the processors are what is slow);
- a training step of the default GPT by data-parallel ranks (`ringtape train`), beside what the timeline of the run without
  a shaped link foretells: bucket k is ready at r_k, the ring is free when bucket k − 1 is done, and the step ends when the
  last bucket is done and the optimizer has stepped:  d_k = max(r_k, d_{k−1}) + 2(p − 1)/p · bytes_k / rate.

No constant is fitted to the slow runs. The kernel's token bucket (tbf) shapes what leaves a namespace, headers counted in.
"""

import argparse
import json
import os
import pathlib
import secrets
import shutil
import signal
import statistics
import subprocess
import tempfile

NAMES = "ringtape"
# Of 1,514 bytes on the wire 1,448 are ours; our frames have a header and a checksum, which are little beside it.
PAYLOAD = 1448 / 1514


def ip(*words, check=True):
    subprocess.run(["ip", *map(str, words)], check=check, stderr=None if check else subprocess.DEVNULL)


def inside(rank, *words):
    return ["ip", "netns", "exec", f"{NAMES}{rank}", *map(str, words)]


class Net:
    """Namespaces with an address each, joined by a bridge in one more. Nothing leaves them."""

    def __init__(self, ranks):
        self.ranks = ranks

    def __enter__(self):
        self.remove()
        ip("netns", "add", f"{NAMES}-bridge")
        bridge = ("-n", f"{NAMES}-bridge")
        ip(*bridge, "link", "add", "bridge", "type", "bridge")
        ip(*bridge, "link", "set", "bridge", "up")
        for r in range(self.ranks):
            mine = ("-n", f"{NAMES}{r}")
            ip("netns", "add", f"{NAMES}{r}")
            ip(*mine, "link", "add", "net", "type", "veth", "peer", "name", f"port{r}", "netns", f"{NAMES}-bridge")
            ip(*mine, "addr", "add", f"10.77.0.{r + 1}/24", "dev", "net")
            for link in ("lo", "net"):
                ip(*mine, "link", "set", link, "up")
            ip(*bridge, "link", "set", f"port{r}", "master", "bridge", "up")
        return self

    def __exit__(self, *_):
        self.remove()

    def remove(self):
        for name in [f"{NAMES}-bridge", *(f"{NAMES}{r}" for r in range(self.ranks))]:
            ip("netns", "del", name, check=False)

    def shape(self, mbit):
        """Everybody sends at most `mbit` million bits a second; None: as fast as it goes."""
        for r in range(self.ranks):
            subprocess.run(inside(r, "tc", "qdisc", "del", "dev", "net", "root"), stderr=subprocess.DEVNULL)
            if mbit:
                # A bucket holds what passes in 2 ms, and no less than a large segment.
                burst = max(int(mbit * 1e6 / 8 * 0.002), 65536 + 1514)
                tbf = ("tbf", "rate", f"{mbit}mbit", "burst", burst, "latency", "200ms")
                subprocess.run(inside(r, "tc", "qdisc", "add", "dev", "net", "root", *tbf), check=True)

    def run(self, *command):
        """The command by all ranks; what rank 0 printed."""
        known = {"WORLD_SIZE": self.ranks, "MASTER_ADDR": "10.77.0.1", "MASTER_PORT": 29400, "LOCAL_RANK": 0,
                 "RINGTAPE_TRANSPORT": "tcp", "RINGTAPE_SECRET": secrets.token_hex(16), "RINGTAPE_TIMEOUT": 60,
                 "RAYON_NUM_THREADS": 1}  # fmt: skip
        known = {k: str(v) for k, v in known.items()}
        ranks = [
            subprocess.Popen(
                inside(r, *command), env={**os.environ, **known, "RANK": str(r)}, text=True,
                stdout=subprocess.PIPE if r == 0 else subprocess.DEVNULL)
            for r in range(self.ranks)
        ]  # fmt: skip
        told = ranks[0].communicate()[0]
        if codes := [p.wait() for p in ranks if p.wait()]:
            raise SystemExit(f"{' '.join(map(str, command))}: exit codes {codes}")
        return told


def all_reduces(a, net):
    """Median seconds of an all-reduce over TCP, by MiB."""
    told = json.loads(net.run(a.binary, "bench", "all-reduce", "--seconds", a.seconds, "--json"))
    return {int(c["what"].split()[-2]): c["median"] for c in told["cases"] if c["what"].startswith("TCP")}


def training(a, net, folder, traced):
    """Median seconds of a step, and the timeline of rank 0."""
    keys = {"eval_batches": 0, "eval_every": 0, "snapshot_every": 0, "tensorboard": "false", "log_every": 1, "bucket_mb": 1,
            "crossover": 8192, "trace": a.steps if traced else 0}  # fmt: skip
    sets = [w for k, v in keys.items() for w in ("--set", f"{k}={v}")]
    net.run(a.binary, "train", "--quiet", "--steps", a.steps, "--out", folder, *sets)
    lines = map(json.loads, (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines())
    at = [m["wall_s"] for m in lines]
    step = statistics.median(b - a for a, b in zip(at[2:], at[3:]))
    return step, json.loads((pathlib.Path(folder) / "trace.json").read_text())["traceEvents"] if traced else None


def timeline(events):
    """Of rank 0, medians over steps: when each bucket is ready after forward began, its bytes, what the optimizer takes."""
    mine = sorted((e for e in events if e["pid"] == 0 and e["ph"] == "X"), key=lambda e: e["ts"])
    begins = [e["ts"] for e in mine if e["name"] == "forward"]
    steps = [[e for e in mine if a <= e["ts"] < b] for a, b in zip(begins[2:], begins[3:])]
    names = sorted({e["name"] for e in mine if "bucket" in e["name"]}, key=lambda n: int(n.split()[-1]))
    ready, size = [], []
    for name in names:
        each = [(e["ts"] - s[0]["ts"], e) for s in steps for e in s if e["name"] == name]
        ready.append(statistics.median(t for t, _ in each) / 1e6)
        size.append(each[0][1]["args"]["bytes"])
    whole = statistics.median(b - a for a, b in zip(begins[2:], begins[3:])) / 1e6
    last = [max(e["ts"] + e["dur"] for e in s if "bucket" in e["name"]) for s in steps]
    rest = statistics.median(b - t for t, b in zip(last, begins[3:])) / 1e6
    return ready, size, rest, whole


def foretold(line, p, rate):
    """Seconds of a step at `rate` bytes a second."""
    ready, size, rest, _ = line
    done = 0.0
    for r, n in zip(ready, size):
        done = max(r, done) + 2 * (p - 1) / p * n / rate
    return done + rest


def plot(path, a, sums, steps):
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "ringtape"
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    timed = [r for r in a.rates if sums[r]["seen"]]
    for mib in sums[timed[0]]["seen"] if timed else []:
        seen = left.plot(timed, [1e3 * sums[r]["seen"][mib] for r in timed], "o", label=f"{mib} MiB")[0]
        left.plot(timed, [1e3 * sums[r]["told"][mib] for r in timed], color=seen.get_color(), linewidth=1)
    left.set(xscale="log", yscale="log", xlabel="link, Mbit/s", ylabel="all-reduce, ms")
    right.plot(a.rates, [1e3 * steps[r][0] for r in a.rates], "o", label="measured")
    right.plot(a.rates, [1e3 * steps[r][1] for r in a.rates], color="0.5", linewidth=1, label="foretold")
    right.axhline(1e3 * steps[None][0], color="0.7", linestyle=":", label="link not shaped")
    right.set(xscale="log", yscale="log", xlabel="link, Mbit/s", ylabel="training step, ms")
    for ax in (left, right):
        ax.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--ranks", type=int, default=4)
    a.add_argument("--rates", type=float, nargs="+", default=[1000, 400, 200, 100, 50, 25], metavar="MBIT")
    a.add_argument("--sums-from", type=float, default=200, metavar="MBIT", help="least rate at which all-reduces are timed alone")
    a.add_argument("--seconds", type=float, default=0.5, help="of each case of the all-reduce")
    a.add_argument("--steps", type=int, default=14)
    a.add_argument("--plot", help="file for the picture")
    a.add_argument("--binary", default="target/release/ringtape")
    a = a.parse_args()
    if os.geteuid() or not (shutil.which("ip") and shutil.which("tc")):
        raise SystemExit("slow_link makes network namespaces: run it as root, with iproute2 (`ip` and `tc`) installed")
    # Whoever is told to end takes the namespaces away first.
    signal.signal(signal.SIGTERM, lambda *_: exit(143))
    p, sums, steps = a.ranks, {}, {}
    with Net(p) as net, tempfile.TemporaryDirectory() as scratch:
        free = all_reduces(a, net)
        step, events = training(a, net, f"{scratch}/free", True)
        line = timeline(events)
        steps[None] = (step, line[-1])
        print(f"{p} ranks, link not shaped: step {1e3 * step:.0f} ms; all-reduce ", end="")
        print(", ".join(f"{mib} MiB {1e3 * t:.1f} ms" for mib, t in free.items()), "\n", flush=True)
        columns = [f"{mib} MiB, ms | foretold" for mib in free] + ["step, ms | foretold | off"]
        print("| Mbit/s | " + " | ".join(columns) + " |\n" + "|---" * (1 + 2 * len(free) + 3) + "|", flush=True)
        for mbit in a.rates:
            net.shape(mbit)
            rate = mbit * 1e6 / 8 * PAYLOAD
            seen = all_reduces(a, net) if mbit >= a.sums_from else {}
            told = {mib: max(free[mib], 2 * (p - 1) / p * (mib << 20) / rate) for mib in seen}
            sums[mbit] = {"seen": seen, "told": told}
            steps[mbit] = (training(a, net, f"{scratch}/{mbit}", False)[0], foretold(line, p, rate))
            cells = [f"{1e3 * seen[m]:.0f} | {1e3 * told[m]:.0f}" if seen else "- | -" for m in free]
            s, t = steps[mbit]
            cells += [f"{1e3 * s:.0f} | {1e3 * t:.0f} | {100 * (s / t - 1):+.0f} %"]
            print(f"| {mbit:g} | " + " | ".join(cells) + " |", flush=True)
    if a.plot:
        plot(a.plot, a, sums, steps)


if __name__ == "__main__":
    main()
