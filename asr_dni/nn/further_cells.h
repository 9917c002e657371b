/* One row of a batch through one step of the cells that torch does not have, forward and backward; see cells.py. */
#ifndef ASR_DNI_FURTHER_CELLS_H
#define ASR_DNI_FURTHER_CELLS_H
#include "cells.h"

/* own: what a gate sees of the cell's state, of i, f and o. Otherwise as lstm_row. */
INLINE void peephole_units(const float *clean, float *row, const float *own, const float *before, float *cell,
                           float *out, ptrdiff_t width, const row_noise *noise, const int kind) {
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) {
        float i = sigmoid(clean[u] + noisy_product(own[u] * before[u], kind, noise, u));
        float f = sigmoid(clean[width + u] + noisy_product(own[width + u] * before[u], kind, noise, width + u));
        float g = tanh_(clean[2 * width + u]);
        float state =
            noisy_product(f * before[u], kind, noise, 2 * width + u) + noisy_product(i * g, kind, noise, 3 * width + u);
        float seen = noisy_product(own[2 * width + u] * state, kind, noise, 4 * width + u);
        float o = sigmoid(clean[3 * width + u] + seen);
        row[u] = i, row[width + u] = f, row[2 * width + u] = g, row[3 * width + u] = o;
        cell[u] = state;
        out[u] = noisy_product(o * tanh_(state), kind, noise, 5 * width + u);
    }
}

INLINE void peephole_row(float *clean, float *row, const float *own, const float *before, float *cell, float *out,
                         ptrdiff_t width, const row_noise *noise) {
    add_noise_at_input(clean, width, 4, noise);
    add_noise_at_recurrent(clean, width, 4, noise);
    /* Six products have more numbers than a counter: they are always drawn outside. */
    if (noise->factors) peephole_units(clean, row, own, before, cell, out, width, noise, SCALED);
    else peephole_units(clean, row, own, before, cell, out, width, noise, EXACT);
}

INLINE void peephole_units_backward(const float *row, float *drow, const float *own, float *d_own, const float *before,
                                    const float *cell, const float *from_out, const float *from_later, float *dcell,
                                    const float *factors, ptrdiff_t width, const int scaled) {
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) {
        float i = row[u], f = row[width + u], g = row[2 * width + u], o = row[3 * width + u];
        float t = tanh_(cell[u]), grad = (from_out[u] + from_later[u]) * factor_at(factors, 5 * width + u, scaled);
        float d_o = grad * t * o * (1.0f - o), seen_o = d_o * factor_at(factors, 4 * width + u, scaled);
        float d = dcell[u] + grad * o * (1.0f - t * t) + seen_o * own[2 * width + u];
        float d_kept = d * factor_at(factors, 2 * width + u, scaled);
        float d_new = d * factor_at(factors, 3 * width + u, scaled);
        float d_i = d_new * g * i * (1.0f - i), seen_i = d_i * factor_at(factors, u, scaled);
        float d_f = d_kept * before[u] * f * (1.0f - f), seen_f = d_f * factor_at(factors, width + u, scaled);
        drow[u] = d_i, drow[width + u] = d_f, drow[2 * width + u] = d_new * i * (1.0f - g * g);
        drow[3 * width + u] = d_o;
        d_own[u] += seen_i * before[u], d_own[width + u] += seen_f * before[u];
        d_own[2 * width + u] += seen_o * cell[u];
        dcell[u] = d_kept * f + seen_i * own[u] + seen_f * own[width + u];
    }
}

/* d_own: sums of the gradients of own. Otherwise as lstm_row_backward. */
INLINE void peephole_row_backward(const float *row, float *drow, const float *own, float *d_own, const float *before,
                                  const float *cell, const float *from_out, const float *from_later, float *dcell,
                                  const float *factors, ptrdiff_t width) {
    if (factors)
        peephole_units_backward(row, drow, own, d_own, before, cell, from_out, from_later, dcell, factors, width, 1);
    else
        peephole_units_backward(row, drow, own, d_own, before, cell, from_out, from_later, dcell, NULL, width, 0);
}

INLINE void mgu_units(const float *inward, const float *hidden, float *row, const float *before, float *kept,
                      float *out, ptrdiff_t width, const row_noise *noise, const int kind) {
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) {
        float f = sigmoid(inward[u] + hidden[u]);
        float candidate = tanh_(inward[width + u] + noisy_product(f * hidden[width + u], kind, noise, u));
        float old = before[u];
        row[u] = f, row[width + u] = candidate, kept[u] = hidden[width + u];
        out[u] = noisy_product((1.0f - f) * old, kind, noise, width + u) +
                 noisy_product(f * candidate, kind, noise, 2 * width + u);
    }
}

