"""Elementwise kernels: masks, mixed types, library functions, a whole optimizer step, a loop that runs a different
number of times in each program."""
import triton
import triton.language as tl
from common import ptx
from triton.language.extra import libdevice


@triton.jit
def vector_add(x, y, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m = i < n
    tl.store(out + i, tl.load(x + i, m) + tl.load(y + i, m), m)


@triton.jit
def swiglu(gate, up, out, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    m = c < columns
    g = tl.load(gate + row * columns + c, m, 0.0).to(tl.float32)
    u = tl.load(up + row * columns + c, m, 0.0)
    tl.store(out + row * columns + c, (g * tl.sigmoid(g)).to(tl.float16) * u, m)


@triton.jit
def gelu_mixed(x, bias, out, n, columns, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m = i < n
    v = tl.load(x + i, m).to(tl.float32) + tl.load(bias + i % columns, m)
    t = 0.5 * v * (1 + libdevice.tanh(0.7978845608028654 * (v + 0.044715 * v * v * v)))
    tl.store(out + i, t.to(tl.bfloat16), m)


@triton.jit
def functions(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m = i < n
    v = tl.load(x + i, m, 1.0)
    tl.store(out + i, tl.exp(v), m)
    tl.store(out + n + i, tl.log(tl.abs(v)), m)
    tl.store(out + 2 * n + i, tl.sin(v) + tl.cos(v), m)
    tl.store(out + 3 * n + i, tl.sqrt_rn(tl.abs(v)) + tl.rsqrt(tl.abs(v)), m)
    tl.store(out + 4 * n + i, tl.erf(v), m)
    tl.store(out + 5 * n + i, tl.floor(v) + tl.ceil(v * 0.5), m)
    tl.store(out + 6 * n + i, libdevice.pow(tl.abs(v), 1.5), m)
    tl.store(out + 7 * n + i, tl.exp2(v) + tl.log2(tl.abs(v)), m)


@triton.jit
def integers(a, b, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m = i < n
    p = tl.load(a + i, m, 1)
    q = tl.load(b + i, m, 1)
    tl.store(out + i, p // q, m)
    tl.store(out + n + i, p % q, m)
    tl.store(out + 2 * n + i, tl.umulhi(p.to(tl.uint32, bitcast=True), q.to(tl.uint32, bitcast=True)).to(tl.int32, bitcast=True), m)
    tl.store(out + 3 * n + i, (p >> 3) ^ (q << 2) & ~p, m)
    tl.store(out + 4 * n + i, (p.to(tl.int64) * q >> 9).to(tl.int32), m)
    tl.store(out + 5 * n + i, tl.where(p > q, p, -q) + (p.to(tl.int8) + q.to(tl.int16)).to(tl.int32), m)


@triton.jit
def adamw(w, g, m1, m2, n, lr, beta1, beta2, eps, decay, correct1, correct2, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    ok = i < n
    gv, wv = tl.load(g + i, ok), tl.load(w + i, ok)
    a = beta1 * tl.load(m1 + i, ok) + (1 - beta1) * gv
    b = beta2 * tl.load(m2 + i, ok) + (1 - beta2) * gv * gv
    tl.store(m1 + i, a, ok)
    tl.store(m2 + i, b, ok)
    step = (a / correct1) / (tl.sqrt(b / correct2) + eps)
    tl.store(w + i, wv - lr * (step + decay * wv), ok)


@triton.jit
def newton(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + i, i < n, 1.0)
    r = tl.maximum(v, 1.0)
    error = tl.max(tl.abs(r * r - v), 0)
    while error > 1e-9:
        r = 0.5 * (r + v / r)
        error = tl.max(tl.abs(r * r - v) / tl.maximum(v, 1.0), 0) - 1e-14
    tl.store(out + i, r, i < n)


@triton.jit
def rope(x, cos, sin, out, tokens, HALF: tl.constexpr):
    t = tl.program_id(0)
    h = tl.program_id(1)
    d = tl.arange(0, HALF)
    at = (h * tokens + t) * 2 * HALF
    a, b = tl.load(x + at + d), tl.load(x + at + HALF + d)
    c, s = tl.load(cos + t * HALF + d), tl.load(sin + t * HALF + d)
    tl.store(out + at + d, a * c - b * s)
    tl.store(out + at + HALF + d, b * c + a * s)


@triton.jit
def transpose(x, out, rows, columns, R: tl.constexpr, C: tl.constexpr):
    r = tl.program_id(0) * R + tl.arange(0, R)
    c = tl.program_id(1) * C + tl.arange(0, C)
    v = tl.load(x + r[:, None] * columns + c[None, :], (r < rows)[:, None] & (c < columns)[None, :])
    tl.store(out + c[:, None] * rows + r[None, :], tl.trans(v), (c < columns)[:, None] & (r < rows)[None, :])


@triton.jit
def quantise(x, out, scale, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    c = tl.arange(0, BLOCK)
    v = tl.load(x + row * columns + c, c < columns, 0.0)
    s = tl.max(tl.abs(v), 0) / 127
    q = libdevice.rint(v / s)
    tl.store(out + row * columns + c, q.to(tl.int8), c < columns)
    tl.store(scale + row, s)


def compiled():
    f, i = "*fp32", "i32"
    yield ptx(vector_add, dict(x=f, y=f, out=f, n=i), dict(BLOCK=512), aligned="x y out")
    yield ptx(swiglu, dict(gate="*fp16", up="*fp16", out="*fp16", columns=i), dict(BLOCK=256), warps=2, aligned="gate up out columns")
    yield ptx(gelu_mixed, dict(x="*bf16", bias=f, out="*bf16", n=i, columns=i), dict(BLOCK=256))
    yield ptx(functions, dict(x=f, out=f, n=i), dict(BLOCK=128))
    yield ptx(integers, dict(a="*i32", b="*i32", out="*i32", n=i), dict(BLOCK=128))
    yield ptx(adamw, dict(w=f, g=f, m1=f, m2=f, n=i, lr="fp32", beta1="fp32", beta2="fp32", eps="fp32", decay="fp32", correct1="fp32", correct2="fp32"),
              dict(BLOCK=128), warps=1, aligned="w g m1 m2")
    yield ptx(newton, dict(x="*fp64", out="*fp64", n=i), dict(BLOCK=64), warps=2)
    yield ptx(rope, dict(x=f, cos=f, sin=f, out=f, tokens=i), dict(HALF=32), warps=1)
    yield ptx(transpose, dict(x=f, out=f, rows=i, columns=i), dict(R=32, C=64))
    yield ptx(quantise, dict(x=f, out="*i8", scale=f, columns=i), dict(BLOCK=128), warps=1)
