/* The noisy recurrence of K networks over all time steps, forward and backward.
 *
 * The definition is run_reference in reference.py; the random numbers are those of asr_dni/philox.py.
 * Matrices are row-major float, one row a sample; a row of gates holds the gates one after another. A thread takes a
 * block of rows of one network through all steps without waiting for the others: rows do not meet inside a recurrence.
 * Every number is summed in an order of its own, so results do not depend on the blocks, the threads or K.
 */
#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <stdint.h>

/* Noise of one site: standard deviation (0: clean) and key. */
typedef struct {
    float std;
    uint32_t k0, k1;
} site_noise;

typedef struct {
    site_noise input, recurrent, elementwise;
} layer_noise;

#define INLINE static inline __attribute__((always_inline))

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

/* exp, log and sin/cos are written out, after the single-precision polynomials of the Cephes library (S. Moshier),
 * because calls, and gcc's merging of sinf with cosf, keep the loops from being vectorised. Errors are about 1e-7. */
INLINE float exp_(float x) {
    /* Comparisons that are false for NaN, so that NaN goes through. */
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = rintf(x * 1.44269504f);
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * bits_to_float((int32_t)((uint32_t)((int32_t)n + 127) << 23));
}

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

INLINE float sigmoid(float x) { return 1.0f / (1.0f + exp_(-x)); }

/* The rational approximation of the Eigen library (Eigen/src/Core/MathFunctionsImpl.h), good to a few units in the last
 * place also near zero; beyond the bound the result is 1 within rounding. */
