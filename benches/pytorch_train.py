"""Quality beside PyTorch: trains the model of a ringtape run in PyTorch, from the same start weights, on the same batches in
the same order, with the same optimizer and schedule, and prints the validation loss of both.

    pip install torch numpy safetensors
    ringtape train RECIPE.toml --out RUN
    ringtape train RECIPE.toml --out START --steps 1 --set optimizer.lr=1e-30 --set schedule.name=constant
    python benches/pytorch_train.py RUN --weights START/step-1/model.safetensors --data SET.rtd

A step at such a rate changes no bit of a weight but those that are zero, so START holds what RUN started from. Sizes, steps, seed, optimizer and schedule come from RUN/config.toml; --set key=value overrides one. Prints one JSON object
every --every steps and one at the end with `val_loss`.
"""

import argparse
import json
import math
import subprocess
import time
import tomllib
from pathlib import Path

import numpy as np
import torch
from pytorch_gpt import Gpt
from safetensors.torch import load_file

MASK32, MASK64 = 2**32 - 1, 2**64 - 1


def philox(seed, stream, index):
    """Philox4x32-10, as src/rng.rs: the block `index` of sequence (seed, stream)."""
    c = [index & MASK32, index >> 32, stream & MASK32, stream >> 32]
    k = [seed & MASK32, seed >> 32]
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(q >> 32) ^ c[1] ^ k[0], q & MASK32, (p >> 32) ^ c[3] ^ k[1], p & MASK32]
        k = [(k[0] + 0x9E3779B9) & MASK32, (k[1] + 0xBB67AE85) & MASK32]
    return c


