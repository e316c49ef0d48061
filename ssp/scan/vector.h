/* Vectors of float32 for the C kernels, and what they all compute with them.
 *
 * - GCC/Clang vector extensions, and a few intrinsics where x86-64 has them: the same source serves x86-64 and arm64. A vector has the width of the
 *   instruction set that a file is compiled for, and holds neighbouring channels of one token.
 * - exp is 2^(k / STEPS) from a table in one or two vectors, times a polynomial for the rest; the exponent is added to
 *   the bits. The table is there where a processor permutes floats by an index, and saves the polynomial's last terms. */
#ifndef SSP_SCAN_VECTOR_H
#define SSP_SCAN_VECTOR_H

#include "kernel.h"

#if defined(__AVX__)
#include <immintrin.h>
#endif
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
/* The larger, or lesser, of two; the second where one is not a number. */
#if defined(__AVX512F__)
INLINE vf larger(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vf lesser(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
#elif defined(__AVX__)
INLINE vf larger(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vf lesser(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
#else
INLINE vf larger(vf a, vf b) { return pick(a > b, a, b); }
INLINE vf lesser(vf a, vf b) { return pick(a < b, a, b); }
#endif
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

/* Keeps a product from being fused with the sums that follow. Units that multiply are what the scan is bound by; the
 * sums of the rounding trick can go to those that add. */
#if defined(__x86_64__)
#define UNFUSED(x) __asm__("" : "+v"(x))
#else
#define UNFUSED(x) (void)(x)
#endif

/* Exponents are counted in steps of which STEPS (2^SHIFT) double: PER_E of them make a factor e. */
#if defined(__AVX512F__)
#define SHIFT 5
#elif defined(__AVX2__)
#define SHIFT 3
#else
#define SHIFT 0
#endif
#define STEPS (1 << SHIFT)
#define PER_E (1.44269504f * STEPS)
#define MOST (126.0f * STEPS)

/* Bits of 2^(i / STEPS) for the low bits i of an index, less those that i itself will add to the exponent. */
#if SHIFT
#define T(i, bits) (int32_t)(bits - ((uint32_t)(i) << (23 - SHIFT)))
INLINE vi table(vi index) {
#if SHIFT == 5
    const vi low = {
        T(0, 0x3f800000u), T(1, 0x3f82cd87u), T(2, 0x3f85aac3u), T(3, 0x3f88980fu),
        T(4, 0x3f8b95c2u), T(5, 0x3f8ea43au), T(6, 0x3f91c3d3u), T(7, 0x3f94f4f0u),
        T(8, 0x3f9837f0u), T(9, 0x3f9b8d3au), T(10, 0x3f9ef532u), T(11, 0x3fa27043u),
        T(12, 0x3fa5fed7u), T(13, 0x3fa9a15bu), T(14, 0x3fad583fu), T(15, 0x3fb123f6u),
    };
    const vi high = {
        T(16, 0x3fb504f3u), T(17, 0x3fb8fbafu), T(18, 0x3fbd08a4u), T(19, 0x3fc12c4du),
        T(20, 0x3fc5672au), T(21, 0x3fc9b9beu), T(22, 0x3fce248cu), T(23, 0x3fd2a81eu),
        T(24, 0x3fd744fdu), T(25, 0x3fdbfbb8u), T(26, 0x3fe0ccdfu), T(27, 0x3fe5b907u),
        T(28, 0x3feac0c7u), T(29, 0x3fefe4bau), T(30, 0x3ff5257du), T(31, 0x3ffa83b3u),
    };
    return (vi)_mm512_permutex2var_epi32((__m512i)low, (__m512i)index, (__m512i)high);
#else
    const vi all_steps = {
        T(0, 0x3f800000u), T(1, 0x3f8b95c2u), T(2, 0x3f9837f0u), T(3, 0x3fa5fed7u),
        T(4, 0x3fb504f3u), T(5, 0x3fc5672au), T(6, 0x3fd744fdu), T(7, 0x3feac0c7u),
    };
    return (vi)_mm256_permutevar8x32_epi32((__m256i)all_steps, (__m256i)index);
#endif
}
#endif

/* 2^(x / STEPS) to 1e-7 relative, exact at 0; for |x| < MOST. Adding 1.5 * 2^23 rounds to an integer and leaves it in
 * the low bits. */
INLINE vf exp_in_range(vf x) {
    const float round = 12582912.0f;
    UNFUSED(x);
    vf k = x + round, r = x - (k - round);
#if SHIFT == 5
    vf p = all(0.000234598357f) * r + 0.0216611669f;
#elif SHIFT == 3
    vf p = all(0.000108420849f) * r + 0.00375402552f;
    p = p * r + 0.0866433965f;
#else
    vf p = all(0.00132746334f) * r + 0.00967196168f;
    p = p * r + 0.0555067837f;
    p = p * r + 0.240222353f;
    p = p * r + 0.693147062f;
#endif
#if SHIFT
    vf power = (vf)(table((vi)k) + ((vi)k << (23 - SHIFT)));
    return power * r * p + power;
#else
    return (vf)((vi)(p * r + 1.0f) + ((vi)k << 23));
#endif
}
/* The same for any x: stays at 2^-126 below and 2^126 above; NaN stays NaN. */
INLINE vf exp_any(vf x) { return exp_in_range(lesser(all(MOST), larger(all(-MOST), x))); }

/* 1 / x for a normal x up to 2^126: an estimate of 14 bits and one step of Newton, where there is one. */
INLINE vf inverse(vf x) {
#if defined(__AVX512F__)
    vf y = (vf)_mm512_rcp14_ps((__m512)x);
    return (1.0f - x * y) * y + y;
#else
    return 1.0f / x;
#endif
}

INLINE vf sigmoid(vf x) { return inverse(exp_any(x * -PER_E) + 1.0f); }

/* Sums over the lanes of four vectors, not to the end: a quarter of the lanes for each, in their order. */
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif
#if defined(__AVX512F__)
#define EVEN 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27
#define ODD 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31
#elif defined(__AVX__)
#define EVEN 0, 1, 4, 5, 8, 9, 12, 13
#define ODD 2, 3, 6, 7, 10, 11, 14, 15
#else
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#endif
INLINE vf halves(vf a, vf b) { return SHUFFLE(a, b, EVEN) + SHUFFLE(a, b, ODD); }
INLINE vf quarters(const vf *four) { return halves(halves(four[0], four[1]), halves(four[2], four[3])); }

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static vf *vectors(int64_t count) { return aligned_alloc(64, (count * sizeof(vf) + 63) / 64 * 64); }

#endif
