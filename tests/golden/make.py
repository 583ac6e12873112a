"""Golden values: what PyTorch computes for every op of ringtape, forward and gradient, in float64.

    pip install torch numpy safetensors
    python tests/golden/make.py            # rewrites tests/golden/<op>.safetensors
    python tests/golden/make.py --check    # exits 1 where a stored file is not what this PyTorch computes (to 1e-12)

A file holds several cases. Of each case it has these tensors:

    <case>/<input>        inputs: reals (float64, every one representable in float32), ids (int64), masks (bool)
    <case>/out/<output>   what torch computes
    <case>/d<output>      the upstream gradient: the loss is the sum of <d<output>, output>
    <case>/d/<input>      its gradient with respect to each real input; ops that only choose or observe have neither

and in the metadata under `golden` a JSON text: the version of torch and the list of cases, each with its name and its
attributes as text, the way `ringtape op NAME --attr k=v` takes them. Names of ops, inputs and attributes are torch's.
tests/golden.rs reads the files. Random numbers are keyed by op and case, so a new case leaves the others as they are.
"""

import json
import math
import sys
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
OPS = {}  # op -> list of (case, inputs, attributes, function)


def case(op, name, inputs, f, **attrs):
    """One case: `inputs` maps names to tensors or to functions of a generator; `f` takes the tensors by position."""
    g = torch.Generator().manual_seed(zlib.crc32(f"{op}/{name}".encode()))
    made = {k: v(g) if callable(v) else v for k, v in inputs.items()}
    for k, v in made.items():
        if v.is_floating_point():
            made[k] = v.float().double()  # f32 and f64 start from the same numbers
    OPS.setdefault(op, []).append((name, made, attrs, f, g))


def text(v):
    """An attribute as the command line takes it."""
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, (list, tuple)):
        return ",".join(str(x) for x in v)
    return repr(v) if isinstance(v, float) else str(v)


def normal(*shape, std=1.0, mean=0.0):
    return lambda g: torch.randn(shape, generator=g, dtype=torch.float64) * std + mean


def uniform(lo, hi, *shape):
    return lambda g: torch.rand(shape, generator=g, dtype=torch.float64) * (hi - lo) + lo


def ids(n, *shape):
    return lambda g: torch.randint(n, shape, generator=g)


def mask(*shape):
    return lambda g: torch.randint(2, shape, generator=g).bool()


def real(*v, shape=None):
    t = torch.tensor(v, dtype=torch.float64)
    return t if shape is None else t.reshape(shape)


def integers(*v, shape=None):
    t = torch.tensor(v, dtype=torch.int64)
    return t if shape is None else t.reshape(shape)


# Unary, elementwise -------------------------------------------------------------------------------------------------

KINKS = real(-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 3.0)
FAR = real(-100.0, -30.0, -8.0, -1e-4, 1e-4, 8.0, 30.0, 100.0)


def unary(op, f, *cases, **attrs):
    for name, x in cases:
        case(op, name, {"input": x}, f, **attrs)


GENERAL = ("general", normal(3, 5)), ("scalar", normal()), ("one by one", normal(1, 1)), ("empty", real().reshape(0, 3))
POSITIVE = ("general", uniform(0.1, 4.0, 3, 5)), ("scalar", uniform(0.5, 2.0)), ("small", real(1e-6, 1e-3, 1.0, 1e6))

unary("neg", torch.neg, *GENERAL)
unary("exp", torch.exp, *GENERAL, ("far", real(-700.0, -80.0, -20.0, 0.0, 20.0, 80.0)))
unary("log", torch.log, *POSITIVE)
unary("sqrt", torch.sqrt, *POSITIVE)
unary("tanh", torch.tanh, *GENERAL, ("far", FAR))
unary("sigmoid", torch.sigmoid, *GENERAL, ("far", FAR))
unary("relu", torch.relu, *GENERAL, ("at the kink", KINKS))
unary("silu", F.silu, *GENERAL, ("far", FAR))
unary("abs", torch.abs, *GENERAL, ("at the kink", KINKS))
for how in ("none", "tanh"):
    for name, x in (*GENERAL, ("far", FAR)):
        case("gelu", f"{name}, {how}", {"input": x}, lambda x, how=how: F.gelu(x, approximate=how), approximate=how)
for factor in (2.5, -1.0, 0.0):
    case("scale", f"by {factor}", {"input": normal(3, 5)}, lambda x, c=factor: x * c, factor=factor)
for e, x in [
    (2.0, normal(3, 5)), (3.0, normal(4)), (0.5, uniform(0.1, 3.0, 3, 5)), (-1.5, uniform(0.5, 3.0, 4)),
    (0.0, KINKS), (1.0, KINKS), (2.0, KINKS),
]:
    where = " at the kinks" if x is KINKS else ""
    case("pow", f"to {e}{where}", {"input": x}, lambda x, e=e: torch.pow(x, e), exponent=e)
case("clamp", "between", {"input": normal(4, 5, std=2.0)}, lambda x: torch.clamp(x, -1.0, 1.5), min=-1.0, max=1.5)
case("clamp", "at the bounds", {"input": KINKS}, lambda x: torch.clamp(x, -1.0, 1.0), min=-1.0, max=1.0)
case("clamp", "from below", {"input": normal(7)}, lambda x: torch.clamp(x, min=0.25), min=0.25, max=math.inf)
case("clamp", "from above", {"input": normal(7)}, lambda x: torch.clamp(x, max=0.25), min=-math.inf, max=0.25)

# Binary, broadcasting -----------------------------------------------------------------------------------------------

