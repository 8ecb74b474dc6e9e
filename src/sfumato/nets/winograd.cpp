// The transforms of Winograd's convolution F(2×2, 3×3) (Lavin & Gray 2016, §4.1) in float32, channels last: each tile of
// 2×2 results is made of 4×4 places of the picture by 16 multiplications a channel where the direct way takes 36. So is
// the gradient of its weight, by the transposed transform of the results' gradients.

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "vectors.hpp"

namespace {

constexpr int64_t SIDE = 4, POINTS = SIDE * SIDE;

struct Shape {
    int64_t rows, columns, down, across;  // of the result, in places and in tiles

    Shape(int64_t height, int64_t width, int64_t above, int64_t beside)
        : rows(height + 2 * above - 2),
          columns(width + 2 * beside - 2),
          down((rows + 1) / 2),
          across((columns + 1) / 2) {}
};

// Bᵀ d of four numbers
INLINE void in_one_direction(const Floats (&d)[SIDE], Floats (&out)[SIDE]) {
    out[0] = d[0] - d[2];
    out[1] = d[1] + d[2];
    out[2] = d[2] - d[1];
    out[3] = d[1] - d[3];
}

// Bᵀ d B of the 4×4 places that `places` points to, to 16 numbers that lie `apart`
EVERY_PROCESSOR void tile_in(const float* const (&places)[POINTS], float* out, int64_t apart, int64_t channels) {
    for (int64_t c = 0; c < channels; c += LANES) {
        Floats half[SIDE][SIDE];  // by column
        for (int64_t x = 0; x < SIDE; ++x) {
            const Floats column[SIDE] = {read(places[x] + c), read(places[SIDE + x] + c), read(places[2 * SIDE + x] + c),
                                         read(places[3 * SIDE + x] + c)};
            in_one_direction(column, half[x]);
        }
        for (int64_t y = 0; y < SIDE; ++y) {
            const Floats row[SIDE] = {half[0][y], half[1][y], half[2][y], half[3][y]};
            Floats done[SIDE];
            in_one_direction(row, done);
            for (int64_t x = 0; x < SIDE; ++x) write(out + (y * SIDE + x) * apart + c, done[x]);
        }
    }
}

// Aᵀ m A of 16 numbers that lie `apart`, plus the bias and what is to be added, to the up to 2×2 places of the result
EVERY_PROCESSOR void tile_out(const float* in, int64_t apart, float* const (&places)[SIDE],
                              const float* const (&added)[SIDE], const float* bias, int64_t channels, bool relu) {
    for (int64_t c = 0; c < channels; c += LANES) {
        Floats half[SIDE][2];
        for (int64_t x = 0; x < SIDE; ++x) {
            Floats m[SIDE];
            for (int64_t y = 0; y < SIDE; ++y) m[y] = read(in + (y * SIDE + x) * apart + c);
            half[x][0] = m[0] + m[1] + m[2];
            half[x][1] = m[1] - m[2] - m[3];
        }
        const Floats shift = read(bias + c);
        for (int64_t y = 0; y < 2; ++y) {
            Floats done[2] = {half[0][y] + half[1][y] + half[2][y] + shift, half[1][y] - half[2][y] - half[3][y] + shift};
            for (int64_t x = 0; x < 2; ++x) {
                if (!places[2 * y + x]) continue;
                if (added[2 * y + x]) done[x] += read(added[2 * y + x] + c);
                if (relu) done[x] = done[x] > 0 ? done[x] : done[x] - done[x];  // what is no number stays none
                write(places[2 * y + x] + c, done[x]);
            }
        }
    }
}

// A e Aᵀ of the 2×2 places that `places` points to, to 16 numbers that lie `apart`
EVERY_PROCESSOR void tile_back(const float* const (&places)[SIDE], float* out, int64_t apart, int64_t channels) {
    for (int64_t c = 0; c < channels; c += LANES) {
        Floats half[SIDE][2];
        for (int64_t x = 0; x < 2; ++x) {
            const Floats upper = read(places[x] + c), lower = read(places[2 + x] + c);
            half[0][x] = upper;
            half[1][x] = upper + lower;
            half[2][x] = upper - lower;
            half[3][x] = -lower;
        }
        for (int64_t y = 0; y < SIDE; ++y) {
            const Floats left = half[y][0], right = half[y][1];
            float* const at = out + y * SIDE * apart + c;
            write(at, left);
            write(at + apart, left + right);
            write(at + 2 * apart, left - right);
            write(at + 3 * apart, -right);
        }
    }
}

int team(int64_t numbers, int threads) { return numbers < ALONE ? 1 : threads; }

}  // namespace