INLINE float tanh_(float x) {
    const float bound = 7.90531110763549805f;
    x = x < -bound ? -bound : x;
    x = x > bound ? bound : x;
    float square = x * x, p = -2.76076847742355e-16f, q = 1.19825839466702e-06f;
    p = p * square + 2.00018790482477e-13f;
    p = p * square - 8.60467152213735e-11f;
    p = p * square + 5.12229709037114e-08f;
    p = p * square + 1.48572235717979e-05f;
    p = p * square + 6.37261928875436e-04f;
    p = p * square + 4.89352455891786e-03f;
    q = q * square + 1.18534705686654e-04f;
    q = q * square + 2.26843463243900e-03f;
    q = q * square + 4.89352518554385e-03f;
    return x * p / q;
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

/* Add the four numbers of each of `counters` counters to lanes[0..3], of which lane k has widths[k] numbers; where a lane has
 * none the later one of its pair has none. */
static __attribute__((noinline)) void add_lanes(float *const lanes[4], const ptrdiff_t widths[4], ptrdiff_t counters,
                                                site_noise noise, int64_t sample, uint32_t step) {
    if (noise.std == 0.0f) return;
    uint32_t low = (uint32_t)sample, high = (uint32_t)((uint64_t)sample >> 32);
    for (ptrdiff_t u = 0; u < counters; u += BLOCK) {
        uint32_t words[4][BLOCK];
        philox_block((uint32_t)u, within(counters - u), step, low, high, noise.k0, noise.k1, words);
        for (int pair = 0; pair < 4; pair += 2)
            if (widths[pair] > u)
                box_muller(words[pair], words[pair + 1], within(widths[pair] - u), within(widths[pair + 1] - u),
                           noise.std, lanes[pair] + u, lanes[pair + 1] + u);
    }
}

/* Add noise to a row of `groups` gates of `width` units: 4 / groups lanes to a gate, see normal() in philox.py. */
INLINE void add_noise(float *row, ptrdiff_t width, int groups, site_noise noise, int64_t sample, uint32_t step) {
    const int per_gate = 4 / groups;
    const ptrdiff_t counters = (width + per_gate - 1) / per_gate;
    float *lanes[4] = {row, row, row, row};
    ptrdiff_t widths[4] = {0, 0, 0, 0};
    for (int lane = 0; lane < groups * per_gate; lane++) {
        const ptrdiff_t from = lane % per_gate * counters, left = width - from;
        lanes[lane] = row + lane / per_gate * width + (from < width ? from : 0);
        widths[lane] = left < 0 ? 0 : left < counters ? left : counters;
    }
    add_lanes(lanes, widths, counters, noise, sample, step);
}

/* out: (steps, rows, groups * width). */
void draw_gaussian(float *out, ptrdiff_t steps, ptrdiff_t rows, ptrdiff_t width, int groups, const site_noise *noise,
                   const int64_t *samples, int64_t first_step) {
#pragma omp parallel for schedule(static) if (steps * rows * width * groups > 16384)
    for (ptrdiff_t k = 0; k < steps * rows; k++) {
        float *row = out + k * groups * width;
        for (ptrdiff_t u = 0; u < groups * width; u++) row[u] = 0.0f;
        add_noise(row, width, groups, *noise, samples[k % rows], (uint32_t)(first_step + k / rows));
    }
}

/* ---- Products ---------------------------------------------------------------------------------------------------
 *
 * out = a B + add + bias for a few rows at a time: B is packed once into panels of PANEL columns, of which a tile of
 * ROWS x PANEL sums stays in registers. A library call a step would cost the threads a meeting a step. */
#if defined(__AVX512F__)
enum { VECTOR = 16, ROWS = 12 };
#elif defined(__AVX__)
enum { VECTOR = 8, ROWS = 6 };
#elif defined(__aarch64__)
enum { VECTOR = 4, ROWS = 12 };
#else
enum { VECTOR = 4, ROWS = 6 };
#endif
enum { PANEL = 2 * VECTOR };
typedef float vector __attribute__((vector_size(VECTOR * sizeof(float)), aligned(sizeof(float)), may_alias));

typedef struct {
    const float *a, *b, *add, *bias; /* add: may be NULL, or out; bias: may be NULL */
    float *out;
    ptrdiff_t a_stride, b_stride, out_stride; /* of a row of a, a panel, a row of out and add */
    ptrdiff_t rows, depth, columns;
    ptrdiff_t packed; /* 0, or a is packed as by pack_transposed: how many columns it has room for */
} product;

INLINE void tile(int rows, const product *p, ptrdiff_t first, ptrdiff_t column) {
    const float *a = p->a + first * (p->packed ? p->packed : p->a_stride), *b = p->b + column / PANEL * p->b_stride;
    const ptrdiff_t down = p->packed ? 1 : p->a_stride, right = p->packed ? ROWS : 1, depth = p->depth;
    vector sums[ROWS][2];
#pragma GCC unroll 12
    for (int m = 0; m < rows; m++) sums[m][0] = sums[m][1] = (vector){0};
    for (ptrdiff_t k = 0; k < depth; k++, a += right) {
        vector left = *(const vector *)(b + k * PANEL), right = *(const vector *)(b + k * PANEL + VECTOR);
#pragma GCC unroll 12
        for (int m = 0; m < rows; m++) {
            vector factor = a[m * down] - (vector){0};
            sums[m][0] += factor * left;
            sums[m][1] += factor * right;
        }
    }
    ptrdiff_t columns = p->columns - column;
#pragma GCC unroll 12
    for (int m = 0; m < rows; m++) {
        ptrdiff_t at = (first + m) * p->out_stride + column;
        if (columns >= PANEL) {
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                vector sum = sums[m][half];
                if (p->bias) sum += *(const vector *)(p->bias + column + half * VECTOR);
                if (p->add) sum += *(const vector *)(p->add + at + half * VECTOR);
                *(vector *)(p->out + at + half * VECTOR) = sum;
            }
        } else {
            float row[PANEL];
            *(vector *)row = sums[m][0], *(vector *)(row + VECTOR) = sums[m][1];
            for (ptrdiff_t n = 0; n < columns; n++) {
                float sum = row[n];
                if (p->bias) sum += p->bias[column + n];
                if (p->add) sum += p->add[at + n];
                p->out[at + n] = sum;
            }
        }
    }
}

/* Functions of their own: in one, a compiler takes its time over all of them together. */
#define TILE(rows) \
    static __attribute__((noinline)) void tile_##rows(const product *p, ptrdiff_t first, ptrdiff_t column) { \
        tile(rows, p, first, column); \
    }
TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)
#if defined(__AVX512F__) || defined(__aarch64__)
TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12)
#endif

static void (*const TILES[])(const product *, ptrdiff_t, ptrdiff_t) = {
    NULL, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6,
#if defined(__AVX512F__) || defined(__aarch64__)
    tile_7, tile_8, tile_9, tile_10, tile_11, tile_12,
#endif
};

static void multiply(const product *p) {
    ptrdiff_t tiles = (p->rows + ROWS - 1) / ROWS;
    for (ptrdiff_t column = 0; column < p->columns; column += PANEL)
        for (ptrdiff_t t = 0; t < tiles; t++) {
            ptrdiff_t first = p->packed ? t * ROWS : t * p->rows / tiles;
            ptrdiff_t last = p->packed ? first + ROWS : (t + 1) * p->rows / tiles;
            TILES[(last < p->rows ? last : p->rows) - first](p, first, column);
        }
}

