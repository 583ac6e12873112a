// Counts of bytes: atomics on shared memory, then one atomic a bin on global memory; and private counters.

extern "C" __global__ void histogram(const unsigned char *x, unsigned *bins, int n) {
    __shared__ unsigned mine[256];
    for (int b = threadIdx.x; b < 256; b += blockDim.x) mine[b] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&mine[x[i]], 1);
    __syncthreads();
    for (int b = threadIdx.x; b < 256; b += blockDim.x)
        if (mine[b]) atomicAdd(&bins[b], mine[b]);
}

// 16 bins of 8-bit counters for each thread, added up by the first 16 threads.
extern "C" __global__ void nibble_histogram(const unsigned *x, unsigned *bins, int n) {
    __shared__ unsigned char count[16][64];
    for (int b = 0; b < 16; b++) count[b][threadIdx.x] = 0;
    for (int i = blockIdx.x * 64 + threadIdx.x; i < n; i += 64 * gridDim.x)
        for (int k = 0; k < 32; k += 4) count[(x[i] >> k) & 15][threadIdx.x]++;
    __syncthreads();
    if (threadIdx.x >= 16) return;
    unsigned sum = 0;
    for (int t = 0; t < 64; t++) sum += count[threadIdx.x][(t + threadIdx.x) % 64];
    atomicAdd(&bins[threadIdx.x], sum);
}

// Lanes with the same key elect one to add for all of them.
extern "C" __global__ void match_histogram(const int *x, int *bins, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned here = __activemask(), same = __match_any_sync(here, x[i]);
    if (__ffs(same) - 1 == threadIdx.x % 32) atomicAdd(&bins[x[i]], __popc(same));
}
