// Barriers: with a count, by name and number of threads, with arrival apart from waiting, with a reduction, of part
// of a warp, and of a whole grid (one round, by an atomic).

extern "C" __global__ void counted(const int *x, int *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, v = x[i];
    y[3 * i] = __syncthreads_count(v > 0), y[3 * i + 1] = __syncthreads_and(v > -90), y[3 * i + 2] = __syncthreads_or(v > 95);
}
// Warps 0 and 1 use barrier 1, warps 2 and 3 barrier 2: each pair reverses its own half.
extern "C" __global__ void named(const int *x, int *y) {
    __shared__ int s[128];
    int t = threadIdx.x, half = t / 64;
    s[t] = x[t];
    asm volatile("bar.sync %0, 64;" ::"r"(half + 1) : "memory");
    y[t] = s[64 * half + 63 - t % 64];
}
// Warp 0 produces, warp 1 consumes: full (barrier 1) and empty (barrier 2), three rounds.
extern "C" __global__ void producer(const int *x, int *y, int rounds) {
    __shared__ int box[32];
    int lane = threadIdx.x % 32;
    if (threadIdx.x < 32) {
        for (int r = 0; r < rounds; r++) {
            if (r) asm volatile("barrier.sync 2, 64;" ::: "memory");
            box[lane] = x[32 * r + lane] * 3;
            asm volatile("barrier.arrive 1, 64;" ::: "memory");
        }
    } else {
        for (int r = 0; r < rounds; r++) {
            asm volatile("barrier.sync 1, 64;" ::: "memory");
            y[32 * r + lane] = box[31 - lane];
            if (r + 1 < rounds) asm volatile("barrier.arrive 2, 64;" ::: "memory");
        }
    }
}
// Lanes of a warp exchange through shared memory with __syncwarp, halves with masks of their own.
extern "C" __global__ void warp_barrier(const int *x, int *y) {
    __shared__ int s[32];
    int t = threadIdx.x, v;
    s[t] = x[t];
    __syncwarp();
    v = s[(t + 1) % 32];
    __syncwarp();
    if (t < 16) {
        s[t] = v;
        __syncwarp(0xffff);
        v += s[15 - t];
    } else {
        s[t] = 2 * v;
        __syncwarp(0xffff0000);
        v += s[47 - t];
    }
    y[t] = v;
}
// Some threads leave before the barrier: hardware lets the others pass, but nobody may count on it, so a check
// finds it.
extern "C" __global__ void some_leave(const int *x, int *y, int n) {
    __shared__ int s[96];
    int t = threadIdx.x;
    if (t >= n) return;
    s[t] = x[t];
    __syncthreads();
    y[t] = s[n - 1 - t];
}
