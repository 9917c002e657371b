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

#define PHILOX_ROUND                                                               \
    {                                                                              \
        uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u; \
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;                                       \
        c1 = (uint32_t)p1;                                                         \
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;                                       \
        c3 = (uint32_t)p0;                                                         \
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;                                      \
    }

/* Four words for each unit of a block. */
INLINE void philox_block(uint32_t first, int count, uint32_t step, uint32_t low, uint32_t high, uint32_t k0_,
                         uint32_t k1_, uint32_t *w0, uint32_t *w1, uint32_t *w2, uint32_t *w3) {
#pragma omp simd
    for (int u = 0; u < count; u++) {
        uint32_t c0 = first + (uint32_t)u, c1 = step, c2 = low, c3 = high, k0 = k0_, k1 = k1_;
        PHILOX_ROUND PHILOX_ROUND PHILOX_ROUND PHILOX_ROUND PHILOX_ROUND
        PHILOX_ROUND PHILOX_ROUND PHILOX_ROUND PHILOX_ROUND PHILOX_ROUND
        w0[u] = c0, w1[u] = c1, w2[u] = c2, w3[u] = c3;
    }
}

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
    x = fminf(fmaxf(x, -87.0f), 88.0f);
    float n = rintf(x * 1.44269504f);
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * bits_to_float(((int32_t)n + 127) << 23);
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

INLINE float tanh_(float x) { return 1.0f - 2.0f / (1.0f + exp_(2.0f * x)); }

/* Add a pair of Gaussian numbers from each pair of words; b may be NULL. */
INLINE void box_muller(const uint32_t *first, const uint32_t *second, int count, float std, float *a, float *b) {
#pragma omp simd
    for (int u = 0; u < count; u++) {
        float cosine, sine, uniform = ((float)first[u] + 1.0f) * 0x1p-32f;
        float radius = std * sqrtf(fmaxf(-2.0f * log_(uniform), 0.0f));
        cosine_sine(second[u], &cosine, &sine);
        a[u] += radius * cosine;
        if (b) b[u] += radius * sine;
    }
}

enum { BLOCK = 64 };

/* Add noise to a row of `groups` gates of `width` units. */
INLINE void add_noise(float *row, ptrdiff_t width, int groups, site_noise noise, int64_t sample, uint32_t step) {
    if (noise.std == 0.0f) return;
    uint32_t low = (uint32_t)sample, high = (uint32_t)((uint64_t)sample >> 32);
    for (ptrdiff_t u = 0; u < width; u += BLOCK) {
        uint32_t words[4][BLOCK];
        int count = width - u < BLOCK ? (int)(width - u) : BLOCK;
        philox_block((uint32_t)u, count, step, low, high, noise.k0, noise.k1, words[0], words[1], words[2], words[3]);
        box_muller(words[0], words[1], count, noise.std, row + u, groups > 1 ? row + width + u : NULL);
        if (groups > 2)
            box_muller(words[2], words[3], count, noise.std, row + 2 * width + u,
                       groups > 3 ? row + 3 * width + u : NULL);
    }
}

void add_gaussian(float *x, ptrdiff_t rows, ptrdiff_t width, int groups, const site_noise *noise,
                  const int64_t *samples, int64_t step) {
#pragma omp parallel for schedule(static) if (rows * width * groups > 16384)
    for (ptrdiff_t n = 0; n < rows; n++)
        add_noise(x + n * groups * width, width, groups, *noise, samples[n], (uint32_t)step);
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
