"""faults/*.ptx: what the clean twins should answer. A faulty kernel's outputs are not compared."""
import numpy as np
from make import case, fresh, u32, u64


def any_(c, n, dtype="u4"):
    """A buffer that a faulty kernel may write."""
    return {"buffer": c._store(np.zeros(n, dtype), f"fill_zero_{dtype}_{n}")}


def planted(f):
    """A case named as the function."""
    case("faults", f.__name__)(f)


@planted
def oob_read(c):
    x = c.uniform(50)
    y = x + np.append(x[1:], np.float32(0))
    c.twins(1, 64, [c.input(x), any_(c, 50, "f4"), u32(50)], [c.input(x), c.output(y), u32(50)])


@planted
def oob_write(c):
    c.twins(1, 64, [any_(c, 50), u32(50)], [c.output(np.arange(50, dtype="u4")), u32(50)])


@planted
def oob_vector(c):
    x = c.bits(50)
    c.twins(1, 1, [c.input(x), any_(c, 1)], [c.input(x), c.output(x[48:49])])


@planted
def oob_before(c):
    x = c.bits(40)
    c.twins(1, 40, [c.input(x), any_(c, 40)], [c.input(x), c.output(x - np.append(np.uint32(0), x[:-1]))])


@planted
def oob_wild(c):
    c.twins(1, 1, [any_(c, 1)], [c.output(np.array([7], "u4"))])


@planted
def oob_atomic(c):
    x = c.integers(45, high=10, dtype=np.uint32)
    x[33] = 10
    bins = np.bincount(np.minimum(x, 9), minlength=10).astype("u4")
    c.twins(1, 45, [c.input(x), any_(c, 10)], [c.input(x), {"buffer": any_(c, 10)["buffer"], "expect": c._store(bins, "")}])


@planted
def null(c):
    c.twins(1, 1, [any_(c, 3, "f4"), u64(0)], [c.output(np.array([2.5], "f4"), start=[2.5]), u64(0)])


@planted
def misaligned_global(c):
    x = c.bits(3)
    c.twins(1, 1, [c.input(x), any_(c, 1)], [c.input(x), c.output(np.frombuffer(x.tobytes()[2:6], "u4"))])


@planted
def misaligned_vector(c):
    x = c.uniform(6, 5)
    c.twins(1, 6, [c.input(x), any_(c, 6, "f4")], [c.input(x), c.output(x[:, 3])])


@planted
def misaligned_shared(c):
    c.twins(1, 1, [any_(c, 1, "u8")], [c.output(np.array([5], "u8"))])


@planted
def uninit_global(c):
    c.twins(1, 45, [fresh(180), any_(c, 45)], [fresh(180), c.output(np.arange(45, dtype="u4"))])


@planted
def uninit_part(c):
    c.twins(1, 1, [fresh(4), any_(c, 1)], [fresh(4), c.output(np.array([3], "u4"))])


@planted
def uninit_shared(c):
    x = c.integers(50, dtype=np.uint32)
    c.twins(1, 64, [c.input(x), any_(c, 1), u32(50)], [c.input(x), c.output(np.array([x.sum()], "u4")), u32(50)])


@planted
def uninit_async(c):
    x = c.bits(32, 4)
    c.twins(1, 32, [c.input(x), any_(c, 32)], [c.input(x), c.output(x[:, 1])])


@planted
def uninit_local(c):
    c.twins(1, 1, [any_(c, 1), u32(13)], [c.output(np.array([13], "u4")), u32(13)])


@planted
def uninit_vector(c):
    c.twins(1, 64, [any_(c, 256)], [c.output(np.repeat(np.arange(64, dtype="u4"), 4))])


@planted
def uninit_lane(c):
    c.twins(1, 32, [fresh(128), any_(c, 32)], [fresh(128), c.output(np.arange(32, dtype="u4"))])


@planted
def shared_oob(c):
    c.twins(1, 32, [any_(c, 32)], [c.output(np.roll(np.arange(32, dtype="u4"), -1))])


