/* Selective scan and causal depthwise convolution on a CPU, float32, channel-last.
 *
 * - Compiled once per instruction set (-DVARIANT=...), with the vector width that it has; entry.c picks one at run
 *   time. GCC/Clang vector extensions, no intrinsics: the same source serves x86-64 and arm64.
 * - One vector holds neighbouring channels of one token. A task is a clip and a range of channels; it goes through the
 *   sequence in chunks, so that what a chunk needs stays in the first two cache levels.
 * - exp is a polynomial for 2^r with the exponent added to the bits. Where a chunk's d A may leave the range of the
 *   exponent, a slower variant of the loop clamps it; everywhere else the clamp is not paid for.
 * - The backward recomputes a chunk's decays and states from the kept one, then runs the adjoint down the chunk.
 * - Sums over channels (gradients of B and C) are kept as vectors over all channels of a task, and added up
 *   across lanes once per chunk.
 */
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
typedef float v4 __attribute__((vector_size(16)));
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
#define LN2 0.693147181f

/* softplus(x) = max(x, 0) + log1p(exp(-|x|)), and its slope sigmoid(x). log1p(e) = 2 artanh(e / (2 + e)): a series in
 * the square, accurate relative to the result also where that is small. */
INLINE vf softplus(vf x, vf *slope) {
    vf e = exp2_any(magnitude(x) * -LOG2E);
    vf share = 1.0f / ((e + 2.0f) * (e + 1.0f)); /* one division for both quotients */
    vf s = e * (e + 1.0f) * share, q = s * s;
    vf p = all(0.132004879f);
    p = p * q + 0.141551862f;
    p = p * q + 0.200022246f;
    p = p * q + 0.333333245f;
    p = p * q + 1.0f;
    *slope = pick(x > 0.0f, all(1.0f), e) * (e + 2.0f) * share;
    return pick(x < 0.0f, all(0.0f), x) + 2.0f * s * p;
}
INLINE vf sigmoid(vf x) { return 1.0f / (exp2_any(x * -LOG2E) + 1.0f); }

