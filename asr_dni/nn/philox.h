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
 * anything. Units of even and of odd number take a set of lanes each, which one blend joins at the end. Written with
 * intrinsics because compilers make a slow full 64-bit product of the plain form below. */
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
#endif

#ifdef PRODUCT
INLINE void philox_block(uint32_t first, int count, uint32_t step, uint32_t low, uint32_t high, uint32_t k0,
                         uint32_t k1, uint32_t words[4][BLOCK]) {
    const lanes m0 = LANES(0xD2511F53u), m1 = LANES(0xCD9E8D57u);
    const int at_once = sizeof(lanes) / sizeof(uint32_t);
    for (int u = 0; u < count; u += at_once) {
        lanes c[2][4];
        for (int odd = 0; odd < 2; odd++) {
            c[odd][0] = ADD(FIRST_EVEN, LANES((uint64_t)first + (uint64_t)(u + odd)));
            c[odd][1] = LANES(step), c[odd][2] = LANES(low), c[odd][3] = LANES(high);
        }
#pragma GCC unroll 10
        for (uint32_t round = 0; round < 10; round++) {
            lanes key0 = LANES(k0 + round * 0x9E3779B9u), key1 = LANES(k1 + round * 0xBB67AE85u);
#pragma GCC unroll 2
            for (int odd = 0; odd < 2; odd++) {
                lanes p0 = PRODUCT(c[odd][0], m0), p1 = PRODUCT(c[odd][2], m1);
                c[odd][0] = XOR3(UPPER(p1), c[odd][1], key0);
                c[odd][1] = p1;
                c[odd][2] = XOR3(UPPER(p0), c[odd][3], key1);
                c[odd][3] = p0;
            }
        }
        for (int word = 0; word < 4; word++) STORE(words[word] + u, INTERLEAVE(c[0][word], c[1][word]));
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

/* exp, log, tanh and sin/cos are written out, most after the single-precision polynomials of the Cephes library
 * (S. Moshier), because calls, and gcc's merging of sinf with cosf, keep the loops from being vectorised. Errors are
 * about 1e-7. */

/* x in (0, 1]. */
INLINE float log_(float x) {
    int32_t bits = float_to_bits(x);
    int32_t exponent = (bits - 0x3f3504f3) >> 23;
    float f = bits_to_float(bits - exponent * (1 << 23)) - 1.0f, e = (float)exponent, square = f * f;
    float p = 7.0376836292e-2f;
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    return (f + (f * square * p - 2.12194440e-4f * e - 0.5f * square)) + 0.693359375f * e;
}

/* Cosine and sine of `word` * 2 pi / 2**32. */
INLINE void cosine_sine(uint32_t word, float *cosine, float *sine) {
    uint32_t quadrant = (word + (1u << 29)) >> 30;
    float x = (float)(int32_t)(word - (quadrant << 30)) * (float)(6.283185307179586 * 0x1p-32), square = x * x;
    float s = x + x * square * (-1.6666654611e-1f + square * (8.3321608736e-3f - square * 1.9515295891e-4f));
    float c = 1.0f - 0.5f * square +
              square * square * (4.166664568e-2f + square * (-1.388731625e-3f + square * 2.443315712e-5f));
    float across = quadrant & 1 ? s : c, up = quadrant & 1 ? c : s;
    *cosine = (quadrant + 1) & 2 ? -across : across;
    *sine = quadrant & 2 ? -up : up;
}

/* Add a pair of Gaussian numbers from each pair of words to the first `of_a` of a and the first `of_b` of b, of_b <= of_a. */
INLINE void box_muller(const uint32_t *first, const uint32_t *second, int of_a, int of_b, float std, float *a,
                       float *b) {
#pragma omp simd
    for (int u = 0; u < of_b; u++) {
        float cosine, sine, uniform = ((float)first[u] + 1.0f) * 0x1p-32f;
        float radius = std * sqrtf(-2.0f * log_(uniform));
        cosine_sine(second[u], &cosine, &sine);
        a[u] += radius * cosine;
        b[u] += radius * sine;
    }
#pragma omp simd
    for (int u = of_b; u < of_a; u++) {
        float cosine, sine, uniform = ((float)first[u] + 1.0f) * 0x1p-32f;
        float radius = std * sqrtf(-2.0f * log_(uniform));
        cosine_sine(second[u], &cosine, &sine);
        a[u] += radius * cosine;
    }
}

INLINE int within(ptrdiff_t count) { return count < 0 ? 0 : count < BLOCK ? (int)count : BLOCK; }

/* The four numbers of BLOCK counters in polar form, before they have a standard deviation: what noises of several
 * strengths that have the same key have in common. */
typedef struct {
    float radius[2][BLOCK], cosine[2][BLOCK], sine[2][BLOCK];
} polar;

INLINE ptrdiff_t polars(ptrdiff_t counters) { return (counters + BLOCK - 1) / BLOCK; }

static __attribute__((noinline)) void draw_polar(polar *to, ptrdiff_t counters, site_noise noise, int64_t sample,
                                                 uint32_t step) {
    uint32_t low = (uint32_t)sample, high = (uint32_t)((uint64_t)sample >> 32);
    for (ptrdiff_t u = 0; u < counters; u += BLOCK, to++) {
        uint32_t words[4][BLOCK];
        const int count = within(counters - u);
        philox_block((uint32_t)u, count, step, low, high, noise.k0, noise.k1, words);
        for (int pair = 0; pair < 2; pair++)
#pragma omp simd
            for (int k = 0; k < count; k++) {
                float uniform = ((float)words[2 * pair][k] + 1.0f) * 0x1p-32f;
                to->radius[pair][k] = sqrtf(-2.0f * log_(uniform));
                cosine_sine(words[2 * pair + 1][k], &to->cosine[pair][k], &to->sine[pair][k]);
            }
    }
}

/* What box_muller does, to the last bit. */
INLINE void add_polar(const polar *from, int pair, int of_a, int of_b, float std, float *a, float *b) {
#pragma omp simd
    for (int u = 0; u < of_b; u++) {
        float radius = std * from->radius[pair][u];
        a[u] += radius * from->cosine[pair][u];
        b[u] += radius * from->sine[pair][u];
    }
#pragma omp simd
    for (int u = of_b; u < of_a; u++) {
        float radius = std * from->radius[pair][u];
        a[u] += radius * from->cosine[pair][u];
    }
}

/* Add the four numbers of each of `counters` counters to lanes[0..3], of which lane k has widths[k] numbers; where a lane has
 * none the later one of its pair has none. drawn: the numbers, or NULL. */
static __attribute__((noinline)) void add_lanes(float *const lanes[4], const ptrdiff_t widths[4], ptrdiff_t counters,
                                                site_noise noise, int64_t sample, uint32_t step, const polar *drawn) {
    if (noise.std == 0.0f) return;
    uint32_t low = (uint32_t)sample, high = (uint32_t)((uint64_t)sample >> 32);
    for (ptrdiff_t u = 0; u < counters; u += BLOCK) {
        uint32_t words[4][BLOCK];
        if (!drawn) philox_block((uint32_t)u, within(counters - u), step, low, high, noise.k0, noise.k1, words);
        for (int pair = 0; pair < 4; pair += 2) {
            const int of_a = within(widths[pair] - u), of_b = within(widths[pair + 1] - u);
            if (!of_a) continue;
            if (drawn)
                add_polar(drawn + u / BLOCK, pair / 2, of_a, of_b, noise.std, lanes[pair] + u, lanes[pair + 1] + u);
            else
                box_muller(words[pair], words[pair + 1], of_a, of_b, noise.std, lanes[pair] + u, lanes[pair + 1] + u);
        }
    }
}

/* Counters of a row of `groups` gates of `width` units. */
INLINE ptrdiff_t counters_of(ptrdiff_t width, int groups) { return (width + 4 / groups - 1) / (4 / groups); }

/* Add noise to a row of `groups` gates of `width` units: 4 / groups lanes to a gate, see normal() in philox.py. */
INLINE void add_noise(float *row, ptrdiff_t width, int groups, site_noise noise, int64_t sample, uint32_t step,
                      const polar *drawn) {
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