INLINE ptrdiff_t packed_size(ptrdiff_t depth, ptrdiff_t columns) {
    return (columns + PANEL - 1) / PANEL * PANEL * depth;
}

/* One panel of a matrix whose entry (k, n) is at k * down + n * right. */
static void pack_panel(const float *from, ptrdiff_t down, ptrdiff_t right, ptrdiff_t depth, ptrdiff_t columns,
                       ptrdiff_t column, float *packed) {
    float *panel = packed + column * depth;
    if (right == 1 && columns - column >= PANEL) {
        for (ptrdiff_t k = 0; k < depth; k++)
            for (ptrdiff_t n = 0; n < PANEL; n++) panel[k * PANEL + n] = from[k * down + column + n];
        return;
    }
    for (ptrdiff_t k = 0; k < depth; k++)
        for (ptrdiff_t n = 0; n < PANEL; n++)
            panel[k * PANEL + n] = column + n < columns ? from[k * down + (column + n) * right] : 0.0f;
}

/* Make a row column `at` of a matrix of which each tile of ROWS rows is in one piece. */
INLINE void pack_transposed(const float *row, ptrdiff_t count, ptrdiff_t at, ptrdiff_t room, float *packed) {
    for (ptrdiff_t first = 0; first < count; first += ROWS) {
        float *to = packed + first * room + at * ROWS;
        const ptrdiff_t rows = count - first < ROWS ? count - first : ROWS;
        if (rows == ROWS)
            for (int m = 0; m < ROWS; m++) to[m] = row[first + m];
        else
            for (ptrdiff_t m = 0; m < rows; m++) to[m] = row[first + m];
    }
}

/* ---- One row, one step ------------------------------------------------------------------------------------------ */

typedef struct {
    const layer_noise *noise;
    int64_t sample;
    uint32_t step;
    float *products; /* scratch of 3 H */
} row_noise;

/* Draw the noise of the products inside a cell into scratch. */
INLINE const float *product_noise(const row_noise *noise, ptrdiff_t width) {
    for (ptrdiff_t k = 0; k < 3 * width; k++) noise->products[k] = 0.0f;
    add_noise(noise->products, width, 3, noise->noise->elementwise, noise->sample, noise->step);
    return noise->products;
}

/* clean: pre-activations on entry, scratch. row: i, f, g, o after activation on return; may be `clean`. */
INLINE void lstm_row(float *clean, float *row, const float *before, float *cell, float *out, ptrdiff_t width,
                     const row_noise *noise) {
    add_noise(clean, width, 4, noise->noise->input, noise->sample, noise->step);
    add_noise(clean, width, 4, noise->noise->recurrent, noise->sample, noise->step);
    const int noisy_products = noise->noise->elementwise.std != 0.0f;
    const float *extra = noisy_products ? product_noise(noise, width) : NULL;
#define LSTM_UNITS(FIRST, SECOND, THIRD) \
    _Pragma("omp simd") for (ptrdiff_t u = 0; u < width; u++) { \
        float i = sigmoid(clean[u]), f = sigmoid(clean[width + u]); \
        float g = tanh_(clean[2 * width + u]), o = sigmoid(clean[3 * width + u]); \
        float state = f * before[u] FIRST + i * g SECOND; \
        row[u] = i, row[width + u] = f, row[2 * width + u] = g, row[3 * width + u] = o; \
        cell[u] = state; \
        out[u] = o * tanh_(state) THIRD; \
    }
    if (noisy_products) LSTM_UNITS(+ extra[u], + extra[width + u], + extra[2 * width + u])
    else LSTM_UNITS(, , )
}

/* inward: W_ih x + b_ih, scratch. hidden: W_hh h + b_hh, scratch, of which the last third with its noise goes to `kept`,
 * which the backward pass needs. row: r, z, n after activation on return; may be `inward`. */
