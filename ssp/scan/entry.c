/* Entry points of the C kernels: which instruction set, and how many threads.
 *
 * - The instruction set is asked of the processor once per call; `level` can only lower it (tests do).
 * - Threads come from the OpenMP runtime that PyTorch has loaded already, through GOMP_parallel, whose address the
 *   caller hands over: no second runtime, and PyTorch's threads, which spin for a while after each of its own
 *   operations, are at hand. That runtime does not survive fork(), so a forked child starts short-lived pthreads
 *   instead; so does everyone where no such runtime is found.
 * - Subnormal results are flushed to zero while a task runs (states decay through that range, slowly). */
#define _GNU_SOURCE
#include "kernel.h"

#include <pthread.h>
#include <stdatomic.h>

#define MOST_THREADS 256
#define EXPORT __attribute__((visibility("default")))

typedef void (*parallel)(void (*function)(void *), void *data, unsigned threads, unsigned flags);

static parallel openmp;
static int forked;

typedef struct {
    task run;
    const void *job;
    int64_t count;
    atomic_llong next;
    atomic_int failed;
} queue;

static void work(void *given) {
    queue *q = given;
#if defined(__SSE__) || defined(__x86_64__)
    unsigned before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before | 0x8040);
#endif
    for (int64_t index; (index = atomic_fetch_add(&q->next, 1)) < q->count;)
        if (q->run(q->job, index)) atomic_store(&q->failed, 1);
#if defined(__SSE__) || defined(__x86_64__)
    __builtin_ia32_ldmxcsr(before);
#endif
}

static void *work_in_thread(void *given) { return work(given), (void *)0; }

static int run_tasks(task run, const void *job, int64_t count, int64_t threads) {
    queue q = {.run = run, .job = job, .count = count};
    if (threads > count) threads = count;
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    if (threads <= 1) {
        work(&q);
    } else if (openmp && !forked) {
        openmp(work, &q, (unsigned)threads, 0);
    } else {
        pthread_t helpers[MOST_THREADS];
        int64_t started = 0;
        while (started < threads - 1 && !pthread_create(&helpers[started], 0, work_in_thread, &q)) started++;
        work(&q); /* whatever could not be started is done here */
        while (started > 0) pthread_join(helpers[--started], 0);
    }
    return atomic_load(&q.failed);
}

static void in_child(void) { forked = 1; }

static int detect(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw"))
        return 4;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 3;
#endif
    return 1;
}

typedef struct {
    task scan_forward, scan_backward, conv_forward, conv_backward;
    void (*exp_rate)(float *values, int64_t count, int64_t rounds);
} kernels;
#define KERNELS(v) {scan_forward_##v, scan_backward_##v, conv_forward_##v, conv_backward_##v, exp_rate_##v}
static const kernels base = KERNELS(base);
#if defined(__x86_64__)
static const kernels v3 = KERNELS(v3), v4 = KERNELS(v4);
#endif

static const kernels *chosen(int64_t level) {
#if defined(__x86_64__)
    int found = detect();
    if (found >= 4 && level >= 4) return &v4;
    if (found >= 3 && level >= 3) return &v3;
#endif
    return &base;
}

/* ---- called from Python -------------------------------------------------------------------------------------- */

/* Call once, before anything else. `address` is that of GOMP_parallel, or null. */
EXPORT void ssp_setup(void *address) {
    static int registered;
    openmp = (parallel)address;
    if (!registered) registered = !pthread_atfork(0, 0, in_child);
}

/* x86-64 level (4: AVX-512, 3: AVX2 with FMA, 1: plain, also on other processors). */
EXPORT int ssp_level(void) { return detect(); }

EXPORT int ssp_chunk(void) { return CHUNK; }

static int64_t scan_tasks(const scan_job *job) {
    return job->batch * ((job->channels + job->width - 1) / job->width);
}
static int64_t conv_tasks(const conv_job *job) { return job->batch * ((job->tokens + job->width - 1) / job->width); }

EXPORT int ssp_scan_forward(const scan_job *job, int64_t threads, int64_t level) {
    return run_tasks(chosen(level)->scan_forward, job, scan_tasks(job), threads);
}
EXPORT int ssp_scan_backward(const scan_job *job, int64_t threads, int64_t level) {
    return run_tasks(chosen(level)->scan_backward, job, scan_tasks(job), threads);
}
EXPORT int ssp_conv_forward(const conv_job *job, int64_t threads, int64_t level) {
    return run_tasks(chosen(level)->conv_forward, job, conv_tasks(job), threads);
}
EXPORT int ssp_conv_backward(const conv_job *job, int64_t threads, int64_t level) {
    return run_tasks(chosen(level)->conv_backward, job, conv_tasks(job), threads);
}
EXPORT void ssp_exp_rate(float *values, int64_t count, int64_t rounds, int64_t level) {
    chosen(level)->exp_rate(values, count, rounds);
}
