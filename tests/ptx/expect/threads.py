"""Votes, shuffles, barriers, atomics, special registers, addresses, module data, printing."""
import numpy as np
from make import case, f32, f64, i32, u32, u64


def ballot(flags):
    return sum(1 << i for i, f in enumerate(flags) if f)


@case("cuda", "vote")
def vote(c):
    x = c.integers(64, low=-99, high=100)
    x[40] = 7
    y = np.zeros((64, 8), "u4")
    trunc3, trunc1000 = np.fmod(x, 3), np.zeros(64, int)
    for w in range(0, 64, 32):
        v, odd = x[w:w + 32], x[w:w + 32] & 1
        for i in range(32):
            top = [j for j in range(32) if j & 2]
            half = ballot([j & 2 and odd[j] for j in range(32)]) if i & 2 else int(any(odd[j] for j in range(32) if not j & 2))
            y[w + i] = [ballot(v > 0), all(v > -90), any(v == 7), 1, ballot(trunc3[w:w + 32] == trunc3[w + i]), 0xFFFFFFFF, 1, half]
    c.run("votes", 2, 32, [c.input(x), c.output(y), i32(64)])
    v = c.integers(32, low=-999, high=999)
    y = np.zeros((32, 12), "i4")
    for i in range(32):
        group = lambda w: i // w * w
        down = i + 4 if i + 4 <= group(8) + 7 else i  # the clamp 0x181f: segments of 8 lanes
        y[i] = [v[i * 7 % 32], v[group(8) + 3], v[i - 5] if i >= 5 else v[i], v[i - 3] if i - 3 >= group(16) else v[i],
                v[i + 9] if i + 9 < 32 else v[i], v[i + 1] if i + 1 < group(4) + 4 else v[i], v[i ^ 21],
                v[i ^ 12] if (i ^ 12) < group(8) + 8 else v[i], v[down], down != i, int(v[(i + 1) % 32] * 1.5), v[i ^ 3] if i < 16 else v[i]]
    c.run("shuffles", 1, 32, [c.input(v), c.output(y)])
    i = np.arange(64)
    below = (1 << i % 32) - 1
    here = 1 << i % 32
    ones = (1 << 32) - 1
    y = np.stack([below, below | here, here, ones & ~below, ones & ~below & ~here, i % 32, np.ones(64), np.full(64, ones)], 1)
    c.run("lane_masks", 1, [16, 4], [c.output(y.astype("u4"))])
    f = c.uniform(150)
    kept = f[f > 0]
    start = np.full(150, -5, "f4")
    c.run("compact", 1, 160, [c.input(f), c.output(np.concatenate([kept, start[len(kept):]]), start=start), c.output(np.array([len(kept)], "u4")), i32(150)])


