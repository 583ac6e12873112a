// Single precision: the library's functions and the fast ones, exact arithmetic with its roundings, minima, and
// classes of numbers.
extern "C" __global__ void functions(const float *x, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = x[i], *o = y + 16 * i;
    o[0] = sinf(v), o[1] = cosf(v), o[2] = tanf(v), o[3] = expf(v), o[4] = logf(fabsf(v)), o[5] = powf(fabsf(v), 0.7f), o[6] = tanhf(v), o[7] = erff(v);
    o[8] = atan2f(v, 2), o[9] = cbrtf(v), o[10] = log1pf(fabsf(v)), o[11] = expm1f(v), o[12] = asinhf(v), o[13] = fmodf(v, 1.5f), o[14] = hypotf(v, 3), o[15] = sinpif(v);
}
extern "C" __global__ void fast(const float *x, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = x[i], *o = y + 10 * i, r;
    o[0] = __sinf(v), o[1] = __cosf(v), o[2] = __expf(v), o[3] = __log2f(fabsf(v)), o[4] = __fdividef(v, 3), o[5] = rsqrtf(fabsf(v));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v)); o[6] = r;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(r) : "f"(fabsf(v))); o[7] = r;
    asm("tanh.approx.f32 %0, %1;" : "=f"(r) : "f"(v)); o[8] = r;
    asm("div.full.f32 %0, %1, %2;" : "=f"(r) : "f"(v), "f"(7.0f)); o[9] = r;
}
extern "C" __global__ void arithmetic(const float *a, const float *b, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float p = a[i], q = b[i], *o = y + 24 * i, r;
    o[0] = __fadd_rn(p, q), o[1] = __fadd_rz(p, q), o[2] = __fadd_ru(p, q), o[3] = __fadd_rd(p, q);
    o[4] = __fmul_rn(p, q), o[5] = __fmul_rz(p, q), o[6] = __fmul_ru(p, q), o[7] = __fmul_rd(p, q);
    o[8] = __fdiv_rn(p, q), o[9] = __fdiv_rz(p, q), o[10] = __fdiv_ru(p, q), o[11] = __fdiv_rd(p, q);
    o[12] = __fsqrt_rn(fabsf(p)), o[13] = __fsqrt_rz(fabsf(p)), o[14] = __fsqrt_ru(fabsf(p)), o[15] = __frcp_rn(q);
    o[16] = fmaf(p, q, p), o[17] = fminf(p, q), o[18] = fmaxf(p, q), o[19] = copysignf(p, q);
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(p), "f"(q)); o[20] = r;
    asm("add.ftz.f32 %0, %1, %2;" : "=f"(r) : "f"(p), "f"(q)); o[21] = r;
    asm("mul.sat.f32 %0, %1, %2;" : "=f"(r) : "f"(p), "f"(q)); o[22] = r;
    asm("fma.rz.f32 %0, %1, %2, %1;" : "=f"(r) : "f"(p), "f"(q)); o[23] = r;
}
extern "C" __global__ void classes(const float *x, const float *y, unsigned *z, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = x[i], w = y[i];
    unsigned r, o = isnan(v) | isinf(v) << 1 | signbit(v) << 2 | (v < w) << 3 | (v <= w) << 4 | (v == w) << 5 | (v != w) << 6 | !(v < w) << 7 | !(v == v && w == w) << 8;
#define TEST(KIND, BIT)                                                                                              \
    asm("{\n\t.reg .pred p;\n\ttestp." KIND ".f32 p, %1;\n\tselp.u32 %0, 1, 0, p;\n\t}" : "=r"(r) : "f"(v));          \
    o |= r << BIT;
    TEST("finite", 9) TEST("infinite", 10) TEST("number", 11) TEST("notanumber", 12) TEST("normal", 13) TEST("subnormal", 14)
    z[i] = o;
}
