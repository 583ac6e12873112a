"""syntax/*.ptx: files that a parser may stumble over. Each stores what shows that it was read aright."""
import numpy as np
from make import case, u32


def written(f):
    case("syntax", f.__name__.rstrip("_"))(f)


@written
def scopes(c):
    c.run("scopes", 1, 1, [c.output(np.array([1023], "u4"))])


@written
def literals(c):
    y = np.array([31, 31, 15, 11, -(1 << 31) & 0xFFFFFFFF, 0xFFFFFFFF, 0x7FFFFFFF, 65535, 0xFFFFFFFB, 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 32, 7, 200 | 255 << 8], "u4")
    f = b"".join([np.array([1, -2.5, 1.5, 2], "f4").tobytes(), np.array([1 / 3, 2.5e-3]).tobytes(), np.array([np.inf, -0.75], "f4").tobytes()])
    c.run("literals", 1, 1, [c.output(y), c.output(np.frombuffer(f, "u1"))])


@written
def comments(c):
    c.run("comments", 1, 1, [c.output(np.array([26], "u4")), u32(12)])


@written
def names(c):
    c.run("_$name_of_a_kernel_0123456789_with_many_letters_in_it_so_that_nobody_assumes_a_small_buffer", 1, 1, [c.output(np.array([127], "u4"))])


@written
def vectors(c):
    x = np.array([0x10002, 5, 0x30004, 9], "u4")
    turned = [0x00040003, 0x00020001]
    f = np.array([1, 2], "f4").view("u4")
    y = [x.sum(), x[2] - x[0], x[0], x[2], x[2], x[0], x[3], x[0], *turned, *f, 1, 0, 3, 1, 0]
    c.run("vectors", 1, 1, [c.input(x), c.output(np.array(y, "u4"))])


@written
def data(c):
    y = np.array([7, 0, ord("i"), 6, 1, 8, -128, 3, 5, 6, 56, 11, 0, 0, 3], "i4")
    c.run("data", 1, 1, [c.output(y)])


@written
def functions(c):
    t = np.arange(45)
    y = np.stack([t + 5, t, 2 * t, 6 * t, np.where(t % 2, 12 * t, 77), t * 0, 1000 * t + 3, t * 0, t * 0, t * 0], 1).astype("u4")
    start = np.zeros((45, 10), "u4")
    c.run("functions", 1, 45, [c.output(y, start=start)])


@written
def branches(c):
    x = np.array([0, 1, 2, 3, 4, 5, 9, 9, 3, 2, 1, 0, 1000, 1001], "u4")
    answer = {0: 100, 1: 3, 2: 23, 3: 3, 4: 4444, 5: 5555, 9: 8, 1000: 4444, 1001: 5555}
    c.run("branches", 1, 14, [c.input(x), c.output(np.array([answer[v] for v in x.tolist()], "u4"), start=np.full(14, 8))])


@written
def directives(c):
    c.run("directives", 1, 1, [c.output(np.array([5], "u4")), {"bytes": [0] * 24}, {"u64": 0}])


@written
def addresses(c):
    c.run("addresses", 1, 1, [c.output(np.array([12, 13, 12, 14, 21, 22, 23, 23, 21, 21], "u4"))])
