/* The random numbers of asr_dni/philox.py: Philox words and Gaussian numbers from them. */
#ifndef ASR_DNI_PHILOX_H
#define ASR_DNI_PHILOX_H
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

/* Noise of one site: standard deviation (0: clean), key, and what share of it each row has (NULL: all of it). */
typedef struct {
    float std;
    uint32_t k0, k1;
    const float *shares; /* (N) */
} site_noise;

INLINE site_noise of_row(site_noise its, ptrdiff_t row) {
    if (its.shares) its.std *= its.shares[row];
    return its;
}

enum { BLOCK = 64 };

/* Philox4x32-10 for BLOCK units from `first` on, `count` of which are wanted: four words for each.
 * A 32 x 32 bit product lives in a 64-bit lane; the upper half of the other words is never read, so it may hold
 * anything. Units of even and of odd number take a set of lanes each, which one blend joins at the end; as many sets as
 * there are registers for take turns, because each waits long for its products. Written with intrinsics because
 * compilers make a slow full 64-bit product of the plain form below. */
#if defined(__AVX512F__)
#include <immintrin.h>
typedef __m512i lanes;
#define LANES(x) _mm512_set1_epi64((long long)(uint64_t)(x))
#define PRODUCT(a, b) _mm512_mul_epu32(a, b)
#define UPPER(a) _mm512_srli_epi64(a, 32)
#define ADD(a, b) _mm512_add_epi64(a, b)
#define XOR3(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0x96)
#define INTERLEAVE(even, odd) _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32))
#define STORE(to, a) _mm512_storeu_si512(to, a)
#define FIRST_EVEN _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0)
enum { SETS = 4 };
#elif defined(__AVX2__)
#include <immintrin.h>
typedef __m256i lanes;
#define LANES(x) _mm256_set1_epi64x((long long)(uint64_t)(x))
#define PRODUCT(a, b) _mm256_mul_epu32(a, b)
#define UPPER(a) _mm256_srli_epi64(a, 32)
#define ADD(a, b) _mm256_add_epi64(a, b)
#define XOR3(a, b, c) _mm256_xor_si256(_mm256_xor_si256(a, b), c)
#define INTERLEAVE(even, odd) _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA)
#define STORE(to, a) _mm256_storeu_si256((__m256i *)(to), a)
#define FIRST_EVEN _mm256_set_epi64x(6, 4, 2, 0)
enum { SETS = 2 };
#endif

#ifdef PRODUCT
INLINE void philox_block(uint32_t first, int count, uint32_t step, uint32_t low, uint32_t high, uint32_t k0,
                         uint32_t k1, uint32_t words[4][BLOCK]) {
    enum { UNITS_OF_SET = sizeof(lanes) / sizeof(uint64_t), AT_ONCE = SETS * UNITS_OF_SET };
    const lanes m0 = LANES(0xD2511F53u), m1 = LANES(0xCD9E8D57u);
    for (int u = 0; u < count; u += AT_ONCE) {
        lanes c[SETS][4];
        for (int set = 0; set < SETS; set++) {
            const int odd = set % 2, before = (set - odd) * UNITS_OF_SET;
            c[set][0] = ADD(FIRST_EVEN, LANES((uint64_t)first + (uint64_t)(u + before + odd)));
            c[set][1] = LANES(step), c[set][2] = LANES(low), c[set][3] = LANES(high);
        }
#pragma GCC unroll 10
        for (uint32_t round = 0; round < 10; round++) {
            lanes key0 = LANES(k0 + round * 0x9E3779B9u), key1 = LANES(k1 + round * 0xBB67AE85u);
#pragma GCC unroll 4
            for (int set = 0; set < SETS; set++) {
                lanes p0 = PRODUCT(c[set][0], m0), p1 = PRODUCT(c[set][2], m1);
                c[set][0] = XOR3(UPPER(p1), c[set][1], key0);
                c[set][1] = p1;
                c[set][2] = XOR3(UPPER(p0), c[set][3], key1);
                c[set][3] = p0;
            }
        }
        for (int set = 0; set < SETS; set += 2)
            for (int word = 0; word < 4; word++)
                STORE(words[word] + u + set * UNITS_OF_SET, INTERLEAVE(c[set][word], c[set + 1][word]));
    }
}
#else
INLINE void philox_block(uint32_t first, int count, uint32_t step, uint32_t low, uint32_t high, uint32_t k0,
                         uint32_t k1, uint32_t words[4][BLOCK]) {
#pragma omp simd
    for (int u = 0; u < count; u++) {
        uint32_t c0 = first + (uint32_t)u, c1 = step, c2 = low, c3 = high;
        for (uint32_t round = 0; round < 10; round++) {
            uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
            c0 = (uint32_t)(p1 >> 32) ^ c1 ^ (k0 + round * 0x9E3779B9u);
            c1 = (uint32_t)p1;
            c2 = (uint32_t)(p0 >> 32) ^ c3 ^ (k1 + round * 0xBB67AE85u);
            c3 = (uint32_t)p0;
        }
        words[0][u] = c0, words[1][u] = c1, words[2][u] = c2, words[3][u] = c3;
    }
}
#endif

