// nvcc: -G
// The same language with debug information and no optimisation: a depot in local memory for each variable, `.loc`
// with inlining, sections of DWARF, generic addressing throughout.
struct Point {
    float x, y;
    __device__ float dot(const Point &o) const { return x * o.x + y * o.y; }
};
template <class T> __device__ T clamp(T v, T low, T high) { return v < low ? low : v > high ? high : v; }

extern "C" __global__ void unoptimised(const Point *a, const Point *b, float *y, int n) {
    __shared__ float s[32];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float v = 0;
    if (i < n) {
        Point p = a[i], q = b[i];
        for (int k = 0; k < 3; k++) {
            v += p.dot(q) * k;
            p.x = clamp(p.x + 0.25f, -0.5f, 0.5f);
        }
    }
    s[threadIdx.x] = v;
    __syncthreads();
    if (i < n) y[i] = s[threadIdx.x] + s[threadIdx.x ^ 1];
}
