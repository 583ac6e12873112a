"""Steps of torch.optim in float64, for tests/optim.rs: writes tests/golden/optim/<case>.safetensors and long.safetensors.

    python tests/golden/optim.py          # needs torch, numpy and safetensors

long.safetensors holds walks of 500 steps from torch.optim, or from the numpy lines below where torch has no such optimizer:
of each case the weights [kept steps, 6, 5] after the steps KEPT. Start and gradients are made by `uniform`, in Rust too: row 0
of the gradients is 0, row 1 is 1e-20, row 2 is 0 at each third step, and columns differ in scale by up to 100.

Each other file holds `w` [8, 3] (start), `g` [60, 8, 3] (the gradient of each step; some 0, some 1e-20) and `want` [60, 8, 3]
(the weights after each step); its metadata hold the optimizer's name and attributes as ringtape takes them.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

CASES = {
    "sgd": ("sgd", {}, lambda p, lr: torch.optim.SGD(p, lr)),
    "sgd_momentum": (
        "sgd", {"momentum": "0.9", "dampening": "0.1", "weight_decay": "0.2"},
        lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, dampening=0.1, weight_decay=0.2)),
    "sgd_nesterov": (
        "sgd", {"momentum": "0.7", "nesterov": "true"},
        lambda p, lr: torch.optim.SGD(p, lr, momentum=0.7, nesterov=True)),
    "adamw": ("adamw", {}, lambda p, lr: torch.optim.AdamW(p, lr)),
    "adamw_other": (
        "adamw", {"beta1": "0.8", "beta2": "0.95", "eps": "1e-6", "weight_decay": "0.3"},
        lambda p, lr: torch.optim.AdamW(p, lr, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.3)),
}
LR, STEPS, SHAPE = 0.01, 60, (8, 3)


LONG, KEPT, GRID = 500, [1, 2, 3, 10, 50, 200, 499, 500], (6, 5)


def uniform(stream, count):
    """Numbers in [-1, 1), from a multiplicative hash of (stream, index): exact in float64."""
    i = np.arange(count, dtype=np.uint64) + np.uint64(stream) * np.uint64(1 << 20) + np.uint64(1)
    h = i * np.uint64(0x9E3779B97F4A7C15)
    h ^= h >> np.uint64(29)
    h *= np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(32)
    return (h >> np.uint64(32)).astype(np.float64) / 2.0**31 - 1.0


def gradient(t, second=False):
    """The gradient of step t (from 1), or the one that an optimizer with two gradients is given besides."""
    g = uniform(2 * t + second, 30).reshape(GRID) * np.array([0.1, 1.0, 10.0, 0.5, 2.0]) + 0.2
    g[0] = 0.0
    g[1] = 1e-20
    if t % 3 == 0:
        g[2] = 0.0
    return g


def adabelief(w, lr, beta1=0.9, beta2=0.999, eps=1e-16, weight_decay=0.01):
    m, s = np.zeros_like(w), np.zeros_like(w)
    for t in range(1, LONG + 1):
        g = gradient(t)
        w = w - lr * weight_decay * w
        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * (g - m) ** 2
        w = w - lr * (m / (1 - beta1**t)) / np.sqrt(s / (1 - beta2**t) + eps)
        yield w


def lion(w, lr, beta1=0.9, beta2=0.99, weight_decay=0.0):
    m = np.zeros_like(w)
    for t in range(1, LONG + 1):
        g = gradient(t)
        w = w * (1 - lr * weight_decay) - lr * np.sign(beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g
        yield w


def m_svag(w, lr, beta=0.9, weight_decay=0.0):
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in range(1, LONG + 1):
        g = gradient(t) + weight_decay * w
        m = beta * m + (1 - beta) * g
        v = beta * v + (1 - beta) * g * g
        mean, square = m / (1 - beta**t), v / (1 - beta**t)
        rho = (1 - beta) * (1 + beta**t) / ((1 + beta) * (1 - beta**t))
        spread = np.maximum(square - mean**2, 0.0) / (1 - rho) if t > 1 else 0.0 * square
        below = mean**2 + rho * spread
        w = w - lr * mean * np.divide(mean**2, below, out=np.zeros_like(w), where=below > 0)
        yield w


def schedule_free(w, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    """In terms of z and of the mean x; the gradient is taken at y, which is what the weights are while training."""
    z, x, y, v, total = w.copy(), w.copy(), w.copy(), np.zeros_like(w), 0.0
    for t in range(1, LONG + 1):
        g = gradient(t)
        v = beta2 * v + (1 - beta2) * g * g
        u = g / (np.sqrt(v / (1 - beta2**t)) + eps) + weight_decay * y
        z = z - lr * u
        total += lr**2
        x = (1 - lr**2 / total) * x + lr**2 / total * z
        y = (1 - beta1) * z + beta1 * x
        yield y


def vsgd_fd(w, lr, eps=1e-6, slow_start=10.0):
    for t in range(1, LONG + 1):
        g, g_fd = gradient(t), gradient(t, True)
        by = g if t == 1 else mean
        k = np.abs(g - g_fd) / np.maximum(np.abs(by), eps)
        if t == 1:
            mean, square, curve, curves, tau = g, slow_start * g**2, k, slow_start * k**2, np.ones_like(g)
        else:
            far = np.abs(g - mean) > 2 * np.sqrt(np.maximum(square - mean**2, 0))
            far |= np.abs(k - curve) > 2 * np.sqrt(np.maximum(curves - curve**2, 0))
            tau = tau + far
            mean = (1 - 1 / tau) * mean + g / tau
            square = (1 - 1 / tau) * square + g**2 / tau
            curve = (1 - 1 / tau) * curve + k / tau
            curves = (1 - 1 / tau) * curves + k**2 / tau
        divide = lambda a, b: np.divide(a, b, out=np.zeros_like(a), where=b > 0)
        signal = divide(mean**2, square)
        tau = (1 - signal) * tau + 1
        w = w - lr * divide(curve, curves) * signal * g
        yield w


def prodigy(w, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, d0=1e-6, d_coef=1.0, growth_rate=np.inf):
    """As the authors' program: no bias correction, decoupled decay, no safeguard; a whole step waits while s is 0."""
    start, d, largest, r = w.copy(), d0, d0, 0.0
    m, v, s = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t in range(1, LONG + 1):
        g, rate = gradient(t), d * lr
        m = beta1 * m + d * (1 - beta1) * g
        v = beta2 * v + d**2 * (1 - beta2) * g**2
        r = beta2**0.5 * r + d / d0 * rate * (g * (start - w)).sum()
        s = beta2**0.5 * s + d / d0 * rate * g
        estimate = d_coef * r / np.abs(s).sum()
        if d == d0:
            d = max(d, estimate)
        largest = max(largest, estimate)
        d = min(largest, d * growth_rate)
        w = w - rate * weight_decay * w - rate * m / (np.sqrt(v) + d * eps)
        yield w


