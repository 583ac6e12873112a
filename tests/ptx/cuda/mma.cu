// Tensor-core instructions by hand: each lane fills its own fragments as the ISA lays them out, so that a wrong
// layout shows. g = lane / 4, t = lane % 4. Then a product that feeds them through ldmatrix.
#include <cstdint>
typedef unsigned u;
typedef unsigned short h;

__device__ u two(const h *p, int step) { return p[0] | (u)p[step] << 16; }
__device__ u four(const unsigned char *p, int step) { return p[0] | p[step] << 8 | p[2 * step] << 16 | (u)p[3 * step] << 24; }

// A[16,16] row major, B[16,8] row major, C and D[16,8]; f16 or bf16 bits in, f32 sums.
#define M16N8K16(NAME, KIND)                                                                                            \
    extern "C" __global__ void NAME(const h *a, const h *b, const float *c, float *d) {                                 \
        int g = threadIdx.x / 4, t = threadIdx.x % 4;                                                                   \
        u a0 = two(a + g * 16 + 2 * t, 1), a1 = two(a + (g + 8) * 16 + 2 * t, 1);                                       \
        u a2 = two(a + g * 16 + 2 * t + 8, 1), a3 = two(a + (g + 8) * 16 + 2 * t + 8, 1);                               \
        u b0 = two(b + 2 * t * 8 + g, 8), b1 = two(b + (2 * t + 8) * 8 + g, 8);                                         \
        const float *p = c + g * 8 + 2 * t;                                                                             \
        float r0, r1, r2, r3;                                                                                           \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." KIND "." KIND ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, " \
                     "{%8, %9}, {%10, %11, %12, %13};"                                                                  \
                     : "=f"(r0), "=f"(r1), "=f"(r2), "=f"(r3)                                                           \
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(p[0]), "f"(p[1]), "f"(p[64]), "f"(p[65])); \
        float *q = d + g * 8 + 2 * t;                                                                                   \
        q[0] = r0, q[1] = r1, q[64] = r2, q[65] = r3;                                                                   \
    }
M16N8K16(mma_k16_f16, "f16")
M16N8K16(mma_k16_bf16, "bf16")

// The half as long products: A[16,8], B[8,8].
#define M16N8K8(NAME, KIND)                                                                                       \
    extern "C" __global__ void NAME(const h *a, const h *b, const float *c, float *d) {                           \
        int g = threadIdx.x / 4, t = threadIdx.x % 4;                                                             \
        u a0 = two(a + g * 8 + 2 * t, 1), a1 = two(a + (g + 8) * 8 + 2 * t, 1), b0 = two(b + 2 * t * 8 + g, 8);   \
        const float *p = c + g * 8 + 2 * t;                                                                       \
        float r0, r1, r2, r3;                                                                                     \
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32." KIND "." KIND ".f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, " \
                     "{%7, %8, %9, %10};"                                                                         \
                     : "=f"(r0), "=f"(r1), "=f"(r2), "=f"(r3)                                                     \
                     : "r"(a0), "r"(a1), "r"(b0), "f"(p[0]), "f"(p[1]), "f"(p[64]), "f"(p[65]));                  \
        float *q = d + g * 8 + 2 * t;                                                                             \
        q[0] = r0, q[1] = r1, q[64] = r2, q[65] = r3;                                                             \
    }
M16N8K8(mma_k8_f16, "f16")
M16N8K8(mma_k8_bf16, "bf16")

// f16 sums: C and D hold two elements a register.
extern "C" __global__ void mma_f16_sums(const h *a, const h *b, const h *c, h *d) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    u a0 = two(a + g * 16 + 2 * t, 1), a1 = two(a + (g + 8) * 16 + 2 * t, 1);
    u a2 = two(a + g * 16 + 2 * t + 8, 1), a3 = two(a + (g + 8) * 16 + 2 * t + 8, 1);
    u b0 = two(b + 2 * t * 8 + g, 8), b1 = two(b + (2 * t + 8) * 8 + g, 8), r0, r1;
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3, %4, %5}, {%6, %7}, {%8, %9};"
                 : "=r"(r0), "=r"(r1)
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "r"(two(c + g * 8 + 2 * t, 1)), "r"(two(c + (g + 8) * 8 + 2 * t, 1)));
    d[g * 8 + 2 * t] = r0, d[g * 8 + 2 * t + 1] = r0 >> 16, d[(g + 8) * 8 + 2 * t] = r1, d[(g + 8) * 8 + 2 * t + 1] = r1 >> 16;
}

