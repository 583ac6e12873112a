#!/usr/bin/env python3
"""Writes the inputs, the expected outputs and the manifests of the corpus, from NumPy alone.

usage: make.py           writes {cuda,triton,faults,syntax,forms}/*.json and data/*.npy
       make.py --check   makes them afresh in memory and compares: manifests, inputs and integers exactly,
                         expected floats within 1e-5 (another NumPy may round its exp otherwise)

What a kernel should answer is computed in expect/*.py without looking at its PTX. An output buffer starts as
a fixed pattern and is longer than what the kernel writes, so that a write too few or too many is a difference.
"""
import importlib
import io
import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
GUARD = 5  # elements after the end of each output, which must keep the pattern


def pattern(dtype):
    """The value of an element that no kernel has written."""
    dtype = np.dtype(dtype)
    return dtype.type(-777.25) if dtype.kind == "f" else np.frombuffer(b"\xa5" * dtype.itemsize, dtype)[0]


def u32(v): return {"u32": int(v)}
def i32(v): return {"i32": int(v)}
def u64(v): return {"u64": int(v)}
def f32(v): return {"f32": float(np.float32(v))}
def f64(v): return {"f64": float(v)}
def fresh(n): return {"alloc": n}  # n bytes that nobody has written


class Case:
    """One PTX file: its runs, and the arrays they name."""

    def __init__(self, folder, name):
        self.folder, self.name, self.runs, self.clean, self.arrays = folder, name, [], [], {}
        self.made = self.forms = None
        self.rng = np.random.default_rng(int.from_bytes((folder + name).encode()[:16], "little"))

    # Inputs
    def uniform(self, *shape, low=-1.0, high=1.0, dtype=np.float32):
        return (low + (high - low) * self.rng.random(shape)).astype(dtype)

    def integers(self, *shape, low=0, high=100, dtype=np.int32):
        return self.rng.integers(low, high, shape, dtype=np.int64 if np.dtype(dtype) != np.uint64 else np.uint64).astype(dtype)

    def bits(self, *shape):
        return self.rng.integers(0, 1 << 32, shape, dtype=np.uint64).astype(np.uint32)

    # Arguments
    def _store(self, array, stem):
        array = np.ascontiguousarray(array)
        for name, other in self.arrays.items():
            if other.dtype == array.dtype and other.shape == array.shape and other.tobytes() == array.tobytes():
                return f"../data/{name}.npy"
        name = stem if stem.startswith("fill_") else f"{self.folder}_{self.name}_{len(self.arrays)}"
        self.arrays[name] = array
        return f"../data/{name}.npy"

    def input(self, array):
        """A buffer that is read; it must come back unchanged."""
        name = self._store(array, "in")
        return {"buffer": name, "expect": name}

    def output(self, expect, rtol=0.0, atol=0.0, start=None):
        """A buffer that the kernel fills (or updates from `start`)."""
        expect = np.asarray(expect)
        guard = np.full(GUARD, pattern(expect.dtype), expect.dtype)
        flat = np.full(expect.size, guard[0]) if start is None else np.asarray(start, expect.dtype).reshape(-1)
        stem = f"fill_{expect.dtype.str[1:]}_{expect.size}" if start is None else "in"
        arg = {"buffer": self._store(np.concatenate([flat, guard]), stem),
               "expect": self._store(np.concatenate([expect.reshape(-1), guard]), "out")}
        if expect.dtype.kind == "f" and (rtol or atol):
            arg |= {"rtol": rtol, "atol": atol}
        return arg

    def run(self, kernel, grid, block, args, shared=0, ptx=None, **more):
        three = lambda v: (list(v) if isinstance(v, (tuple, list)) else [v]) + [1] * (3 - (len(v) if isinstance(v, (tuple, list)) else 1))
        self.runs.append({"ptx": (ptx or self.name) + ".ptx", "kernel": kernel, "grid": three(grid), "block": three(block),
                          "shared_bytes": shared, "args": args} | more)

    def triton(self, grid, args, **more):
        """A run of a kernel from Triton: its block and shared memory stand in the first line of the PTX, and it
        takes two more pointers for scratch memory that it does not use."""
        head = (HERE / "triton" / f"{self.name}.ptx").read_text().splitlines()[0]
        launch = dict(word.split("=") for word in head.split()[2:])
        self.run(self.name, grid, int(launch["threads"]), [*args, u64(0), u64(0)], int(launch["shared"]), **more)

    def twins(self, grid, block, faulty, clean=None, shared=0):
        """A planted fault and the same kernel without it."""
        self.run("faulty", grid, block, faulty, shared)
        if clean:
            self.run("clean", grid, block, clean, shared)
            self.clean.append(self.runs.pop())

    def files(self):
        """(path, bytes) of all that belongs to this case."""
        yield HERE / self.folder / f"{self.name}.json", self.forms.encode() if self.forms else listed(self.runs)
        if self.made:
            yield HERE / self.folder / f"{self.name}.ptx", self.made.encode()
        if self.clean:
            yield HERE / self.folder / f"{self.name}_clean.json", listed(self.clean)
        for name, array in self.arrays.items():
            out = io.BytesIO()
            np.save(out, array)
            yield HERE / "data" / f"{name}.npy", out.getvalue()


