// Tensor-core products through the wmma API: one 16 x 16 tile a warp. Shapes that need not be multiples of the
// tile go through a padded tile in shared memory.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>
using namespace nvcuda::wmma;

// C[m,n] = A[m,k] B[k,n], f16 in, f32 sums, any size; a block is one warp and one tile.
extern "C" __global__ void gemm_f16(const __half *a, const __half *b, float *c, int m, int n, int k) {
    __shared__ __half as[16 * 16], bs[16 * 16];
    __shared__ float cs[16 * 16];
    int row = blockIdx.y * 16, col = blockIdx.x * 16, lane = threadIdx.x;
    fragment<matrix_a, 16, 16, 16, __half, row_major> fa;
    fragment<matrix_b, 16, 16, 16, __half, row_major> fb;
    fragment<accumulator, 16, 16, 16, float> fc;
    fill_fragment(fc, 0.0f);
    for (int p = 0; p < k; p += 16) {
        for (int i = lane; i < 256; i += 32) {
            int r = i / 16, q = i % 16;
            as[i] = row + r < m && p + q < k ? a[(row + r) * k + p + q] : __half(0.0f);
            bs[i] = p + r < k && col + q < n ? b[(p + r) * n + col + q] : __half(0.0f);
        }
        __syncthreads();
        load_matrix_sync(fa, as, 16);
        load_matrix_sync(fb, bs, 16);
        mma_sync(fc, fa, fb, fc);
        __syncthreads();
    }
    for (int i = 0; i < fc.num_elements; i++) fc.x[i] *= 0.5f;
    store_matrix_sync(cs, fc, 16, mem_row_major);
    __syncthreads();
    for (int i = lane; i < 256; i += 32)
        if (row + i / 16 < m && col + i % 16 < n) c[(row + i / 16) * n + col + i % 16] = cs[i];
}
// D = A B + C of other shapes, types and layouts, straight from global memory.
template <int M, int N, int K, class In, class Sum, class LA, class LB>
__device__ void tile(const void *a, const void *b, const Sum *c, Sum *d, layout_t lc) {
    fragment<matrix_a, M, N, K, In, LA> fa;
    fragment<matrix_b, M, N, K, In, LB> fb;
    fragment<accumulator, M, N, K, Sum> fc;
    load_matrix_sync(fa, (const In *)a, std::is_same<LA, row_major>::value ? K : M);
    load_matrix_sync(fb, (const In *)b, std::is_same<LB, row_major>::value ? N : K);
    load_matrix_sync(fc, c, lc == mem_row_major ? N : M, lc);
    mma_sync(fc, fa, fb, fc);
    store_matrix_sync(d, fc, lc == mem_row_major ? N : M, lc);
}
extern "C" __global__ void tile_f16_f16(const __half *a, const __half *b, const __half *c, __half *d) {
    tile<16, 16, 16, __half, __half, row_major, col_major>(a, b, c, d, mem_row_major);
}
extern "C" __global__ void tile_32x8(const __half *a, const __half *b, const float *c, float *d) {
    tile<32, 8, 16, __half, float, col_major, row_major>(a, b, c, d, mem_col_major);
}
extern "C" __global__ void tile_8x32(const __half *a, const __half *b, const float *c, float *d) {
    tile<8, 32, 16, __half, float, row_major, row_major>(a, b, c, d, mem_row_major);
}
extern "C" __global__ void tile_bf16(const __nv_bfloat16 *a, const __nv_bfloat16 *b, const float *c, float *d) {
    tile<16, 16, 16, __nv_bfloat16, float, col_major, col_major>(a, b, c, d, mem_row_major);
}
extern "C" __global__ void tile_s8(const signed char *a, const signed char *b, const int *c, int *d) {
    tile<16, 16, 16, signed char, int, row_major, col_major>(a, b, c, d, mem_row_major);
}
extern "C" __global__ void tile_u8(const unsigned char *a, const unsigned char *b, const int *c, int *d) {
    tile<32, 8, 16, unsigned char, int, row_major, row_major>(a, b, c, d, mem_col_major);
}
extern "C" __global__ void tile_f64(const double *a, const double *b, const double *c, double *d) {
    tile<8, 8, 4, double, double, row_major, col_major>(a, b, c, d, mem_row_major);
}
extern "C" __global__ void tile_tf32(const float *a, const float *b, const float *c, float *d) {
    fragment<matrix_a, 16, 16, 8, precision::tf32, row_major> fa;
    fragment<matrix_b, 16, 16, 8, precision::tf32, row_major> fb;
    fragment<accumulator, 16, 16, 8, float> fc;
    load_matrix_sync(fa, a, 8);
    load_matrix_sync(fb, b, 16);
    load_matrix_sync(fc, c, 16, mem_row_major);
    for (int i = 0; i < fa.num_elements; i++) fa.x[i] = __float_to_tf32(fa.x[i]);
    for (int i = 0; i < fb.num_elements; i++) fb.x[i] = __float_to_tf32(fb.x[i]);
    mma_sync(fc, fa, fb, fc);
    store_matrix_sync(d, fc, 16, mem_row_major);
}
