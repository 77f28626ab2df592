// Vectors of the width of the target instruction set, and elementary functions on them, accurate to a few units in the
// last place. NaN gives NaN.
//
// Everything has internal linkage: files that include this are compiled once per instruction set, and the linker must
// not merge the versions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#ifdef __clang__
#define UNROLL_FOR(...) _Pragma("clang loop unroll(full)") for (__VA_ARGS__)
#define UNROLL_FOR_BY_4(...) _Pragma("clang loop unroll_count(4)") for (__VA_ARGS__)
#define SHUFFLE(Indices, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define UNROLL_FOR(...) _Pragma("GCC unroll 32") for (__VA_ARGS__)
#define UNROLL_FOR_BY_4(...) _Pragma("GCC unroll 4") for (__VA_ARGS__)
#define SHUFFLE(Indices, a, b, ...) __builtin_shuffle(a, b, Indices{__VA_ARGS__})
#endif

#if defined(__AVX512F__)
#define LANES 16
#define REGISTERS 32
#elif defined(__AVX__)
#define LANES 8
#define REGISTERS 16
#elif defined(__aarch64__)
#define LANES 4
#define REGISTERS 32
#else
#define LANES 4
#define REGISTERS 16
#endif

namespace neuralsdf {
namespace {

constexpr int lanes = LANES, registers = REGISTERS;

#define VECTOR(type, count) type __attribute__((vector_size(4 * (count)), aligned(4), may_alias))
typedef VECTOR(float, LANES) Vector;
typedef VECTOR(std::uint32_t, LANES) Bits;
typedef VECTOR(float, 4) Vector4;
typedef VECTOR(std::uint32_t, 4) Bits4;
typedef VECTOR(float, 8) Vector8;
typedef VECTOR(std::uint32_t, 8) Bits8;

INLINE Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
INLINE void store(float* to, Vector v) { *reinterpret_cast<Vector*>(to) = v; }
INLINE Vector broadcast(float s) { return Vector{} + s; }
INLINE Vector from_bits(Bits b) { return reinterpret_cast<Vector>(b); }
INLINE Bits to_bits(Vector v) { return reinterpret_cast<Bits>(v); }
INLINE Vector absolute(Vector v) { return from_bits(to_bits(v) & 0x7fffffffu); }
INLINE Vector with_sign_of(Vector magnitude, Vector sign) {
    return from_bits(to_bits(magnitude) | (to_bits(sign) & 0x80000000u));
}
// NaN stays NaN, because comparisons with it are false.
INLINE Vector clamp(Vector v, float low, float high) {
    const Vector raised = v < low ? broadcast(low) : v;
    return raised > high ? broadcast(high) : raised;
}

// max(0, v); NaN for NaN, because the x86 maximum then returns its second operand. Compilers do not generate this
// instruction on their own.
INLINE Vector relu(Vector v) {
#if defined(__AVX512F__)
    return _mm512_max_ps(Vector{}, v);
#elif defined(__AVX__)
    return _mm256_max_ps(Vector{}, v);
#elif defined(__SSE2__)
    return _mm_max_ps(Vector{}, v);
#else
    return v < 0.0f ? Vector{} : v;
#endif
}

INLINE Vector square_root(Vector v) {
#if defined(__AVX512F__)
    return _mm512_sqrt_ps(v);
#elif defined(__AVX__)
    return _mm256_sqrt_ps(v);
#elif defined(__SSE2__)
    return _mm_sqrt_ps(v);
#else
    for (int i = 0; i < lanes; ++i) v[i] = __builtin_sqrtf(v[i]);
    return v;
#endif
}

// Rounds up to an integer.
INLINE Vector rounded_up(Vector v) {
    typedef VECTOR(std::int32_t, LANES) Integers;
    constexpr float all_integers = 8388608.0f;  // 2^23: larger floats are integers
    const Integers towards_zero = __builtin_convertvector(clamp(v, -all_integers, all_integers), Integers);
    const Vector whole = __builtin_convertvector(towards_zero, Vector);
    return absolute(v) < all_integers ? (whole < v ? whole + 1.0f : whole) : v;
}

// Adds the two halves of a vector.
template <class Half, class Whole>
INLINE Half fold(Whole v) {
    Half half[2];
    static_assert(sizeof half == sizeof v, "half as long");
    std::memcpy(half, &v, sizeof v);
    return half[0] + half[1];
}

// The sum of the lanes of each of four vectors.
INLINE Vector4 sums(Vector4 a, Vector4 b, Vector4 c, Vector4 d) {
    const Vector4 ab = SHUFFLE(Bits4, a, b, 0, 4, 1, 5) + SHUFFLE(Bits4, a, b, 2, 6, 3, 7);
    const Vector4 cd = SHUFFLE(Bits4, c, d, 0, 4, 1, 5) + SHUFFLE(Bits4, c, d, 2, 6, 3, 7);
    return SHUFFLE(Bits4, ab, cd, 0, 1, 4, 5) + SHUFFLE(Bits4, ab, cd, 2, 3, 6, 7);
}
#if LANES >= 8
INLINE Vector4 sums(Vector8 a, Vector8 b, Vector8 c, Vector8 d) {  // as above, for both halves at once
    const Vector8 ab =
        SHUFFLE(Bits8, a, b, 0, 8, 1, 9, 4, 12, 5, 13) + SHUFFLE(Bits8, a, b, 2, 10, 3, 11, 6, 14, 7, 15);
    const Vector8 cd =
        SHUFFLE(Bits8, c, d, 0, 8, 1, 9, 4, 12, 5, 13) + SHUFFLE(Bits8, c, d, 2, 10, 3, 11, 6, 14, 7, 15);
    return fold<Vector4>(SHUFFLE(Bits8, ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) +
                         SHUFFLE(Bits8, ab, cd, 2, 3, 10, 11, 6, 7, 14, 15));
}
#endif
#if LANES == 16
INLINE Vector4 sums(Vector a, Vector b, Vector c, Vector d) {
    return sums(fold<Vector8>(a), fold<Vector8>(b), fold<Vector8>(c), fold<Vector8>(d));
}
#endif

// Adding this rounds to the nearest integer and leaves it in the low bits of the float.
constexpr float rounding = 12582912.0f;  // 1.5 * 2^23

struct Power {
    Vector scale;     // 2^n
    Vector mantissa;  // e^(x - n ln 2) - 1
};

INLINE Power split_exp(Vector x) {
    x = clamp(x, -87.0f, 88.0f);
    const Vector shifted = x * 1.44269504088896341f + rounding;
    const Vector n = shifted - rounding;
    const Vector r = (x - n * 0.693359375f) - n * -2.12194440e-4f;  // ln 2 in two parts (Cody and Waite)
    Vector p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    std::uint32_t zero;
    std::memcpy(&zero, &rounding, sizeof zero);
    return {from_bits((to_bits(shifted) - zero + 127u) << 23), r + r * r * p};
}

INLINE Vector exp(Vector x) {
    const Power e = split_exp(x);
    return e.scale + e.scale * e.mantissa;
}

INLINE Vector expm1(Vector x) {
    const Power e = split_exp(x);
    return e.scale * e.mantissa + (e.scale - 1.0f);
}

INLINE Vector tanh(Vector x) {
    const Vector e = expm1(-2.0f * absolute(x));
    return with_sign_of(-e / (e + 2.0f), x);
}

// log(1 + u) for 0 <= u <= 1, by 2 artanh(u / (2 + u)).
INLINE Vector log1p_unit(Vector u) {
    const Vector s = u / (u + 2.0f), t = s * s;
    Vector p = t * (1.0f / 13) + 1.0f / 11;
    p = p * t + 1.0f / 9;
    p = p * t + 1.0f / 7;
    p = p * t + 1.0f / 5;
    p = p * t + 1.0f / 3;
    return 2.0f * (s + s * t * p);
}

// Sine and cosine, accurate for |x| up to 25 000, where the spacing of float32 is already 0.002. For larger |x| the
// results are only within [-1, 1]; NaN for infinity.
INLINE Vector sine_and_cosine(Vector x, Vector* cosine) {
    const Vector shifted = x * 0.318309886183790672f + rounding;
    const Vector n = shifted - rounding;
    Vector r = x - n * 3.140625f;  // pi in three parts (Cody and Waite)
    r = r - n * 9.67502593994140625e-4f;
    r = r - n * 1.50995799097837643e-7f;
    r = clamp(r, -1.5707964f, 1.5707964f);
    const Vector t = r * r;
    const Bits odd = to_bits(shifted) << 31;  // sin(x) = (-1)^n sin(r), and likewise for the cosine
    Vector s = t * (-1.0f / 39916800) + 1.0f / 362880;
    s = s * t - 1.0f / 5040;
    s = s * t + 1.0f / 120;
    s = s * t - 1.0f / 6;
    if (cosine) {
        Vector c = t * (1.0f / 479001600) - 1.0f / 3628800;
        c = c * t + 1.0f / 40320;
        c = c * t - 1.0f / 720;
        c = c * t + 1.0f / 24;
        c = c * t - 0.5f;
        *cosine = from_bits(to_bits(c * t + 1.0f) ^ odd);
    }
    return from_bits(to_bits(r + r * t * s) ^ odd);
}

}  // namespace
}  // namespace neuralsdf
