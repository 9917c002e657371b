/* The products of products.h with factors in bfloat16 and sums in float32.
 *
 * Pairs of factors that follow one another in depth lie side by side, as the processor's instructions take them. Rows of
 * a are rounded as they are needed, MOST_ROWS at a time; B is rounded as it is packed. Three kernels make the sums of such
 * rows with a panel: tiles of AMX, dot products of AVX512-BF16, and factors made float32 again for any processor. Each
 * sums a row in an order of its own, whatever rows are beside it. The first two take denormal numbers for 0.
 */
#ifndef ASR_DNI_BFLOAT16_PRODUCTS_H
#define ASR_DNI_BFLOAT16_PRODUCTS_H
#include <stddef.h>
#include <stdint.h>

#include "float32_products.h"

#if defined(__AVX512BF16__) && defined(__AVX512F__)
#include <immintrin.h>
#define HAS_AVX512_BF16
#endif
#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512F__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define HAS_AMX
#endif

/* Rows that are rounded and multiplied at once, and what depth is filled up to with zeros: two tiles of AMX. */
enum { MOST_ROWS = 32, DEPTH = 32 };

/* Two factors of a sum, the first one in the lower half. */
typedef uint32_t pair;

/* To nearest, ties to even; NaN stays NaN. */
INLINE uint32_t to_bfloat16(float x) {
    union { float f; uint32_t i; } bits = {.f = x};
    const uint32_t nearest = (bits.i + 0x7fffu + (bits.i >> 16 & 1u)) >> 16;
    return x != x ? bits.i >> 16 | 0x40u : nearest;
}

INLINE pair to_pair(float first, float second) { return to_bfloat16(first) | to_bfloat16(second) << 16; }

INLINE float of_bits(uint32_t bits) {
    union { uint32_t i; float f; } both = {.i = bits};
    return both.f;
}

/* ---- Packing ---------------------------------------------------------------------------------------------------- */

/* A panel is depth / 2 rows of PANEL pairs, see pack_panel of products.h. */
static void pack_panel_bfloat16(const float *from, ptrdiff_t down, ptrdiff_t right, ptrdiff_t depth, ptrdiff_t columns,
                                ptrdiff_t column, float *packed) {
    const ptrdiff_t pairs = rounded(depth, DEPTH) / 2, wanted = columns - column < PANEL ? columns - column : PANEL;
    pair *panel = (pair *)packed;
    from += column * right;
    for (ptrdiff_t k = 0; k < pairs; k++, panel += PANEL) {
        const float *first = from + 2 * k * down, *second = first + down;
        if (2 * k + 1 < depth && right == 1 && wanted == PANEL)
#pragma omp simd
            for (ptrdiff_t n = 0; n < PANEL; n++) panel[n] = to_pair(first[n], second[n]);
        else
            for (ptrdiff_t n = 0; n < PANEL; n++)
                panel[n] = n < wanted ? to_pair(2 * k < depth ? first[n * right] : 0.0f,
                                                2 * k + 1 < depth ? second[n * right] : 0.0f)
                                      : 0;
    }
}

/* Row `at` of what is to be transposed, see pack_transposed of products.h: kept as a row until its turn. */
INLINE void pack_transposed_bfloat16(const float *row, ptrdiff_t count, ptrdiff_t at, float *packed) {
    const ptrdiff_t stride = rounded(count, MOST_ROWS);
    uint16_t *to = (uint16_t *)packed + at * stride;
#pragma omp simd
    for (ptrdiff_t j = 0; j < count; j++) to[j] = (uint16_t)to_bfloat16(row[j]);
    for (ptrdiff_t j = count; j < stride; j++) to[j] = 0;
}

