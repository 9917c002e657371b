/* The products of products.h with factors in float32: a tile of ROWS x PANEL sums stays in registers. */
#ifndef ASR_DNI_FLOAT32_PRODUCTS_H
#define ASR_DNI_FLOAT32_PRODUCTS_H
#include <stddef.h>

#define INLINE static inline __attribute__((always_inline))

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

/* out = a B + add + bias. The depth of a is that of B: its columns, but for the gap. */
typedef struct product {
    const float *a, *b, *add, *bias; /* b: packed; add: may be NULL, or out; bias: may be NULL, in whole panels */
    const struct product *ahead;     /* in bfloat16: what belongs to the same sums, of the same rows and columns, or NULL */
    float *out;
    ptrdiff_t a_stride, b_stride, out_stride; /* of a row of a, a panel, a row of out and add */
    ptrdiff_t rows, depth, columns;
    ptrdiff_t packed;      /* 0, or a is packed as by pack_transposed: how many columns it has room for */
    ptrdiff_t gap_at, gap; /* columns of a from the first on are the second further on; 0: there is no gap */
    float *block;          /* room for a few rows of a in bfloat16, see block_size, and of what is ahead before them */
} product;

INLINE ptrdiff_t rounded(ptrdiff_t number, ptrdiff_t up_to) { return (number + up_to - 1) / up_to * up_to; }

/* Write a row of PANEL sums, or the first `columns` of them, with what is added to them. at: in out and add. */
INLINE void write_sums(const product *p, const vector sums[2], ptrdiff_t at, ptrdiff_t column, ptrdiff_t columns) {
    if (columns >= PANEL) {
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            vector sum = sums[half];
            if (p->bias) sum += *(const vector *)(p->bias + column + half * VECTOR);
            if (p->add) sum += *(const vector *)(p->add + at + half * VECTOR);
            *(vector *)(p->out + at + half * VECTOR) = sum;
        }
    } else {
        float row[PANEL];
        *(vector *)row = sums[0], *(vector *)(row + VECTOR) = sums[1];
        for (ptrdiff_t n = 0; n < columns; n++) {
            float sum = row[n];
            if (p->bias) sum += p->bias[column + n];
            if (p->add) sum += p->add[at + n];
            p->out[at + n] = sum;
        }
    }
}

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
        write_sums(p, sums[m], at, column, columns);
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

static void multiply_without_gap(const product *p) {
    ptrdiff_t tiles = (p->rows + ROWS - 1) / ROWS;
    for (ptrdiff_t column = 0; column < p->columns; column += PANEL)
        for (ptrdiff_t t = 0; t < tiles; t++) {
            ptrdiff_t first = p->packed ? t * ROWS : t * p->rows / tiles;
            ptrdiff_t last = p->packed ? first + ROWS : (t + 1) * p->rows / tiles;
            TILES[(last < p->rows ? last : p->rows) - first](p, first, column);
        }
}

static void multiply_float32(const product *p) {
    product part = *p;
    if (p->gap) {
        part.depth = p->gap_at;
        multiply_without_gap(&part);
        part.a += p->gap_at + p->gap, part.b += p->gap_at * PANEL, part.depth = p->depth - p->gap_at;
        part.add = p->out, part.bias = NULL;
    }
    multiply_without_gap(&part);
}

/* The panel of a matrix, whose entry (k, n) is at k * down + n * right, that begins with a column. */
static void pack_panel_float32(const float *from, ptrdiff_t down, ptrdiff_t right, ptrdiff_t depth, ptrdiff_t columns,
                               ptrdiff_t column, float *panel) {
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
INLINE void pack_transposed_float32(const float *row, ptrdiff_t count, ptrdiff_t at, ptrdiff_t room, float *packed) {
    for (ptrdiff_t first = 0; first < count; first += ROWS) {
        float *to = packed + first * room + at * ROWS;
        const ptrdiff_t rows = count - first < ROWS ? count - first : ROWS;
        if (rows == ROWS)
            for (int m = 0; m < ROWS; m++) to[m] = row[first + m];
        else
            for (ptrdiff_t m = 0; m < rows; m++) to[m] = row[first + m];
    }
}

#endif
