"""Kernels of one row a program: normalisations, softmax, losses, their gradients."""
import triton
import triton.language as tl
from common import ptx


@triton.jit
def softmax(x, out, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    c = tl.arange(0, BLOCK)
    v = tl.load(x + row * columns + c, c < columns, -float("inf"))
    e = tl.exp(v - tl.max(v, 0))
    tl.store(out + row * columns + c, e / tl.sum(e, 0), c < columns)


@triton.jit
def softmax_online(x, out, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    high, total = -float("inf"), 0.0
    for at in range(0, columns, BLOCK):
        c = at + tl.arange(0, BLOCK)
        v = tl.load(x + row * columns + c, c < columns, -float("inf"))
        now = tl.maximum(high, tl.max(v, 0))
        total = total * tl.exp(high - now) + tl.sum(tl.exp(v - now), 0)
        high = now
    for at in range(0, columns, BLOCK):
        c = at + tl.arange(0, BLOCK)
        v = tl.load(x + row * columns + c, c < columns, 0.0)
        tl.store(out + row * columns + c, tl.exp(v - high) / total, c < columns)


@triton.jit
def layer_norm(x, weight, bias, out, mean, rstd, columns, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    c = tl.arange(0, BLOCK)
    m = c < columns
    v = tl.load(x + row * columns + c, m, 0.0)
    mu = tl.sum(v, 0) / columns
    d = tl.where(m, v - mu, 0.0)
    r = 1 / tl.sqrt(tl.sum(d * d, 0) / columns + eps)
    tl.store(mean + row, mu)
    tl.store(rstd + row, r)
    tl.store(out + row * columns + c, d * r * tl.load(weight + c, m) + tl.load(bias + c, m), m)


@triton.jit
def layer_norm_backward(x, weight, dy, mean, rstd, dx, dweight, dbias, lock, columns, GROUPS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    c = tl.arange(0, BLOCK)
    m = c < columns
    r = tl.load(rstd + row)
    hat = tl.where(m, (tl.load(x + row * columns + c, m, 0.0) - tl.load(mean + row)) * r, 0.0)
    d = tl.load(dy + row * columns + c, m, 0.0)
    wd = d * tl.load(weight + c, m, 0.0)
    c1, c2 = tl.sum(hat * wd, 0) / columns, tl.sum(wd, 0) / columns
    tl.store(dx + row * columns + c, (wd - hat * c1 - c2) * r, m)
    # Rows of one group add into one partial row, one after the other, behind a lock of that group.
    group = row % GROUPS
    while tl.atomic_cas(lock + group, 0, 1) == 1:
        pass
    at = group * columns + c
    first = tl.load(lock + GROUPS + group)
    w, b = d * hat, d
    if first == 0:
        tl.atomic_xchg(lock + GROUPS + group, 1)
    else:
        w += tl.load(dweight + at, m)
        b += tl.load(dbias + at, m)
    tl.store(dweight + at, w, m)
    tl.store(dbias + at, b, m)
    tl.debug_barrier()
    tl.atomic_xchg(lock + group, 0)


@triton.jit
def rms_norm(x, weight, out, columns, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    c = tl.arange(0, BLOCK)
    m = c < columns
    v = tl.load(x + row * columns + c, m, 0.0).to(tl.float32)
    r = tl.rsqrt(tl.sum(v * v, 0) / columns + eps)
    tl.store(out + row * columns + c, (v * r).to(tl.float16) * tl.load(weight + c, m), m)


@triton.jit
def cross_entropy(logits, target, loss, dlogits, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    c = tl.arange(0, BLOCK)
    m = c < columns
    v = tl.load(logits + row * columns + c, m, -float("inf"))
    t = tl.load(target + row)
    high = tl.max(v, 0)
    e = tl.exp(v - high)
    total = tl.sum(e, 0)
    tl.store(loss + row, tl.log(total) + high - tl.load(logits + row * columns + t))
    tl.store(dlogits + row * columns + c, e / total - tl.where(c == t, 1.0, 0.0), m)


@triton.jit
def moments(x, out, n, BLOCK: tl.constexpr):
    """Sum, product of signs, smallest, largest, count of positives and exclusive or, of one array by one program."""
    i = tl.arange(0, BLOCK)
    v = tl.load(x + i, i < n, 0)
    tl.store(out, tl.sum(v, 0))
    tl.store(out + 1, tl.min(tl.where(i < n, v, 2147483647), 0))
    tl.store(out + 2, tl.max(tl.where(i < n, v, -2147483648), 0))
    tl.store(out + 3, tl.sum((v > 0).to(tl.int32), 0))
    tl.store(out + 4, tl.xor_sum(v, 0))
    tl.store(out + 5, tl.argmax(tl.where(i < n, v, -2147483648), 0))
    tl.store(out + 6, tl.argmin(tl.where(i < n, v, 2147483647), 0))


@triton.jit
def column_sum(x, out, rows, columns, R: tl.constexpr, C: tl.constexpr):
    c = tl.program_id(0) * C + tl.arange(0, C)
    total = tl.zeros((R, C), tl.float32)
    for at in range(0, rows, R):
        r = at + tl.arange(0, R)
        total += tl.load(x + r[:, None] * columns + c[None, :], (r < rows)[:, None] & (c < columns)[None, :], 0.0)
    tl.store(out + c, tl.sum(total, 0), c < columns)


def compiled():
    f, i = "*fp32", "i32"
    yield ptx(softmax, dict(x=f, out=f, columns=i), dict(BLOCK=1024))
    yield ptx(softmax_online, dict(x=f, out=f, columns=i), dict(BLOCK=128), warps=2)
    yield ptx(layer_norm, dict(x=f, weight=f, bias=f, out=f, mean=f, rstd=f, columns=i, eps="fp32"), dict(BLOCK=256), warps=2)
    yield ptx(layer_norm_backward, dict(x=f, weight=f, dy=f, mean=f, rstd=f, dx=f, dweight=f, dbias=f, lock="*i32", columns=i),
              dict(GROUPS=2, BLOCK=128), warps=2)
    yield ptx(rms_norm, dict(x="*fp16", weight="*fp16", out="*fp16", columns=i, eps="fp32"), dict(BLOCK=512), aligned="x weight out columns")
    yield ptx(cross_entropy, dict(logits=f, target="*i32", loss=f, dlogits=f, columns=i), dict(BLOCK=128))
    yield ptx(moments, dict(x="*i32", out="*i32", n=i), dict(BLOCK=512))
    yield ptx(column_sum, dict(x=f, out=f, rows=i, columns=i), dict(R=16, C=64))
