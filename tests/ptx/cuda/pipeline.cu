// Asynchronous copies: a product whose next tile is on its way while this one is used (cp.async with groups, 16
// and 4 bytes, zero fill at the edges), and a copy that an mbarrier waits for.
#include <cuda_pipeline.h>

extern "C" __global__ void gemm_pipeline(const float *a, const float *b, float *c, int m, int n, int k) {
    __shared__ __align__(16) float as[2][16][16], bs[2][16][16];
    int tx = threadIdx.x, ty = threadIdx.y, row = blockIdx.y * 16 + ty, col = blockIdx.x * 16 + tx, steps = (k + 15) / 16;
    auto fetch = [&](int s) {
        int p = s * 16, buffer = s & 1;
        bool ra = row < m && p + tx < k, rb = p + ty < k && col < n;
        __pipeline_memcpy_async(&as[buffer][ty][tx], ra ? a + row * k + p + tx : a, 4, ra ? 0 : 4);
        __pipeline_memcpy_async(&bs[buffer][ty][tx], rb ? b + (p + ty) * n + col : b, 4, rb ? 0 : 4);
        __pipeline_commit();
    };
    fetch(0);
    float sum = 0;
    for (int s = 0; s < steps; s++) {
        if (s + 1 < steps) fetch(s + 1);
        else __pipeline_commit();
        __pipeline_wait_prior(1);
        __syncthreads();
        for (int i = 0; i < 16; i++) sum += as[s & 1][ty][i] * bs[s & 1][i][tx];
        __syncthreads();
    }
    if (row < m && col < n) c[row * n + col] = sum;
}

// y[i] = x[n-1-i] by tiles of 16 bytes a thread, three tiles deep.
extern "C" __global__ void reverse_async(const float4 *x, float4 *y, int n) {
    extern __shared__ float4 ring[];
    int t = threadIdx.x, tiles = (n + blockDim.x - 1) / blockDim.x;
    for (int s = 0; s < tiles + 2; s++) {
        if (s < tiles) {
            int i = s * blockDim.x + t;
            unsigned to = __cvta_generic_to_shared(&ring[s % 3 * blockDim.x + t]);
            int bytes = i < n ? 16 : 0;
            asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(x + (i < n ? i : 0)), "r"(bytes) : "memory");
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
        if (s < 2) continue;
        asm volatile("cp.async.wait_group 2;" ::: "memory");
        __syncthreads();
        int i = (s - 2) * blockDim.x + blockDim.x - 1 - t; // of the thread across
        float4 v = ring[(s - 2) % 3 * blockDim.x + blockDim.x - 1 - t];
        if (i < n) y[n - 1 - i] = make_float4(v.w, v.z, v.y, v.x);
        __syncthreads();
    }
}

// cp.async.mbarrier.arrive and mbarrier.test_wait: two phases of one barrier.
extern "C" __global__ void mbarrier_copy(const int *x, int *y, int n) {
    __shared__ __align__(8) unsigned long long barrier;
    __shared__ int tile[64];
    int t = threadIdx.x;
    unsigned bar = __cvta_generic_to_shared(&barrier), to = __cvta_generic_to_shared(&tile[t]);
    if (t == 0) asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(bar), "r"(blockDim.x) : "memory");
    __syncthreads();
    for (int base = 0; base < n; base += 64) {
        int i = base + t < n ? base + t : 0;
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(x + i) : "memory");
        asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(bar) : "memory");
        unsigned done;
        int phase = base / 64 & 1;
        do {
            asm volatile("{\n\t.reg .pred p;\n\tmbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n\tselp.u32 %0, 1, 0, p;\n\t}" : "=r"(done) : "r"(bar), "r"(phase) : "memory");
        } while (!done);
        if (base + t < n) y[base + t] = tile[63 - t] * 2 + tile[t];
        __syncthreads();
    }
}
extern "C" __global__ void mbarrier_state(int *y) {
    __shared__ __align__(8) unsigned long long barrier;
    __shared__ int box[48];
    int t = threadIdx.x;
    unsigned bar = __cvta_generic_to_shared(&barrier), done;
    if (t == 0) asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(bar), "r"(48) : "memory");
    __syncthreads();
    unsigned long long state;
    box[t] = t * t;
    asm volatile("mbarrier.arrive.shared.b64 %0, [%1];" : "=l"(state) : "r"(bar) : "memory");
    do {
        asm volatile("{\n\t.reg .pred p;\n\tmbarrier.test_wait.shared.b64 p, [%1], %2;\n\tselp.u32 %0, 1, 0, p;\n\t}" : "=r"(done) : "r"(bar), "l"(state) : "memory");
    } while (!done);
    y[t] = box[(t + 17) % 48];
}