// tf32: inputs rounded by cvt.rna; k = 8 and k = 4.
__device__ u tf32(float x) {
    u r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
    return r;
}
extern "C" __global__ void mma_tf32(const float *a, const float *b, const float *c, float *d) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    float r[4] = {c[g * 8 + 2 * t], c[g * 8 + 2 * t + 1], c[(g + 8) * 8 + 2 * t], c[(g + 8) * 8 + 2 * t + 1]};
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(r[0]), "+f"(r[1]), "+f"(r[2]), "+f"(r[3])
                 : "r"(tf32(a[g * 12 + t])), "r"(tf32(a[(g + 8) * 12 + t])), "r"(tf32(a[g * 12 + t + 4])), "r"(tf32(a[(g + 8) * 12 + t + 4])),
                   "r"(tf32(b[t * 8 + g])), "r"(tf32(b[(t + 4) * 8 + g])));
    asm volatile("mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(r[0]), "+f"(r[1]), "+f"(r[2]), "+f"(r[3])
                 : "r"(tf32(a[g * 12 + t + 8])), "r"(tf32(a[(g + 8) * 12 + t + 8])), "r"(tf32(b[(t + 8) * 8 + g])));
    d[g * 8 + 2 * t] = r[0], d[g * 8 + 2 * t + 1] = r[1], d[(g + 8) * 8 + 2 * t] = r[2], d[(g + 8) * 8 + 2 * t + 1] = r[3];
}

// Bytes: A[16,K] and B[K,8] for K = 16 and 32, i32 sums; with .satfinite for the unsigned ones.
extern "C" __global__ void mma_s8(const unsigned char *a, const unsigned char *b, const int *c, int *d) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    const unsigned char *p = a + g * 48, *q = a + (g + 8) * 48;
    int r[4] = {c[g * 8 + 2 * t], c[g * 8 + 2 * t + 1], c[(g + 8) * 8 + 2 * t], c[(g + 8) * 8 + 2 * t + 1]};
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(r[0]), "+r"(r[1]), "+r"(r[2]), "+r"(r[3])
                 : "r"(four(p + 4 * t, 1)), "r"(four(q + 4 * t, 1)), "r"(four(p + 4 * t + 16, 1)), "r"(four(q + 4 * t + 16, 1)),
                   "r"(four(b + 4 * t * 8 + g, 8)), "r"(four(b + (4 * t + 16) * 8 + g, 8)));
    asm volatile("mma.sync.aligned.m16n8k16.row.col.satfinite.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+r"(r[0]), "+r"(r[1]), "+r"(r[2]), "+r"(r[3])
                 : "r"(four(p + 4 * t + 32, 1)), "r"(four(q + 4 * t + 32, 1)), "r"(four(b + (4 * t + 32) * 8 + g, 8)));
    d[g * 8 + 2 * t] = r[0], d[g * 8 + 2 * t + 1] = r[1], d[(g + 8) * 8 + 2 * t] = r[2], d[(g + 8) * 8 + 2 * t + 1] = r[3];
}

// C[m,n] = A[m,k] B[k,n] in bf16: two warps a block, each 16 x 16; tiles in shared memory, A by ldmatrix.x4,
// B by ldmatrix.x4.trans. m, n, k are any.
extern "C" __global__ void gemm_ldmatrix(const h *a, const h *b, float *c, int m, int n, int k) {
    __shared__ __align__(16) h as[32][24], bs[16][24];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = blockIdx.y * 32, col = blockIdx.x * 16;
    float r[2][4] = {};
    for (int p = 0; p < k; p += 16) {
        for (int i = threadIdx.x; i < 512; i += 64) as[i / 16][i % 16] = row + i / 16 < m && p + i % 16 < k ? a[(row + i / 16) * k + p + i % 16] : 0;
        for (int i = threadIdx.x; i < 256; i += 64) bs[i / 16][i % 16] = p + i / 16 < k && col + i % 16 < n ? b[(p + i / 16) * n + col + i % 16] : 0;
        __syncthreads();
        u x[4], y[4];
        u at = __cvta_generic_to_shared(&as[16 * warp + lane % 16][lane / 16 * 8]), bt = __cvta_generic_to_shared(&bs[lane % 16][lane / 16 * 8]);
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at) : "memory");
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(y[0]), "=r"(y[1]), "=r"(y[2]), "=r"(y[3]) : "r"(bt) : "memory");
        for (int half = 0; half < 2; half++)
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                         : "+f"(r[half][0]), "+f"(r[half][1]), "+f"(r[half][2]), "+f"(r[half][3])
                         : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[2 * half]), "r"(y[2 * half + 1]));
        __syncthreads();
    }
    int g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 4; i++) {
            int y = row + 16 * warp + g + i / 2 * 8, x = col + 8 * half + 2 * t + i % 2;
            if (y < m && x < n) c[y * n + x] = r[half][i];
        }
}

// What ldmatrix gives each lane, in all its sizes, of a matrix of distinct numbers.
extern "C" __global__ void ldmatrix_layout(const h *x, u *y) {
    __shared__ __align__(16) h s[32 * 8];
    int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) s[i] = x[i];
    __syncwarp();
    u at = __cvta_generic_to_shared(s + 8 * lane), r[10];
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(at) : "memory");
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(r[1]), "=r"(r[2]) : "r"(at) : "memory");
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[3]), "=r"(r[4]), "=r"(r[5]), "=r"(r[6]) : "r"(at) : "memory");
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r[7]) : "r"(at) : "memory");
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(r[8]), "=r"(r[9]) : "r"(at) : "memory");
    for (int i = 0; i < 10; i++) y[10 * lane + i] = r[i];
}
