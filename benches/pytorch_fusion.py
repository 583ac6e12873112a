"""Models of several modalities beside PyTorch: are they the same, how fast is each, how well does each learn?

    pip install torch numpy safetensors
    cargo build --release
    python benches/pytorch_fusion.py --rounds 3 --accuracy
    python benches/pytorch_fusion.py --only senses/late --experts

For each recipe:

- agreement: both begin with ringtape's initial weights and take the same batches, without dropout; the loss of each of the
  first steps and the norm of the first gradient must agree to 1e-4, or the run ends here;
- speed: `ringtape train` and PyTorch in turns, --speed-steps steps a turn, with the same number of threads; samples a second,
  medians (extremes). Ours has its data, clipping and log in it; PyTorch's set lies in memory as f32 already;
- with --accuracy: a whole training of each, from the same initial weights with the same batches, optimizer and schedule
  (dropout draws other numbers), judged on the whole held-out split; for `pair` how often the right partner is the first.

--experts: for each sense of `senses` a model of its own (the recipe `late` with one input), and the sum of their
log-probabilities: PyTorch's, and ringtape's weights evaluated in PyTorch beside what `ringtape eval` says of each.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_modalities import Modalities
from pytorch_train import MASK64, named, rate, read_config
from safetensors.torch import load_file

RECIPES = [
    "av-erase/early", "av-xor10/early", "av-xor10/affinity", "av-xor10/projections", "senses/late", "senses/hybrid",
    "senses/early", "senses/experts", "scenes/pair",
]  # fmt: skip
SENSES = ["image", "audio", "text"]
BARE = {"model.dropout": 0.0, "model.fused.modality_dropout": 0.0}
AGREE = 1e-4


def philox(seed, stream, index):
    """Philox4x32-10, as src/rng.rs: the first word of each of the blocks `index` (u64) of sequence (seed, stream)."""
    index, low = index.astype(np.uint64), np.uint64(2**32 - 1)
    c = [index & low, index >> np.uint64(32)]
    c += [np.full_like(index, stream & 2**32 - 1), np.full_like(index, stream >> 32)]
    k = [seed & 2**32 - 1, seed >> 32]
    for _ in range(10):
        p, q = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        k0, k1 = map(np.uint64, k)
        c = [(q >> np.uint64(32)) ^ c[1] ^ k0, q & low, (p >> np.uint64(32)) ^ c[3] ^ k1, p & low]
        k = [(k[0] + 0x9E3779B9) & 2**32 - 1, (k[1] + 0xBB67AE85) & 2**32 - 1]
    return c[0]


def permutation(seed, epoch, n):
    """Order of the samples of an epoch (src/data/sampler.rs)."""
    half = max(((n - 1).bit_length() + 1) // 2, 1)
    stream, mask = named("data.order") ^ (epoch * 0x9E3779B97F4A7C15 & MASK64), np.uint64((1 << half) - 1)
    x, out = np.arange(n, dtype=np.uint64), np.zeros(n, np.int64)
    where = np.arange(n)
    while len(where):
        left, right = x >> np.uint64(half), x & mask
        for r in range(8):
            left, right = right, left ^ (philox(seed, stream, np.uint64(r << 56) ^ right) & mask)
        x = left << np.uint64(half) | right
        done = x < n
        out[where[done]] = x[done]
        x, where = x[~done], where[~done]
    return out


class Values:
    """One field of a packed set, as batches hold it."""

    def __init__(self, path, f):
        self.shape, self.bound = f["shape"], f["bound"]
        kinds = {"u8": np.uint8, "u16": "<u2", "i32": "<i4", "f16": "<f2", "f32": "<f4"}
        stored = np.memmap(path, kinds[f["dtype"]], "r", f["offset"], (f["count"], *self.shape))
        if f["std"] or f["dtype"].startswith("f"):
            mean, std = (np.array(f[k] or [d], np.float32) for k, d in (("mean", 0), ("std", 1)))
            self.all = torch.from_numpy((stored.astype(np.float32) - mean) / std)
        else:
            self.all = torch.from_numpy(stored.astype(np.int64))

    def some(self):
        return self.all[:1]


class Set:
    """A packed set; where its fields lie `ringtape data inspect` says."""

    def __init__(self, a, name):
        told = subprocess.run([a.binary, "data", "inspect", name, "--json"], check=True, capture_output=True, text=True)
        info = json.loads(told.stdout)
        self.fields = {f["name"]: Values(info["path"], f) for f in info["fields"]}
        self.splits = {s["name"]: (s["start"], s["count"]) for s in info["splits"]}
        self.classes = len(info["classes"])

    def batches(self, seed, size):
        """Indices of the batches of training, without end."""
        start, n = self.splits["train"]
        epoch = 0
        while True:
            order = torch.from_numpy(start + permutation(seed, epoch, n))
            yield from (order[i * size: (i + 1) * size] for i in range(n // size))
            epoch += 1

    def take(self, index):
        return {name: f.all[index] for name, f in self.fields.items()}

    def held_out(self, size=500):
        start, n = self.splits["val" if "val" in self.splits else "test"]
        for i in range(start, start + n, size):
            yield self.take(torch.arange(i, min(i + size, start + n)))


def ringtape(a, *words):
    command = [a.binary, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def train(a, recipe, folder, settings):
    """Runs `ringtape train` and gives its metrics."""
    words = ["train", f"datasets/{recipe}.toml", "--out", folder, "--quiet"]
    for key, value in {"threads": a.threads, "tensorboard": "false", **settings}.items():
        words += ["--set", f"{key}={value}"]
    ringtape(a, *words)
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def config(folder, overrides=None):
    return {**read_config(Path(folder) / "config.toml", []), **(overrides or {})}


def model_of(c, data, folder, step):
    names = [n.strip() for n in c["data.input"].split(",")] if c["data.input"] else None
    fields = {n: f for n, f in data.fields.items() if (n in names if names else n in SENSES)}
    return Modalities(c, fields, data.classes).load(load_file(Path(folder) / f"step-{step}" / "model.safetensors"))


def steps(model, data, c):
    """Trains; gives loss and norm of the gradient of each step."""
    optimizer = torch.optim.AdamW(
        model.groups(c["optimizer.weight_decay"]), lr=c["optimizer.lr"], fused=True,
        betas=(c["optimizer.beta1"], c["optimizer.beta2"]), eps=c["optimizer.eps"])  # fmt: skip
    model.train()
    for step, index in zip(range(c["steps"]), data.batches(c["seed"], c["batch_size"])):
        for group in optimizer.param_groups:
            group["lr"] = rate(c, step)
        optimizer.zero_grad(set_to_none=True)
        loss, price = model.losses(data.take(index))
        (loss + price).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), c["clip"] if c["clip"] > 0 else torch.inf)
        optimizer.step()
        yield loss.item(), norm.item()


def begin(a, recipe, folder, settings):
    """A run of one step at a rate that changes nothing: what a training of these settings begins with."""
    still = {"steps": 1, "optimizer.lr": 1e-30, "schedule.name": "constant", "schedule.warmup_steps": 0, "eval_batches": 1}
    train(a, recipe, folder, {**settings, **still})


def agreement(a, recipe, data, scratch):
    """Largest relative differences of losses, and that of the first norm."""
    few = {"steps": a.agree, "seed": a.seed, "log_every": 1, "eval_batches": 1, "eval_every": 0, **BARE}
    start, run = f"{scratch}/start", f"{scratch}/agree"
    begin(a, recipe, start, few)
    ours = train(a, recipe, run, few)
    theirs = list(steps(model_of(config(run), data, start, 1), data, config(run)))
    far = lambda x, y: abs(x - y) / abs(y)
    losses = max(far(m["loss"], loss) for m, (loss, _) in zip(ours, theirs, strict=True))
    norm = far(ours[0]["grad_norm"], theirs[0][1])
    if max(losses, norm) > AGREE:
        pairs = [(m["loss"], t[0]) for m, t in zip(ours, theirs)]
        raise SystemExit(f"{recipe}: losses differ by {losses:.1e}, norms by {norm:.1e}: {pairs}")
    return losses, norm


def speed(a, recipe, data, scratch, turn):
    """Samples a second of a turn of each."""
    n = a.speed_steps
    few = {"steps": n, "seed": a.seed, "log_every": max(n // 4, 1), "eval_batches": 1, "eval_every": 0}
    lines = train(a, recipe, f"{scratch}/speed-{turn}", few)
    ours = statistics.median(m["samples_per_s"] for m in lines[1:] if m.get("samples_per_s"))
    c = config(f"{scratch}/speed-{turn}")
    times = [time.perf_counter()]
    times += [time.perf_counter() for _ in steps(model_of(c, data, f"{scratch}/start", 1), data, c)]
    warm = max(n // 4, 1)
    return ours, (n - warm) * c["batch_size"] / (times[n] - times[warm])


@torch.no_grad()
def judge(model, data):
    """Share of held-out samples that are right; for `pair`, whose right partner is the first, in both directions."""
    model.eval()
    if model.pair:
        found = [torch.cat([model.embed(n, b[n]) for b in data.held_out()]) for n in model.names]
        s = found[0] @ found[1].T
        return tuple(((x >= x.diag()[:, None]).sum(1) == 1).float().mean().item() for x in (s, s.T))
    y, label = opinions(model, data)
    return ((y.argmax(1) == label).float().mean().item(),)


@torch.no_grad()
def opinions(model, data):
    """Log-probabilities and labels of the held-out split."""
    model.eval()
    found = [(F.log_softmax(model(b)[0], 1), b["label"]) for b in data.held_out()]
    return [torch.cat(x) for x in zip(*found)]


def accuracy(a, recipe, data, scratch):
    long = {"seed": a.seed} | ({"steps": a.steps} if a.steps else {})
    run, start = f"{scratch}/whole", f"{scratch}/start"
    train(a, recipe, run, {**long, "eval_every": 0, "eval_batches": 1})
    told = json.loads(ringtape(a, "eval", run, "--json"))
    ours = [r["at"][0] for r in told["retrieval"]] if told["retrieval"] else [told["accuracy"]]
    c = config(run)
    model = model_of(c, data, start, 1)
    torch.manual_seed(a.seed)
    for _ in steps(model, data, c):
        pass
    return ours, judge(model, data)


def experts(a, data, scratch):
    """Models of one sense each, and the sum of what they hold likely."""
    sums, rows = {"ringtape": 0, "PyTorch": 0}, []
    for sense in SENSES:
        run, start = f"{scratch}/{sense}", f"{scratch}/{sense}-start"
        long = {"seed": a.seed, "data.input": sense, "eval_every": 0, "eval_batches": 1} | ({"steps": a.steps} if a.steps else {})
        begin(a, "senses/late", start, long)
        train(a, "senses/late", run, long)
        told = json.loads(ringtape(a, "eval", run, "--json"))["accuracy"]
        c = config(run)
        torch.manual_seed(a.seed)
        model = model_of(c, data, start, 1)
        for _ in steps(model, data, c):
            pass
        cells = []
        for who, m in (("ringtape", model_of(c, data, run, c["steps"])), ("PyTorch", model)):
            y, label = opinions(m, data)
            sums[who] = sums[who] + y
            cells.append((y.argmax(1) == label).float().mean().item())
        rows.append([sense, told, *cells])
    right = [(y.argmax(1) == label).float().mean().item() for y in sums.values()]
    print("| by | `ringtape eval` | its weights in PyTorch | trained by PyTorch |\n|---|---|---|---|")
    for sense, *cells in rows:
        print(f"| {sense} alone | " + " | ".join(f"{100 * x:.2f} %" for x in cells) + " |")
    print("| sum of their log-probabilities | – | " + " | ".join(f"{100 * x:.2f} %" for x in right) + " |", flush=True)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--only", nargs="+", default=RECIPES, metavar="SET/RECIPE", help="recipes of datasets/")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--rounds", type=int, default=3, help="turns of the measurement of speed; 0: none")
    a.add_argument("--speed-steps", type=int, default=40, help="steps of a turn, the first quarter not timed")
    a.add_argument("--agree", type=int, default=8, help="steps whose losses must agree")
    a.add_argument("--accuracy", action="store_true", help="train each to the end too")
    a.add_argument("--experts", action="store_true", help="models of one sense each, and their product")
    a.add_argument("--steps", type=int, default=0, help="steps of whole trainings; 0: those of the recipe")
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--binary", default="target/release/ringtape")
    a = a.parse_args()
    torch.set_num_threads(a.threads)
    sets = {name: Set(a, name) for name in dict.fromkeys(r.split("/")[0] for r in a.only)}
    print("| recipe | losses differ by | ringtape, samples/s | PyTorch | ratio | ringtape, right | PyTorch |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for recipe in a.only:
        data = sets[recipe.split("/")[0]]
        with tempfile.TemporaryDirectory() as scratch:
            losses, norm = agreement(a, recipe, data, scratch)
            turns = [speed(a, recipe, data, scratch, t) for t in range(a.rounds)]
            cells = [f"{max(losses, norm):.0e}"]
            for who in zip(*turns):
                cells.append(f"{statistics.median(who):.0f} ({min(who):.0f}–{max(who):.0f})")
            cells.append(f"{statistics.median(x / y for x, y in turns):.2f}" if turns else "")
            if a.accuracy:
                cells += [", ".join(f"{100 * x:.2f} %" for x in who) for who in accuracy(a, recipe, data, scratch)]
            print(f"| {recipe} | " + " | ".join(cells) + " |", flush=True)
    if a.experts:
        with tempfile.TemporaryDirectory() as scratch:
            experts(a, sets.get("senses") or Set(a, "senses"), scratch)


if __name__ == "__main__":
    main()
