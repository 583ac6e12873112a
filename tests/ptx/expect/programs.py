"""Calls, branches, local arrays, hashes, and whole small programs."""
import hashlib
import math
import zlib

import numpy as np
from make import case, i32


@case("cuda", "call")
def call(c):
    n = 50
    a, b = c.integers(n, low=1, high=5000), c.integers(n, low=1, high=5000)
    y = [math.gcd(int(p), int(q)) if p > q else -math.gcd(int(q), int(p) + 1) for p, q in zip(a, b)]
    c.run("call_scalar", 2, 32, [c.input(a), c.input(b), c.output(np.array(y, "i4")), i32(n)])
    f, g = c.uniform(n), c.uniform(n)
    c.run("call_struct", 2, 32, [c.input(f), c.input(g), c.output(np.stack([np.minimum(f, g), np.maximum(f, g)], 1)), i32(n)])
    body = np.dtype([("mass", "<f8"), ("place", "<f4", 3), ("id", "<i2"), ("pad", "<u2")])
    x = np.zeros(n, body)
    x["mass"], x["place"], x["id"] = c.uniform(n), c.integers(n, 3).astype("f4"), c.integers(n)
    moved = x.copy()
    moved["mass"] *= 2
    moved["place"] += np.array([0.5, 1.0, 1.5], "f4")
    moved["id"] += 1
    # The two bytes of padding may hold anything: they are copied or not as the compiler likes, so here they are 0 and start as 0.
    words = lambda v: v.view("u1").reshape(n, 24)
    c.run("call_large_struct", 2, 32, [c.input(words(x)), c.output(words(moved), start=np.zeros((n, 24), "u1")), {"f32": 0.5}, i32(n)])
    u = c.bits(n) >> c.integers(n, high=32).astype("u4")
    sums, lengths = [], []
    for v in u.tolist():
        s = 0
        for d in reversed(str(v)):
            s = (s * 3 + int(d)) % 2**32
        sums.append(s), lengths.append(len(str(v)))
    c.run("call_pointer", 2, 32, [c.input(u), c.output(np.array(sums, "u4")), c.output(np.array(lengths, "i4")), i32(n)])
    k = c.integers(n, high=14, dtype=np.uint32)
    fib = [0, 1]
    while len(fib) < 20:
        fib.append(fib[-1] + fib[-2])
    y = [2 * (int(v) % 5) + 3 if i % 3 == 2 else fib[v] for i, v in enumerate(k)]
    c.run("call_recursive", 2, 32, [c.input(k), c.output(np.array(y, "u4")), i32(n)])
    w = c.integers(n, low=-(1 << 40), high=1 << 40, dtype=np.int64)
    y = [(-int(v) if i & 1 else int(v)) * (i - 20) + int(i * 0.75) for i, v in enumerate(w)]
    c.run("call_wide", 2, 32, [c.input(w), c.output(np.array(y, "i8")), i32(n)])


@case("cuda", "indirect")
def indirect(c):
    n = 45
    which, a, b = c.integers(n, high=4), c.integers(n), c.integers(n)
    y = np.choose(which, [a + b, a - b, a * b, a | b])
    c.run("call_table", 2, 32, [c.input(which), c.input(a), c.input(b), c.output(y.astype("i4")), i32(n)])
    x = c.integers(n).astype("f4")
    c.run("call_virtual", 2, 32, [c.input(x), c.output(np.where(np.arange(n) % 3 > 0, 2 * x * x, x * x)), i32(n)])


def wrap(v):
    """To 32 bits, signed."""
    return (v + 2**31) % 2**32 - 2**31