def muon(w, lr, momentum=0.95, nesterov=True, ns_steps=5, adjust_lr_fn="match_rms_adamw", weight_decay=0.1):
    """torch.optim.Muon in float64: that one rounds matrices to bfloat16."""
    m = np.zeros_like(w)
    for t in range(1, LONG + 1):
        g = gradient(t)
        m = m + (1 - momentum) * (g - m)
        x = g + momentum * (m - g) if nesterov else m
        x = x.T / max(np.linalg.norm(x), 1e-7)
        for _ in range(ns_steps):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        ratio = 0.2 * max(GRID) ** 0.5 if adjust_lr_fn == "match_rms_adamw" else max(1, GRID[0] / GRID[1]) ** 0.5
        w = w * (1 - lr * weight_decay) - lr * ratio * x.T
        yield w


def torch_walk(build):
    def walk(w, lr, **attrs):
        p = torch.nn.Parameter(torch.from_numpy(w.copy()))
        o = build([p], lr, **attrs)
        for t in range(1, LONG + 1):
            p.grad = torch.from_numpy(gradient(t))
            o.step()
            yield p.detach().numpy().copy()
    return walk


def betas(cls):
    return lambda p, lr, beta1=0.9, beta2=0.999, **k: cls(p, lr, betas=(beta1, beta2), **k)


def adafactor(p, lr, eps1=None, eps2=1e-3, **k):
    return torch.optim.Adafactor(p, lr, eps=(eps1, eps2), **k)


