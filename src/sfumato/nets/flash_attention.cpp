// softmax(q kᵀ · scale + mask) v in bfloat16, for x86-64 processors with AVX-512 BF16, or AMX.
//
// FlashAttention (Dao et al. 2022, algorithm 1): blocks of scores that stay in the cache, with the running
// maximum and sum of Milakov & Gimelshein (2018). Scores, weights' sums and the answer's are float32.

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>

#define BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define AMX __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16")))
#define INLINE __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"), always_inline)) inline

namespace {

constexpr int64_t LANES = 16;         // numbers of float32 in a register
constexpr int64_t ROWS = 6;           // queries whose sums are in registers at once
constexpr int64_t QUERIES = 48;       // queries of a block,
constexpr int64_t TILED_QUERIES = 64; // with AMX
constexpr int64_t KEYS = 256;         // keys of a block
constexpr int64_t TILE = 16;          // rows of a tile, and its pairs of bfloat16
constexpr float LOG2E = 1.44269504088896340736f;

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// 2^x of numbers <= 0, to 3e-6 of the result; a bfloat16 tells 4e-3 apart
INLINE __m512 exp2_of(__m512 x) {
    // the second operand is the answer where one is no number: so that stays to be seen
    // not smaller than what a processor multiplies at full speed
    x = _mm512_max_ps(_mm512_set1_ps(-125.0f), x);
    const __m512 rounds = _mm512_set1_ps(12582912.0f);  // what is added to it has no room for fractions
    const __m512 shifted = _mm512_add_ps(x, rounds);
    const __m512 part = _mm512_sub_ps(x, _mm512_sub_ps(shifted, rounds));
    __m512 y = _mm512_set1_ps(0.00956999f);
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(0.05591758f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(0.24024745f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(0.69312185f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(0.99999926f));
    const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(y), exponent));
}

// What the eight tiles of AMX hold: sums (0 to 3), 16 rows of the first matrix (4, 5), 16 columns of the second
// (6, 7), `pairs` pairs at once
struct alignas(64) Tiles {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64};
    uint8_t rows[16] = {TILE, TILE, TILE, TILE};

    explicit Tiles(int64_t pairs) {
        bytes[4] = bytes[5] = static_cast<uint16_t>(4 * pairs);
        rows[4] = rows[5] = TILE;
        bytes[6] = bytes[7] = 64;
        rows[6] = rows[7] = static_cast<uint8_t>(pairs);
    }
};

