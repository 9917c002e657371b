/* One time step of a noisy recurrence, gate arithmetic and noise in one pass.
 *
 * The definition is run_reference in recurrence.py; the random numbers are those of asr_dni/philox.py.
 * Matrices are row-major float, one row a sample; a row of gates holds the gates one after another.
 */
#include <math.h>
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

/* Near zero 1 - 2 / (1 + exp(2 x)) would lose its digits. */
INLINE float tanh_(float x) {
    float square = x * x, p = -5.70498872745e-3f;
    p = p * square + 2.06390887954e-2f;
    p = p * square - 5.37397155531e-2f;
    p = p * square + 1.33314422036e-1f;
    p = p * square - 3.33332819422e-1f;
    float near_zero = x + x * square * p, elsewhere = 1.0f - 2.0f / (1.0f + exp_(2.0f * x));
    return fabsf(x) < 0.625f ? near_zero : elsewhere;
}

/* Add a pair of Gaussian numbers from each pair of words; b may be NULL. */
INLINE void box_muller(const uint32_t *first, const uint32_t *second, int count, float std, float *a, float *b) {
#pragma omp simd
    for (int u = 0; u < count; u++) {
        float cosine, sine, uniform = ((float)first[u] + 1.0f) * 0x1p-32f;
        float radius = std * sqrtf(-2.0f * log_(uniform));
        cosine_sine(second[u], &cosine, &sine);
        a[u] += radius * cosine;
        if (b) b[u] += radius * sine;
    }
}

/* Add noise to the gates a, b, c and d of `width` units, of which any may be NULL. */
INLINE void add_noise_to(float *a, float *b, float *c, float *d, ptrdiff_t width, site_noise noise, int64_t sample,
                         uint32_t step) {
    if (noise.std == 0.0f) return;
    uint32_t low = (uint32_t)sample, high = (uint32_t)((uint64_t)sample >> 32);
    for (ptrdiff_t u = 0; u < width; u += BLOCK) {
        uint32_t words[4][BLOCK];
        int count = width - u < BLOCK ? (int)(width - u) : BLOCK;
        philox_block((uint32_t)u, count, step, low, high, noise.k0, noise.k1, words);
        if (a) box_muller(words[0], words[1], count, noise.std, a + u, b ? b + u : NULL);
        if (c) box_muller(words[2], words[3], count, noise.std, c + u, d ? d + u : NULL);
    }
}

