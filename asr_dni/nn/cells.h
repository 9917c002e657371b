/* One row of a batch through one step of a cell, forward and backward. */
#ifndef ASR_DNI_CELLS_H
#define ASR_DNI_CELLS_H
#include "philox.h"

/* See philox.h for why these are written out. Comparisons are false for NaN, so that NaN goes through. */

/* One comparison: with two a compiler goes three ways, and pulls all that follows into them. */
INLINE float limited(float x, float bound) { return fabsf(x) > bound ? copysignf(bound, x) : x; }

/* 1 + exp(-x), finite also where it is multiplied with another one. */
INLINE float one_and_exp(float x) {
    x = limited(x, 40.0f);
    /* Rounds to a whole number n and leaves the exponent of 2**n in the lowest bits. */
    const float rounder = 12582912.0f + 127.0f;
    const float shifted = x * -1.44269504f + rounder, n = shifted - rounder, r = n * -0.69314718f - x;
    float p = 8.3812048e-3f;
    p = p * r + 4.1918031e-2f;
    p = p * r + 1.6666324e-1f;
    p = p * r + 4.9998865e-1f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * bits_to_float((int32_t)((uint32_t)float_to_bits(shifted) << 23)) + 1.0f;
}

INLINE float sigmoid(float x) { return 1.0f / one_and_exp(x); }

typedef struct {
    float above, below;
} quotient;

/* tanh(x), by the rational approximation of the Eigen library (Eigen/src/Core/MathFunctionsImpl.h), good to a few units
 * in the last place also near zero; beyond the bound the result is 1 within rounding. */
INLINE quotient tanh_quotient(float x) {
    x = limited(x, 7.90531110763549805f);
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
    return (quotient){x * p, q};
}

INLINE float tanh_(float x) {
    const quotient its = tanh_quotient(x);
    return its.above / its.below;
}

typedef struct {
    site_noise input, recurrent, elementwise;
} layer_noise;

INLINE layer_noise noise_of_row(const layer_noise *its, ptrdiff_t row) {
    return (layer_noise){of_row(its->input, row), of_row(its->recurrent, row), of_row(its->elementwise, row)};
}

typedef struct {
    const layer_noise *noise;
    int64_t sample;
    uint32_t step;
    float *products;      /* scratch of INSIDE H: what is added to the products inside a cell */
    const float *factors; /* what they are multiplied by before: then `products` is filled already. NULL: by 1 */
    struct { const normals *input, *recurrent, *elementwise; } drawn; /* where numbers were drawn before, else NULL */
} row_noise;

INLINE void add_noise_at_input(float *row, ptrdiff_t width, int groups, const row_noise *noise) {
    add_noise(row, width, groups, noise->noise->input, noise->sample, noise->step, noise->drawn.input);
}

INLINE void add_noise_at_recurrent(float *row, ptrdiff_t width, int groups, const row_noise *noise) {
    add_noise(row, width, groups, noise->noise->recurrent, noise->sample, noise->step, noise->drawn.recurrent);
}

/* Of the products inside a cell: as they are, with numbers added, or with factors too. */
enum { EXACT, ADDED_TO, SCALED };

/* Return which, with the added numbers drawn. */
INLINE int noise_of_products(const row_noise *noise, ptrdiff_t width, int products) {
    if (noise->factors) return SCALED;
    if (noise->noise->elementwise.std == 0.0f) return EXACT;
    for (ptrdiff_t k = 0; k < products * width; k++) noise->products[k] = 0.0f;
    add_noise(noise->products, width, products, noise->noise->elementwise, noise->sample, noise->step,
              noise->drawn.elementwise);
    return ADDED_TO;
}

/* `kind` is known where this is compiled, as are all arguments of that name below. */
INLINE float noisy_product(float product, const int kind, const row_noise *noise, ptrdiff_t at) {
    if (kind == EXACT) return product;
    return (kind == SCALED ? product * noise->factors[at] : product) + noise->products[at];
}