// out (R·16, N·16) [+]= a (R·16, 2·pairs·steps) · b, as `product` has it, by tiles
template <int R, int N, bool ADD>
AMX void tile_product(const uint16_t* a, int64_t lda, const uint16_t* b, int64_t ldb, int64_t pairs, int64_t steps,
                      float* out, int64_t ldout) {
    float* const below = out + TILE * ldout;
    const int64_t stride = sizeof(float) * ldout;
    if constexpr (ADD) {
        _tile_loadd(0, out, stride);
        if constexpr (N > 1) _tile_loadd(1, out + LANES, stride);
        if constexpr (R > 1) _tile_loadd(2, below, stride);
        if constexpr (R > 1 && N > 1) _tile_loadd(3, below + LANES, stride);
    } else {
        _tile_zero(0);
        if constexpr (N > 1) _tile_zero(1);
        if constexpr (R > 1) _tile_zero(2);
        if constexpr (R > 1 && N > 1) _tile_zero(3);
    }
    for (int64_t s = 0; s < steps; ++s, a += 2 * pairs, b += pairs * ldb) {
        _tile_loadd(4, a, 2 * lda);
        _tile_loadd(6, b, 2 * ldb);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (N > 1) {
            _tile_loadd(7, b + 2 * LANES, 2 * ldb);
            _tile_dpbf16ps(1, 4, 7);
        }
        if constexpr (R > 1) {
            _tile_loadd(5, a + TILE * lda, 2 * lda);
            _tile_dpbf16ps(2, 5, 6);
            if constexpr (N > 1) _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, out, stride);
    if constexpr (N > 1) _tile_stored(1, out + LANES, stride);
    if constexpr (R > 1) _tile_stored(2, below, stride);
    if constexpr (R > 1 && N > 1) _tile_stored(3, below + LANES, stride);
}

// `matrix` by tiles: rows are made up to a multiple of 16
template <bool ADD>
AMX void tile_matrix(int64_t rows, int64_t columns, const uint16_t* a, int64_t lda, const uint16_t* b, int64_t ldb,
                     int64_t pairs, int64_t steps, float* out, int64_t ldout) {
    const Tiles tiles(pairs);
    _tile_loadconfig(&tiles);
    for (int64_t r = 0; r < rows; r += 2 * TILE)
        for (int64_t c = 0; c < columns; c += 2 * LANES) {
            const uint16_t *const from = a + r * lda, *const by = b + 2 * c;
            float* const to = out + r * ldout + c;
            const bool wide = columns - c > LANES;
            if (rows - r > TILE)
                (wide ? tile_product<2, 2, ADD> : tile_product<2, 1, ADD>)(from, lda, by, ldb, pairs, steps, to, ldout);
            else
                (wide ? tile_product<1, 2, ADD> : tile_product<1, 1, ADD>)(from, lda, by, ldb, pairs, steps, to, ldout);
        }
}

AMX void release_tiles() { _tile_release(); }

// The first `count` lanes
INLINE __mmask16 lanes(int64_t count) {
    return count >= LANES ? 0xffff : count <= 0 ? 0 : (1u << count) - 1;
}

INLINE __m512bh pair_of(const uint16_t* at) {
    int32_t both;
    std::memcpy(&both, at, sizeof both);
    return (__m512bh)_mm512_set1_epi32(both);
}

// out (R, N·16) [+]= a (R, 2·pairs) · b, b in pairs of rows: (pairs, ldb / 2, 2)
template <int R, int N, bool ADD>
INLINE void product(const uint16_t* a, int64_t lda, const uint16_t* b, int64_t ldb, int64_t pairs, float* out,
                    int64_t ldout) {
    __m512 sums[R][N];
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n)
            sums[r][n] = ADD ? _mm512_loadu_ps(out + r * ldout + n * LANES) : _mm512_setzero_ps();
    for (int64_t p = 0; p < pairs; ++p) {
        __m512bh columns[N];
        for (int n = 0; n < N; ++n) columns[n] = (__m512bh)_mm512_loadu_si512(b + p * ldb + n * 2 * LANES);
        for (int r = 0; r < R; ++r) {
            const __m512bh both = pair_of(a + r * lda + 2 * p);
            for (int n = 0; n < N; ++n) sums[r][n] = _mm512_dpbf16_ps(sums[r][n], both, columns[n]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) _mm512_storeu_ps(out + r * ldout + n * LANES, sums[r][n]);
}

template <int N, bool ADD>
BF16 void rows_of(int64_t rows, const uint16_t* a, int64_t lda, const uint16_t* b, int64_t ldb, int64_t pairs,
                  float* out, int64_t ldout) {
    for (; rows >= ROWS; rows -= ROWS, a += ROWS * lda, out += ROWS * ldout)
        product<ROWS, N, ADD>(a, lda, b, ldb, pairs, out, ldout);
    for (; rows > 0; --rows, a += lda, out += ldout) product<1, N, ADD>(a, lda, b, ldb, pairs, out, ldout);
}

// rows_of for any number of columns, a multiple of 16
template <bool ADD>
BF16 void matrix(int64_t rows, int64_t columns, const uint16_t* a, int64_t lda, const uint16_t* b, int64_t ldb,
                 int64_t pairs, float* out, int64_t ldout) {
    int64_t c = 0;
    for (; c + 4 * LANES <= columns; c += 4 * LANES)
        rows_of<4, ADD>(rows, a, lda, b + 2 * c, ldb, pairs, out + c, ldout);
    switch ((columns - c) / LANES) {
        case 3: rows_of<3, ADD>(rows, a, lda, b + 2 * c, ldb, pairs, out + c, ldout); break;
        case 2: rows_of<2, ADD>(rows, a, lda, b + 2 * c, ldb, pairs, out + c, ldout); break;
        case 1: rows_of<1, ADD>(rows, a, lda, b + 2 * c, ldb, pairs, out + c, ldout); break;
    }
}

}  // namespace

extern "C" {

// Ask Linux for the use of AMX's tiles; whether it allows it.
int allow_tiles() {
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

// How many bytes of scratch memory `attention` needs.
int64_t scratch_bytes(int64_t batch, int64_t heads, int64_t keys, int64_t width) {
    const int64_t padded = round_up(width, LANES), all = round_up(keys, 2 * LANES);
    return 2 * batch * heads * all * (round_up(width, 2 * TILE) + padded);
}

// q, out (batch, queries, heads, width), k, v (batch, keys, heads, width), contiguous but for the strides
// between batches and between places, which are in numbers; mask (keys,) a batch, or null. With `tiles` AMX
// multiplies.
BF16 void attention(const uint16_t* q, const uint16_t* k, const uint16_t* v, const float* mask, uint16_t* out,
                    uint16_t* scratch, int64_t batch, int64_t heads, int64_t queries, int64_t keys,
                    int64_t width, const int64_t* strides, int64_t mask_stride, float scale, int tiles, int threads) {
    const int64_t padded = round_up(width, LANES), all = round_up(keys, 2 * LANES);
    const int64_t real_pairs = round_up(width, 2) / 2;
    // a tile takes 16 pairs at most: as many steps as that takes, of equal size
    const int64_t steps = (real_pairs + TILE - 1) / TILE, step = (real_pairs + steps - 1) / steps;
    const int64_t pairs = tiles ? steps * step : real_pairs;
    const int64_t most = tiles ? TILED_QUERIES : QUERIES;
    const int64_t k_size = all * 2 * pairs, v_size = all * padded;
    uint16_t* const k_packed = scratch;
    uint16_t* const v_packed = scratch + batch * heads * k_size;
    const int64_t blocks = (queries + most - 1) / most;

#pragma omp parallel num_threads(threads)
    {
        const __m512i counted = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        // keys as (pairs of numbers, keys, 2), values as (pairs of keys, numbers, 2): what is multiplied at once
        // lies together
#pragma omp for schedule(static)
        for (int64_t bh = 0; bh < batch * heads; ++bh) {
            const int64_t b = bh / heads, h = bh % heads;
            const uint16_t* from = k + b * strides[2] + h * width;
            uint32_t* to = reinterpret_cast<uint32_t*>(k_packed + bh * k_size);
            const __m512i places = _mm512_mullo_epi32(_mm512_set1_epi32(static_cast<int>(strides[3])), counted);
            for (int64_t j0 = 0; j0 < all; j0 += KEYS) {
                const int64_t size = std::min(KEYS, all - j0);
                for (int64_t j = j0; j < j0 + size; j += LANES)
                    for (int64_t p = 0; p < pairs; ++p) {
                        const __m512i both = _mm512_mask_i32gather_epi32(
                            _mm512_setzero_si512(), p < real_pairs ? lanes(keys - j) : 0, places,
                            from + j * strides[3] + 2 * p, 2);
                        _mm512_storeu_si512(to + j0 * pairs + p * size + j - j0, both);
                    }
            }
            const uint16_t* first = v + b * strides[4] + h * width;
            uint16_t* values = v_packed + bh * v_size;
            for (int64_t j = 0; j < all; j += 2)
                for (int64_t c = 0; c < padded; c += LANES) {
                    const uint16_t* const at = first + j * strides[5] + c;
                    const __mmask16 one = j < keys ? lanes(width - c) : 0;
                    const __mmask16 other = j + 1 < keys ? lanes(width - c) : 0;
                    const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(one, at));
                    const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(other, at + strides[5]));
                    _mm512_storeu_si512(values + j * padded + 2 * c,
                                        _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
                }
        }

        float* const own = static_cast<float*>(
            std::aligned_alloc(64, sizeof(float) * most * (KEYS + padded) + 2 * most * (KEYS + 2 * pairs)));
        float* const scores = own;
        float* const sums = own + most * KEYS;
        uint16_t* const weights = reinterpret_cast<uint16_t*>(sums + most * padded);
        uint16_t* const asked = weights + most * KEYS;
        float largest[TILED_QUERIES], total[TILED_QUERIES];
        // also of rows that are only there to fill tiles
        std::memset(weights, 0, 2 * most * (KEYS + 2 * pairs));

#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < batch * heads * blocks; ++task) {
            const int64_t bh = task / blocks, b = bh / heads, h = bh % heads;
            const int64_t i0 = task % blocks * most, rows = std::min(most, queries - i0);
            for (int64_t r = 0; r < rows; ++r) {
                std::memcpy(asked + r * 2 * pairs, q + b * strides[0] + (i0 + r) * strides[1] + h * width,
                            2 * width);
            }
            std::fill(sums, sums + most * padded, 0.0f);
            std::fill(largest, largest + rows, -std::numeric_limits<float>::infinity());
            std::fill(total, total + rows, 0.0f);
            const __m512 factor = _mm512_set1_ps(scale * LOG2E);
            const __m512 nothing = _mm512_set1_ps(-std::numeric_limits<float>::infinity());

            for (int64_t j0 = 0; j0 < all; j0 += KEYS) {
                const int64_t size = std::min(KEYS, all - j0);
                const bool masked = mask != nullptr || j0 + size > keys;
                // what scores are still to be multiplied by, to be exponents of 2
                const __m512 left = masked ? _mm512_set1_ps(1.0f) : factor;
                const uint16_t* const k_block = k_packed + bh * k_size + j0 * 2 * pairs;
                const uint16_t* const v_block = v_packed + bh * v_size + j0 * padded;
                if (tiles)
                    tile_matrix<false>(rows, size, asked, 2 * pairs, k_block, 2 * size, step, steps, scores, KEYS);
                else
                    matrix<false>(rows, size, asked, 2 * pairs, k_block, 2 * size, pairs, scores, KEYS);
                for (int64_t r = 0; r < rows; ++r) {
                    float* const row = scores + r * KEYS;
                    uint16_t* const weight = weights + r * KEYS;
                    __m512 top = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
                    if (masked) {
                        for (int64_t j = 0; j < size; j += LANES) {
                            const __mmask16 real = lanes(keys - j0 - j);
                            const __m512 added = mask == nullptr
                                                     ? _mm512_setzero_ps()
                                                     : _mm512_maskz_loadu_ps(real, mask + b * mask_stride + j0 + j);
                            const __m512 x = _mm512_fmadd_ps(_mm512_loadu_ps(row + j), factor,
                                                             _mm512_mul_ps(added, _mm512_set1_ps(LOG2E)));
                            _mm512_storeu_ps(row + j, _mm512_mask_blend_ps(real, nothing, x));
                        }
                    }
                    for (int64_t j = 0; j < size; j += LANES) top = _mm512_max_ps(top, _mm512_loadu_ps(row + j));
                    const float before = largest[r];
                    const float now = std::max(before, _mm512_reduce_max_ps(top) * (masked ? 1 : scale * LOG2E));
                    largest[r] = now;
                    // a block whose keys are all masked
                    const float shift = std::isinf(now) ? 0.0f : now;
                    const __m512 minus = _mm512_set1_ps(shift);
                    __m512 sum = _mm512_setzero_ps();
                    for (int64_t j = 0; j < size; j += 2 * LANES) {
                        const __m512 x = _mm512_loadu_ps(row + j), y = _mm512_loadu_ps(row + j + LANES);
                        const __m512 low = exp2_of(_mm512_fmsub_ps(x, left, minus));
                        const __m512 high = exp2_of(_mm512_fmsub_ps(y, left, minus));
                        sum = _mm512_add_ps(sum, _mm512_add_ps(low, high));
                        _mm512_storeu_si512(weight + j, (__m512i)_mm512_cvtne2ps_pbh(high, low));
                    }
                    const float fade = std::isinf(before) ? 0.0f : std::exp2(before - shift);
                    total[r] = total[r] * fade + _mm512_reduce_add_ps(sum);
                    if (fade != 1.0f)
                        for (int64_t c = 0; c < padded; c += LANES) {
                            float* const at = sums + r * padded + c;
                            _mm512_storeu_ps(at, _mm512_mul_ps(_mm512_loadu_ps(at), _mm512_set1_ps(fade)));
                        }
                }
                if (tiles)
                    tile_matrix<true>(rows, padded, weights, KEYS, v_block, 2 * padded, TILE, size / (2 * TILE), sums,
                                      padded);
                else
                    matrix<true>(rows, padded, weights, KEYS, v_block, 2 * padded, size / 2, sums, padded);
            }
            for (int64_t r = 0; r < rows; ++r) {
                uint16_t* const to = out + b * strides[6] + (i0 + r) * strides[7] + h * width;
                const __m512 share = _mm512_set1_ps(1.0f / total[r]);
                for (int64_t c = 0; c < width; c += LANES) {
                    const __m512 y = _mm512_mul_ps(_mm512_loadu_ps(sums + r * padded + c), share);
                    const __mmask16 real = lanes(width - c);
                    _mm256_mask_storeu_epi16(to + c, real, (__m256i)_mm512_cvtneps_pbh(y));
                }
            }
        }
        if (tiles) release_tiles();
        std::free(own);
    }
}

}  // extern "C"
