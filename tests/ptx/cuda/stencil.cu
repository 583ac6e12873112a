// 2-D stencils: five points with a halo in dynamic shared memory, a 3 x 3 box with zero padding and weights in
// constant memory, and one step of Conway's life on a torus.
__constant__ float box[9] = {1, 2, 1, 2, 4, 2, 1, 2, 1};

extern "C" __global__ void heat(const float *x, float *y, int height, int width, float rate) {
    extern __shared__ float tile[];
    int w = blockDim.x + 2, tx = threadIdx.x + 1, ty = threadIdx.y + 1;
    int c = blockIdx.x * blockDim.x + threadIdx.x, r = blockIdx.y * blockDim.y + threadIdx.y;
    auto at = [&](int r, int c) {
        r = min(max(r, 0), height - 1), c = min(max(c, 0), width - 1);
        return x[r * width + c];
    };
    tile[ty * w + tx] = at(r, c);
    if (threadIdx.x == 0) tile[ty * w] = at(r, c - 1);
    if (threadIdx.x == blockDim.x - 1) tile[ty * w + tx + 1] = at(r, c + 1);
    if (threadIdx.y == 0) tile[tx] = at(r - 1, c);
    if (threadIdx.y == blockDim.y - 1) tile[(ty + 1) * w + tx] = at(r + 1, c);
    __syncthreads();
    if (r >= height || c >= width) return;
    float here = tile[ty * w + tx];
    float around = tile[ty * w + tx - 1] + tile[ty * w + tx + 1] + tile[(ty - 1) * w + tx] + tile[(ty + 1) * w + tx];
    y[r * width + c] = here + rate * (around - 4 * here);
}

extern "C" __global__ void blur(const unsigned char *x, unsigned char *y, int height, int width) {
    int c = blockIdx.x * blockDim.x + threadIdx.x, r = blockIdx.y * blockDim.y + threadIdx.y;
    if (r >= height || c >= width) return;
    float sum = 0;
    for (int i = -1; i <= 1; i++)
        for (int j = -1; j <= 1; j++)
            if (r + i >= 0 && r + i < height && c + j >= 0 && c + j < width)
                sum += box[3 * i + j + 4] * x[(r + i) * width + c + j];
    y[r * width + c] = (unsigned char)(sum / 16 + 0.5f);
}

extern "C" __global__ void life(const signed char *x, signed char *y, int height, int width) {
    int c = blockIdx.x * blockDim.x + threadIdx.x, r = blockIdx.y * blockDim.y + threadIdx.y;
    if (r >= height || c >= width) return;
    int around = 0;
    for (int i = height - 1; i <= height + 1; i++)
        for (int j = width - 1; j <= width + 1; j++)
            if (i != height || j != width) around += x[(r + i) % height * width + (c + j) % width];
    y[r * width + c] = around == 3 || (around == 2 && x[r * width + c]);
}