extern "C" {

// x (batch, height, width, channels) to out (16, count, channels), whose 16 parts lie `apart` numbers: the tiles
// from `first` of those of all pictures, row by row, each padded by zeros `above` and below and `beside`; channels a
// multiple of 16.
void winograd_input(const float* x, float* out, int64_t apart, int64_t height, int64_t width, int64_t channels,
                    int64_t above, int64_t beside, int64_t first, int64_t count, int threads) {
    const Shape shape(height, width, above, beside);
    float* const nothing = static_cast<float*>(std::calloc(channels, sizeof(float)));
    const int size = team(count * POINTS * channels, threads);
#pragma omp parallel for num_threads(size) if (size > 1) schedule(static)
    for (int64_t n = 0; n < count; ++n) {
        const int64_t tile = (first + n) % (shape.down * shape.across), picture = (first + n) / (shape.down * shape.across);
        const int64_t top = 2 * (tile / shape.across) - above, left = 2 * (tile % shape.across) - beside;
        const float* places[POINTS];
        for (int64_t y = 0; y < SIDE; ++y)
            for (int64_t z = 0; z < SIDE; ++z) {
                const int64_t row = top + y, column = left + z;
                const bool inside = row >= 0 && row < height && column >= 0 && column < width;
                places[y * SIDE + z] =
                    inside ? x + ((picture * height + row) * width + column) * channels : nothing;
            }
        tile_in(places, out + n * channels, apart, channels);
    }
    std::free(nothing);
}

// The gradient (batch, rows, columns, channels) of the result to out (16, count, channels), whose 16 parts lie `apart`
// numbers, for the tiles that `winograd_input` makes of a picture of height × width.
void winograd_gradient(const float* gradient, float* out, int64_t apart, int64_t height, int64_t width, int64_t channels,
                       int64_t above, int64_t beside, int64_t first, int64_t count, int threads) {
    const Shape shape(height, width, above, beside);
    float* const nothing = static_cast<float*>(std::calloc(channels, sizeof(float)));
    const int size = team(count * POINTS * channels, threads);
#pragma omp parallel for num_threads(size) if (size > 1) schedule(static)
    for (int64_t n = 0; n < count; ++n) {
        const int64_t tile = (first + n) % (shape.down * shape.across), picture = (first + n) / (shape.down * shape.across);
        const float* places[SIDE];
        for (int64_t y = 0; y < 2; ++y)
            for (int64_t z = 0; z < 2; ++z) {
                const int64_t row = 2 * (tile / shape.across) + y, column = 2 * (tile % shape.across) + z;
                const bool inside = row < shape.rows && column < shape.columns;
                places[2 * y + z] =
                    inside ? gradient + ((picture * shape.rows + row) * shape.columns + column) * channels : nothing;
            }
        tile_back(places, out + n * channels, apart, channels);
    }
    std::free(nothing);
}

// What `winograd_input` made, multiplied, to out (batch, rows, columns, channels) of a picture of height × width.
// `add` of out's shape or null; bias (channels,) of each picture, `bias_apart` numbers from the next one's.
void winograd_output(const float* in, float* out, int64_t apart, int64_t height, int64_t width, int64_t channels,
                     int64_t above, int64_t beside, int64_t first, int64_t count, const float* bias,
                     int64_t bias_apart, const float* add, int relu, int threads) {
    const Shape shape(height, width, above, beside);
    const int size = team(count * POINTS * channels, threads);
#pragma omp parallel for num_threads(size) if (size > 1) schedule(static)
    for (int64_t n = 0; n < count; ++n) {
        const int64_t tile = (first + n) % (shape.down * shape.across), picture = (first + n) / (shape.down * shape.across);
        float* places[SIDE] = {};
        const float* added[SIDE] = {};
        for (int64_t y = 0; y < 2; ++y)
            for (int64_t z = 0; z < 2; ++z) {
                const int64_t row = 2 * (tile / shape.across) + y, column = 2 * (tile % shape.across) + z;
                if (row >= shape.rows || column >= shape.columns) continue;
                const int64_t at = ((picture * shape.rows + row) * shape.columns + column) * channels;
                places[2 * y + z] = out + at;
                if (add) added[2 * y + z] = add + at;
            }
        tile_out(in + n * channels, apart, places, added, bias + picture * bias_apart, channels, relu != 0);
    }
}

}  // extern "C"