/* As gru_row, of gates f and n. */
INLINE void mgu_row(float *inward, float *hidden, float *row, const float *before, float *kept, float *out,
                    ptrdiff_t width, int joint, const row_noise *noise) {
    if (joint)
        add_lanes((float *const[4]){inward, inward + width, hidden + width, hidden},
                  (const ptrdiff_t[4]){width, width, width, 0}, width, noise->noise->input, noise->sample, noise->step,
                  noise->drawn.input);
    else
        add_noise_at_input(inward, width, 2, noise);
    add_noise_at_recurrent(hidden, width, 2, noise);
    const int kind = noise_of_products(noise, width, 3);
    if (kind == EXACT) mgu_units(inward, hidden, row, before, kept, out, width, noise, EXACT);
    else if (kind == ADDED_TO) mgu_units(inward, hidden, row, before, kept, out, width, noise, ADDED_TO);
    else mgu_units(inward, hidden, row, before, kept, out, width, noise, SCALED);
}

/* As gru_row_backward. */
INLINE void mgu_row_backward(const float *row, const float *kept, const float *before, const float *from_out,
                             float *drow, float *later, const float *factors, ptrdiff_t width) {
    const int scaled = factors != NULL;
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) {
        float f = row[u], candidate = row[width + u], grad = from_out[u] + later[u];
        float d_old = grad * factor_at(factors, width + u, scaled);
        float d_new = grad * factor_at(factors, 2 * width + u, scaled);
        float d_candidate = d_new * f * (1.0f - candidate * candidate);
        float d_reset = d_candidate * factor_at(factors, u, scaled);
        drow[u] = (d_new * candidate - d_old * before[u] + d_reset * kept[u]) * f * (1.0f - f);
        drow[width + u] = d_candidate;
        drow[2 * width + u] = d_reset * f;
        later[u] = d_old * (1.0f - f);
    }
}

INLINE void fastgrnn_units(const float *clean, float *row, const float *own, const float *before, float *kept,
                           float *out, ptrdiff_t width, const row_noise *noise, const int kind) {
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) {
        float z = sigmoid(clean[u] + own[u]), update = tanh_(clean[u] + own[width + u]), old = before[u];
        float share = sigmoid(own[2 * width + u]) * (1.0f - z) + sigmoid(own[3 * width + u]);
        row[u] = z, kept[u] = update;
        out[u] = noisy_product(share * update, kind, noise, u) + noisy_product(z * old, kind, noise, width + u);
    }
}

/* clean: pre-activation. own: bias_z, bias_h, zeta, nu, the latter the same for all units. row: z, which may be `clean`;
 * kept: the update. */
INLINE void fastgrnn_row(float *clean, float *row, const float *own, const float *before, float *kept, float *out,
                         ptrdiff_t width, const row_noise *noise) {
    add_noise_at_input(clean, width, 1, noise);
    add_noise_at_recurrent(clean, width, 1, noise);
    const int kind = noise_of_products(noise, width, 2);
    if (kind == EXACT) fastgrnn_units(clean, row, own, before, kept, out, width, noise, EXACT);
    else if (kind == ADDED_TO) fastgrnn_units(clean, row, own, before, kept, out, width, noise, ADDED_TO);
    else fastgrnn_units(clean, row, own, before, kept, out, width, noise, SCALED);
}

INLINE void fastgrnn_row_backward(const float *row, const float *kept, const float *own, float *d_own,
                                  const float *before, const float *from_out, float *drow, float *later,
                                  const float *factors, ptrdiff_t width) {
    const int scaled = factors != NULL;
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) {
        float z = row[u], update = kept[u], grad = from_out[u] + later[u];
        float zeta = sigmoid(own[2 * width + u]), nu = sigmoid(own[3 * width + u]);
        float d_new = grad * factor_at(factors, u, scaled), d_old = grad * factor_at(factors, width + u, scaled);
        float d_share = d_new * update;
        float d_z = (d_old * before[u] - d_share * zeta) * z * (1.0f - z);
        float d_update = d_new * (zeta * (1.0f - z) + nu) * (1.0f - update * update);
        drow[u] = d_z + d_update;
        d_own[u] += d_z, d_own[width + u] += d_update;
        d_own[2 * width + u] += d_share * (1.0f - z) * zeta * (1.0f - zeta);
        d_own[3 * width + u] += d_share * nu * (1.0f - nu);
        later[u] = d_old * z;
    }
}

#endif