INLINE float bits_to_float(int32_t bits) {
    union { int32_t i; float f; } both = {.i = bits};
    return both.f;
}

INLINE int32_t float_to_bits(float value) {
    union { float f; int32_t i; } both = {.f = value};
    return both.i;
}

/* exp, log, tanh and sin/cos are written out as polynomials, because calls, and gcc's merging of sinf with cosf, keep the
 * loops from being vectorised. Errors are about 1e-7. */

/* -2 log((word + 1) / 2**32), at least 0. */
INLINE float squared_radius(uint32_t word) {
    const int32_t bits = float_to_bits(((float)word + 1.0f) * 0x1p-32f);
    /* A power of two and a mantissa in [sqrt(1/2), sqrt(2)): near 1, where the logarithm vanishes, the power is 1. */
    const int32_t power = (bits - 0x3f3504f3) & -(1 << 23);
    const float f = bits_to_float(bits - power) - 1.0f;
    float p = 2.0757186e-1f;
    p = p * f - 3.2676217e-1f;
    p = p * f + 3.4424897e-1f;
    p = p * f - 3.9768482e-1f;
    p = p * f + 4.9943118e-1f;
    p = p * f - 6.6671215e-1f;
    p = p * f + 1.0000069f;
    p = p * f - 1.9999998f;
    return p * f + (float)power * (float)(-2 * 0.6931471805599453 * 0x1p-23);
}

/* Cosine and sine of `word` * 2 pi / 2**32, both but for the sign that of_half gives. */
INLINE void cosine_sine(uint32_t word, float *cosine, float *sine) {
    const float x = (float)(int32_t)(word << 1) * (float)(1.5707963267948966 * 0x1p-31), square = x * x;
    float s = 2.6052249e-6f, c = 2.3153931e-5f;
    s = s * square - 1.9809075e-4f;
    s = s * square + 8.3330511e-3f;
    s = s * square - 1.6666658e-1f;
    c = c * square - 1.3853704e-3f;
    c = c * square + 4.1663585e-2f;
    c = c * square - 0.49999905f;
    *cosine = c * square + 0.99999995f;
    *sine = s * (square * x) + x;
}

/* x, with the other sign where the angle of `word` is in the left half of the circle. */
INLINE float of_half(uint32_t word, float x) {
    return bits_to_float((int32_t)((uint32_t)float_to_bits(x) ^ ((word ^ word << 1) & 0x80000000u)));
}

INLINE int within(ptrdiff_t count) { return count < 0 ? 0 : count < BLOCK ? (int)count : BLOCK; }

/* A pair of Gaussian numbers from a pair of words. */
INLINE void box_muller(uint32_t first, uint32_t second, float *a, float *b) {
    float cosine, sine, radius = of_half(second, sqrtf(squared_radius(first)));
    cosine_sine(second, &cosine, &sine);
    *a = radius * cosine, *b = radius * sine;
}

