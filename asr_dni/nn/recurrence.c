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

INLINE void philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1, uint32_t out[4]) {
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
        uint32_t high0 = (uint32_t)(p0 >> 32), high1 = (uint32_t)(p1 >> 32);
        c0 = high1 ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = high0 ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

INLINE void box_muller(uint32_t first, uint32_t second, float std, float *a, float *b) {
    float radius = std * sqrtf(-2.0f * logf(((float)first + 1.0f) * 0x1p-32f));
    float angle = (float)(6.283185307179586 * 0x1p-32) * (float)second;
    *a = radius * cosf(angle);
    *b = radius * sinf(angle);
}

INLINE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/* The argument is bounded because expf overflows; tanh is 1 in float from 10 on. */
INLINE float tanh_(float x) {
    x = fminf(fmaxf(x, -10.0f), 10.0f);
    float e = expf(2.0f * x);
    return (e - 1.0f) / (e + 1.0f);
}

/* Add noise to a row of `groups` gates of `width` units. */
INLINE void add_noise(float *row, ptrdiff_t width, int groups, site_noise noise, int64_t sample, uint32_t step) {
    uint32_t low = (uint32_t)sample, high = (uint32_t)((uint64_t)sample >> 32);
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) {
        uint32_t words[4];
        float a, b, c, d;
        philox((uint32_t)u, step, low, high, noise.k0, noise.k1, words);
        box_muller(words[0], words[1], noise.std, &a, &b);
        row[u] += a;
        if (groups > 1) row[width + u] += b;
        if (groups > 2) {
            box_muller(words[2], words[3], noise.std, &c, &d);
            row[2 * width + u] += c;
            if (groups > 3) row[3 * width + u] += d;
        }
    }
}

/* Constant `groups` at each call lets the compiler drop the branches and vectorise. */
INLINE void add_noise_by_groups(float *row, ptrdiff_t width, int groups, site_noise n, int64_t sample, uint32_t step) {
    if (n.std == 0.0f) return;
    switch (groups) {
        case 1: add_noise(row, width, 1, n, sample, step); break;
        case 2: add_noise(row, width, 2, n, sample, step); break;
        case 3: add_noise(row, width, 3, n, sample, step); break;
        default: add_noise(row, width, 4, n, sample, step);
    }
}

void add_gaussian(float *x, ptrdiff_t rows, ptrdiff_t width, int groups, const site_noise *noise,
                  const int64_t *samples, int64_t step) {
#pragma omp parallel for schedule(static) if (rows * width * groups > 16384)
    for (ptrdiff_t n = 0; n < rows; n++)
        add_noise_by_groups(x + n * groups * width, width, groups, *noise, samples[n], (uint32_t)step);
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
        add_noise_by_groups(row, width, 4, noise->input, samples[n], (uint32_t)step);
        add_noise_by_groups(row, width, 4, noise->recurrent, samples[n], (uint32_t)step);
        const float *before = c_before + n * width;
        float *cell = c + n * width, *out = h + n * width;
        if (noise->elementwise.std != 0.0f) {
            float *extra = products + n * 3 * width;
            for (ptrdiff_t k = 0; k < 3 * width; k++) extra[k] = 0.0f;
            add_noise_by_groups(extra, width, 3, noise->elementwise, samples[n], (uint32_t)step);
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
