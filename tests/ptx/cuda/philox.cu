// Philox 4x32-10 and PCG: counters in, random words and floats out; a Monte-Carlo count of points in a circle.
struct Words {
    unsigned v[4];
};
__device__ Words philox(Words c, unsigned k0, unsigned k1) {
#pragma unroll
    for (int r = 0; r < 10; r++) {
        unsigned h0 = __umulhi(0xD2511F53u, c.v[0]), l0 = 0xD2511F53u * c.v[0];
        unsigned h1 = __umulhi(0xCD9E8D57u, c.v[2]), l1 = 0xCD9E8D57u * c.v[2];
        c = {{h1 ^ c.v[1] ^ k0, l1, h0 ^ c.v[3] ^ k1, l0}};
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return c;
}
extern "C" __global__ void philox_words(uint4 *y, unsigned long long seed, unsigned long long first, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned long long at = first + i;
    Words w = philox({{(unsigned)at, (unsigned)(at >> 32), 0, 7}}, (unsigned)seed, (unsigned)(seed >> 32));
    y[i] = make_uint4(w.v[0], w.v[1], w.v[2], w.v[3]);
}
extern "C" __global__ void philox_dropout(const float *x, float *y, float keep, unsigned seed, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (4 * i >= n) return;
    Words w = philox({{(unsigned)i, 0, 0, 0}}, seed, 0);
    for (int k = 0; k < 4 && 4 * i + k < n; k++)
        y[4 * i + k] = (w.v[k] >> 8) * (1.0f / 16777216) < keep ? x[4 * i + k] / keep : 0;
}
extern "C" __global__ void circle(unsigned *hits, unsigned seed, int rounds) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, inside = 0;
    for (int r = 0; r < rounds; r++) {
        Words w = philox({{i, (unsigned)r, 0, 0}}, seed, 1);
        for (int k = 0; k < 4; k += 2) {
            unsigned long long a = w.v[k] >> 16, b = w.v[k + 1] >> 16;
            inside += a * a + b * b < 1ull << 32;
        }
    }
    inside = __reduce_add_sync(~0u, inside);
    if (i % 32 == 0) atomicAdd(hits, inside);
}
extern "C" __global__ void pcg(const unsigned long long *state, unsigned *y, int rounds) {
    unsigned long long s = state[threadIdx.x];
    for (int r = 0; r < rounds; r++) {
        unsigned x = (unsigned)(((s >> 18) ^ s) >> 27), turn = s >> 59;
        y[r * blockDim.x + threadIdx.x] = __funnelshift_r(x, x, turn);
        s = s * 6364136223846793005ull + 1442695040888963407ull;
    }
}
