// Group normalisation (Wu & He 2018), alone or followed by SiLU, and layer normalisation (Ba et al. 2016), of
// bfloat16 and float32, channels last. The picture is read twice and written once; sums, means and what follows
// from them are float32 or better. What is summed together depends on the shape alone, not on the threads.
// The gradients of group normalisation in float32 are found by reading the picture and its gradient twice.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "vectors.hpp"

namespace {

constexpr int64_t BLOCK = 3;               // pairs of vectors whose sums are in registers at once
constexpr int64_t PART = 16384;            // numbers whose sums are taken together, at least
constexpr int64_t PARTS = 64;              // such parts of a picture at most

// where `load` leaves the number `c` of a row
INLINE int64_t place(int64_t c, const float*) { return c; }
INLINE int64_t place(int64_t c, const uint16_t*) { return c / PAIR * PAIR + c % 2 * LANES + c % PAIR / 2; }

INLINE float total(Floats x) {
    typedef float Eight __attribute__((vector_size(32)));
    typedef float Four __attribute__((vector_size(16)));
    Eight h[2];
    std::memcpy(h, &x, sizeof x);
    h[0] += h[1];
    Four q[2];
    std::memcpy(q, h, sizeof q);
    q[0] += q[1];
    return (q[0][0] + q[0][1]) + (q[0][2] + q[0][3]);
}

// 1 + e^-x, for x below -43 that of -43: x / (1 + e^43) is nothing beside any other number
INLINE Floats one_and_exp_minus(Floats x) {
    const Floats y = -(x < -43.0f ? of(-43.0f) : x > 80.0f ? of(80.0f) : x);
    const Floats shifted = y * 1.44269504088896f + 12582912.0f;  // rounds to whole numbers
    const Floats whole = shifted - 12582912.0f;
    const Floats part = (y - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Floats p = part * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * part + 8.3334519073e-3f;
    p = p * part + 4.1665795894e-2f;
    p = p * part + 1.6666665459e-1f;
    p = p * part + 5.0000001201e-1f;
    p = p * (part * part) + part + 1.0f;
    const Bits exponent = (((Bits)shifted) + 127) << 23;  // the lowest bits of `shifted` are the whole number
    return p * (Floats)exponent + 1.0f;
}

// x · sigmoid(x), of two vectors with one division
INLINE void silu(Floats& x, Floats& y) {
    const Floats a = one_and_exp_minus(x), b = one_and_exp_minus(y);
    const Floats both = 1.0f / (a * b);
    x = x * (both * b);
    y = y * (both * a);
}

// Sums and sums of squares of `rows` places, less what stands in the first place, by channel
template <int N, typename T>
INLINE void sums_of(const T* x, const T* first, int64_t rows, int64_t channels, float* sums, float* squares) {
    Two shift[N], sum[N], square[N];
    for (int n = 0; n < N; ++n) {
        shift[n] = load(first + n * PAIR);
        sum[n] = square[n] = Two{};
    }
    for (int64_t r = 0; r < rows; ++r)
        for (int n = 0; n < N; ++n) {
            const Two y = load(x + r * channels + n * PAIR);
            const Floats a = y.a - shift[n].a, b = y.b - shift[n].b;
            sum[n].a += a, sum[n].b += b;
            square[n].a += a * a, square[n].b += b * b;
        }
    for (int n = 0; n < N; ++n) {
        store(sums + n * PAIR, sum[n]);
        store(squares + n * PAIR, square[n]);
    }
}

template <typename T>
INLINE void channel_sums(const T* x, const T* first, int64_t rows, int64_t channels, float* sums, float* squares) {
    int64_t c = 0;
    for (; c + BLOCK * PAIR <= channels; c += BLOCK * PAIR)
        sums_of<BLOCK>(x + c, first + c, rows, channels, sums + c, squares + c);
    for (; c < channels; c += PAIR) sums_of<1>(x + c, first + c, rows, channels, sums + c, squares + c);
}

template <typename T>
INLINE void scaled(const T* x, T* out, int64_t rows, int64_t channels, const float* factor, const float* shift,
                   bool with_silu) {
    for (int64_t r = 0; r < rows; ++r, x += channels, out += channels)
        for (int64_t c = 0; c < channels; c += PAIR) {
            const Two f = load(factor + c), s = load(shift + c);
            Two y = load(x + c);
            y = {y.a * f.a + s.a, y.b * f.b + s.b};
            if (with_silu) silu(y.a, y.b);
            store(out + c, y);
        }
}

template <typename T>
INLINE void normalised_rows(const T* x, T* out, int64_t rows, int64_t channels, const T* weight, const T* bias,
                            float eps) {
    for (int64_t r = 0; r < rows; ++r, x += channels, out += channels) {
        Two sum = {}, square = {};
        for (int64_t c = 0; c < channels; c += PAIR) {
            const Two y = load(x + c);
            sum.a += y.a, sum.b += y.b;
        }
        const Floats mean = of(total(sum.a + sum.b) / channels);
        for (int64_t c = 0; c < channels; c += PAIR) {
            const Two y = load(x + c);
            const Floats a = y.a - mean, b = y.b - mean;
            square.a += a * a, square.b += b * b;
        }
        const Floats scale = of(1 / std::sqrt(total(square.a + square.b) / channels + eps));
        for (int64_t c = 0; c < channels; c += PAIR) {
            const Two y = load(x + c), w = load(weight + c), b = load(bias + c);
            store(out + c, Two{(y.a - mean) * scale * w.a + b.a, (y.b - mean) * scale * w.b + b.b});
        }
    }
}

// Of y = factor · x + shift, and of SiLU behind it, by channel: the gradient of y to `out`, from that of the answer;
// its sums, and those of its products with what x is above `centre`
template <int N>
INLINE void gradient_sums_of(const float* x, const float* gradient, float* out, int64_t rows, int64_t channels,
                             const float* factor, const float* shift, const float* centre, bool with_silu,
                             float* sums, float* products) {
    Two f[N], s[N], middle[N], sum[N], product[N];
    for (int n = 0; n < N; ++n) {
        f[n] = load(factor + n * PAIR);
        s[n] = load(shift + n * PAIR);
        middle[n] = load(centre + n * PAIR);
        sum[n] = product[n] = Two{};
    }
    for (int64_t r = 0; r < rows; ++r)
        for (int n = 0; n < N; ++n) {
            const int64_t at = r * channels + n * PAIR;
            const Two v = load(x + at);
            Two g = load(gradient + at);
            if (with_silu) {
                // sigmoid + y · sigmoid · (1 - sigmoid), of two vectors with one division
                const Floats p = v.a * f[n].a + s[n].a, q = v.b * f[n].b + s[n].b;
                const Floats a = one_and_exp_minus(p), b = one_and_exp_minus(q), both = 1.0f / (a * b);
                const Floats left = both * b, right = both * a;
                g.a *= left + p * left * (1.0f - left);
                g.b *= right + q * right * (1.0f - right);
            }
            store(out + at, g);
            sum[n].a += g.a, sum[n].b += g.b;
            product[n].a += g.a * (v.a - middle[n].a), product[n].b += g.b * (v.b - middle[n].b);
        }
    for (int n = 0; n < N; ++n) {
        store(sums + n * PAIR, sum[n]);
        store(products + n * PAIR, product[n]);
    }
}

// factor · out + slope · (x - centre) + shift to `out`, all by channel
EVERY_PROCESSOR void gradient_scaled(const float* x, float* out, int64_t rows, int64_t channels, const float* factor,
                                     const float* slope, const float* centre, const float* shift) {
    for (int64_t r = 0; r < rows; ++r, x += channels, out += channels)
        for (int64_t c = 0; c < channels; c += LANES)
            write(out + c, read(out + c) * read(factor + c) + (read(x + c) - read(centre + c)) * read(slope + c) +
                               read(shift + c));
}

EVERY_PROCESSOR void gradient_sums(const float* x, const float* gradient, float* out, int64_t rows, int64_t channels,
                                   const float* factor, const float* shift, const float* centre, bool with_silu,
                                   float* sums, float* products) {
    for (int64_t c = 0; c < channels; c += PAIR)
        gradient_sums_of<1>(x + c, gradient + c, out + c, rows, channels, factor + c, shift + c, centre + c, with_silu,
                            sums + c, products + c);
}

#define FOR_EACH_TYPE(T, NAME)                                                                                   \
    EVERY_PROCESSOR void channel_sums_##NAME(const T* x, const T* first, int64_t rows, int64_t channels,         \
                                             float* sums, float* squares) {                                      \
        channel_sums(x, first, rows, channels, sums, squares);                                                   \
    }                                                                                                            \
    EVERY_PROCESSOR void scaled_##NAME(const T* x, T* out, int64_t rows, int64_t channels, const float* factor,  \
                                       const float* shift) {                                                     \
        scaled(x, out, rows, channels, factor, shift, false);                                                    \
    }                                                                                                            \
    EVERY_PROCESSOR void scaled_silu_##NAME(const T* x, T* out, int64_t rows, int64_t channels,                  \
                                            const float* factor, const float* shift) {                           \
        scaled(x, out, rows, channels, factor, shift, true);                                                     \
    }                                                                                                            \
    EVERY_PROCESSOR void rows_##NAME(const T* x, T* out, int64_t rows, int64_t channels, const T* weight,        \
                                     const T* bias, float eps) {                                                 \
        normalised_rows(x, out, rows, channels, weight, bias, eps);                                              \
    }

