// Arrays in local memory, indexed by what is known only at run time; and a stack that grows by `alloca`.

// Insertion sort of up to 24 elements a thread.
extern "C" __global__ void insertion(const short *x, short *y, const int *length, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    short a[24];
    int m = length[i];
    for (int k = 0; k < m; k++) {
        short v = x[24 * i + k];
        int j = k;
        for (; j > 0 && a[j - 1] > v; j--) a[j] = a[j - 1];
        a[j] = v;
    }
    for (int k = 0; k < m; k++) y[24 * i + k] = a[k];
}
// Queens on a board: backtracking with an explicit stack.
extern "C" __global__ void queens(int *y, int size) {
    int first = threadIdx.x, place[12], row = 1, count = 0;
    if (first >= size) return;
    place[0] = first, place[1] = -1;
    while (row > 0) {
        if (row == size) { count++, row--; continue; }
        if (++place[row] == size) { row--; continue; }
        bool ok = true;
        for (int r = 0; r < row && ok; r++) ok = place[r] != place[row] && abs(place[r] - place[row]) != row - r;
        if (ok) { if (++row < size) place[row] = -1; }
    }
    y[first] = count;
}
// A table of bytes read back as words of another size, and a struct copied through local memory.
struct Mixed {
    char c[7];
    short s;
    double d;
};
extern "C" __global__ void reinterpret(const unsigned *x, unsigned long long *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned char bytes[16];
    for (int k = 0; k < 16; k++) bytes[(k * 7 + i) % 16] = x[i] >> (k % 4 * 8);
    unsigned long long h = 0;
    for (int k = 0; k < 16; k += 2) h = h * 31 + *(unsigned short *)(bytes + (k + 2 * i) % 16);
    Mixed m[3];
    for (int k = 0; k < 3; k++) {
        m[k].s = k * 100 + i, m[k].d = 0.5 * k + i;
        for (int j = 0; j < 7; j++) m[k].c[j] = bytes[(j + k) % 16];
    }
    Mixed copy = m[i % 3];
    y[i] = h + copy.s + (long long)(copy.d * 2) + copy.c[i % 7];
}
extern "C" __global__ void grows(const int *length, int *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int m = length[i], sum = 0;
    int *a = (int *)alloca(m * sizeof(int));
    for (int k = 0; k < m; k++) a[k] = k * k + i;
    for (int k = 0; k < m; k++) sum += a[(k * 3) % m];
    y[i] = sum;
}
