/* Q-learning on a model given by alias tables, one row for each state and action: what a C programmer would write.
   eps-greedy, ties broken at random. build: cc -O3 -shared -fPIC -o q_learning.so q_learning.c */
#include <stdint.h>

static inline double uniform(uint64_t *s) { /* xoroshiro128+, Blackman & Vigna (2018) */
    uint64_t a = s[0], b = s[1], r = a + b;
    b ^= a;
    s[0] = ((a << 24) | (a >> 40)) ^ b ^ (b << 16);
    s[1] = (b << 37) | (b >> 27);
    return (r >> 11) * 0x1.0p-53;
}

static inline double best(const double *q, int64_t A) {
    double top = q[0];
    for (int64_t a = 1; a < A; a++)
        top = q[a] > top ? q[a] : top;
    return top;
}

static inline int64_t choose(const double *q, int64_t A, double eps, uint64_t *seed) {
    if (uniform(seed) < eps)
        return (int64_t)(uniform(seed) * A);
    double top = best(q, A);
    int64_t n = 0, chosen = 0;
    for (int64_t a = 0; a < A; a++)
        if (q[a] == top) {
            n++;
            chosen = a;
        }
    if (n == 1)
        return chosen;
    int64_t skip = (int64_t)(uniform(seed) * n);
    for (int64_t a = 0; a < A; a++)
        if (q[a] == top && skip-- == 0)
            return a;
    return chosen;
}

void q_learning(double *Q, int64_t n, int64_t A, int64_t K, const double *keep, const uint32_t *other,
                const uint32_t *to, const double *pays, const double *gamma, const uint8_t *ends, int64_t start,
                double alpha, double eps, uint64_t *seed) {
    int64_t s = start;
    for (int64_t t = 0; t < n; t++) {
        int64_t a = choose(Q + s * A, A, eps, seed);
        double x = uniform(seed) * K;
        int64_t i = (int64_t)x, o = (s * A + a) * K + i, instead = other[o];
        o = x - i < keep[o] ? o : instead;
        int64_t s_next = to[o];
        Q[s * A + a] += alpha * (pays[o] + gamma[o] * best(Q + s_next * A, A) - Q[s * A + a]);
        s = ends[o] ? start : s_next;
    }
}
