/* Energies of mel bands in frames of samples: window, real Fourier transform, power, bands.
 *
 * A vector holds one number of VECTOR frames, all of which go through the same operations: what comes out for a frame
 * does not depend on which others are with it. The transform of n real points is one of n / 2 complex ones by the
 * Stockham algorithm, which needs no reordering, with radices 2 to 5 (C. Van Loan, "Computational frameworks for the
 * fast Fourier transform", SIAM 1992, 1.7 and 4.3). */
#include "../vectors.h"
#include <string.h>

typedef struct {
    const float *samples;    /* (clips, length) */
    const float *window;     /* (window_samples) */
    const float *twiddles;   /* of each pass (rest, radix - 1, 2), then of the split (points / 4 + 1, 2) */
    const int32_t *radices;  /* (n_radices), whose product is points / 2 */
    const int32_t *spans;    /* (n_bands, 2): a band's first point of the spectrum, and how many it has */
    const float *weights;    /* of all bands, one after the other */
    float *energies;         /* (clips * frames, n_bands) */
    float *scratch;          /* (threads, scratch_size) */
    int64_t clips, length, before, frames, hop, window_samples, points, n_radices, n_bands;
    int32_t threads;
} band_energies;

int64_t scratch_size(int64_t points, int64_t window_samples) {
    return VECTOR * (2 * points + points / 2 + 1 + window_samples);
}

typedef struct {
    vector re, im;
} complex_vector;

INLINE complex_vector plus(complex_vector a, complex_vector b) { return (complex_vector){a.re + b.re, a.im + b.im}; }
INLINE complex_vector minus(complex_vector a, complex_vector b) { return (complex_vector){a.re - b.re, a.im - b.im}; }
INLINE complex_vector times(complex_vector a, float factor) {
    return (complex_vector){a.re * all(factor), a.im * all(factor)};
}
INLINE complex_vector by_minus_i(complex_vector a) { return (complex_vector){a.im, -a.re}; }
INLINE complex_vector turned(complex_vector a, const float *twiddle) {
    vector re = all(twiddle[0]), im = all(twiddle[1]);
    return (complex_vector){a.re * re - a.im * im, a.re * im + a.im * re};
}

INLINE void butterfly(int radix, complex_vector *a) {
    if (radix == 2) {
        complex_vector sum = plus(a[0], a[1]);
        a[1] = minus(a[0], a[1]), a[0] = sum;
    } else if (radix == 3) {
        complex_vector sum = plus(a[1], a[2]), middle = minus(a[0], times(sum, 0.5f));
        complex_vector side = by_minus_i(times(minus(a[1], a[2]), 0.86602540378443865f));
        a[0] = plus(a[0], sum), a[1] = plus(middle, side), a[2] = minus(middle, side);
    } else if (radix == 4) {
        complex_vector even = plus(a[0], a[2]), odd = plus(a[1], a[3]);
        complex_vector left = minus(a[0], a[2]), right = by_minus_i(minus(a[1], a[3]));
        a[0] = plus(even, odd), a[1] = plus(left, right), a[2] = minus(even, odd), a[3] = minus(left, right);
    } else {
        const float c1 = 0.30901699437494742f, c2 = -0.80901699437494742f;
        const float s1 = 0.95105651629515357f, s2 = 0.58778525229247313f;
        complex_vector outer = plus(a[1], a[4]), inner = plus(a[2], a[3]);
        complex_vector far = minus(a[1], a[4]), near = minus(a[2], a[3]);
        complex_vector one = plus(a[0], plus(times(outer, c1), times(inner, c2)));
        complex_vector two = plus(a[0], plus(times(outer, c2), times(inner, c1)));
        complex_vector by_one = by_minus_i(plus(times(far, s1), times(near, s2)));
        complex_vector by_two = by_minus_i(minus(times(far, s2), times(near, s1)));
        a[0] = plus(a[0], plus(outer, inner));
        a[1] = plus(one, by_one), a[4] = minus(one, by_one), a[2] = plus(two, by_two), a[3] = minus(two, by_two);
    }
}

/* One pass: y[q, p, k] = (sum over j of x[q, p + rest j] w_radix^(j k)) w^(p k), q the fastest in memory. */
INLINE void pass(int radix, ptrdiff_t rest, ptrdiff_t done, const complex_vector *x, complex_vector *y, const float *w) {
    for (ptrdiff_t p = 0; p < rest; p++, w += 2 * (radix - 1))
        for (ptrdiff_t q = 0; q < done; q++) {
            complex_vector a[5];
#pragma GCC unroll 5
            for (int j = 0; j < radix; j++) a[j] = x[q + done * (p + rest * j)];
            butterfly(radix, a);
            y[q + done * radix * p] = a[0];
#pragma GCC unroll 5
            for (int k = 1; k < radix; k++)
                y[q + done * (radix * p + k)] = rest > 1 ? turned(a[k], w + 2 * (k - 1)) : a[k];
        }
}

