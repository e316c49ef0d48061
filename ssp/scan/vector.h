/* Vectors of float32 for the C kernels, and what they all compute with them.
 *
 * - GCC/Clang vector extensions, no intrinsics: the same source serves x86-64 and arm64. A vector has the width of the
 *   instruction set that a file is compiled for, and holds neighbouring channels of one token.
 * - exp is a polynomial for 2^r with the exponent added to the bits. */
#ifndef SSP_SCAN_VECTOR_H
#define SSP_SCAN_VECTOR_H

#include "kernel.h"

#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define LANES ((int64_t)(BYTES / sizeof(float)))

typedef float vf __attribute__((vector_size(BYTES)));
typedef int32_t vi __attribute__((vector_size(BYTES)));
#define INLINE static inline __attribute__((always_inline))

INLINE vf all(float x) { return (vf){0} + x; }
INLINE vf pick(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
INLINE vf magnitude(vf x) { return (vf)((vi)x & 0x7fffffff); }

/* Channels of one token; the last vector of a row may be part full (the rest reads as 0 and is not written). */
INLINE vf load(const float *from, int64_t count) {
    vf x = {0};
    if (count >= LANES)
        memcpy(&x, from, sizeof x);
    else
        memcpy(&x, from, count * sizeof(float));
    return x;
}
INLINE void store(float *to, vf x, int64_t count) {
    if (count >= LANES)
        memcpy(to, &x, sizeof x);
    else
        memcpy(to, &x, count * sizeof(float));
}
INLINE float *at(rows r, int64_t clip, int64_t token, int64_t channel) {
    return r.data + clip * r.batch + token * r.token + channel;
}

/* 2^x to 1e-7 relative, exact at 0; for |x| < 126. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits. */
INLINE vf exp2_in_range(vf x) {
    const float round = 12582912.0f;
    vf k = x + round, r = x - (k - round);
    vf p = all(0.00132746334f);
    p = p * r + 0.00967196168f;
    p = p * r + 0.0555067837f;
    p = p * r + 0.240222353f;
    p = p * r + 0.693147062f;
    p = p * r + 1.0f;
    return (vf)((vi)p + ((vi)k << 23));
}
/* The same for any x: stays at 2^-126 below and 2^126 above; NaN stays NaN. */
INLINE vf exp2_any(vf x) {
    x = pick(x < -126.0f, all(-126.0f), x);
    x = pick(x > 126.0f, all(126.0f), x);
    return exp2_in_range(x);
}
#define LOG2E 1.44269504f

INLINE vf sigmoid(vf x) { return 1.0f / (exp2_any(x * -LOG2E) + 1.0f); }

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static vf *vectors(int64_t count) { return aligned_alloc(64, (count * sizeof(vf) + 63) / 64 * 64); }

#endif