INLINE void gru_row(float *inward, float *hidden, float *row, const float *before, float *kept, float *out,
                    ptrdiff_t width, int joint, const row_noise *noise) {
    if (joint)
        add_lanes((float *const[4]){inward, inward + width, inward + 2 * width, hidden + 2 * width},
                  (const ptrdiff_t[4]){width, width, width, width}, width, noise->noise->input, noise->sample,
                  noise->step);
    else
        add_noise(inward, width, 3, noise->noise->input, noise->sample, noise->step);
    add_noise(hidden, width, 3, noise->noise->recurrent, noise->sample, noise->step);
    const int noisy_products = noise->noise->elementwise.std != 0.0f;
    const float *extra = noisy_products ? product_noise(noise, width) : NULL;
#define GRU_UNITS(FIRST, SECOND, THIRD) \
    _Pragma("omp simd") for (ptrdiff_t u = 0; u < width; u++) { \
        float r = sigmoid(inward[u] + hidden[u]), z = sigmoid(inward[width + u] + hidden[width + u]); \
        float candidate = tanh_(inward[2 * width + u] + r * hidden[2 * width + u] FIRST); \
        row[u] = r, row[width + u] = z, row[2 * width + u] = candidate, kept[u] = hidden[2 * width + u]; \
        out[u] = (1.0f - z) * candidate SECOND + z * before[u] THIRD; \
    }
    if (noisy_products) GRU_UNITS(+ extra[u], + extra[width + u], + extra[2 * width + u])
    else GRU_UNITS(, , )
}

/* row: clean pre-activation on entry, h on return. */
INLINE void rnn_row(float *row, ptrdiff_t width, int relu, const row_noise *noise) {
    add_noise(row, width, 1, noise->noise->input, noise->sample, noise->step);
    add_noise(row, width, 1, noise->noise->recurrent, noise->sample, noise->step);
    if (relu) {
#pragma omp simd
        for (ptrdiff_t u = 0; u < width; u++) row[u] = row[u] < 0.0f ? 0.0f : row[u];
    } else {
#pragma omp simd
        for (ptrdiff_t u = 0; u < width; u++) row[u] = tanh_(row[u]);
    }
}

/* row: activations. drow: gradient of the pre-activations. dcell: gradient of the cell state, from this step's on entry
 * to the step before's on return. from_later: gradient of h from the later step; from_out: from this step's output. */
INLINE void lstm_row_backward(const float *row, float *drow, const float *before, const float *cell,
                              const float *from_out, const float *from_later, float *dcell, ptrdiff_t width) {
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) {
        float i = row[u], f = row[width + u], g = row[2 * width + u], o = row[3 * width + u];
        float t = tanh_(cell[u]), grad = from_out[u] + from_later[u];
        float d = dcell[u] + grad * o * (1.0f - t * t);
        drow[u] = d * g * i * (1.0f - i);
        drow[width + u] = d * before[u] * f * (1.0f - f);
        drow[2 * width + u] = d * i * (1.0f - g * g);
        drow[3 * width + u] = grad * t * o * (1.0f - o);
        dcell[u] = d * f;
    }
}

/* row: activations. drow: gradient of W_ih x + b_ih, whose first two thirds are also that of W_hh h + b_hh, and then the
 * last third of the latter. later: gradient of h from the later step on entry; on return the part of the step before's
 * that does not come through W_hh. */
INLINE void gru_row_backward(const float *row, const float *kept, const float *before, const float *from_out,
                             float *drow, float *later, ptrdiff_t width) {
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) {
        float r = row[u], z = row[width + u], candidate = row[2 * width + u];
        float grad = from_out[u] + later[u];
        float d_candidate = grad * (1.0f - z) * (1.0f - candidate * candidate);
        drow[u] = d_candidate * kept[u] * r * (1.0f - r);
        drow[width + u] = grad * (before[u] - candidate) * z * (1.0f - z);
        drow[2 * width + u] = d_candidate;
        drow[3 * width + u] = d_candidate * r;
        later[u] = grad * z;
    }
}

/* out: h. drow: gradient of the pre-activation. */
INLINE void rnn_row_backward(const float *out, float *drow, const float *from_out, const float *from_later,
                             ptrdiff_t width, int relu) {
    if (relu) {
#pragma omp simd
        for (ptrdiff_t u = 0; u < width; u++) drow[u] = out[u] > 0.0f ? from_out[u] + from_later[u] : 0.0f;
    } else {
#pragma omp simd
        for (ptrdiff_t u = 0; u < width; u++) drow[u] = (from_out[u] + from_later[u]) * (1.0f - out[u] * out[u]);
    }
}

/* ---- All steps of all networks ---------------------------------------------------------------------------------- */

enum { RNN_TANH, RNN_RELU, LSTM, GRU }; /* the order is that of CELLS in native.py */

/* K networks, T steps, N rows, F features, H units, G gates. Where there are no inputs their projection is given.
 * `kept` is c (LSTM) or W_hn h + b_hn and its noise (GRU). Where the activations are not kept, `kept` has one step only,
 * which every step overwrites, and gates is NULL. */
