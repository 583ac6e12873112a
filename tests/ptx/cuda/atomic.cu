// Atomics on global and shared memory: every operation, 32 and 64 bits, with and without the old value, a
// compare-and-swap loop for the product of floats, a lock, and scopes.

extern "C" __global__ void atomics_32(unsigned *u, int *s, const int *x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int v = x[i];
    atomicAdd(&u[0], v), atomicSub(&u[1], v), atomicMin(&u[2], v), atomicMax(&u[3], v), atomicAnd(&u[4], v | 0xff00), atomicOr(&u[5], v), atomicXor(&u[6], v);
    atomicInc(&u[7], 6), atomicDec(&u[8], 10);
    atomicMin(&s[0], v), atomicMax(&s[1], v), atomicAdd_system(&s[2], v), atomicAdd_block(&s[3 + blockIdx.x], v);
}
extern "C" __global__ void atomics_64(unsigned long long *u, long long *s, double *d, const int *x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    long long v = (long long)x[i] << 30;
    atomicAdd(&u[0], v), atomicMin(&u[1], v), atomicMax(&u[2], v), atomicAnd(&u[3], v | 0xffff), atomicOr(&u[4], v), atomicXor(&u[5], v);
    atomicMin(&s[0], v), atomicMax(&s[1], v);
    atomicAdd(d, x[i] * 0.25);
}
extern "C" __global__ void atomics_shared(const int *x, int *y, float *f, int n) {
    __shared__ int add, low, high, last;
    __shared__ unsigned long long wide;
    __shared__ float sum;
    int t = threadIdx.x;
    if (t == 0) add = 0, low = 1 << 30, high = -1 << 30, last = -1, wide = 0, sum = 0;
    __syncthreads();
    if (t < n) {
        atomicAdd(&add, x[t]), atomicMin(&low, x[t]), atomicMax(&high, x[t]), atomicAdd(&wide, (unsigned long long)x[t] << 20), atomicAdd(&sum, x[t] * 0.5f);
        int old = atomicExch(&last, t);
        if (old >= n) y[0] = 0;
    }
    __syncthreads();
    if (t == 0) y[0] = add, y[1] = low, y[2] = high, y[3] = last >= 0 && last < n, y[4] = (int)(wide >> 20), *f = sum;
}
// Product by compare-and-swap (powers of two: exact in any order); each thread counts its place with the old value.
extern "C" __global__ void cas_product(const float *x, unsigned *product, unsigned *place, unsigned *counter, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned old = *(volatile unsigned *)product, assumed;
    do assumed = old, old = atomicCAS(product, assumed, __float_as_uint(__uint_as_float(assumed) * x[i]));
    while (old != assumed);
    atomicAdd(&place[atomicAdd(counter, 1)], 1);
}
// One thread a block takes a lock, and adds to a plain sum behind it.
extern "C" __global__ void lock(int *mutex, volatile int *sum, int by) {
    if (threadIdx.x == 0) {
        while (atomicCAS(mutex, 0, 1)) {}
        __threadfence();
        *sum = *sum + by + blockIdx.x;
        __threadfence();
        atomicExch(mutex, 0);
    }
}
// Float maximum through integer atomics on the ordered bits; 16-bit compare and swap.
extern "C" __global__ void float_max(const float *x, int *bits, unsigned short *half, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int b = __float_as_int(x[i]);
    atomicMax(bits, b >= 0 ? b : b ^ 0x7fffffff);
    unsigned short old = *(volatile unsigned short *)half, seen;
    do seen = old, old = atomicCAS(half, seen, (unsigned short)(seen + 3));
    while (old != seen);
}
// Acquire and release through the memory model's own forms.
extern "C" __global__ void ordered(unsigned *flags, unsigned *y) {
    unsigned i = blockIdx.x, v;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 5;" : "=r"(v) : "l"(flags) : "memory");
    asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(flags + 1), "r"(i) : "memory");
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(flags + 2 + i), "r"(i + 1) : "memory");
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(flags + 2 + i) : "memory");
    asm volatile("fence.acq_rel.gpu;\n\tfence.sc.cta;" ::: "memory");
    y[i] = v;
}
