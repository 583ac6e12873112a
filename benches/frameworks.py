"""The training step of a character GPT in ringtape, candle and burn, in turns: tokens a second and peak memory.

    cargo build --release
    for f in candle burn; do RUSTFLAGS="-C target-cpu=native" cargo build --release --features $f \
        --manifest-path benches/frameworks/Cargo.toml --target-dir target/frameworks; done
    python benches/frameworks.py --dims 128 --threads 2 1 --rounds 3

All train 4 layers on 16 x 256 tokens of a vocabulary of 256 in f32 with AdamW. Ours is the whole of `ringtape train` with
its data, clipping and log; the others are forward, backward and AdamW on random tokens (`benches/frameworks`). They are
built for this very processor, as their authors advise; ringtape chooses its instructions when it runs.
"""

import argparse
import json
import pathlib
import statistics
import tempfile

from pytorch_turns import ours, run, text


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--dims", type=int, nargs="+", default=[128])
    a.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--steps", type=int, default=5, help="steps that are timed in a turn")
    a.add_argument("--binary", default="target/release/ringtape")
    a.add_argument("--frameworks", default="target/frameworks/release", help="folder of candle_step and burn_step")
    a = a.parse_args()
    a.precision = "f32"
    programs = ["ringtape", "candle", "burn"]
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        data = pathlib.Path(scratch) / "letters.rtd"
        text(data.with_suffix(".txt"))
        run([a.binary, "data", "pack", str(data.with_suffix(".txt")), "--out", str(data)], 1)
        for turn in range(a.rounds):
            for dim in a.dims:
                for threads in a.threads:
                    case = found.setdefault((dim, threads), {p: [] for p in programs})
                    case["ringtape"].append(ours(a, data, f"{scratch}/{turn}-{dim}-{threads}", dim, threads))
                    for p in programs[1:]:
                        memory, out = run([f"{a.frameworks}/{p}_step", str(dim), str(a.steps)], threads)
                        case[p].append((json.loads(out)["tokens_per_s"], memory))
    print("| d | threads | program | k tokens/s | ringtape is so many times as fast | peak MiB |")
    print("|---|---|---|---|---|---|")
    for (dim, threads), case in found.items():
        base = statistics.median(rate for rate, _ in case["ringtape"])
        for p, turns in case.items():
            rates = [rate / 1e3 for rate, _ in turns]
            m, memory = statistics.median(rates), statistics.median(memory for _, memory in turns)
            ratio = "" if p == "ringtape" else f"{base / 1e3 / m:.1f}"
            print(f"| {dim} | {threads} | {p} | {m:.2f} ({min(rates):.2f}–{max(rates):.2f}) | {ratio} | {memory / 2**20:.0f} |")


if __name__ == "__main__":
    main()
