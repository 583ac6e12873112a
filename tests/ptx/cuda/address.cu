// Addresses: generic pointers into each space, which space they name, wide and narrow and unaligned copies, cache
// hints, and arguments by value of any size.
struct Small {
    char tag;
    short pair[2];
    int value;
};
struct Large {
    float scale;
    int offsets[12];
    double bias;
};
__constant__ int constants[4] = {100, 200, 300, 400};
__device__ int globals[4] = {10, 20, 30, 40};

extern "C" __global__ void generic(const int *x, int *y) {
    __shared__ int s[32];
    int t = threadIdx.x, mine[4];
    s[t] = x[t] + 1000;
    for (int k = 0; k < 4; k++) mine[k] = x[t] + 2000 + k;
    __syncthreads();
    const int *p = t % 5 == 0 ? &x[31 - t] : t % 5 == 1 ? &s[31 - t] : t % 5 == 2 ? &mine[t % 4] : t % 5 == 3 ? &constants[t % 4] : &globals[t % 4];
    y[2 * t] = *p;
    y[2 * t + 1] = __isGlobal(p) | __isShared(p) << 1 | __isLocal(p) << 2 | __isConstant(p) << 3;
}
__device__ __noinline__ void bump(int *p, int by) { *p += by; }
extern "C" __global__ void generic_store(int *y) {
    __shared__ int s[32];
    int t = threadIdx.x, mine = t;
    s[t] = 5;
    bump(t % 3 == 0 ? &s[t] : t % 3 == 1 ? &mine : &y[t], 100);
    __syncthreads();
    if (t % 3 != 2) y[t] = s[t] * 1000 + mine;
    if (t == 0) atomicAdd(t == 0 ? &s[0] : y, 1), y[32] = s[0];
}
extern "C" __global__ void by_value(Small a, Large b, short c, unsigned char d, double e, const int *x, double *y) {
    int t = threadIdx.x;
    y[t] = a.tag + a.pair[t % 2] + a.value + b.scale * b.offsets[t % 12] + b.bias + c + d + e + x[t];
}
// Copies by bytes, halves, words, pairs and fours; with the hints of the cache.
extern "C" __global__ void copies(const unsigned char *x, unsigned char *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const unsigned char *p = x + 64 * i;
    unsigned char *q = y + 64 * i;
    for (int k = 0; k < 8; k++) q[k] = p[7 - k];
    for (int k = 8; k < 16; k += 2) *(short *)(q + k) = *(const short *)(p + k);
    __stcs((int2 *)(q + 16), __ldcs((const int2 *)(p + 24)));
    __stcg((double *)(q + 24), __ldcg((const double *)(p + 16)));
    __stwt((int4 *)(q + 32), __ldg((const int4 *)(p + 48)));
    __stwb((short4 *)(q + 48), __ldca((const short4 *)(p + 40)));
    *(volatile int *)(q + 56) = *(const volatile int *)(p + 32);
    *(uchar2 *)(q + 60) = __ldlu((const uchar2 *)(p + 36)), *(short *)(q + 62) = __ldcv((const short *)(p + 38));
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
    asm volatile("prefetchu.L1 [%0];" ::"l"(p));
}
extern "C" __global__ void hints(const float *x, float *y) {
    int t = threadIdx.x;
    float a, b, c, d, e;
    asm volatile("ld.global.nc.L1::no_allocate.f32 %0, [%1];" : "=f"(a) : "l"(x + t));
    asm volatile("ld.global.L2::128B.f32 %0, [%1+128];" : "=f"(b) : "l"(x + t));
    asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];" : "=f"(c) : "l"(x + t));
    asm volatile("ld.global.nc.L1::evict_last.v2.f32 {%0, %1}, [%2];" : "=f"(d), "=f"(e) : "l"(x + 2 * (t / 2)));
    asm volatile("st.global.L1::evict_first.v2.f32 [%0], {%1, %2};" ::"l"(y + 2 * t), "f"(a + b), "f"(c + d - e) : "memory");
}