# The known answer published with Random123.
assert philox(0, 0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def named(name):
    """FNV-1a of a stream's name."""
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = (h ^ b) * 0x100000001B3 & MASK64
    return h


class Order:
    """ringtape's order of windows (src/data/sampler.rs, src/data/dataset.rs): a Feistel permutation for each epoch, and a
    random start of the first window."""

    def __init__(self, seed, tokens, context, batch):
        self.seed, self.context, self.batch = seed, context, batch
        self.usable = tokens - 1
        self.windows = max((self.usable - min(context - 1, self.usable)) // context, 1)
        self.half = max(((self.windows - 1).bit_length() + 1) // 2, 1)
        self.choices = min(self.usable - self.windows * context + 1, context)

    def index(self, epoch, at):
        stream, mask = named("data.order") ^ (epoch * 0x9E3779B97F4A7C15 & MASK64), (1 << self.half) - 1
        while True:
            left, right = at >> self.half, at & mask
            for r in range(8):
                left, right = right, left ^ (philox(self.seed, stream, r << 56 ^ right)[0] & mask)
            at = left << self.half | right
            if at < self.windows:
                return at

    def batches(self):
        """First tokens of the windows of each batch, without end."""
        epoch = 0
        while True:
            offset = philox(self.seed, named("data.offset"), epoch)[0] % self.choices
            for b in range(self.windows // self.batch):
                at = range(b * self.batch, (b + 1) * self.batch)
                yield [offset + self.index(epoch, k) * self.context for k in at]
            epoch += 1


class Tokens:
    """The token stream of a packed set, mapped; where it lies in the file `ringtape data inspect` says."""

    def __init__(self, program, path):
        told = subprocess.run([program, "data", "inspect", path, "--json"], check=True, capture_output=True, text=True)
        info = json.loads(told.stdout)
        field = info["fields"][0]
        if field["kind"] != "tokens":
            raise SystemExit(f"{path} holds no token stream")
        kind = {"u8": np.uint8, "u16": "<u2", "i32": "<i4"}[field["dtype"]]
        self.all = np.memmap(path, kind, "r", field["offset"], (field["count"],))
        self.splits = {s["name"]: self.all[s["start"]: s["start"] + s["count"]] for s in info["splits"]}
        self.vocabulary = info["vocabulary"]


def windows(tokens, starts, context):
    x = torch.from_numpy(np.stack([tokens[s: s + context + 1] for s in starts]).astype(np.int64))
    return x[:, :-1], x[:, 1:]


@torch.no_grad()
def evaluate(model, tokens, context, batch):
    """Mean loss over every token of the split but its first, each once: as Windows::evaluation."""
    usable, total = len(tokens) - 1, 0.0
    starts = [min(i * context, usable - context) for i in range(-(-usable // context))]
    for i in range(0, len(starts), batch):
        x, y = windows(tokens, starts[i: i + batch], context)
        y = y.clone()
        for row, k in enumerate(range(i, min(i + batch, len(starts)))):
            y[row, : k * context - starts[k]] = -100
        total += model.loss(x, y).item() * (y != -100).sum().item()
    return total / usable


def rate(c, done):
    """Learning rate of the step after `done` steps, as src/optim/schedule.rs."""
    lr, least, warmup, steps = c["optimizer.lr"], c["schedule.min_lr"], c["schedule.warmup_steps"], c["steps"]
    if done < warmup:
        return lr * (done + 1) / warmup
    x = min((done - warmup) / max(steps - warmup - 1, 1), 1.0)
    share = {"constant": None, "linear": 1 - x, "cosine": (1 + math.cos(math.pi * x)) / 2}[c["schedule.name"]]
    return lr if share is None else least + (lr - least) * share


DEFAULTS = {
    "model.tied": False, "optimizer.beta1": 0.9, "optimizer.beta2": 0.999, "optimizer.eps": 1e-8, "optimizer.weight_decay": 0.01,
    "clip": 0.0,
    "schedule.name": "constant", "schedule.warmup_steps": 0, "schedule.min_lr": 0.0, "accumulate": 1,
}


def read_config(path, overrides):
    """Dotted keys of the resolved config."""
    flat = dict(DEFAULTS)

    def walk(prefix, table):
        for k, v in table.items():
            walk(f"{prefix}{k}.", v) if isinstance(v, dict) else flat.update({prefix + k: v})

    walk("", tomllib.loads(Path(path).read_text()))
    for pair in overrides:
        key, _, value = pair.partition("=")
        try:
            flat[key] = json.loads(value)
        except json.JSONDecodeError:
            flat[key] = value
    wanted = ["model.context", "model.layers", "model.dim", "model.heads", "batch_size", "steps", "seed", "optimizer.lr"]
    if missing := [k for k in wanted if k not in flat]:
        raise SystemExit(f"{path} lacks {', '.join(missing)}; give them with --set key=value")
    return flat


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("run", help="folder of the ringtape run")
    a.add_argument("--weights", required=True, help="model.safetensors with the weights that it started from")
    a.add_argument("--data", required=True, help="the packed set (.rtd)")
    a.add_argument("--ringtape", default="target/release/ringtape", help="the program, to ask where the tokens lie")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--every", type=int, default=50, help="steps between two lines")
    a.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a key of the config")
    a = a.parse_args()
    c = read_config(Path(a.run) / "config.toml", a.set)
    if c["accumulate"] != 1:
        raise SystemExit("this script does not accumulate over micro-batches")
    torch.set_num_threads(a.threads)
    tokens = Tokens(a.ringtape, a.data)
    context, batch = c["model.context"], c["batch_size"]
    model = Gpt(tokens.vocabulary, context, c["model.layers"], c["model.dim"], c["model.heads"], c["model.tied"])
    model.load(load_file(a.weights))
    optimizer = torch.optim.AdamW(
        model.groups(c["optimizer.weight_decay"]), lr=c["optimizer.lr"], fused=True,
        betas=(c["optimizer.beta1"], c["optimizer.beta2"]), eps=c["optimizer.eps"])
    train, val = tokens.splits["train"], tokens.splits["val"]
    order = Order(c["seed"], len(train), context, batch).batches()
    print(json.dumps({"step": 0, "val_loss": evaluate(model, val, context, batch)}), flush=True)
    start = time.perf_counter()
    for step in range(c["steps"]):
        for group in optimizer.param_groups:
            group["lr"] = rate(c, step)
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(*windows(train, next(order), context))
        loss.backward()
        if c["clip"] > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), c["clip"])
        optimizer.step()
        if (step + 1) % a.every == 0:
            print(json.dumps({"step": step + 1, "loss": loss.item(), "lr": rate(c, step)}), flush=True)
    seconds = time.perf_counter() - start
    result = {"step": c["steps"], "val_loss": evaluate(model, val, context, batch),
              "tokens_per_s": c["steps"] * batch * context / seconds, "threads": a.threads}
    lines = Path(a.run) / "metrics.jsonl"
    if lines.exists():
        measured = [m for m in map(json.loads, lines.read_text().splitlines()) if m.get("val_loss") is not None]
        if measured:
            result["ringtape_val_loss"] = measured[-1]["val_loss"]
            result["ratio"] = measured[-1]["val_loss"] / result["val_loss"]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
