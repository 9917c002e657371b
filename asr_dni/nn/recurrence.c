/* The noisy recurrence of K networks over all time steps, forward and backward.
 *
 * The definition is run_reference in reference.py; the random numbers are those of asr_dni/philox.py.
 * Matrices are row-major float, one row a sample; a row of gates holds the gates one after another. A thread takes a
 * block of rows of one network through all steps without waiting for the others: rows do not meet inside a recurrence.
 * Every number is summed in an order of its own, so results do not depend on the blocks, the threads or K.
 */
#include <omp.h>

#include "further_cells.h"
#include "operations.h"
#include "products.h"

/* Blocks of counters whose numbers there is room for on the stack. */
enum { FEW = 4 };

/* How many networks from k on have the numbers of network k. */
INLINE ptrdiff_t same_numbers(const site_noise *noise, const int64_t *const *samples, ptrdiff_t networks, ptrdiff_t k) {
    ptrdiff_t last = k + 1;
    while (last < networks && samples[last] == samples[k] && same_key(noise[last], noise[k])) last++;
    return last - k;
}

/* out: (networks, steps, rows, groups * width). */
void draw_gaussian(float *out, ptrdiff_t networks, ptrdiff_t steps, ptrdiff_t rows, ptrdiff_t width, int groups,
                   const site_noise *noise, const int64_t *const *samples, int64_t first_step) {
    const ptrdiff_t size = groups * width, counters = counters_of(width, groups);
#pragma omp parallel for schedule(static) if (networks * steps * rows * size > 16384)
    for (ptrdiff_t at = 0; at < steps * rows; at++) {
        const uint32_t step = (uint32_t)(first_step + at / rows);
        normals numbers[FEW];
        for (ptrdiff_t k = 0, alike; k < networks; k += alike) {
            const int64_t sample = samples[k][at % rows];
            alike = same_numbers(noise, samples, networks, k);
            const normals *drawn = alike > 1 && blocks_of_normals(counters) <= FEW ? numbers : NULL;
            if (drawn) draw_normals(numbers, counters, noise[k], sample, step);
            for (ptrdiff_t other = k; other < k + alike; other++) {
                float *row = out + (other * steps * rows + at) * size;
                for (ptrdiff_t u = 0; u < size; u++) row[u] = 0.0f;
                add_noise(row, width, groups, of_row(noise[other], at % rows), sample, step, drawn);
            }
        }
    }
}

enum { RNN_TANH, RNN_RELU, LSTM, GRU, PEEPHOLE, MGU, FASTGRNN }; /* the order is that of CELLS in native.py */

/* Of an array: with W_ih, with W_hh, or with both, where outputs of a gate that a cell keeps apart are there twice, as
 * gradients of pre-activations are. */
enum { INWARD, HIDDEN, BOTH };

typedef struct {
    int32_t kind;
    int32_t first, count; /* of the operations on its outputs, among those of a network */
    int32_t noted;        /* where clipping is noted in a row of `passed`; -1: nothing is clipped */
} array;

/* Columns of W_ih or of W_hh that lie on one array. */
typedef struct {
    int32_t array, of_hidden; /* of at most one piece of each matrix */
    int64_t first, columns;
} piece;

/* K networks, T steps, N rows, F features, H units, G gates. Where there are no inputs their projection is given.
 * `kept` is c (LSTMs), W_hn h + b_hn and its noise (GRU, MGU) or the update (FastGRNN). Where the activations are not kept, `kept` has one step only,
 * which every step overwrites, and gates and passed are NULL.
 * Without arrays all that happens to the outputs of both matrices is the Gaussian noise of `noise`. */
typedef struct {
    int64_t networks, steps, rows, features, width, first_step, noted; /* noted: width of `passed` */
    int32_t cell, joint, keep;
    int32_t shared, repeated; /* one input or projection for all networks; one set of weights, only forward */
    int32_t threads;
    int32_t n_arrays, n_pieces, n_operations;   /* operations of each network */
    int32_t kernel;                             /* of the products */
    const float *inputs;                      /* (K, T, N, F) or NULL; all that is shared is without K */
    const float *w_ih, *b_ih;                 /* (K, G H, F), (K, G H) or NULL */
    const float *projection;                  /* (K, T, N, G H) or NULL */
    const float *w_hh, *b_hh;                 /* (K, G H, H), (K, G H) or NULL */
    const float *own;                         /* (K, OWN, H), the cell's own parameters, or NULL */
    const float *h, *c;                       /* (K, N, H), before the first step */
    float *outputs, *gates, *kept;            /* (K, T, N, H), (K, T, N, G H), (K, T, N, H) */
    uint8_t *passed;                          /* (K, T, N, noted), which outputs of arrays were not clipped, or NULL */
    const layer_noise *noise;                 /* (K) */
    const array *arrays;                      /* (n_arrays) */
    const piece *pieces;                      /* (n_pieces); without arrays all of W_hh, then all of W_ih, if any */
    const operation *operations;              /* (K, n_operations) */
    const converter *dac;                     /* (K, 2), of x and of h */
    const int64_t *const *samples;            /* K pointers to (N) */
    const int64_t *lengths;                   /* (K, N), after which a row's outputs are 0 and its c stays; NULL: T */
    float *packed, *scratch, *sums;           /* see scratch_sizes */
    const float *d_outputs;                   /* (K, T, N, H) */
    float *d_inputs, *d_projection;           /* (K, T, N, F), (K, T, N, G H), or NULL where they are not wanted */
    float *d_w_ih, *d_b_ih, *d_w_hh, *d_b_hh; /* shaped as what they are gradients of, or NULL */
    float *d_own;                             /* (K, OWN, H), or NULL */
    float *dh, *dc;                           /* (K, N, H) */
    array inside;                             /* the products inside the cell, where they have more than Gaussian noise */
} recurrence;