typedef struct {
    int64_t networks, steps, rows, features, width, first_step;
    int32_t cell, joint, keep, shared, threads; /* shared: one input for all networks */
    const float *inputs;                      /* (T, N, F), (K, T, N, F) or NULL */
    const float *w_ih, *b_ih;                 /* (K, G H, F), (K, G H) or NULL */
    const float *projection;                  /* (K, T, N, G H) or NULL */
    const float *w_hh, *b_hh;                 /* (K, G H, H), (K, G H) or NULL */
    const float *h, *c;                       /* (K, N, H), before the first step */
    float *outputs, *gates, *kept;            /* (K, T, N, H), (K, T, N, G H), (K, T, N, H) */
    const layer_noise *noise;                 /* (K) */
    const int64_t *const *samples;            /* K pointers to (N) */
    float *packed, *scratch, *sums;           /* see scratch_sizes */
    const float *d_outputs;                   /* (K, T, N, H) */
    float *d_inputs, *d_projection;           /* (K, T, N, F), (K, T, N, G H), or NULL where they are not wanted */
    float *d_w_ih, *d_b_ih, *d_w_hh, *d_b_hh; /* shaped as what they are gradients of, or NULL */
    float *dh, *dc;                           /* (K, N, H) */
} recurrence;

static const int GATES[] = {1, 1, 4, 3};
/* Gradients of pre-activations: a GRU's n gate has two. */
static const int GRADIENTS[] = {1, 1, 4, 4};

/* Rows of a block: few enough for a step of them to stay near the core. */
enum { BLOCK_ROWS = 192 };
/* Rows that one product for the weight gradients sums over. */
enum { CHUNK_ROWS = 256 };
/* Units whose weight gradients are written at once. */
enum { UNITS = 16 };

INLINE ptrdiff_t rounded(ptrdiff_t number, ptrdiff_t up_to) { return (number + up_to - 1) / up_to * up_to; }

/* Blocks of rows for each network, so that all threads have as much to do. */
INLINE ptrdiff_t blocks_of(const recurrence *p) {
    ptrdiff_t blocks = (p->rows + BLOCK_ROWS - 1) / BLOCK_ROWS, most = (p->rows + ROWS - 1) / ROWS;
    if (p->networks % p->threads != 0 && p->networks < 8 * p->threads) blocks = rounded(blocks, p->threads);
    if (blocks > most) blocks = most;
    return blocks > 1 ? blocks : 1;
}

INLINE ptrdiff_t rows_of_block(const recurrence *p) { return (p->rows + blocks_of(p) - 1) / blocks_of(p); }

INLINE ptrdiff_t steps_of_chunk(const recurrence *p) {
    ptrdiff_t rows = rows_of_block(p), steps = rows ? CHUNK_ROWS / rows : p->steps;
    return steps < 1 ? 1 : steps < p->steps ? steps : p->steps;
}

/* A gate's columns in the sums for the weight gradients: whole panels. */
INLINE ptrdiff_t panel_width(const recurrence *p) { return rounded(p->width, PANEL); }

INLINE ptrdiff_t inputs_width(const recurrence *p) { return p->inputs ? p->features : 0; }

/* Floats of the packed matrices of one network: of the recurrent weights, and after them of the input weights. */
INLINE ptrdiff_t packed_hidden(const recurrence *p, int backward) {
    ptrdiff_t gates = GATES[p->cell] * p->width;
    return backward ? packed_size(gates, p->width) : packed_size(p->width, gates);
}

INLINE ptrdiff_t packed_inputs(const recurrence *p, int backward) {
    ptrdiff_t gates = GATES[p->cell] * p->width, features = inputs_width(p);
    if (backward) return p->d_inputs ? packed_size(gates, features) : 0;
    return packed_size(features, gates);
}

INLINE ptrdiff_t scratch_of_thread(const recurrence *p, int backward) {
    ptrdiff_t rows = rows_of_block(p), H = p->width;
    if (!backward) return (rows * (GATES[p->cell] + 3 * (p->cell == GRU)) + 3) * H;
    ptrdiff_t chunk = steps_of_chunk(p) * rows;
    return chunk * (GRADIENTS[p->cell] * (H + panel_width(p)) + rounded(H, ROWS) + rounded(inputs_width(p), ROWS));
}

/* Sums of one block: a row for each unit, each feature and the biases. */
INLINE ptrdiff_t sums_of_block(const recurrence *p) {
    return (p->width + inputs_width(p) + 1) * GRADIENTS[p->cell] * panel_width(p);
}

/* Numbers of floats that `packed`, `scratch` and `sums` must have room for. */
void scratch_sizes(const recurrence *p, int backward, int64_t sizes[3]) {
    sizes[0] = p->networks * (packed_hidden(p, backward) + packed_inputs(p, backward));
    sizes[1] = p->threads * scratch_of_thread(p, backward);
    sizes[2] = backward ? p->networks * blocks_of(p) * sums_of_block(p) : 0;
}

