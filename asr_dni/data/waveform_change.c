/* Changes to clips in one pass over each: speed and shift, gain, background, limits. Torch's operations, in
 * augmentation.py, define what comes out; positions are rounded as theirs are, for which contraction is off. */
#include "../vectors.h"
#include <math.h>
#include <string.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

enum { MARGIN = 64 }; /* zeros on either side of a clip that is resampled */

typedef struct {
    const void *waveforms;   /* (clips, length), int16 or float */
    const float *background; /* of which every start has length samples; or NULL */
    const int64_t *shift;    /* (clips) samples to the right */
    const float *speed;      /* (clips) in half lengths a sample, or NULL: clips are not resampled */
    const float *gain;       /* (clips) factors, or NULL */
    const int64_t *start;    /* (clips) of the background */
    const float *level;      /* (clips) factors of the background, or by_power, ratios of powers to it; 0: none */
    float *changed;          /* (clips, length) */
    float *scratch;          /* (threads, scratch_size) */
    int64_t clips, length;
    int32_t integers, by_power, threads;
} waveform_change;

int64_t scratch_size(int64_t length) { return length + 2 * MARGIN; }


/* Copy samples first to last of a clip. */
static void copy(const waveform_change *of, int64_t clip, int64_t first, int64_t last, float *to) {
    int64_t start = clip * of->length;
    if (of->integers)
        for (int64_t i = first; i < last; i++)
            to[i - first] = ((const int16_t *)of->waveforms)[start + i] * (1.0f / 32768);
    else
        memcpy(to, (const float *)of->waveforms + start + first, (last - first) * sizeof *to);
}

/* VECTOR samples from `at` on, by cubic convolution with a = -0.75 (R. Keys, IEEE Trans. ASSP 29(6), 1981). */
INLINE void interpolate(
    const waveform_change *of, const float *row, int64_t at, float shift, float speed, float gain, float *to) {
    const float middle = (of->length - 1) / 2.0f, last = of->length + 1, from = at - middle, a = -0.75f;
    int32_t index[VECTOR];
    float weights[4][VECTOR], sums[VECTOR];
#pragma omp simd
    for (int lane = 0; lane < VECTOR; lane++) {
        float position = (from + lane - shift) * speed; /* from -1, the first sample, to 1 */
        float x = (position + 1.0f) * middle;
        x = x < -3.0f ? -3.0f : x > last ? last : x; /* beyond are zeros only */
        float whole = floorf(x), t = x - whole, u = 1.0f - t, before = t + 1.0f, behind = u + 1.0f;
        index[lane] = (int32_t)whole - 1;
        weights[0][lane] = ((a * before - 5.0f * a) * before + 8.0f * a) * before - 4.0f * a;
        weights[1][lane] = ((a + 2.0f) * t - (a + 3.0f)) * t * t + 1.0f;
        weights[2][lane] = ((a + 2.0f) * u - (a + 3.0f)) * u * u + 1.0f;
        weights[3][lane] = ((a * behind - 5.0f * a) * behind + 8.0f * a) * behind - 4.0f * a;
    }
#if defined(__AVX512F__)
    if (index[VECTOR - 1] + 3 - index[0] < 2 * VECTOR) { /* two vectors hold all samples that are needed */
        __m512 low = _mm512_loadu_ps(row + index[0]), high = _mm512_loadu_ps(row + index[0] + VECTOR);
        __m512i place = _mm512_sub_epi32(_mm512_loadu_si512(index), _mm512_set1_epi32(index[0]));
        __m512 sum = _mm512_setzero_ps();
        for (int k = 0; k < 4; k++) {
            __m512 tap = _mm512_permutex2var_ps(low, place, high);
            sum = _mm512_fmadd_ps(tap, _mm512_loadu_ps(weights[k]), sum);
            place = _mm512_add_epi32(place, _mm512_set1_epi32(1));
        }
        _mm512_storeu_ps(to, _mm512_mul_ps(sum, _mm512_set1_ps(gain)));
        return;
    }
#endif
    for (int lane = 0; lane < VECTOR; lane++) {
        const float *x = row + index[lane];
        sums[lane] = x[0] * weights[0][lane] + x[1] * weights[1][lane];
        sums[lane] += x[2] * weights[2][lane] + x[3] * weights[3][lane];
    }
    for (int lane = 0; lane < VECTOR; lane++) to[lane] = sums[lane] * gain;
}

static void resample(const waveform_change *of, int64_t clip, float *scratch, float gain, float *to) {
    const int64_t length = of->length, whole = length / VECTOR * VECTOR;
    float *row = scratch + MARGIN, shift = of->shift[clip], speed = of->speed[clip];
    memset(scratch, 0, MARGIN * sizeof *scratch);
    copy(of, clip, 0, length, row);
    memset(row + length, 0, MARGIN * sizeof *scratch);
    for (int64_t at = 0; at < whole; at += VECTOR) interpolate(of, row, at, shift, speed, gain, to + at);
    if (whole < length) {
        float rest[VECTOR];
        interpolate(of, row, whole, shift, speed, gain, rest);
        memcpy(to + whole, rest, (length - whole) * sizeof *to);
    }
}

static void move(const waveform_change *of, int64_t clip, float gain, float *to) {
    const int64_t length = of->length, shift = of->shift[clip];
    int64_t first = shift < 0 ? 0 : shift < length ? shift : length;
    int64_t last = shift > 0 ? length : length + shift > 0 ? length + shift : 0;
    memset(to, 0, first * sizeof *to);
    if (last > first) copy(of, clip, first - shift, last - shift, to + first);
    if (last < length) memset(to + last, 0, (length - last) * sizeof *to);
    if (of->gain)
        for (int64_t i = 0; i < length; i++) to[i] *= gain;
}

static float power(const float *samples, int64_t length) {
    float sums[VECTOR] = {0};
    int64_t i = 0;
    for (; i + VECTOR <= length; i += VECTOR)
#pragma omp simd
        for (int lane = 0; lane < VECTOR; lane++) sums[lane] += samples[i + lane] * samples[i + lane];
    for (; i < length; i++) sums[0] += samples[i] * samples[i];
    for (int lane = 1; lane < VECTOR; lane++) sums[0] += sums[lane];
    return sums[0] / length;
}

static void change(const waveform_change *of, int64_t clip, float *scratch) {
    const int64_t length = of->length;
    float gain = of->gain ? of->gain[clip] : 1.0f, *to = of->changed + clip * length;
    if (of->speed)
        resample(of, clip, scratch, gain, to);
    else
        move(of, clip, gain, to);
    float volume = of->background ? of->level[clip] : 0.0f;
    const float *part = volume != 0.0f ? of->background + of->start[clip] : to;
    if (volume != 0.0f && of->by_power) {
        float its = power(part, length);
        volume = its > 0.0f ? sqrtf(power(to, length) / volume / its) : 0.0f;
    }
#pragma omp simd
    for (int64_t i = 0; i < length; i++) {
        float mixed = to[i] + part[i] * volume;
        to[i] = mixed < -1.0f ? -1.0f : mixed > 1.0f ? 1.0f : mixed;
    }
}

void change_waveforms(const waveform_change *of) {
    const int64_t size = scratch_size(of->length);
    int threads = of->threads < of->clips ? of->threads : (int)of->clips;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++)
        for (int64_t clip = of->clips * thread / threads; clip < of->clips * (thread + 1) / threads; clip++)
            change(of, clip, of->scratch + thread * size);
}
