// Vectors of float32 read from float32 or bfloat16, and written as either.

#pragma once

#include <cstdint>
#include <cstring>

// compiled for each kind of processor; the loader chooses
#define EVERY_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define INLINE __attribute__((always_inline)) inline

namespace {

constexpr int64_t LANES = 16;              // numbers that are computed at once
constexpr int64_t PAIR = 2 * LANES;        // numbers that are read at once
constexpr int64_t ALONE = 32768;           // numbers that one thread does sooner than two

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef uint32_t Bits __attribute__((vector_size(LANES * 4)));

// 32 numbers: the first and the last 16 of float32, the even and the odd ones of bfloat16, which are its pairs'
// lower and upper halves
struct Two {
    Floats a, b;
};

INLINE Two load(const float* at) {
    Two x;
    std::memcpy(&x, at, sizeof x);
    return x;
}

INLINE Two load(const uint16_t* at) {
    Bits x;
    std::memcpy(&x, at, sizeof x);
    return {(Floats)(x << 16), (Floats)(x & 0xffff0000)};
}

INLINE void store(float* at, const Two& x) { std::memcpy(at, &x, sizeof x); }

// to the nearest bfloat16, to an even one where two are as near
INLINE Bits rounded(Floats x) { return (Bits)x + 0x7fff + (((Bits)x >> 16) & 1); }

INLINE void store(uint16_t* at, const Two& x) {
    const Bits both = rounded(x.a) >> 16 | (rounded(x.b) & 0xffff0000);
    std::memcpy(at, &both, sizeof both);
}

// 16 numbers of float32
INLINE Floats read(const float* at) {
    Floats x;
    std::memcpy(&x, at, sizeof x);
    return x;
}

INLINE void write(float* at, Floats x) { std::memcpy(at, &x, sizeof x); }

INLINE Floats of(float x) { return x - (Floats){}; }

}  // namespace
