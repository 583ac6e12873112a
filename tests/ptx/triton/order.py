"""Scans, sorts, histograms, gathers, random numbers, atomics, printing."""
import triton
import triton.language as tl
from common import ptx
from triton.language.extra import libdevice


@triton.jit
def cumulative(x, total, product, high, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    m = i < n
    tl.store(total + i, tl.cumsum(tl.load(x + i, m, 0.0), 0), m)
    tl.store(product + i, tl.cumprod(tl.load(x + i, m, 1.0), 0), m)
    tl.store(high + i, tl.cumsum(tl.load(x + i, m, 0.0), 0, reverse=True), m)


@triton.jit
def linear(a1, b1, a2, b2):
    return a1 * a2, a2 * b1 + b2


@triton.jit
def recurrence(a, b, h, length, channels, T: tl.constexpr, C: tl.constexpr):
    """h[t] = a[t] h[t-1] + b[t], many channels at once."""
    t, c = tl.arange(0, T), tl.program_id(0) * C + tl.arange(0, C)
    at, m = t[:, None] * channels + c[None, :], (t < length)[:, None] & (c < channels)[None, :]
    p, q = tl.associative_scan((tl.load(a + at, m, 1.0), tl.load(b + at, m, 0.0)), 0, linear)
    tl.store(h + at, q, m)


@triton.jit
def sort(x, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.sort(tl.load(x + i, i < n, float("inf"))), i < n)


@triton.jit
def top(x, out, columns, BLOCK: tl.constexpr, K: tl.constexpr):
    row = tl.program_id(0)
    c = tl.arange(0, BLOCK)
    v = tl.load(x + row * columns + c, c < columns, -2147483648)
    tl.store(out + row * K + tl.arange(0, K), tl.topk(v, K))


@triton.jit
def histogram(x, bins, n, BINS: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    h = tl.histogram(tl.load(x + i, i < n, 0), BINS, mask=i < n)
    tl.atomic_add(bins + tl.arange(0, BINS), h)


@triton.jit
def gather(table, index, out, rows, columns, n, BLOCK: tl.constexpr):
    row = tl.load(index + tl.program_id(0))
    c = tl.arange(0, BLOCK)
    tl.device_assert((row >= 0) & (row < rows), "row out of range")
    v = tl.load(table + row * columns + c, c < columns)
    tl.store(out + tl.program_id(0) * columns + c, v, c < columns)


@triton.jit
def permute(x, index, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.gather(tl.load(x + i), tl.load(index + i), 0))


@triton.jit
def dropout(x, out, n, keep, seed, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + i, i < n)
    tl.store(out + i, tl.where(tl.rand(seed, i) < keep, v / keep, 0.0), i < n)


@triton.jit
def random_words(out, seed, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a, b, c, d = tl.randint4x(seed, i)
    tl.store(out + 4 * i, a, i < n)
    tl.store(out + 4 * i + 1, b, i < n)
    tl.store(out + 4 * i + 2, c, i < n)
    tl.store(out + 4 * i + 3, d, i < n)


@triton.jit
def atomics(x, out, half, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + i, i < n, 0)
    m = i < n
    z = i * 0
    tl.atomic_add(out + z, v, m)
    tl.atomic_max(out + 1 + z, v, m)
    tl.atomic_min(out + 2 + z, v, m)
    tl.atomic_or(out + 3 + z, v, m)
    tl.atomic_xor(out + 4 + z, v, m)
    tl.atomic_and(out + 5 + z, v, m)
    tl.atomic_add(out + 6, tl.sum(v, 0), sem="relaxed")
    tl.atomic_add(half + i % 4, (v % 2).to(tl.float16), m)


@triton.jit
def say(x, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.device_print("value: ", tl.load(x + i, i < n, 0))


@triton.jit
def reshaped(x, out, BLOCK: tl.constexpr):
    """What moves elements between lanes: reshape, permute, join, split, flip, interleave."""
    i = tl.arange(0, BLOCK)
    v = tl.load(x + i)
    a, b = tl.split(tl.reshape(v, (BLOCK // 2, 2)))
    tl.store(out + i, tl.interleave(b, a))
    tl.store(out + BLOCK + i, tl.reshape(tl.permute(tl.reshape(v, (4, BLOCK // 16, 4)), (2, 0, 1)), (BLOCK,)))
    tl.store(out + 2 * BLOCK + i, tl.flip(v))


def compiled():
    f, i = "*fp32", "i32"
    yield ptx(cumulative, dict(x=f, total=f, product=f, high=f, n=i), dict(BLOCK=256))
    yield ptx(recurrence, dict(a=f, b=f, h=f, length=i, channels=i), dict(T=64, C=8))
    yield ptx(sort, dict(x=f, out=f, n=i), dict(BLOCK=256), warps=2)
    yield ptx(top, dict(x="*i32", out="*i32", columns=i), dict(BLOCK=128, K=8), warps=1)
    yield ptx(histogram, dict(x="*i32", bins="*i32", n=i), dict(BINS=64, BLOCK=256))
    yield ptx(gather, dict(table="*fp64", index="*i64", out="*fp64", rows=i, columns=i, n=i), dict(BLOCK=64), warps=1)
    yield ptx(permute, dict(x="*i32", index="*i32", out="*i32"), dict(BLOCK=128))
    yield ptx(dropout, dict(x=f, out=f, n=i, keep="fp32", seed=i), dict(BLOCK=256))
    yield ptx(random_words, dict(out="*u32", seed="u64", n=i), dict(BLOCK=64), warps=2)
    yield ptx(atomics, dict(x="*i32", out="*i32", half="*fp16", n=i), dict(BLOCK=128))
    yield ptx(say, dict(x="*i32", n=i), dict(BLOCK=32), warps=1)
    yield ptx(reshaped, dict(x="*i32", out="*i32"), dict(BLOCK=256))
