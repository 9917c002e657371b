/* Vectors of the processor's own width, and the transposition of as many of them. */
#ifndef ASR_DNI_VECTORS_H
#define ASR_DNI_VECTORS_H
#include <stddef.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
enum { VECTOR = 16 };
#define LOW_HALVES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_HALVES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX__)
enum { VECTOR = 8 };
#define LOW_HALVES 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_HALVES 4, 12, 5, 13, 6, 14, 7, 15
#else
enum { VECTOR = 4 };
#define LOW_HALVES 0, 4, 1, 5
#define HIGH_HALVES 2, 6, 3, 7
#endif
typedef float vector __attribute__((vector_size(VECTOR * sizeof(float)), aligned(sizeof(float)), may_alias));
typedef int32_t integers __attribute__((vector_size(VECTOR * sizeof(int32_t)), aligned(sizeof(int32_t)), may_alias));

#if defined(__clang__)
#define INTERLEAVE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define INTERLEAVE(a, b, ...) __builtin_shuffle(a, b, (integers){__VA_ARGS__})
#endif

INLINE vector all(float value) { return value - (vector){0}; }

/* Every round interleaves each vector with that half of them further on: after log2(VECTOR) rounds rows are columns. */
INLINE void transpose(vector rows[VECTOR]) {
#pragma GCC unroll 4
    for (int round = 1; round < VECTOR; round *= 2) {
        vector mixed[VECTOR];
#pragma GCC unroll 8
        for (int i = 0; i < VECTOR / 2; i++) {
            vector first = rows[i], second = rows[i + VECTOR / 2];
            mixed[2 * i] = INTERLEAVE(first, second, LOW_HALVES);
            mixed[2 * i + 1] = INTERLEAVE(first, second, HIGH_HALVES);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VECTOR; i++) rows[i] = mixed[i];
    }
}
#endif
