// Sums, maxima and bit reductions of an array: through a shared-memory tree, through shuffles, through
// `redux`, and with a vector load per thread.
#include <cooperative_groups.h>

// One partial sum a block, tree in shared memory; n need not be a multiple of the block.
extern "C" __global__ void block_sum(const float *x, float *partial, int n) {
    __shared__ float sum[256];
    int t = threadIdx.x;
    float mine = 0;
    for (int i = blockIdx.x * blockDim.x + t; i < n; i += gridDim.x * blockDim.x) mine += x[i];
    sum[t] = mine;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) sum[t] += sum[t + half];
        __syncthreads();
    }
    if (t == 0) partial[blockIdx.x] = sum[0];
}

// One sum a row by one warp a row, `shfl.down`; several rows a block, so the last block has idle warps.
extern "C" __global__ void warp_row_sum(const float *x, float *y, int rows, int columns) {
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    float sum = 0;
    for (int c = lane; c < columns; c += 32) sum += x[row * columns + c];
    for (int d = 16; d > 0; d /= 2) sum += __shfl_down_sync(~0u, sum, d);
    if (lane == 0) y[row] = sum;
}

// The six integer reductions of a warp in one instruction each.
extern "C" __global__ void redux(const int *x, int *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, v = x[i];
    int *out = y + 6 * (i / 32);
    int add = __reduce_add_sync(~0u, v), low = __reduce_min_sync(~0u, v), high = __reduce_max_sync(~0u, v);
    unsigned all = __reduce_and_sync(~0u, (unsigned)v), any = __reduce_or_sync(~0u, (unsigned)v),
             odd = __reduce_xor_sync(~0u, (unsigned)v);
    if (i % 32 == 0) out[0] = add, out[1] = low, out[2] = high, out[3] = all, out[4] = any, out[5] = odd;
}

// Largest value and its first index: a pair goes through the butterfly, ties to the lower index.
extern "C" __global__ void argmax(const float *x, float *value, int *index, int n) {
    __shared__ float best[32];
    __shared__ int where[32];
    int t = threadIdx.x, lane = t % 32, warp = t / 32, at = -1;
    float v = -__int_as_float(0x7f800000);
    for (int i = t; i < n; i += blockDim.x)
        if (x[i] > v || at < 0) v = x[i], at = i;
    for (int pass = 0; pass < 2; pass++) {
        for (int d = 16; d > 0; d /= 2) {
            float w = __shfl_xor_sync(~0u, v, d);
            int b = __shfl_xor_sync(~0u, at, d);
            if (b >= 0 && (at < 0 || w > v || (w == v && b < at))) v = w, at = b;
        }
        if (pass == 1) break;
        if (lane == 0) best[warp] = v, where[warp] = at;
        __syncthreads();
        v = best[lane % (blockDim.x / 32)], at = where[lane % (blockDim.x / 32)];
    }
    if (t == 0) *value = v, *index = at;
}

// Dot product of 4-element vectors, the tail by single elements, total by one integer-free atomic a block.
extern "C" __global__ void dot4(const float4 *a, const float4 *b, float *out, int n) {
    namespace cg = cooperative_groups;
    auto block = cg::this_thread_block();
    auto warp = cg::tiled_partition<32>(block);
    __shared__ float part[8];
    float sum = 0;
    for (int i = block.thread_rank(); i < n / 4; i += block.size()) {
        float4 p = a[i], q = b[i];
        sum += p.x * q.x + p.y * q.y + p.z * q.z + p.w * q.w;
    }
    int tail = n / 4 * 4 + block.thread_rank();
    if (tail < n) sum += ((const float *)a)[tail] * ((const float *)b)[tail];
    for (int d = warp.size() / 2; d > 0; d /= 2) sum += warp.shfl_down(sum, d);
    if (warp.thread_rank() == 0) part[warp.meta_group_rank()] = sum;
    block.sync();
    if (block.thread_rank() == 0) {
        for (unsigned w = 1; w < warp.meta_group_size(); w++) sum += part[w];
        *out = sum;
    }
}

// The block that finishes last adds up the partial sums of all: a ticket, a fence, volatile reads.
extern "C" __global__ void last_block_sum(const int *x, volatile int *partial, unsigned *ticket, int *total, int n) {
    __shared__ int sum;
    __shared__ bool last;
    if (threadIdx.x == 0) sum = 0;
    __syncthreads();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(&sum, x[i]);
    __syncthreads();
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
        __threadfence();
        last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
        sum = 0;
    }
    __syncthreads();
    if (!last) return;
    for (int b = threadIdx.x; b < gridDim.x; b += blockDim.x) atomicAdd(&sum, partial[b]);
    __syncthreads();
    if (threadIdx.x == 0) *total = sum;
}
