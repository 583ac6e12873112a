"""triton/pointwise.py and triton/rows.py"""
import math

import numpy as np
from exact import bf16, bf16_bits
from make import case, f32, i32

gelu = lambda v: 0.5 * v * (1 + np.tanh(0.7978845608028654 * (v + 0.044715 * v**3)))


@case("triton", "vector_add")
def vector_add(c):
    x, y = c.uniform(1300), c.uniform(1300)
    c.triton(3, [c.input(x), c.input(y), c.output(x + y), i32(1300)])


@case("triton", "swiglu")
def swiglu(c):
    g, u = c.uniform(3, 208, low=-4, high=4, dtype=np.float16), c.uniform(3, 208, dtype=np.float16)
    v = g.astype(float)
    y = (v / (1 + np.exp(-v))).astype("f2").astype(float) * u
    c.triton(3, [c.input(g), c.input(u), c.output(y.astype("f2"), 2e-3, 1e-6), i32(208)])


@case("triton", "gelu_mixed")
def gelu_mixed(c):
    x, bias = bf16(c.uniform(700, low=-3, high=3)), np.tile((c.integers(35, low=-50, high=50) / 64).astype("f4"), 20)
    # Outputs are bf16 words, compared exactly: where the result is near a tie between two of them, take x = -bias.
    y = gelu(x.astype(float) + bias)
    x = np.where(bf16_bits(y - 1e-6) != bf16_bits(y + 1e-6), -bias, x).astype("f4")
    words, bias = bf16_bits(gelu(x.astype(float) + bias)), bias[:35]
    c.triton(3, [c.input(bf16_bits(x)), c.input(bias), c.output(words), i32(700), i32(35)])


@case("triton", "functions")
def functions(c):
    n = 200
    x = c.uniform(n, low=-5, high=5)
    v = x.astype(float)
    a = np.abs(v)
    y = np.stack([np.exp(v), np.log(a), np.sin(v) + np.cos(v), np.sqrt(a) + 1 / np.sqrt(a), np.vectorize(math.erf)(v), np.floor(v) + np.ceil(x * np.float32(0.5)),
                  a**1.5, 2**v + np.log2(a)])
    c.triton(2, [c.input(x), c.output(y.astype("f4"), 1e-5, 2e-6), i32(n)])


@case("triton", "integers")
def integers(c):
    n = 200
    a, b = c.bits(n).view("i4"), c.bits(n).view("i4") >> c.integers(n, high=25)
    b[b == 0] = 3
    p, q = a.astype("i8"), b.astype("i8")
    quotient = np.abs(p) // np.abs(q) * np.sign(p) * np.sign(q)
    up, uq = a.view("u4").astype("u8"), b.view("u4").astype("u8")
    y = [quotient, p - quotient * q, (up * uq >> np.uint64(32)).astype("i8"), (p >> 3) ^ (q << 2) & ~p, p * q >> 9,
         np.where(p > q, p, -q) + (a.astype("i1").astype("i4") + b.astype("i2")).astype("i2")]
    c.triton(2, [c.input(a), c.input(b), c.output(np.stack(y).astype("u8").astype("u4").view("i4")), i32(n)])


@case("triton", "adamw")
def adamw(c):
    n = 300
    w, g, m, v = c.uniform(n), c.uniform(n), c.uniform(n, low=-0.1, high=0.1), c.uniform(n, low=0, high=0.1)
    lr, b1, b2, eps, decay, c1, c2 = (float(np.float32(t)) for t in (1e-2, 0.9, 0.99, 1e-6, 0.1, 0.3, 0.05))
    a, b = b1 * m.astype(float) + (1 - b1) * g, b2 * v.astype(float) + (1 - b2) * g.astype(float) ** 2
    new = w - lr * (a / c1 / (np.sqrt(b / c2) + eps) + decay * w.astype(float))
    out = lambda t, start: c.output(t.astype("f4"), 1e-5, 1e-6, start=start)
    c.triton(3, [out(new, w), c.input(g), out(a, m), out(b, v), i32(n), *map(f32, (lr, b1, b2, eps, decay, c1, c2))])


@case("triton", "newton")
def newton(c):
    x = c.uniform(150, low=0.5, high=1000, dtype=float)
    c.triton(3, [c.input(x), c.output(np.sqrt(x), 1e-8), i32(150)])


@case("triton", "rope")
def rope(c):
    x = c.uniform(2, 5, 64)
    angle = np.arange(5)[:, None] * 10000.0 ** (-np.arange(32) / 32)
    cos, sin = np.cos(angle).astype("f4"), np.sin(angle).astype("f4")
    a, b = x[..., :32].astype(float), x[..., 32:].astype(float)
    y = np.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype("f4")
    c.triton([5, 2], [c.input(x), c.input(cos), c.input(sin), c.output(y, 1e-5, 1e-6), i32(5)])