/* Add noise to a row of `groups` gates of `width` units. */
INLINE void add_noise(float *row, ptrdiff_t width, int groups, site_noise noise, int64_t sample, uint32_t step) {
    add_noise_to(row, groups > 1 ? row + width : NULL, groups > 2 ? row + 2 * width : NULL,
                 groups > 3 ? row + 3 * width : NULL, width, noise, sample, step);
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

/* gates: W_hh h on entry; i, f, g, o after activation on return. products: scratch of 3 H per row, or NULL. */
void lstm_forward(float *gates, const float *projection, const float *bias, const float *c_before, float *c, float *h,
                  ptrdiff_t rows, ptrdiff_t width, const layer_noise *noise, const int64_t *samples, int64_t step,
                  float *products) {
#pragma omp parallel for schedule(static)
    for (ptrdiff_t n = 0; n < rows; n++) {
        float *row = gates + n * 4 * width;
        const float *inward = projection + n * 4 * width;
        if (bias) {
#pragma omp simd
            for (ptrdiff_t k = 0; k < 4 * width; k++) row[k] += inward[k] + bias[k];
        } else {
#pragma omp simd
            for (ptrdiff_t k = 0; k < 4 * width; k++) row[k] += inward[k];
        }
        add_noise(row, width, 4, noise->input, samples[n], (uint32_t)step);
        add_noise(row, width, 4, noise->recurrent, samples[n], (uint32_t)step);
        const float *before = c_before + n * width;
        float *cell = c + n * width, *out = h + n * width;
        if (noise->elementwise.std != 0.0f) {
            float *extra = products + n * 3 * width;
            for (ptrdiff_t k = 0; k < 3 * width; k++) extra[k] = 0.0f;
            add_noise(extra, width, 3, noise->elementwise, samples[n], (uint32_t)step);
#pragma omp simd
            for (ptrdiff_t u = 0; u < width; u++) {
                float i = sigmoid(row[u]), f = sigmoid(row[width + u]);
                float g = tanh_(row[2 * width + u]), o = sigmoid(row[3 * width + u]);
                float state = f * before[u] + extra[u] + i * g + extra[width + u];
                row[u] = i, row[width + u] = f, row[2 * width + u] = g, row[3 * width + u] = o;
                cell[u] = state;
                out[u] = o * tanh_(state) + extra[2 * width + u];
            }
        } else {
#pragma omp simd
            for (ptrdiff_t u = 0; u < width; u++) {
                float i = sigmoid(row[u]), f = sigmoid(row[width + u]);
                float g = tanh_(row[2 * width + u]), o = sigmoid(row[3 * width + u]);
                float state = f * before[u] + i * g;
                row[u] = i, row[width + u] = f, row[2 * width + u] = g, row[3 * width + u] = o;
                cell[u] = state;
                out[u] = o * tanh_(state);
            }
        }
    }
}

/* gates: activations. dgates: gradient of the pre-activations. dc: gradient of the cell state, from this step's on
 * entry to the step before's on return. dh: gradient of h from the later step; dout: from the output of this step. */
void lstm_backward(const float *gates, float *dgates, const float *c_before, const float *c, const float *dout,
                   const float *dh, float *dc, ptrdiff_t rows, ptrdiff_t width) {
#pragma omp parallel for schedule(static)
    for (ptrdiff_t n = 0; n < rows; n++) {
        const float *row = gates + n * 4 * width;
        float *drow = dgates + n * 4 * width;
        const float *before = c_before + n * width, *cell = c + n * width;
        const float *from_out = dout + n * width, *from_later = dh + n * width;
        float *dcell = dc + n * width;
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
}

/* hidden: W_hh h, scratch. gates: r, z, n after activation on return. hidden_n: W_hn h + b_hn and its noise, which
 * the backward pass needs. products: scratch of 3 H per row, or NULL. */
void gru_forward(float *hidden, const float *projection, const float *bias, const float *h_before, float *gates,
                 float *hidden_n, float *h, ptrdiff_t rows, ptrdiff_t width, const layer_noise *noise,
                 int recurrent_n_only, const int64_t *samples, int64_t step, float *products) {
#pragma omp parallel for schedule(static)
    for (ptrdiff_t n = 0; n < rows; n++) {
        float *hid = hidden + n * 3 * width, *row = gates + n * 3 * width, *kept = hidden_n + n * width;
        const float *inward = projection + n * 3 * width, *before = h_before + n * width;
        float *out = h + n * width;
        if (bias) {
#pragma omp simd
            for (ptrdiff_t k = 0; k < 3 * width; k++) hid[k] += bias[k];
        }
        for (ptrdiff_t k = 0; k < 3 * width; k++) row[k] = inward[k];
        add_noise(row, width, 3, noise->input, samples[n], (uint32_t)step);
        if (recurrent_n_only)
            add_noise_to(NULL, NULL, hid + 2 * width, NULL, width, noise->recurrent, samples[n], (uint32_t)step);
        else
            add_noise(hid, width, 3, noise->recurrent, samples[n], (uint32_t)step);
        if (noise->elementwise.std != 0.0f) {
            float *extra = products + n * 3 * width;
            for (ptrdiff_t k = 0; k < 3 * width; k++) extra[k] = 0.0f;
            add_noise(extra, width, 3, noise->elementwise, samples[n], (uint32_t)step);
#pragma omp simd
            for (ptrdiff_t u = 0; u < width; u++) {
                float r = sigmoid(row[u] + hid[u]), z = sigmoid(row[width + u] + hid[width + u]);
                float candidate = tanh_(row[2 * width + u] + r * hid[2 * width + u] + extra[u]);
                row[u] = r, row[width + u] = z, row[2 * width + u] = candidate, kept[u] = hid[2 * width + u];
                out[u] = (1.0f - z) * candidate + extra[width + u] + z * before[u] + extra[2 * width + u];
            }
        } else {
#pragma omp simd
            for (ptrdiff_t u = 0; u < width; u++) {
                float r = sigmoid(row[u] + hid[u]), z = sigmoid(row[width + u] + hid[width + u]);
                float candidate = tanh_(row[2 * width + u] + r * hid[2 * width + u]);
                row[u] = r, row[width + u] = z, row[2 * width + u] = candidate, kept[u] = hid[2 * width + u];
                out[u] = (1.0f - z) * candidate + z * before[u];
            }
        }
    }
}

/* gates: activations. dgates: gradient of W_ih x + b_ih; dhidden: of W_hh h + b_hh. dh: gradient of h from the later
 * step on entry; on return the part of the step before's that does not come through W_hh. */
void gru_backward(const float *gates, const float *hidden_n, const float *h_before, const float *dout, float *dgates,
                  float *dhidden, float *dh, ptrdiff_t rows, ptrdiff_t width) {
#pragma omp parallel for schedule(static)
    for (ptrdiff_t n = 0; n < rows; n++) {
        const float *row = gates + n * 3 * width, *kept = hidden_n + n * width, *before = h_before + n * width;
        const float *from_out = dout + n * width;
        float *dinward = dgates + n * 3 * width, *dhid = dhidden + n * 3 * width, *later = dh + n * width;
#pragma omp simd
        for (ptrdiff_t u = 0; u < width; u++) {
            float r = row[u], z = row[width + u], candidate = row[2 * width + u];
            float grad = from_out[u] + later[u];
            float d_candidate = grad * (1.0f - z) * (1.0f - candidate * candidate);
            float d_r = d_candidate * kept[u] * r * (1.0f - r);
            float d_z = grad * (before[u] - candidate) * z * (1.0f - z);
            dinward[u] = d_r, dinward[width + u] = d_z, dinward[2 * width + u] = d_candidate;
            dhid[u] = d_r, dhid[width + u] = d_z, dhid[2 * width + u] = d_candidate * r;
            later[u] = grad * z;
        }
    }
}

/* h: W_hh h_{t-1} on entry, h_t on return. */
void rnn_forward(float *h, const float *projection, const float *bias, int relu, ptrdiff_t rows, ptrdiff_t width,
                 const layer_noise *noise, const int64_t *samples, int64_t step) {
#pragma omp parallel for schedule(static)
    for (ptrdiff_t n = 0; n < rows; n++) {
        float *row = h + n * width;
        const float *inward = projection + n * width;
        if (bias) {
#pragma omp simd
            for (ptrdiff_t u = 0; u < width; u++) row[u] += inward[u] + bias[u];
        } else {
#pragma omp simd
            for (ptrdiff_t u = 0; u < width; u++) row[u] += inward[u];
        }
        add_noise(row, width, 1, noise->input, samples[n], (uint32_t)step);
        add_noise(row, width, 1, noise->recurrent, samples[n], (uint32_t)step);
        if (relu) {
#pragma omp simd
            for (ptrdiff_t u = 0; u < width; u++) row[u] = row[u] < 0.0f ? 0.0f : row[u];
        } else {
#pragma omp simd
            for (ptrdiff_t u = 0; u < width; u++) row[u] = tanh_(row[u]);
        }
    }
}

/* dgates: gradient of the pre-activation. dh: gradient of h from the later step. */
void rnn_backward(const float *h, const float *dout, const float *dh, float *dgates, int relu, ptrdiff_t rows,
                  ptrdiff_t width) {
#pragma omp parallel for schedule(static) if (rows * width > 16384)
    for (ptrdiff_t k = 0; k < rows; k++) {
        const float *out = h + k * width, *from_out = dout + k * width, *later = dh + k * width;
        float *row = dgates + k * width;
        if (relu) {
#pragma omp simd
            for (ptrdiff_t u = 0; u < width; u++) row[u] = out[u] > 0.0f ? from_out[u] + later[u] : 0.0f;
        } else {
#pragma omp simd
            for (ptrdiff_t u = 0; u < width; u++) row[u] = (from_out[u] + later[u]) * (1.0f - out[u] * out[u]);
        }
    }
}
