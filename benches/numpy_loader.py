"""Random batches of 16 x 1024 tokens from a packed file of 2 GB in the page cache, beside numpy.memmap, in turns.

    pip install numpy
    python benches/numpy_loader.py --rounds 5

The file (2^30 random tokens of two bytes) is made in a temporary folder and removed. Both sides map the same file, have
touched every page of it, and sum every batch: as views of the stored u16, and widened to i32 in a batch `[16, 1024]` of
inputs and one of targets, the same windows one token later.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np

BATCH, WINDOW = 16, 1024


def parts(*args):
    command = ["cargo", "bench", "-q", "--bench", "parts", "--", *args]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def timed(run, seconds=0.5):
    times, begin = [], time.perf_counter()
    while len(times) < 20 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times), min(times)


def theirs(path, offset, tokens):
    data = np.memmap(path, dtype=np.uint16, mode="r", offset=offset, shape=(tokens,))
    data.sum()
    rng = np.random.default_rng(0)

    def starts():
        return rng.integers(0, tokens // WINDOW - 1, BATCH) * WINDOW

    def views():
        for i in starts():
            data[i : i + WINDOW].sum()

    def widened():
        ix = starts()
        for at in (0, 1):
            np.stack([data[i + at : i + at + WINDOW].astype(np.int32) for i in ix]).sum()

    return timed(views), timed(widened)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--rounds", type=int, default=5)
    a = a.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder, "tokens.rtd"))
        packed = parts("pack", path)
        for _ in range(a.rounds):
            views, *loaders = parts("loader", path)
            numpy_views, numpy_wide = theirs(path, packed["offset"], packed["tokens"])
            for case, other in [(views, numpy_views)] + [(c, numpy_wide) for c in loaders]:
                row = rows.setdefault(case["what"], ([], [], [], []))
                for column, value in zip(row, (case["median"], case["min"], *other)):
                    column.append(value)
    print("| batch | ringtape µs (best) | numpy µs (best) | ratio | of the best | ringtape samples/s |")
    print("|---|---|---|---|---|---|")
    for what, (mine, best, other, fastest) in rows.items():
        m, o = statistics.median(mine), statistics.median(other)
        print(
            f"| {what} | {m * 1e6:.1f} ({min(best) * 1e6:.1f}) | {o * 1e6:.1f} ({min(fastest) * 1e6:.1f}) "
            f"| {o / m:.2f} | {min(fastest) / min(best):.2f} | {BATCH / m:.0f} |"
        )


if __name__ == "__main__":
    main()
