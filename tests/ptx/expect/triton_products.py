"""triton/products.py and triton/order.py"""
import numpy as np
from exact import bf16, bf16_bits
from make import case, f32, i32, pattern, u64

leaky = lambda v: np.maximum(v, 0.01 * v)


def product(c, kind, out, rtol, atol):
    m, n, k, sa, sb, sc = 45, 50, 40, 48, 64, 64  # rows are padded: leading dimensions are multiples of 16
    a, b = c.uniform(m, sa), c.uniform(k, sb)
    a, b = {"f16": (a.astype("f2"), b.astype("f2")), "bf16": (bf16(a), bf16(b)), "f32": (a, b)}[kind]
    y = np.full((m, sc), pattern(out), out)
    start = y.copy()
    y[:, :n] = leaky(a[:, :k].astype(float) @ b[:, :n].astype(float))
    write = bf16_bits if kind == "bf16" else lambda v: v
    c.triton(4, [c.input(write(a)), c.input(write(b)), c.output(y, rtol, atol, start=start), *map(i32, (m, n, k, sa, sb, sc))])


@case("triton", "product_f16")
def product_f16(c):
    product(c, "f16", "f2", 1e-3, 1e-5)


@case("triton", "product_bf16")
def product_bf16(c):
    product(c, "bf16", "f4", 1e-5, 1e-5)


@case("triton", "product_tf32")
def product_tf32(c):
    product(c, "f32", "f4", 1e-3, 5e-3)


@case("triton", "product_f32")
def product_f32(c):
    product(c, "f32", "f4", 1e-5, 1e-5)


@case("triton", "product_tf32x3")
def product_tf32x3(c):
    product(c, "f32", "f4", 1e-5, 1e-5)


@case("triton", "product_s8")
def product_s8(c):
    m, n, k = 45, 35, 112
    a, b = (c.integers(s, k, low=-128, high=128, dtype=np.int8) for s in (m, n))
    c.triton([2, 2], [c.input(a), c.input(b), c.output(a.astype("i4") @ b.T.astype("i4")), i32(m), i32(n), i32(k)])


def attention(c, causal):
    heads, tokens, d, scale = 2, 75, 32, 0.3
    q, k, v = (c.uniform(heads, tokens, d, dtype=np.float16) for _ in range(3))
    s = np.einsum("hid,hjd->hij", q.astype(float), k.astype(float)) * scale
    if causal:
        s = np.where(np.tril(np.ones((tokens, tokens), bool)), s, -np.inf)
    e = np.exp(s)
    total = e.sum(2, keepdims=True)
    c.triton([3, heads], [c.input(q), c.input(k), c.input(v), c.output((e / total @ v.astype(float)).astype("f2"), 2e-3, 1e-3),
                          c.output(np.log(total).astype("f4"), 1e-5, 1e-5), i32(tokens), f32(scale)])


@case("triton", "attention_full")
def attention_full(c):
    attention(c, False)


@case("triton", "attention_causal")
def attention_causal(c):
    attention(c, True)


@case("triton", "convolution")
def convolution(c):
    h, w, channels, filters = 7, 9, 11, 13
    x, k = c.uniform(h, w, channels), c.uniform(3, 3, channels, filters)
    p = np.pad(x.astype(float), ((1, 1), (1, 1), (0, 0)))
    y = sum(p[i:i + h, j:j + w] @ k[i, j] for i in range(3) for j in range(3))
    c.triton(2, [c.input(x), c.input(k), c.output(y.astype("f4"), 1e-3, 1e-2), i32(h), i32(w), i32(channels), i32(filters)])


@case("triton", "split_product")
def split_product(c):
    m, n, k = 21, 45, 80
    a, b = c.uniform(m, k, dtype=np.float16), c.uniform(k, n, dtype=np.float16)
    y = a.astype(float) @ b.astype(float)
    c.triton([2, 2, 3], [c.input(a), c.input(b), c.output(y.astype("f4"), 1e-5, 1e-5, start=np.zeros((m, n))), i32(m), i32(n), i32(k)])


@case("triton", "cumulative")
def cumulative(c):
    x = c.uniform(200, low=0.9, high=1.1)
    v = x.astype(float)
    f = lambda v: c.output(v.astype("f4"), 2e-5, 1e-5)
    c.triton(1, [c.input(x), f(np.cumsum(v)), f(np.cumprod(v)), f(np.cumsum(v[::-1])[::-1]), i32(200)])


