// Half precision: f16 and bf16, single and in pairs: arithmetic, fma with relu and saturation, comparisons,
// minima that keep and that drop NaN, exponentials, conversions, atomics.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

extern "C" __global__ void half_pairs(const __half2 *a, const __half2 *b, __half2 *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    __half2 p = a[i], q = b[i], *o = y + 12 * i;
    o[0] = __hadd2(p, q), o[1] = __hsub2(p, q), o[2] = __hmul2(p, q), o[3] = __hfma2(p, q, p), o[4] = __hfma2_relu(p, q, q);
    o[5] = __hadd2_sat(p, q), o[6] = __hmin2(p, q), o[7] = __hmax2(p, q), o[8] = __hneg2(p), o[9] = __habs2(q);
    o[10] = __lows2half2(p, q), o[11] = __highs2half2(p, q);
}
extern "C" __global__ void half_single(const __half *a, const __half *b, __half *y, unsigned *compared, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    __half p = a[i], q = b[i], *o = y + 6 * i;
    o[0] = __hadd(p, q), o[1] = __hmul(p, q), o[2] = __hfma(p, q, q), o[3] = __hmin_nan(p, q), o[4] = __hmax_nan(p, q), o[5] = __hdiv(p, q);
    compared[i] = __hlt(p, q) | __hle(p, q) << 1 | __heq(p, q) << 2 | __hne(p, q) << 3 | __hgt(p, q) << 4 | __hge(p, q) << 5 |
                  __hltu(p, q) << 6 | __hequ(p, q) << 7 | __hisnan(p) << 8;
}
extern "C" __global__ void half_functions(const __half *x, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    __half v = x[i];
    float *o = y + 6 * i;
    o[0] = __half2float(hexp(v)), o[1] = __half2float(hsqrt(v)), o[2] = __half2float(hrcp(v)), o[3] = __half2float(hlog2(v));
    o[4] = __half2float(htanh(v)), o[5] = __half2float(hfloor(v));
}
extern "C" __global__ void half_convert(const float *x, unsigned short *h, unsigned short *b, int *w, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = x[i];
    unsigned short *o = h + 4 * i;
    o[0] = __half_as_ushort(__float2half_rn(v)), o[1] = __half_as_ushort(__float2half_rz(v));
    o[2] = __half_as_ushort(__float2half_ru(v)), o[3] = __half_as_ushort(__float2half_rd(v));
    b[2 * i] = __bfloat16_as_ushort(__float2bfloat16_rn(v)), b[2 * i + 1] = __bfloat16_as_ushort(__float2bfloat16_rz(v));
    __half t = __float2half_rn(v);
    w[5 * i] = __half2int_rn(t), w[5 * i + 1] = __half2int_rd(t), w[5 * i + 2] = __half2short_rz(t), w[5 * i + 3] = __half2uint_ru(t);
    w[5 * i + 4] = __half_as_ushort(__int2half_rn((int)(v * 3)));
}
extern "C" __global__ void bfloat_pairs(const __nv_bfloat162 *a, const __nv_bfloat162 *b, __nv_bfloat162 *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    __nv_bfloat162 p = a[i], q = b[i], *o = y + 6 * i;
    o[0] = __hfma2(p, q, p), o[1] = __hmul2(p, q), o[2] = __hadd2(p, q), o[3] = __hmin2(p, q), o[4] = __hmax2(p, q);
    o[5] = __floats2bfloat162_rn(__low2float(p) * 3, __high2float(q) / 3);
}
extern "C" __global__ void half_atomics(__half2 *sum, __half *single, __nv_bfloat162 *brain, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    atomicAdd(&sum[i % 3], __floats2half2_rn(1, 0.5f));
    atomicAdd(&single[i % 2], __float2half(2));
    atomicAdd(&brain[0], __floats2bfloat162_rn(1, 2));
}