static const int GATES[] = {1, 1, 4, 3, 4, 2, 1};
/* Gradients of pre-activations: a GRU's or MGU's n gate has two. */
static const int GRADIENTS[] = {1, 1, 4, 4, 4, 3, 1};
/* Products inside the cell. */
static const int INSIDE[] = {0, 0, 3, 3, 6, 3, 2};
/* Rows of H numbers that are the cell's own parameters. */
static const int OWN[] = {0, 0, 0, 0, 3, 0, 4};

INLINE int is_plain(const recurrence *p) { return p->cell == RNN_TANH || p->cell == RNN_RELU; }

INLINE int has_cell_state(const recurrence *p) { return p->cell == LSTM || p->cell == PEEPHOLE; }

/* Whether the cell keeps its last gate's two parts apart. */
INLINE int keeps_apart(const recurrence *p) { return GRADIENTS[p->cell] > GATES[p->cell]; }

/* Whether a step's h goes into the next one by another way than W_hh. */
INLINE int has_direct_way(const recurrence *p) { return !is_plain(p) && !has_cell_state(p); }

/* Rows of a block: few enough for a step of them to stay near the core; of networks that have their numbers in common, for
 * a step of all of them. */
enum { BLOCK_ROWS = 192, BLOCK_ROWS_ALIKE = 64 };
/* Rows that one product for the weight gradients sums over. */
enum { CHUNK_ROWS = 256 };
/* Units whose weight gradients are written at once. */
enum { UNITS = 16 };

INLINE int same_noise(const layer_noise *a, const layer_noise *b) {
    return same_key(a->input, b->input) && same_key(a->recurrent, b->recurrent) &&
           same_key(a->elementwise, b->elementwise);
}

/* How many networks from k on have weights and random numbers in common with network k, and differ in the strengths of
 * their noise at most: these go through the steps together. */
INLINE ptrdiff_t alike_from(const recurrence *p, ptrdiff_t k) {
    ptrdiff_t last = k + 1;
    while (p->repeated && !p->n_arrays && last < p->networks && p->samples[last] == p->samples[k] &&
           same_noise(p->noise + last, p->noise + k))
        last++;
    return last - k;
}

/* Networks, of which those that go together count once. */
INLINE ptrdiff_t teams_of(const recurrence *p) {
    if (!p->repeated) return p->networks;
    ptrdiff_t teams = 0;
    for (ptrdiff_t k = 0; k < p->networks; k += alike_from(p, k)) teams++;
    return teams;
}

