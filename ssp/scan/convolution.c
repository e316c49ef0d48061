/* Causal depthwise convolution with SiLU on a CPU, float32, channel-last: forward, and gradients of all its inputs.
 *
 * - Compiled once per instruction set (-DVARIANT=...); entry.c picks one at run time.
 * - A task is a clip and a range of tokens; it goes through the tokens with all channels of each, as they lie.
 * - The backward recomputes the convolution, and goes back in time with the last few gradients before SiLU in a ring.
 * - Gradients of weight and bias are sums over tokens: each task leaves its own, the caller adds them up in order.
 */
#include "vector.h"

/* Weights as [vector of channels][tap], the bias behind the last tap; then so many vectors more for each vector. */
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

/* What tap k of the convolution at a token sees; 0 before the first token. */
INLINE vf seen(const conv_job *job, int64_t taps, int64_t clip, int64_t token, int64_t k, int64_t channel,
               int64_t lanes) {
    int64_t from = token - (taps - 1) + k;
    return from < 0 ? all(0) : load(at(job->x, clip, from, channel), lanes);
}

/* Rows are fetched so many tokens early: a token of a stream is some cache lines that lie apart from the next one's. */
#define EARLY 4
INLINE void fetch_early(rows r, int64_t clip, int64_t token, int64_t step, int64_t channel) {
    if (r.data) __builtin_prefetch(at(r, clip, token + step * EARLY, channel));
}

/* Convolution before SiLU at one token. */
INLINE vf convolve(const conv_job *job, int64_t taps, int64_t clip, int64_t token, int64_t channel, int64_t lanes,
                   const vf *weight) {
    vf sum = weight[taps];
    for (int64_t k = 0; k < taps; k++) sum += weight[k] * seen(job, taps, clip, token, k, channel, lanes);
    return sum;
}

INLINE int forward(const conv_job *job, int64_t index, int64_t taps) {
    int64_t parts = (job->tokens + job->width - 1) / job->width, clip = index / parts;
    int64_t start = index % parts * job->width, stop = smaller(start + job->width, job->tokens);
    vf *weight = load_taps(job, 0);
    if (!weight) return 1;
    for (int64_t t = start; t < stop; t++)
        for (int64_t channel = 0; channel < job->channels; channel += LANES) {
            int64_t lanes = smaller(LANES, job->channels - channel);
            vf x = convolve(job, taps, clip, t, channel, lanes, weight + channel / LANES * (taps + 1));
            fetch_early(job->x, clip, t, 1, channel);
            fetch_early(job->y, clip, t, 1, channel);
            store(at(job->y, clip, t, channel), x * sigmoid(x), lanes);
        }
    free(weight);
    return 0;
}

/* A task's sums for weight and bias, [vector of channels][tap] with the bias behind the last tap, to where they go. */
static void store_sums(const conv_job *job, int64_t index, const vf *sums) {
    int64_t taps = job->taps, first = index * job->channels;
    for (int64_t channel = 0; channel < job->channels; channel++) {
        const vf *from = sums + channel / LANES * (taps + 1);
        for (int64_t k = 0; k < taps && job->grad_weight; k++)
            job->grad_weight[(first + channel) * taps + k] = from[k][channel % LANES];
        if (job->grad_bias) job->grad_bias[first + channel] = from[taps][channel % LANES];
    }
}

INLINE int backward(const conv_job *job, int64_t index, int64_t taps) {
    int64_t parts = (job->tokens + job->width - 1) / job->width, clip = index / parts;
    int64_t start = index % parts * job->width, stop = smaller(start + job->width, job->tokens);
    int64_t blocks = (job->channels + LANES - 1) / LANES, each = taps + 1;
    int of_weights = job->grad_weight || job->grad_bias;
    vf *weight = load_taps(job, each + taps), *sums = weight + blocks * each, *ring = sums + blocks * each;
    if (!weight) return 1;
    memset(sums, 0, blocks * each * sizeof(vf));
    /* ring: gradients before SiLU of the tokens that token t reaches, [token % taps][vector] */
    for (int64_t t = smaller(stop + taps - 1, job->tokens) - 1; t >= start; t--)
        for (int64_t block = 0; block < blocks; block++) {
            int64_t channel = block * LANES, lanes = smaller(LANES, job->channels - channel);
            const vf *w = weight + block * each;
            fetch_early(job->x, clip, t - taps + 1, -1, channel);
            fetch_early(job->grad_y, clip, t, -1, channel);
            fetch_early(job->y, clip, t, -1, channel);
            vf x = convolve(job, taps, clip, t, channel, lanes, w), open = sigmoid(x), *sum = sums + block * each;
            vf gy = load(at(job->grad_y, clip, t, channel), lanes);
            vf grad = gy * open * (1.0f + x * (1.0f - open)), reached = {0};
            ring[t % taps * blocks + block] = grad;
            if (t >= stop) continue;
            for (int64_t k = 0; k < taps && of_weights; k++)
                sum[k] += grad * seen(job, taps, clip, t, k, channel, lanes);
            sum[taps] += grad;
            if (!job->y.data) continue;
            for (int64_t k = 0; k < taps && t + k < job->tokens; k++)
                reached += w[taps - 1 - k] * ring[(t + k) % taps * blocks + block];
            float *to = at(job->y, clip, t, channel);
            store(to, job->add ? load(to, lanes) + reached : reached, lanes);
        }
    store_sums(job, index, sums);
    free(weight);
    return 0;
}

/* The loops over taps are unrolled for Mamba's 4. */
int NAME(conv_forward)(const void *given, int64_t index) {
    const conv_job *job = given;
    return job->taps == 4 ? forward(job, index, 4) : forward(job, index, job->taps);
}
int NAME(conv_backward)(const void *given, int64_t index) {
    const conv_job *job = given;
    return job->taps == 4 ? backward(job, index, 4) : backward(job, index, job->taps);
}