/* Add such numbers, `std` times, to the first `of_a` of a and the first `of_b` of b, of_b <= of_a. */
INLINE void add_pairs(const uint32_t *first, const uint32_t *second, int of_a, int of_b, float std, float *a,
                      float *b) {
    float x, y;
#pragma omp simd private(x, y)
    for (int u = 0; u < of_b; u++) {
        box_muller(first[u], second[u], &x, &y);
        a[u] += std * x;
        b[u] += std * y;
    }
#pragma omp simd private(x, y)
    for (int u = of_b; u < of_a; u++) {
        box_muller(first[u], second[u], &x, &y);
        a[u] += std * x;
    }
}

/* The four numbers of BLOCK counters: what noises of several strengths that have the same key have in common. */
typedef struct {
    float of[4][BLOCK];
} normals;

INLINE ptrdiff_t blocks_of_normals(ptrdiff_t counters) { return (counters + BLOCK - 1) / BLOCK; }

static __attribute__((noinline)) void draw_normals(normals *to, ptrdiff_t counters, site_noise noise, int64_t sample,
                                                   uint32_t step) {
    uint32_t low = (uint32_t)sample, high = (uint32_t)((uint64_t)sample >> 32);
    for (ptrdiff_t u = 0; u < counters; u += BLOCK, to++) {
        uint32_t words[4][BLOCK];
        const int count = within(counters - u);
        philox_block((uint32_t)u, count, step, low, high, noise.k0, noise.k1, words);
        for (int pair = 0; pair < 4; pair += 2)
#pragma omp simd
            for (int k = 0; k < count; k++)
                box_muller(words[pair][k], words[pair + 1][k], to->of[pair] + k, to->of[pair + 1] + k);
    }
}

/* Add the four numbers of each of `counters` counters to lanes[0..3], of which lane k has widths[k] numbers; where a lane has
 * none the later one of its pair has none. drawn: the numbers, which give the same to the last bit, or NULL. */
static __attribute__((noinline)) void add_lanes(float *const lanes[4], const ptrdiff_t widths[4], ptrdiff_t counters,
                                                site_noise noise, int64_t sample, uint32_t step,
                                                const normals *drawn) {
    if (noise.std == 0.0f) return;
    uint32_t low = (uint32_t)sample, high = (uint32_t)((uint64_t)sample >> 32);
    for (ptrdiff_t u = 0; u < counters; u += BLOCK) {
        if (drawn) {
            for (int lane = 0; lane < 4; lane++)
#pragma omp simd
                for (int k = 0; k < within(widths[lane] - u); k++)
                    lanes[lane][u + k] += noise.std * drawn[u / BLOCK].of[lane][k];
            continue;
        }
        uint32_t words[4][BLOCK];
        philox_block((uint32_t)u, within(counters - u), step, low, high, noise.k0, noise.k1, words);
        for (int pair = 0; pair < 4; pair += 2) {
            const int of_a = within(widths[pair] - u), of_b = within(widths[pair + 1] - u);
            if (of_a)
                add_pairs(words[pair], words[pair + 1], of_a, of_b, noise.std, lanes[pair] + u, lanes[pair + 1] + u);
        }
    }
}

/* Counters of a row of `groups` gates of `width` units. */
INLINE ptrdiff_t counters_of(ptrdiff_t width, int groups) { return (width + 4 / groups - 1) / (4 / groups); }

/* Add noise to a row of `groups` gates of `width` units: 4 / groups lanes to a gate, see normal() in philox.py. */
INLINE void add_noise(float *row, ptrdiff_t width, int groups, site_noise noise, int64_t sample, uint32_t step,
                      const normals *drawn) {
    const int per_gate = 4 / groups;
    const ptrdiff_t counters = counters_of(width, groups);
    float *lanes[4] = {row, row, row, row};
    ptrdiff_t widths[4] = {0, 0, 0, 0};
    for (int lane = 0; lane < groups * per_gate; lane++) {
        const ptrdiff_t from = lane % per_gate * counters, left = width - from;
        lanes[lane] = row + lane / per_gate * width + (from < width ? from : 0);
        widths[lane] = left < 0 ? 0 : left < counters ? left : counters;
    }
    add_lanes(lanes, widths, counters, noise, sample, step, drawn);
}

INLINE int same_key(site_noise a, site_noise b) { return a.k0 == b.k0 && a.k1 == b.k1; }

#endif