/* Rows from `first` on of the transposed. */
static void transpose_rows(const product *p, ptrdiff_t first, pair *block) {
    enum { AT_ONCE = 16 };
    const ptrdiff_t stride = rounded(p->rows, MOST_ROWS), pairs = rounded(p->depth, DEPTH) / 2;
    const uint16_t *from = (const uint16_t *)p->a + first;
    for (ptrdiff_t k = 0; k < pairs; k += AT_ONCE) {
        pair rows[AT_ONCE][MOST_ROWS];
        for (ptrdiff_t i = 0; i < AT_ONCE; i++) {
            const ptrdiff_t at = 2 * (k + i);
            const uint16_t *upper = from + at * stride, *lower = upper + stride;
            if (at + 1 < p->depth)
#pragma omp simd
                for (int j = 0; j < MOST_ROWS; j++) rows[i][j] = upper[j] | (pair)lower[j] << 16;
            else
                for (int j = 0; j < MOST_ROWS; j++) rows[i][j] = at < p->depth ? upper[j] : 0;
        }
        for (int j = 0; j < MOST_ROWS; j++)
            for (ptrdiff_t i = 0; i < AT_ONCE; i++) block[j * pairs + k + i] = rows[i][j];
    }
}

INLINE void round_row(const float *from, ptrdiff_t count, uint16_t *to) {
    ptrdiff_t done = 0;
#ifdef HAS_AVX512_BF16
    /* Takes denormal numbers for 0, as the products of a processor that has it do. */
    for (; done + VECTOR <= count; done += VECTOR)
        _mm256_storeu_si256((__m256i *)(to + done), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + done)));
#endif
#pragma omp simd
    for (ptrdiff_t k = done; k < count; k++) to[k] = (uint16_t)to_bfloat16(from[k]);
}

/* Depth of the product ahead, filled up. */
INLINE ptrdiff_t depth_ahead(const product *p) { return p->ahead ? rounded(p->ahead->depth, DEPTH) : 0; }

/* Round rows of a from `first` on into rows of `width` numbers. */
static void round_rows(const product *p, ptrdiff_t first, ptrdiff_t rows, uint16_t *to, ptrdiff_t width) {
    const ptrdiff_t depth = rounded(p->depth, DEPTH), before = p->gap ? p->gap_at : p->depth;
    for (ptrdiff_t m = 0; m < rows; m++, to += width) {
        const float *from = p->a + (first + m) * p->a_stride;
        round_row(from, before, to);
        round_row(from + before + p->gap, p->depth - before, to + before);
        for (ptrdiff_t k = p->depth; k < depth; k++) to[k] = 0;
    }
}

/* ---- Kernels ---------------------------------------------------------------------------------------------------- */

/* The sums of up to MOST_ROWS rows of pairs with a panel, from `start` on, which each row begins with, or from 0 where that
 * is NULL; `pairs` is a multiple of DEPTH / 2. Of whole tiles of TILE_ROWS rows what is beyond `count` is written too. */
typedef void kernel(const pair *rows, const pair *panel, ptrdiff_t pairs, ptrdiff_t count, const float *start,
                    float *sums, ptrdiff_t stride);
enum { TILE_ROWS = 16 };

typedef uint32_t pair_vector __attribute__((vector_size(VECTOR * sizeof(pair)), aligned(sizeof(pair)), may_alias));

INLINE void sum_converted(const int count, const pair *rows, const pair *panel, ptrdiff_t pairs, const float *start,
                          float *to, ptrdiff_t stride) {
    vector sums[ROWS][2];
#pragma GCC unroll 12
    for (int m = 0; m < count; m++)
        for (int half = 0; half < 2; half++)
            sums[m][half] = start ? *(const vector *)(start + half * VECTOR) : (vector){0};
    for (ptrdiff_t k = 0; k < pairs; k++, panel += PANEL) {
        const pair_vector left = *(const pair_vector *)panel, right = *(const pair_vector *)(panel + VECTOR);
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            /* Shifted to the upper half, which is then the number in float32. */
            const int up = half ? 0 : 16;
            const vector l = (vector)(left << up & 0xffff0000u), r = (vector)(right << up & 0xffff0000u);
#pragma GCC unroll 12
            for (int m = 0; m < count; m++) {
                const vector factor = of_bits(rows[m * pairs + k] << up & 0xffff0000u) - (vector){0};
                sums[m][0] += factor * l;
                sums[m][1] += factor * r;
            }
        }
    }
