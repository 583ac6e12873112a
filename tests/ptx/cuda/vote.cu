// What lanes of a warp tell each other: votes, matches, all shuffles with their widths and predicates, lane masks,
// and masks of part of a warp.

extern "C" __global__ void votes(const int *x, unsigned *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, v = x[i];
    unsigned *o = y + 8 * i;
    o[0] = __ballot_sync(~0u, v > 0), o[1] = __all_sync(~0u, v > -90), o[2] = __any_sync(~0u, v == 7), o[3] = 0;
    int same;
    unsigned uni;
    asm volatile("{\n\t.reg .pred p, q;\n\tsetp.ne.s32 q, %1, 0;\n\tvote.sync.uni.pred p, q, -1;\n\tselp.u32 %0, 1, 0, p;\n\t}" : "=r"(uni) : "r"(v & 0));
    o[3] = uni, o[4] = __match_any_sync(~0u, v % 3), o[5] = __match_all_sync(~0u, v / 1000, &same), o[6] = same;
    if (i & 2) o[7] = __ballot_sync(0xcccccccc, v & 1);
    else o[7] = __any_sync(0x33333333, v & 1);
}
extern "C" __global__ void shuffles(const int *x, int *y) {
    int i = threadIdx.x, v = x[i], *o = y + 12 * i, r;
    unsigned ok;
    o[0] = __shfl_sync(~0u, v, i * 7), o[1] = __shfl_sync(~0u, v, 3, 8), o[2] = __shfl_up_sync(~0u, v, 5), o[3] = __shfl_up_sync(~0u, v, 3, 16);
    o[4] = __shfl_down_sync(~0u, v, 9), o[5] = __shfl_down_sync(~0u, v, 1, 4), o[6] = __shfl_xor_sync(~0u, v, 21), o[7] = __shfl_xor_sync(~0u, v, 12, 8);
    asm volatile("{\n\t.reg .pred p;\n\tshfl.sync.down.b32 %0|p, %2, 4, 0x181f, -1;\n\tselp.u32 %1, 1, 0, p;\n\t}" : "=r"(r), "=r"(ok) : "r"(v));
    o[8] = r, o[9] = ok;
    double wide = __shfl_sync(~0u, (double)v * 1.5, (i + 1) % 32);
    o[10] = (int)wide;
    int half = v;
    if (i < 16) half = __shfl_xor_sync(0xffff, v, 3);
    o[11] = half;
}
extern "C" __global__ void lane_masks(unsigned *y) {
    unsigned i = threadIdx.x + blockDim.x * threadIdx.y, *o = y + 8 * i, v;
    asm("mov.u32 %0, %%lanemask_lt;" : "=r"(v)); o[0] = v;
    asm("mov.u32 %0, %%lanemask_le;" : "=r"(v)); o[1] = v;
    asm("mov.u32 %0, %%lanemask_eq;" : "=r"(v)); o[2] = v;
    asm("mov.u32 %0, %%lanemask_ge;" : "=r"(v)); o[3] = v;
    asm("mov.u32 %0, %%lanemask_gt;" : "=r"(v)); o[4] = v;
    asm("mov.u32 %0, %%laneid;" : "=r"(v)); o[5] = v;
    asm("mov.u32 %0, %%nwarpid;" : "=r"(v)); o[6] = v >= 2;
    o[7] = __activemask();
}
// A warp compacts its positive elements behind those of the warps before, in order.
extern "C" __global__ void compact(const float *x, float *y, unsigned *count, int n) {
    __shared__ unsigned base[8];
    int i = threadIdx.x, warp = i / 32;
    bool keep = i < n && x[i] > 0;
    unsigned b = __ballot_sync(~0u, keep), before = 0;
    if (i % 32 == 0) base[warp] = __popc(b);
    __syncthreads();
    for (int w = 0; w < warp; w++) before += base[w];
    if (keep) y[before + __popc(b & ((1u << i % 32) - 1))] = x[i];
    if (i == blockDim.x - 1) *count = before + __popc(b);
}
