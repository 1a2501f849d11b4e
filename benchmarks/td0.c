/* TD(0) on a chain given by alias tables: what a C programmer would write, sampler and update in one loop.
   build: cc -O3 -shared -fPIC -o td0.so td0.c */
#include <stdint.h>

static inline uint64_t next(uint64_t *s) { /* xoroshiro128+, Blackman & Vigna (2018) */
    uint64_t a = s[0], b = s[1], r = a + b;
    b ^= a;
    s[0] = ((a << 24) | (a >> 40)) ^ b ^ (b << 16);
    s[1] = (b << 37) | (b >> 27);
    return r;
}

void td0(double *V, int64_t n, int64_t K, const double *keep, const int32_t *other, const int32_t *to,
         const double *pays, const double *gamma, const uint8_t *ends, int64_t start, double alpha, uint64_t *seed) {
    int64_t s = start;
    for (int64_t t = 0; t < n; t++) {
        double x = (next(seed) >> 11) * 0x1.0p-53 * K;
        int64_t i = (int64_t)x, o = s * K + i, instead = other[o];
        o = x - i < keep[o] ? o : instead;
        int64_t s_next = to[o];
        V[s] += alpha * (pays[o] + gamma[o] * V[s_next] - V[s]);
        s = ends[o] ? start : s_next;
    }
}