#pragma GCC unroll 12
    for (int m = 0; m < count; m++)
        *(vector *)(to + m * stride) = sums[m][0], *(vector *)(to + m * stride + VECTOR) = sums[m][1];
}

/* One for each number of rows; see TILE. */
#define CONVERTED(count) \
    static __attribute__((noinline)) void converted_##count(const pair *rows, const pair *panel, ptrdiff_t pairs, \
                                                            const float *start, float *to, ptrdiff_t stride) { \
        sum_converted(count, rows, panel, pairs, start, to, stride); \
    }
CONVERTED(1) CONVERTED(2) CONVERTED(3) CONVERTED(4) CONVERTED(5) CONVERTED(6)

static void sums_converted(const pair *rows, const pair *panel, ptrdiff_t pairs, ptrdiff_t count, const float *start,
                           float *sums, ptrdiff_t stride) {
    static void (*const each[])(const pair *, const pair *, ptrdiff_t, const float *, float *, ptrdiff_t) = {
        NULL, converted_1, converted_2, converted_3, converted_4, converted_5, converted_6};
    for (ptrdiff_t m = 0; m < count; m += 6)
        each[count - m < 6 ? count - m : 6](rows + m * pairs, panel, pairs, start, sums + m * stride, stride);
}

#ifdef HAS_AVX512_BF16
INLINE void sum_dot_products(const int count, const pair *rows, const pair *panel, ptrdiff_t pairs,
                             const float *start, float *to, ptrdiff_t stride) {
    __m512 sums[8][2];
#pragma GCC unroll 8
    for (int m = 0; m < count; m++)
        for (int half = 0; half < 2; half++)
            sums[m][half] = start ? _mm512_loadu_ps(start + half * VECTOR) : _mm512_setzero_ps();
    for (ptrdiff_t k = 0; k < pairs; k++, panel += PANEL) {
        const __m512bh left = (__m512bh)_mm512_loadu_si512(panel), right = (__m512bh)_mm512_loadu_si512(panel + VECTOR);
#pragma GCC unroll 8
        for (int m = 0; m < count; m++) {
            const __m512bh factor = (__m512bh)_mm512_set1_epi32((int)rows[m * pairs + k]);
            sums[m][0] = _mm512_dpbf16_ps(sums[m][0], factor, left);
            sums[m][1] = _mm512_dpbf16_ps(sums[m][1], factor, right);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < count; m++) {
        _mm512_storeu_ps(to + m * stride, sums[m][0]);
        _mm512_storeu_ps(to + m * stride + VECTOR, sums[m][1]);
    }
}

static void sums_avx512(const pair *rows, const pair *panel, ptrdiff_t pairs, ptrdiff_t count, const float *start,
                        float *sums, ptrdiff_t stride) {
    ptrdiff_t m = 0;
    for (; m + 8 <= count; m += 8)
        sum_dot_products(8, rows + m * pairs, panel, pairs, start, sums + m * stride, stride);
    for (; m + 4 <= count; m += 4)
        sum_dot_products(4, rows + m * pairs, panel, pairs, start, sums + m * stride, stride);
    for (; m < count; m++) sum_dot_products(1, rows + m * pairs, panel, pairs, start, sums + m * stride, stride);
}
#endif

#ifdef HAS_AMX
/* Linux gives tiles to a process that asks for them. */
static int may_use_tiles(void) {
    enum { REQUEST = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

/* Tiles 0 to 3: sums of 16 rows with 16 columns; 4 and 5: rows; 6 and 7: columns of the panel. */
static void configure_tiles(void) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } __attribute__((packed, aligned(64))) all = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) all.bytes[tile] = 64, all.rows[tile] = 16;
    _tile_loadconfig(&all);
}

