// C[m,n] = A[m,k] B[k,n] in f32: naive, by 16 x 16 tiles in shared memory, and by 64 x 64 tiles with 4 x 4
// results a thread. Sizes are any.

extern "C" __global__ void gemm_naive(const float *a, const float *b, float *c, int m, int n, int k) {
    int col = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
    if (row >= m || col >= n) return;
    float sum = 0;
    for (int p = 0; p < k; p++) sum += a[row * k + p] * b[p * n + col];
    c[row * n + col] = sum;
}

extern "C" __global__ void gemm_tiled(const float *a, const float *b, float *c, int m, int n, int k) {
    __shared__ float as[16][16], bs[16][16];
    int tx = threadIdx.x, ty = threadIdx.y, col = blockIdx.x * 16 + tx, row = blockIdx.y * 16 + ty;
    float sum = 0;
    for (int p = 0; p < k; p += 16) {
        as[ty][tx] = row < m && p + tx < k ? a[row * k + p + tx] : 0;
        bs[ty][tx] = col < n && p + ty < k ? b[(p + ty) * n + col] : 0;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 16; i++) sum += as[ty][i] * bs[i][tx];
        __syncthreads();
    }
    if (row < m && col < n) c[row * n + col] = sum;
}

extern "C" __global__ void __launch_bounds__(256) gemm_registers(const float *__restrict__ a, const float *__restrict__ b,
                                                                 float *__restrict__ c, int m, int n, int k) {
    __shared__ __align__(16) float as[8][64], bs[8][64];
    int t = threadIdx.x, tx = t % 16, ty = t / 16, row0 = blockIdx.y * 64, col0 = blockIdx.x * 64;
    float sum[4][4] = {};
    for (int p = 0; p < k; p += 8) {
        for (int i = t; i < 512; i += 256) {
            int r = row0 + i / 8, q = p + i % 8;
            as[i % 8][i / 8] = r < m && q < k ? a[r * k + q] : 0;
            int col = col0 + i % 64;
            q = p + i / 64;
            bs[i / 64][i % 64] = col < n && q < k ? b[q * n + col] : 0;
        }
        __syncthreads();
#pragma unroll
        for (int q = 0; q < 8; q++) {
            float4 u = *(float4 *)&as[q][4 * ty], v = *(float4 *)&bs[q][4 * tx];
            float x[4] = {u.x, u.y, u.z, u.w}, y[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
        }
        __syncthreads();
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            int r = row0 + 4 * ty + i, col = col0 + 4 * tx + j;
            if (r < m && col < n) c[r * n + col] = sum[i][j];
        }
}
