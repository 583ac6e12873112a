// Variables of module scope: constants, initialised arrays of each width, strings, pointers to other variables,
// structs, counters that start at a value, and shared memory of three kinds at once.
struct Row {
    short id;
    double weight;
    const char *name;
};
__constant__ int primes[8] = {2, 3, 5, 7, 11, 13, 17, 19};
__constant__ double thirds = 1.0 / 3;
__constant__ unsigned char bytes[5] = {1, 2, 255, 4};
__device__ short shorts[3][2] = {{-1, 2}, {-3, 4}, {5, -6}};
__device__ unsigned long long wide = 0x123456789abcdef0ull;
__device__ float floats[4] = {1.5f, -2.25f, 1e-38f};
__device__ int counter = 41;
__device__ int *const pointers[3] = {&counter, &counter, nullptr};
__device__ const Row rows[3] = {{7, 0.125, "first"}, {-8, 2.5, "the second"}, {9, -1e300, "z"}};
__device__ int zeros[10];
__constant__ const int *const into = primes + 3;

extern "C" __global__ void read_data(long long *y) {
    int t = threadIdx.x;
    if (t < 8) y[t] = primes[t];
    else if (t < 13) y[t] = bytes[t - 8];
    else if (t < 19) y[t] = shorts[(t - 13) / 2][(t - 13) % 2];
    else if (t == 19) y[t] = (long long)wide;
    else if (t < 24) y[t] = (long long)(floats[t - 20] * 4);
    else if (t == 24) y[t] = (long long)(thirds * 3e9);
    else if (t < 28) {
        const Row &r = rows[t - 25];
        int length = 0;
        while (r.name[length]) length++;
        y[t] = r.id * 1000 + length * 100 + (r.weight > 0) + r.name[0];
    } else if (t == 28) y[t] = *pointers[1] + (pointers[2] == nullptr);
    else if (t == 29) y[t] = into[1];
    else y[t] = zeros[t % 10];
}
extern "C" __global__ void count(int *y) {
    int old = atomicAdd(&counter, 1);
    atomicAdd(&y[old - 41], 1);
    atomicAdd(&zeros[threadIdx.x % 10], 1);
}
extern __shared__ int dynamic[];
extern "C" __global__ void three_shared(const int *x, int *y, int n) {
    __shared__ char flags[13];
    __shared__ double sums[2];
    int t = threadIdx.x;
    if (t < 13) flags[t] = t % 3;
    if (t < 2) sums[t] = t * 0.5;
    dynamic[t] = t < n ? x[t] : 0;
    __syncthreads();
    if (t < n) y[t] = dynamic[n - 1 - t] + flags[t % 13] + (int)(sums[t % 2] * 2);
}