PAIRS = [
    ("same shape", (3, 4), (3, 4)), ("row", (3, 4), (4,)), ("column", (3, 4), (3, 1)), ("both stretch", (3, 1, 5), (4, 1)),
    ("scalar right", (2, 3), ()), ("scalar left", (), (2, 3)), ("scalars", (), ()), ("ones", (1, 1), (1,)),
    ("middle", (2, 1, 3), (2, 4, 3)), ("leading", (2, 3, 4), (1, 3, 1)), ("empty", (0, 3), (3,)),
]
for op, f in [("add", torch.add), ("sub", torch.sub), ("mul", torch.mul), ("div", torch.div),
              ("maximum", torch.maximum), ("minimum", torch.minimum)]:
    for name, a, b in PAIRS:
        other = uniform(0.5, 2.0, *b) if op == "div" else normal(*b)
        case(op, name, {"input": normal(*a), "other": other}, f)
for op, f in [("maximum", torch.maximum), ("minimum", torch.minimum)]:
    case(op, "ties", {"input": real(1.0, 2.0, -3.0, 0.0), "other": real(1.0, 1.0, -3.0, 0.5)}, f)
    case(op, "ties, broadcast", {"input": real(1.0, 2.0, 1.0, 0.0, shape=(2, 2)), "other": real(1.0)}, f)
    nan = math.nan
    case(op, "NaN", {"input": real(nan, 1.0, 2.0), "other": real(1.0, nan, 3.0)}, f)
for name, c, a, b in [("same shape", (3, 4), (3, 4), (3, 4)), ("all stretch", (3, 1), (4,), (2, 1, 1)),
                      ("scalars chosen", (2, 3), (), ()), ("scalar condition", (), (2, 3), (3,))]:
    case("where", name, {"condition": mask(*c), "input": normal(*a), "other": normal(*b)}, torch.where)

# Reductions ---------------------------------------------------------------------------------------------------------

AXES = [("all", (), False), ("all, kept", (), True), ("first", (0,), False), ("last", (-1,), False), ("last, kept", (-1,), True),
        ("middle", (1,), False), ("two", (0, 2), False), ("two, kept", (-1, 0), True)]


def over(f, dim, keepdim, rank, **kw):
    dim = dim or tuple(range(rank))
    return lambda x: f(x, dim=dim, keepdim=keepdim, **kw)


for op, f in [("sum", torch.sum), ("mean", torch.mean), ("amax", torch.amax)]:
    for name, dim, keep in AXES:
        case(op, name, {"input": normal(2, 3, 5)}, over(f, dim, keep, 3), dim=dim, keepdim=keep)
    case(op, "scalar", {"input": normal()}, lambda x, f=f: f(x.reshape(1), dim=0), dim=(), keepdim=False)
    case(op, "extent 1", {"input": normal(3, 1, 2)}, over(f, (1,), False, 3), dim=(1,), keepdim=False)
    case(op, "long", {"input": normal(2, 300)}, over(f, (-1,), False, 2), dim=(-1,), keepdim=False)
    case(op, "long first", {"input": normal(300, 2)}, over(f, (0,), False, 2), dim=(0,), keepdim=False)
case("amax", "ties", {"input": real(1.0, 3.0, 3.0, 2.0, 2.0, 2.0, shape=(2, 3))}, over(torch.amax, (1,), False, 2),
     dim=(1,), keepdim=False)
case("amax", "-inf", {"input": real(-math.inf, 1.0, -2.0, -5.0, shape=(2, 2))}, over(torch.amax, (1,), False, 2),
     dim=(1,), keepdim=False)
for name, dim, keep in AXES:
    for c in (0, 1):
        case("var", f"{name}, correction {c}", {"input": normal(2, 3, 5, mean=2.0)},
             over(torch.var, dim, keep, 3, correction=c), dim=dim, keepdim=keep, correction=c)
case("var", "far from zero", {"input": normal(2, 40, mean=1000.0)}, over(torch.var, (-1,), False, 2, correction=1),
     dim=(-1,), keepdim=False, correction=1)

# Products and shapes ------------------------------------------------------------------------------------------------

for name, a, b, ta, tb in [
    ("two matrices", (3, 4), (4, 5), 0, 0), ("input transposed", (4, 3), (4, 5), 1, 0), ("other transposed", (3, 4), (5, 4), 0, 1),
    ("both transposed", (4, 3), (5, 4), 1, 1), ("batch", (2, 3, 4), (2, 4, 5), 0, 0), ("one weight", (2, 3, 4), (4, 5), 0, 0),
    ("one weight transposed", (2, 3, 4), (5, 4), 0, 1), ("one input, many others", (3, 4), (2, 4, 5), 0, 0),
    ("broadcast both ways", (2, 1, 3, 4), (3, 4, 2), 0, 0), ("broadcast, transposed", (2, 1, 4, 3), (3, 2, 4), 1, 1),
    ("inner extent 1", (3, 1), (1, 5), 0, 0), ("one row", (1, 4), (4, 5), 0, 0), ("one column", (3, 4), (4, 1), 0, 0),
    ("one element", (1, 1), (1, 1), 0, 0), ("past the tile", (17, 33), (33, 19), 0, 0), ("transposed batch, one weight", (2, 4, 3), (4, 2), 1, 0),
]:
    def product(x, y, ta=ta, tb=tb):
        return torch.matmul(x.mT if ta else x, y.mT if tb else y)
    case("matmul", name, {"input": normal(*a), "other": normal(*b)}, product,
         transpose_input=bool(ta), transpose_other=bool(tb))

for name, a, b in [("flatten", (2, 3, 4), (24,)), ("to a matrix", (2, 3, 4), (6, 4)), ("inferred", (2, 3, 4), (4, -1)), ("scalar", (1, 1), ())]:
    case("reshape", name, {"input": normal(*a)}, lambda x, b=b: torch.reshape(x, b), shape=b)
for name, a, p in [("transpose", (3, 4), (1, 0)), ("heads", (2, 3, 4, 5), (0, 2, 1, 3)), ("cycle", (2, 3, 4), (2, 0, 1)),
                   ("negative", (2, 3, 4), (-1, 0, -2)), ("nothing", (2, 3), (0, 1)), ("ones", (1, 3, 1), (2, 1, 0))]:
    case("permute", name, {"input": normal(*a)}, lambda x, p=p: torch.permute(x, p), dims=p)