INLINE const float *inputs_of(const recurrence *p, ptrdiff_t k, ptrdiff_t t, ptrdiff_t row) {
    return p->inputs + (((p->shared ? 0 : k) * p->steps + t) * p->rows + row) * p->features;
}

/* The state h before step t. */
INLINE const float *hidden_before(const recurrence *p, ptrdiff_t k, ptrdiff_t t, ptrdiff_t row) {
    return t ? p->outputs + ((k * p->steps + t - 1) * p->rows + row) * p->width
             : p->h + (k * p->rows + row) * p->width;
}

static void forward_block(const recurrence *p, ptrdiff_t k, ptrdiff_t first, ptrdiff_t rows, float *scratch) {
    const ptrdiff_t T = p->steps, N = p->rows, F = p->features, H = p->width, G = GATES[p->cell] * H;
    float *products = scratch, *block = scratch + 3 * H, *inward = block + rows * G;
    const float *packed = p->packed + k * (packed_hidden(p, 0) + packed_inputs(p, 0));
    row_noise noise = {.noise = p->noise + k, .products = products};
    product from_hidden = {.b = packed, .bias = p->b_hh ? p->b_hh + k * G : NULL, .a_stride = H,
                           .b_stride = PANEL * H, .out_stride = G, .rows = rows, .depth = H, .columns = G};
    product from_inputs = {.b = packed + packed_hidden(p, 0), .bias = p->b_ih ? p->b_ih + k * G : NULL, .a_stride = F,
                           .b_stride = PANEL * F, .out_stride = G, .rows = rows, .depth = F,
                           .columns = G};
    for (ptrdiff_t t = 0; t < T; t++) {
        const ptrdiff_t at = (k * T + t) * N + first, slot = p->keep ? at : k * N + first;
        const float *before = hidden_before(p, k, t, first), *cell_before = NULL;
        float *out = p->outputs + at * H, *kept = p->kept ? p->kept + slot * H : NULL;
        from_hidden.a = before;
        from_hidden.out = p->cell == LSTM || p->cell == GRU ? block : out;
        if (p->inputs) {
            from_inputs.a = inputs_of(p, k, t, first);
            from_inputs.out = p->cell == GRU ? inward : from_hidden.out;
            multiply(&from_inputs);
            from_hidden.add = p->cell == GRU ? NULL : from_hidden.out;
        } else if (p->cell == GRU) {
            for (ptrdiff_t j = 0; j < rows * G; j++) inward[j] = p->projection[at * G + j];
        } else {
            from_hidden.add = p->projection + at * G;
        }
        multiply(&from_hidden);
        noise.step = (uint32_t)(p->first_step + t);
        if (p->cell == LSTM) cell_before = t ? (p->keep ? kept - N * H : kept) : p->c + (k * N + first) * H;
        for (ptrdiff_t n = 0; n < rows; n++) {
            noise.sample = p->samples[k][first + n];
            if (p->cell == LSTM) {
                float *row = p->keep ? p->gates + (at + n) * G : block + n * G;
                lstm_row(block + n * G, row, cell_before + n * H, kept + n * H, out + n * H, H, &noise);
            } else if (p->cell == GRU) {
                float *row = p->keep ? p->gates + (at + n) * G : inward + n * G;
                gru_row(inward + n * G, block + n * G, row, before + n * H, kept + n * H, out + n * H, H,
                        p->joint, &noise);
            } else {
                rnn_row(out + n * H, H, p->cell == RNN_RELU, &noise);
            }
        }
    }
}

/* Add to the sums for the weight gradients what `count` rows give.
 *
 * gradients: of the pre-activations. hidden, inputs: what went into the products, packed with room for so many rows. */