@planted
def shared_oob_dynamic(c):
    c.twins(1, 1, [any_(c, 1)], [c.output(np.array([1], "u4"))], shared=64)


@planted
def local_oob(c):
    c.twins(1, 1, [any_(c, 1)], [c.output(np.array([7], "u4"))])


@planted
def race_shared(c):
    x = c.bits(64)
    c.twins(1, 64, [c.input(x), any_(c, 64)], [c.input(x), c.output(x[::-1])])


@planted
def race_shared_loop(c):
    x = c.integers(64, dtype=np.uint32)
    c.twins(1, 64, [c.input(x), any_(c, 64)], [c.input(x), c.output(3 * x[::-1] + np.uint32(3))])


@planted
def race_shared_write(c):
    c.twins(1, 64, [any_(c, 1)], [c.output(np.array([64], "u4"))])


@planted
def race_shared_warp(c):
    c.twins(1, 32, [any_(c, 32)], [c.output(np.arange(32, dtype="u4")[::-1])])


@planted
def race_shared_half(c):
    c.twins(1, (16, 2), [any_(c, 32)], [c.output(np.tile(np.arange(16, dtype="u4"), 2))])


@planted
def race_vector(c):
    i = np.arange(31, -1, -1, dtype="u4")
    c.twins(1, 32, [any_(c, 128)], [c.output(np.stack([i, i + 100, i + 200, i + 300], 1).astype("u4"))])


@planted
def race_global(c):
    c.twins(5, 1, [any_(c, 1)], [c.output(np.array([5], "u4"), start=[0])])


@planted
def race_global_halo(c):
    x = c.bits(97)
    c.twins(3, 32, [{"buffer": c.input(x)["buffer"]}, any_(c, 96)], [c.input(x), c.output(x[:-1] + x[1:])])


@planted
def race_global_block(c):
    x = 3 * np.arange(64, dtype="u4")
    c.twins(1, 64, [any_(c, 64), any_(c, 64)], [c.output(x), c.output(x[::-1])])


@planted
def race_global_vector(c):
    i = np.arange(32, dtype="u4")
    x = np.stack([i, i + 50], 1).astype("u4")
    c.twins(1, 32, [any_(c, 64), any_(c, 64)], [c.output(x), c.output(x[::-1])])


@planted
def barrier_divergence(c):
    i = np.arange(32, dtype="u4")
    c.twins(1, 32, [any_(c, 32)], [c.output(i + 100 * (i < 16).astype("u4"))])


@planted
def barrier_other(c):
    c.twins(1, 64, [any_(c, 64)], [c.output(np.repeat(np.array([1, 2], "u4"), 32))])


@planted
def absent_lane(c):
    c.twins(1, 32, [any_(c, 30), u32(30)], [c.output(np.arange(30, dtype="u4") ^ np.uint32(1)), u32(30)])


@planted
def absent_source(c):
    i = np.arange(32, dtype="u4")
    c.twins(1, 32, [any_(c, 32)], [c.output(np.where(i < 8, i + 8, i).astype("u4"))])


@planted
def absent_self(c):
    c.twins(1, 32, [any_(c, 31)], [c.output(np.full(31, 0x2AAAAAAA, "u4"))])


@planted
def trap(c):
    x = c.integers(40, low=1, high=50)
    x[17] = -4
    c.twins(1, 40, [{"buffer": c.input(x)["buffer"]}], [c.output(np.where(x > 0, -1, x).astype("i4"), start=x)])


@planted
def timeout(c):
    c.twins(1, 1, [any_(c, 1)], [c.output(np.array([101], "u4"))])


@planted
def timeout_flag(c):
    c.twins(1, 64, [any_(c, 2)], [c.output(np.array([9, 9], "u4"), start=[0, 0])])


@planted
def stack_overflow(c):
    c.twins(1, 1, [any_(c, 1)], [c.output(np.array([210], "u4"))])


@planted
def printf_size(c):
    c.twins(1, 1, [u64(5), any_(c, 1)], [u64(5), c.output(np.array([7], "u4"))])


@planted
def unsupported(c):
    c.twins(1, 1, [u64(0), any_(c, 4)])