@case("cuda", "branch")
def branch(c):
    n = 70
    op, x = c.integers(n, high=13), c.integers(n, low=0, high=9999)
    table = {0: lambda v: v + 11, 1: lambda v: v * v, 2: lambda v: ~(v ^ 0x55), 3: lambda v: ~v, 4: lambda v: v // 3, 5: lambda v: v % 7,
             6: lambda v: bin(v).count("1"), 8: lambda v: v << (v & 7), 10: lambda v: -v}
    # op 2 sets r = v ^ 0x55 and falls into op 3, which sets r = ~v
    table[2] = table[3]
    start = np.full(n, -5)
    y = [-5 if o == 7 else wrap(table.get(int(o), lambda v: 0)(int(v))) for o, v in zip(op, x)]
    c.run("switch_table", 2, 48, [c.input(op), c.input(x), c.output(np.array(y, "i4"), start=start), i32(n)])

    code = np.array([1, 2, 2, 3, 5, 4, 4, 0, 6, 4, 1, 5, 9, 7, 6, 0, 2, 5, 1, 0], "u1")
    first = c.integers(n, high=4)
    first[::3] = 8
    first[5::7] = 16

    def machine(i, pc):
        a, b, steps = i, 1, 0
        while True:
            if steps > 200:
                return -1
            o = code[pc]
            pc, steps = pc + 1, steps + 1
            if o == 0: return wrap(a * 1000 + b)
            if o == 1: a = wrap(a + b)
            if o == 2: b += 1
            if o == 3: a ^= b
            if o == 4: b = wrap(b * 3)
            if o == 5: pc = pc - int(code[pc]) if b < 50 else pc + 1
            if o == 6: a, b = b, a
            if o == 7: a >>= 1
    c.run("machine", 2, 48, [c.input(code), c.input(first), c.output(np.array([machine(i, int(p)) for i, p in enumerate(first)], "i4")), i32(n)])

    v = c.integers(n, low=1, high=3000, dtype=np.uint32)
    steps, peak = [], []
    for x in v.tolist():
        s, high = 0, x
        while x != 1:
            x = 3 * x + 1 if x & 1 else x // 2
            s, high = s + 1, max(high, x)
        steps.append(s), peak.append(high)
    c.run("collatz", 2, 48, [c.input(v), c.output(np.array(steps, "i4")), c.output(np.array(peak, "u4")), i32(n)])
    f = c.integers(n, low=2, high=5000)
    y = []
    for x in f.tolist():
        out, p = [], 2
        while x > 1:
            while x % p == 0:
                out.append(p)
                x //= p
            p += 1
        y.append((out + [0, 0, 0])[:3])
    c.run("factors", 2, 48, [c.input(f), c.output(np.array(y, "i4")), i32(n)])

    x = c.integers(64, low=-99, high=99)
    v = []
    for i, t in enumerate(x.tolist()):
        if i & 1:
            for k in range(i & 15):
                t = wrap(t * 5 + k)
        elif i & 2:
            t = -t
        v.append(t)
    w = [v[i ^ 1] for i in range(64)]
    y = []
    for i in range(64):
        here = [j for j in range(i // 32 * 32, i // 32 * 32 + 32) if j % 5 == 0]
        y.append(wrap(v[i] + (sum(w[j] > 0 for j in here) if i % 5 == 0 else 0) - w[i]))
    c.run("meet", 1, 64, [c.input(x), c.output(np.array(y, "i4"))])

    width, height, limit = 52, 41, 60
    a = np.tile(np.float32(-2.25) + np.arange(width, dtype="f4") * np.float32(0.0625), (height, 1))
    b = np.tile((np.float32(-1.25) + np.arange(height, dtype="f4") * np.float32(0.0625))[:, None], (1, width))
    u, v, k, on = np.zeros_like(a), np.zeros_like(a), np.zeros(a.shape, int), np.ones(a.shape, bool)
    with np.errstate(all="ignore"):
        for _ in range(limit):
            on &= u * u + v * v <= 4
            t = u * u - v * v + a
            v = np.where(on, 2 * u * v + b, v)
            u = np.where(on, t, u)
            k += on
    c.run("mandelbrot", [2, 6], [32, 8], [c.output(k.astype("u1")), i32(width), i32(height), i32(limit)])


@case("cuda", "local")
def local(c):
    n = 40
    x, length = c.integers(n, 24, low=-3000, high=3000, dtype=np.int16), c.integers(n, low=1, high=25)
    start = np.full((n, 24), 99, "i2")
    y = start.copy()
    for i, m in enumerate(length):
        y[i, :m] = np.sort(x[i, :m])
    c.run("insertion", 2, 32, [c.input(x), c.output(y, start=start), c.input(length), i32(n)])

    def queens(rows, size):
        if len(rows) == size:
            return 1
        ok = lambda q: all(q != p and abs(q - p) != len(rows) - r for r, p in enumerate(rows))
        return sum(queens(rows + [q], size) for q in range(size) if ok(q))
    c.run("queens", 1, 32, [c.output(np.array([queens([q], 6) for q in range(6)], "i4")), i32(6)])

    v = c.bits(n)
    y = []
    for i, w in enumerate(v.tolist()):
        b = [0] * 16
        for k in range(16):
            b[(k * 7 + i) % 16] = w >> (k % 4 * 8) & 255
        h = 0
        for k in range(0, 16, 2):
            at = (k + 2 * i) % 16
            h = (h * 31 + (b[at] | b[at + 1] << 8)) % 2**64
        m = i % 3
        char = b[(i % 7 + m) % 16]
        y.append((h + m * 100 + i + int((0.5 * m + i) * 2) + (char - 256 if char > 127 else char)) % 2**64)
    c.run("reinterpret", 2, 32, [c.input(v), c.output(np.array(y, "u8")), i32(n)])
    m = c.integers(n, low=1, high=20)
    y = [sum(((k * 3) % s) ** 2 + i for k in range(s)) for i, s in enumerate(m.tolist())]
    c.run("grows", 2, 32, [c.input(m), c.output(np.array(y, "i4")), i32(n)])


@case("cuda", "hash")
def hash_(c):
    n, length = 40, 37
    text = c.integers(n, length, high=256, dtype=np.uint8)
    words = lambda name: np.stack([np.frombuffer(hashlib.new(name, row.tobytes()).digest(), "<u4") for row in text])
    head = [c.input(text), i32(length)]
    c.run("sha256", 2, 32, [*head, c.output(words("sha256")), i32(n)])
    sines = np.array([int(abs(math.sin(k + 1)) * 2**32) for k in range(64)], "u4")
    c.run("md5", 2, 32, [*head, c.input(sines), c.output(words("md5")), i32(n)])
    c.run("crc32", 2, 32, [*head, c.output(np.array([zlib.crc32(row.tobytes()) for row in text], "u4")), i32(n)])
    fnv = []
    for row in text:
        h = 0xCBF29CE484222325
        for b in row.tolist():
            h = (h ^ b) * 0x100000001B3 % 2**64
        fnv.append(h)
    c.run("fnv1a", 2, 32, [*head, c.output(np.array(fnv, "u8")), i32(n)])


@case("cuda", "solvers")
def solvers(c):
    x = c.uniform(2, 256, 2)
    y = np.fft.fft(x[..., 0].astype(float) + 1j * x[..., 1])
    c.run("fft", 2, 128, [c.output(np.stack([y.real, y.imag], -1).astype("f4"), 1e-5, 2e-5, start=x)])
    n = 13
    a, b = c.uniform(2, n, n, dtype=float), c.uniform(2, n, dtype=float)
    c.run("solve", 2, 32, [c.input(a), c.input(b), c.output(np.linalg.solve(a, b[..., None])[..., 0], 1e-9, 1e-9), i32(n)])
    p = c.uniform(75, 4)
    d = p[None, :, :3].astype(float) - p[:, None, :3]
    r = 1 / np.sqrt((d * d).sum(2) + np.float32(0.01))
    force = ((p[None, :, 3] * r**3)[..., None] * d).sum(1)
    y = np.concatenate([force, -(p[None, :, 3] * r).sum(1)[:, None]], 1)
    c.run("bodies", 2, 64, [c.input(p), c.output(y.astype("f4"), 1e-4, 2e-3), i32(75)], shared=64 * 16)
    rows, columns = 21, 50
    m = c.uniform(rows, columns) * (c.rng.random((rows, columns)) < 0.3)
    start = np.concatenate([[0], np.cumsum((m != 0).sum(1))]).astype("i4")
    column, v = np.nonzero(m)[1].astype("i4"), c.uniform(columns)
    c.run("sparse", 3, 64, [c.input(start), c.input(column), c.input(m[m != 0].astype("f4")), c.input(v),
                            c.output((m.astype(float) @ v).astype("f4"), 1e-5, 1e-5), i32(rows)])
    nodes = 90
    g = c.rng.random((nodes, nodes)) < 0.03
    start, next_ = np.concatenate([[0], np.cumsum(g.sum(1))]).astype("i4"), np.nonzero(g)[1].astype("i4")
    level, front = np.full(nodes, -1), [0]
    level[0] = 0
    while front:
        front = [w for w in range(nodes) if level[w] < 0 and any(g[v, w] for v in front)] if front else []
        level[front] = level.max() + 1
    begin = np.full(nodes, -1)
    begin[0] = 0
    c.run("search", 1, 64, [c.input(start), c.input(next_), c.output(level.astype("i4"), start=begin), i32(nodes)])
    a, b = c.integers(3, 32, low=97, high=101, dtype=np.int8), c.integers(3, 45, low=97, high=101, dtype=np.int8)
    distances = []
    for p, q in zip(a.tolist(), b.tolist()):
        row = list(range(len(q) + 1))
        for i, u in enumerate(p):
            new = [i + 1]
            for j, w in enumerate(q):
                new.append(min(new[-1] + 1, row[j + 1] + 1, row[j] + (u != w)))
            row = new
        distances.append(row[-1])
    c.run("edit_distance", 3, 32, [c.input(a), c.input(b), c.output(np.array(distances, "i4")), i32(45)])
    d = np.where(c.rng.random((19, 19)) < 0.25, c.integers(19, 19, low=1, high=50), 100000)
    np.fill_diagonal(d, 0)
    s = d.copy()
    for k in range(19):
        s = np.minimum(s, s[:, k:k + 1] + s[k:k + 1])
    c.run("shortest", 1, 64, [c.output(s.astype("i4"), start=d), i32(19)])


@case("cuda", "debug")
def debug(c):
    n = 45
    a, b = c.uniform(n, 2), c.uniform(n, 2)
    v, p = np.zeros(64), a.astype(float)
    for k in range(3):
        v[:n] += (p * b).sum(1) * k
        p[:, 0] = np.clip(p[:, 0] + 0.25, -0.5, 0.5)
    y = v + v[np.arange(64) ^ 1]
    c.run("unoptimised", 2, 32, [c.input(a), c.input(b), c.output(y[:n].astype("f4"), 1e-5, 1e-6), i32(n)])
