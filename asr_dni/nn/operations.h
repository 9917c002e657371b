/* What happens to a row of an array's outputs, and what that makes of its gradient; the definition is operations.py. */
#ifndef ASR_DNI_OPERATIONS_H
#define ASR_DNI_OPERATIONS_H
#include "philox.h"

enum { GAUSSIAN, AFFINE, QUANTISATION }; /* the order is that of _KINDS in native_operations.py */

/* Numbers that were drawn outside. unit: 1, or 0 where a row has one number for all units. */
typedef struct {
    const float *numbers; /* NULL: there are none */
    int64_t step, row, unit; /* strides */
} drawn;

typedef struct {
    float bound, step; /* 0: no converter */
} converter;

typedef struct {
    int32_t kind;
    site_noise gaussian;
    converter levels;
    drawn gain, add;
} operation;

/* Where a row is in the sequences, and what names its Gaussian numbers. */
typedef struct {
    ptrdiff_t t, n;
    int64_t sample;
    uint32_t step;
} place;

INLINE const float *numbers_at(const drawn *its, place at) {
    return its->numbers + at.t * its->step + at.n * its->row;
}

/* A true division: what lies between two levels goes to the one that the definition takes. */
INLINE float converted(float x, converter to) {
    /* Comparisons that are false for NaN, so that NaN goes through. */
    x = x < -to.bound ? -to.bound : x;
    x = x > to.bound ? to.bound : x;
    return rintf(x / to.step) * to.step;
}

INLINE void convert_row(const float *from, float *to, ptrdiff_t width, converter its) {
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) to[u] = converted(from[u], its);
}

/* passed: 0 for what has been clipped, by this or by a converter before it. */
INLINE void note_clipping(const float *row, ptrdiff_t width, float bound, int first, uint8_t *passed) {
    if (first)
#pragma omp simd
        for (ptrdiff_t u = 0; u < width; u++) passed[u] = fabsf(row[u]) <= bound;
    else
#pragma omp simd
        for (ptrdiff_t u = 0; u < width; u++) passed[u] &= fabsf(row[u]) <= bound;
}

INLINE void scale_row(float *row, ptrdiff_t width, const drawn *gain, place at) {
    const float *numbers = numbers_at(gain, at);
    if (gain->unit)
#pragma omp simd
        for (ptrdiff_t u = 0; u < width; u++) row[u] *= 1.0f + numbers[u];
    else
        for (ptrdiff_t u = 0; u < width; u++) row[u] *= 1.0f + *numbers;
}

INLINE void add_to_row(float *row, ptrdiff_t width, const drawn *add, place at) {
    const float *numbers = numbers_at(add, at);
    if (add->unit)
#pragma omp simd
        for (ptrdiff_t u = 0; u < width; u++) row[u] += numbers[u];
    else
        for (ptrdiff_t u = 0; u < width; u++) row[u] += *numbers;
}

/* Do the operations to a row of `groups` of `width` outputs. passed: where clipping is noted, or NULL. */
static __attribute__((noinline)) void apply_operations(const operation *its, int count, float *row, ptrdiff_t width,
                                                       int groups, place at, uint8_t *passed) {
    const ptrdiff_t outputs = groups * width;
    int first = 1;
    for (int o = 0; o < count; o++) {
        if (its[o].kind == GAUSSIAN) {
            add_noise(row, width, groups, of_row(its[o].gaussian, at.n), at.sample, at.step, NULL);
        } else if (its[o].kind == AFFINE) {
            if (its[o].gain.numbers) scale_row(row, outputs, &its[o].gain, at);
            if (its[o].add.numbers) add_to_row(row, outputs, &its[o].add, at);
        } else {
            if (passed) note_clipping(row, outputs, its[o].levels.bound, first, passed);
            first = 0;
            convert_row(row, row, outputs, its[o].levels);
        }
    }
}

/* Make the gradient of what the operations gave that of what they were given. passed: NULL where nothing is clipped. */
static __attribute__((noinline)) void pull_back_operations(const operation *its, int count, float *gradient,
                                                           ptrdiff_t outputs, place at, const uint8_t *passed) {
    for (int o = 0; o < count; o++)
        if (its[o].kind == AFFINE && its[o].gain.numbers) scale_row(gradient, outputs, &its[o].gain, at);
    if (passed)
#pragma omp simd
        for (ptrdiff_t u = 0; u < outputs; u++) gradient[u] = passed[u] ? gradient[u] : 0.0f;
}

/* The same for a converter of which what it was given is at hand. */
INLINE void pull_back_converter(const float *given, float *gradient, ptrdiff_t width, converter its) {
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) gradient[u] = fabsf(given[u]) <= its.bound ? gradient[u] : 0.0f;
}

#endif
