/* One row of a batch through one step of a cell, forward and backward. */
#ifndef ASR_DNI_CELLS_H
#define ASR_DNI_CELLS_H
#include "philox.h"

/* See philox.h for why these are written out. */
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

typedef struct {
    site_noise input, recurrent, elementwise;
} layer_noise;

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

#endif
