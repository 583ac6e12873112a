"""Matrix products through tensor cores and without them, with pipelined copies, grouped order of programs, epilogues;
a convolution; attention."""
import triton
import triton.language as tl
from common import ptx


@triton.jit
def product(a, b, c, m, n, k, sa, sb, sc, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr):
    pid = tl.program_id(0)
    rows, columns = tl.cdiv(m, M), tl.cdiv(n, N)
    first = pid // (GROUP * columns) * GROUP
    size = min(rows - first, GROUP)
    pm, pn = first + pid % (GROUP * columns) % size, pid % (GROUP * columns) // size
    r, q, t = pm * M + tl.arange(0, M), pn * N + tl.arange(0, N), tl.arange(0, K)
    total = tl.zeros((M, N), tl.float32)
    for at in range(0, k, K):
        p = at + t
        x = tl.load(a + r[:, None] * sa + p[None, :], (r < m)[:, None] & (p < k)[None, :], 0.0)
        y = tl.load(b + p[:, None] * sb + q[None, :], (p < k)[:, None] & (q < n)[None, :], 0.0)
        total = tl.dot(x, y, total, input_precision=PRECISION)
    total = tl.maximum(total, 0.01 * total)
    tl.store(c + r[:, None] * sc + q[None, :], total.to(c.dtype.element_ty), (r < m)[:, None] & (q < n)[None, :])


@triton.jit
def product_s8(a, b, c, m, n, k, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    r, q, t = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1) * N + tl.arange(0, N), tl.arange(0, K)
    total = tl.zeros((M, N), tl.int32)
    for at in range(0, k, K):
        p = at + t
        x = tl.load(a + r[:, None] * k + p[None, :], (r < m)[:, None] & (p < k)[None, :], 0)
        y = tl.load(b + q[None, :] * k + p[:, None], (p < k)[:, None] & (q < n)[None, :], 0)
        total += tl.dot(x, y)
    tl.store(c + r[:, None] * n + q[None, :], total, (r < m)[:, None] & (q < n)[None, :])


@triton.jit
def attention(q, k, v, o, logsum, tokens, scale, CAUSAL: tl.constexpr, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    head = tl.program_id(1) * tokens * D
    r, d, j = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, D), tl.arange(0, N)
    at = head + r[:, None] * D + d[None, :]
    query = tl.load(q + at, (r < tokens)[:, None], 0.0)
    high = tl.full((M,), -1.0e30, tl.float32)
    total = tl.zeros((M,), tl.float32)
    sums = tl.zeros((M, D), tl.float32)
    end = min(tokens, (tl.program_id(0) + 1) * M) if CAUSAL else tokens
    for start in range(0, end, N):
        c = start + j
        keys = tl.load(k + head + c[None, :] * D + d[:, None], (c < tokens)[None, :], 0.0)
        s = tl.dot(query, keys) * scale * 1.44269504
        allowed = (c < tokens)[None, :]
        if CAUSAL:
            allowed = allowed & (c[None, :] <= r[:, None])
        s = tl.where(allowed, s, -1.0e30)
        now = tl.maximum(high, tl.max(s, 1))
        p = tl.exp2(s - now[:, None])
        shrink = tl.exp2(high - now)
        total = total * shrink + tl.sum(p, 1)
        values = tl.load(v + head + c[:, None] * D + d[None, :], (c < tokens)[:, None], 0.0)
        sums = tl.dot(p.to(values.dtype), values, sums * shrink[:, None])
        high = now
    tl.store(o + at, (sums / total[:, None]).to(o.dtype.element_ty), (r < tokens)[:, None])
    tl.store(logsum + tl.program_id(1) * tokens + r, high * 0.6931471805599453 + tl.log(total), r < tokens)


@triton.jit
def convolution(x, w, out, height, width, channels, filters, P: tl.constexpr, F: tl.constexpr, C: tl.constexpr):
    """3 x 3, padding 1, channels last, as nine products."""
    p = tl.program_id(0) * P + tl.arange(0, P)
    f, c = tl.arange(0, F), tl.arange(0, C)
    row, col = p // width, p % width
    total = tl.zeros((P, F), tl.float32)
    for tap in range(9):
        r, s = row + tap // 3 - 1, col + tap % 3 - 1
        inside = (r >= 0) & (r < height) & (s >= 0) & (s < width)
        a = tl.load(x + (r * width + s)[:, None] * channels + c[None, :], inside[:, None] & (c < channels)[None, :], 0.0)
        b = tl.load(w + (tap * channels + c)[:, None] * filters + f[None, :], (c < channels)[:, None] & (f < filters)[None, :], 0.0)
        total = tl.dot(a, b, total, input_precision="tf32")
    tl.store(out + p[:, None] * filters + f[None, :], total, (p < height * width)[:, None] & (f < filters)[None, :])


@triton.jit
def split_product(a, b, c, m, n, k, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    """Split along k: programs of the third axis add their parts by atomics."""
    r, q = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1) * N + tl.arange(0, N)
    p = tl.program_id(2) * K + tl.arange(0, K)
    x = tl.load(a + r[:, None] * k + p[None, :], (r < m)[:, None] & (p < k)[None, :], 0.0)
    y = tl.load(b + p[:, None] * n + q[None, :], (p < k)[:, None] & (q < n)[None, :], 0.0)
    tl.atomic_add(c + r[:, None] * n + q[None, :], tl.dot(x, y), (r < m)[:, None] & (q < n)[None, :])


def named(name, item):
    text = item[1].replace(f".entry {item[0]}(", f".entry {name}(").replace(f"{item[0]}_param", f"{name}_param")
    return name, text


def compiled():
    i = "i32"
    for name, kind, out, precision, stages in [("product_f16", "fp16", "fp16", "ieee", 3), ("product_bf16", "bf16", "fp32", "ieee", 2),
                                               ("product_tf32", "fp32", "fp32", "tf32", 3), ("product_f32", "fp32", "fp32", "ieee", 1),
                                               ("product_tf32x3", "fp32", "fp32", "tf32x3", 1)]:
        size = dict(M=32, N=32, K=32 if kind != "fp32" else 16, GROUP=2, PRECISION=precision)
        item = ptx(product, dict(a=f"*{kind}", b=f"*{kind}", c=f"*{out}", m=i, n=i, k=i, sa=i, sb=i, sc=i), size, stages=stages, aligned="a b c sa sb sc")
        yield named(name, item)
    yield ptx(product_s8, dict(a="*i8", b="*i8", c="*i32", m=i, n=i, k=i), dict(M=32, N=32, K=64), aligned="a b c k")
    f = "*fp16"
    for name, causal in [("attention_full", False), ("attention_causal", True)]:
        yield named(name, ptx(attention, dict(q=f, k=f, v=f, o=f, logsum="*fp32", tokens=i, scale="fp32"), dict(CAUSAL=causal, D=32, M=32, N=32), aligned="q k v o logsum"))
    p = "*fp32"
    yield ptx(convolution, dict(x=p, w=p, out=p, height=i, width=i, channels=i, filters=i), dict(P=32, F=16, C=16), warps=2, aligned="x w out")
    yield ptx(split_product, dict(a=f, b=f, c=p, m=i, n=i, k=i), dict(M=16, N=32, K=32), warps=2, aligned="a b c")