@case("cuda", "atomic")
def atomic(c):
    n = 150
    x = c.integers(n, low=1, high=10000)
    start = np.array([5, 1 << 20, 1 << 20, 3, 0xFFFFFF, 1, 2, 0, 4], "u4")
    inc, dec = 0, 4
    for _ in range(n):
        inc, dec = 0 if inc >= 6 else inc + 1, 10 if dec == 0 or dec > 10 else dec - 1
    v = x - 5000
    s = [v.min(), v.max(), v.sum(), v[:96].sum(), v[96:].sum()]
    u = [(5 + v.sum()) % 2**32, ((1 << 20) - v.sum()) % 2**32, min(1 << 20, *(v.astype("u4").tolist())), max(3, *(v.astype("u4").tolist())),
         int(np.bitwise_and.reduce(v | 0xFF00)) & 0xFFFFFF, (1 | int(np.bitwise_or.reduce(v))) % 2**32, (2 ^ int(np.bitwise_xor.reduce(v))) % 2**32, inc, dec]
    c.run("atomics_32", 2, 96, [c.output(np.array(u, "u4"), start=start), c.output(np.array(s, "i4"), start=[1 << 20, -(1 << 20), 0, 0, 0]), c.input(v), i32(n)])
    w = v.astype("i8") << 30
    big = w.astype("u8")
    u = np.array([big.sum(), min(1 << 60, int(big.min())), big.max(), np.bitwise_and.reduce(big | np.uint64(0xFFFF)), np.bitwise_or.reduce(big),
                  np.bitwise_xor.reduce(big)], "u8")
    c.run("atomics_64", 2, 96, [c.output(u, start=np.array([0, 1 << 60, 0, 2**64 - 1, 0, 0], "u8")), c.output(np.array([w.min(), w.max()]), start=[0, 0]),
                                c.output(np.array([v.sum() * 0.25]), 1e-15, start=[0]), c.input(v), i32(n)])
    y = np.array([v.sum(), v.min(), v.max(), 1, v.sum()], "i4")
    c.run("atomics_shared", 1, 160, [c.input(v), c.output(y), c.output(np.array([v.sum() * 0.5], "f4"), 1e-6), i32(n)])
    # Powers of two and their inverses: the product is exact, and finite, in any order.
    p = np.float32(2.0) ** c.integers(20, low=-3, high=4)
    p = np.concatenate([p, 1 / p]).astype("f4")
    c.run("cas_product", 1, 64, [c.input(p), c.output(np.array([3.0], "f4").view("u4"), start=np.array([3.0], "f4").view("u4")),
                                 c.output(np.ones(40, "u4"), start=np.zeros(40)), c.output(np.array([40], "u4"), start=[0]), i32(40)])
    c.run("lock", 6, 32, [c.output(np.array([0], "i4"), start=[0]), c.output(np.array([6 * 7 + 15], "i4"), start=[0]), i32(7)])
    f = c.uniform(100, low=-9, high=-1)
    top = int(f.max().view("i4")) ^ 0x7FFFFFFF
    c.run("float_max", 2, 64, [c.input(f), c.output(np.array([top], "i4"), start=[-(1 << 31)]), c.output(np.array([100 * 3 + 7], "u2"), start=[7]), i32(100)])
    flags = np.concatenate([[5 * 4, 6], np.arange(1, 5)])
    c.run("ordered", 4, 1, [c.output(flags.astype("u4"), start=np.zeros(6)), c.output(np.arange(1, 5, dtype="u4"))])


@case("cuda", "barrier")
def barrier(c):
    x = c.integers(192, low=-99, high=100)
    y = np.concatenate([np.tile([(b > 0).sum(), (b > -90).all(), (b > 95).any()], (96, 1)) for b in x.reshape(2, 96)])
    c.run("counted", 2, 96, [c.input(x), c.output(y.astype("i4"))])
    v = c.integers(128)
    c.run("named", 1, 128, [c.input(v), c.output(np.concatenate([v[63::-1], v[:63:-1]]))])
    p = c.integers(96)
    c.run("producer", 1, 64, [c.input(p), c.output((3 * p.reshape(3, 32)[:, ::-1]).astype("i4")), i32(3)])
    w = c.integers(32)
    next_ = np.roll(w, -1)
    y = next_ + np.concatenate([next_[15::-1], 2 * next_[:15:-1]])
    c.run("warp_barrier", 1, 32, [c.input(w), c.output(y.astype("i4"))])
    z = c.integers(70)
    c.run("some_leave", 1, 96, [c.input(z), c.output(z[::-1]), i32(70)], finds="barrier-divergence")


@case("cuda", "special")
def special(c):
    grid, block = (3, 2, 2), (5, 4, 2)
    rows = []
    for bz in range(2):
        for by in range(2):
            for bx in range(3):
                for t in range(40):
                    x, y, z = t % 5, t // 5 % 4, t // 20
                    rows.append([bx | by << 8 | bz << 16, x | y << 8 | z << 16, 3 | 2 << 8 | 2 << 16, 5 | 4 << 8 | 2 << 16, 1, 1])
    c.run("where", list(grid), list(block), [c.output(np.array(rows, "u4"))])
    c.run("clocks", 1, 33, [c.output(np.full(33, 31, "u4"))], shared=40)
    x = c.integers(250)
    c.run("grid_stride", 2, 48, [c.input(x), c.output((2 * x + 1).astype("i4")), i32(250)])


