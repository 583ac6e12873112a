"""torch.distributed's gloo, all-reduce of 1, 16 and 64 MiB of f32 between processes, beside `ringtape bench all-reduce`:
median bus bandwidth, 2(p-1)/p bytes/time. Usage: python benches/gloo_all_reduce.py [RANKS]"""
import os, statistics, sys, time
import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def rank(r, p, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=r, world_size=p)
    for mib in (1, 16, 64):
        x, times = torch.zeros(mib << 18), []
        for i in range(-2, 300 if mib == 1 else 30):
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(x)
            if i >= 0:
                times.append(time.perf_counter() - start)
        t = statistics.median(times)
        if r == 0:
            print(f"gloo {mib} MiB {t * 1e3:.3f} ms {2 * (p - 1) / p * mib * 2**20 / t / 1e9:.2f} GB/s", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    p = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    mp.spawn(rank, args=(p, 29555), nprocs=p)
