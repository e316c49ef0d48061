/* Jobs of the C kernels: what entry.c hands to the variants of scan.c and convolution.c. All fields are 8 bytes wide,
 * in the order in which cpu.py packs them. Strides count floats; a negative token stride, with the pointer at the last
 * token, runs a job backwards in time. A null pointer means: not there, or not wanted. */
#ifndef SSP_SCAN_KERNEL_H
#define SSP_SCAN_KERNEL_H

#include <stdint.h>

#define CHUNK 32 /* tokens between kept states */

typedef struct {
    float *data;
    int64_t batch, token; /* strides; channels (or states) are contiguous */
} rows;

typedef struct {
    int64_t batch, channels, tokens, states;
    int64_t softplus; /* whether delta goes through softplus */
    int64_t width;    /* channels per task, fixed by the shape: results do not depend on the number of threads */
    rows u, delta, z, y, B, C;
    float *A, *D, *bias; /* (channels, states), (channels), (channels) */
    float *kept;         /* (batch, chunks, states, channels): state before each chunk */
    /* backward only */
    rows grad_y, grad_u, grad_delta, grad_z;
    rows grad_B, grad_C; /* partial sums, one per task of a clip */
    int64_t part;        /* stride between those */
    float *grad_A, *grad_D, *grad_bias; /* (batch, channels, states), (batch, channels), (batch, channels) */
    int64_t add_z;                      /* add to grad_z instead of writing it */
} scan_job;

typedef struct {
    int64_t batch, channels, tokens, taps;
    int64_t width;        /* tokens per task, fixed by the shape: results do not depend on the number of threads */
    rows x, y;            /* y is grad_x in the backward */
    float *weight, *bias; /* (channels, taps), (channels) */
    /* backward only */
    rows grad_y;
    int64_t add;                    /* add to grad_x instead of writing it */
    float *grad_weight, *grad_bias; /* (tasks, channels, taps), (tasks, channels): partial sums */
} conv_job;

/* A task returns 0, or 1 when memory ran out. */
typedef int (*task)(const void *job, int64_t index);

/* Functions of scan.c and convolution.c are compiled once per instruction set, each time with a suffix of its own. */
#define JOIN(function, variant) function##_##variant
#define SUFFIXED(function, variant) JOIN(function, variant)
#define NAME(function) SUFFIXED(function, VARIANT)

#define DECLARE(variant)                                                 \
    int scan_forward_##variant(const void *job, int64_t index);          \
    int scan_backward_##variant(const void *job, int64_t index);         \
    int conv_forward_##variant(const void *job, int64_t index);          \
    int conv_backward_##variant(const void *job, int64_t index);         \
    void exp_rate_##variant(float *values, int64_t count, int64_t rounds);
DECLARE(base)
DECLARE(v3)
DECLARE(v4)

#endif
