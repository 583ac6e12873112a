"""A sequential epoch of a packed file of 2 GB that is not in the page cache, beside `dd`, in turns.

    python benches/cold_loader.py --rounds 5

The file (2^30 random tokens of two bytes) is made in a temporary folder and removed; `--folder` says where, since a tmpfs
has no cold pages. Before each turn its pages are dropped (`posix_fadvise`, and `mincore` counts what stayed). The loader
makes batches of 16 x 1024 tokens as inputs and targets of i32, checks each block against its checksum, and may take 256 MB
of anonymous memory (`RLIMIT_DATA`: private writable mappings and the heap). `dd` reads with bs=1M into /dev/null.
"""

import argparse
import ctypes
import json
import mmap
import os
import pathlib
import resource
import statistics
import subprocess
import tempfile
import time

LIMIT = 256 << 20


def executable():
    command = ["cargo", "bench", "-q", "--bench", "parts", "--no-run", "--message-format=json"]
    lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    return next(m["executable"] for m in map(json.loads, lines) if m.get("target", {}).get("name") == "parts")


def drop(path):
    """Takes the file out of the page cache; gives the share that stayed."""
    with open(path, "rb") as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY) as m:
            pages = (ctypes.c_ubyte * -(-len(m) // mmap.PAGESIZE))()
            start = ctypes.addressof(ctypes.c_char.from_buffer(m))
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(m)), pages) != 0:
                raise OSError(ctypes.get_errno(), "mincore")
            return sum(p & 1 for p in pages) / len(pages)


def turn(command, path, limit=False):
    """Seconds by the wall, and what the command printed, from a cold start."""
    stayed = drop(path)
    if stayed > 0.01:
        raise SystemExit(f"{stayed:.0%} of {path} stayed in the page cache: is its folder a tmpfs?")
    held = (lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))) if limit else None
    start = time.perf_counter()
    out = subprocess.run(command, capture_output=True, check=True, preexec_fn=held).stdout
    return time.perf_counter() - start, out


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--folder", help="where the file is made")
    a.add_argument("--binary", help="the benchmark `parts`; built when not given")
    a = a.parse_args()
    parts = a.binary or executable()
    rates = {"dd": [], "mmap": [], "read": []}
    with tempfile.TemporaryDirectory(dir=a.folder) as folder:
        path = str(pathlib.Path(folder, "tokens.rtd"))
        subprocess.run([parts, "pack", path], check=True, capture_output=True)
        size = os.path.getsize(path)
        for k in range(a.rounds):
            # Another one begins each round: a rented disk may be fast until its credit is spent.
            for name in [*rates][k % 3 :] + [*rates][: k % 3]:
                if name == "dd":
                    rates["dd"].append(size / turn(["dd", f"if={path}", "of=/dev/null", "bs=1M"], path)[0])
                    continue
                found = json.loads(turn([parts, "epoch", path, name], path, limit=True)[1])
                rates[name].append(found["bytes"] / found["seconds"])
    base = statistics.median(rates["dd"])
    print("| sequential epoch of 2 GiB, cold | MB/s, median (extremes) | of dd |")
    print("|---|---|---|")
    for name, found in rates.items():
        m = statistics.median(found)
        print(f"| {name} | {m / 1e6:.0f} ({min(found) / 1e6:.0f}–{max(found) / 1e6:.0f}) | {m / base:.0%} |")


if __name__ == "__main__":
    main()