def listed(rows):
    """JSON, one row a line."""
    return ("[\n" + ",\n".join("  " + json.dumps(row) for row in rows) + "\n]\n").encode()


CASES = []


def case(folder, name):
    """Marks a function `f(case)` that fills the case of `folder/name.ptx`."""
    def mark(f):
        CASES.append((folder, name, f))
        return f
    return mark


def planted(c):
    """A row of faults/index.json: the kind of fault, and the lines at which it may be found, from the marks in the PTX."""
    marks = [(n, line.split("// FAULT ")[1].split()[0]) for n, line in enumerate((HERE / "faults" / f"{c.name}.ptx").read_text().splitlines(), 1) if "// FAULT " in line]
    assert len({kind for _, kind in marks}) == 1, c.name
    row = {"faulty": f"{c.name}.json", "kind": marks[0][1], "lines": [n for n, _ in marks]}
    return row | ({"clean": f"{c.name}_clean.json"} if c.clean else {})


def same(a, b):
    """Are two .npy files the same, floats within 1e-5?"""
    a, b = np.load(io.BytesIO(a)), np.load(io.BytesIO(b))
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return np.allclose(a, b, 1e-5, 1e-6, equal_nan=True) if a.dtype.kind == "f" else np.array_equal(a, b)


def main():
    check = "--check" in sys.argv[1:]
    sys.path.insert(0, str(HERE / "expect"))
    sys.modules["make"] = sys.modules["__main__"]
    for path in sorted((HERE / "expect").glob("*.py")):
        importlib.import_module(path.stem)
    files, faults = {}, []
    for folder, name, fill in CASES:
        c = Case(folder, name)
        fill(c)
        files.update(c.files())
        if folder == "faults":
            faults.append(planted(c))
    files[HERE / "faults" / "index.json"] = listed(faults)
    bad = []
    for path, data in files.items():
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        elif not path.exists() or (path.read_bytes() != data and not (path.suffix == ".npy" and same(path.read_bytes(), data))):
            bad.append(path)
    bad += [p for p in [*HERE.glob("data/*.npy"), *HERE.glob("cuda/*.json"), *HERE.glob("triton/*.json"), *HERE.glob("faults/*.json"), *HERE.glob("syntax/*.json"), *HERE.glob("forms/*")] if p not in files]
    for path in bad:
        print(f"{'differs, is missing or is left over' if check else 'left over'}: {path.relative_to(HERE)}")
    runs = sum(len(json.loads(data)) for path, data in files.items() if path.suffix == ".json" and path.parent.name != "forms")
    print(f"{len(CASES)} files, {runs} runs, {sum(map(len, files.values())) / 1e6:.2f} MB")
    sys.exit(1 if check and bad else 0)


if __name__ == "__main__":
    main()