static void release_tiles(void) { _tile_release(); }

static void sums_amx(const pair *rows, const pair *panel, ptrdiff_t pairs, ptrdiff_t count, const float *start,
                     float *sums, ptrdiff_t stride) {
    const ptrdiff_t row = pairs * (ptrdiff_t)sizeof(pair), wide = PANEL * sizeof(pair);
    const int two = count > TILE_ROWS;
    stride *= (ptrdiff_t)sizeof(float);
    if (start) {
        _tile_loadd(0, start, 0);
        _tile_loadd(1, start + TILE_ROWS, 0);
        _tile_loadd(2, start, 0);
        _tile_loadd(3, start + TILE_ROWS, 0);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    if (!two) {
        for (ptrdiff_t k = 0; k < pairs; k += 16) {
            _tile_loadd(4, rows + k, row);
            _tile_loadd(6, panel + k * PANEL, wide);
            _tile_loadd(7, panel + k * PANEL + 16, wide);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
        }
    } else {
        for (ptrdiff_t k = 0; k < pairs; k += 16) {
            _tile_loadd(4, rows + k, row);
            _tile_loadd(6, panel + k * PANEL, wide);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, panel + k * PANEL + 16, wide);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, rows + 16 * pairs + k, row);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        float *below = sums + TILE_ROWS * stride / (ptrdiff_t)sizeof(float);
        _tile_stored(2, below, stride);
        _tile_stored(3, below + TILE_ROWS, stride);
    }
    _tile_stored(0, sums, stride);
    _tile_stored(1, sums + TILE_ROWS, stride);
}
#endif

/* Write a row of a panel's sums, or the first `columns` of them, with what is added to them, or NULL. */
INLINE void write_row(const float *sums, const float *add, float *out, ptrdiff_t columns) {
    if (columns > PANEL) columns = PANEL;
#pragma omp simd
    for (ptrdiff_t n = 0; n < columns; n++) out[n] = add ? sums[n] + add[n] : sums[n];
}

/* What is ahead belongs to the same sums, which begin with the biases: its rows of a panel come before those of p. */
static void multiply_bfloat16(const product *p, kernel *sum) {
    const ptrdiff_t ahead = depth_ahead(p), depth = ahead + rounded(p->depth, DEPTH), pairs = depth / 2;
    const pair *b = (const pair *)(ahead ? p->ahead->b : p->b);
    const float *other = ahead ? p->ahead->bias : NULL;
    float sums[MOST_ROWS][PANEL] __attribute__((aligned(64)));
    for (ptrdiff_t first = 0; first < p->rows; first += MOST_ROWS) {
        const ptrdiff_t count = p->rows - first < MOST_ROWS ? p->rows - first : MOST_ROWS;
        if (p->packed) {
            transpose_rows(p, first, (pair *)p->block);
        } else {
            if (ahead) round_rows(p->ahead, first, count, (uint16_t *)p->block, depth);
            round_rows(p, first, count, (uint16_t *)p->block + ahead, depth);
        }
        for (ptrdiff_t column = 0; column < p->columns; column += PANEL) {
            float *out = p->out + first * p->out_stride + column, both[PANEL];
            const float *start = p->bias ? p->bias + column : NULL;
            for (ptrdiff_t n = 0; other && n < PANEL; n++) both[n] = other[column + n] + (start ? start[n] : 0.0f);
            if (other) start = both;
            if (!p->add && count % TILE_ROWS == 0 && p->columns - column >= PANEL) {
                sum((pair *)p->block, b + column * pairs, pairs, count, start, out, p->out_stride);
                continue;
            }
            sum((pair *)p->block, b + column * pairs, pairs, count, start, sums[0], PANEL);
            for (ptrdiff_t m = 0; m < count; m++)
                write_row(sums[m], p->add ? p->add + (first + m) * p->out_stride + column : NULL,
                          out + m * p->out_stride, p->columns - column);
        }
    }
}

#endif
