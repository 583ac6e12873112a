"""Tensor-core products: exact inputs, sums within the tolerance of f32 (or f16) accumulation."""
import numpy as np
from exact import bf16, bf16_bits, tf32
from make import case, f32, i32


@case("cuda", "wmma")
def wmma(c):
    m, n, k = 35, 41, 50
    a, b = c.uniform(m, k, dtype=np.float16), c.uniform(k, n, dtype=np.float16)
    y = 0.5 * (a.astype(float) @ b.astype(float))
    c.run("gemm_f16", [3, 3], 32, [c.input(a), c.input(b), c.output(y.astype("f4"), 1e-5, 1e-5), i32(m), i32(n), i32(k)])

    def tile(name, m, n, k, make, sums, layout_a="C", layout_b="C", layout_c="C", rtol=1e-5, read=lambda v: v.astype(float), write=lambda v: v):
        a, b, s = make(m, k), make(k, n), sums(m, n)
        d = (read(a) @ read(b) + s.astype(float)).astype(s.dtype)
        flat = lambda v, layout: np.asarray(v).flatten(layout)
        c.run(name, 1, 32, [c.input(write(flat(a, layout_a))), c.input(write(flat(b, layout_b))), c.input(flat(s, layout_c)),
                            c.output(flat(d, layout_c), rtol, rtol)])

    half = lambda *s: c.uniform(*s, dtype=np.float16)
    tile("tile_f16_f16", 16, 16, 16, half, half, layout_b="F", rtol=4e-3)
    tile("tile_32x8", 32, 8, 16, half, c.uniform, layout_a="F", layout_c="F")
    tile("tile_8x32", 8, 32, 16, half, c.uniform)
    tile("tile_bf16", 16, 16, 16, lambda *s: bf16(c.uniform(*s)), c.uniform, layout_a="F", layout_b="F", write=bf16_bits)
    words = lambda *s: c.integers(*s, low=-1000, high=1000)
    tile("tile_s8", 16, 16, 16, lambda *s: c.integers(*s, low=-128, high=128, dtype=np.int8), words, layout_b="F")
    tile("tile_u8", 32, 8, 16, lambda *s: c.integers(*s, high=256, dtype=np.uint8), words, layout_c="F")
    double = lambda *s: c.uniform(*s, dtype=float)
    tile("tile_f64", 8, 8, 4, double, double, layout_b="F", rtol=1e-14)
    tile("tile_tf32", 16, 16, 8, c.uniform, c.uniform, read=lambda v: tf32(v).astype(float))


@case("cuda", "mma")
def mma(c):
    def product(kernel, a, b, sums, write=lambda v: v, read=lambda v: v.astype(float), rtol=1e-5, dtype="f4"):
        d = (read(a) @ read(b) + sums.astype(float)).astype(dtype)
        c.run(kernel, 1, 32, [c.input(write(a)), c.input(write(b)), c.input(sums), c.output(d, rtol, rtol)])

    half = lambda *s: c.uniform(*s, dtype=np.float16)
    brain = lambda *s: bf16(c.uniform(*s))
    for k in (16, 8):
        product(f"mma_k{k}_f16", half(16, k), half(k, 8), c.uniform(16, 8))
        product(f"mma_k{k}_bf16", brain(16, k), brain(k, 8), c.uniform(16, 8), write=bf16_bits)
    product("mma_f16_sums", half(16, 16), half(16, 8), half(16, 8), rtol=4e-3, dtype="f2")
    product("mma_tf32", c.uniform(16, 12), c.uniform(12, 8), c.uniform(16, 8), read=lambda v: tf32(v).astype(float))
    a, b = c.integers(16, 48, low=-128, high=128, dtype=np.int8), c.integers(48, 8, low=-128, high=128, dtype=np.int8)
    s = c.integers(16, 8, low=-(1 << 31), high=1 << 31)
    s[0], s[9] = (1 << 31) - 300000, -(1 << 31) + 300000  # these saturate in the second product, or wrap in the first
    first = (a[:, :32].astype(np.int64) @ b[:32] + s).astype(np.int32)
    second = np.clip(a[:, 32:].view(np.uint8).astype(np.int64) @ b[32:].astype(np.int64) + first, -(1 << 31), (1 << 31) - 1)
    c.run("mma_s8", 1, 32, [c.input(a), c.input(b), c.input(s), c.output(second.astype("i4"))])
    m, n, k = 37, 29, 43
    a, b = brain(m, k), brain(k, n)
    y = (a.astype(float) @ b).astype("f4")
    c.run("gemm_ldmatrix", [2, 2], 64, [c.input(bf16_bits(a)), c.input(bf16_bits(b)), c.output(y, 1e-5, 1e-5), i32(m), i32(n), i32(k)])
    x = c.rng.permutation(256).astype("u2")
    tiles, y = x.reshape(4, 8, 8), np.zeros((32, 10), "u4")
    for lane in range(32):
        g, t = lane // 4, lane % 4
        row = lambda m: int(tiles[m, g, 2 * t]) | int(tiles[m, g, 2 * t + 1]) << 16
        column = lambda m: int(tiles[m, 2 * t, g]) | int(tiles[m, 2 * t + 1, g]) << 16
        y[lane] = [row(0), row(0), row(1), row(0), row(1), row(2), row(3), column(0), column(0), column(1)]
    c.run("ldmatrix_layout", 1, 32, [c.input(x), c.output(y)])