/* Blocks of rows for each network, so that all threads have as much to do. */
INLINE ptrdiff_t blocks_of(const recurrence *p) {
    const ptrdiff_t teams = teams_of(p), room = teams < p->networks ? BLOCK_ROWS_ALIKE : BLOCK_ROWS;
    ptrdiff_t blocks = (p->rows + room - 1) / room, most = (p->rows + ROWS - 1) / ROWS;
    if (teams % p->threads != 0 && teams < 8 * p->threads) blocks = rounded(blocks, p->threads);
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

/* Floats of a packed piece of one network. */
INLINE ptrdiff_t packed_piece(const recurrence *p, int backward, const piece *its) {
    ptrdiff_t gates = GATES[p->cell] * p->width;
    if (!backward) return packed_size(p->kernel, its->columns, gates);
    return its->of_hidden || p->d_inputs ? packed_size(p->kernel, gates, its->columns) : 0;
}

/* Whether the products of x and of h are one, whose panels have the rows of W_ih's and then those of W_hh's: of factors in
 * bfloat16, where storing sums takes as long as making them. */
INLINE int is_one_product(const recurrence *p, int backward) {
    return p->kernel != FLOAT32 && !backward && !p->n_arrays && p->inputs && !keeps_apart(p);
}

/* Floats of the packed pieces of one network that come before one of them. */
INLINE ptrdiff_t packed_before(const recurrence *p, int backward, ptrdiff_t piece) {
    ptrdiff_t size = 0;
    for (ptrdiff_t j = 0; j < piece; j++) size += packed_piece(p, backward, p->pieces + j);
    return size;
}

/* Numbers that an array gives for a row. */
INLINE int groups_of(const recurrence *p, const array *its) {
    return its->kind == BOTH ? GRADIENTS[p->cell] : GATES[p->cell];
}

/* Floats of what a product needs for a few of its rows. */
INLINE ptrdiff_t block_of_thread(const recurrence *p) {
    const ptrdiff_t gates = GATES[p->cell] * p->width, both = rounded(p->features, DEPTH) + rounded(p->width, DEPTH);
    const ptrdiff_t deepest = gates > both ? gates : both;
    return block_size(p->kernel, deepest > CHUNK_ROWS ? deepest : CHUNK_ROWS);
}

/* Floats of a panel of W_ih and W_hh one above the other. */
INLINE ptrdiff_t panel_of_both(const recurrence *p) {
    return panel_size(p->kernel, p->features) + panel_size(p->kernel, p->width);
}

/* Floats of the biases of all gates, in whole panels. */
INLINE ptrdiff_t biases_of_thread(const recurrence *p) { return rounded(GATES[p->cell] * p->width, PANEL); }

/* Floats of what went into the products for `room` rows, before one of the pieces. */
INLINE ptrdiff_t turned_before(const recurrence *p, ptrdiff_t room, ptrdiff_t piece) {
    ptrdiff_t size = 0;
    for (ptrdiff_t j = 0; j < piece; j++) size += transposed_size(p->kernel, p->pieces[j].columns, room);
    return size;
}

/* Floats of the packed gradients of `room` rows. */
INLINE ptrdiff_t packed_gradients(const recurrence *p, ptrdiff_t room) {
    return packed_size(p->kernel, room, GRADIENTS[p->cell] * panel_width(p));
}

enum { N_SITES = 3 };

INLINE site_noise noise_at(const layer_noise *its, int site) {
    return site == 0 ? its->input : site == 1 ? its->recurrent : its->elementwise;
}

/* Counters of a row at a site: input, recurrent, elementwise. */
INLINE ptrdiff_t counters_at(const recurrence *p, int site) {
    const int groups = site == 2 ? INSIDE[p->cell] : site == 0 && p->joint ? GRADIENTS[p->cell] : GATES[p->cell];
    return groups < 1 || groups > 4 ? 0 : counters_of(p->width, groups);
}

/* Blocks of numbers of a row at a site that some networks have in common; 0 where none of them has noise. */
INLINE ptrdiff_t normals_at(const recurrence *p, ptrdiff_t k, ptrdiff_t networks, int site) {
    for (ptrdiff_t j = k; j < k + networks; j++)
        if (noise_at(p->noise + j, site).std != 0.0f) return blocks_of_normals(counters_at(p, site));
    return 0;
}

/* Floats of the numbers of a row that networks have in common. */
INLINE ptrdiff_t numbers_of_row(const recurrence *p) {
    ptrdiff_t count = 0;
    for (int site = 0; teams_of(p) < p->networks && site < N_SITES; site++) count += normals_at(p, 0, p->networks, site);
    return count * (ptrdiff_t)(sizeof(normals) / sizeof(float));
}

/* Of whole cache lines, as is what bfloat16 needs: that comes first. */
INLINE ptrdiff_t scratch_of_thread(const recurrence *p, int backward) {
    const ptrdiff_t rows = rows_of_block(p), H = p->width, F = inputs_width(p), D = GRADIENTS[p->cell] * H;
    const ptrdiff_t converted = p->n_arrays ? H + F : 0, inside = 2 * INSIDE[p->cell] * H;
    ptrdiff_t size = block_of_thread(p) + inside;
    if (!backward) {
        const ptrdiff_t gates = (keeps_apart(p) ? 2 : 1) * GATES[p->cell] * H;
        size += rows * (gates + converted + (p->n_arrays ? 2 * D : 0) + numbers_of_row(p)) + 2 * biases_of_thread(p);
    } else {
        const ptrdiff_t room = steps_of_chunk(p) * rows, buffers = p->n_arrays > 1 ? 1 + p->n_arrays : 1;
        size += turned_before(p, room, p->n_pieces) + packed_gradients(p, room) + room * buffers * D;
        size += converted + (has_direct_way(p) && p->n_arrays ? rows * H : 0);
    }
    return rounded(size, 16);
}

/* Sums of one block: a row for each unit, each feature and the biases, and the cell's own parameters. */
INLINE ptrdiff_t sums_of_block(const recurrence *p) {
    return (p->width + inputs_width(p) + 1) * GRADIENTS[p->cell] * panel_width(p) + OWN[p->cell] * p->width;
}

INLINE ptrdiff_t sums_before_own(const recurrence *p) { return sums_of_block(p) - OWN[p->cell] * p->width; }

/* Which network's weights those of a network are. */
INLINE ptrdiff_t weights_of(const recurrence *p, ptrdiff_t k) { return p->repeated ? 0 : k; }

INLINE ptrdiff_t sets_of_weights(const recurrence *p) { return p->repeated && p->networks ? 1 : p->networks; }

INLINE const float *packed_of(const recurrence *p, int backward, ptrdiff_t k) {
    return p->packed + weights_of(p, k) * packed_before(p, backward, p->n_pieces);
}

/* A network's part of a bias, which may be NULL. */
INLINE const float *bias_of(const recurrence *p, const float *bias, ptrdiff_t k) {
    return bias ? bias + weights_of(p, k) * GATES[p->cell] * p->width : NULL;
}

INLINE const float *own_of(const recurrence *p, ptrdiff_t k) {
    return p->own ? p->own + weights_of(p, k) * OWN[p->cell] * p->width : NULL;
}

/* Numbers of floats that `packed`, `scratch` and `sums` must have room for. */
void scratch_sizes(const recurrence *p, int backward, int64_t sizes[3]) {
    sizes[0] = sets_of_weights(p) * packed_before(p, backward, p->n_pieces);
    sizes[1] = p->threads * scratch_of_thread(p, backward);
    sizes[2] = backward ? p->networks * blocks_of(p) * sums_of_block(p) : 0;
}

INLINE const float *inputs_of(const recurrence *p, ptrdiff_t k, ptrdiff_t t, ptrdiff_t row) {
    return p->inputs + (((p->shared ? 0 : k) * p->steps + t) * p->rows + row) * p->features;
}

INLINE const float *projection_of(const recurrence *p, ptrdiff_t k, ptrdiff_t t, ptrdiff_t row) {
    return p->projection + (((p->shared ? 0 : k) * p->steps + t) * p->rows + row) * GATES[p->cell] * p->width;
}

/* The state h before step t. */
INLINE const float *hidden_before(const recurrence *p, ptrdiff_t k, ptrdiff_t t, ptrdiff_t row) {
    return t ? p->outputs + ((k * p->steps + t - 1) * p->rows + row) * p->width
             : p->h + (k * p->rows + row) * p->width;
}

INLINE int is_over(const recurrence *p, ptrdiff_t k, ptrdiff_t t, ptrdiff_t row) {
    return p->lengths && t >= p->lengths[k * p->rows + row];
}

INLINE place place_of(const recurrence *p, ptrdiff_t k, ptrdiff_t t, ptrdiff_t row) {
    return (place){.t = t, .n = row, .sample = p->samples[k][row], .step = (uint32_t)(p->first_step + t)};
}

INLINE const operation *operations_of(const recurrence *p, ptrdiff_t k, const array *its) {
    return p->operations + k * p->n_operations + its->first;
}

/* Where an array's clipping of a row is noted. */
INLINE uint8_t *noted_at(const recurrence *p, const array *its, ptrdiff_t k, ptrdiff_t t, ptrdiff_t row) {
    if (!p->passed || its->noted < 0) return NULL;
    return p->passed + ((k * p->steps + t) * p->rows + row) * p->noted + its->noted;
}

/* The factors that affine operations have for the products inside a cell, and with `added` what they and noise add. */
INLINE const float *inside_cell(const recurrence *p, ptrdiff_t k, place at, float *factors, float *added) {
    if (!p->inside.count) return NULL;
    const ptrdiff_t products = INSIDE[p->cell] * p->width;
    const operation *its = operations_of(p, k, &p->inside);
    for (ptrdiff_t u = 0; u < products; u++) factors[u] = 1.0f;
    pull_back_operations(its, p->inside.count, factors, products, at, NULL);
    if (added) {
        for (ptrdiff_t u = 0; u < products; u++) added[u] = 0.0f;
        apply_operations(its, p->inside.count, added, p->width, INSIDE[p->cell], at, NULL);
    }
    return factors;
}

/* ---- Forward ---------------------------------------------------------------------------------------------------- */

/* What a block of rows works with. */
typedef struct {
    float *inward, *hidden;     /* (rows, G): parts of the pre-activations; one and the same where they only add up */
    float *outputs, *of_hidden; /* (rows, D): of an array, and of W_hh on an array of both */
    float *inputs, *state;      /* (rows, F), (rows, H): what a DAC gives */
    float *block;               /* of products */
    float *b_ih, *b_hh;         /* (G) in whole panels */
    normals *numbers;             /* (rows, those of the sites): random numbers that several networks have in common */
    ptrdiff_t blocks[N_SITES];  /* of a row; all 0 where there are none */
} forward_rows;

/* x or h as it goes into the arrays. */
INLINE const float *through_dac(const float *from, float *to, ptrdiff_t numbers, converter dac) {
    if (dac.step == 0.0f) return from;
    convert_row(from, to, numbers, dac);
    return to;
}

INLINE void add_row(float *to, const float *from, ptrdiff_t width) {
#pragma omp simd
    for (ptrdiff_t u = 0; u < width; u++) to[u] += from[u];
}

/* The clean outputs of an array for a block of rows. Returns which matrices it has: 1, W_ih; 2, W_hh. */
static int outputs_of_array(const recurrence *p, ptrdiff_t number, ptrdiff_t k, ptrdiff_t t, ptrdiff_t first,
                            ptrdiff_t rows, const float *x, const float *h, const forward_rows *to) {
    const array *its = p->arrays + number;
    const ptrdiff_t H = p->width, G = GATES[p->cell] * H, width = groups_of(p, its) * H;
    const int split = its->kind == BOTH && keeps_apart(p);
    const float *packed = packed_of(p, 0, k);
    float *out = to->outputs;
    int matrices = 0;
    if (split)
        for (ptrdiff_t j = 0; j < rows * width; j++) out[j] = 0.0f;
    if (p->projection && its->kind != HIDDEN) {
        const float *from = projection_of(p, k, t, first);
        for (ptrdiff_t n = 0; n < rows; n++)
            for (ptrdiff_t u = 0; u < G; u++) out[n * width + u] = from[n * G + u];
        matrices = 1;
    }
    for (ptrdiff_t j = 0; j < p->n_pieces; j++) {
        const piece *part = p->pieces + j;
        if (part->array != number) continue;
        product sum = {.a = (part->of_hidden ? h : x) + part->first, .b = packed + packed_before(p, 0, j),
                       .add = matrices ? out : NULL, .out = out, .a_stride = part->of_hidden ? H : p->features,
                       .b_stride = panel_size(p->kernel, part->columns), .out_stride = width, .rows = rows,
                       .depth = part->columns, .columns = G, .block = to->block};
        if (split && part->of_hidden) { /* the gate that is kept apart comes after those of W_ih */
            sum.add = NULL, sum.out = to->of_hidden, sum.out_stride = G;
            multiply(p->kernel, &sum);
            for (ptrdiff_t n = 0; n < rows; n++) {
                add_row(out + n * width, to->of_hidden + n * G, G - H);
                add_row(out + n * width + G, to->of_hidden + n * G + G - H, H);
            }
        } else {
            multiply(p->kernel, &sum);
        }
        matrices |= part->of_hidden ? 2 : 1;
    }
    return matrices;
}

/* The pre-activations of a block of rows, of matrices on arrays: what comes out of each array, and the biases. */
static void gates_on_arrays(const recurrence *p, ptrdiff_t k, ptrdiff_t t, ptrdiff_t first, ptrdiff_t rows,
                            const forward_rows *to) {
    const ptrdiff_t H = p->width, F = p->features, G = GATES[p->cell] * H;
    const int apart = keeps_apart(p);
    const float *b_ih = bias_of(p, p->b_ih, k), *b_hh = bias_of(p, p->b_hh, k);
    const float *h = through_dac(hidden_before(p, k, t, first), to->state, rows * H, p->dac[2 * k + 1]);
    const float *x = p->inputs ? through_dac(inputs_of(p, k, t, first), to->inputs, rows * F, p->dac[2 * k]) : NULL;
    for (ptrdiff_t a = 0; a < p->n_arrays; a++) {
        const array *its = p->arrays + a;
        const operation *operations = operations_of(p, k, its);
        const int groups = groups_of(p, its), matrices = outputs_of_array(p, a, k, t, first, rows, x, h, to);
        for (ptrdiff_t n = 0; n < rows; n++) {
            float *row = to->outputs + n * groups * H, *inward = to->inward + n * G, *hidden = to->hidden + n * G;
            if (a == 0) {
                for (ptrdiff_t u = 0; u < G; u++) hidden[u] = b_hh ? b_hh[u] : 0.0f;
                if (apart)
                    for (ptrdiff_t u = 0; u < G; u++) inward[u] = b_ih ? b_ih[u] : 0.0f;
                else if (b_ih)
                    add_row(inward, b_ih, G);
            }
            apply_operations(operations, its->count, row, H, groups, place_of(p, k, t, first + n),
                             noted_at(p, its, k, t, first + n));
            if (its->kind == BOTH && apart) {
                /* What has no weights on this array gives nothing. */
                add_row(inward, row, G - H);
                if (matrices & 1) add_row(inward + G - H, row + G - H, H);
                if (matrices & 2) add_row(hidden + G - H, row + G, H);
            } else {
                add_row(its->kind == HIDDEN ? hidden : inward, row, G);
            }
        }
    }
}

/* The same where all that the matrices' outputs will have is Gaussian noise, which the cells' rows add. */
static void gates_exact(const recurrence *p, ptrdiff_t k, ptrdiff_t t, ptrdiff_t first, ptrdiff_t rows,
                        const forward_rows *to) {
    const ptrdiff_t H = p->width, F = p->features, G = GATES[p->cell] * H;
    const float *packed = packed_of(p, 0, k);
    product from_inputs = {.a = p->inputs ? inputs_of(p, k, t, first) : NULL, .b = packed + packed_before(p, 0, 1),
                           .bias = to->b_ih, .out = to->inward, .a_stride = F,
                           .b_stride = panel_size(p->kernel, F), .out_stride = G, .rows = rows, .depth = F,
                           .columns = G, .block = to->block};
    product from_hidden = {.a = hidden_before(p, k, t, first), .b = packed, .bias = to->b_hh, .out = to->hidden,
                           .a_stride = H, .b_stride = panel_size(p->kernel, H), .out_stride = G, .rows = rows,
                           .depth = H, .columns = G, .block = to->block};
    if (is_one_product(p, 0)) {
        from_inputs.b = packed, from_hidden.b = packed + panel_size(p->kernel, F);
        from_inputs.b_stride = from_hidden.b_stride = panel_of_both(p);
        from_hidden.ahead = &from_inputs;
    } else if (p->inputs) {
        multiply(p->kernel, &from_inputs);
        if (!keeps_apart(p)) from_hidden.add = to->inward;
    } else if (keeps_apart(p)) {
        for (ptrdiff_t j = 0; j < rows * G; j++) to->inward[j] = projection_of(p, k, t, first)[j];
    } else {
        from_hidden.add = projection_of(p, k, t, first);
    }
    multiply(p->kernel, &from_hidden);
}

/* Lay out the biases of a network in whole panels. */
static void fill_biases(const recurrence *p, ptrdiff_t k, const forward_rows *to) {
    const ptrdiff_t G = GATES[p->cell] * p->width;
    const float *b_ih = bias_of(p, p->b_ih, k), *b_hh = bias_of(p, p->b_hh, k);
    for (ptrdiff_t u = 0; u < biases_of_thread(p); u++) {
        to->b_ih[u] = b_ih && u < G ? b_ih[u] : 0.0f;
        to->b_hh[u] = b_hh && u < G ? b_hh[u] : 0.0f;
    }
}

/* Where the numbers of a row at a site are, of those that networks have in common; NULL: there are none. */
INLINE normals *numbers_at_site(const forward_rows *its, ptrdiff_t row, int site) {
    const ptrdiff_t *count = its->blocks, before = site == 0 ? 0 : site == 1 ? count[0] : count[0] + count[1];
    return count[site] ? its->numbers + row * (count[0] + count[1] + count[2]) + before : NULL;
}

/* One step of a block of rows of one network. */
static void forward_step(const recurrence *p, ptrdiff_t k, ptrdiff_t t, ptrdiff_t first, ptrdiff_t rows,
                         const forward_rows *its, float *products, float *factors) {
    const ptrdiff_t T = p->steps, N = p->rows, H = p->width, G = GATES[p->cell] * H;
    float *block = its->hidden, *inward = its->inward;
    forward_rows to = *its;
    layer_noise its_noise;
    row_noise noise = {.noise = &its_noise, .products = products};
    const float *own = own_of(p, k);
    const ptrdiff_t at = (k * T + t) * N + first, slot = p->keep ? at : k * N + first;
    const float *before = hidden_before(p, k, t, first), *cell_before = NULL;
    float *out = p->outputs + at * H, *kept = p->kept ? p->kept + slot * H : NULL;
    if (is_plain(p)) to.hidden = to.inward = out;
    if (p->n_arrays)
        gates_on_arrays(p, k, t, first, rows, &to);
    else
        gates_exact(p, k, t, first, rows, &to);
    if (has_cell_state(p)) cell_before = t ? (p->keep ? kept - N * H : kept) : p->c + (k * N + first) * H;
    for (ptrdiff_t n = 0; n < rows; n++) {
        if (is_over(p, k, t, first + n)) {
            for (ptrdiff_t u = 0; u < H; u++) out[n * H + u] = 0.0f;
            for (ptrdiff_t u = 0; cell_before && u < H; u++) kept[n * H + u] = cell_before[n * H + u];
            continue;
        }
        const place here = place_of(p, k, t, first + n);
        noise.sample = here.sample, noise.step = here.step;
        its_noise = noise_of_row(p->noise + k, first + n);
        noise.drawn.input = numbers_at_site(its, n, 0);
        noise.drawn.recurrent = numbers_at_site(its, n, 1);
        noise.drawn.elementwise = numbers_at_site(its, n, 2);
        noise.factors = inside_cell(p, k, here, factors, products);
        float *clean = block + n * G, *its_inward = inward + n * G, *its_out = out + n * H;
        float *row = p->keep && p->gates ? p->gates + (at + n) * G : its_inward;
        if (p->cell == LSTM) {
            lstm_row(clean, row, cell_before + n * H, kept + n * H, its_out, H, &noise);
        } else if (p->cell == PEEPHOLE) {
            peephole_row(clean, row, own, cell_before + n * H, kept + n * H, its_out, H, &noise);
        } else if (p->cell == GRU) {
            gru_row(its_inward, clean, row, before + n * H, kept + n * H, its_out, H, p->joint, &noise);
        } else if (p->cell == MGU) {
            mgu_row(its_inward, clean, row, before + n * H, kept + n * H, its_out, H, p->joint, &noise);
        } else if (p->cell == FASTGRNN) {
            fastgrnn_row(clean, row, own, before + n * H, kept + n * H, its_out, H, &noise);
        } else {
            rnn_row(out + n * H, H, p->cell == RNN_RELU, &noise);
        }
    }
}

/* A block of rows of some networks that go together. */
static void forward_block(const recurrence *p, ptrdiff_t k, ptrdiff_t networks, ptrdiff_t first, ptrdiff_t rows,
                          float *scratch) {
    const ptrdiff_t H = p->width, G = GATES[p->cell] * H, D = p->n_arrays ? GRADIENTS[p->cell] * H : 0;
    float *products = scratch + block_of_thread(p), *factors = products + INSIDE[p->cell] * H;
    float *block = factors + INSIDE[p->cell] * H;
    float *inward = keeps_apart(p) ? block + rows * G : block;
    forward_rows to = {.inward = inward, .hidden = block, .outputs = inward + rows * G, .block = scratch};
    to.of_hidden = to.outputs + rows * D, to.inputs = to.of_hidden + rows * D;
    to.state = to.inputs + (p->n_arrays ? rows * inputs_width(p) : 0);
    to.b_ih = to.state + (p->n_arrays ? rows * H : 0), to.b_hh = to.b_ih + biases_of_thread(p);
    to.numbers = (normals *)(to.b_hh + biases_of_thread(p));
    fill_biases(p, k, &to);
    for (int site = 0; networks > 1 && site < N_SITES; site++) to.blocks[site] = normals_at(p, k, networks, site);
    for (ptrdiff_t t = 0; t < p->steps; t++) {
        for (ptrdiff_t j = 0; j < rows * N_SITES; j++) {
            normals *numbers = numbers_at_site(&to, j / N_SITES, j % N_SITES);
            const place at = place_of(p, k, t, first + j / N_SITES);
            const site_noise noise = noise_at(p->noise + k, j % N_SITES);
            if (numbers) draw_normals(numbers, counters_at(p, j % N_SITES), noise, at.sample, at.step);
        }
        for (ptrdiff_t j = k; j < k + networks; j++) forward_step(p, j, t, first, rows, &to, products, factors);
    }
}

/* ---- Backward --------------------------------------------------------------------------------------------------- */

/* What a block of rows works with: a chunk of `room` rows of several steps, of which all weight gradients are summed at
 * once. */
typedef struct {
    ptrdiff_t room;
    float *gradients; /* (room, D): of the pre-activations */
    float *of_arrays; /* (n_arrays, room, D): of the outputs of each array; `gradients` where there are no two arrays */
    float *turned;    /* what went into the products, piece by piece, packed */
    float *panels;    /* (room, D), packed */
    float *block;     /* of products */
    float *inputs, *state, *products, *factors; /* a row each */
    float *of_state;  /* (rows, H) */
} chunk;

/* The gradients of an array's outputs that begin with a row of the chunk. */
INLINE float *of_array(const recurrence *p, const chunk *c, ptrdiff_t number, ptrdiff_t row) {
    const ptrdiff_t width = (p->n_arrays > 1 ? groups_of(p, p->arrays + number) : GRADIENTS[p->cell]) * p->width;
    return c->of_arrays + number * c->room * GRADIENTS[p->cell] * p->width + row * width;
}

INLINE ptrdiff_t width_of_array(const recurrence *p, ptrdiff_t number) {
    return (p->n_arrays ? groups_of(p, p->arrays + number) : GRADIENTS[p->cell]) * p->width;
}

/* Where W_hh's part of the gate that the cell keeps apart, or else of the last gate, is among an array's outputs. */
INLINE ptrdiff_t last_gate_of_hidden(const recurrence *p, ptrdiff_t number) {
    const int twice = keeps_apart(p) && (!p->n_arrays || p->arrays[number].kind == BOTH);
    return (GATES[p->cell] - !twice) * p->width;
}

/* Make a row of gradients of pre-activations one of what came out of each array, before its operations. */
static void pull_back_arrays(const recurrence *p, ptrdiff_t k, ptrdiff_t t, ptrdiff_t row, ptrdiff_t at_row,
                             const chunk *c) {
    const ptrdiff_t H = p->width, G = GATES[p->cell] * H, D = GRADIENTS[p->cell] * H;
    const float *from = c->gradients + at_row * D;
    for (ptrdiff_t a = 0; a < p->n_arrays; a++) {
        const array *its = p->arrays + a;
        float *to = of_array(p, c, a, at_row);
        if (to != from) {
            const ptrdiff_t together = its->kind == BOTH ? D : its->kind == INWARD ? G : G - H;
            for (ptrdiff_t u = 0; u < together; u++) to[u] = from[u];
            for (ptrdiff_t u = 0; together < G && u < H; u++) to[together + u] = from[D - H + u];
        }
        pull_back_operations(operations_of(p, k, its), its->count, to, groups_of(p, its) * H, place_of(p, k, t, row),
                             noted_at(p, its, k, t, row));
    }
}

/* Add to the sums for the weight gradients what `count` rows give. */
static void sum_weight_gradients(const recurrence *p, const chunk *c, ptrdiff_t count, float *sums) {
    const ptrdiff_t H = p->width, G = GATES[p->cell], W = panel_width(p), width = GRADIENTS[p->cell] * W;
    for (ptrdiff_t a = 0; a < (p->n_arrays ? p->n_arrays : 1); a++) {
        const float *gradients = of_array(p, c, a, 0);
        const ptrdiff_t outputs = width_of_array(p, a), last = last_gate_of_hidden(p, a) / H;
        for (ptrdiff_t gate = 0; gate < outputs / H; gate++)
            for (ptrdiff_t column = 0; column < H; column += PANEL)
                pack_panel(p->kernel, gradients + gate * H, outputs, 1, count, H, column,
                           c->panels + packed_size(p->kernel, count, gate * W + column));
        for (ptrdiff_t j = 0; j < p->n_pieces; j++) {
            const piece *its = p->pieces + j;
            if (its->array != a) continue;
            float *to = sums + (its->of_hidden ? its->first : H + its->first) * width;
            product to_sums = {.a = c->turned + turned_before(p, c->room, j), .b = c->panels, .add = to, .out = to,
                               .b_stride = panel_size(p->kernel, count), .out_stride = width, .rows = its->columns,
                               .depth = count, .columns = G * W, .packed = c->room, .block = c->block};
            if (its->of_hidden && keeps_apart(p)) {
                to_sums.columns = (G - 1) * W;
                multiply(p->kernel, &to_sums);
                to_sums.b += packed_size(p->kernel, count, last * W), to_sums.out += G * W, to_sums.add = to_sums.out;
                to_sums.columns = W;
            }
            multiply(p->kernel, &to_sums);
        }
    }
}

/* The gradients of what went into the products of a step: of x, and of h, to which the direct way's has been written. */
static void gradients_of_inputs(const recurrence *p, const chunk *c, ptrdiff_t k, ptrdiff_t t, ptrdiff_t first,
                                ptrdiff_t rows, ptrdiff_t at_row, float *dh) {
    const ptrdiff_t H = p->width, F = p->features, G = GATES[p->cell] * H;
    const float *packed = packed_of(p, 1, k);
    const converter *dac = p->dac + 2 * k;
    const int direct = has_direct_way(p), aside = direct && dac[1].step != 0.0f;
    float *d_inputs = p->d_inputs ? p->d_inputs + ((k * p->steps + t) * p->rows + first) * F : NULL;
    float *d_state = aside ? c->of_state : dh;
    for (ptrdiff_t j = 0; j < p->n_pieces; j++) {
        const piece *its = p->pieces + j;
        if (!its->of_hidden && !d_inputs) continue;
        product back = {.a = of_array(p, c, its->array, at_row), .b = packed + packed_before(p, 1, j),
                        .out = its->of_hidden ? d_state + its->first : d_inputs + its->first,
                        .a_stride = width_of_array(p, its->array), .b_stride = panel_size(p->kernel, G),
                        .out_stride = its->of_hidden ? H : F, .rows = rows, .depth = G, .columns = its->columns,
                        .block = c->block};
        if (its->of_hidden && direct && !aside) back.add = back.out;
        const ptrdiff_t last = last_gate_of_hidden(p, its->array);
        /* The gate that is kept apart comes after those of W_ih. */
        if (its->of_hidden) back.gap_at = G - H, back.gap = last - (G - H);
        multiply(p->kernel, &back);
    }
    if (dac[0].step != 0.0f && d_inputs) pull_back_converter(inputs_of(p, k, t, first), d_inputs, rows * F, dac[0]);
    if (dac[1].step != 0.0f) pull_back_converter(hidden_before(p, k, t, first), d_state, rows * H, dac[1]);
    if (aside) add_row(dh, d_state, rows * H);
}

static void backward_block(const recurrence *p, ptrdiff_t k, ptrdiff_t first, ptrdiff_t rows, float *scratch,
                           float *sums) {
    const ptrdiff_t T = p->steps, N = p->rows, H = p->width, G = GATES[p->cell] * H, D = GRADIENTS[p->cell] * H;
    const ptrdiff_t F = inputs_width(p), steps = steps_of_chunk(p);
    float *dh = p->dh + (k * N + first) * H, *dc = p->dc ? p->dc + (k * N + first) * H : NULL;
    chunk c = {.room = steps * rows, .block = scratch, .turned = scratch + block_of_thread(p)};
    c.panels = c.turned + turned_before(p, c.room, p->n_pieces);
    c.products = c.panels + packed_gradients(p, c.room), c.factors = c.products + INSIDE[p->cell] * H;
    c.state = c.factors + INSIDE[p->cell] * H;
    c.inputs = c.state + (p->n_arrays ? H : 0), c.of_state = c.inputs + (p->n_arrays ? F : 0);
    c.gradients = c.of_state + (has_direct_way(p) && p->n_arrays ? rows * H : 0);
    c.of_arrays = p->n_arrays > 1 ? c.gradients + c.room * D : c.gradients;
    for (ptrdiff_t j = 0; j < sums_of_block(p); j++) sums[j] = 0.0f;
    float *biases = sums + (H + F) * GRADIENTS[p->cell] * panel_width(p), *d_own = sums + sums_before_own(p);
    const float *own = own_of(p, k);
    ptrdiff_t filled = 0;
    for (ptrdiff_t t = T - 1; t >= 0; t--) {
        const ptrdiff_t at = (k * T + t) * N + first;
        const float *row = p->gates ? p->gates + at * G : NULL, *before = hidden_before(p, k, t, first);
        const float *out = p->outputs + at * H, *from_out = p->d_outputs + at * H;
        for (ptrdiff_t n = 0; n < rows; n++) {
            const ptrdiff_t at_row = filled * rows + n;
            float *drow = c.gradients + at_row * D;
            const float *factors = inside_cell(p, k, place_of(p, k, t, first + n), c.factors, NULL);
            if (is_over(p, k, t, first + n)) {
                for (ptrdiff_t j = 0; j < D; j++) drow[j] = 0.0f;
            } else if (has_cell_state(p)) {
                const float *cell = p->kept + (at + n) * H;
                const float *cell_before = t ? cell - N * H : p->c + (k * N + first + n) * H;
                if (p->cell == LSTM)
                    lstm_row_backward(row + n * G, drow, cell_before, cell, from_out + n * H, dh + n * H, dc + n * H,
                                      factors, H);
                else
                    peephole_row_backward(row + n * G, drow, own, d_own, cell_before, cell, from_out + n * H,
                                          dh + n * H, dc + n * H, factors, H);
            } else if (p->cell == GRU) {
                gru_row_backward(row + n * G, p->kept + (at + n) * H, before + n * H, from_out + n * H, drow,
                                 dh + n * H, factors, H);
            } else if (p->cell == MGU) {
                mgu_row_backward(row + n * G, p->kept + (at + n) * H, before + n * H, from_out + n * H, drow,
                                 dh + n * H, factors, H);
            } else if (p->cell == FASTGRNN) {
                fastgrnn_row_backward(row + n * G, p->kept + (at + n) * H, own, d_own, before + n * H,
                                      from_out + n * H, drow, dh + n * H, factors, H);
            } else {
                rnn_row_backward(out + n * H, drow, from_out + n * H, dh + n * H, H, p->cell == RNN_RELU);
            }
            add_row(biases, drow, D);
            if (p->d_projection)
                for (ptrdiff_t j = 0; j < G; j++) p->d_projection[(at + n) * G + j] = drow[j];
            pull_back_arrays(p, k, t, first + n, at_row, &c);
            const float *h = through_dac(before + n * H, c.state, H, p->dac[2 * k + 1]);
            const float *x = F ? through_dac(inputs_of(p, k, t, first + n), c.inputs, F, p->dac[2 * k]) : NULL;
            for (ptrdiff_t j = 0; j < p->n_pieces; j++)
                pack_transposed(p->kernel, (p->pieces[j].of_hidden ? h : x) + p->pieces[j].first,
                                p->pieces[j].columns, at_row, c.room, c.turned + turned_before(p, c.room, j));
        }
        gradients_of_inputs(p, &c, k, t, first, rows, filled * rows, dh);
        if (++filled == steps || t == 0) {
            sum_weight_gradients(p, &c, filled * rows, sums);
            filled = 0;
        }
    }
}

/* Write the weight gradients of a few units of one gate, from the sums of all blocks. */
static void write_gradients(const recurrence *p, ptrdiff_t k, ptrdiff_t gate, ptrdiff_t first) {
    const ptrdiff_t H = p->width, F = inputs_width(p), S = H + F, W = panel_width(p), blocks = blocks_of(p);
    const ptrdiff_t width = GRADIENTS[p->cell] * W, last = first + UNITS < H ? first + UNITS : H;
    /* The hidden part of a gate that is kept apart has sums of its own. */
    const ptrdiff_t hidden_gate = keeps_apart(p) && gate == GATES[p->cell] - 1 ? gate + 1 : gate;
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

static void write_gradients_of_own(const recurrence *p, ptrdiff_t k) {
    if (!p->d_own) return;
    const ptrdiff_t size = OWN[p->cell] * p->width, blocks = blocks_of(p);
    for (ptrdiff_t u = 0; u < size; u++) p->d_own[k * size + u] = 0.0f;
    for (ptrdiff_t block = 0; block < blocks; block++)
        add_row(p->d_own + k * size, p->sums + (k * blocks + block) * sums_of_block(p) + sums_before_own(p), size);
}

/* Pack one panel of a piece of one network's matrices. */
static void pack_piece(const recurrence *p, int backward, ptrdiff_t k, ptrdiff_t number, ptrdiff_t panel) {
    const piece *its = p->pieces + number;
    const ptrdiff_t G = GATES[p->cell] * p->width, fan_in = its->of_hidden ? p->width : p->features;
    const float *matrix = (its->of_hidden ? p->w_hh : p->w_ih) + k * G * fan_in + its->first;
    float *packed = p->packed + k * packed_before(p, backward, p->n_pieces);
    if (is_one_product(p, backward))
        packed += panel * panel_of_both(p) + (its->of_hidden ? panel_size(p->kernel, p->features) : 0);
    else
        packed += packed_before(p, backward, number) + panel * panel_size(p->kernel, backward ? G : its->columns);
    if (backward)
        pack_panel(p->kernel, matrix, fan_in, 1, G, its->columns, panel * PANEL, packed);
    else
        pack_panel(p->kernel, matrix, 1, fan_in, its->columns, G, panel * PANEL, packed);
}

static void run(const recurrence *p, int backward) {
    const ptrdiff_t H = p->width, gates = GATES[p->cell];
    const ptrdiff_t blocks = blocks_of(p), size = scratch_of_thread(p, backward), parts = (H + UNITS - 1) / UNITS;
#pragma omp parallel num_threads(p->threads)
    {
        for (ptrdiff_t j = 0; j < p->n_pieces; j++) {
            const ptrdiff_t columns = backward ? p->pieces[j].columns : gates * H;
            const ptrdiff_t panels = packed_piece(p, backward, p->pieces + j) ? (columns + PANEL - 1) / PANEL : 0;
#pragma omp for schedule(static) nowait
            for (ptrdiff_t i = 0; i < sets_of_weights(p) * panels; i++)
                pack_piece(p, backward, i / panels, j, i % panels);
        }
#pragma omp barrier
        begin_products(p->kernel);
#pragma omp for schedule(dynamic)
        for (ptrdiff_t j = 0; j < p->networks * blocks; j++) {
            ptrdiff_t k = j / blocks, block = j % blocks;
            ptrdiff_t first = block * p->rows / blocks, rows = (block + 1) * p->rows / blocks - first;
            float *scratch = p->scratch + omp_get_thread_num() * size;
            if (backward)
                backward_block(p, k, first, rows, scratch, p->sums + j * sums_of_block(p));
            else if (!k || alike_from(p, k - 1) == 1) /* else it goes with the one before it */
                forward_block(p, k, alike_from(p, k), first, rows, scratch);
        }
        end_products(p->kernel);
        if (backward) {
#pragma omp for schedule(static)
            for (ptrdiff_t j = 0; j < p->networks * gates * parts; j++)
                write_gradients(p, j / parts / gates, j / parts % gates, j % parts * UNITS);
#pragma omp for schedule(static)
            for (ptrdiff_t j = 0; j < p->networks; j++) write_gradients_of_own(p, j);
        }
    }
}

/* Fill outputs, kept and, where they are kept, gates. */
void recurrence_forward(const recurrence *p) { run(p, 0); }

/* dh and dc: gradients of the final states on entry, of the initial ones on return. Fill the other gradients. */
void recurrence_backward(const recurrence *p) { run(p, 1); }
