"""forms/*.ptx: one kernel for each form of an instruction, made from the tables below, on the same awkward operands.

A row is (instruction, result type, operand types, f): the kernel loads an element of each operand, runs the one
instruction and stores its result; `f` says what that should be, on Python's integers and floats. Operands in the
table's `{}` are filled in order: 0 is the result. What `f` returns is exact unless the row gives a tolerance.

forms/*.json: {"elements": n, "inputs": {name: bytes in hex}, "forms": [{"kernel", "out": type, "in": [names], "expect": bytes in
hex, "rtol", "atol"}]}. A kernel's parameters are the result, the operands in order, and u32 n; one block of 192 threads.
"""
import json
import math

import exact
import numpy as np
from exact import FORMATS
from make import case

N = 96
STORE = {"f16": "b16", "bf16": "b16", "f16x2": "b32", "bf16x2": "b32", "tf32": "b32", "e4m3x2": "b16", "e5m2x2": "b16"}
BYTES = {"8": 1, "16": 2, "32": 4, "64": 8, "x2": 4}


def width(t):
    return {"pred": 4, "bf16": 2, "tf32": 4, "f16x2": 4, "bf16x2": 4, "e4m3x2": 2, "e5m2x2": 2}.get(t) or int(t[1:]) // 8


def decode(raw, t):
    """Bits to a value: an integer, a float, or for packed types a pair of floats."""
    if t.endswith("x2"):
        return decode(raw & 0xFFFF, t[:-2]), decode(raw >> 16, t[:-2])
    if t == "f16":
        return float(np.array(raw, "u2").view("f2"))
    if t == "bf16":
        return float(np.array(raw << 16, "u4").view("f4"))
    if t in ("f32", "tf32"):
        return float(np.array(raw, "u4").view("f4"))
    if t == "f64":
        return float(np.array(raw, "u8").view("f8"))
    n = 8 * width(t)
    return raw - (1 << n) if t[0] == "s" and raw >> n - 1 else raw


def encode(v, t):
    """A value to bits. NaN gives the canonical one."""
    if t.endswith("x2"):
        return encode(v[0], t[:-2]) | encode(v[1], t[:-2]) << 16
    if t == "tf32":
        return int(np.float32(v).view("u4"))
    if t in FORMATS:
        return exact.bits(v, t)
    return int(v) & ((1 << 8 * width(t)) - 1)


