/* The noisy recurrence of K networks over all time steps, forward and backward.
 *
 * The definition is run_reference in reference.py; the random numbers are those of asr_dni/philox.py.
 * Matrices are row-major float, one row a sample; a row of gates holds the gates one after another. A thread takes a
 * block of rows of one network through all steps without waiting for the others: rows do not meet inside a recurrence.
 * Every number is summed in an order of its own, so results do not depend on the blocks, the threads or K.
 */
#include <omp.h>

#include "cells.h"
#include "products.h"

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
