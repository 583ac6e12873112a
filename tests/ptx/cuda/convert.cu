// Conversions between numbers: each rounding, saturation, and what happens to NaN, infinities and values out of
// range.
extern "C" __global__ void from_f32(const float *x, int *w, unsigned *u, long long *l, float *f, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = x[i];
    int *o = w + 8 * i;
    o[0] = __float2int_rn(v), o[1] = __float2int_rz(v), o[2] = __float2int_ru(v), o[3] = __float2int_rd(v);
    asm("{\n\t.reg .s16 t;\n\tcvt.rni.s16.f32 t, %1;\n\tcvt.s32.s16 %0, t;\n\t}" : "=r"(o[4]) : "f"(v));
    asm("{\n\t.reg .u16 t;\n\tcvt.rzi.u16.f32 t, %1;\n\tcvt.u32.u16 %0, t;\n\t}" : "=r"(o[5]) : "f"(v));
    asm("{\n\t.reg .s16 t;\n\tcvt.rzi.s8.f32 t, %1;\n\tcvt.s32.s16 %0, t;\n\t}" : "=r"(o[6]) : "f"(v));
    asm("{\n\t.reg .u16 t;\n\tcvt.rpi.u8.f32 t, %1;\n\tcvt.u32.u16 %0, t;\n\t}" : "=r"(o[7]) : "f"(v));
    u[2 * i] = __float2uint_rn(v), u[2 * i + 1] = __float2uint_rz(v);
    l[4 * i] = __float2ll_rn(v), l[4 * i + 1] = __float2ll_rz(v), l[4 * i + 2] = __float2ull_rn(v), l[4 * i + 3] = __float2ull_rz(v);
    f[6 * i] = rintf(v), f[6 * i + 1] = truncf(v), f[6 * i + 2] = floorf(v), f[6 * i + 3] = ceilf(v), f[6 * i + 4] = __saturatef(v), f[6 * i + 5] = roundf(v);
}
extern "C" __global__ void to_float(const long long *x, float *f, double *d, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    long long v = x[i];
    float *o = f + 12 * i;
    o[0] = __ll2float_rn(v), o[1] = __ll2float_rz(v), o[2] = __ll2float_ru(v), o[3] = __ll2float_rd(v);
    o[4] = __int2float_rn((int)v), o[5] = __int2float_rz((int)v), o[6] = __uint2float_ru((unsigned)v), o[7] = __uint2float_rd((unsigned)v);
    o[8] = __ull2float_rn(v), o[9] = (float)(short)v, o[10] = (float)(unsigned char)v, o[11] = (float)(signed char)v;
    d[4 * i] = (double)v, d[4 * i + 1] = (double)(unsigned long long)v, d[4 * i + 2] = (double)(int)v, d[4 * i + 3] = __ll2double_rd(v);
}
extern "C" __global__ void integers(const int *x, long long *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int v = x[i], s;
    long long *o = y + 10 * i;
    o[0] = (signed char)v, o[1] = (unsigned char)v, o[2] = (short)v, o[3] = (unsigned short)v, o[4] = v, o[5] = (unsigned)v;
    asm("{\n\t.reg .s16 t;\n\tcvt.sat.s8.s32 t, %1;\n\tcvt.s32.s16 %0, t;\n\t}" : "=r"(s) : "r"(v)); o[6] = s;
    asm("{\n\t.reg .u16 t;\n\tcvt.sat.u8.s32 t, %1;\n\tcvt.u32.u16 %0, t;\n\t}" : "=r"(s) : "r"(v)); o[7] = s;
    asm("{\n\t.reg .s16 t;\n\tcvt.sat.s16.s32 t, %1;\n\tcvt.s32.s16 %0, t;\n\t}" : "=r"(s) : "r"(v)); o[8] = s;
    asm("cvt.sat.u32.s32 %0, %1;" : "=r"(s) : "r"(v)); o[9] = s;
}