def awkward(t):
    """Bits of values that go wrong first."""
    if t in ("f16", "bf16", "f32", "f64"):
        p, low, high = FORMATS[t]
        two = lambda e: math.ldexp(1.0, e)
        least, normal, most = two(low - p + 1), two(low), (2 - two(1 - p)) * two(high)
        v = [0.0, 1.0, 1.5, 2.5, 0.5, 3.0, 1 + two(1 - p), 1 - two(-p), least, 3 * least, normal - least, normal, most, two(high), two(p - 1) + 0.5 if p < 50 else 7.25, 1 / 3, 100.0]
        v = [exact.cast(x, t) for x in v]
        return [encode(s * x, t) for x in v for s in (1, -1)] + [encode(math.inf, t), encode(-math.inf, t), encode(math.nan, t)]
    n = 8 * width(t)
    v = [0, 1, 2, 3, 5, 7, 31, 32, 63, 64, 127, 128, 255, 1 << n - 1, (1 << n - 1) - 1, (1 << n) - 1, (1 << n) - 2, (1 << n - 1) + 1, 0xAAAAAAAAAAAAAAAA, 0x5555555555555555, 1 << n // 2]
    return [x & ((1 << n) - 1) for x in v]


class Pool:
    """Operands: (type, place in the instruction) to N bit patterns, awkward against awkward first, then at random."""

    def __init__(self, rng):
        self.rng, self.known = rng, {}

    def get(self, t, place):
        if (t, place) in self.known:
            return self.known[t, place]
        kind, _, special = t.partition(":")
        if special:  # `u32:40` is 0 … 39
            v = [int(k) for k in self.rng.integers(0, int(special), N)]
        elif kind.endswith("x2"):
            half = [self.half(kind[:-2], place), self.half(kind[:-2], place + 1)]
            v = [a | b << 16 for a, b in zip(*half)]
        elif kind == "pred":
            v = [int(k) for k in self.rng.integers(0, 2, N)]
        else:
            v = self.half(kind, place)
        self.known[t, place] = v
        return v

    def half(self, t, place):
        a = awkward(t)
        n = 8 * width(t)
        picks = [a[(k * (1, 7, 5)[place % 3] + k // len(a) * (place + 1)) % len(a)] for k in range(N * 2 // 3)]
        while len(picks) < N:
            if t in FORMATS:
                e = int(self.rng.integers(-8, 9))
                picks.append(encode(exact.cast(float((self.rng.random() * 2 - 1) * 2.0**e), t), t))
            else:
                picks.append(int(self.rng.integers(0, 1 << 32)) << 32 >> int(self.rng.integers(0, 33)) & ((1 << n) - 1) if n == 64 else
                             int(self.rng.integers(0, 1 << n)) >> int(self.rng.integers(0, n)))
        return picks


def register(t):
    """Type of the register that holds a value of type t."""
    kind = t.partition(":")[0]
    return {"u8": "u16", "s8": "s16", "b8": "b16", "pred": "pred"}.get(kind) or STORE.get(kind, kind)


def kernel(name, op, out, ins):
    """The text of one kernel."""
    params = ", ".join(f".param .u64 {p}" for p in ["y", *"abc"[:len(ins)]])
    lines = [f".visible .entry {name}({params}, .param .u32 n)", "{", "    .reg .u32 %i, %n;", "    .reg .pred %past;", "    .reg .u64 %at, %to;"]
    names = ["%y", *("%" + p for p in "abc"[:len(ins)])]
    for v, t in zip(names, [out, *ins]):
        lines.append(f"    .reg .{register(t)} {v};")
        if t == "pred":
            lines.append(f"    .reg .u32 {v}_word;")
    lines += ["    mov.u32 %i, %tid.x;", "    ld.param.u32 %n, [n];", "    setp.ge.u32 %past, %i, %n;", "    @%past ret;",
              "    ld.param.u64 %to, [y];", f"    mad.wide.u32 %to, %i, {width(out)}, %to;"]
    if "%cell" in op:
        lines[2:2] = ["    .shared .align 8 .b8 cells[1536];", "    .reg .u32 %cell;"]
        lines += ["    mov.u32 %cell, cells;", "    mad.lo.u32 %cell, %i, 8, %cell;"]
    if "%generic" in op:
        lines[2:2] = ["    .reg .u64 %generic;"]
        lines += ["    cvt.u64.u32 %generic, %cell;", "    cvta.shared.u64 %generic, %generic;"] if "%cell" in op else ["    mov.u64 %generic, %to;"]
    for v, t in zip(names[1:], ins):
        kind = t.partition(":")[0]
        lines += [f"    ld.param.u64 %at, [{v[1:]}];", f"    mad.wide.u32 %at, %i, {width(kind)}, %at;"]
        if t == "pred":
            lines += [f"    ld.global.u32 {v}_word, [%at];", f"    setp.ne.u32 {v}, {v}_word, 0;"]
        else:
            lines.append(f"    ld.global.{STORE.get(kind, kind)} {v}, [%at];")
    text = op.format(*names) if "{" in op else op + " " + ", ".join(names)
    lines.append(f"    {text};")
    if out == "pred":
        lines.append("    selp.u32 %y_word, 1, 0, %y;")
    lines += [f"    st.global.{'u32' if out == 'pred' else STORE.get(out, out)} [%to], {'%y_word' if out == 'pred' else '%y'};", "    ret;", "}"]
    return "\n".join(lines) + "\n"


def hexadecimal(raw, t):
    """Elements as they lie in memory."""
    return np.array(raw, f"u{width(t.partition(':')[0])}").tobytes().hex()


def family(name, rows, target="sm_80", version="7.8"):
    """Makes forms/`name`.ptx and its case."""
    def fill(c):
        pool, used, forms = Pool(c.rng), {}, []
        text = [f"// One kernel a form of an instruction, made by make.py (expect/forms.py): {name}.\n.version {version}\n.target {target}\n.address_size 64\n"]
        for k, (op, out, ins, f, *tolerance) in enumerate(rows):
            entry = f"{op.split()[0].replace('.', '_').replace('::', '_')}_{k}"
            text.append(kernel(entry, op, out, ins))
            raw = [pool.get(t, p) for p, t in enumerate(ins)]
            y = [encode(f(*(decode(v, t.partition(":")[0]) for v, t in zip(values, ins))), out) for values in zip(*raw)]
            names = [f"{t}.{p}" for p, t in enumerate(ins)]
            used.update((n, hexadecimal(v, t)) for n, v, t in zip(names, raw, ins))
            form = {"kernel": entry, "out": out, "in": names, "expect": hexadecimal(y, out)}
            forms.append(form | ({"rtol": tolerance[0], "atol": (*tolerance, 0)[1]} if tolerance else {}))
        c.made = "\n".join(text)
        rows_ = lambda items: ",\n".join("    " + json.dumps(v) for v in items)
        inputs = ",\n".join(f'    "{n}": "{v}"' for n, v in sorted(used.items()))
        c.forms = f'{{\n  "elements": {N},\n  "inputs": {{\n{inputs}\n  }},\n  "forms": [\n{rows_(forms)}\n  ]\n}}\n'
    case("forms", name)(fill)


# ---- Integers ----------------------------------------------------------------------------------------------------

def mask(t):
    return (1 << 8 * width(t)) - 1


def clamp(v, t):
    n = 8 * width(t)
    low, high = (-(1 << n - 1), (1 << n - 1) - 1) if t[0] == "s" else (0, (1 << n) - 1)
    return min(max(v, low), high)


def quotient(a, b):
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


def double(t):
    return t[0] + str(16 * width(t))


def integer_rows():
    for t in ("u16", "s16", "u32", "s32", "u64", "s64"):
        n = 8 * width(t)
        yield f"add.{t}", t, [t, t], lambda a, b: a + b
        yield f"sub.{t}", t, [t, t], lambda a, b: a - b
        yield f"mul.lo.{t}", t, [t, t], lambda a, b: a * b
        yield f"mul.hi.{t}", t, [t, t], lambda a, b, n=n: a * b >> n
        yield f"mad.lo.{t}", t, [t, t, t], lambda a, b, c: a * b + c
        yield f"mad.hi.{t}", t, [t, t, t], lambda a, b, c, n=n: (a * b >> n) + c
        if n < 64:
            yield f"mul.wide.{t}", double(t), [t, t], lambda a, b: a * b
            yield f"mad.wide.{t}", double(t), [t, t, double(t)], lambda a, b, c: a * b + c
        # What dividing by zero gives is not said: the divisor is made odd.
        yield f"or.b{n} {{2}}, {{2}}, 1;\n    div.{t} {{0}}, {{1}}, {{2}}", t, [t, t], lambda a, b: quotient(a, b | 1)
        yield f"or.b{n} {{2}}, {{2}}, 1;\n    rem.{t} {{0}}, {{1}}, {{2}}", t, [t, t], lambda a, b: a - (b | 1) * quotient(a, b | 1)
        yield f"min.{t}", t, [t, t], min
        yield f"max.{t}", t, [t, t], max
        yield f"sad.{t}", t, [t, t, t], lambda a, b, c: abs(a - b) + c
        if t[0] == "s":
            yield f"abs.{t}", t, [t], abs
            yield f"neg.{t}", t, [t], lambda a: -a
    yield "add.sat.s32", "s32", ["s32", "s32"], lambda a, b: clamp(a + b, "s32")
    yield "sub.sat.s32", "s32", ["s32", "s32"], lambda a, b: clamp(a - b, "s32")
    yield "mad.hi.sat.s32", "s32", ["s32"] * 3, lambda a, b, c: clamp((a * b >> 32) + c, "s32")
    for t in ("u32", "s32"):
        low = (lambda v: (v & 0xFFFFFF) - (1 << 24) * (v >> 23 & 1)) if t == "s32" else lambda v: v & 0xFFFFFF
        yield f"mul24.lo.{t}", t, [t, t], lambda a, b, low=low: low(a) * low(b)
        yield f"mul24.hi.{t}", t, [t, t], lambda a, b, low=low: low(a) * low(b) >> 16
        yield f"mad24.lo.{t}", t, [t] * 3, lambda a, b, c, low=low: low(a) * low(b) + c
        yield f"mad24.hi.{t}", t, [t] * 3, lambda a, b, c, low=low: (low(a) * low(b) >> 16) + c
    yield "mad24.hi.sat.s32", "s32", ["s32"] * 3, lambda a, b, c: clamp(((((a & 0xFFFFFF) ^ 1 << 23) - (1 << 23)) * (((b & 0xFFFFFF) ^ 1 << 23) - (1 << 23)) >> 16) + c, "s32")
    pieces = lambda v, is_signed, n: [(v >> k & (1 << n) - 1) - ((1 << n) * (v >> k + n - 1 & 1) if is_signed else 0) for k in range(0, 32, n)]
    for ta in "us":
        for tb in "us":
            dot = lambda a, b, c, x=ta == "s", y=tb == "s": sum(p * q for p, q in zip(pieces(a, x, 8), pieces(b, y, 8))) + c
            out = "s32" if "s" in ta + tb else "u32"
            yield f"dp4a.{ta}32.{tb}32", out, [ta + "32", tb + "32", out], dot
            for at, half in ((0, "lo"), (2, "hi")):
                two = lambda a, b, c, x=ta == "s", y=tb == "s", at=at: sum(p * q for p, q in zip(pieces(a, x, 16), pieces(b, y, 8)[at:])) + c
                yield f"dp2a.{half}.{ta}32.{tb}32", out, [ta + "32", tb + "32", out], two


family("integer", list(integer_rows()))


def carry_rows():
    """Two instructions each: the flag goes from the first to the second."""
    for n in (32, 64):
        t, m = f"u{n}", (1 << n) - 1
        yield f"add.cc.{t} {{0}}, {{1}}, {{2}};\n    addc.{t} {{0}}, {{3}}, 0", t, [t] * 3, lambda a, b, c, m=m: c + (a + b > m)
        yield f"sub.cc.{t} {{0}}, {{1}}, {{2}};\n    subc.{t} {{0}}, {{3}}, 0", t, [t] * 3, lambda a, b, c: c - (a < b)
        yield f"add.cc.{t} {{0}}, {{1}}, {{2}};\n    addc.cc.{t} {{0}}, {{0}}, {{3}};\n    addc.{t} {{0}}, 0, 0", t, [t] * 3, \
            lambda a, b, c, m=m: ((a + b & m) + c + (a + b > m)) > m
        yield f"mad.lo.cc.{t} {{0}}, {{1}}, {{2}}, {{3}};\n    addc.{t} {{0}}, {{0}}, 0", t, [t] * 3, lambda a, b, c, m=m: (a * b + c & m) + ((a * b & m) + c > m)
        yield f"mad.hi.cc.{t} {{0}}, {{1}}, {{2}}, {{3}};\n    addc.{t} {{0}}, {{0}}, 0", t, [t] * 3, \
            lambda a, b, c, m=m, n=n: ((a * b >> n) + c & m) + ((a * b >> n) + c > m)
        yield f"add.cc.{t} {{0}}, {{1}}, {{3}};\n    madc.lo.{t} {{0}}, {{1}}, {{2}}, {{3}}", t, [t] * 3, lambda a, b, c, m=m: a * b + c + (a + c > m)
        yield f"add.cc.{t} {{0}}, {{1}}, {{3}};\n    madc.hi.{t} {{0}}, {{1}}, {{2}}, {{3}}", t, [t] * 3, lambda a, b, c, m=m, n=n: (a * b >> n) + c + (a + c > m)


family("carry", list(carry_rows()))


# ---- Bits --------------------------------------------------------------------------------------------------------

def field(v, n, at, length, is_signed):
    at, length = at & 255, length & 255
    top = min(at + length - 1, n - 1)
    sign = v >> top & 1 if is_signed and length else 0
    return sum((v >> at + k & 1 if k < length and at + k < n else sign) << k for k in range(n))


def insert(a, b, n, at, length):
    for k in range(length & 255):
        if (at & 255) + k < n:
            b = b & ~(1 << (at & 255) + k) | (a >> k & 1) << (at & 255) + k
    return b


def find(v, n, is_signed, from_top):
    if is_signed and v < 0:
        v = ~v
    k = v.bit_length() - 1
    return 0xFFFFFFFF if k < 0 else n - 1 - k if from_top else k


def nth_set(m, base, offset):
    """fns: the offset-th set bit from `base` on upwards, downwards when negative; 0 asks whether base itself is set."""
    if offset == 0:
        return base if m >> base & 1 else 0xFFFFFFFF
    k, step, left = base, 1 if offset > 0 else -1, abs(offset)
    while 0 <= k < 32:
        left -= m >> k & 1
        if left == 0:
            return k
        k += step
    return 0xFFFFFFFF


def permute(a, b, selectors):
    pool = (a | b << 32).to_bytes(8, "little")
    return sum((pool[s & 7] if s < 8 else 255 * (pool[s & 7] >> 7)) << 8 * k for k, s in enumerate(selectors))


PERMUTE = {"f4e": lambda c: [c + k for k in range(4)], "b4e": lambda c: [c - k & 7 for k in range(4)], "rc8": lambda c: [c] * 4,
           "ecl": lambda c: [max(c, k) for k in range(4)], "ecr": lambda c: [min(c, k) for k in range(4)], "rc16": lambda c: [c % 2 * 2, c % 2 * 2 + 1] * 2}


def bit_rows():
    for n in (16, 32, 64):
        t = f"b{n}"
        yield f"and.{t}", t, [t, t], lambda a, b: a & b
        yield f"or.{t}", t, [t, t], lambda a, b: a | b
        yield f"xor.{t}", t, [t, t], lambda a, b: a ^ b
        yield f"not.{t}", t, [t], lambda a: ~a
        yield f"cnot.{t}", t, [t], lambda a: a == 0
        yield f"shl.{t}", t, [t, "u32:80"], lambda a, b, n=n: a << b if b < n else 0
        for k in ("b", "u", "s"):
            yield f"shr.{k}{n}", f"{k}{n}", [f"{k}{n}", "u32:80"], lambda a, b: a >> b
    for op, f in (("and", lambda a, b: a & b), ("or", lambda a, b: a | b), ("xor", lambda a, b: a ^ b)):
        yield f"{op}.pred", "pred", ["pred", "pred"], f
    yield "not.pred", "pred", ["pred"], lambda a: 1 - a
    for n in (32, 64):
        t = f"b{n}"
        yield f"popc.{t}", "u32", [t], lambda a: bin(a).count("1")
        yield f"clz.{t}", "u32", [t], lambda a, n=n: n - a.bit_length()
        yield f"brev.{t}", t, [t], lambda a, n=n: int(f"{a:0{n}b}"[::-1], 2)
        yield f"bfi.{t} {{0}}, {{1}}, {{2}}, 7, 11", t, [t, t], lambda a, b, n=n: insert(a, b, n, 7, 11)
        yield f"bfi.{t} {{0}}, {{1}}, 0, {{2}}, {{3}}", t, [t, "u32:90", "u32:90"], lambda a, b, c, n=n: insert(a, 0, n, b, c)
        for k in "us":
            yield f"bfind.{k}{n}", "u32", [f"{k}{n}"], lambda a, n=n, k=k: find(a, n, k == "s", False)
            yield f"bfind.shiftamt.{k}{n}", "u32", [f"{k}{n}"], lambda a, n=n, k=k: find(a, n, k == "s", True)
            yield f"bfe.{k}{n}", f"{k}{n}", [f"{k}{n}", "u32:90", "u32:90"], lambda a, b, c, n=n, k=k: field(a, n, b, c, k == "s")
    for table in (0x00, 0x1A, 0x80, 0x96, 0xCA, 0xE8, 0xFF):
        yield f"lop3.b32 {{0}}, {{1}}, {{2}}, {{3}}, {table:#x}", "b32", ["b32"] * 3, \
            lambda a, b, c, table=table: sum((table >> ((a >> k & 1) << 2 | (b >> k & 1) << 1 | c >> k & 1) & 1) << k for k in range(32))
    for mode, count in (("clamp", lambda c: min(c, 32)), ("wrap", lambda c: c & 31)):
        yield f"shf.l.{mode}.b32", "b32", ["b32", "b32", "u32:80"], lambda a, b, c, count=count: (b << 32 | a) << count(c) >> 32 & 0xFFFFFFFF
        yield f"shf.r.{mode}.b32", "b32", ["b32", "b32", "u32:80"], lambda a, b, c, count=count: (b << 32 | a) >> count(c) & 0xFFFFFFFF
        short = (lambda b: min(b, 32)) if mode == "clamp" else lambda b: b & 31
        yield f"szext.{mode}.u32", "u32", ["u32", "u32:80"], lambda a, b, short=short: a & (1 << short(b)) - 1
        yield f"szext.{mode}.s32", "s32", ["s32", "u32:80"], lambda a, b, short=short: field(a & 0xFFFFFFFF, 32, 0, short(b), True)
        yield f"bmsk.{mode}.b32", "b32", ["u32:80", "u32:80"], lambda a, b, short=short, mode=mode: ((1 << short(b)) - 1) << (min(a, 32) if mode == "clamp" else a & 31)
    yield "prmt.b32", "b32", ["b32"] * 3, lambda a, b, c: permute(a, b, [c >> k & 15 for k in (0, 4, 8, 12)])
    for mode, selectors in PERMUTE.items():
        yield f"prmt.b32.{mode}", "b32", ["b32", "b32", "u32:4"], lambda a, b, c, selectors=selectors: permute(a, b, selectors(c & 3))
    yield "fns.b32", "b32", ["b32", "u32:32", "s32:12"], nth_set
    yield "neg.s32 {3}, {3};\n    fns.b32 {0}, {1}, {2}, {3}", "b32", ["b32", "u32:32", "s32:12"], lambda a, b, c: nth_set(a, b, -c)
    yield "mov.b64 {0}, {{{1}, {2}}}", "b64", ["b32", "b32"], lambda a, b: a | b << 32
    yield "mov.b32 {0}, {{{1}, {2}}}", "b32", ["b16", "b16"], lambda a, b: a | b << 16
    yield "mov.b64 {{_, {0}}}, {1}", "b32", ["b64"], lambda a: a >> 32


family("bits", list(bit_rows()))


# ---- Comparisons and choices -------------------------------------------------------------------------------------

COMPARE = {"eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b}


def ordered(f):
    return lambda a, b: not (a != a or b != b) and f(a, b)


def unordered(f):
    return lambda a, b: a != a or b != b or f(a, b)


def compare_rows():
    for t in ("b16", "b32", "b64"):
        for c in ("eq", "ne"):
            yield f"setp.{c}.{t}", "pred", [t, t], COMPARE[c]
    for t in ("u16", "s16", "u32", "s32", "u64", "s64"):
        for c, f in COMPARE.items():
            yield f"setp.{c}.{t}", "pred", [t, t], f
    for c, same in (("lo", "lt"), ("ls", "le"), ("hi", "gt"), ("hs", "ge")):
        yield f"setp.{c}.u32", "pred", ["u32", "u32"], COMPARE[same]
    for t in ("f16", "f32", "f64", "bf16"):
        for c, f in COMPARE.items():
            yield f"setp.{c}.{t}", "pred", [t, t], ordered(f)
            yield f"setp.{c}u.{t}", "pred", [t, t], unordered(f)
        yield f"setp.num.{t}", "pred", [t, t], lambda a, b: a == a and b == b
        yield f"setp.nan.{t}", "pred", [t, t], lambda a, b: a != a or b != b
    flush = lambda v: math.copysign(0.0, v) if abs(v) < 2.0**-126 else v
    yield "setp.eq.ftz.f32", "pred", ["f32", "f32"], lambda a, b: flush(a) == flush(b)
    yield "setp.gt.ftz.f32", "pred", ["f32", "f32"], lambda a, b: flush(a) > flush(b)
    for op, f in (("and", lambda p, q: p and q), ("or", lambda p, q: p or q), ("xor", lambda p, q: p != q)):
        yield f"setp.lt.{op}.s32", "pred", ["s32", "s32", "pred"], lambda a, b, c, f=f: f(a < b, bool(c))
        yield f"setp.ge.{op}.f32 %past|{{0}}, {{1}}, {{2}}, !{{3}}", "pred", ["f32", "f32", "pred"], lambda a, b, c, f=f: f(not a >= b, not c)
    yield "set.gt.u32.s32", "u32", ["s32", "s32"], lambda a, b: -(a > b)
    yield "set.ne.s32.f64", "s32", ["f64", "f64"], lambda a, b: -ordered(COMPARE["ne"])(a, b)
    yield "set.leu.f32.f32", "f32", ["f32", "f32"], lambda a, b: float(unordered(COMPARE["le"])(a, b))
    yield "set.eq.xor.u32.u64", "u32", ["u64", "u64", "pred"], lambda a, b, c: -((a == b) != bool(c))
    yield "set.lt.u32.f16", "u32", ["f16", "f16"], lambda a, b: -(a < b)
    yield "set.ge.f16x2.f16x2", "f16x2", ["f16x2", "f16x2"], lambda a, b: tuple(float(x >= y) for x, y in zip(a, b))
    for t in ("b16", "b32", "b64", "u16", "s32", "u64"):
        yield f"selp.{t}", t, [t, t, "pred"], lambda a, b, c: a if c else b
    for t in ("f32", "f64"):
        yield f"selp.{t}", t, [t, t, "pred"], lambda a, b, c: a if c else b
    for t in ("b32", "u64", "s16", "f32", "f64"):
        yield f"slct.{t}.s32", t, [t, t, "s32"], lambda a, b, c: a if c >= 0 else b
        yield f"slct.{t}.f32", t, [t, t, "f32"], lambda a, b, c: a if c >= 0 else b
    # Packed halves: two predicates at once.
    yield "setp.lt.f16x2 {0}|%past, {1}, {2}", "pred", ["f16x2", "f16x2"], lambda a, b: a[0] < b[0]
    yield "setp.neu.bf16x2 %past|{0}, {1}, {2}", "pred", ["bf16x2", "bf16x2"], lambda a, b: unordered(COMPARE["ne"])(a[1], b[1])


family("compare", list(compare_rows()), target="sm_90")


# ---- Floats ------------------------------------------------------------------------------------------------------

ROUNDINGS = {"rn": "n", "rz": "z", "rm": "d", "rp": "u"}


def flushed(v):
    return math.copysign(0.0, v) if abs(v) < 2.0**-126 else v


def ftz(f):
    """Subnormal operands and results of f32 become zeros of their sign."""
    return lambda *v: flushed(f(*map(flushed, v)))


def saturated(f):
    """Into 0 … 1: NaN and -0 become +0 (CUDA's __saturatef clamps to [+0.0, 1.0])."""
    return lambda *v: (lambda r: min(r, 1.0) if r > 0 else 0.0)(f(*v))


def pick(f, nan=False, xorsign=False):
    """min or max: -0 is below +0; the operand that is a number, or NaN when either is not one."""
    def g(*v):
        numbers = [x for x in v if x == x]
        if xorsign:
            sign = math.prod(math.copysign(1.0, x) for x in v)
            numbers = [abs(x) for x in numbers]
        if not numbers or (nan and len(numbers) < len(v)):
            return math.nan
        r = f(numbers, key=lambda x: (x, math.copysign(1, x)))
        return math.copysign(r, sign) if xorsign else r
    return g


def both(f):
    return lambda *v: (f(*(x[0] for x in v)), f(*(x[1] for x in v)))


def float_rows():
    binary = {"add": exact.add, "sub": lambda a, b, t, m: exact.add(a, -b, t, m), "mul": exact.mul}
    for t in ("f32", "f64"):
        for op, f in binary.items():
            yield f"{op}.{t}", t, [t, t], lambda a, b, f=f, t=t: f(a, b, t, "n")
            for r, m in ROUNDINGS.items():
                yield f"{op}.{r}.{t}", t, [t, t], lambda a, b, f=f, t=t, m=m: f(a, b, t, m)
        for r, m in ROUNDINGS.items():
            yield f"fma.{r}.{t}", t, [t] * 3, lambda a, b, c, t=t, m=m: exact.fma(a, b, c, t, m)
            yield f"mad.{r}.{t}", t, [t] * 3, lambda a, b, c, t=t, m=m: exact.fma(a, b, c, t, m)
            yield f"div.{r}.{t}", t, [t, t], lambda a, b, t=t, m=m: exact.div(a, b, t, m)
            yield f"rcp.{r}.{t}", t, [t], lambda a, t=t, m=m: exact.div(1.0, a, t, m)
            yield f"sqrt.{r}.{t}", t, [t], lambda a, t=t, m=m: exact.sqrt(a, t, m)
        yield f"neg.{t}", t, [t], lambda a: -a
        yield f"abs.{t}", t, [t], abs
        yield f"min.{t}", t, [t, t], pick(min)
        yield f"max.{t}", t, [t, t], pick(max)
        yield f"copysign.{t}", t, [t, t], lambda a, b: math.copysign(b, a)
        for kind, f in (("finite", math.isfinite), ("infinite", math.isinf), ("number", lambda a: a == a), ("notanumber", math.isnan),
                        ("normal", lambda a, t=t: math.isfinite(a) and (a == 0 or abs(a) >= 2.0 ** FORMATS[t][1])), ("subnormal", lambda a, t=t: 0 < abs(a) < 2.0 ** FORMATS[t][1])):
            yield f"testp.{kind}.{t}", "pred", [t], f
    one = lambda f: lambda a, b: f(a, b, "f32", "n")
    for op, f in binary.items():
        yield f"{op}.ftz.f32", "f32", ["f32", "f32"], ftz(one(f))
        yield f"{op}.sat.f32", "f32", ["f32", "f32"], saturated(one(f))
        yield f"{op}.rz.ftz.sat.f32", "f32", ["f32", "f32"], saturated(ftz(lambda a, b, f=f: f(a, b, "f32", "z")))
    yield "fma.rn.ftz.f32", "f32", ["f32"] * 3, ftz(exact.fma)
    yield "fma.rn.sat.f32", "f32", ["f32"] * 3, saturated(exact.fma)
    yield "fma.rp.ftz.sat.f32", "f32", ["f32"] * 3, saturated(ftz(lambda a, b, c: exact.fma(a, b, c, "f32", "u")))
    yield "div.rn.ftz.f32", "f32", ["f32", "f32"], ftz(exact.div)
    yield "rcp.rn.ftz.f32", "f32", ["f32"], ftz(lambda a: exact.div(1.0, a))
    yield "sqrt.rn.ftz.f32", "f32", ["f32"], ftz(exact.sqrt)
    yield "neg.ftz.f32", "f32", ["f32"], ftz(lambda a: -a)
    yield "abs.ftz.f32", "f32", ["f32"], ftz(abs)
    yield "min.ftz.f32", "f32", ["f32", "f32"], ftz(pick(min))
    yield "max.NaN.f32", "f32", ["f32", "f32"], pick(max, nan=True)
    yield "min.ftz.NaN.f32", "f32", ["f32", "f32"], ftz(pick(min, nan=True))
    yield "max.xorsign.abs.f32", "f32", ["f32", "f32"], pick(max, xorsign=True)
    yield "min.NaN.xorsign.abs.f32", "f32", ["f32", "f32"], pick(min, nan=True, xorsign=True)


family("float", list(float_rows()), target="sm_86")


def half_rows():
    """f16 and bf16, one and two at a time."""
    relu = lambda f: lambda *v: (lambda r: math.nan if r != r else r if r > 0 else 0.0)(f(*v))
    for t in ("f16", "bf16"):
        add = lambda a, b, t=t: exact.add(a, b, t)
        mul = lambda a, b, t=t: exact.mul(a, b, t)
        fma = lambda a, b, c, t=t: exact.fma(a, b, c, t)
        rows = [(f"add.{t}", 2, add), (f"sub.{t}", 2, lambda a, b, t=t: exact.add(a, -b, t)), (f"mul.{t}", 2, mul), (f"fma.rn.{t}", 3, fma),
                (f"fma.rn.relu.{t}", 3, relu(fma)), (f"neg.{t}", 1, lambda a: -a), (f"abs.{t}", 1, abs), (f"min.{t}", 2, pick(min)), (f"max.{t}", 2, pick(max)),
                (f"min.NaN.{t}", 2, pick(min, nan=True)), (f"max.NaN.xorsign.abs.{t}", 2, pick(max, nan=True, xorsign=True))]
        if t == "f16":
            small = lambda f: lambda *v: (lambda r: math.copysign(0.0, r) if abs(r) < 2.0**-14 else r)(f(*(math.copysign(0.0, x) if abs(x) < 2.0**-14 else x for x in v)))
            rows += [("add.rn.sat.f16", 2, saturated(add)), ("mul.ftz.f16", 2, small(mul)), ("fma.rn.ftz.f16", 3, small(fma)), ("fma.rn.sat.f16", 3, saturated(fma)),
                     ("add.rn.ftz.sat.f16", 2, saturated(small(add)))]
        for op, n, f in rows:
            yield op, t, [t] * n, f
            yield op + "x2", t + "x2", [t + "x2"] * n, both(f)


family("half", list(half_rows()), target="sm_90")


def near_rows():
    """Approximate functions, within what the ISA says of them. Large and tiny operands are in `float` and in math.cu."""
    r = lambda f: lambda *v: (lambda y: y if not math.isfinite(y) else exact.cast(y, "f32"))(f(*v))

    def over(a):
        return math.copysign(math.inf, a) if a == 0 else 1 / a

    def log2(a):
        return -math.inf if a == 0 else math.nan if a < 0 or a != a else math.log2(a) if a < math.inf else a

    def root(a):
        return math.nan if a < 0 or a != a else math.sqrt(a)
    u = 2.0**-23
    yield "rcp.approx.ftz.f32", "f32", ["f32"], ftz(r(over)), 2 * u
    yield "rcp.approx.f32", "f32", ["f32"], r(over), 2 * u
    yield "sqrt.approx.f32", "f32", ["f32"], lambda a: a if a == 0 else r(root)(a), 2 * u
    yield "sqrt.approx.ftz.f32", "f32", ["f32"], ftz(lambda a: a if a == 0 else r(root)(a)), 2 * u
    yield "rsqrt.approx.f32", "f32", ["f32"], r(lambda a: math.copysign(math.inf, a) if a == 0 else over(root(a))), 2 * u
    yield "rsqrt.approx.ftz.f32", "f32", ["f32"], ftz(r(lambda a: math.copysign(math.inf, a) if a == 0 else over(root(a)))), 2 * u
    yield "rsqrt.approx.f64", "f64", ["f64"], lambda a: math.copysign(math.inf, a) if a == 0 else over(root(a)), 1e-6
    flushed64 = lambda v: math.copysign(0.0, v) if abs(v) < 2.0**-1022 else v
    yield "rcp.approx.ftz.f64", "f64", ["f64"], lambda a: flushed64(over(flushed64(a))), 1e-5
    yield "lg2.approx.f32", "f32", ["f32"], r(log2), 2 * u, 4e-7
    yield "lg2.approx.ftz.f32", "f32", ["f32"], ftz(r(log2)), 2 * u, 4e-7
    exp2 = lambda a: math.nan if a != a else (math.inf if a >= 128 else 0.0 if a < -150 else 2.0**a)
    yield "ex2.approx.f32", "f32", ["f32"], r(exp2), 4 * u, 2e-45
    yield "ex2.approx.ftz.f32", "f32", ["f32"], ftz(r(exp2)), 4 * u
    turn = lambda f: lambda a: math.nan if not math.isfinite(a) else f(a) if abs(a) < 6.3 else f(0.25)
    # Out of [-2 pi, 2 pi] the error is not bounded: those operands are replaced by 0.25 first.
    near = "abs.f32 {0}, {1};\n    setp.lt.f32 %past, {0}, 0f40C9999A;\n    @!%past mov.f32 {1}, 0f3E800000;\n    OP.approx.f32 {0}, {1}"
    inside = lambda f: lambda a: exact.cast(f(a), "f32") if abs(a) < 6.3 else exact.cast(f(0.25), "f32")
    yield near.replace("OP", "sin"), "f32", ["f32"], inside(math.sin), 0, 1e-6
    yield near.replace("OP", "cos"), "f32", ["f32"], inside(math.cos), 0, 1e-6
    yield "tanh.approx.f32", "f32", ["f32"], r(math.tanh), 2.0**-10.9
    yield "tanh.approx.f16", "f16", ["f16"], lambda a: exact.cast(math.tanh(a), "f16"), 2e-3
    yield "tanh.approx.bf16x2 {0}, {1};\n    fma.rn.bf16x2 {0}, {0}, {2}, {2}", "bf16x2", ["bf16x2", "u32:1"], lambda a, b: (0.0, 0.0)
    yield "ex2.approx.f16", "f16", ["f16"], lambda a: exact.cast(exp2(a), "f16"), 2e-3, 1e-7
    yield "ex2.approx.f16x2", "f16x2", ["f16x2"], both(lambda a: exact.cast(exp2(a), "f16")), 2e-3, 1e-7
    quotient_ = lambda a, b: exact.div(a, b) if not 0 < abs(b) < 2.0**-126 and abs(b) <= 2.0**126 or not math.isfinite(b) else 0.0
    yield "div.full.f32", "f32", ["f32", "f32"], lambda a, b: exact.div(a, b), 4 * u
    yield "div.approx.f32", "f32", ["f32", "f32"], lambda a, b: exact.div(a, b), 4 * u


def safe_near_rows():
    """Without what the ISA leaves open: division by numbers whose reciprocal is subnormal, products of NaN."""
    for row in near_rows():
        if row[0].startswith("div"):
            op = row[0].replace(".f32", ".f32 {0}, {1}, {2}")
            big = "abs.f32 {0}, {2};\n    setp.ge.f32 %past, {0}, 0f7E800000;\n    @%past mov.f32 {2}, 0f3F800000;\n    setp.lt.f32 %past, {0}, 0f00800000;\n    @%past mov.f32 {2}, 0f3F800000;\n    "
            clean = lambda b: 1.0 if abs(b) >= 2.0**126 or abs(b) < 2.0**-126 else b
            yield big + op, row[1], row[2], lambda a, b, f=row[3], clean=clean: f(a, clean(b)), *row[4:]
        elif "bf16x2" not in row[0]:
            yield row


family("near", list(safe_near_rows()))


# ---- Conversions -------------------------------------------------------------------------------------------------

INTEGERS = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
FLOATS = ("f16", "f32", "f64")


def cvt_rows():
    for a in INTEGERS:
        for b in INTEGERS:
            if a != b and width(b) >= 2:
                yield f"cvt.{b}.{a}", b, [a], lambda v: v
            outside = width(b) < width(a) or (a[0] == "s" and b[0] == "u") or (width(a) == width(b) and a != b)
            if outside and width(b) >= 2:
                yield f"cvt.sat.{b}.{a}", b, [a], lambda v, b=b: clamp(v, b)
        for b in FLOATS:
            for r, m in ROUNDINGS.items():
                if r in ("rn", "rz") or a in ("s32", "u64"):
                    yield f"cvt.{r}.{b}.{a}", b, [a], lambda v, b=b, m=m: exact.rounded(exact.Fraction(v), b, m)
    for a in FLOATS:
        for b in INTEGERS:
            for r, m in (("rni", "n"), ("rzi", "z"), ("rmi", "d"), ("rpi", "u")):
                if width(b) >= 2 and (r in ("rni", "rzi") or b in ("s32", "u64", "u16")):
                    yield f"cvt.{r}.{b}.{a}", b, [a], lambda v, b=b, m=m, a=a: exact.to_integer(v, m, 8 * width(b), b[0] == "s", a == "f64" or width(b) == 8)
        for r, m in (("rni", "n"), ("rzi", "z"), ("rmi", "d"), ("rpi", "u")):
            whole = {"n": round, "z": math.trunc, "d": math.floor, "u": math.ceil}[m]
            yield f"cvt.{r}.{a}.{a}", a, [a], lambda v, whole=whole: math.copysign(float(abs(whole(v))), v) if math.isfinite(v) else v
        yield f"cvt.sat.{a}.{a}", a, [a], saturated(lambda v: v)
        for b in FLOATS:
            if width(b) < width(a):
                for r, m in ROUNDINGS.items():
                    yield f"cvt.{r}.{b}.{a}", b, [a], lambda v, b=b, m=m: exact.cast(v, b, m)
                yield f"cvt.rn.sat.{b}.{a}", b, [a], saturated(lambda v, b=b: exact.cast(v, b))
            elif width(b) > width(a):
                yield f"cvt.{b}.{a}", b, [a], lambda v: v
    yield "cvt.ftz.f32.f32", "f32", ["f32"], flushed
    yield "cvt.rni.ftz.s32.f32", "s32", ["f32"], lambda v: exact.to_integer(v, "n", 32, True)
    yield "cvt.rpi.ftz.s32.f32", "s32", ["f32"], lambda v: exact.to_integer(flushed(v), "u", 32, True)
    yield "cvt.rn.ftz.f16.f32", "f16", ["f32"], lambda v: exact.cast(flushed(v), "f16")
    yield "cvt.rn.ftz.f32.f64", "f32", ["f64"], lambda v: flushed(exact.cast(v, "f32"))
    yield "cvt.f32.bf16", "f32", ["bf16"], lambda v: v
    yield "cvt.rn.bf16.f32", "bf16", ["f32"], lambda v: exact.cast(v, "bf16")
    yield "cvt.rz.bf16.f32", "bf16", ["f32"], lambda v: exact.cast(v, "bf16", "z")
    yield "cvt.rn.relu.bf16.f32", "bf16", ["f32"], lambda v: exact.cast(0.0 if v <= 0 else v, "bf16")
    yield "cvt.rn.relu.f16.f32", "f16", ["f32"], lambda v: exact.cast(0.0 if v <= 0 else v, "f16")
    yield "cvt.rna.tf32.f32", "tf32", ["f32"], lambda v: exact.cast(v, "tf32", "a")
    for t in ("f16", "bf16"):
        for r, m in (("rn", "n"), ("rz", "z")):
            yield f"cvt.{r}.{t}x2.f32", t + "x2", ["f32", "f32"], lambda a, b, t=t, m=m: (exact.cast(b, t, m), exact.cast(a, t, m))
            yield f"cvt.{r}.relu.{t}x2.f32", t + "x2", ["f32", "f32"], lambda a, b, t=t, m=m: tuple(exact.cast(0.0 if v <= 0 else v, t, m) for v in (b, a))


family("cvt", list(cvt_rows()), target="sm_90")


# ---- Memory ------------------------------------------------------------------------------------------------------

def wrapped(f, t):
    """`f` on integers of type t, wrapped to its width."""
    return lambda *v: decode(encode(f(*v), t), t)


def atomic_rows():
    ops = []
    for t in ("u32", "s32", "u64"):
        ops.append(("add", t, wrapped(lambda a, b: a + b, t)))
    for t in ("u32", "s32", "u64", "s64"):
        ops += [("min", t, min), ("max", t, max)]
    for t in ("b32", "b64"):
        ops += [("and", t, lambda a, b: a & b), ("or", t, lambda a, b: a | b), ("xor", t, lambda a, b: a ^ b), ("exch", t, lambda a, b: b)]
    ops += [("inc", "u32", lambda a, b: 0 if a >= b else a + 1), ("dec", "u32", lambda a, b: b if a == 0 or a > b else a - 1)]
    for t in ("f32", "f64"):
        ops.append(("add", t, lambda a, b, t=t: exact.add(a, b, t)))
    ops += [("add.noftz", "f16", lambda a, b: exact.add(a, b, "f16")), ("add.noftz", "f16x2", both(lambda a, b: exact.add(a, b, "f16"))),
            ("add.noftz", "bf16", lambda a, b: exact.add(a, b, "bf16")), ("add.noftz", "bf16x2", both(lambda a, b: exact.add(a, b, "bf16")))]
    for op, t, exactly in ops:
        f = ftz(exactly) if t == "f32" else exactly  # on global memory f32 subnormals are flushed, on shared memory they are kept
        word = STORE.get(t, t)
        start = f"st.global.{word} [%to], {{1}};\n    "
        end = f";\n    ld.global.{word} {{0}}, [%to]"
        yield f"{start}atom.global.{op}.{t} {{0}}, [%to], {{2}}{end}", t, [t, t], f
        yield f"{start}atom.global.{op}.{t} {{0}}, [%to], {{2}}", t, [t, t], lambda a, b: a
        if "bf16" not in t:
            cell = f"st.shared.{word} [%cell], {{1}};\n    atom.shared.{op}.{t} {{0}}, [%cell], {{2}};\n    ld.shared.{word} {{0}}, [%cell]"
            yield cell, t, [t, t], exactly
            if op != "exch":
                yield f"st.shared.{word} [%cell], {{1}};\n    red.{op}.{t} [%generic], {{2}};\n    ld.shared.{word} {{0}}, [%cell]", t, [t, t], exactly
        if op != "exch":
            yield f"{start}red.relaxed.gpu.global.{op}.{t} [%to], {{2}}{end}", t, [t, t], f
        yield f"{start}atom.acq_rel.sys.{op}.{t} {{0}}, [%generic], {{2}}{end}", t, [t, t], f
    for t in ("b16", "b32", "b64"):
        n = t[1:]
        # Half of the operands are made equal, so that half of the swaps happen.
        equal = f"setp.lt.u{n} %past, {{1}}, {{3}};\n    selp.b{n} {{2}}, {{1}}, {{2}}, %past;\n    st.global.{t} [%to], {{1}};\n    "
        swap = lambda a, b, c: c if a == (a if a < c else b) else a
        yield f"{equal}atom.global.cas.{t} {{0}}, [%to], {{2}}, {{3}};\n    ld.global.{t} {{0}}, [%to]", t, [t] * 3, swap
        yield f"{equal}atom.acquire.cta.global.cas.{t} {{0}}, [%to], {{2}}, {{3}}", t, [t] * 3, lambda a, b, c: a
        yield f"{equal}st.shared.{t} [%cell], {{1}};\n    atom.shared.cas.{t} {{0}}, [%cell], {{2}}, {{3}};\n    ld.shared.{t} {{0}}, [%cell]", t, [t] * 3, swap


family("atomic", list(atomic_rows()), target="sm_90")


def memory_rows():
    """Loads that widen, stores that narrow, in each space and with each hint; registers wider than the element."""
    for t in INTEGERS:
        for r in ("16", "32", "64"):
            if int(r) >= 8 * width(t) and t not in ("u16", "s16") or int(r) > 16:
                if int(r) >= 8 * width(t):
                    out = t[0] + r
                    yield f"st.global.{t} [%to], {{1}};\n    ld.global.{t} {{0}}, [%to]" if width(out) >= width(t) else "", out, [t], lambda v: v
    for t in ("u8", "s16", "b32", "f32", "u64", "f64"):
        for way in ("volatile.global", "relaxed.gpu.global", "global.cg", "global.cs", "global.wt", "global"):
            load = {"global.wt": "global.cv", "global": "global.nc"}.get(way, way)
            if load == "global.nc" and t != "u8":
                continue
            load = "global" if load == "global.nc" else load
            yield f"st.{way}.{t} [%to], {{1}};\n    ld.{load}.{t} {{0}}, [%to]", {"u8": "u16"}.get(t, t), [t], lambda v: v
        yield f"st.shared.{t} [%cell], {{1}};\n    ld.volatile.shared.{t} {{0}}, [%cell]", {"u8": "u16"}.get(t, t), [t], lambda v: v
        yield f"st.{t} [%generic], {{1}};\n    ld.shared.{t} {{0}}, [%cell]", {"u8": "u16"}.get(t, t), [t], lambda v: v
    # A store of the low part of a wider register.
    yield "st.global.u32 [%to], 0;\n    st.global.u8 [%to], {1};\n    ld.global.u32 {0}, [%to]", "u32", ["u32"], lambda v: v & 0xFF
    yield "st.global.u32 [%to], 0;\n    st.global.s16 [%to+2], {1};\n    ld.global.u32 {0}, [%to]", "u32", ["u64"], lambda v: (v & 0xFFFF) << 16
    yield "st.global.v2.u16 [%to], {{{1}, {2}}};\n    ld.global.u32 {0}, [%to]", "u32", ["u16", "u16"], lambda a, b: a | b << 16
    yield "st.shared.v2.b32 [%cell], {{{1}, {2}}};\n    ld.shared.b64 {0}, [%cell]", "b64", ["b32", "b32"], lambda a, b: a | b << 32
    yield "st.global.v4.u8 [%to], {{{1}, {2}, {1}, {2}}};\n    ld.global.u32 {0}, [%to]", "u32", ["u16", "u16"], lambda a, b: (a & 255) * 0x10001 | (b & 255) * 0x1000100


family("memory", [row for row in memory_rows() if row[0]])
