// nvcc: -lineinfo
// Device functions that are not inlined: scalar, struct and pointer arguments, results of up to 16 bytes, an
// array written by the callee, recursion, and calls in divergent code.
struct Pair {
    float low, high;
};
struct Body {
    double mass;
    float place[3];
    short id;
};

__device__ __noinline__ int gcd(int a, int b) {
    while (b) {
        int r = a % b;
        a = b, b = r;
    }
    return a;
}
__device__ __noinline__ Pair ordered(float a, float b) { return a < b ? Pair{a, b} : Pair{b, a}; }
__device__ __noinline__ Body moved(Body b, float by) {
    for (int i = 0; i < 3; i++) b.place[i] += by * (i + 1);
    b.mass *= 2, b.id++;
    return b;
}
__device__ __noinline__ void digits(unsigned v, unsigned char *out, int *count) {
    do out[(*count)++] = v % 10;
    while (v /= 10);
}
__device__ __noinline__ unsigned fibonacci(unsigned n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
__device__ __noinline__ unsigned ackermann(unsigned m, unsigned n) {
    return m == 0 ? n + 1 : ackermann(m - 1, n == 0 ? 1 : ackermann(m, n - 1));
}
__device__ __noinline__ long long wide(long long a, short b, bool negative, double scale) {
    return (negative ? -a : a) * b + (long long)scale;
}

extern "C" __global__ void call_scalar(const int *a, const int *b, int *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a[i] > b[i] ? gcd(a[i], b[i]) : -gcd(b[i], a[i] + 1);
}
extern "C" __global__ void call_struct(const float *a, const float *b, Pair *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = ordered(a[i], b[i]);
}
extern "C" __global__ void call_large_struct(const Body *x, Body *y, float by, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = moved(x[i], by);
}
extern "C" __global__ void call_pointer(const unsigned *x, unsigned *sum, int *length, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, count = 0;
    if (i >= n) return;
    unsigned char d[10];
    digits(x[i], d, &count);
    unsigned s = 0;
    for (int k = 0; k < count; k++) s = s * 3 + d[k];
    sum[i] = s, length[i] = count;
}
extern "C" __global__ void call_recursive(const unsigned *x, unsigned *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = i % 3 == 2 ? ackermann(2, x[i] % 5) : fibonacci(x[i]);
}
extern "C" __global__ void call_wide(const long long *x, long long *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = wide(x[i], (short)(i - 20), i & 1, i * 0.75);
}
