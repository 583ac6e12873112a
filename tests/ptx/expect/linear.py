"""Matrix products, softmax, layer normalisation, attention."""
import numpy as np
from make import case, f32, i32


@case("cuda", "gemm")
def gemm(c):
    m, n, k = 45, 70, 37
    a, b = c.uniform(m, k), c.uniform(k, n)
    y = c.output((a.astype(float) @ b).astype("f4"), 1e-5, 1e-5)
    args = [c.input(a), c.input(b), y, i32(m), i32(n), i32(k)]
    c.run("gemm_naive", [5, 6], [16, 8], args)
    c.run("gemm_tiled", [5, 3], [16, 16], args)
    c.run("gemm_registers", [2, 1], 256, args)


@case("cuda", "softmax")
def softmax(c):
    x = c.uniform(5, 83, low=-4, high=4)
    e = np.exp(x.astype(float) - x.max(1, keepdims=True))
    y = (e / e.sum(1, keepdims=True)).astype("f4")
    c.run("softmax_rows", 5, 64, [c.input(x), c.output(y, 1e-5, 1e-7), i32(83)])
    c.run("softmax_warp", 2, 96, [c.input(x), c.output(y, 1e-5, 1e-7), i32(5), i32(83)])
    dy = c.uniform(5, 83)
    dx = y * (dy - (y.astype(float) * dy).sum(1, keepdims=True))
    c.run("softmax_backward", 3, [32, 2], [c.input(y), c.input(dy), c.output(dx.astype("f4"), 1e-5, 1e-6), i32(5), i32(83)])


@case("cuda", "layer_norm")
def layer_norm(c):
    rows, columns, eps = 9, 75, 1e-5
    x, w, b, dy = c.uniform(rows, columns, low=1, high=4), c.uniform(columns), c.uniform(columns), c.uniform(rows, columns)
    mean = x.mean(1, dtype=float)
    rstd = 1 / np.sqrt(x.var(1, dtype=float) + eps)
    hat = (x - mean[:, None]) * rstd[:, None]
    f = lambda v: c.output(v.astype("f4"), 2e-5, 2e-5)
    c.run("layer_norm", rows, 64, [c.input(x), c.input(w), c.input(b), f(hat * w + b), f(mean), f(rstd), i32(columns), f32(eps)])
    c.run("layer_norm_backward_weight", 3, [32, 8], [c.input(x), c.input(dy), c.input(mean.astype("f4")), c.input(rstd.astype("f4")),
                                                     f((dy * hat).sum(0)), f(dy.sum(0, dtype=float)), i32(rows), i32(columns)])
