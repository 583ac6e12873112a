"""tinygrad, which knows nothing of ringtape, trains on whatever libcuda.so.1 the loader finds (DEV=CUDA:PTX).

A two-layer network learns to tell whether a point lies inside a circle; the same steps in NumPy give the same losses.
"""

import numpy as np
from tinygrad import Device, Tensor

assert Device.DEFAULT == "CUDA", f"tinygrad runs on {Device.DEFAULT}, not on CUDA"
rng = np.random.default_rng(3)
x = rng.uniform(-1, 1, (64, 2)).astype(np.float32)
y = (np.hypot(x[:, 0], x[:, 1]) < 0.7).astype(np.float32)[:, None]
w1, w2 = (rng.standard_normal(s).astype(np.float32) for s in ((2, 16), (16, 1)))


def by_numpy(w1, w2, steps, rate):
    w1, w2, losses = w1.copy(), w2.copy(), []
    for _ in range(steps):
        h = np.maximum(x @ w1, 0)
        d = h @ w2 - y
        losses.append(float((d * d).mean()))
        g = 2 * d / len(x)
        gh = g @ w2.T * (h > 0)
        w2 -= rate * h.T @ g
        w1 -= rate * x.T @ gh
    return losses


def by_tinygrad(w1, w2, steps, rate):
    losses = []
    for _ in range(steps):
        a, b = Tensor(w1), Tensor(w2)
        loss = (((Tensor(x) @ a).relu() @ b - Tensor(y)) ** 2).mean()
        da, db = loss.gradient(a, b)
        losses.append(loss.item())
        w1, w2 = w1 - rate * da.numpy(), w2 - rate * db.numpy()
    return losses


want, got = by_numpy(w1, w2, 12, 0.05), by_tinygrad(w1, w2, 12, 0.05)
assert np.allclose(want, got, rtol=1e-4), (want, got)
assert got[-1] < 0.7 * got[0], got
print(f"tinygrad: loss {got[0]:.4f} to {got[-1]:.4f} in {len(got)} steps, as NumPy has it")
