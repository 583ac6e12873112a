// nvcc: -arch=compute_90
// What a newer target emits for the same things: elect, redux, 8-bit floats, stmatrix, wide atomics, f16x2 packed
// maxima of three operands.
#include <cuda_fp16.h>
typedef unsigned u;

extern "C" __global__ void elected(u *y) {
    u lane, is;
    asm volatile("{\n\t.reg .pred p;\n\telect.sync %0|p, -1;\n\tselp.u32 %1, 1, 0, p;\n\t}" : "=r"(lane), "=r"(is));
    y[threadIdx.x] = lane << 1 | is;
}
extern "C" __global__ void stmatrix(const u *x, unsigned short *y) {
    __shared__ __align__(16) unsigned short s[32 * 8];
    int lane = threadIdx.x;
    u at = __cvta_generic_to_shared(s + 8 * lane);
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(x[lane]), "r"(x[lane + 32]), "r"(x[lane + 64]), "r"(x[lane + 96]) : "memory");
    __syncwarp();
    for (int i = lane; i < 256; i += 32) y[i] = s[i];
    __syncwarp();
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(at), "r"(x[lane]), "r"(x[lane + 32]) : "memory");
    __syncwarp();
    for (int i = lane; i < 128; i += 32) y[256 + i] = s[i];
}
extern "C" __global__ void small_floats(const float2 *x, u *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float2 v = x[i];
    unsigned short e4, e5;
    u back;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(e4) : "f"(v.y), "f"(v.x));
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(e5) : "f"(v.y), "f"(v.x));
    y[3 * i] = e4 | e5 << 16;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(back) : "h"(e4)); y[3 * i + 1] = back;
    asm("cvt.rn.f16x2.e5m2x2 %0, %1;" : "=r"(back) : "h"(e5)); y[3 * i + 2] = back;
}
extern "C" __global__ void vector_atomics(float *sum) {
    asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(sum), "f"(1.0f), "f"(0.5f) : "memory");
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(sum + 4), "f"(1.0f), "f"(2.0f), "f"(3.0f), "f"(4.0f) : "memory");
}