for name, shapes, dim in [("first axis", [(2, 3), (1, 3), (4, 3)], 0), ("last axis", [(2, 3), (2, 1)], -1), ("middle", [(2, 1, 3), (2, 2, 3)], 1),
                          ("one tensor", [(2, 3)], 0), ("an empty one", [(2, 3), (0, 3)], 0)]:
    case("cat", name, {f"inputs.{i}": normal(*s) for i, s in enumerate(shapes)},
         lambda *x, dim=dim: torch.cat(x, dim), dim=dim)
for name, a, sizes, dim in [("first axis", (6, 2), (1, 2, 3), 0), ("last axis", (2, 5), (4, 1), -1), ("middle", (2, 4, 3), (2, 2), 1), ("whole", (3, 2), (3,), 0)]:
    case("split", name, {"input": normal(*a)}, lambda x, s=sizes, d=dim: torch.split(x, s, d), split_size_or_sections=sizes, dim=dim)
for name, a, dim, start, n in [("first axis", (5, 3), 0, 1, 3), ("last axis", (2, 5), -1, 2, 2), ("middle", (2, 4, 3), 1, 0, 1),
                               ("all", (3, 2), 0, 0, 3), ("from the end", (5, 2), 0, -2, 2)]:
    case("narrow", name, {"input": normal(*a)}, lambda x, d=dim, s=start, n=n: torch.narrow(x, d, s, n), dim=dim, start=start, length=n)

# Indexing -----------------------------------------------------------------------------------------------------------

for name, a, i, dim in [("first axis", (4, 3), (2, 3), 0), ("last axis", (3, 5), (3, 7), -1), ("middle", (2, 4, 3), (2, 2, 3), 1), ("narrower", (4, 5), (2, 3), 0)]:
    n = a[dim]
    case("gather", name, {"input": normal(*a), "index": ids(n, *i)}, lambda x, i, d=dim: torch.gather(x, d, i), dim=dim)
    case("scatter_add", name, {"input": normal(*a), "index": ids(n, *i), "src": normal(*i)},
         lambda x, i, s, d=dim: torch.scatter_add(x, d, i, s), dim=dim)
case("gather", "repeated", {"input": normal(3), "index": integers(0, 2, 2, 2)}, lambda x, i: torch.gather(x, 0, i), dim=0)
case("scatter_add", "repeated", {"input": normal(3), "index": integers(0, 2, 2, 2), "src": normal(4)},
     lambda x, i, s: torch.scatter_add(x, 0, i, s), dim=0)
case("embedding", "matrix of ids", {"input": ids(7, 2, 5), "weight": normal(7, 3)}, F.embedding)
case("embedding", "repeated", {"input": integers(1, 1, 1, 0), "weight": normal(3, 4)}, F.embedding)
case("embedding", "one id", {"input": integers(2).reshape(()), "weight": normal(3, 4)}, F.embedding)
case("embedding", "width 1", {"input": ids(5, 6), "weight": normal(5, 1)}, F.embedding)

# Normalisation and losses -------------------------------------------------------------------------------------------

ROWS = [("last axis", (3, 7), -1), ("first axis", (4, 3), 0), ("middle", (2, 5, 3), 1), ("long", (2, 300), -1), ("extent 1", (3, 1), 1), ("vector", (6,), 0)]
for name, x, w, bias in [("rows", (5, 4), (3, 4), True), ("no bias", (5, 4), (3, 4), False), ("batch", (2, 3, 4), (5, 4), True), ("one row", (1, 4), (3, 4), True),
                         ("one feature", (3, 1), (1, 1), True), ("past the tile", (19, 35), (33, 35), True), ("vector", (4,), (3, 4), True)]:
    inputs = {"input": normal(*x), "weight": normal(*w)} | ({"bias": normal(w[0])} if bias else {})
    case("linear", name, inputs, F.linear)

for op, f in [("softmax", F.softmax), ("log_softmax", F.log_softmax)]:
    for name, a, dim in ROWS:
        case(op, name, {"input": normal(*a, std=3.0)}, lambda x, f=f, d=dim: f(x, dim=d), dim=dim)
    case(op, "large logits", {"input": real(1000.0, 999.0, -1000.0, 1e4, 1e4, 0.0, shape=(2, 3))}, lambda x, f=f: f(x, dim=1), dim=1)
case("softmax", "-inf logits", {"input": real(-math.inf, 0.5, 1.0, 2.0, -math.inf, -math.inf, shape=(2, 3))}, lambda x: F.softmax(x, dim=1), dim=1)
case("log_softmax", "-inf logits", {"input": real(-math.inf, 0.5, 1.0, 2.0, -math.inf, -1.0, shape=(2, 3))}, lambda x: F.log_softmax(x, dim=1), dim=1)

for name, a, eps in [("rows", (3, 7), 1e-5), ("three axes", (2, 3, 5), 1e-5), ("long", (2, 300), 1e-5), ("large eps", (3, 4), 0.1), ("extent 2", (4, 2), 1e-3), ("extent 1", (3, 1), 1e-2), ("vector", (9,), 1e-5)]:
    n = a[-1]
    def rms(x, w=None, n=n, eps=eps):
        return F.rms_norm(x, (n,), w, eps)
    def layer(x, w=None, b=None, n=n, eps=eps):
        return F.layer_norm(x, (n,), w, b, eps)
    x, w, b = normal(*a, std=2.0, mean=0.5), normal(n, mean=1.0), normal(n)
    case("layer_norm", name, {"input": x, "weight": w, "bias": b}, layer, eps=eps)
    case("rms_norm", name, {"input": x, "weight": w}, rms, eps=eps)
    if name in ("rows", "long"):
        case("layer_norm", f"{name}, plain", {"input": x}, layer, eps=eps)
        case("layer_norm", f"{name}, no bias", {"input": x, "weight": w}, layer, eps=eps)
        case("rms_norm", f"{name}, plain", {"input": x}, rms, eps=eps)
