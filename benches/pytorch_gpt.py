"""The character GPT of ringtape in PyTorch: pre-norm blocks, learned positions, gelu (tanh), no dropout, untied head.

Slots of ringtape are parameters here under the same names, so a snapshot's model.safetensors loads as it is. Used by
pytorch_step.py (speed) and pytorch_train.py (quality).
"""

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (y.view(b, t, self.heads, d // self.heads).transpose(1, 2) for y in self.qkv(x).split(d, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(b, t, d))


class Mlp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.up = nn.Linear(dim, 4 * dim)
        self.down = nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Gpt(nn.Module):
    """Ids [B, T] to logits [B, T, vocabulary]."""

    def __init__(self, vocabulary, context, layers, dim, heads, tied=False):
        super().__init__()
        self.token = nn.Embedding(vocabulary, dim)
        self.position = nn.Embedding(context, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocabulary, bias=False)
        if tied:
            self.head.weight = self.token.weight
        for name, p in self.named_parameters():
            if p.dim() == 2:
                residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
                nn.init.normal_(p, std=0.02 / (2 * layers) ** 0.5 if residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, ids):
        x = self.token(ids) + self.position.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def loss(self, ids, target):
        """Mean over the targets that are not -100."""
        return F.cross_entropy(self(ids).flatten(0, 1), target.flatten())

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

    def groups(self, weight_decay):
        """AdamW's groups: matrices decay, biases and norms do not."""
        matrices = [p for p in self.parameters() if p.dim() >= 2]
        rest = [p for p in self.parameters() if p.dim() < 2]
        return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
