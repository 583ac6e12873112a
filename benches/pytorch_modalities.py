"""The models of several modalities of ringtape (`model.kind` fusion and pair) in PyTorch.

Slots of ringtape are parameters here under the same names, so a snapshot's model.safetensors loads as it is. Used by
pytorch_fusion.py.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Stream:
    """Tokens x [B, T, dim] of a modality; there [B, T], true for tokens that are there; here [B], for samples that have it."""

    x: torch.Tensor
    there: torch.Tensor
    here: torch.Tensor

    def behind(self, first):
        """With tokens [n, dim] or [B, n, dim] in front, which are there where the modality is."""
        first = first.expand(self.x.shape[0], *first.shape[-2:])
        there = self.here[:, None].expand(-1, first.shape[1])
        return Stream(torch.cat([first, self.x], 1), torch.cat([there, self.there], 1), self.here)


def heads_of(x, heads):
    b, t, d = x.shape
    return x.view(b, t, heads, d // heads).transpose(1, 2)


class Attend(nn.Module):
    def __init__(self, dim, heads, norm=False):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        if norm:
            self.norm = nn.LayerNorm(dim)

    def project(self, x):
        return [heads_of(y, self.heads) for y in self.qkv(x).chunk(3, -1)]

    def join(self, y):
        return self.out(y.transpose(1, 2).flatten(2))

    def within(self, x, there):
        return self.join(to(*self.project(x), there))

    def across(self, cross, streams):
        """What each stream takes from each other one, summed."""
        all_ = [self.project(self.norm(s.x)) for s in streams]
        taken = [0] * len(streams)
        for a in range(len(streams)):
            for b in range(a + 1, len(streams)):
                (qa, ka, va), (qb, kb, vb) = all_[a], all_[b]
                if cross == "affinity":
                    s = qa @ kb.transpose(2, 3) / qa.shape[-1] ** 0.5
                    from_b = weights(s, streams[b].there[:, None, None]) @ vb
                    from_a = weights(s.transpose(2, 3), streams[a].there[:, None, None]) @ va
                else:
                    from_b, from_a = to(qa, kb, vb, streams[b].there), to(qb, ka, va, streams[a].there)
                taken[a], taken[b] = taken[a] + from_b, taken[b] + from_a
        return [self.join(y) if len(streams) > 1 else None for y in taken]


def weights(s, there):
    """Softmax over the keys that are there; 0 where none is."""
    return torch.softmax(s.masked_fill(~there, -torch.inf), -1).masked_fill(~there, 0) if there.any() else s * 0


def to(q, k, v, there):
    """Attention to the keys that are there; PyTorch too gives 0 where none is."""
    return F.scaled_dot_product_attention(q, k, v, None if there.all() else there[:, None, None])


class Mlp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.up = nn.Linear(dim, 4 * dim)
        self.down = nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, c, cross=None):
        super().__init__()
        dim, heads = c["model.dim"], c["model.heads"]
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attend(dim, heads)
        self.mode = cross
        if cross:
            self.cross = Attend(dim, heads, norm=True)
        self.mlp = Mlp(dim)
        self.dropout = nn.Dropout(c["model.dropout"])

    def forward(self, streams):
        streams = [Stream(s.x + self.dropout(self.attention.within(self.norm1(s.x), s.there)), s.there, s.here) for s in streams]
        if self.mode and len(streams) > 1:
            for s, y in zip(streams, self.cross.across(self.mode, streams)):
                s.x = s.x + self.dropout(y)
        for s in streams:
            s.x = s.x + self.dropout(self.mlp(self.norm2(s.x)))
        return streams


class Part(nn.Module):
    """What stands under one name: an extractor, and as far as wanted a summary, blocks and a head."""

    def extractor(self, c, field):
        dim, shape = c["model.dim"], field.shape
        if len(shape) == 3:
            plan = [(dim, c["model.fused.patch"], c["model.fused.patch"], 0)]
            if c["model.fused.image"] == "cnn":
                plan = [(16, 3, 1, 1), (32, 3, 1, 1), (dim, 3, 2, 1)]
            self.extract, channels = nn.ModuleList(), shape[0]
            for out, side, stride, padding in plan:
                self.extract.append(nn.Conv2d(channels, out, side, stride, padding))
                channels = out
            self.form = "image"
        elif len(shape) == 2:
            self.form, self.frames = "sound", c["model.fused.frames"]
            self.extract = nn.Linear(self.frames * shape[1], dim)
        else:
            self.form = "text"
            self.extract = nn.Embedding(field.bound, dim)
        with torch.no_grad():
            tokens = self.tokens(field.some()).shape[1]
        self.position = nn.Parameter(torch.zeros(tokens, dim))
        return self

    def tokens(self, x):
        if self.form == "sound":
            return self.extract(x.reshape(x.shape[0], x.shape[1] // self.frames, -1))
        if self.form == "text":
            return self.extract(x)
        for i, layer in enumerate(self.extract):
            x = layer(x)
            if i + 1 < len(self.extract):
                x = F.max_pool2d(F.relu(x), 2)
        return x.flatten(2).transpose(1, 2)

    def stream(self, x, here):
        tokens = self.tokens(x) + self.position
        there = here[:, None].expand(tokens.shape[:2])
        return Stream(tokens, there & (x != 0) if self.form == "text" else there, here)

    def trunk(self, c, layers, outputs, cross=None):
        self.summary = nn.Parameter(torch.zeros(1, c["model.dim"]))
        self.blocks = nn.ModuleList(Block(c, cross) for _ in range(layers))
        self.norm = nn.LayerNorm(c["model.dim"])
        self.head = nn.Linear(c["model.dim"], outputs)
        return self

    def read(self, s):
        return self.head(self.norm(s.x[:, 0]))

    def alone(self, s):
        """Logits by one modality, 0 for samples without it."""
        streams = [s.behind(self.summary)]
        for block in self.blocks:
            streams = block(streams)
        return self.read(streams[0]) * s.here[:, None]


def mean_here(streams, values):
    """Mean over the streams that a sample has."""
    here = torch.stack([s.here for s in streams]).float()
    here = here.view(*here.shape, *[1] * (values[0].dim() - 1))
    return (torch.stack(values) * here).sum(0) / here.sum(0)


class Modalities(nn.Module):
    """Dicts of values [B, …] to logits [B, outputs] and those of modalities' own heads; `pair`: to [B, B]."""

    def __init__(self, c, fields, outputs):
        super().__init__()
        self.c, self.names = c, list(fields)
        self.pair, self.mode, self.mix = c["model.kind"] == "pair", c["model.fusion"], c["model.fused.cross"]
        layers = c["model.layers"]
        for name, field in fields.items():
            part = Part().extractor(c, field)
            if self.pair:
                part.trunk(c, layers, c["model.dim"])
            elif self.mode in ("late", "experts"):
                part.trunk(c, layers, outputs)
            elif self.mode == "hybrid":
                meetings = max(-(-layers // 2), 2)
                part.trunk(c, layers - meetings, outputs)
                part.meeting = nn.Module()
                part.meeting.blocks = nn.ModuleList(Block(c) for _ in range(meetings))
            self.add_module(name, part)
        if self.pair:
            self.logit_scale = nn.Parameter(torch.zeros(1))
        elif self.mode in ("early", "experts"):
            self.joint = Part().trunk(c, layers, outputs, self.mix if self.mix != "joint" else None)
        elif self.mode == "hybrid":
            self.bottleneck = nn.Parameter(torch.zeros(c["model.fused.bottleneck"], c["model.dim"]))

    def parts(self):
        return [getattr(self, name) for name in self.names]

    def here(self, batch):
        """Which samples keep which modality: training drops each by chance, never all."""
        p = self.c["model.fused.modality_dropout"]
        kept = torch.ones(len(self.names), batch, dtype=torch.bool)
        if self.training and p > 0 and len(self.names) > 1:
            kept = torch.rand(kept.shape) >= p
            saved = torch.randint(len(self.names), (batch,))
            kept[saved, torch.arange(batch)] |= ~kept.any(0)
        return kept

    def embed(self, name, x):
        part = getattr(self, name)
        y = part.alone(part.stream(x, torch.ones(len(x), dtype=torch.bool)))
        return F.rms_norm(y, y.shape[1:]) / y.shape[1] ** 0.5

    def forward(self, values):
        if self.pair:
            a, b = (self.embed(name, values[name]) for name in self.names)
            return a @ b.T * self.logit_scale.clamp(max=torch.tensor(100.0).log().item()).exp(), []
        here = self.here(len(values[self.names[0]]))
        streams = [p.stream(values[n], h) for p, n, h in zip(self.parts(), self.names, here)]
        if self.mode == "hybrid":
            return self.hybrid(streams)
        heads = [p.alone(s) for p, s in zip(self.parts(), streams)] if self.mode != "early" else []
        logits = list(heads)
        if self.mode != "late":
            logits.append(self.jointly(streams))
        return sum(logits), heads

    def jointly(self, streams):
        if self.mix == "joint":
            x, there = torch.cat([s.x for s in streams], 1), torch.cat([s.there for s in streams], 1)
            streams = [Stream(x, there, torch.ones(len(x), dtype=torch.bool))]
        streams = [s.behind(self.joint.summary) for s in streams]
        for block in self.joint.blocks:
            streams = block(streams)
        return mean_here(streams, [self.joint.read(s) for s in streams])

    def hybrid(self, streams):
        n = len(self.bottleneck)
        streams = [s.behind(p.summary) for p, s in zip(self.parts(), streams)]
        for i in range(len(self.parts()[0].blocks)):
            streams = [p.blocks[i]([s])[0] for p, s in zip(self.parts(), streams)]
        shared = self.bottleneck.expand(len(streams[0].x), -1, -1)
        for i in range(len(self.parts()[0].meeting.blocks)):
            after = [p.meeting.blocks[i]([s.behind(shared)])[0] for p, s in zip(self.parts(), streams)]
            shared = mean_here(streams, [y.x[:, :n] for y in after])
            streams = [Stream(y.x[:, n:], s.there, s.here) for y, s in zip(after, streams)]
        heads = [p.read(s) * s.here[:, None] for p, s in zip(self.parts(), streams)]
        return mean_here(streams, heads), heads

    def losses(self, batch):
        """The loss that ringtape logs, and what it adds to that while it trains."""
        y, heads = self(batch)
        if self.pair:
            own = torch.arange(len(y))
            return (F.cross_entropy(y, own) + F.cross_entropy(y.T, own)) / 2, 0.0
        label = batch["label"]
        price = self.c["model.fused.head_loss"]
        return F.cross_entropy(y, label), price * sum(F.cross_entropy(h, label) for h in heads)

    def load(self, tensors):
        """Takes the slots of a snapshot; every parameter must be there, in its shape, and nothing else."""
        own = dict(self.named_parameters())
        if set(tensors) != set(own):
            raise SystemExit(f"the snapshot and this model differ in {sorted(set(tensors) ^ set(own))}")
        with torch.no_grad():
            for name, p in own.items():
                if p.shape != tensors[name].shape:
                    raise SystemExit(f"{name} is {list(tensors[name].shape)}, but must be {list(p.shape)}")
                p.copy_(tensors[name])
        return self

    def groups(self, weight_decay):
        """AdamW's groups: matrices of layers decay, not biases, norms, positions and tokens that are parameters."""
        decays = lambda name, p: name.endswith("weight") and p.dim() >= 2
        all_ = list(self.named_parameters())
        matrices, rest = ([p for n, p in all_ if decays(n, p) == d] for d in (True, False))
        return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