# Case: optimizer, learning rate, attributes, walk.
WALKS = {
    "sgd": ("sgd", 0.01, {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True}, torch_walk(torch.optim.SGD)),
    "adamw": ("adamw", 0.01, {"weight_decay": 0.1}, torch_walk(betas(torch.optim.AdamW))),
    "adam": ("adam", 0.01, {}, torch_walk(betas(torch.optim.Adam))),
    # A rate so small that no weight reaches 0 by decay alone: there the sign of a step is that of rounding errors.
    "adam_decay": ("adam", 1e-4, {"beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "weight_decay": 0.1},
                   torch_walk(betas(torch.optim.Adam))),
    "adafactor": ("adafactor", 0.01, {}, torch_walk(adafactor)),
    "adafactor_other": ("adafactor", 0.05, {"beta2_decay": -0.5, "eps1": 1e-5, "eps2": 1e-2, "d": 1.2,
                                            "weight_decay": 0.1}, torch_walk(adafactor)),
    "adabelief": ("adabelief", 0.01, {}, adabelief),
    "adabelief_other": ("adabelief", 0.01, {"beta1": 0.7, "beta2": 0.9, "eps": 1e-10, "weight_decay": 0.2}, adabelief),
    "lion": ("lion", 0.003, {}, lion),
    "lion_decay": ("lion", 0.001, {"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.5}, lion),
    "m_svag": ("m_svag", 0.01, {}, m_svag),
    "schedule_free_adamw": ("schedule_free_adamw", 0.01, {}, schedule_free),
    "schedule_free_adamw_decay": ("schedule_free_adamw", 0.02, {"beta1": 0.95, "beta2": 0.99, "weight_decay": 0.1},
                                  schedule_free),
    "muon": ("muon", 0.01, {}, muon),
    "muon_other": ("muon", 0.02, {"momentum": 0.9, "nesterov": False, "ns_steps": 3, "adjust_lr_fn": "original",
                                  "weight_decay": 0.0}, muon),
    "prodigy": ("prodigy", 1.0, {}, prodigy),
    "prodigy_other": ("prodigy", 0.5, {"beta1": 0.8, "beta2": 0.99, "weight_decay": 0.01, "d0": 1e-4, "d_coef": 0.5,
                                       "growth_rate": 1.02}, prodigy),
    "vsgd_fd": ("vsgd_fd", 1.0, {}, vsgd_fd),
    "vsgd_fd_other": ("vsgd_fd", 0.5, {"eps": 1e-3, "slow_start": 3.0}, vsgd_fd),
    "m_svag_decay": ("m_svag", 0.05, {"beta": 0.7, "weight_decay": 0.1}, m_svag),
}


def long_walks(folder):
    tensors, about = {}, {}
    for name, (optimizer, lr, attrs, walk) in WALKS.items():
        steps = list(walk(uniform(0, 30).reshape(GRID), lr, **attrs))
        tensors[name] = torch.from_numpy(np.stack([steps[t - 1] for t in KEPT]))
        text = {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in attrs.items()}
        about[name] = {"optimizer": optimizer, "lr": lr, "attrs": text}
    said = {"cases": json.dumps(about), "kept": json.dumps(KEPT), "torch": torch.__version__}
    save_file(tensors, folder / "long.safetensors", said)


def main():
    folder = Path(__file__).parent / "optim"
    folder.mkdir(exist_ok=True)
    for name, (optimizer, attrs, build) in CASES.items():
        torch.manual_seed(len(name))
        w = torch.randn(SHAPE, dtype=torch.float64)
        g = torch.randn((STEPS, *SHAPE), dtype=torch.float64)
        g[:, 0] = 0.0
        g[:, 1] = 1e-20
        g[::3, 2] = 0.0
        p = torch.nn.Parameter(w.clone())
        steps, o = [], build([p], LR)
        for gradient in g:
            p.grad = gradient.clone()
            o.step()
            steps.append(p.detach().clone())
        about = {"optimizer": optimizer, "attrs": json.dumps(attrs), "lr": str(LR), "torch": torch.__version__}
        save_file({"w": w, "g": g, "want": torch.stack(steps)}, folder / f"{name}.safetensors", about)
    long_walks(folder)


if __name__ == "__main__":
    main()
