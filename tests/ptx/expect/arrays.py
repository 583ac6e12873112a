"""Reductions, scans, histograms, transposes, sorts and stencils."""
import numpy as np
from make import case, f32, i32


@case("cuda", "reduce")
def reduce(c):
    x = c.uniform(1000)
    part = np.zeros(3)
    for i, v in enumerate(x.astype(float)):
        part[i // 256 % 3] += v
    c.run("block_sum", 3, 256, [c.input(x), c.output(part.astype("f4"), 1e-5, 1e-5), i32(1000)])
    rows = c.uniform(7, 45)
    c.run("warp_row_sum", 2, 128, [c.input(rows), c.output(rows.sum(1, dtype=float).astype("f4"), 1e-5, 1e-5), i32(7), i32(45)])
    v = c.integers(96, low=-1000, high=1000)
    w = v.reshape(3, 32)
    y = np.stack([w.sum(1), w.min(1), w.max(1), *[f.reduce(w, axis=1) for f in (np.bitwise_and, np.bitwise_or, np.bitwise_xor)]], 1)
    c.run("redux", 1, 96, [c.input(v), c.output(y.astype("i4"))])
    z = c.integers(500, low=0, high=50).astype("f4")
    c.run("argmax", 1, 128, [c.input(z), c.output(z.max(keepdims=True)), c.output(np.array([z.argmax()], "i4")), i32(500)])
    a, b = c.uniform(403), c.uniform(403)
    c.run("dot4", 1, 96, [c.input(a), c.input(b), c.output(np.array([a.astype(float) @ b], "f4"), 1e-5, 1e-5), i32(403)])
    n = c.integers(700, low=-9, high=9)
    part = [n[i:i + 96].sum() for i in range(0, 700, 96)]
    c.run("last_block_sum", 8, 96, [c.input(n), c.output(np.array(part, "i4")), c.output(np.zeros(1, "u4"), start=[0]),
                                    c.output(np.array([n.sum()], "i4")), i32(700)])


@case("cuda", "scan")
def scan(c):
    x = c.integers(200, low=-50, high=50)
    segments = lambda x, k: np.concatenate([np.cumsum(x[i:i + k]) for i in range(0, len(x), k)])
    c.run("warp_scan", 2, 128, [c.input(x), c.output(segments(x, 32).astype("i4")), i32(200)])
    c.run("segment_scan", 2, 128, [c.input(x), c.output(segments(x, 8).astype("i4")), i32(200)])
    f = c.uniform(300)
    c.run("block_scan", 3, 128, [c.input(f), c.output(segments(f.astype(float), 128).astype("f4"), 1e-5, 1e-5), i32(300)])
    b = c.integers(201)
    c.run("blelloch", 1, 128, [c.input(b), c.output((np.cumsum(b) - b).astype("i4")), i32(201)], shared=(256 + 8) * 4)
    u = c.integers(777, dtype=np.uint32)
    state = np.concatenate([[9], np.cumsum([u[i:i + 96].sum() for i in range(0, 864, 96)]) + 1])
    c.run("chained_scan", 9, 96, [c.input(u), c.output(np.cumsum(u).astype("u4")), c.output(state.astype("u4"), start=np.zeros(10)), i32(777)])


@case("cuda", "histogram")
def histogram(c):
    x = (c.rng.random(3000) ** 3 * 256).astype("u1")
    c.run("histogram", 3, 192, [c.input(x), c.output(np.bincount(x, minlength=256).astype("u4"), start=np.zeros(256)), i32(3000)])
    w = c.bits(150)
    digits = np.concatenate([w >> np.uint32(k) & np.uint32(15) for k in range(0, 32, 4)])
    c.run("nibble_histogram", 2, 64, [c.input(w), c.output(np.bincount(digits, minlength=16).astype("u4"), start=np.zeros(16)), i32(150)])
    k = c.integers(300, high=12)
    c.run("match_histogram", 3, 128, [c.input(k), c.output(np.bincount(k, minlength=12).astype("i4"), start=np.zeros(12)), i32(300)])


@case("cuda", "transpose")
def transpose(c):
    x = c.uniform(45, 70)
    c.run("transpose32", [3, 2], [32, 8], [c.input(x), c.output(x.T), i32(45), i32(70)])
    s = c.integers(33, 65, low=-30000, high=30000, dtype=np.int16)
    c.run("transpose16", [3, 2], [32, 8], [c.input(s), c.output(s.T), i32(33), i32(65)])
    b = c.integers(64, 8, low=-9999, high=9999)
    c.run("transpose8", 1, 64, [c.input(b), c.output(b.reshape(8, 8, 8).transpose(0, 2, 1))])


@case("cuda", "sort")
def sort(c):
    k = c.integers(450, low=-1000, high=1000)
    c.run("bitonic_block", 1, 256, [c.output(np.sort(k), start=k), i32(450)])
    f = c.rng.permutation(128).astype("f4") - 64
    order = np.concatenate([np.argsort(f[i:i + 32]) + i for i in range(0, 128, 32)])
    v = c.integers(128)
    c.run("bitonic_warp", 2, 64, [c.output(f[order], start=f), c.output(v[order], start=v)])
    w = c.integers(75, high=1 << 63, dtype=np.uint64)
    c.run("odd_even", 1, 32, [c.output(np.sort(w), start=w), i32(75)], shared=75 * 8)
    u = c.bits(250)
    c.run("radix_block", 1, 256, [c.output(np.sort(u), start=u), i32(250)])


@case("cuda", "stencil")
def stencil(c):
    x = c.uniform(23, 37)
    p = np.pad(x.astype(float), 1, mode="edge")
    y = x + 0.2 * (p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4.0 * x)
    c.run("heat", [3, 3], [16, 8], [c.input(x), c.output(y.astype("f4"), 1e-5, 1e-6), i32(23), i32(37), f32(0.2)], shared=18 * 10 * 4)
    b = c.integers(19, 35, high=256, dtype=np.uint8)
    p, w = np.pad(b.astype(int), 1), [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    total = sum(w[i][j] * p[i:i + 19, j:j + 35] for i in range(3) for j in range(3))
    c.run("blur", [2, 5], [32, 4], [c.input(b), c.output(((total + 8) // 16).astype("u1")), i32(19), i32(35)])
    g = c.integers(21, 30, high=2, dtype=np.int8)
    around = sum(np.roll(g, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j)
    c.run("life", [4, 6], [8, 4], [c.input(g), c.output(((around == 3) | ((around == 2) & (g == 1))).astype("i1")), i32(21), i32(30)])
