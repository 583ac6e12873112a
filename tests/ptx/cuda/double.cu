// Double precision: arithmetic with its four roundings, roots and quotients, the library's functions (their
// slow paths read tables from constant memory), conversions, atomics.

extern "C" __global__ void f64_arithmetic(const double *a, const double *b, double *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double p = a[i], q = b[i], *o = y + 14 * i;
    o[0] = __dadd_rn(p, q), o[1] = __dadd_rz(p, q), o[2] = __dadd_ru(p, q), o[3] = __dadd_rd(p, q);
    o[4] = __dmul_rn(p, q), o[5] = __dmul_rz(p, q), o[6] = __dmul_ru(p, q), o[7] = __dmul_rd(p, q);
    o[8] = fma(p, q, 1.0), o[9] = p / q, o[10] = sqrt(fabs(p)), o[11] = fmin(p, q), o[12] = fmax(p, q), o[13] = 1 / q;
}
extern "C" __global__ void f64_functions(const double *x, double *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double v = x[i], *o = y + 12 * i;
    o[0] = exp(v), o[1] = log(fabs(v)), o[2] = sin(v), o[3] = cos(v), o[4] = tan(v), o[5] = atan(v);
    o[6] = tanh(v), o[7] = erf(v), o[8] = pow(fabs(v), 1.7), o[9] = cbrt(v), o[10] = floor(v), o[11] = fmod(v, 1.3);
}
extern "C" __global__ void f64_sum(const double *x, double *sum, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    double v = i < n ? x[i] : 0;
    for (int d = 16; d; d /= 2) v += __shfl_xor_sync(~0u, v, d);
    if (threadIdx.x % 32 == 0) atomicAdd(sum, v);
}
extern "C" __global__ void f64_convert(const double *x, int *w, long long *l, unsigned *u, float *f, double *back, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double v = x[i];
    w[4 * i] = __double2int_rn(v), w[4 * i + 1] = __double2int_rz(v), w[4 * i + 2] = __double2int_ru(v), w[4 * i + 3] = __double2int_rd(v);
    l[2 * i] = __double2ll_rn(v), l[2 * i + 1] = __double2ll_rz(v);
    u[2 * i] = __double2hiint(v), u[2 * i + 1] = __double2loint(v);
    f[4 * i] = __double2float_rn(v), f[4 * i + 1] = __double2float_rz(v), f[4 * i + 2] = __double2float_ru(v), f[4 * i + 3] = __double2float_rd(v);
    back[3 * i] = __ll2double_rn(__double_as_longlong(v)), back[3 * i + 1] = __uint2double_rn(u[2 * i]), back[3 * i + 2] = rint(v);
}
// Numerov's method for a quantum oscillator, one energy a thread: long chains of dependent operations.
extern "C" __global__ void numerov(const double *energy, double *y, int n, int steps) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double h = 8.0 / steps, a = 0, b = 1e-10, e = energy[i];
    for (int s = 1; s < steps; s++) {
        double x = -4 + s * h, f0 = 2 * e - (x - h) * (x - h), f1 = 2 * e - x * x, f2 = 2 * e - (x + h) * (x + h), g = h * h / 12;
        double c = (2 * b * (1 - 5 * g * f1) - a * (1 + g * f0)) / (1 + g * f2);
        a = b, b = c;
    }
    y[i] = b;
}
