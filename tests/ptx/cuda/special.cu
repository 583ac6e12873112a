// Special registers in a grid of three dimensions; clocks that run on. Of the number of a warp hardware promises only that it is below
// %nwarpid: it is a place in the processor, not in the block.
extern "C" __global__ void where(unsigned *y) {
    unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    unsigned *o = y + 6 * (block * blockDim.x * blockDim.y * blockDim.z + thread), lane, warp, warps;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    asm volatile("mov.u32 %0, %%warpid;" : "=r"(warp));
    asm volatile("mov.u32 %0, %%nwarpid;" : "=r"(warps));
    o[0] = blockIdx.x | blockIdx.y << 8 | blockIdx.z << 16, o[1] = threadIdx.x | threadIdx.y << 8 | threadIdx.z << 16;
    o[2] = gridDim.x | gridDim.y << 8 | gridDim.z << 16, o[3] = blockDim.x | blockDim.y << 8 | blockDim.z << 16;
    o[4] = lane == thread % 32, o[5] = warp < warps;
}
extern "C" __global__ void clocks(unsigned *y) {
    long long a = clock64(), t0, t1;
    unsigned b = clock();
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t0));
    __nanosleep(100);
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t1));
    unsigned sm, sms, dynamic;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
    asm volatile("mov.u32 %0, %%nsmid;" : "=r"(sms));
    asm volatile("mov.u32 %0, %%dynamic_smem_size;" : "=r"(dynamic));
    y[threadIdx.x] = (clock64() >= a) | ((unsigned)clock() - b < 1u << 30) << 1 | (t1 >= t0) << 2 | (sm < sms) << 3 | (dynamic == 40) << 4;
}
extern "C" __global__ void __launch_bounds__(48, 2) grid_stride(const int *x, int *y, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += blockDim.x * gridDim.x) y[i] = x[i] * 2 + 1;
}
