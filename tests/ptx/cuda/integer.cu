// Integers: bit counts and fields, byte permutations, funnel shifts, dot products of bytes, products of all
// widths, division, saturation, carries, and what remains of the SIMD-in-a-word functions.

extern "C" __global__ void bit_tricks(const unsigned *a, const unsigned *b, unsigned *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned p = a[i], q = b[i], *o = y + 16 * i, r;
    o[0] = __popc(p), o[1] = __clz(p >> (q & 31)), o[2] = __brev(p), o[3] = __ffs(p << (q & 31)), o[4] = __byte_perm(p, q, q & 0x7777);
    o[5] = __funnelshift_l(p, q, q & 63), o[6] = __funnelshift_rc(p, q, q & 63), o[7] = (p & q) | (~p & (q ^ 0x1234));
    asm("bfe.u32 %0, %1, %2, %3;" : "=r"(r) : "r"(p), "r"(q & 31), "r"(q >> 5 & 31)); o[8] = r;
    asm("bfe.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(p), "r"(q & 31), "r"(q >> 5 & 31)); o[9] = r;
    asm("bfi.b32 %0, %1, %2, %3, %4;" : "=r"(r) : "r"(p), "r"(q), "r"(q & 31), "r"(q >> 5 & 31)); o[10] = r;
    asm("bfind.u32 %0, %1;" : "=r"(r) : "r"(p >> (q & 31))); o[11] = r;
    asm("bfind.s32 %0, %1;" : "=r"(r) : "r"(p)); o[12] = r;
    asm("lop3.b32 %0, %1, %2, %3, 0x96;" : "=r"(r) : "r"(p), "r"(q), "r"(i)); o[13] = r;
    asm("szext.wrap.u32 %0, %1, %2;" : "=r"(r) : "r"(p), "r"(q & 31)); o[14] = r;
    asm("bmsk.clamp.b32 %0, %1, %2;" : "=r"(r) : "r"(q & 31), "r"(p & 31)); o[15] = r;
}
extern "C" __global__ void products(const int *a, const int *b, int *y, long long *l, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int p = a[i], q = b[i], *o = y + 16 * i;
    o[0] = __mulhi(p, q), o[1] = __umulhi(p, q), o[2] = __mul24(p, q), o[3] = __umul24(p, q);
    o[4] = __dp4a(p, q, 100), o[5] = __dp4a((unsigned)p, (unsigned)q, 100u), o[6] = __dp2a_lo(p, q, 7), o[7] = __dp2a_hi(p, q, 7);
    o[8] = __sad(p, q, 5), o[9] = p / (q | 1), o[10] = p % (q | 1), o[11] = (unsigned)p / ((unsigned)q | 1);
    o[12] = __hadd(p, q), o[13] = __rhadd(p, q);
    int s;
    asm("add.sat.s32 %0, %1, %2;" : "=r"(s) : "r"(p), "r"(q)); o[14] = s;
    asm("mad.hi.sat.s32 %0, %1, %2, %3;" : "=r"(s) : "r"(p), "r"(q), "r"(p)); o[15] = s;
    long long *m = l + 6 * i, u = (long long)p << 21 ^ q, v = (long long)q << 17 ^ p;
    m[0] = (long long)p * q, m[1] = __mul64hi(u, v), m[2] = u * v, m[3] = u / (v | 1), m[4] = u % (v | 1);
    m[5] = (unsigned long long)u / ((unsigned long long)v >> 20 | 1);
}
extern "C" __global__ void wide_bits(const unsigned long long *a, const unsigned long long *b, unsigned long long *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned long long p = a[i], q = b[i], *o = y + 10 * i, r;
    int s = q & 63, w;
    o[0] = __popcll(p), o[1] = __clzll(p >> s), o[2] = __brevll(p), o[3] = __ffsll(p << s), o[4] = p >> s, o[5] = (long long)p >> s;
    asm("bfe.s64 %0, %1, %2, %3;" : "=l"(r) : "l"(p), "r"(s), "r"((int)(q >> 6 & 63))); o[6] = r;
    asm("bfi.b64 %0, %1, %2, %3, %4;" : "=l"(r) : "l"(p), "l"(q), "r"(s), "r"((int)(q >> 6 & 63))); o[7] = r;
    asm("bfind.shiftamt.u64 %0, %1;" : "=r"(w) : "l"(p >> s)); o[8] = w;
    asm("shl.b64 %0, %1, %2;" : "=l"(r) : "l"(p), "r"((int)(q & 127))); o[9] = r;
}
// 128-bit sums, differences and products by carries.
extern "C" __global__ void wide_128(const ulonglong2 *a, const ulonglong2 *b, ulonglong2 *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned __int128 p = (unsigned __int128)a[i].y << 64 | a[i].x, q = (unsigned __int128)b[i].y << 64 | b[i].x, r[4];
    r[0] = p + q, r[1] = p - q, r[2] = p * q, r[3] = p >> (q & 127);
    for (int k = 0; k < 4; k++) y[4 * i + k] = make_ulonglong2((unsigned long long)r[k], (unsigned long long)(r[k] >> 64));
}
extern "C" __global__ void carries(const unsigned *a, const unsigned *b, unsigned *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const unsigned *p = a + 3 * i, *q = b + 3 * i;
    unsigned *o = y + 9 * i;
    asm("add.cc.u32 %0, %3, %6;\n\taddc.cc.u32 %1, %4, %7;\n\taddc.u32 %2, %5, %8;"
        : "=r"(o[0]), "=r"(o[1]), "=r"(o[2]) : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(q[0]), "r"(q[1]), "r"(q[2]));
    asm("sub.cc.u32 %0, %3, %6;\n\tsubc.cc.u32 %1, %4, %7;\n\tsubc.u32 %2, %5, %8;"
        : "=r"(o[3]), "=r"(o[4]), "=r"(o[5]) : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(q[0]), "r"(q[1]), "r"(q[2]));
    asm("mad.lo.cc.u32 %0, %3, %5, %4;\n\tmadc.hi.cc.u32 %1, %3, %5, %6;\n\taddc.u32 %2, %7, 0;"
        : "=r"(o[6]), "=r"(o[7]), "=r"(o[8]) : "r"(p[0]), "r"(p[1]), "r"(q[0]), "r"(q[1]), "r"(p[2]));
}
extern "C" __global__ void bytes_in_words(const unsigned *a, const unsigned *b, unsigned *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned p = a[i], q = b[i], *o = y + 8 * i;
    o[0] = __vadd4(p, q), o[1] = __vsub2(p, q), o[2] = __vabsdiffu4(p, q), o[3] = __vmaxs2(p, q), o[4] = __vminu4(p, q);
    o[5] = __vavgu4(p, q), o[6] = __vcmpgtu4(p, q), o[7] = __vsadu4(p, q);
}
// Narrow types: sums that wrap at 8 and 16 bits, shifts of signed shorts.
extern "C" __global__ void narrow(const signed char *a, const unsigned short *b, int *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    signed char p = a[i];
    unsigned short q = b[i];
    short s = q;
    int *o = y + 6 * i;
    o[0] = (signed char)(p + p), o[1] = (unsigned char)(p * 3), o[2] = (unsigned short)(q * q), o[3] = s >> 3, o[4] = (short)(s << 5), o[5] = s / 7;
}