@case("cuda", "attention")
def attention(c):
    heads, tokens, d, scale = 2, 45, 24, 0.2
    q, k, v = (c.uniform(heads, tokens, d) for _ in range(3))
    for causal in (0, 1):
        s = np.einsum("hid,hjd->hij", q.astype(float), k) * np.float32(scale)
        if causal:
            s = np.where(np.tril(np.ones((tokens, tokens), bool)), s, -np.inf)
        top = s.max(2, keepdims=True)
        e = np.exp(s - top)
        total = e.sum(2, keepdims=True)
        c.run("attention", [2, heads], 32, [c.input(q), c.input(k), c.input(v), c.output((e / total @ v).astype("f4"), 2e-5, 1e-6),
                                            c.output((top + np.log(total)).astype("f4"), 1e-5, 1e-5), i32(tokens), i32(causal), f32(scale)],
              shared=(2 * 32 * d + 32 * 33) * 4)


@case("cuda", "pipeline")
def pipeline(c):
    m, n, k = 37, 21, 50
    a, b = c.uniform(m, k), c.uniform(k, n)
    c.run("gemm_pipeline", [2, 3], [16, 16], [c.input(a), c.input(b), c.output((a.astype(float) @ b).astype("f4"), 1e-5, 1e-5), i32(m), i32(n), i32(k)])
    x = c.uniform(4 * 101)
    c.run("reverse_async", 1, 32, [c.input(x), c.output(x[::-1]), i32(101)], shared=3 * 32 * 16)
    v = c.integers(170)
    y = np.zeros(170, "i4")
    for base in range(0, 170, 64):
        tile = np.array([v[base + t] if base + t < 170 else v[0] for t in range(64)])
        t = np.arange(min(64, 170 - base))
        y[base + t] = tile[63 - t] * 2 + tile[t]
    c.run("mbarrier_copy", 1, 64, [c.input(v), c.output(y), i32(170)])
    t = np.arange(48)
    c.run("mbarrier_state", 1, 48, [c.output((((t + 17) % 48) ** 2).astype("i4"))])


@case("cuda", "hopper")
def hopper(c):
    lanes = np.zeros(32, "u4")
    lanes[0] = 1
    c.run("elected", 1, 32, [c.output(lanes)])
    x = c.bits(128)
    first, second = np.zeros(256, "u2"), np.zeros(256, "u2")
    for lane in range(32):
        g, t = lane // 4, lane % 4
        for m in range(4):
            w = int(x[32 * m + lane])
            first[64 * m + 8 * g + 2 * t], first[64 * m + 8 * g + 2 * t + 1] = w & 0xFFFF, w >> 16
            if m < 2:
                second[64 * m + 16 * t + g], second[64 * m + 16 * t + 8 + g] = w & 0xFFFF, w >> 16
    c.run("stmatrix", 1, 32, [c.input(x), c.output(np.concatenate([first, second[:128]]))])
    c.run("vector_atomics", 3, 32, [c.output(np.array([96, 48, -1, -1, 96, 192, 288, 384], "f4"), start=[0, 0, -1, -1, 0, 0, 0, 0])])
    small_floats(c)


def decode(code, exponent_bits):
    """The value of an 8-bit float: e4m3 (no infinity, NaN only at s1111111) or e5m2 (as an f16 cut short)."""
    fraction_bits = 7 - exponent_bits
    sign, e, f = -1 if code & 128 else 1, code >> fraction_bits & ((1 << exponent_bits) - 1), code & ((1 << fraction_bits) - 1)
    bias, top = (1 << exponent_bits - 1) - 1, (1 << exponent_bits) - 1
    if exponent_bits == 5 and e == top:
        return np.nan if f else sign * np.inf
    if exponent_bits == 4 and e == top and f == 7:
        return np.nan
    scale = 2.0 ** -fraction_bits
    return sign * (f * scale * 2.0 ** (1 - bias) if e == 0 else (1 + f * scale) * 2.0 ** (e - bias))


def encode(v, exponent_bits):
    """Nearest 8-bit float, ties to the even code, saturated to the largest finite one."""
    if np.isnan(v):
        return 0x7F
    codes = [k for k in range(128) if np.isfinite(decode(k, exponent_bits))]
    values = [decode(k, exponent_bits) for k in codes]
    a = min(abs(float(v)), values[-1])
    best = min(codes, key=lambda k: (abs(values[k] - a), k & 1))
    return best | (128 if np.signbit(v) else 0)


def small_floats(c):
    x = c.uniform(40, 2, low=-3, high=3) * np.float32(2.0) ** c.integers(40, 2, low=-18, high=18)
    x[0], x[1], x[2], x[3] = [0, -0.0], [448, 464], [np.inf, -np.inf], [np.nan, 1e-9]
    y = np.zeros((40, 3), "u4")
    for i, (p, q) in enumerate(x.astype("f4")):
        for column, (e, shift) in enumerate([(4, 0), (5, 16)]):
            low, high = encode(p, e), encode(q, e)
            y[i, 0] |= (low | high << 8) << shift
            halves = [0x7FFF if np.isnan(decode(k, e)) else int(np.float16(decode(k, e)).view("u2")) for k in (low, high)]
            y[i, 1 + column] = halves[0] | halves[1] << 16
    c.run("small_floats", 1, 64, [c.input(x.astype("f4")), c.output(y), i32(40)])
