// Programs with an answer known to everyone: SHA-256, MD5, CRC-32 and FNV-1a of short messages, one a thread.
__constant__ unsigned prime_roots[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
__device__ unsigned right(unsigned x, int n) { return __funnelshift_r(x, x, n); }

// Messages are `length` bytes each, at most 55, so one block of 64 bytes holds the message and its padding.
extern "C" __global__ void sha256(const unsigned char *text, int length, unsigned *digest, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned char block[64] = {};
    for (int k = 0; k < length; k++) block[k] = text[i * length + k];
    block[length] = 0x80, block[62] = length * 8 >> 8, block[63] = length * 8;
    unsigned w[64];
    for (int k = 0; k < 16; k++) w[k] = __byte_perm(*(unsigned *)(block + 4 * k), 0, 0x0123);
#pragma unroll 1
    for (int k = 16; k < 64; k++) {
        unsigned s0 = right(w[k - 15], 7) ^ right(w[k - 15], 18) ^ w[k - 15] >> 3, s1 = right(w[k - 2], 17) ^ right(w[k - 2], 19) ^ w[k - 2] >> 10;
        w[k] = w[k - 16] + s0 + w[k - 7] + s1;
    }
    unsigned h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}, v[8];
    for (int k = 0; k < 8; k++) v[k] = h[k];
#pragma unroll 1
    for (int k = 0; k < 64; k++) {
        unsigned t1 = v[7] + (right(v[4], 6) ^ right(v[4], 11) ^ right(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) + prime_roots[k] + w[k];
        unsigned t2 = (right(v[0], 2) ^ right(v[0], 13) ^ right(v[0], 22)) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        for (int j = 7; j > 0; j--) v[j] = v[j - 1];
        v[4] += t1, v[0] = t1 + t2;
    }
    for (int k = 0; k < 8; k++) digest[8 * i + k] = __byte_perm(h[k] + v[k], 0, 0x0123);
}
extern "C" __global__ void md5(const unsigned char *text, int length, const unsigned *sines, unsigned *digest, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned char block[64] = {};
    for (int k = 0; k < length; k++) block[k] = text[i * length + k];
    block[length] = 0x80, *(unsigned *)(block + 56) = length * 8;
    const unsigned char turns[16] = {7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21};
    unsigned a = 0x67452301, b = 0xefcdab89, c = 0x98badcfe, d = 0x10325476;
#pragma unroll 1
    for (int k = 0; k < 64; k++) {
        unsigned f;
        int g;
        if (k < 16) f = (b & c) | (~b & d), g = k;
        else if (k < 32) f = (d & b) | (~d & c), g = (5 * k + 1) % 16;
        else if (k < 48) f = b ^ c ^ d, g = (3 * k + 5) % 16;
        else f = c ^ (b | ~d), g = 7 * k % 16;
        unsigned t = a + f + sines[k] + ((unsigned *)block)[g], s = turns[k / 16 * 4 + k % 4];
        a = d, d = c, c = b, b += __funnelshift_l(t, t, s);
    }
    digest[4 * i] = a + 0x67452301, digest[4 * i + 1] = b + 0xefcdab89, digest[4 * i + 2] = c + 0x98badcfe, digest[4 * i + 3] = d + 0x10325476;
}
extern "C" __global__ void crc32(const unsigned char *text, int length, unsigned *y, int n) {
    __shared__ unsigned table[256];
    for (int b = threadIdx.x; b < 256; b += blockDim.x) {
        unsigned r = b;
        for (int k = 0; k < 8; k++) r = r & 1 ? r >> 1 ^ 0xEDB88320u : r >> 1;
        table[b] = r;
    }
    __syncthreads();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned r = ~0u;
    for (int k = 0; k < length; k++) r = r >> 8 ^ table[(r ^ text[i * length + k]) & 255];
    y[i] = ~r;
}
extern "C" __global__ void fnv1a(const unsigned char *text, int length, unsigned long long *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned long long h = 0xcbf29ce484222325ull;
    for (int k = 0; k < length; k++) h = (h ^ text[i * length + k]) * 0x100000001b3ull;
    y[i] = h;
}