FOR_EACH_TYPE(float, float32)
FOR_EACH_TYPE(uint16_t, bfloat16)

void channel_sums_of(const float* x, const float* first, int64_t rows, int64_t channels, float* s, float* q) {
    channel_sums_float32(x, first, rows, channels, s, q);
}
void channel_sums_of(const uint16_t* x, const uint16_t* first, int64_t rows, int64_t channels, float* s, float* q) {
    channel_sums_bfloat16(x, first, rows, channels, s, q);
}
void scaled_of(const float* x, float* out, int64_t rows, int64_t channels, const float* a, const float* b, bool act) {
    (act ? scaled_silu_float32 : scaled_float32)(x, out, rows, channels, a, b);
}
void scaled_of(const uint16_t* x, uint16_t* out, int64_t rows, int64_t channels, const float* a, const float* b,
               bool act) {
    (act ? scaled_silu_bfloat16 : scaled_bfloat16)(x, out, rows, channels, a, b);
}

float number(const float* at) { return *at; }
float number(const uint16_t* at) {
    const uint32_t bits = static_cast<uint32_t>(*at) << 16;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

template <typename T>
void group_norm(const T* x, T* out, int64_t batch, int64_t places, int64_t channels, int64_t groups, const T* weight,
                const T* bias, float eps, float* kept, bool with_silu, int threads) {
    const int64_t rows = std::max({PART / channels, (places + PARTS - 1) / PARTS, int64_t{1}});
    const int64_t parts = (places + rows - 1) / rows, width = channels / groups;
    float* const scratch = static_cast<float*>(std::malloc(sizeof(float) * 2 * channels * batch * (parts + 1)));
    float* const factors = scratch + 2 * channels * batch * parts;
    const int team = batch * places * channels < ALONE ? 1 : threads;

#pragma omp parallel num_threads(team) if (team > 1)
    {
#pragma omp for schedule(static)
        for (int64_t task = 0; task < batch * parts; ++task) {
            const int64_t b = task / parts, p = task % parts * rows;
            const T* const picture = x + b * places * channels;
            float* const sums = scratch + task * 2 * channels;
            channel_sums_of(picture + p * channels, picture, std::min(rows, places - p), channels, sums,
                            sums + channels);
        }
#pragma omp for schedule(static)
        for (int64_t task = 0; task < batch * groups; ++task) {
            const int64_t b = task / groups, begin = task % groups * width;
            const T* const first = x + b * places * channels;
            // by channel, then together (Chan et al. 1979)
            double mean = 0, deviation = 0;
            for (int64_t c = begin; c < begin + width; ++c) {
                double sum = 0, squares = 0;
                for (int64_t p = 0; p < parts; ++p) {
                    const float* const sums = scratch + (b * parts + p) * 2 * channels;
                    sum += sums[place(c, x)];
                    squares += sums[channels + place(c, x)];
                }
                const double before = static_cast<double>(c - begin), own = number(first + c) + sum / places;
                const double apart = own - mean;
                deviation += squares - sum * sum / places + apart * apart * places * before / (before + 1);
                mean += apart / (before + 1);
            }
            const double scale = 1 / std::sqrt(std::max(deviation / (width * places), 0.0) + eps);
            if (kept) {
                kept[2 * task] = static_cast<float>(mean);
                kept[2 * task + 1] = static_cast<float>(scale);
            }
            float* const factor = factors + b * 2 * channels;
            for (int64_t c = begin; c < begin + width; ++c) {
                factor[place(c, x)] = static_cast<float>(scale * number(weight + c));
                factor[channels + place(c, x)] = static_cast<float>(number(bias + c) - mean * scale * number(weight + c));
            }
        }
#pragma omp for schedule(static)
        for (int64_t task = 0; task < batch * parts; ++task) {
            const int64_t b = task / parts, p = task % parts * rows, at = (b * places + p) * channels;
            const float* const factor = factors + b * 2 * channels;
            scaled_of(x + at, out + at, std::min(rows, places - p), channels, factor, factor + channels, with_silu);
        }
    }
    std::free(scratch);
}

void group_norm_gradient(const float* x, const float* gradient, float* out, int64_t batch, int64_t places,
                         int64_t channels, int64_t groups, const float* weight, const float* bias, const float* kept,
                         float* of_weight, float* of_bias, bool with_silu, int threads) {
    const int64_t rows = std::max({PART / channels, (places + PARTS - 1) / PARTS, int64_t{1}});
    const int64_t parts = (places + rows - 1) / rows, width = channels / groups;
    constexpr int64_t OWN = 5;  // numbers of a channel: factor, shift, centre, slope, and the shift of the gradient
    float* const scratch = static_cast<float*>(std::malloc(sizeof(float) * channels * batch * (2 * parts + OWN)));
    float* const factors = scratch + 2 * channels * batch * parts;
    const int team = batch * places * channels < ALONE ? 1 : threads;

#pragma omp parallel num_threads(team) if (team > 1)
    {
#pragma omp for schedule(static)
        for (int64_t task = 0; task < batch * channels; ++task) {
            const int64_t b = task / channels, c = task % channels;
            const float* const own = kept + 2 * (b * groups + c / width);
            float* const factor = factors + b * OWN * channels + c;
            factor[0] = own[1] * weight[c];
            factor[channels] = static_cast<float>(bias[c] - static_cast<double>(own[0]) * own[1] * weight[c]);
            factor[2 * channels] = own[0];
        }
#pragma omp for schedule(static)
        for (int64_t task = 0; task < batch * parts; ++task) {
            const int64_t b = task / parts, p = task % parts * rows, at = (b * places + p) * channels;
            const float* const factor = factors + b * OWN * channels;
            float* const sums = scratch + task * 2 * channels;
            gradient_sums(x + at, gradient + at, out + at, std::min(rows, places - p), channels, factor,
                          factor + channels, factor + 2 * channels, with_silu, sums, sums + channels);
        }
#pragma omp for schedule(static)
        for (int64_t task = 0; task < batch * groups; ++task) {
            const int64_t b = task / groups, begin = task % groups * width;
            const double scale = kept[2 * task + 1], count = static_cast<double>(width) * places;
            double of_mean = 0, of_scale = 0;
            for (int64_t c = begin; c < begin + width; ++c) {
                double sum = 0, product = 0;
                for (int64_t p = 0; p < parts; ++p) {
                    const float* const sums = scratch + (b * parts + p) * 2 * channels;
                    sum += sums[c];
                    product += sums[channels + c];
                }
                of_bias[b * channels + c] = static_cast<float>(sum);
                of_weight[b * channels + c] = static_cast<float>(product * scale);
                of_mean += sum * weight[c];
                of_scale += product * scale * weight[c];
            }
            float* const factor = factors + b * OWN * channels;
            for (int64_t c = begin; c < begin + width; ++c) {
                factor[3 * channels + c] = static_cast<float>(-scale * scale * of_scale / count);
                factor[4 * channels + c] = static_cast<float>(-scale * of_mean / count);
            }
        }
#pragma omp for schedule(static)
        for (int64_t task = 0; task < batch * parts; ++task) {
            const int64_t b = task / parts, p = task % parts * rows, at = (b * places + p) * channels;
            const float* const factor = factors + b * OWN * channels;
            gradient_scaled(x + at, out + at, std::min(rows, places - p), channels, factor, factor + 3 * channels,
                            factor + 2 * channels, factor + 4 * channels);
        }
    }
    std::free(scratch);
}

template <typename T, typename Rows>
void layer_norm(Rows rows_of, const T* x, T* out, int64_t rows, int64_t channels, const T* weight, const T* bias,
                float eps, int threads) {
    const int64_t part = std::max(PART / channels, int64_t{1}), parts = (rows + part - 1) / part;
    const int team = rows * channels < ALONE ? 1 : threads;
#pragma omp parallel for num_threads(team) if (team > 1) schedule(static)
    for (int64_t task = 0; task < parts; ++task) {
        const int64_t r = task * part, at = r * channels;
        rows_of(x + at, out + at, std::min(part, rows - r), channels, weight, bias, eps);
    }
}

}  // namespace