INLINE void lstm_units(const float *clean, float *row, const float *before, float *cell, float *out, ptrdiff_t width,
                       const row_noise *noise, const int kind) {
    /* One division for two, because the divider takes long, and loops of their own, because of a short one a processor has
     * several turns under way at once. */
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) {
        const float of_i = one_and_exp(clean[u]), of_f = one_and_exp(clean[width + u]), both = 1.0f / (of_i * of_f);
        row[u] = of_f * both, row[width + u] = of_i * both;
    }
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) {
        const quotient of_g = tanh_quotient(clean[2 * width + u]);
        const float of_o = one_and_exp(clean[3 * width + u]), both = 1.0f / (of_g.below * of_o);
        row[2 * width + u] = of_g.above * of_o * both, row[3 * width + u] = of_g.below * both;
    }
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) {
        float state = noisy_product(row[width + u] * before[u], kind, noise, u) +
                      noisy_product(row[u] * row[2 * width + u], kind, noise, width + u);
        cell[u] = state;
        out[u] = noisy_product(row[3 * width + u] * tanh_(state), kind, noise, 2 * width + u);
    }
}

/* clean: pre-activations on entry, scratch. row: i, f, g, o after activation on return; may be `clean`. */
INLINE void lstm_row(float *clean, float *row, const float *before, float *cell, float *out, ptrdiff_t width,
                     const row_noise *noise) {
    add_noise_at_input(clean, width, 4, noise);
    add_noise_at_recurrent(clean, width, 4, noise);
    const int kind = noise_of_products(noise, width, 3);
    if (kind == EXACT) lstm_units(clean, row, before, cell, out, width, noise, EXACT);
    else if (kind == ADDED_TO) lstm_units(clean, row, before, cell, out, width, noise, ADDED_TO);
    else lstm_units(clean, row, before, cell, out, width, noise, SCALED);
}

INLINE void gru_units(const float *inward, const float *hidden, float *row, const float *before, float *kept,
                      float *out, ptrdiff_t width, const row_noise *noise, const int kind) {
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) {
        const float of_r = one_and_exp(inward[u] + hidden[u]), of_z = one_and_exp(inward[width + u] + hidden[width + u]);
        const float both = 1.0f / (of_r * of_z);
        row[u] = of_z * both, row[width + u] = of_r * both;
    }
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) {
        float r = row[u], z = row[width + u];
        float candidate = tanh_(inward[2 * width + u] + noisy_product(r * hidden[2 * width + u], kind, noise, u));
        row[2 * width + u] = candidate, kept[u] = hidden[2 * width + u];
        out[u] = noisy_product((1.0f - z) * candidate, kind, noise, width + u) +
                 noisy_product(z * before[u], kind, noise, 2 * width + u);
    }
}

/* inward: W_ih x + b_ih, scratch. hidden: W_hh h + b_hh, scratch, of which the last third with its noise goes to `kept`,
 * which the backward pass needs. row: r, z, n after activation on return; may be `inward`. */
INLINE void gru_row(float *inward, float *hidden, float *row, const float *before, float *kept, float *out,
                    ptrdiff_t width, int joint, const row_noise *noise) {
    if (joint)
        add_lanes((float *const[4]){inward, inward + width, inward + 2 * width, hidden + 2 * width},
                  (const ptrdiff_t[4]){width, width, width, width}, width, noise->noise->input, noise->sample,
                  noise->step, noise->drawn.input);
    else
        add_noise_at_input(inward, width, 3, noise);
    add_noise_at_recurrent(hidden, width, 3, noise);
    const int kind = noise_of_products(noise, width, 3);
    if (kind == EXACT) gru_units(inward, hidden, row, before, kept, out, width, noise, EXACT);
    else if (kind == ADDED_TO) gru_units(inward, hidden, row, before, kept, out, width, noise, ADDED_TO);
    else gru_units(inward, hidden, row, before, kept, out, width, noise, SCALED);
}

