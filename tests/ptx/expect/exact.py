"""Floating point from rational arithmetic: every format, every rounding, no help from the machine's own."""
import math
from fractions import Fraction

import numpy as np

# precision, smallest and largest exponent
FORMATS = {"f16": (11, -14, 15), "bf16": (8, -126, 127), "tf32": (11, -126, 127), "f32": (24, -126, 127), "f64": (53, -1022, 1023)}


def rounded(x, form, mode="n", negative_zero=False):
    """The rational `x` in a format: mode n(earest, ties to even), a(way at ties), z(ero), u(p), d(own)."""
    p, low, high = FORMATS[form]
    if x == 0:
        return -0.0 if negative_zero else 0.0
    sign, a = (-1 if x < 0 else 1), abs(Fraction(x))
    e = max(exponent(a), low)
    ulp = Fraction(2) ** (e - p + 1)
    q, rest = divmod(a, ulp)
    up = {"n": rest * 2 > ulp or (rest * 2 == ulp and q % 2 == 1), "a": rest * 2 >= ulp, "z": False,
          "u": rest > 0 and sign > 0, "d": rest > 0 and sign < 0}[mode]
    v = (q + up) * ulp
    most = (2 - Fraction(2) ** (1 - p)) * Fraction(2) ** high
    if v > most:
        to_inf = mode in "na" or (mode == "u" and sign > 0) or (mode == "d" and sign < 0)
        return sign * (math.inf if to_inf else float(most))
    return math.copysign(float(v), sign)


def exponent(a):
    """floor(log2(a)) of a positive rational."""
    e = a.numerator.bit_length() - a.denominator.bit_length()
    return e if Fraction(2) ** e <= a else e - 1


def root(x, form, mode="n"):
    """Square root of a rational >= 0: a digit string longer than any format, with a sticky bit."""
    if x == 0:
        return 0.0
    x = Fraction(x)
    k = 80 + max(0, x.denominator.bit_length())
    n = x.numerator * 4 ** k // x.denominator
    r = math.isqrt(n)
    exact = r * r == n and Fraction(n, 4 ** k) == x
    return rounded(Fraction(r, 2 ** k) + (0 if exact else Fraction(1, 2 ** (k + 2))), form, mode)


def finite(*v):
    return all(math.isfinite(x) for x in v)


def add(a, b, form="f32", mode="n"):
    a, b = float(a), float(b)
    if not finite(a, b):
        return a + b
    s = Fraction(a) + Fraction(b)
    if s == 0:
        both = math.copysign(1, a) < 0 and math.copysign(1, b) < 0
        differ = math.copysign(1, a) != math.copysign(1, b) or a != 0
        return -0.0 if both and a == 0 else (-0.0 if differ and mode == "d" else 0.0)
    return rounded(s, form, mode)


def mul(a, b, form="f32", mode="n"):
    a, b = float(a), float(b)
    if not finite(a, b):
        return a * b
    v = rounded(Fraction(a) * Fraction(b), form, mode)
    return math.copysign(v, math.copysign(1, a) * math.copysign(1, b))


def fma(a, b, c, form="f32", mode="n"):
    a, b, c = float(a), float(b), float(c)
    if not finite(a, b, c):
        return c if finite(a, b) else a * b + c
    p = Fraction(a) * Fraction(b)
    s = p + Fraction(c)
    if s == 0:
        sign = math.copysign(1, a) * math.copysign(1, b)
        if p == 0 and c == 0 and sign == math.copysign(1, c):
            return math.copysign(0.0, sign)
        return -0.0 if mode == "d" else 0.0
    return rounded(s, form, mode)


def div(a, b, form="f32", mode="n"):
    a, b = float(a), float(b)
    sign = math.copysign(1, a) * math.copysign(1, b)
    if math.isnan(a) or math.isnan(b) or (a == 0 and b == 0) or (math.isinf(a) and math.isinf(b)):
        return math.nan
    if math.isinf(a) or b == 0:
        return sign * math.inf
    if math.isinf(b) or a == 0:
        return math.copysign(0.0, sign)
    return rounded(Fraction(a) / Fraction(b), form, mode)


def sqrt(a, form="f32", mode="n"):
    a = float(a)
    if a == 0 or math.isnan(a) or a == math.inf:
        return a
    return math.nan if a < 0 else root(Fraction(a), form, mode)


def to_integer(v, mode, bits, signed, wide_nan=False):
    """cvt from float: rounds, then clamps; NaN gives 0, or the sign bit where one side has 64 bits."""
    v = float(v)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if math.isnan(v):
        return (low if signed else 1 << bits - 1) if wide_nan else 0
    if math.isinf(v):
        return high if v > 0 else low
    f = {"n": lambda x: round(x), "z": math.trunc, "u": math.ceil, "d": math.floor}[mode]
    return min(max(f(Fraction(v)), low), high)


def cast(v, form, mode="n"):
    """A float in a narrower format."""
    v = float(v)
    return v if not finite(v) or v == 0 else rounded(Fraction(v), form, mode)


def bits(v, form):
    """The bits of a value that the format can hold, as an integer; NaN is the canonical one of cvt."""
    v = float(v)
    if form == "f32":
        return 0x7FFFFFFF if math.isnan(v) else int(np.float32(v).view(np.uint32))
    if form == "f64":
        return int(np.float64(v).view(np.uint64))
    if form == "f16":
        return 0x7FFF if math.isnan(v) else int(np.float16(v).view(np.uint16))
    return 0x7FFF if math.isnan(v) else int(np.float32(v).view(np.uint32)) >> 16


def bf16(array):
    """Nearest bf16 of each element, as f32."""
    u = np.asarray(array, np.float32).view(np.uint32).astype(np.uint64)
    return ((u + 0x7FFF + (u >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)


def bf16_bits(array):
    """Nearest bf16 of each element, as 16-bit words."""
    return (bf16(array).view(np.uint32) >> 16).astype(np.uint16)


def tf32(array):
    """cvt.rna.tf32 of each element: to 10 bits of fraction, ties away from zero."""
    u = np.asarray(array, np.float32).view(np.uint32)
    return ((u + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
