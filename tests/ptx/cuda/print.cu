// printf with every kind of argument, and asserts that hold.
#include <cassert>
#include <cstdio>

extern "C" __global__ void print(const int *x, int n) {
    int i = threadIdx.x;
    if (i >= n) return;
    assert(x[i] >= 0 && "never negative");
    if (i == 0) printf("no arguments, 100%%\n");
    if (i == 1) printf("%d %u %x|%5d|%-5d|%05d|%+d\n", -x[i], x[i], x[i], x[i], x[i], x[i], x[i]);
    if (i == 2) printf("%f %.3f %8.2e %g %s %c %lld %llx\n", x[i] * 0.1, 1.0f / 3, 12345.678, 1e-10, "text", 'c', 1ll << 40, 0xfeedull << 32);
}
extern "C" __global__ void print_pointer(const void *p, size_t n) {
    if (threadIdx.x == 0) printf("%lu %hd %i %o %X %E %G %5s|%-5s|%%\n", n, (short)-3, 17, 8, 48879, 0.5, 100000.0, "ab", "cd");
}