extern "C" {

// x, out (batch, places, channels), weight and bias (channels,), all bfloat16 or all float32 as `half` says;
// channels a multiple of 32 and of groups. `kept` (batch, groups, 2): means and 1 / √(variance + eps), or null.
void group_norm(const void* x, void* out, int64_t batch, int64_t places, int64_t channels, int64_t groups,
                const void* weight, const void* bias, float eps, float* kept, int with_silu, int half, int threads) {
    if (half)
        group_norm(static_cast<const uint16_t*>(x), static_cast<uint16_t*>(out), batch, places, channels, groups,
                   static_cast<const uint16_t*>(weight), static_cast<const uint16_t*>(bias), eps, kept,
                   with_silu != 0, threads);
    else
        group_norm(static_cast<const float*>(x), static_cast<float*>(out), batch, places, channels, groups,
                   static_cast<const float*>(weight), static_cast<const float*>(bias), eps, kept, with_silu != 0,
                   threads);
}

// The gradient of x to `out`, and those of weight and bias by picture to (batch, channels), from that of the answer
// and what `group_norm` has kept; all float32.
void group_norm_backward(const float* x, const float* gradient, float* out, int64_t batch, int64_t places,
                         int64_t channels, int64_t groups, const float* weight, const float* bias, const float* kept,
                         float* of_weight, float* of_bias, int with_silu, int threads) {
    group_norm_gradient(x, gradient, out, batch, places, channels, groups, weight, bias, kept, of_weight, of_bias,
                        with_silu != 0, threads);
}

// x, out (rows, channels), as above.
void layer_norm(const void* x, void* out, int64_t rows, int64_t channels, const void* weight, const void* bias,
                float eps, int half, int threads) {
    if (half)
        layer_norm(rows_bfloat16, static_cast<const uint16_t*>(x), static_cast<uint16_t*>(out), rows, channels,
                   static_cast<const uint16_t*>(weight), static_cast<const uint16_t*>(bias), eps, threads);
    else
        layer_norm(rows_float32, static_cast<const float*>(x), static_cast<float*>(out), rows, channels,
                   static_cast<const float*>(weight), static_cast<const float*>(bias), eps, threads);
}

}  // extern "C"