@case("cuda", "address")
def address(c):
    x = c.integers(32, low=0, high=1000)
    y = np.zeros((32, 2), "i4")
    for t in range(32):
        y[t] = [(x[31 - t], 1), (x[31 - t] + 1000, 2), (x[t] + 2000 + t % 4, 4), (100 * (t % 4 + 1), 8), (10 * (t % 4 + 1), 1)][t % 5]
    c.run("generic", 1, 32, [c.input(x), c.output(y)])
    y = np.zeros(33, "i4")
    for t in range(32):
        shared, mine = 5 + 100 * (t % 3 == 0), t + 100 * (t % 3 == 1)
        y[t] = 200 + t if t % 3 == 2 else shared * 1000 + mine
    y[32] = 106
    start = np.arange(100, 133)
    c.run("generic_store", 1, 32, [c.output(y, start=start)])
    b = c.integers(3 * 64, high=256, dtype=np.uint8).reshape(3, 64)
    z = b.copy()
    z[:, :8], z[:, 16:24], z[:, 24:32], z[:, 32:48] = b[:, 7::-1], b[:, 24:32], b[:, 16:24], b[:, 48:64]
    z[:, 48:56], z[:, 56:60], z[:, 60:62], z[:, 62:64] = b[:, 40:48], b[:, 32:36], b[:, 36:38], b[:, 38:40]
    c.run("copies", 1, 32, [c.input(b), c.output(z), i32(3)])
    f = c.integers(64, low=-99, high=99).astype("f4")
    t = np.arange(32)
    pair = f[2 * (t // 2)], f[2 * (t // 2) + 1]
    c.run("hints", 1, 32, [c.input(f), c.output(np.stack([f[t] + f[t + 32], f[t] + pair[0] - pair[1]], 1))])
    value = c.integers(24)
    offsets = np.arange(3, 15)
    t = np.arange(24)
    small = np.zeros(1, np.dtype([("tag", "i1"), ("pair", "<i2", 2), ("value", "<i4")], align=True))
    small["tag"], small["pair"], small["value"] = -3, [100, -200], 70000
    large = np.zeros(1, np.dtype([("scale", "<f4"), ("offsets", "<i4", 12), ("bias", "<f8")], align=True))
    large["scale"], large["offsets"], large["bias"] = 0.5, offsets, 0.125
    y = -3 + np.array([100, -200])[t % 2] + 70000 + 0.5 * offsets[t % 12] + 0.125 + -7 + 200 + 0.0625 + value
    c.run("by_value", 1, 24, [{"bytes": list(small.tobytes())}, {"bytes": list(large.tobytes())}, {"bytes": [0xF9, 0xFF]}, {"bytes": [200]},
                              f64(0.0625), c.input(value), c.output(y, 1e-15)])


@case("cuda", "data")
def data(c):
    y = [2, 3, 5, 7, 11, 13, 17, 19, 1, 2, 255, 4, 0, -1, 2, -3, 4, 5, -6, 0x123456789ABCDEF0, 6, -9, 0, 0, 1000000000,
         7000 + 500 + 1 + ord("f"), -8000 + 1000 + 1 + ord("t"), 9000 + 100 + ord("z"), 42, 11, 0, 0]
    c.run("read_data", 1, 32, [c.output(np.array(y, "i8"))])
    c.run("count", 2, 20, [c.output(np.ones(40, "i4"), start=np.zeros(40))])
    x = c.integers(50)
    t = np.arange(50)
    c.run("three_shared", 1, 64, [c.input(x), c.output((x[::-1] + t % 13 % 3 + t % 2).astype("i4")), i32(50)], shared=64 * 4)


@case("cuda", "print")
def print_(c):
    x = np.array([5, 42, 7], "i4")
    lines = ["no arguments, 100%", "-42 42 2a|   42|42   |00042|+42", "0.700000 0.333 1.23e+04 1e-10 text c 1099511627776 feed00000000"]
    c.run("print", 1, 32, [c.input(x), i32(3)], printed=lines)
    c.run("print_pointer", 1, 1, [u64(0), u64(123456789012)], printed=["123456789012 -3 17 10 BEEF 5.000000E-01 100000    ab|cd   |%"])