@case("triton", "recurrence")
def recurrence(c):
    length, channels = 50, 19
    a, b = c.uniform(length, channels), c.uniform(length, channels)
    h = np.zeros((length, channels))
    for t in range(length):
        h[t] = a[t] * (h[t - 1] if t else 0.0) + b[t]
    c.triton(3, [c.input(a), c.input(b), c.output(h.astype("f4"), 1e-5, 1e-5), i32(length), i32(channels)])


@case("triton", "sort")
def sort(c):
    x = c.uniform(201)
    c.triton(1, [c.input(x), c.output(np.sort(x)), i32(201)])


@case("triton", "top")
def top(c):
    x = c.integers(3, 90, low=-500, high=500)
    c.triton(3, [c.input(x), c.output(np.sort(x, 1)[:, ::-1][:, :8]), i32(90)])


@case("triton", "histogram")
def histogram(c):
    x = (c.rng.random(700) ** 2 * 64).astype("i4")
    c.triton(3, [c.input(x), c.output(np.bincount(x, minlength=64).astype("i4"), start=np.zeros(64)), i32(700)])


@case("triton", "gather")
def gather(c):
    table, index = c.uniform(11, 37, dtype=float), c.integers(9, high=11, dtype=np.int64)
    c.triton(9, [c.input(table), c.input(index), c.output(table[index]), i32(11), i32(37), i32(9)])


@case("triton", "permute")
def permute(c):
    x, index = c.integers(128), c.integers(128, high=128)
    c.triton(1, [c.input(x), c.input(index), c.output(x[index])])


def philox(counter, seed):
    """Ten rounds of Philox 4x32 on an array of 32-bit counters; a list of four arrays."""
    m = np.uint64(2**32 - 1)
    a, b, d, e = (np.asarray(v, np.uint64) + np.zeros(len(counter), np.uint64) for v in (counter, 0, 0, 0))
    k0, k1 = seed & 2**32 - 1, seed >> 32
    for _ in range(10):
        p, q = a * np.uint64(0xD2511F53), d * np.uint64(0xCD9E8D57)
        a, b, d, e = (q >> np.uint64(32)) ^ b ^ np.uint64(k0), q & m, (p >> np.uint64(32)) ^ e ^ np.uint64(k1), p & m
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [v.astype("u4") for v in (a, b, d, e)]


@case("triton", "dropout")
def dropout(c):
    n, keep = 600, np.float32(0.7)
    x = c.uniform(n)
    w = philox(np.arange(n), 1234)[0].view("i4")
    u = np.where(w < 0, ~w, w).astype("f4") * np.float32(4.6566127342e-10)
    c.triton(3, [c.input(x), c.output(np.where(u < keep, x / keep, np.float32(0)), 1e-6), i32(n), f32(keep), i32(1234)])


@case("triton", "random_words")
def random_words(c):
    seed = 0xFEDCBA9876543210
    c.triton(3, [c.output(np.stack(philox(np.arange(150), seed), 1)), u64(seed), i32(150)])


@case("triton", "atomics")
def atomics(c):
    n = 300
    x = c.integers(n, high=1 << 20)
    y = [x.sum(), x.max(), x.min(), np.bitwise_or.reduce(x), np.bitwise_xor.reduce(x), np.bitwise_and.reduce(x), x.sum()]
    half = np.array([(x[k::4] % 2).sum() for k in range(4)], "f2")
    c.triton(3, [c.input(x), c.output(np.array(y).astype("u8").astype("u4").view("i4"), start=[0, -1, 1 << 30, 0, 0, -1, 0]), c.output(half, start=np.zeros(4)), i32(n)])


@case("triton", "say")
def say(c):
    x = c.integers(20)
    c.triton([1, 2], [c.input(x), i32(20)], printed=[f"pid (0, {b}, 0) idx ({i:2}) value: {x[i] if i < 20 else 0}" for b in range(2) for i in range(32)])


@case("triton", "reshaped")
def reshaped(c):
    x = c.integers(256)
    y = [np.stack([x[1::2], x[::2]], 1).reshape(-1), x.reshape(4, 16, 4).transpose(2, 0, 1).reshape(-1), x[::-1]]
    c.triton(1, [c.input(x), c.output(np.stack(y))])
