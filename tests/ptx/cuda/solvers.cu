// Whole small programs: FFT in shared memory, LU with pivots, n bodies, sparse product, breadth-first search, edit
// distance, Floyd-Warshall.

extern "C" __global__ void fft(float2 *x) { // 256 points a block of 128 threads, radix 2, in place
    __shared__ float2 s[256];
    int t = threadIdx.x;
    x += 256 * blockIdx.x;
    for (int i = t; i < 256; i += 128) s[__brev(i) >> 24] = x[i];
    for (int half = 1; half < 256; half *= 2) {
        __syncthreads();
        int k = t % half, i = 2 * t - k;
        float c, d;
        sincospif(-(float)k / half, &d, &c);
        float2 a = s[i], b = s[i + half], w = make_float2(b.x * c - b.y * d, b.x * d + b.y * c);
        s[i] = make_float2(a.x + w.x, a.y + w.y), s[i + half] = make_float2(a.x - w.x, a.y - w.y);
    }
    __syncthreads();
    for (int i = t; i < 256; i += 128) x[i] = s[i];
}
// Solves A x = b for a system of up to 32 unknowns by one warp, in double precision; column by column with pivots.
extern "C" __global__ void solve(const double *a, const double *b, double *x, int n) {
    __shared__ double m[32][34];
    int t = threadIdx.x;
    a += blockIdx.x * n * n, b += blockIdx.x * n, x += blockIdx.x * n;
    for (int r = 0; r < n; r++)
        if (t <= n) m[r][t] = t < n ? a[r * n + t] : b[r];
    __syncwarp();
    for (int k = 0; k < n; k++) {
        int best = k;
        double v = t >= k && t < n ? fabs(m[t][k]) : -1;
        int at = t;
        for (int d = 16; d; d /= 2) {
            double w = __shfl_xor_sync(~0u, v, d);
            int o = __shfl_xor_sync(~0u, at, d);
            if (w > v || (w == v && o < at)) v = w, at = o;
        }
        best = at;
        __syncwarp();
        if (t <= n) {
            double u = m[k][t];
            m[k][t] = m[best][t], m[best][t] = u;
        }
        __syncwarp();
        for (int r = 0; r < n; r++) {
            double f = m[r][k] / m[k][k];
            __syncwarp();
            if (r != k && t <= n) m[r][t] -= f * m[k][t];
            __syncwarp();
        }
    }
    if (t < n) x[t] = m[t][n] / m[t][t];
}
extern "C" __global__ void bodies(const float4 *place, float4 *force, int n) {
    extern __shared__ float4 tile[];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float4 me = i < n ? place[i] : make_float4(0, 0, 0, 0);
    float fx = 0, fy = 0, fz = 0, potential = 0;
    for (int base = 0; base < n; base += blockDim.x) {
        tile[threadIdx.x] = base + threadIdx.x < n ? place[base + threadIdx.x] : make_float4(0, 0, 0, 0);
        __syncthreads();
        for (int j = 0; j < blockDim.x; j++) {
            float4 o = tile[j];
            float dx = o.x - me.x, dy = o.y - me.y, dz = o.z - me.z, r = rsqrtf(dx * dx + dy * dy + dz * dz + 0.01f), f = o.w * r * r * r;
            fx += f * dx, fy += f * dy, fz += f * dz, potential -= o.w * r;
        }
        __syncthreads();
    }
    if (i < n) force[i] = make_float4(fx, fy, fz, potential);
}
extern "C" __global__ void sparse(const int *start, const int *column, const float *value, const float *x, float *y, int rows) {
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 8, lane = threadIdx.x % 8;
    float sum = 0;
    if (row < rows)
        for (int k = start[row] + lane; k < start[row + 1]; k += 8) sum += value[k] * x[column[k]];
    for (int d = 4; d; d /= 2) sum += __shfl_down_sync(~0u, sum, d, 8);
    if (row < rows && lane == 0) y[row] = sum;
}
// All levels in one block: the frontier is found again by each round.
extern "C" __global__ void search(const int *start, const int *next, int *level, int nodes) {
    for (int depth = 0;; depth++) {
        int found = 0;
        for (int v = threadIdx.x; v < nodes; v += blockDim.x)
            if (((volatile int *)level)[v] == depth)
                for (int e = start[v]; e < start[v + 1]; e++)
                    if (atomicCAS(&level[next[e]], -1, depth + 1) == -1) found = 1;
        if (!__syncthreads_or(found)) return;
    }
}
// Edit distance of a pair of words a warp: an anti-diagonal at a time, neighbours by shuffles.
extern "C" __global__ void edit_distance(const char *a, const char *b, int *y, int length_b) {
    int lane = threadIdx.x, row = lane + 1;
    char mine = a[32 * blockIdx.x + lane];
    int here = row, above = lane, diagonal;
    b += length_b * blockIdx.x;
    for (int step = 1; step <= length_b + 31; step++) {
        int col = step - lane;
        int up = __shfl_up_sync(~0u, here, 1);
        if (lane == 0) up = col;
        diagonal = above, above = up;
        if (col >= 1 && col <= length_b) {
            if (col == 1) diagonal = lane;
            int change = diagonal + (mine != b[col - 1]);
            here = min(min(here, up) + 1, change);
        }
    }
    if (lane == 31) y[blockIdx.x] = here;
}
extern "C" __global__ void shortest(int *d, int n) {
    for (int k = 0; k < n; k++) {
        for (int i = threadIdx.x; i < n * n; i += blockDim.x) {
            int r = i / n, c = i % n, via = d[r * n + k] + d[k * n + c];
            if (r != k && c != k && via < d[i]) d[i] = via;
        }
        __syncthreads();
    }
}
