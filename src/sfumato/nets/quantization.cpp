// Activations of bfloat16 or float32 in uint8, each row of a batch with its own scale and zero point (Jacob et al.
// 2018, §2.1). A row is read twice and written once; its bits do not depend on the threads or on other rows.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>

#include "vectors.hpp"

namespace {

constexpr int64_t STRETCH = 16384;  // numbers that one thread takes at once

typedef uint8_t Bytes __attribute__((vector_size(LANES)));
typedef uint16_t Words __attribute__((vector_size(LANES * 2)));

struct Range {
    float low = 0, high = 0;  // 0 is always among what is told exactly: pictures are padded with it
    bool finite = true;
};

INLINE void store_bytes(const float*, uint8_t* at, Bits a, Bits b) {
    const Bytes first = __builtin_convertvector(a, Bytes), last = __builtin_convertvector(b, Bytes);
    std::memcpy(at, &first, sizeof first);
    std::memcpy(at + LANES, &last, sizeof last);
}

INLINE void store_bytes(const uint16_t*, uint8_t* at, Bits even, Bits odd) {
    const Words both = __builtin_convertvector(even | odd << 8, Words);
    std::memcpy(at, &both, sizeof both);
}

template <typename T>
INLINE Range range_of(const T* x, int64_t count) {
    Floats low = {}, high = {}, nothing = {};
    for (int64_t n = 0; n < count; n += PAIR) {
        const Two y = load(x + n);
        low = y.a < low ? y.a : low;
        low = y.b < low ? y.b : low;
        high = y.a > high ? y.a : high;
        high = y.b > high ? y.b : high;
        nothing += (y.a - y.a) + (y.b - y.b);
    }
    Range range;
    for (int64_t n = 0; n < LANES; ++n) {
        range.low = std::min(range.low, low[n]);
        range.high = std::max(range.high, high[n]);
        range.finite &= nothing[n] == 0;
    }
    return range;
}

template <typename T>
INLINE void rounded_to_bytes(const T* x, uint8_t* out, int64_t count, float inverse, float zero) {
    const Floats shift = of(12582912.0f + zero);  // what is added to it is rounded to whole numbers
    for (int64_t n = 0; n < count; n += PAIR) {
        const Two y = load(x + n);
        Floats a = y.a * inverse + shift, b = y.b * inverse + shift;
        a = a < 12582912.0f ? of(12582912.0f) : a > 12583167.0f ? of(12583167.0f) : a;
        b = b < 12582912.0f ? of(12582912.0f) : b > 12583167.0f ? of(12583167.0f) : b;
        store_bytes(x, out + n, (Bits)a & 0xff, (Bits)b & 0xff);
    }
}

#define FOR_EACH_TYPE(T, NAME)                                                                               \
    EVERY_PROCESSOR Range range_##NAME(const T* x, int64_t count) { return range_of(x, count); }             \
    EVERY_PROCESSOR void bytes_##NAME(const T* x, uint8_t* out, int64_t count, float inverse, float zero) {  \
        rounded_to_bytes(x, out, count, inverse, zero);                                                      \
    }

FOR_EACH_TYPE(float, float32)
FOR_EACH_TYPE(uint16_t, bfloat16)

template <typename T, typename RangeOf, typename ToBytes>
void quantize(RangeOf range_of, ToBytes to_bytes, const T* x, uint8_t* out, int64_t rows, int64_t numbers,
              float* scales, int32_t* zero_points, int threads) {
    const int64_t parts = (numbers + STRETCH - 1) / STRETCH;
    const int team = rows * numbers < ALONE ? 1 : threads;
    Range* const ranges = static_cast<Range*>(std::malloc(sizeof(Range) * rows * parts));

#pragma omp parallel num_threads(team) if (team > 1)
    {
#pragma omp for schedule(static)
        for (int64_t task = 0; task < rows * parts; ++task) {
            const int64_t begin = task % parts * STRETCH;
            ranges[task] = range_of(x + task / parts * numbers + begin, std::min(STRETCH, numbers - begin));
        }
#pragma omp single
        for (int64_t r = 0; r < rows; ++r) {
            Range all;
            for (int64_t p = r * parts; p < (r + 1) * parts; ++p) {
                all.low = std::min(all.low, ranges[p].low);
                all.high = std::max(all.high, ranges[p].high);
                all.finite &= ranges[p].finite;
            }
            const float scale = (all.high - all.low) / 255.0f;
            // what is no number shows in the answer: its scale is none
            const bool flat = scale < std::numeric_limits<float>::min();
            scales[r] = !all.finite ? std::numeric_limits<float>::quiet_NaN() : flat ? 1.0f : scale;
            zero_points[r] = !all.finite || flat ? 0 : static_cast<int32_t>(std::nearbyint(-all.low / scale));
        }
#pragma omp for schedule(static)
        for (int64_t task = 0; task < rows * parts; ++task) {
            const int64_t r = task / parts, begin = task % parts * STRETCH, at = r * numbers + begin;
            const float inverse = std::isnan(scales[r]) ? 0.0f : 1.0f / scales[r];
            to_bytes(x + at, out + at, std::min(STRETCH, numbers - begin), inverse,
                     static_cast<float>(zero_points[r]));
        }
    }
    std::free(ranges);
}

}  // namespace

extern "C" {

// x (rows, numbers), bfloat16 or float32 as `half` says, numbers a multiple of 32; out of the same shape, scales and
// zero_points (rows,): x is about scale · (out − zero point). A row with what is no number has NaN as its scale.
void quantize(const void* x, uint8_t* out, int64_t rows, int64_t numbers, float* scales, int32_t* zero_points, int half,
              int threads) {
    if (half)
        quantize(range_bfloat16, bytes_bfloat16, static_cast<const uint16_t*>(x), out, rows, numbers, scales,
                 zero_points, threads);
    else
        quantize(range_float32, bytes_float32, static_cast<const float*>(x), out, rows, numbers, scales, zero_points,
                 threads);
}

}  // extern "C"