/* row: clean pre-activation on entry, h on return. */
INLINE void rnn_row(float *row, ptrdiff_t width, int relu, const row_noise *noise) {
    add_noise_at_input(row, width, 1, noise);
    add_noise_at_recurrent(row, width, 1, noise);
    if (relu) {
#pragma omp simd
        for (ptrdiff_t u = 0; u < width; u++) row[u] = row[u] < 0.0f ? 0.0f : row[u];
    } else {
#pragma omp simd
        for (ptrdiff_t u = 0; u < width; u++) row[u] = tanh_(row[u]);
    }
}

/* A factor of the gradient of a product inside a cell. */
INLINE float factor_at(const float *factors, ptrdiff_t at, const int scaled) { return scaled ? factors[at] : 1.0f; }

INLINE void lstm_units_backward(const float *row, float *drow, const float *before, const float *cell,
                                const float *from_out, const float *from_later, float *dcell, const float *factors,
                                ptrdiff_t width, const int scaled) {
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) {
        float i = row[u], f = row[width + u], g = row[2 * width + u], o = row[3 * width + u];
        float t = tanh_(cell[u]), grad = (from_out[u] + from_later[u]) * factor_at(factors, 2 * width + u, scaled);
        float d = dcell[u] + grad * o * (1.0f - t * t);
        float d_kept = d * factor_at(factors, u, scaled), d_new = d * factor_at(factors, width + u, scaled);
        drow[u] = d_new * g * i * (1.0f - i);
        drow[width + u] = d_kept * before[u] * f * (1.0f - f);
        drow[2 * width + u] = d_new * i * (1.0f - g * g);
        drow[3 * width + u] = grad * t * o * (1.0f - o);
        dcell[u] = d_kept * f;
    }
}

/* row: activations. drow: gradient of the pre-activations. dcell: gradient of the cell state, from this step's on entry
 * to the step before's on return. from_later: gradient of h from the later step; from_out: from this step's output.
 * factors: of the products inside the cell, or NULL. */
INLINE void lstm_row_backward(const float *row, float *drow, const float *before, const float *cell,
                              const float *from_out, const float *from_later, float *dcell, const float *factors,
                              ptrdiff_t width) {
    if (factors) lstm_units_backward(row, drow, before, cell, from_out, from_later, dcell, factors, width, 1);
    else lstm_units_backward(row, drow, before, cell, from_out, from_later, dcell, NULL, width, 0);
}

INLINE void gru_units_backward(const float *row, const float *kept, const float *before, const float *from_out,
                               float *drow, float *later, const float *factors, ptrdiff_t width, const int scaled) {
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) {
        float r = row[u], z = row[width + u], candidate = row[2 * width + u];
        float grad = from_out[u] + later[u];
        float d_old = grad * factor_at(factors, 2 * width + u, scaled);
        float d_new = grad * factor_at(factors, width + u, scaled);
        float d_candidate = d_new * (1.0f - z) * (1.0f - candidate * candidate);
        float d_reset = d_candidate * factor_at(factors, u, scaled);
        drow[u] = d_reset * kept[u] * r * (1.0f - r);
        float d_gate = scaled ? d_old * before[u] - d_new * candidate : grad * (before[u] - candidate);
        drow[width + u] = d_gate * z * (1.0f - z);
        drow[2 * width + u] = d_candidate;
        drow[3 * width + u] = d_reset * r;
        later[u] = d_old * z;
    }
}

/* row: activations. drow: gradient of W_ih x + b_ih, whose first two thirds are also that of W_hh h + b_hh, and then the
 * last third of the latter. later: gradient of h from the later step on entry; on return the part of the step before's
 * that does not come through W_hh. factors: of the products inside the cell, or NULL. */
INLINE void gru_row_backward(const float *row, const float *kept, const float *before, const float *from_out,
                             float *drow, float *later, const float *factors, ptrdiff_t width) {
    if (factors) gru_units_backward(row, kept, before, from_out, drow, later, factors, width, 1);
    else gru_units_backward(row, kept, before, from_out, drow, later, NULL, width, 0);
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
