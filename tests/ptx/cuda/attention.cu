// Flash attention, causal or not: a block of 32 queries, keys and values by tiles of 32 in dynamic shared
// memory, running maximum and sum. q, k, v and o are [heads, tokens, 24].
#define D 24
extern "C" __global__ void attention(const float *q, const float *k, const float *v, float *o, float *logsum, int tokens, int causal, float scale) {
    extern __shared__ float s[];
    float *ks = s, *vs = s + 32 * D, *ps = vs + 32 * D; // ps is [32][33]
    int t = threadIdx.x, row = blockIdx.x * 32 + t;
    size_t head = (size_t)blockIdx.y * tokens * D;
    float query[D], sum[D] = {}, high = -1e30f, total = 0;
    for (int d = 0; d < D; d++) query[d] = row < tokens ? q[head + row * D + d] * scale : 0;
    int end = causal ? min(tokens, (int)blockIdx.x * 32 + 32) : tokens;
    for (int j0 = 0; j0 < end; j0 += 32) {
        for (int i = t; i < 32 * D; i += 32) {
            bool in = j0 + i / D < tokens;
            ks[i] = in ? k[head + j0 * D + i] : 0, vs[i] = in ? v[head + j0 * D + i] : 0;
        }
        __syncthreads();
        float tile = -1e30f;
        for (int j = 0; j < 32; j++) {
            float p = 0;
            for (int d = 0; d < D; d++) p += query[d] * ks[j * D + d];
            if (j0 + j >= tokens || (causal && j0 + j > row)) p = -1e30f;
            ps[t * 33 + j] = p, tile = fmaxf(tile, p);
        }
        float now = fmaxf(high, tile), shrink = __expf(high - now);
        total *= shrink;
        for (int d = 0; d < D; d++) sum[d] *= shrink;
        for (int j = 0; j < 32; j++) {
            float p = __expf(ps[t * 33 + j] - now);
            total += p;
            for (int d = 0; d < D; d++) sum[d] += p * vs[j * D + d];
        }
        high = now;
        __syncthreads();
    }
    if (row >= tokens) return;
    for (int d = 0; d < D; d++) o[head + row * D + d] = sum[d] / total;
    logsum[blockIdx.y * tokens + row] = high + logf(total);
}
