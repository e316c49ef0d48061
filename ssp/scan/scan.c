/* Selective scan on a CPU, float32, channel-last.
 *
 * - Compiled once per instruction set (-DVARIANT=...); entry.c picks one at run time.
 * - A task is a clip and a range of channels; it goes through the sequence in chunks, so that what a chunk needs stays
 *   in the first two cache levels.
 * - Where a chunk's d A may leave the range of the exponent, a slower variant of the loop clamps it; everywhere else
 *   the clamp is not paid for.
 * - The backward recomputes a chunk's decays and states from the kept one, then runs the adjoint down the chunk.
 * - Sums over channels (gradients of B and C) are kept as vectors over all channels of a task, four states in each, and
 *   added up across lanes once per chunk.
 */
#include "vector.h"


/* softplus(x) = max(x, 0) + log1p(exp(-|x|)), and its slope sigmoid(x). log1p(e) = 2 artanh(e / (2 + e)): a series in
 * the square, accurate relative to the result also where that is small. */
INLINE vf softplus(vf x, vf *slope) {
    vf e = exp_in_range(larger(all(-MOST), magnitude(x) * -PER_E));
    vf share = inverse((e + 2.0f) * (e + 1.0f)); /* one division for both quotients */
    vf s = e * (e + 1.0f) * share, q = s * s;
    vf p = all(0.132004879f);
    p = p * q + 0.141551862f;
    p = p * q + 0.200022246f;
    p = p * q + 0.333333245f;
    p = p * q + 1.0f;
    *slope = pick(x > 0.0f, all(1.0f), e) * (e + 2.0f) * share;
    return larger(all(0.0f), x) + 2.0f * s * p;
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

/* A in steps of the exponential, of a span's channels as [block][state] vectors; returns the largest magnitude in each block. */
static void load_A(const scan_job *job, span s, vf *A, float *largest) {
    for (int64_t block = 0; block < s.blocks; block++) {
        largest[block] = 0;
        for (int64_t n = 0; n < job->states; n++) {
            vf a = {0};
            for (int64_t i = 0; i < LANES && s.first + block * LANES + i < s.last; i++) {
                a[i] = job->A[(s.first + block * LANES + i) * job->states + n] * PER_E;
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
    int in_range; /* whether every d A of it is in the range of exp_in_range */
} chunk;

/* What a block of a chunk is compiled for: Mamba's own case, a full vector of channels with softplus and gate, by
 * itself, and all others with their conditions. */
typedef struct {
    int64_t lanes;
    int softplus, gate;
} kind;
#define DISPATCH(function, job, lanes, ...)                                            \
    do {                                                                               \
        if (lanes == LANES && job->softplus && job->z.data)                            \
            function(job, (kind){LANES, 1, 1}, __VA_ARGS__);                           \
        else                                                                           \
            function(job, (kind){lanes, job->softplus, job->z.data != 0}, __VA_ARGS__); \
    } while (0)

INLINE void load_chunk(const scan_job *job, kind k, int64_t clip, int64_t start, int64_t count, int64_t channel,
                       float largest, chunk *c) {
    vf bias = job->bias ? load(job->bias + channel, k.lanes) : all(0), top = {0};
    const float *delta = at(job->delta, clip, start, channel), *u = at(job->u, clip, start, channel);
    for (int64_t t = 0; t < count; t++, delta += job->delta.token, u += job->u.token) {
        vf raw = load(delta, k.lanes) + bias;
        c->slope[t] = all(1);
        c->d[t] = k.softplus ? softplus(raw, &c->slope[t]) : raw;
        c->u[t] = load(u, k.lanes);
        c->du[t] = c->d[t] * c->u[t];
        top = larger(top, magnitude(c->d[t]));
    }
    c->in_range = 1;
    for (int64_t i = 0; i < LANES; i++) c->in_range &= top[i] * largest < MOST;
}

/* Rows that the next vector of channels will want. They are fetched while this one computes: a row is one cache line
 * here, the next one is a page away, and the processor's own prefetching does not follow that. */
typedef struct {
    const float *from;
    int64_t token;
} ahead;

INLINE ahead look_ahead(rows r, int64_t clip, int64_t start, int64_t channel) {
    return r.data ? (ahead){at(r, clip, start, channel), r.token} : (ahead){0, 0}; /* fetching 0 does nothing */
}
INLINE void fetch(ahead *a) {
    __builtin_prefetch(a->from);
    a->from += a->token;
}

/* ---- forward ------------------------------------------------------------------------------------------------- */

INLINE void advance(const scan_job *job, int64_t clip, int64_t start, int64_t count, const chunk *c, const vf *A,
                    vf *h, vf *s, ahead *next, int clamp) {
    int64_t states = job->states;
    const float *B = at(job->B, clip, start, 0), *C = at(job->C, clip, start, 0);
    for (int64_t t = 0; t < count; t++, B += job->B.token, C += job->C.token) {
        vf d = c->d[t], du = c->du[t], sum = {0};
        for (int i = 0; i < 4; i++) fetch(&next[i]);
        for (int64_t n = 0; n < states; n++) {
            vf x = d * A[n];
            vf state = (clamp ? exp_any(x) : exp_in_range(x)) * h[n] + du * B[n];
            h[n] = state;
            sum += state * C[n];
        }
        s[t] = sum;
    }
}

INLINE void forward_block(const scan_job *job, kind k, span s, int64_t part, int64_t block, const vf *A, float largest,
                          vf *h) {
    int64_t start = part * CHUNK, count = smaller(CHUNK, job->tokens - start), states = job->states;
    int64_t chunks = (job->tokens + CHUNK - 1) / CHUNK, channel = s.first + block * LANES;
    vf y[CHUNK];
    chunk c;
    if (job->kept) {
        float *kept = job->kept + (s.clip * chunks + part) * states * job->channels + channel;
        for (int64_t n = 0; n < states; n++) store(kept + n * job->channels, h[n], k.lanes);
    }
    load_chunk(job, k, s.clip, start, count, channel, largest, &c);
    int same = block + 1 < s.blocks; /* chunk; else the next one, where there is a whole one */
    int64_t then = same ? start : start + CHUNK, there = same ? channel + LANES : s.first;
    if (!same && then + CHUNK > job->tokens) then = start, there = channel;
    ahead next[4] = {look_ahead(job->u, s.clip, then, there), look_ahead(job->delta, s.clip, then, there),
                     look_ahead(job->z, s.clip, then, there), look_ahead(job->y, s.clip, then, there)};
    if (c.in_range)
        advance(job, s.clip, start, count, &c, A, h, y, next, 0);
    else
        advance(job, s.clip, start, count, &c, A, h, y, next, 1);
    vf skip = job->D ? load(job->D + channel, k.lanes) : all(0);
    float *out = at(job->y, s.clip, start, channel);
    const float *gate = k.gate ? at(job->z, s.clip, start, channel) : 0;
    for (int64_t t = 0; t < count; t++, out += job->y.token) {
        vf sum = y[t] + skip * c.u[t];
        if (k.gate) {
            vf z = load(gate + t * job->z.token, k.lanes);
            sum *= z * sigmoid(z);
        }
        store(out, sum, k.lanes);
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
    for (int64_t part = 0; part < chunks; part++)
        for (int64_t block = 0; block < s.blocks; block++) {
            int64_t lanes = smaller(LANES, s.last - s.first - block * LANES), first = block * states;
            DISPATCH(forward_block, job, lanes, s, part, block, A + first, largest[block], state + first);
        }
    free(A), free(largest);
    return 0;
}

/* ---- backward ------------------------------------------------------------------------------------------------ */

/* States go through a chunk four at a time, back and forth: four stay in registers, and what the way back needs of them
 * in the first cache level. */
#define GROUP 4

typedef struct {
    vf *sum_B, *sum_C;                             /* [group][CHUNK]: sums over vectors of channels, in quarters */
    vf decay[CHUNK * GROUP], before[CHUNK * GROUP]; /* exp(d A), and the state before */
    vf gs[CHUNK];                                  /* gradient of s = C.h + D u */
    vf s[CHUNK];                                   /* C.h */
    vf gz[CHUNK];                                  /* gradient of z for each s */
    vf from_input[CHUNK], from_decay[CHUNK];
} scratch;

INLINE void recompute(const scan_job *job, int64_t clip, int64_t start, int64_t count, int64_t n, int64_t group,
                      const chunk *c, const vf *A, const float *kept, int64_t lanes, scratch *w, ahead next, int clamp,
                      int first) {
    const float *B = at(job->B, clip, start, n), *C = at(job->C, clip, start, n);
    vf h[GROUP], of_C[GROUP] = {0}, *decay = w->decay, *before = w->before, *sum_C = w->sum_C + n / GROUP * CHUNK;
    for (int64_t i = 0; i < group; i++) h[i] = load(kept + (n + i) * job->channels, lanes);
    for (int64_t t = 0; t < count; t++, B += job->B.token, C += job->C.token) {
        vf d = c->d[t], du = c->du[t], gs = w->gs[t], s = w->s[t];
        fetch(&next);
        for (int64_t i = 0; i < group; i++) {
            vf x = d * A[n + i];
            decay[i] = clamp ? exp_any(x) : exp_in_range(x);
            before[i] = h[i];
            h[i] = decay[i] * h[i] + du * B[i];
            s += h[i] * C[i];
            of_C[i] = gs * h[i];
        }
        w->s[t] = s;
        sum_C[t] = first ? quarters(of_C) : sum_C[t] + quarters(of_C);
        decay += group, before += group;
    }
}

INLINE void adjoint(const scan_job *job, int64_t clip, int64_t start, int64_t count, int64_t n, int64_t group,
                    const chunk *c, const vf *A, vf *kept_g, vf *grad_A, scratch *w, ahead next, int want_A,
                    int first) {
    int64_t last = start + count - 1;
    const float *B = at(job->B, clip, last, n), *C = at(job->C, clip, last, n);
    const vf *decay = w->decay + count * group, *before = w->before + count * group;
    vf g[GROUP], of_B[GROUP] = {0}, *sum_B = w->sum_B + n / GROUP * CHUNK;
    for (int64_t i = 0; i < group; i++) g[i] = kept_g[n + i];
    for (int64_t t = count - 1; t >= 0; t--, B -= job->B.token, C -= job->C.token) {
        vf d = c->d[t], du = c->du[t], gs = w->gs[t], from_input = w->from_input[t], from_decay = w->from_decay[t];
        fetch(&next);
        decay -= group, before -= group;
        for (int64_t i = 0; i < group; i++) {
            vf all_g = g[i] + gs * C[i];
            of_B[i] = all_g * du;
            from_input += all_g * B[i];
            g[i] = all_g * decay[i];
            vf through = g[i] * before[i];
            from_decay += through * A[n + i];
            if (want_A) grad_A[n + i] += through * d;
        }
        w->from_input[t] = from_input;
        w->from_decay[t] = from_decay;
        sum_B[t] = first ? quarters(of_B) : sum_B[t] + quarters(of_B);
    }
    for (int64_t i = 0; i < group; i++) kept_g[n + i] = g[i];
}

INLINE void backward_block(const scan_job *job, kind k, span s, int64_t part, int64_t block, const vf *A,
                           float largest, vf *g, vf *grad_A, vf *grad_D, vf *grad_bias, scratch *w) {
    int64_t start = part * CHUNK, count = smaller(CHUNK, job->tokens - start), states = job->states;
    int64_t chunks = (job->tokens + CHUNK - 1) / CHUNK, channel = s.first + block * LANES;
    const float *kept = job->kept + (s.clip * chunks + part) * states * job->channels + channel;
    chunk c;
    load_chunk(job, k, s.clip, start, count, channel, largest, &c);
    for (int64_t t = 0; t < count; t++) {
        vf gy = load(at(job->grad_y, s.clip, start + t, channel), k.lanes);
        w->gs[t] = gy;
        w->s[t] = w->from_input[t] = w->from_decay[t] = all(0);
        if (k.gate) {
            vf z = load(at(job->z, s.clip, start + t, channel), k.lanes), open = sigmoid(z), share = gy * open;
            w->gs[t] = share * z;
            w->gz[t] = share * (1.0f + z * (1.0f - open));
        }
    }
    int same = block + 1 < s.blocks; /* chunk; else the one before it, where there is one */
    int64_t then = same ? start : start - CHUNK, there = same ? channel + LANES : s.first;
    if (then < 0) then = start, there = channel;
    ahead next[8] = {look_ahead(job->u, s.clip, then, there), look_ahead(job->delta, s.clip, then, there),
                     look_ahead(job->z, s.clip, then, there), look_ahead(job->grad_y, s.clip, then, there),
                     look_ahead(job->grad_z, s.clip, start, channel), look_ahead(job->grad_u, s.clip, start, channel),
                     look_ahead(job->grad_delta, s.clip, start, channel)};
#define BACK_AND_FORTH(n, group, clamp, want_A, first)                                                              \
    do {                                                                                                            \
        recompute(job, s.clip, start, count, n, group, &c, A, kept, k.lanes, w, next[2 * n / GROUP % 8], clamp, first); \
        adjoint(job, s.clip, start, count, n, group, &c, A, g, grad_A, w, next[(2 * n / GROUP + 1) % 8], want_A, first); \
    } while (0)
    for (int64_t n = 0; n < states; n += GROUP) {
        int64_t group = smaller(GROUP, states - n);
        if (group == GROUP && c.in_range && !grad_A && block)
            BACK_AND_FORTH(n, GROUP, 0, 0, 0);
        else if (group == GROUP && c.in_range && grad_A)
            BACK_AND_FORTH(n, GROUP, 0, 1, !block);
        else
            BACK_AND_FORTH(n, group, 1, grad_A != 0, !block);
    }
    vf skip = job->D ? load(job->D + channel, k.lanes) : all(0);
    for (int64_t t = 0; t < count; t++) {
        vf gdelta = (c.u[t] * w->from_input[t] + w->from_decay[t] * (1.0f / PER_E)) * c.slope[t];
        vf gu = c.d[t] * w->from_input[t] + skip * w->gs[t];
        *grad_D += w->gs[t] * c.u[t];
        *grad_bias += gdelta;
        if (k.gate && job->grad_z.data) {
            float *to = at(job->grad_z, s.clip, start + t, channel);
            vf gz = w->gz[t] * (w->s[t] + skip * c.u[t]);
            store(to, job->add_z ? load(to, k.lanes) + gz : gz, k.lanes);
        }
        if (job->grad_u.data) store(at(job->grad_u, s.clip, start + t, channel), gu, k.lanes);
        if (job->grad_delta.data) store(at(job->grad_delta, s.clip, start + t, channel), gdelta, k.lanes);
    }
}

static void sum_lanes(rows to, int64_t offset, int64_t clip, int64_t start, int64_t count, int64_t states,
                      const vf *sums) {
    if (!to.data) return;
    for (int64_t t = 0; t < count; t++) {
        float *row = at(to, clip, start + t, 0) + offset;
        for (int64_t n = 0; n < states; n++) {
            const float *quarter = (const float *)(sums + n / GROUP * CHUNK + t) + n % GROUP * (LANES / GROUP);
            row[n] = 0;
            for (int64_t i = 0; i < LANES / GROUP; i++) row[n] += quarter[i];
        }
    }
}

int NAME(scan_backward)(const void *given, int64_t index) {
    const scan_job *job = given;
    span s = span_of(job, index);
    int64_t states = job->states, all_states = s.blocks * states, groups = (states + GROUP - 1) / GROUP;
    vf *A = vectors(3 * all_states + 2 * s.blocks + 2 * CHUNK * groups);
    scratch *w = aligned_alloc(64, (sizeof *w + 63) / 64 * 64);
    float *largest = malloc(s.blocks * sizeof(float));
    if (!A || !w || !largest) return free(A), free(w), free(largest), 1;
    vf *g = A + all_states, *grad_A = g + all_states, *grad_D = grad_A + all_states, *grad_bias = grad_D + s.blocks;
    w->sum_B = grad_bias + s.blocks, w->sum_C = w->sum_B + CHUNK * groups;
    load_A(job, s, A, largest);
    memset(g, 0, (2 * all_states + 2 * s.blocks) * sizeof(vf)); /* g, grad_A, grad_D, grad_bias */
    for (int64_t part = (job->tokens - 1) / CHUNK; part >= 0; part--) {
        int64_t start = part * CHUNK, count = smaller(CHUNK, job->tokens - start);
        for (int64_t block = 0; block < s.blocks; block++) {
            int64_t lanes = smaller(LANES, s.last - s.first - block * LANES), first = block * states;
            vf *to_A = job->grad_A ? grad_A + first : 0;
            DISPATCH(backward_block, job, lanes, s, part, block, A + first, largest[block], g + first, to_A,
                     grad_D + block, grad_bias + block, w);
        }
        sum_lanes(job->grad_B, s.part * job->part, s.clip, start, count, states, w->sum_B);
        sum_lanes(job->grad_C, s.part * job->part, s.clip, start, count, states, w->sum_C);
    }
    for (int64_t channel = s.first; channel < s.last; channel++) {
        int64_t block = (channel - s.first) / LANES, lane = (channel - s.first) % LANES;
        int64_t to = s.clip * job->channels + channel;
        if (job->grad_D) job->grad_D[to] = grad_D[block][lane];
        if (job->grad_bias) job->grad_bias[to] = grad_bias[block][lane];
        for (int64_t n = 0; n < states && job->grad_A; n++)
            job->grad_A[to * states + n] = grad_A[block * states + n][lane];
    }
    free(A), free(w), free(largest);
    return 0;
}

/* For benchmarks: exponentials of values in the first-level cache, many rounds; the bound of any scan with this one. */
void NAME(exp_rate)(float *values, int64_t count, int64_t rounds) {
    for (int64_t round = 0; round < rounds; round++)
        for (int64_t i = 0; i + LANES <= count; i += LANES)
            store(values + i, exp_in_range(load(values + i, LANES) * -0.5f), LANES);
}
