// Softmax of rows by a block a row (online maximum and sum), and its gradient; a warp a row with `__expf`.
struct Running {
    float high, sum;
};
__device__ Running join(Running a, Running b) {
    float high = fmaxf(a.high, b.high);
    return {high, a.sum * expf(a.high - high) + b.sum * expf(b.high - high)};
}

extern "C" __global__ void softmax_rows(const float *x, float *y, int columns) {
    __shared__ Running part[32];
    const float *in = x + (size_t)blockIdx.x * columns;
    float *out = y + (size_t)blockIdx.x * columns;
    Running r = {-1e30f, 0};
    for (int c = threadIdx.x; c < columns; c += blockDim.x) r = join(r, {in[c], 1});
    for (int d = 16; d; d /= 2) r = join(r, {__shfl_xor_sync(~0u, r.high, d), __shfl_xor_sync(~0u, r.sum, d)});
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = r;
    __syncthreads();
    r = part[0];
    for (int w = 1; w < blockDim.x / 32; w++) r = join(r, part[w]);
    for (int c = threadIdx.x; c < columns; c += blockDim.x) out[c] = expf(in[c] - r.high) / r.sum;
}

extern "C" __global__ void softmax_warp(const float *x, float *y, int rows, int columns) {
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    float high = -INFINITY, sum = 0;
    for (int c = lane; c < columns; c += 32) high = fmaxf(high, x[row * columns + c]);
    for (int d = 16; d; d /= 2) high = fmaxf(high, __shfl_xor_sync(~0u, high, d));
    for (int c = lane; c < columns; c += 32) sum += __expf(x[row * columns + c] - high);
    for (int d = 16; d; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
    for (int c = lane; c < columns; c += 32) y[row * columns + c] = __fdividef(__expf(x[row * columns + c] - high), sum);
}

// dx = y (dy - sum(y dy))
extern "C" __global__ void softmax_backward(const float *y, const float *dy, float *dx, int rows, int columns) {
    int row = blockIdx.x * blockDim.y + threadIdx.y, lane = threadIdx.x;
    if (row >= rows) return;
    y += row * columns, dy += row * columns, dx += row * columns;
    float dot = 0;
    for (int c = lane; c < columns; c += 32) dot += y[c] * dy[c];
    for (int d = 16; d; d /= 2) dot += __shfl_xor_sync(~0u, dot, d);
    for (int c = lane; c < columns; c += 32) dx[c] = y[c] * (dy[c] - dot);
}