static void sum_weight_gradients(const recurrence *p, const float *gradients, const float *hidden, const float *inputs,
                                 ptrdiff_t count, ptrdiff_t room, float *panels, float *sums) {
    const ptrdiff_t H = p->width, F = inputs_width(p), S = H + F, D = GRADIENTS[p->cell] * H, W = panel_width(p);
    const ptrdiff_t width = GRADIENTS[p->cell] * W;
    for (int gate = 0; gate < GRADIENTS[p->cell]; gate++)
        for (ptrdiff_t column = 0; column < H; column += PANEL)
            pack_panel(gradients + gate * H, D, 1, count, H, column, panels + gate * W * count);
    product to_sums = {.a = hidden, .b = panels, .add = sums, .out = sums, .b_stride = PANEL * count,
                       .out_stride = width, .rows = H, .depth = count, .columns = p->cell == GRU ? 2 * W : width,
                       .packed = room};
    multiply(&to_sums);
    if (p->cell == GRU) {
        to_sums.b = panels + 3 * W * count, to_sums.add = to_sums.out = sums + 3 * W, to_sums.columns = W;
        multiply(&to_sums);
    }
    if (F) {
        to_sums.a = inputs, to_sums.b = panels, to_sums.add = to_sums.out = sums + H * width;
        to_sums.rows = F, to_sums.columns = p->cell == GRU ? 3 * W : width;
        multiply(&to_sums);
    }
    float *biases = sums + S * width;
    for (ptrdiff_t row = 0; row < count; row++) {
#pragma omp simd
        for (ptrdiff_t j = 0; j < D; j++) biases[j] += gradients[row * D + j];
    }
}

static void backward_block(const recurrence *p, ptrdiff_t k, ptrdiff_t first, ptrdiff_t rows, float *scratch,
                           float *sums) {
    const ptrdiff_t T = p->steps, N = p->rows, H = p->width, G = GATES[p->cell] * H, D = GRADIENTS[p->cell] * H;
    const ptrdiff_t F = inputs_width(p), chunk = steps_of_chunk(p);
    float *dh = p->dh + (k * N + first) * H, *dc = p->dc ? p->dc + (k * N + first) * H : NULL;
    const ptrdiff_t room = chunk * rows;
    float *gradients = scratch, *hidden = gradients + room * D, *inputs = hidden + room * rounded(H, ROWS);
    float *panels = inputs + room * rounded(F, ROWS);
    const float *packed = p->packed + k * (packed_hidden(p, 1) + packed_inputs(p, 1));
    /* Of a GRU the gradient of W_hh h lies in two places. */
    const ptrdiff_t depth = p->cell == GRU ? 2 * H : G;
    product to_hidden = {.b = packed, .out = dh, .a_stride = D, .b_stride = PANEL * G, .out_stride = H,
                         .rows = rows, .depth = depth, .columns = H, .add = p->cell == GRU ? dh : NULL};
    product rest = to_hidden, to_inputs = to_hidden;
    rest.b = packed + depth * PANEL, rest.depth = H, rest.add = dh;
    to_inputs.b = packed + packed_hidden(p, 1), to_inputs.out_stride = to_inputs.columns = F, to_inputs.depth = G;
    to_inputs.add = NULL;
    for (ptrdiff_t j = 0; j < sums_of_block(p); j++) sums[j] = 0.0f;
    ptrdiff_t filled = 0;
    for (ptrdiff_t t = T - 1; t >= 0; t--) {
        const ptrdiff_t at = (k * T + t) * N + first;
        const float *row = p->gates ? p->gates + at * G : NULL, *before = hidden_before(p, k, t, first);
        const float *out = p->outputs + at * H, *from_out = p->d_outputs + at * H;
        float *drow = gradients + filled * rows * D;
        for (ptrdiff_t n = 0; n < rows; n++) {
            if (p->cell == LSTM) {
                const float *cell = p->kept + (at + n) * H;
                const float *cell_before = t ? cell - N * H : p->c + (k * N + first + n) * H;
                lstm_row_backward(row + n * G, drow + n * D, cell_before, cell, from_out + n * H, dh + n * H,
                                  dc + n * H, H);
            } else if (p->cell == GRU) {
                gru_row_backward(row + n * G, p->kept + (at + n) * H, before + n * H, from_out + n * H, drow + n * D,
                                 dh + n * H, H);
            } else {
                rnn_row_backward(out + n * H, drow + n * D, from_out + n * H, dh + n * H, H, p->cell == RNN_RELU);
            }
            pack_transposed(before + n * H, H, filled * rows + n, room, hidden);
            if (F) pack_transposed(inputs_of(p, k, t, first + n), F, filled * rows + n, room, inputs);
            if (p->d_projection)
                for (ptrdiff_t j = 0; j < G; j++) p->d_projection[(at + n) * G + j] = drow[n * D + j];
        }
        to_hidden.a = drow;
        multiply(&to_hidden);
        if (p->cell == GRU) {
            rest.a = drow + 3 * H;
            multiply(&rest);
        }
        if (p->d_inputs) {
            to_inputs.a = drow, to_inputs.out = p->d_inputs + at * F;
            multiply(&to_inputs);
        }
        if (++filled == chunk || t == 0) {
            sum_weight_gradients(p, gradients, hidden, inputs, filled * rows, room, panels, sums);
            filled = 0;
        }
    }
}

