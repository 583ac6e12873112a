// Layer normalisation of rows: mean and variance by Welford's update, joined through shuffles; gradients of
// the input by the same block, of weight and bias by a block of columns.
struct Moments {
    float mean, square, count;
};
__device__ Moments join(Moments a, Moments b) {
    float count = a.count + b.count;
    if (count == 0) return a;
    float d = b.mean - a.mean, share = b.count / count;
    return {a.mean + d * share, a.square + b.square + d * d * a.count * share, count};
}

extern "C" __global__ void layer_norm(const float *x, const float *weight, const float *bias, float *y, float *mean,
                                      float *rstd, int columns, float eps) {
    __shared__ Moments part[8];
    x += blockIdx.x * columns, y += blockIdx.x * columns;
    Moments m = {};
    for (int c = threadIdx.x; c < columns; c += blockDim.x) m = join(m, {x[c], 0, 1});
    for (int d = 16; d; d /= 2)
        m = join(m, {__shfl_down_sync(~0u, m.mean, d), __shfl_down_sync(~0u, m.square, d), __shfl_down_sync(~0u, m.count, d)});
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = m;
    __syncthreads();
    m = part[0];
    for (int w = 1; w < blockDim.x / 32; w++) m = join(m, part[w]);
    float r = rsqrtf(m.square / columns + eps);
    for (int c = threadIdx.x; c < columns; c += blockDim.x) y[c] = (x[c] - m.mean) * r * weight[c] + bias[c];
    if (threadIdx.x == 0) mean[blockIdx.x] = m.mean, rstd[blockIdx.x] = r;
}

// dweight[c] = sum over rows of dy xhat, dbias[c] = sum of dy: 32 columns a block, 8 threads deep.
extern "C" __global__ void layer_norm_backward_weight(const float *x, const float *dy, const float *mean, const float *rstd,
                                                      float *dweight, float *dbias, int rows, int columns) {
    __shared__ float dw[8][33], db[8][33];
    int c = blockIdx.x * 32 + threadIdx.x;
    float w = 0, b = 0;
    if (c < columns)
        for (int r = threadIdx.y; r < rows; r += 8) {
            float d = dy[r * columns + c];
            w += d * (x[r * columns + c] - mean[r]) * rstd[r], b += d;
        }
    dw[threadIdx.y][threadIdx.x] = w, db[threadIdx.y][threadIdx.x] = b;
    __syncthreads();
    for (int h = 4; h; h /= 2) {
        if (threadIdx.y < h) {
            dw[threadIdx.y][threadIdx.x] += dw[threadIdx.y + h][threadIdx.x];
            db[threadIdx.y][threadIdx.x] += db[threadIdx.y + h][threadIdx.x];
        }
        __syncthreads();
    }
    if (threadIdx.y == 0 && c < columns) dweight[c] = dw[0][threadIdx.x], dbias[c] = db[0][threadIdx.x];
}