@case("triton", "transpose")
def transpose(c):
    x = c.uniform(45, 70)
    c.triton([2, 2], [c.input(x), c.output(x.T), i32(45), i32(70)])


@case("triton", "quantise")
def quantise(c):
    x = c.uniform(4, 100)
    s = np.abs(x).max(1, keepdims=True) / np.float32(127)
    v = x.astype(float) / s
    x[np.abs(v - np.floor(v) - 0.5) < 1e-3] = 0.25  # not near a tie
    s = np.abs(x).max(1, keepdims=True) / np.float32(127)
    c.triton(4, [c.input(x), c.output(np.rint(x.astype(float) / s).astype("i1")), c.output(s[:, 0], 1e-6), i32(100)])


@case("triton", "softmax")
def softmax(c):
    x = c.uniform(3, 600, low=-5, high=5)
    e = np.exp(x.astype(float))
    c.triton(3, [c.input(x), c.output((e / e.sum(1, keepdims=True)).astype("f4"), 1e-5, 1e-8), i32(600)])


@case("triton", "softmax_online")
def softmax_online(c):
    x = c.uniform(3, 300, low=-5, high=5)
    e = np.exp(x.astype(float))
    c.triton(3, [c.input(x), c.output((e / e.sum(1, keepdims=True)).astype("f4"), 1e-5, 1e-8), i32(300)])


@case("triton", "layer_norm")
def layer_norm(c):
    rows, columns, eps = 5, 170, 1e-5
    x, w, b = c.uniform(rows, columns, low=1, high=3), c.uniform(columns), c.uniform(columns)
    mean, rstd = x.mean(1, dtype=float), 1 / np.sqrt(x.var(1, dtype=float) + eps)
    f = lambda v: c.output(v.astype("f4"), 1e-5, 1e-5)
    c.triton(rows, [c.input(x), c.input(w), c.input(b), f((x - mean[:, None]) * rstd[:, None] * w + b), f(mean), f(rstd), i32(columns), f32(eps)])


@case("triton", "layer_norm_backward")
def layer_norm_backward(c):
    rows, columns, groups = 7, 100, 2
    x, w, dy = c.uniform(rows, columns, low=1, high=3), c.uniform(columns), c.uniform(rows, columns)
    mean, rstd = x.mean(1, dtype=float), 1 / np.sqrt(x.var(1, dtype=float) + 1e-5)
    hat = (x - mean[:, None]) * rstd[:, None]
    wd = dy * w.astype(float)
    dx = (wd - hat * (hat * wd).mean(1, keepdims=True) - wd.mean(1, keepdims=True)) * rstd[:, None]
    part = lambda v: np.stack([v[g::groups].sum(0) for g in range(groups)])
    f = lambda v: c.output(v.astype("f4"), 1e-5, 1e-5)
    c.triton(rows, [c.input(x), c.input(w), c.input(dy), c.input(mean.astype("f4")), c.input(rstd.astype("f4")), f(dx), f(part(dy * hat)), f(part(dy.astype(float))),
                    c.output(np.array([0, 0, 1, 1], "i4"), start=np.zeros(4)), i32(columns)])


@case("triton", "rms_norm")
def rms_norm(c):
    x, w = c.uniform(3, 400, dtype=np.float16), c.uniform(400, dtype=np.float16)
    v = x.astype(float)
    y = (v / np.sqrt((v * v).mean(1, keepdims=True) + 1e-6)).astype("f2").astype(float) * w
    c.triton(3, [c.input(x), c.input(w), c.output(y.astype("f2"), 2e-3, 1e-6), i32(400), f32(1e-6)])


@case("triton", "cross_entropy")
def cross_entropy(c):
    rows, columns = 6, 90
    x, t = c.uniform(rows, columns, low=-4, high=4), c.integers(rows, high=columns)
    p = np.exp(x.astype(float))
    p /= p.sum(1, keepdims=True)
    one = np.eye(columns)[t]
    c.triton(rows, [c.input(x), c.input(t), c.output(-np.log(p[np.arange(rows), t]).astype("f4"), 1e-5, 1e-6), c.output((p - one).astype("f4"), 1e-5, 1e-7), i32(columns)])


@case("triton", "moments")
def moments(c):
    x = c.integers(333, low=-1000, high=1000)
    y = [x.sum(), x.min(), x.max(), (x > 0).sum(), np.bitwise_xor.reduce(x), x.argmax(), x.argmin()]
    c.triton(1, [c.input(x), c.output(np.array(y, "i4")), i32(333)])


@case("triton", "column_sum")
def column_sum(c):
    x = c.uniform(37, 75)
    c.triton(2, [c.input(x), c.output(x.sum(0, dtype=float).astype("f4"), 1e-5, 1e-5), i32(37), i32(75)])
