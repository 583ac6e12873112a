// Prefix sums: in a warp by `shfl.up`, in a block by warp sums, in shared memory by Blelloch's tree, and over
// a whole grid with blocks that wait for the one before them.

extern "C" __global__ void warp_scan(const int *x, int *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32;
    int sum = i < n ? x[i] : 0;
    for (int d = 1; d < 32; d *= 2) {
        int left = __shfl_up_sync(~0u, sum, d);
        if (lane >= d) sum += left;
    }
    if (i < n) y[i] = sum;
}

// Segments of 8 lanes: the width operand of the shuffle keeps them apart.
extern "C" __global__ void segment_scan(const int *x, int *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int sum = i < n ? x[i] : 0;
    for (int d = 1; d < 8; d *= 2) {
        int left = __shfl_up_sync(~0u, sum, d, 8);
        if (threadIdx.x % 8 >= d) sum += left;
    }
    if (i < n) y[i] = sum;
}

__device__ float block_inclusive(float v) {
    __shared__ float warps[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int d = 1; d < 32; d *= 2) {
        float left = __shfl_up_sync(~0u, v, d);
        if (lane >= d) v += left;
    }
    if (lane == 31) warps[warp] = v;
    __syncthreads();
    if (warp == 0) {
        float s = lane < blockDim.x / 32 ? warps[lane] : 0;
        for (int d = 1; d < 32; d *= 2) {
            float left = __shfl_up_sync(~0u, s, d);
            if (lane >= d) s += left;
        }
        warps[lane] = s;
    }
    __syncthreads();
    return warp ? v + warps[warp - 1] : v;
}

extern "C" __global__ void block_scan(const float *x, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float v = block_inclusive(i < n ? x[i] : 0);
    if (i < n) y[i] = v;
}

// Exclusive, work-efficient; the index is padded so that strides of 2^k meet no bank conflict.
extern "C" __global__ void blelloch(const int *x, int *y, int n) {
    extern __shared__ int tree[];
    auto at = [](int i) { return i + (i >> 5); };
    int t = threadIdx.x, size = 2 * blockDim.x, offset = 1;
    tree[at(2 * t)] = 2 * t < n ? x[2 * t] : 0;
    tree[at(2 * t + 1)] = 2 * t + 1 < n ? x[2 * t + 1] : 0;
    for (int d = size / 2; d > 0; d /= 2, offset *= 2) {
        __syncthreads();
        if (t < d) tree[at(offset * (2 * t + 2) - 1)] += tree[at(offset * (2 * t + 1) - 1)];
    }
    if (t == 0) tree[at(size - 1)] = 0;
    for (int d = 1; d < size; d *= 2) {
        offset /= 2;
        __syncthreads();
        if (t < d) {
            int a = at(offset * (2 * t + 1) - 1), b = at(offset * (2 * t + 2) - 1), left = tree[a];
            tree[a] = tree[b];
            tree[b] += left;
        }
    }
    __syncthreads();
    if (2 * t < n) y[2 * t] = tree[at(2 * t)];
    if (2 * t + 1 < n) y[2 * t + 1] = tree[at(2 * t + 1)];
}

// A chained scan: a ticket orders the blocks, each spins until the block before it has published its sum.
// state[0] is the ticket; state[1 + b] = 1 + sum of blocks 0..=b once known.
extern "C" __global__ void chained_scan(const unsigned *x, unsigned *y, unsigned *state, int n) {
    __shared__ unsigned block, before, warps[32];
    int t = threadIdx.x, lane = t % 32, warp = t / 32;
    if (t == 0) block = atomicAdd(state, 1);
    __syncthreads();
    int i = block * blockDim.x + t;
    unsigned v = i < n ? x[i] : 0;
    for (int d = 1; d < 32; d *= 2) {
        unsigned left = __shfl_up_sync(~0u, v, d);
        if (lane >= d) v += left;
    }
    if (lane == 31) warps[warp] = v;
    __syncthreads();
    for (int w = 0; w < warp; w++) v += warps[w];
    if (t == blockDim.x - 1) {
        volatile unsigned *ready = state + 1;
        unsigned sum = 0;
        if (block) {
            while (!(sum = ready[block - 1])) {}
            sum--;
        }
        __threadfence();
        ready[block] = sum + v + 1;
        before = sum;
    }
    __syncthreads();
    if (i < n) y[i] = v + before;
}