INLINE float lane_sum(const float *vector) { /* tree over the lanes of a vector in memory */
    v4 sum, part;
    memcpy(&sum, vector, sizeof sum);
    for (int64_t i = 4; i < LANES; i += 4) {
        memcpy(&part, vector + i, sizeof part);
        sum += part;
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static vf *vectors(int64_t count) { return aligned_alloc(64, (count * sizeof(vf) + 63) / 64 * 64); }

/* ---- what a task sees ---------------------------------------------------------------------------------------- */

typedef struct {
    int64_t clip, part, first, last, blocks; /* channels [first, last) in so many vectors */
} span;

static span span_of(const scan_job *job, int64_t index) {
    int64_t parts = (job->channels + job->width - 1) / job->width;
    span s = {index / parts, index % parts, 0, 0, 0};
    s.first = s.part * job->width;
    s.last = smaller(s.first + job->width, job->channels);
    s.blocks = (s.last - s.first + LANES - 1) / LANES;
    return s;
}

/* A log2(e) of a span's channels as [block][state] vectors; returns the largest magnitude in each block. */
static void load_A(const scan_job *job, span s, vf *A, float *largest) {
    for (int64_t block = 0; block < s.blocks; block++) {
        largest[block] = 0;
        for (int64_t n = 0; n < job->states; n++) {
            vf a = {0};
            for (int64_t i = 0; i < LANES && s.first + block * LANES + i < s.last; i++) {
                a[i] = job->A[(s.first + block * LANES + i) * job->states + n] * LOG2E;
                float size = a[i] < 0 ? -a[i] : a[i];
                if (!(size <= largest[block])) largest[block] = size;
            }
            A[block * job->states + n] = a;
        }
    }
}

/* Step sizes and inputs of a chunk of one vector of channels. */
typedef struct {
    vf d[CHUNK], u[CHUNK], du[CHUNK], slope[CHUNK];
    int in_range; /* whether every d A of it is in the range of exp2_in_range */
} chunk;

INLINE void load_chunk(const scan_job *job, int64_t clip, int64_t start, int64_t count, int64_t channel,
                       int64_t lanes, float largest, chunk *c) {
    vf bias = job->bias ? load(job->bias + channel, lanes) : all(0), top = {0};
    for (int64_t t = 0; t < count; t++) {
        vf raw = load(at(job->delta, clip, start + t, channel), lanes) + bias;
        c->slope[t] = all(1);
        c->d[t] = job->softplus ? softplus(raw, &c->slope[t]) : raw;
        c->u[t] = load(at(job->u, clip, start + t, channel), lanes);
        c->du[t] = c->d[t] * c->u[t];
        vf size = magnitude(c->d[t]) * largest;
        top = pick(size < top, top, size); /* a NaN stays, and fails the comparison below */
    }
    c->in_range = 1;
    for (int64_t i = 0; i < LANES; i++) c->in_range &= top[i] < 126.0f;
}

/* Rows that the next vector of channels will want. They are fetched while this one computes: a row is one cache line
 * here, the next one is a page away, and the processor's own prefetching does not follow that. */
typedef struct {
    const float *from[8];
    int64_t token[8];
    int count;
} ahead;

INLINE void look_ahead(ahead *a, rows r, int64_t clip, int64_t start, int64_t channel) {
    if (!r.data) return;
    a->from[a->count] = at(r, clip, start, channel);
    a->token[a->count++] = r.token;
}
INLINE void fetch(const ahead *a, int64_t t) {
    for (int i = 0; i < a->count; i++) __builtin_prefetch(a->from[i] + t * a->token[i]);
}

/* ---- forward ------------------------------------------------------------------------------------------------- */

INLINE void advance(const scan_job *job, int64_t clip, int64_t start, int64_t count, const chunk *c, const vf *A,
                    vf *h, vf *s, const ahead *next, int clamp) {
    int64_t states = job->states;
    for (int64_t t = 0; t < count; t++) {
        const float *B = at(job->B, clip, start + t, 0), *C = at(job->C, clip, start + t, 0);
        vf d = c->d[t], du = c->du[t], sum = {0};
        fetch(next, t);
        for (int64_t n = 0; n < states; n++) {
            vf x = d * A[n];
            vf state = (clamp ? exp2_any(x) : exp2_in_range(x)) * h[n] + du * B[n];
            h[n] = state;
            sum += state * C[n];
        }
        s[t] = sum;
    }
}

static int scan_forward(const void *given, int64_t index) {
    const scan_job *job = given;
    span s = span_of(job, index);
    int64_t states = job->states, chunks = (job->tokens + CHUNK - 1) / CHUNK;
    vf *A = vectors(2 * s.blocks * states), *state = A + s.blocks * states;
    float *largest = malloc(s.blocks * sizeof(float));
    if (!A || !largest) return free(A), free(largest), 1;
    load_A(job, s, A, largest);
    memset(state, 0, s.blocks * states * sizeof(vf));
    for (int64_t part = 0; part < chunks; part++) {
        int64_t start = part * CHUNK, count = smaller(CHUNK, job->tokens - start);
        for (int64_t block = 0; block < s.blocks; block++) {
            int64_t channel = s.first + block * LANES, lanes = smaller(LANES, s.last - channel);
            vf *h = state + block * states, y[CHUNK];
            chunk c;
            if (job->kept) {
                float *kept = job->kept + (s.clip * chunks + part) * states * job->channels + channel;
                for (int64_t n = 0; n < states; n++) store(kept + n * job->channels, h[n], lanes);
            }
            load_chunk(job, s.clip, start, count, channel, lanes, largest[block], &c);
            ahead next = {.count = 0};
            int same = block + 1 < s.blocks; /* chunk; else the next one, where there is one */
            int64_t then = same ? start : start + CHUNK, there = same ? channel + LANES : s.first;
            if (then + CHUNK <= job->tokens || same) {
                look_ahead(&next, job->u, s.clip, then, there);
                look_ahead(&next, job->delta, s.clip, then, there);
                look_ahead(&next, job->z, s.clip, then, there);
                look_ahead(&next, job->y, s.clip, then, there);
            }
            if (c.in_range)
                advance(job, s.clip, start, count, &c, A + block * states, h, y, &next, 0);
            else
                advance(job, s.clip, start, count, &c, A + block * states, h, y, &next, 1);
            vf skip = job->D ? load(job->D + channel, lanes) : all(0);
            for (int64_t t = 0; t < count; t++) {
                vf out = y[t] + skip * c.u[t];
                if (job->z.data) {
                    vf z = load(at(job->z, s.clip, start + t, channel), lanes);
                    out *= z * sigmoid(z);
                }
                store(at(job->y, s.clip, start + t, channel), out, lanes);
            }
        }
    }
    free(A), free(largest);
    return 0;
}

/* ---- backward ------------------------------------------------------------------------------------------------ */

typedef struct {
    vf *decay, *carried;   /* [CHUNK][states]: exp(d A), and that times the state before */
    vf *sum_B, *sum_C;     /* [CHUNK][states]: sums over the vectors of channels */
    vf gs[CHUNK];          /* gradient of s = C.h + D u */
    vf from_input[CHUNK], from_decay[CHUNK];
} scratch;

INLINE void recompute(const scan_job *job, int64_t clip, int64_t start, int64_t count, const chunk *c, const vf *A,
                      vf *h, scratch *w, vf *s, const ahead *next, int clamp) {
    int64_t states = job->states;
    for (int64_t t = 0; t < count; t++) {
        const float *B = at(job->B, clip, start + t, 0), *C = at(job->C, clip, start + t, 0);
        fetch(next, t);
        vf d = c->d[t], du = c->du[t], sum = {0}, *decay = w->decay + t * states, *carried = w->carried + t * states;
        for (int64_t n = 0; n < states; n++) {
            vf x = d * A[n];
            vf a = clamp ? exp2_any(x) : exp2_in_range(x);
            vf kept = a * h[n], state = kept + du * B[n];
            decay[n] = a;
            carried[n] = kept;
            h[n] = state;
            sum += state * C[n];
        }
        s[t] = sum;
    }
}

INLINE void adjoint(const scan_job *job, int64_t clip, int64_t start, int64_t count, const chunk *c, const vf *A,
                    vf *g, vf *grad_A, scratch *w, int want_A, int first) {
    int64_t states = job->states;
    for (int64_t t = count - 1; t >= 0; t--) {
        const float *B = at(job->B, clip, start + t, 0), *C = at(job->C, clip, start + t, 0);
        const vf *decay = w->decay + t * states, *carried = w->carried + t * states;
        vf *sum_B = w->sum_B + t * states, *sum_C = w->sum_C + t * states;
        vf d = c->d[t], du = c->du[t], gs = w->gs[t], from_input = {0}, from_decay = {0};
        for (int64_t n = 0; n < states; n++) {
            vf all_g = g[n] + gs * C[n];
            vf through = all_g * carried[n];
            vf state = carried[n] + du * B[n];
            sum_C[n] = first ? gs * state : sum_C[n] + gs * state;
            sum_B[n] = first ? all_g * du : sum_B[n] + all_g * du;
            from_input += all_g * B[n];
            from_decay += through * A[n];
            if (want_A) grad_A[n] += through * d;
            g[n] = all_g * decay[n];
        }
        w->from_input[t] = from_input;
        w->from_decay[t] = from_decay;
    }
}

static void backward_block(const scan_job *job, span s, int64_t part, int64_t block, const vf *A, float largest,
                           vf *g, vf *grad_A, vf *grad_D, vf *grad_bias, vf *h, scratch *w) {
    int64_t start = part * CHUNK, count = smaller(CHUNK, job->tokens - start), states = job->states;
    int64_t chunks = (job->tokens + CHUNK - 1) / CHUNK;
    int64_t channel = s.first + block * LANES, lanes = smaller(LANES, s.last - channel);
    const float *kept = job->kept + (s.clip * chunks + part) * states * job->channels + channel;
    vf y[CHUNK];
    chunk c;
    for (int64_t n = 0; n < states; n++) h[n] = load(kept + n * job->channels, lanes);
    load_chunk(job, s.clip, start, count, channel, lanes, largest, &c);
    ahead next = {.count = 0};
    int same = block + 1 < s.blocks; /* chunk; else the one before it, where there is one */
    int64_t then = same ? start : start - CHUNK, there = same ? channel + LANES : s.first;
    if (then >= 0) {
        look_ahead(&next, job->u, s.clip, then, there);
        look_ahead(&next, job->delta, s.clip, then, there);
        look_ahead(&next, job->z, s.clip, then, there);
        look_ahead(&next, job->grad_y, s.clip, then, there);
        look_ahead(&next, job->grad_z, s.clip, start, channel);
        look_ahead(&next, job->grad_u, s.clip, start, channel);
        look_ahead(&next, job->grad_delta, s.clip, start, channel);
    }
    if (c.in_range)
        recompute(job, s.clip, start, count, &c, A, h, w, y, &next, 0);
    else
        recompute(job, s.clip, start, count, &c, A, h, w, y, &next, 1);
    vf skip = job->D ? load(job->D + channel, lanes) : all(0);
    for (int64_t t = 0; t < count; t++) {
        vf gy = load(at(job->grad_y, s.clip, start + t, channel), lanes);
        w->gs[t] = gy;
        if (job->z.data) {
            vf z = load(at(job->z, s.clip, start + t, channel), lanes), open = sigmoid(z);
            w->gs[t] = gy * z * open;
            if (job->grad_z.data) {
                float *to = at(job->grad_z, s.clip, start + t, channel);
                vf gz = gy * (y[t] + skip * c.u[t]) * open * (1.0f + z * (1.0f - open));
                store(to, job->add_z ? load(to, lanes) + gz : gz, lanes);
            }
        }
    }
    if (grad_A && block)
        adjoint(job, s.clip, start, count, &c, A, g, grad_A, w, 1, 0);
    else if (grad_A)
        adjoint(job, s.clip, start, count, &c, A, g, grad_A, w, 1, 1);
    else if (block)
        adjoint(job, s.clip, start, count, &c, A, g, grad_A, w, 0, 0);
    else
        adjoint(job, s.clip, start, count, &c, A, g, grad_A, w, 0, 1);
    for (int64_t t = 0; t < count; t++) {
        vf gdelta = (c.u[t] * w->from_input[t] + LN2 * w->from_decay[t]) * c.slope[t];
        vf gu = c.d[t] * w->from_input[t] + skip * w->gs[t];
        *grad_D += w->gs[t] * c.u[t];
        *grad_bias += gdelta;
        if (job->grad_u.data) store(at(job->grad_u, s.clip, start + t, channel), gu, lanes);
        if (job->grad_delta.data) store(at(job->grad_delta, s.clip, start + t, channel), gdelta, lanes);
    }
}

static void sum_lanes(rows to, int64_t offset, int64_t clip, int64_t start, int64_t count, int64_t states,
                      const vf *sums) {
    if (!to.data) return;
    for (int64_t t = 0; t < count; t++) {
        float *row = at(to, clip, start + t, 0) + offset;
        for (int64_t n = 0; n < states; n++) row[n] = lane_sum((const float *)(sums + t * states + n));
    }
}

static int scan_backward(const void *given, int64_t index) {
    const scan_job *job = given;
    span s = span_of(job, index);
    int64_t states = job->states, all_states = s.blocks * states;
    vf *A = vectors(3 * all_states + 2 * s.blocks + states + 4 * CHUNK * states);
    float *largest = malloc(s.blocks * sizeof(float));
    scratch w;
    if (!A || !largest) return free(A), free(largest), 1;
    vf *g = A + all_states, *grad_A = g + all_states, *grad_D = grad_A + all_states, *grad_bias = grad_D + s.blocks;
    vf *h = grad_bias + s.blocks;
    w.decay = h + states, w.carried = w.decay + CHUNK * states;
    w.sum_B = w.carried + CHUNK * states, w.sum_C = w.sum_B + CHUNK * states;
    load_A(job, s, A, largest);
    memset(g, 0, (2 * all_states + 2 * s.blocks) * sizeof(vf)); /* g, grad_A, grad_D, grad_bias */
    for (int64_t part = (job->tokens - 1) / CHUNK; part >= 0; part--) {
        int64_t start = part * CHUNK, count = smaller(CHUNK, job->tokens - start);
        for (int64_t block = 0; block < s.blocks; block++)
            backward_block(job, s, part, block, A + block * states, largest[block], g + block * states,
                           job->grad_A ? grad_A + block * states : 0, grad_D + block, grad_bias + block, h, &w);
        sum_lanes(job->grad_B, s.part * job->part, s.clip, start, count, states, w.sum_B);
        sum_lanes(job->grad_C, s.part * job->part, s.clip, start, count, states, w.sum_C);
    }
    for (int64_t channel = s.first; channel < s.last; channel++) {
        int64_t block = (channel - s.first) / LANES, lane = (channel - s.first) % LANES;
        int64_t to = s.clip * job->channels + channel;
        if (job->grad_D) job->grad_D[to] = grad_D[block][lane];
        if (job->grad_bias) job->grad_bias[to] = grad_bias[block][lane];
        for (int64_t n = 0; n < states && job->grad_A; n++)
            job->grad_A[to * states + n] = grad_A[block * states + n][lane];
    }
    free(A), free(largest);
    return 0;
}

/* ---- causal depthwise convolution + SiLU --------------------------------------------------------------------- */

/* Weights as [vector of channels][tap], the bias behind the last tap. */
static vf *load_taps(const conv_job *job, int64_t extra) {
    int64_t blocks = (job->channels + LANES - 1) / LANES, each = job->taps + 1;
    vf *weight = vectors(blocks * (each + extra));
    for (int64_t block = 0; weight && block < blocks; block++) {
        int64_t channel = block * LANES, lanes = smaller(LANES, job->channels - channel);
        vf *to = weight + block * each;
        for (int64_t k = 0; k < job->taps; k++)
            for (int64_t i = 0; i < LANES; i++)
                to[k][i] = i < lanes ? job->weight[(channel + i) * job->taps + k] : 0;
        to[job->taps] = job->bias ? load(job->bias + channel, lanes) : all(0);
    }
    return weight;
}

/* Convolution before SiLU at one token: sum over k of weight[k] x[token - (taps - 1) + k]. */
INLINE vf convolve(const conv_job *job, int64_t clip, int64_t token, int64_t channel, int64_t lanes,
                   const vf *weight) {
    vf sum = weight[job->taps];
    for (int64_t k = 0; k < job->taps; k++) {
        int64_t from = token - (job->taps - 1) + k;
        if (from >= 0) sum += weight[k] * load(at(job->x, clip, from, channel), lanes);
    }
    return sum;
}

static int conv_forward(const void *given, int64_t index) {
    const conv_job *job = given;
    int64_t parts = (job->tokens + job->width - 1) / job->width, clip = index / parts;
    int64_t start = index % parts * job->width, stop = smaller(start + job->width, job->tokens);
    vf *weight = load_taps(job, 0);
    if (!weight) return 1;
    for (int64_t t = start; t < stop; t++)
        for (int64_t channel = 0; channel < job->channels; channel += LANES) {
            int64_t lanes = smaller(LANES, job->channels - channel);
            vf x = convolve(job, clip, t, channel, lanes, weight + channel / LANES * (job->taps + 1));
            store(at(job->y, clip, t, channel), x * sigmoid(x), lanes);
        }
    free(weight);
    return 0;
}

static int conv_backward(const void *given, int64_t index) {
    const conv_job *job = given;
    int64_t parts = (job->tokens + job->width - 1) / job->width, clip = index / parts, taps = job->taps;
    int64_t start = index % parts * job->width, stop = smaller(start + job->width, job->tokens);
    int64_t blocks = (job->channels + LANES - 1) / LANES;
    vf *weight = load_taps(job, taps), *ring = weight + blocks * (taps + 1);
    if (!weight) return 1;
    /* ring: gradients before SiLU of the tokens that token t reaches, [token % taps][vector] */
    for (int64_t t = smaller(stop + taps - 1, job->tokens) - 1; t >= start; t--)
        for (int64_t block = 0; block < blocks; block++) {
            int64_t channel = block * LANES, lanes = smaller(LANES, job->channels - channel);
            const vf *w = weight + block * (taps + 1);
            vf x = convolve(job, clip, t, channel, lanes, w), open = sigmoid(x), sum = {0};
            vf gy = load(at(job->grad_y, clip, t, channel), lanes);
            ring[t % taps * blocks + block] = gy * open * (1.0f + x * (1.0f - open));
            if (t >= stop) continue;
            for (int64_t k = 0; k < taps && t + k < job->tokens; k++)
                sum += w[taps - 1 - k] * ring[(t + k) % taps * blocks + block];
            float *to = at(job->y, clip, t, channel);
            store(to, job->add ? load(to, lanes) + sum : sum, lanes);
        }
    free(weight);
    return 0;
}

/* For benchmarks: exp2 of values in the first-level cache, many rounds; the bound of any scan with this exp. */
static void exp_rate(float *values, int64_t count, int64_t rounds) {
    for (int64_t round = 0; round < rounds; round++)
        for (int64_t i = 0; i + LANES <= count; i += LANES)
            store(values + i, exp2_in_range(load(values + i, LANES) * -0.5f), LANES);
}

#define JOIN(a, b) a##b
#define NAME(variant) JOIN(kernels_, variant)
const kernels NAME(VARIANT) = {scan_forward, scan_backward, conv_forward, conv_backward, exp_rate};
