// Control flow: dense switches (`brx.idx`), nested and data-dependent loops, early returns, `goto`, and lanes
// that part and meet again before a shuffle.

extern "C" __global__ void switch_table(const int *op, const int *x, int *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int v = x[i], r;
    switch (op[i]) {
    case 0: r = v + 11; break;
    case 1: r = v * v; break;
    case 2: r = v ^ 0x55; // falls through
    case 3: r = ~v; break;
    case 4: r = v / 3; break;
    case 5: r = v % 7; break;
    case 6: r = __popc(v); break;
    case 7: return;
    case 8: r = v << (v & 7); break;
    case 10: r = -v; break;
    default: r = 0;
    }
    y[i] = r;
}

// A small stack machine: the instruction counter differs from lane to lane.
extern "C" __global__ void machine(const unsigned char *code, const int *start, int *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int pc = start[i], a = i, b = 1, steps = 0;
    for (;; steps++) {
        if (steps > 200) { y[i] = -1; return; }
        switch (code[pc++]) {
        case 0: y[i] = a * 1000 + b; return;
        case 1: a += b; continue;
        case 2: b += 1; continue;
        case 3: a ^= b; continue;
        case 4: b *= 3; continue;
        case 5: if (b < 50) pc -= code[pc]; else pc++; continue;
        case 6: { int t = a; a = b; b = t; } continue;
        case 7: a >>= 1; continue;
        }
    }
}

extern "C" __global__ void collatz(const unsigned *x, int *steps, unsigned *peak, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned v = x[i], high = v;
    int s = 0;
    while (v != 1) {
        v = v & 1 ? 3 * v + 1 : v / 2;
        high = max(high, v), s++;
    }
    steps[i] = s, peak[i] = high;
}

// The first prime factors of x, by loops with `continue` and `break` two deep.
extern "C" __global__ void factors(const int *x, int *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int v = x[i], k = 0, out[3] = {0, 0, 0};
    for (int p = 2; v > 1; p++) {
        if (p * p > v) p = v;
        while (v % p == 0) {
            v /= p;
            if (k == 3) goto full;
            out[k++] = p;
        }
        if (p > 2 && p % 2 == 0) continue;
    }
full:
    for (k = 0; k < 3; k++) y[3 * i + k] = out[k];
}

// Odd lanes loop, even lanes do not; all lanes meet at the shuffle.
extern "C" __global__ void meet(const int *x, int *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, v = x[i];
    if (i & 1)
        for (int k = 0; k < (i & 15); k++) v = v * 5 + k;
    else if (i & 2)
        v = -v;
    __syncwarp();
    int w = __shfl_xor_sync(~0u, v, 1);
    if (i % 5 == 0) {
        unsigned here = __activemask();
        v += __popc(__ballot_sync(here, w > 0));
    }
    y[i] = v - w;
}

extern "C" __global__ void mandelbrot(unsigned char *y, int width, int height, int limit) {
    int c = blockIdx.x * blockDim.x + threadIdx.x, r = blockIdx.y * blockDim.y + threadIdx.y;
    if (c >= width || r >= height) return;
    float a = -2.25f + c * 0.0625f, b = -1.25f + r * 0.0625f, u = 0, v = 0;
    int k = 0;
    for (; k < limit && __fadd_rn(__fmul_rn(u, u), __fmul_rn(v, v)) <= 4; k++) {
        float t = __fadd_rn(__fsub_rn(__fmul_rn(u, u), __fmul_rn(v, v)), a);
        v = __fadd_rn(__fmul_rn(2 * u, v), b), u = t;
    }
    y[r * width + c] = k;
}