#define PASS(radix) \
    static __attribute__((noinline)) void pass_##radix( \
        ptrdiff_t rest, ptrdiff_t done, const complex_vector *x, complex_vector *y, const float *w) { \
        pass(radix, rest, done, x, y, w); \
    }
PASS(2) PASS(3) PASS(4) PASS(5)

/* The complex transform of x; returns where it is, x or y, and moves the twiddles to those of the split. */
static complex_vector *transform(const band_energies *of, complex_vector *x, complex_vector *y, const float **twiddles) {
    ptrdiff_t rest = of->points / 2, done = 1;
    for (int64_t i = 0; i < of->n_radices; i++) {
        int radix = of->radices[i];
        rest /= radix;
        (radix == 2 ? pass_2 : radix == 3 ? pass_3 : radix == 4 ? pass_4 : pass_5)(rest, done, x, y, *twiddles);
        *twiddles += 2 * rest * (radix - 1);
        done *= radix;
        complex_vector *swap = x;
        x = y, y = swap;
    }
    return x;
}

/* Power of the real points' spectrum: Z is that of the even points plus i times that of the odd ones. */
static void powers(const complex_vector *z, ptrdiff_t half, const float *twiddles, vector *power) {
    for (ptrdiff_t k = 0; 2 * k <= half; k++) {
        complex_vector a = z[k], b = z[k ? half - k : 0];
        b.im = -b.im;
        complex_vector even = times(plus(a, b), 0.5f), odd = times(by_minus_i(minus(a, b)), 0.5f);
        odd = turned(odd, twiddles + 2 * k);
        complex_vector first = plus(even, odd), last = minus(even, odd);
        power[k] = first.re * first.re + first.im * first.im;
        power[half - k] = last.re * last.re + last.im * last.im;
    }
}

/* Put the windowed samples of VECTOR frames, from row on, beside each other; what lies outside of a clip is zero. */
static void load_frames(const band_energies *of, int64_t row, float *edges, vector *out) {
    const int64_t size = of->window_samples, rows = of->clips * of->frames;
    const float *frame[VECTOR];
    for (int lane = 0; lane < VECTOR; lane++) {
        int64_t its = row + lane < rows ? row + lane : rows - 1, start = its % of->frames * of->hop - of->before;
        const float *clip = of->samples + its / of->frames * of->length;
        frame[lane] = clip + start;
        if (start < 0 || start + size > of->length) {
            float *edge = edges + lane * size;
            int64_t first = start < 0 ? -start : 0, last = of->length - start < size ? of->length - start : size;
            memset(edge, 0, size * sizeof *edge);
            if (last > first) memcpy(edge + first, clip + start + first, (last - first) * sizeof *edge);
            frame[lane] = edge;
        }
    }
    int64_t i = 0;
    for (; i + VECTOR <= size; i += VECTOR) {
        vector block[VECTOR];
#pragma GCC unroll 16
        for (int lane = 0; lane < VECTOR; lane++) block[lane] = *(const vector *)(frame[lane] + i);
        transpose(block);
#pragma GCC unroll 16
        for (int k = 0; k < VECTOR; k++) out[i + k] = block[k] * all(of->window[i + k]);
    }
    for (; i < size; i++)
        for (int lane = 0; lane < VECTOR; lane++) out[i][lane] = frame[lane][i] * of->window[i];
    memset(out + size, 0, (of->points - size) * sizeof *out);
}

static void group(const band_energies *of, int64_t row, float *scratch) {
    const int64_t rows = of->clips * of->frames, there = rows - row < VECTOR ? rows - row : VECTOR;
    vector *first = (vector *)scratch, *second = first + of->points, *power = second + of->points;
    float *edges = (float *)(power + of->points / 2 + 1);
    load_frames(of, row, edges, first);
    const float *twiddles = of->twiddles;
    complex_vector *z = transform(of, (complex_vector *)first, (complex_vector *)second, &twiddles);
    powers(z, of->points / 2, twiddles, power);
    const float *weight = of->weights;
    for (int64_t band = 0; band < of->n_bands; band++) {
        const vector *point = power + of->spans[2 * band];
        vector sum = {0};
        for (int32_t k = 0; k < of->spans[2 * band + 1]; k++) sum += point[k] * all(*weight++);
        for (int64_t lane = 0; lane < there; lane++) of->energies[(row + lane) * of->n_bands + band] = sum[lane];
    }
}

void compute_band_energies(const band_energies *of) {
    const int64_t rows = of->clips * of->frames, groups = (rows + VECTOR - 1) / VECTOR;
    const int64_t size = scratch_size(of->points, of->window_samples);
    int threads = of->threads < groups ? of->threads : (int)groups;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++)
        for (int64_t k = groups * thread / threads; k < groups * (thread + 1) / threads; k++)
            group(of, k * VECTOR, of->scratch + thread * size);
}