case("layer_norm", "far from zero", {"input": normal(3, 40, mean=100.0), "weight": normal(40), "bias": normal(40)},
     lambda x, w, b: F.layer_norm(x, (40,), w, b, 1e-5), eps=1e-5)

for name, a, target, kw in [
    ("mean", (4, 7), ids(7, 4), {}), ("one row", (1, 5), ids(5, 1), {}), ("one class", (3, 1), ids(1, 3), {}),
    ("long", (3, 300), ids(300, 3), {}),
    ("ignored rows", (5, 4), integers(1, -100, 3, -100, 0), {}), ("other ignore_index", (4, 3), integers(2, 0, 1, 0), {"ignore_index": 0}),
    ("sum", (4, 7), ids(7, 4), {"reduction": "sum"}), ("each", (4, 7), ids(7, 4), {"reduction": "none"}),
    ("sum, ignored and smoothed", (4, 3), integers(1, -100, 2, 0), {"reduction": "sum", "label_smoothing": 0.3}),
    ("smoothed", (4, 7), ids(7, 4), {"label_smoothing": 0.1}), ("smoothed and ignored", (5, 4), integers(1, -100, 3, 2, -100), {"label_smoothing": 0.2}),
]:
    case("cross_entropy", name, {"input": normal(*a, std=2.0), "target": target}, lambda x, t, kw=kw: F.cross_entropy(x, t, **kw), **kw)
case("cross_entropy", "large logits", {"input": real(1000.0, -1000.0, 0.0, -1e4, 1e4, 1e4, shape=(2, 3)), "target": integers(0, 1)}, F.cross_entropy)
case("cross_entropy", "-inf logits", {"input": real(-math.inf, 0.5, 1.0, 2.0, -math.inf, -1.0, shape=(2, 3)), "target": integers(1, 0)}, F.cross_entropy)
# Classes on the last axis, as a language model has them; torch wants them on the second.
case("cross_entropy", "batch of sequences", {"input": normal(2, 3, 5), "target": ids(5, 2, 3)},
     lambda x, t: F.cross_entropy(x.flatten(0, 1), t.flatten()))
case("mse_loss", "matrix", {"input": normal(3, 4), "target": normal(3, 4)}, F.mse_loss)
case("mse_loss", "one element", {"input": normal(1), "target": normal(1)}, F.mse_loss)
case("mse_loss", "long", {"input": normal(700), "target": normal(700)}, F.mse_loss)

# Only what is the same for every random number: nothing dropped, everything dropped, evaluation.
case("dropout", "p 0", {"input": normal(3, 5)}, lambda x: F.dropout(x, 0.0, True), p=0.0, training=True)
case("dropout", "p 1", {"input": normal(3, 5)}, lambda x: F.dropout(x, 1.0, True), p=1.0, training=True)
case("dropout", "evaluation", {"input": normal(3, 5)}, lambda x: F.dropout(x, 0.5, False), p=0.5, training=False)

# Images -------------------------------------------------------------------------------------------------------------

for name, x, w, bias, kw in [
    ("3 x 3", (2, 3, 6, 5), (4, 3, 3, 3), True, {}), ("padded", (1, 2, 5, 5), (3, 2, 3, 3), True, {"padding": (1, 1)}),
    ("strided", (2, 1, 7, 8), (2, 1, 3, 3), True, {"stride": (2, 2)}), ("uneven", (1, 2, 7, 9), (3, 2, 3, 2), True, {"stride": (2, 3), "padding": (1, 0)}),
    ("dilated", (1, 2, 7, 7), (2, 2, 3, 3), True, {"dilation": (2, 2)}), ("dilated, padded, strided", (1, 1, 9, 8), (2, 1, 3, 3), False, {"dilation": (2, 1), "padding": (2, 1), "stride": (2, 1)}),
    ("groups", (2, 4, 5, 5), (6, 2, 3, 3), True, {"groups": 2}), ("depthwise", (1, 3, 5, 4), (3, 1, 3, 3), True, {"groups": 3, "padding": (1, 1)}),
    ("1 x 1", (2, 3, 4, 4), (5, 3, 1, 1), True, {}), ("whole image", (2, 2, 3, 3), (4, 2, 3, 3), True, {}), ("no bias", (1, 2, 4, 4), (3, 2, 2, 2), False, {}),
]:
    inputs = {"input": normal(*x), "weight": normal(*w)}
    if bias:
        inputs["bias"] = normal(w[0])
    case("conv2d", name, inputs, lambda *t, kw=kw: F.conv2d(*t, **kw), **kw)
for name, x, kw in [
    ("2 x 2", (2, 3, 6, 4), {"kernel_size": (2, 2)}), ("overlapping", (1, 2, 7, 7), {"kernel_size": (3, 3), "stride": (2, 2)}), ("padded", (1, 2, 5, 6), {"kernel_size": (3, 3), "stride": (2, 2), "padding": (1, 1)}),
    ("uneven", (2, 1, 5, 7), {"kernel_size": (2, 3), "stride": (1, 2)}), ("a rest is left out", (1, 1, 5, 5), {"kernel_size": (2, 2)}), ("1 x 1", (1, 2, 3, 3), {"kernel_size": (1, 1)}),
]:
    kw = {"stride": kw["kernel_size"], "padding": (0, 0), **kw}
    case("avg_pool2d", name, {"input": normal(*x)}, lambda x, kw=kw: F.avg_pool2d(x, **kw), **kw)
    case("max_pool2d", name, {"input": normal(*x)}, lambda x, kw=kw: F.max_pool2d(x, **kw), **kw)
for name, kw in [("corners", {"kernel_size": (3, 3), "stride": (2, 2), "padding": (1, 1)}), ("uneven", {"kernel_size": (2, 3), "stride": (2, 1), "padding": (1, 0)})]:
    case("avg_pool2d", f"{name}, padding does not count", {"input": normal(1, 2, 5, 6)},
         lambda x, kw=kw: F.avg_pool2d(x, **kw, count_include_pad=False), **kw, count_include_pad=False)
