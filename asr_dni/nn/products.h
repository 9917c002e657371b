/* Products of a few rows with a matrix, and what packs matrices for them, in each precision of the factors.
 *
 * B is packed once into panels of PANEL columns. A library call a step would cost the threads a meeting a step. */
#ifndef ASR_DNI_PRODUCTS_H
#define ASR_DNI_PRODUCTS_H
#include "bfloat16_products.h"
#include "float32_products.h"

/* Of the factors, and for bfloat16 by which kernel; the order is that of KERNELS in native.py. */
enum { FLOAT32, CONVERTED_BFLOAT16, AVX512_BFLOAT16, AMX_BFLOAT16 };

/* Whether this machine has a kernel. */
int has_products(int kernel) {
    switch (kernel) {
        case FLOAT32:
        case CONVERTED_BFLOAT16: return 1;
#ifdef HAS_AVX512_BF16
        case AVX512_BFLOAT16: return __builtin_cpu_supports("avx512bf16");
#endif
#ifdef HAS_AMX
        case AMX_BFLOAT16: return may_use_tiles();
#endif
        default: return 0;
    }
}

/* A thread begins and ends its products. */
INLINE void begin_products(int kernel) {
#ifdef HAS_AMX
    if (kernel == AMX_BFLOAT16) configure_tiles();
#endif
}

INLINE void end_products(int kernel) {
#ifdef HAS_AMX
    if (kernel == AMX_BFLOAT16) release_tiles();
#endif
}

static void multiply(int kernel, const product *p) {
    switch (kernel) {
        case FLOAT32: multiply_float32(p); break;
#ifdef HAS_AVX512_BF16
        case AVX512_BFLOAT16: multiply_bfloat16(p, sums_avx512); break;
#endif
#ifdef HAS_AMX
        case AMX_BFLOAT16: multiply_bfloat16(p, sums_amx); break;
#endif
        default: multiply_bfloat16(p, sums_converted);
    }
}

/* Floats of a packed matrix, and of its panels before a column that begins one. */
INLINE ptrdiff_t packed_size(int kernel, ptrdiff_t depth, ptrdiff_t columns) {
    return rounded(columns, PANEL) * (kernel == FLOAT32 ? depth : rounded(depth, DEPTH) / 2);
}

/* Floats of a panel. */
INLINE ptrdiff_t panel_size(int kernel, ptrdiff_t depth) { return packed_size(kernel, depth, PANEL); }

/* The panel of a matrix, whose entry (k, n) is at k * down + n * right, that begins with a column. */
static void pack_panel(int kernel, const float *from, ptrdiff_t down, ptrdiff_t right, ptrdiff_t depth,
                       ptrdiff_t columns, ptrdiff_t column, float *panel) {
    if (kernel == FLOAT32)
        pack_panel_float32(from, down, right, depth, columns, column, panel);
    else
        pack_panel_bfloat16(from, down, right, depth, columns, column, panel);
}

/* Floats of a matrix that pack_transposed packs. */
INLINE ptrdiff_t transposed_size(int kernel, ptrdiff_t count, ptrdiff_t room) {
    return room * (kernel == FLOAT32 ? rounded(count, ROWS) : rounded(count, MOST_ROWS) / 2);
}

/* Make a row column `at` of a matrix that has room for `room` of them. */
INLINE void pack_transposed(int kernel, const float *row, ptrdiff_t count, ptrdiff_t at, ptrdiff_t room,
                            float *packed) {
    if (kernel == FLOAT32)
        pack_transposed_float32(row, count, at, room, packed);
    else
        pack_transposed_bfloat16(row, count, at, packed);
}

/* Floats of a product's block, where the depth is not above one. */
INLINE ptrdiff_t block_size(int kernel, ptrdiff_t depth) {
    return kernel == FLOAT32 ? 0 : MOST_ROWS * rounded(depth, DEPTH) / 2;
}

#endif
