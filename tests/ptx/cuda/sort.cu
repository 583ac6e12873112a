// Bitonic sort: of 512 keys in shared memory, of one step over global memory, and of 32 (key, value) pairs in
// a warp; odd-even merge with 64-bit keys; radix sort of one block by 4-bit digits.

extern "C" __global__ void bitonic_block(int *keys, int n) {
    __shared__ int s[512];
    int t = threadIdx.x;
    for (int i = t; i < 512; i += blockDim.x) s[i] = i < n ? keys[i] : 0x7fffffff;
    for (int k = 2; k <= 512; k *= 2)
        for (int j = k / 2; j > 0; j /= 2) {
            __syncthreads();
            int i = 2 * t - (t & (j - 1)), a = s[i], b = s[i + j];
            if ((a > b) == ((i & k) == 0)) s[i] = b, s[i + j] = a;
        }
    __syncthreads();
    for (int i = t; i < n; i += blockDim.x) keys[i] = s[i];
}

extern "C" __global__ void bitonic_warp(float *keys, int *values) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32, v = values[i];
    float key = keys[i];
    for (int k = 2; k <= 32; k *= 2)
        for (int j = k / 2; j > 0; j /= 2) {
            float other = __shfl_xor_sync(~0u, key, j);
            int w = __shfl_xor_sync(~0u, v, j);
            bool up = (lane & k) == 0, low = (lane & j) == 0;
            if (up == low ? other < key : other > key) key = other, v = w;
        }
    keys[i] = key, values[i] = v;
}

extern "C" __global__ void odd_even(unsigned long long *keys, int n) {
    extern __shared__ unsigned long long s64[];
    for (int i = threadIdx.x; i < n; i += blockDim.x) s64[i] = keys[i];
    for (int round = 0; round < n; round++) {
        __syncthreads();
        for (int i = 2 * threadIdx.x + (round & 1); i + 1 < n; i += 2 * blockDim.x)
            if (s64[i] > s64[i + 1]) {
                auto a = s64[i];
                s64[i] = s64[i + 1], s64[i + 1] = a;
            }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) keys[i] = s64[i];
}

// Stable counting by ballots: each pass splits the 256 keys on one bit.
extern "C" __global__ void radix_block(unsigned *keys, int n) {
    __shared__ unsigned s[256], zeros[8];
    int t = threadIdx.x, lane = t % 32, warp = t / 32;
    s[t] = t < n ? keys[t] : ~0u;
    __syncthreads();
    for (int bit = 0; bit < 32; bit++) {
        unsigned key = s[t], zero = __ballot_sync(~0u, !(key >> bit & 1));
        if (lane == 0) zeros[warp] = __popc(zero);
        __syncthreads();
        int all = 0, before = __popc(zero & ((1u << lane) - 1));
        for (int w = 0; w < 8; w++) {
            if (w < warp) before += zeros[w];
            all += zeros[w];
        }
        int to = key >> bit & 1 ? all + t - before : before;
        __syncthreads();
        s[to] = key;
        __syncthreads();
    }
    if (t < n) keys[t] = s[t];
}