ties = real(*([1.0, 1.0, 0.0, 2.0] * 4), shape=(1, 1, 4, 4))
case("max_pool2d", "ties", {"input": ties}, lambda x: F.max_pool2d(x, 2), kernel_size=(2, 2), stride=(2, 2), padding=(0, 0))

# Attention ----------------------------------------------------------------------------------------------------------


def rotary(x, base, offset):
    """Rotates the pair (i, i + D/2) at position t by t·base^(-2i/D): x·cos + rotate_half(x)·sin (GPT-NeoX)."""
    t, d = x.shape[-2:]
    angle = torch.outer(torch.arange(offset, offset + t, dtype=torch.float64), base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d))
    angle = torch.cat([angle, angle], -1)
    half = torch.cat([-x[..., d // 2:], x[..., : d // 2]], -1)
    return x * angle.cos() + half * angle.sin()


for name, a, base, offset in [("heads", (2, 3, 5, 8), 10000.0, 0), ("one head", (1, 1, 9, 4), 10000.0, 0), ("width 2", (2, 1, 6, 2), 10000.0, 0),
                              ("other base", (1, 2, 5, 6), 500.0, 0), ("later", (1, 2, 3, 8), 10000.0, 7), ("one position", (1, 2, 1, 4), 10000.0, 3)]:
    case("rotary_embedding", name, {"input": normal(*a)}, lambda x, b=base, o=offset: rotary(x, b, o), base=base, offset=offset)
def rotary_interleaved(x, base, offset):
    """The same with pairs (2i, 2i + 1): GPT-J's layout."""
    d = x.shape[-1]
    order = torch.cat([torch.arange(0, d, 2), torch.arange(1, d, 2)])
    return rotary(x[..., order], base, offset)[..., order.argsort()]


for name, a, base, offset in [("interleaved", (2, 2, 5, 6), 10000.0, 0), ("interleaved, later", (1, 3, 4), 100.0, 5)]:
    case("rotary_embedding", name, {"input": normal(*a)}, lambda x, b=base, o=offset: rotary_interleaved(x, b, o),
         base=base, offset=offset, layout="interleaved")
for name, q, k, causal in [
    ("full", (2, 2, 5, 4), (2, 2, 5, 4), False), ("causal", (2, 2, 5, 4), (2, 2, 5, 4), True), ("past a block", (1, 1, 70, 4), (1, 1, 70, 4), True),
    ("one position", (1, 2, 1, 4), (1, 2, 1, 4), True), ("width 1", (1, 1, 6, 1), (1, 1, 6, 1), True), ("more keys", (1, 2, 3, 4), (1, 2, 7, 4), False),
]:
    case("scaled_dot_product_attention", name, {"query": normal(*q), "key": normal(*k), "value": normal(*k)},
         lambda q, k, v, c=causal: F.scaled_dot_product_attention(q, k, v, is_causal=c), is_causal=causal)
case("scaled_dot_product_attention", "sharp", {n: normal(1, 2, 6, 4, std=8.0) for n in ("query", "key", "value")},
     lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), is_causal=True)


def keys(*samples):
    """A padding mask of samples written down: x for a key that is there."""
    return real(*[0.0 if c == "x" else -math.inf for s in samples for c in s], shape=(len(samples), 1, 1, len(samples[0])))


def masked(q, k, v, m, causal):
    """torch takes a mask or is_causal, not both; grouped heads by repetition."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    future = torch.full((q.shape[2], k.shape[2]), -math.inf, dtype=q.dtype).triu(1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=m.detach() + future if causal else m.detach())


for name, q, k, m, causal in [
    ("masked", (2, 2, 5, 4), (2, 2, 6, 4), keys("xx.x.x", ".x...."), False),
    ("masked, one mask, causal, grouped", (2, 4, 6, 3), (2, 2, 6, 3), keys("x.xx.x"), True),
    ("masked, a sample without keys", (2, 2, 3, 4), (2, 2, 4, 4), keys(".xx.", "...."), False),
    ("masked, causal, queries that see nothing", (1, 2, 5, 4), (1, 2, 5, 4), keys("..xx."), True),
    ("masked, past a block", (1, 1, 70, 4), (1, 1, 70, 4), keys("x..xxx." * 10), True),
]:
    case("scaled_dot_product_attention", name, {"query": normal(*q), "key": normal(*k), "value": normal(*k), "attn_mask": m},
         lambda q, k, v, m, c=causal: masked(q, k, v, m, c), is_causal=causal)


def shared(q, k, a, b, query_mask=None, key_mask=None):
    """Two softmaxes of one matrix. Absent tokens take no part; who sees nothing gets 0."""
    s = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    there = lambda m, x: torch.ones_like(x[..., :1]) if m is None else (m == 0).double().transpose(-1, -2) + 0 * x[..., :1].detach()
    rows, cols = there(query_mask, q), there(key_mask, k)

    def weigh(dim):
        w = torch.exp(s - s.amax(dim, keepdim=True).detach()) * rows * cols.transpose(-1, -2)
        total = w.sum(dim, keepdim=True)
        return w / (total + (total == 0))

    return {"query_output": weigh(-1) @ b, "key_output": weigh(-2).transpose(-1, -2) @ a}


for name, (n, h), (ta, tb), (d, e), masks in [
    ("both ways", (2, 2), (3, 5), (4, 2), {}), ("one token each", (1, 2), (1, 1), (3, 3), {}), ("past a block", (1, 1), (70, 66), (4, 3), {}),
    ("queries masked", (2, 1), (5, 3), (2, 4), {"query_mask": keys("x.xx.")}),
    ("samples without tokens", (4, 2), (4, 3), (3, 2), {"query_mask": keys("xx.x", ".x..", "....", "xxxx"), "key_mask": keys("x.x", "...", "xxx", ".xx")}),
]:
    inputs = {"query": normal(n, h, ta, d), "key": normal(n, h, tb, d), "query_value": normal(n, h, ta, e), "key_value": normal(n, h, tb, e)}
    case("shared_attention", name, {**inputs, **masks}, lambda *x: shared(*x[:4], *(m.detach() for m in x[4:])))


# Windows, routers --------------------------------------------------------------------------------------------------


def union(q, k, v, span, lists=None, center=None, width=None, ramp=4.0, block=16, is_causal=True, offset=0, place="ramp"):
    """A softmax over all keys with weights mu = max(window, second window, routed), keys of the future 0."""
    p, j = torch.arange(q.shape[2])[:, None] + offset, torch.arange(k.shape[2])
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    fall = lambda x, reach: ((ramp + reach.clamp(min=0)[..., None] - x.abs()) / ramp).clamp(0, 1)
    mu = fall((p - j).double(), span)
    if center is not None:
        x, cut = center[..., None] - j, math.exp(-4.5)
        bell = lambda: ((torch.exp(-(x**2) / (2 * width[..., None] ** 2)) - cut) / (1 - cut)).clamp(min=0)
        mu = torch.maximum(mu, bell() if place == "gaussian" else fall(x, width))
    if lists is not None:
        mu = torch.where((lists[..., None, :] == (j // block)[:, None]).any(-1), torch.ones(()).double(), mu)
    if is_causal:
        mu = torch.where(j <= p, mu, torch.zeros(()).double())
    s = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    w = mu * torch.exp(s - s.amax(-1, keepdim=True).detach())
    return w @ v / w.sum(-1, keepdim=True)


def before(heads, tokens, block, count):
    """For each query some of the blocks before its own, filled up with -1."""
    rows = [[b for b in range(n % tokens // block) if (b + n) % 3 == 0][:count] for n in range(heads * tokens)]
    return integers(*[x for r in rows for x in r + [-1] * (count - len(r))], shape=(1, heads, tokens, count))


def dynamic(name, q, k, low, high, extra=None, **attrs):
    inputs = {"query": normal(*q), "key": normal(*k), "value": normal(*k), "span": uniform(low, high, *q[:3]), **(extra or {})}
    case("dynamic_attention", name, inputs, lambda *x, a=attrs: union(*x, **a), **attrs)


NONE = integers(shape=(1, 2, 20, 0))
PLACE = {"center": uniform(0.0, 20.0, 1, 2, 20), "width": uniform(0.5, 3.0, 1, 2, 20)}
dynamic("window", (1, 2, 20, 4), (1, 2, 20, 4), 0.5, 6.0, ramp=4.0, block=16)
dynamic("both sides", (1, 2, 20, 4), (1, 2, 20, 4), 0.5, 6.0, ramp=3.0, is_causal=False, block=16)
dynamic("grouped, later queries", (1, 4, 3, 4), (1, 2, 9, 4), 0.5, 3.0, ramp=2.0, offset=6, block=16)
dynamic("routed", (1, 2, 70, 3), (1, 2, 70, 3), 0.5, 6.0, {"blocks": before(2, 70, 16, 2)}, ramp=3.0, block=16)
dynamic("two windows", (1, 2, 20, 4), (1, 2, 20, 4), 0.5, 3.0, {"blocks": NONE, **PLACE}, ramp=3.0, block=16)
dynamic("Gaussian", (1, 2, 20, 4), (1, 2, 20, 4), 0.5, 3.0, {"blocks": NONE, **PLACE}, ramp=3.0, block=16, place="gaussian")


def bucket(x, rotations, bound=None):
    """Of each hash the index of the largest of (z, -z), with z = x·R; x longer by what it lacks to `bound`."""
    rounds, hashes, rows, n = rotations.shape
    if bound is not None:
        x = torch.cat([x, (bound**2 - (x**2).sum(-1, keepdim=True)).clamp(min=0).sqrt()], -1)
    z = torch.einsum("...d,rhdn->...rhn", x, rotations[:, :, : x.shape[-1]])
    h = torch.cat([z, -z], -1).argmax(-1)
    return (h * (2 * n) ** torch.arange(hashes)).sum(-1)


case("lsh_hash", "two of two", {"input": normal(2, 5, 6), "rotations": normal(3, 2, 6, 4)}, bucket)
case("lsh_hash", "lengths", {"input": normal(7, 4), "rotations": normal(3, 1, 5, 3), "bound": real(2.5)}, bucket)


def candidates(tokens, blocks, block, skip, offset=0, is_causal=True):
    own, b = (torch.arange(tokens)[:, None] + offset) // block, torch.arange(blocks)
    return b + max(skip, 1) <= own if is_causal else (b - own).abs() >= skip


def chosen(scores, fits, count):
    """Of each row of [.., T, n] the `count` largest that fit, of equal ones the latest, ascending, then -1."""
    flat = scores.reshape(-1, *scores.shape[-2:])
    rows = []
    for table in flat:
        for i, row in enumerate(table.tolist()):
            best = sorted((b for b in range(len(row)) if fits[i, b] and row[b] > -math.inf), key=lambda b: (-row[b], -b))
            best = sorted(best[:count])
            rows.append(best + [-1] * (count - len(best)))
    return torch.tensor(rows).reshape(*scores.shape[:-1], count)


def padded(x, block, dim):
    """`x` cut along `dim` into blocks, with a list of their lengths."""
    return [x.narrow(dim, s, min(block, x.shape[dim] - s)) for s in range(0, x.shape[dim], block)]


def votes(q, k, block, count, skip, offset=0, is_causal=True, **_):
    shared = (q[..., :, None, :] == k.repeat_interleave(q.shape[1] // k.shape[1], 1)[..., None, :, :]).sum(-1)
    table = torch.stack([b.sum(-1) for b in padded(shared, block, -1)], -1).double()
    return chosen(torch.where(table > 0, table, -math.inf), candidates(q.shape[2], table.shape[-1], block, skip, offset, is_causal), count)


for name, q, k, attrs in [
    ("causal", (1, 2, 40, 3), (1, 2, 40, 3), {"block": 4, "count": 3, "skip": 2}),
    ("both sides, grouped", (1, 4, 9, 2), (1, 2, 30, 2), {"block": 5, "count": 4, "skip": 1, "offset": 11, "is_causal": False}),
]:
    attrs = {"buckets": 6, **attrs}
    case("lsh_vote", name, {"query_buckets": ids(6, *q), "key_buckets": ids(6, *k)}, lambda q, k, a=attrs: votes(q, k, **a), **attrs)


def neighbours(x, chunk, block, count, skip, is_causal=True, **_):
    """Votes of keys of the same bucket in the query's chunk and the one before, tokens sorted by bucket."""
    b, h, t, rounds = x.shape
    shared = torch.zeros(b, h, t, t)
    for at in range(b * h * rounds):
        i, j, r = at // (h * rounds), at // rounds % h, at % rounds
        order = sorted(range(t), key=lambda n: (int(x[i, j, n, r]), n))
        place = {n: p // chunk for p, n in enumerate(order)}
        for q in range(t):
            for n in range(t):
                shared[i, j, q, n] += x[i, j, q, r] == x[i, j, n, r] and place[q] - place[n] in (0, 1)
    table = torch.stack([s.sum(-1) for s in padded(shared, block, -1)], -1).double()
    return chosen(torch.where(table > 0, table, -math.inf), candidates(t, table.shape[-1], block, skip, 0, is_causal), count)


for name, attrs in [("causal", {"chunk": 8, "skip": 1}), ("both sides", {"chunk": 5, "skip": 2, "is_causal": False})]:
    attrs = {"buckets": 5, "block": 4, "count": 3, **attrs}
    case("sort_chunk", name, {"buckets": ids(5, 1, 2, 30, 2)}, lambda x, a=attrs: neighbours(x, **a), **attrs)


def gated(q, k, block, count, skip, offset=0, is_causal=True):
    means = torch.stack([b.mean(2) for b in padded(k, block, 2)], 2).repeat_interleave(q.shape[1] // k.shape[1], 1)
    return chosen(q.detach() @ means.detach().transpose(-1, -2), candidates(q.shape[2], means.shape[2], block, skip, offset, is_causal), count)


for name, q, k, attrs in [
    ("causal", (1, 2, 30, 3), (1, 2, 30, 3), {"block": 4, "count": 3, "skip": 1}),
    ("both sides, grouped", (1, 4, 6, 3), (1, 2, 23, 3), {"block": 4, "count": 2, "skip": 1, "offset": 9, "is_causal": False}),
]:
    case("mean_pool_gate", name, {"query": normal(*q), "key": normal(*k)}, lambda q, k, a=attrs: gated(q, k, **a), **attrs)

for name, attrs in [("causal", {"skip": 2}), ("both sides", {"skip": 1, "offset": 5, "is_causal": False})]:
    attrs = {"block": 4, "count": 3, "heads": 2, **attrs}
    fits = {k: v for k, v in attrs.items() if k not in ("count", "heads")}
    case("top_blocks", name, {"scores": normal(2, 30, 8)},
         lambda s, f=fits: chosen(s.detach(), candidates(30, 8, **f), 3)[:, None].expand(-1, 2, -1, -1), **attrs)


def mass(q, k, block, skip, offset=0, is_causal=True):
    """Shares of dense attention's mass, summed over heads, on the candidate blocks of each query."""
    q, k = q.detach(), k.detach().repeat_interleave(q.shape[1] // k.shape[1], 1)
    s = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if is_causal:
        s = s.masked_fill(torch.arange(k.shape[2]) > torch.arange(q.shape[2])[:, None] + offset, -math.inf)
    m = torch.stack([b.sum(-1) for b in padded(s.softmax(-1), block, -1)], -1).sum(1)
    m = m * candidates(q.shape[2], m.shape[-1], block, skip, offset, is_causal)
    whole = m.sum(-1, keepdim=True)
    return torch.where(whole > 0, m / whole, torch.zeros(()).double())


for name, q, k, attrs in [
    ("causal", (1, 2, 30, 3), (1, 2, 30, 3), {"block": 4, "skip": 1}),
    ("both sides, grouped", (2, 4, 6, 3), (2, 2, 20, 3), {"block": 4, "skip": 1, "offset": 9, "is_causal": False}),
]:
    case("block_mass", name, {"query": normal(*q), "key": normal(*k)}, lambda q, k, a=attrs: mass(q, k, **a), **attrs)


# Sparse activations ---------------------------------------------------------------------------------------------------


class Step(torch.autograd.Function):
    """1 where x is above the threshold, else 0, with the straight-through slope of JumpReLU's authors towards the threshold."""

    @staticmethod
    def forward(ctx, x, theta, width):
        ctx.save_for_backward(x, theta)
        ctx.width = width
        return (x > theta).double()

    @staticmethod
    def backward(ctx, dy):
        x, theta = ctx.saved_tensors
        near = ((x - theta) / ctx.width).abs() < 0.5 if ctx.width > 0 else torch.zeros_like(x)
        slope = -dy * near / ctx.width if ctx.width > 0 else torch.zeros_like(x)
        return None, slope.sum_to_size(theta.shape), None


def threshold(x, theta=None, mode="soft", density=0.1, bandwidth=0.0):
    if theta is None:
        factor = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1.0 - density, dtype=torch.float64)).item()
        theta = x.mean(-1, keepdim=True) + factor * x.std(-1, correction=0, keepdim=True)
    if mode == "soft":
        return torch.relu(x - theta)
    # The paper's slope towards theta is theta's value times that of the step.
    return x * (x > theta) + theta.detach() * (step := Step.apply(x, theta, bandwidth)) - (theta * step).detach()


for mode in ("soft", "hard"):
    for name, shape, attrs in [("rows", (5, 13), {"density": 0.3}), ("three axes", (2, 3, 40), {"density": 0.08})]:
        attrs = {"mode": mode, **attrs}
        case("threshold_relu", f"{name}, {mode}", {"input": normal(*shape)}, lambda x, a=attrs: threshold(x, **a), **attrs)
    for name, shape, t in [("one for all", (6, 9), real(0.4)), ("one a feature", (2, 70, 3), real(0.1, 0.5, 1.2))]:
        attrs = {"mode": mode, "bandwidth": 0.8}
        case("threshold_relu", f"{name}, {mode}", {"input": normal(*shape), "threshold": t},
             lambda x, t, a=attrs: threshold(x, t, **a), **attrs)
    attrs = {"mode": mode, "density": 0.3, "bandwidth": 0.8}
    case("threshold_relu", f"row with a slope, {mode}", {"input": normal(4, 20)}, lambda x, a=attrs: threshold(x, **a), **attrs)
case("threshold_relu", "NaN", {"input": real(math.nan, 1.0, -2.0), "threshold": real(0.5)},
     lambda x, t: torch.where(x <= t, torch.zeros_like(x), x - t), mode="soft")
for name, shape, t in [("one for all", (6, 9), real(0.4)), ("one a feature", (2, 70, 3), real(0.1, 0.5, 1.2))]:
    case("activity", name, {"input": normal(*shape), "threshold": t},
         lambda x, t: Step.apply(x.detach(), t, 0.8).flatten(0, -2).mean(0), bandwidth=0.8)
case("activity", "magnitude", {"input": normal(4, 20, 3)}, lambda x: x.detach().abs().flatten(0, -2).mean(0))


def mlp(x, up, p, down, q, theta=None, path=None, **a):
    hidden = x @ up.T + p
    return {"output": threshold(hidden, theta, **a) @ down + q, "hidden": hidden}


for path in ("sparse", "dense"):
    for mode in ("soft", "hard"):
        for name, rows, (k, h, m), t, attrs in [
            ("rows", (7,), (5, 50, 6), None, {"density": 0.2}),
            ("rows with a slope", (2, 3), (4, 33, 3), None, {"density": 0.3, "bandwidth": 1.5}),
            ("one for all", (40,), (3, 31, 18), real(0.5), {"bandwidth": 1.0}),
            ("one a unit", (1,), (6, 4, 150), real(0.5, -0.2, 1.0, 0.1), {"bandwidth": 2.0}),
        ]:
            attrs = {"mode": mode, "path": path, **attrs}
            inputs = {"input": normal(*rows, k), "up": normal(h, k), "up_bias": normal(h), "down": normal(h, m), "down_bias": normal(m)}
            inputs |= {} if t is None else {"threshold": t}
            case("sparse_mlp", f"{name}, {mode}, {path}", inputs, lambda *x, a=attrs: mlp(*x, **a), **attrs)


def compute(op):
    """Tensors and metadata of one op's file."""
    tensors, cases = {}, []
    for name, inputs, attrs, f, g in OPS[op]:
        leaves = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs.values()]
        made = f(*leaves)
        outputs = {f"outputs.{i}": y for i, y in enumerate(made)} if isinstance(made, tuple) else {"output": made}
        outputs = made if isinstance(made, dict) else outputs
        # Choices and observations have no gradient.
        felt = {k: y for k, y in outputs.items() if y.requires_grad}
        upstream = {k: torch.randn(y.shape, generator=g, dtype=torch.float64).float().double() for k, y in felt.items()}
        wanted = {k: x for k, x in zip(inputs, leaves) if x.requires_grad} if felt else {}
        sides = list(felt.values()), list(wanted.values()), list(upstream.values())
        # An input that is only observed gets none; a real one without is missed by tests/golden.rs.
        grads = torch.autograd.grad(*sides, allow_unused=True) if felt else ()
        tensors.update({f"{name}/{k}": x for k, x in inputs.items()})
        tensors.update({f"{name}/out/{k}": y.detach() for k, y in outputs.items()})
        tensors.update({f"{name}/d{k}": y for k, y in upstream.items()})
        tensors.update({f"{name}/d/{k}": d for k, d in zip(wanted, grads) if d is not None})
        cases.append({"name": name, "attrs": {k: text(v) for k, v in attrs.items()}})
    tensors = {k: v.contiguous().clone() for k, v in tensors.items()}
    return tensors, {"golden": json.dumps({"torch": torch.__version__.split("+")[0], "cases": cases})}


def differs(op):
    """What the stored file of `op` has that this PyTorch computes otherwise."""
    path = HERE / f"{op}.safetensors"
    if not path.exists():
        return ["no file"]
    tensors, meta = compute(op)
    with safe_open(path, "pt") as f:
        stored = json.loads(f.metadata()["golden"])["cases"]
        if stored != json.loads(meta["golden"])["cases"] or set(f.keys()) != set(tensors):
            return ["other cases"]
        return [k for k, v in tensors.items() if not torch.allclose(f.get_tensor(k), v, rtol=1e-12, atol=1e-12, equal_nan=True)]


def main():
    if sys.argv[1:] == ["--check"]:
        bad = {op: d for op in OPS if (d := differs(op))}
        for op, d in bad.items():
            print(f"{op}: {', '.join(d)}", file=sys.stderr)
        sys.exit(1 if bad else 0)
    if sys.argv[1:]:
        sys.exit(__doc__)
    for op in OPS:
        tensors, meta = compute(op)
        save_file(tensors, HERE / f"{op}.safetensors", metadata=meta)
    files = list(HERE.glob("*.safetensors"))
    print(f"{len(OPS)} ops, {sum(map(len, OPS.values()))} cases, {sum(f.stat().st_size for f in files)} bytes in {len(files)} files")


if __name__ == "__main__":
    main()
