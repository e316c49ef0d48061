/* Selective scan on a CPU, float32, channel-last.
 *
 * - Compiled once per instruction set (-DVARIANT=...); entry.c picks one at run time.
 * - A task is a clip and a range of channels; it goes through the sequence in chunks, so that what a chunk needs stays
 *   in the first two cache levels.
 * - Where a chunk's d A may leave the range of the exponent, a slower variant of the loop clamps it; everywhere else
 *   the clamp is not paid for.
 * - The backward recomputes a chunk's decays and states from the kept one, then runs the adjoint down the chunk.
 * - Sums over channels (gradients of B and C) are kept as vectors over all channels of a task, and added up
 *   across lanes once per chunk.
 */
#include "vector.h"

#define LN2 0.693147181f
typedef float v4 __attribute__((vector_size(16)));

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

INLINE float lane_sum(const float *vector) { /* tree over the lanes of a vector in memory */
    v4 sum, part;
    memcpy(&sum, vector, sizeof sum);
    for (int64_t i = 4; i < LANES; i += 4) {
        memcpy(&part, vector + i, sizeof part);
        sum += part;
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

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

int NAME(scan_forward)(const void *given, int64_t index) {
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

int NAME(scan_backward)(const void *given, int64_t index) {
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

/* For benchmarks: exp2 of values in the first-level cache, many rounds; the bound of any scan with this exp. */
void NAME(exp_rate)(float *values, int64_t count, int64_t rounds) {
    for (int64_t round = 0; round < rounds; round++)
        for (int64_t i = 0; i + LANES <= count; i += LANES)
            store(values + i, exp2_in_range(load(values + i, LANES) * -0.5f), LANES);
}
