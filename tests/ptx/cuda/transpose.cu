// Transposes through a shared tile of 32 x 33 (padding keeps the columns in different banks), of 4-byte and
// of 2-byte elements, and of 8 x 8 blocks in registers by shuffles.

template <class T> __device__ void transpose(const T *x, T *y, int rows, int columns) {
    __shared__ T tile[32][33];
    int c = blockIdx.x * 32 + threadIdx.x, r = blockIdx.y * 32 + threadIdx.y;
    for (int j = 0; j < 32; j += blockDim.y)
        if (r + j < rows && c < columns) tile[threadIdx.y + j][threadIdx.x] = x[(r + j) * columns + c];
    __syncthreads();
    c = blockIdx.y * 32 + threadIdx.x, r = blockIdx.x * 32 + threadIdx.y;
    for (int j = 0; j < 32; j += blockDim.y)
        if (r + j < columns && c < rows) y[(r + j) * rows + c] = tile[threadIdx.x][threadIdx.y + j];
}
extern "C" __global__ void transpose32(const float *x, float *y, int rows, int columns) { transpose(x, y, rows, columns); }
extern "C" __global__ void transpose16(const short *x, short *y, int rows, int columns) { transpose(x, y, rows, columns); }

// Each group of 8 lanes holds an 8 x 8 block, one row a lane; three rounds of exchanges transpose it.
extern "C" __global__ void transpose8(const int *x, int *y) {
    int lane = threadIdx.x % 8, v[8];
    const int4 *in = (const int4 *)(x + 8 * threadIdx.x);
    int4 a = in[0], b = in[1];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
#pragma unroll
    for (int s = 1; s < 8; s *= 2)
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (!(i & s)) {
                int give = lane & s ? v[i] : v[i | s];
                int take = __shfl_xor_sync(~0u, give, s);
                if (lane & s) v[i] = take;
                else v[i | s] = take;
            }
    int4 *out = (int4 *)(y + 8 * threadIdx.x);
    out[0] = make_int4(v[0], v[1], v[2], v[3]), out[1] = make_int4(v[4], v[5], v[6], v[7]);
}
