"""Speed of a PyTorch eager training step of the character GPT: forward, backward, AdamW, in f32 or bf16 on the CPU.

    pip install torch numpy
    python benches/pytorch_step.py --threads 2 --dim 128 --heads 4

Prints one JSON object: tokens_per_s and step_s (both of the median step), threads, the sizes, the resident memory after
the import and at its peak. To compare, run it beside `ringtape bench step`, in turns, on a quiet machine.
"""

import argparse
import json
import resource
import statistics
import time

import torch
from pytorch_gpt import Gpt


def memory():
    """Largest resident set so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--layers", type=int, default=4)
    a.add_argument("--dim", type=int, default=128)
    a.add_argument("--heads", type=int, default=4)
    a.add_argument("--context", type=int, default=256)
    a.add_argument("--batch", type=int, default=16)
    a.add_argument("--vocabulary", type=int, default=256)
    a.add_argument("--steps", type=int, default=20, help="steps that are timed")
    a.add_argument("--warmup", type=int, default=3, help="steps before them")
    a.add_argument("--adamw", choices=["fused", "foreach", "plain"], default="fused", help="which of PyTorch's AdamW")
    a.add_argument("--precision", choices=["f32", "bf16"], default="f32", help="bf16: forward under autocast")
    a = a.parse_args()
    imported = memory()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    model = Gpt(a.vocabulary, a.context, a.layers, a.dim, a.heads)
    how = {"fused": {"fused": True}, "foreach": {"foreach": True}, "plain": {"foreach": False}}[a.adamw]
    optimizer = torch.optim.AdamW(model.groups(0.1), lr=3e-4, **how)
    ids = torch.randint(a.vocabulary, (a.warmup + a.steps, a.batch, a.context + 1))
    seconds = []
    for x in ids:
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=a.precision == "bf16"):
            loss = model.loss(x[:, :-1], x[:, 1:])
        loss.backward()
        optimizer.step()
        loss.item()
        seconds.append(time.perf_counter() - start)
    step = statistics.median(seconds[a.warmup:])
    print(json.dumps({
        "program": f"pytorch {torch.__version__.split('+')[0]}", "tokens_per_s": a.batch * a.context / step, "step_s": step,
        "step_s_min": min(seconds[a.warmup:]), "step_s_max": max(seconds[a.warmup:]), "threads": a.threads,
        "layers": a.layers, "dim": a.dim, "heads": a.heads, "context": a.context, "batch": a.batch,
        "vocabulary": a.vocabulary, "steps": a.steps, "adamw": a.adamw, "precision": a.precision,
        "parameters": sum(p.numel() for p in model.parameters()), "bytes_imported": imported, "bytes_peak": memory(),
    }))


if __name__ == "__main__":
    main()