/* Write the weight gradients of a few units of one gate, from the sums of all blocks. */
static void write_gradients(const recurrence *p, ptrdiff_t k, ptrdiff_t gate, ptrdiff_t first) {
    const ptrdiff_t H = p->width, F = inputs_width(p), S = H + F, W = panel_width(p), blocks = blocks_of(p);
    const ptrdiff_t width = GRADIENTS[p->cell] * W, last = first + UNITS < H ? first + UNITS : H;
    /* The hidden part of a GRU's n gate has sums of its own. */
    const ptrdiff_t hidden_gate = p->cell == GRU && gate == 2 ? 3 : gate;
    const ptrdiff_t at = (k * GATES[p->cell] + gate) * H;
    for (ptrdiff_t block = 0; block < blocks; block++) {
        const float *sums = p->sums + (k * blocks + block) * sums_of_block(p), *biases = sums + S * width;
        for (ptrdiff_t j = 0; p->d_w_hh && j < H; j++)
            for (ptrdiff_t u = first; u < last; u++) {
                float *to = p->d_w_hh + (at + u) * H + j;
                *to = sums[j * width + hidden_gate * W + u] + (block ? *to : 0.0f);
            }
        for (ptrdiff_t j = 0; p->d_w_ih && j < F; j++)
            for (ptrdiff_t u = first; u < last; u++) {
                float *to = p->d_w_ih + (at + u) * F + j;
                *to = sums[(H + j) * width + gate * W + u] + (block ? *to : 0.0f);
            }
        for (ptrdiff_t u = first; u < last; u++) {
            if (p->d_b_hh) p->d_b_hh[at + u] = biases[hidden_gate * H + u] + (block ? p->d_b_hh[at + u] : 0.0f);
            if (p->d_b_ih) p->d_b_ih[at + u] = biases[gate * H + u] + (block ? p->d_b_ih[at + u] : 0.0f);
        }
    }
}

static void run(const recurrence *p, int backward) {
    const ptrdiff_t H = p->width, gates = GATES[p->cell], G = gates * H, F = inputs_width(p);
    const ptrdiff_t blocks = blocks_of(p), size = scratch_of_thread(p, backward), parts = (H + UNITS - 1) / UNITS;
    const ptrdiff_t of_hidden = packed_hidden(p, backward), of_inputs = packed_inputs(p, backward);
    const ptrdiff_t panels = ((backward ? H : G) + PANEL - 1) / PANEL;
    const ptrdiff_t more = of_inputs ? ((backward ? F : G) + PANEL - 1) / PANEL : 0;
#pragma omp parallel num_threads(p->threads)
    {
#pragma omp for schedule(static)
        for (ptrdiff_t j = 0; j < p->networks * (panels + more); j++) {
            ptrdiff_t k = j / (panels + more), panel = j % (panels + more), fan_in = H;
            float *packed = p->packed + k * (of_hidden + of_inputs);
            const float *matrix = p->w_hh + k * G * H;
            if (panel >= panels) packed += of_hidden, panel -= panels, matrix = p->w_ih + k * G * F, fan_in = F;
            if (backward)
                pack_panel(matrix, fan_in, 1, G, fan_in, panel * PANEL, packed);
            else
                pack_panel(matrix, 1, fan_in, fan_in, G, panel * PANEL, packed);
        }
#pragma omp for schedule(dynamic)
        for (ptrdiff_t j = 0; j < p->networks * blocks; j++) {
            ptrdiff_t k = j / blocks, block = j % blocks;
            ptrdiff_t first = block * p->rows / blocks, rows = (block + 1) * p->rows / blocks - first;
            float *scratch = p->scratch + omp_get_thread_num() * size;
            if (backward)
                backward_block(p, k, first, rows, scratch, p->sums + j * sums_of_block(p));
            else
                forward_block(p, k, first, rows, scratch);
        }
        if (backward) {
#pragma omp for schedule(static)
            for (ptrdiff_t j = 0; j < p->networks * gates * parts; j++)
                write_gradients(p, j / parts / gates, j / parts % gates, j % parts * UNITS);
        }
    }
}

/* Fill outputs, kept and, where they are kept, gates. */
void recurrence_forward(const recurrence *p) { run(p, 0); }

/* dh and dc: gradients of the final states on entry, of the initial ones on return. Fill the other gradients. */
void recurrence_backward(const recurrence *p) { run(p, 1); }
