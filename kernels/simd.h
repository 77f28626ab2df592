// simd.h
// Vectors as wide as the instruction set being compiled for, and the elementary functions on them,
// to within a few units in the last place. NaN gives NaN.
// Everything has internal linkage: kernel.cpp is compiled once for each instruction set, and the
// linker must not merge the versions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#define INLINE inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define SHUFFLE4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define UNROLL _Pragma("GCC unroll 32")
#define SHUFFLE4(a, b, i, j, k, l) __builtin_shuffle(a, b, Bits4{i, j, k, l})
#endif

namespace neuralsdf {
namespace {

#if defined(__AVX512F__)
constexpr int lanes = 16, registers = 32;
#elif defined(__AVX__)
constexpr int lanes = 8, registers = 16;
#elif defined(__aarch64__)
constexpr int lanes = 4, registers = 32;
#else
constexpr int lanes = 4, registers = 16;
#endif

typedef float Vector __attribute__((vector_size(lanes * 4), aligned(4), may_alias));
typedef std::uint32_t Bits __attribute__((vector_size(lanes * 4), aligned(4), may_alias));
typedef float Vector4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef std::uint32_t Bits4 __attribute__((vector_size(16), aligned(4), may_alias));

INLINE Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
INLINE void store(float* to, Vector v) { *reinterpret_cast<Vector*>(to) = v; }
INLINE Vector broadcast(float s) { return Vector{} + s; }
INLINE Vector from_bits(Bits b) { return reinterpret_cast<Vector>(b); }
INLINE Bits to_bits(Vector v) { return reinterpret_cast<Bits>(v); }
INLINE Vector absolute(Vector v) { return from_bits(to_bits(v) & 0x7fffffffu); }
INLINE Vector with_sign_of(Vector magnitude, Vector sign) {
    return from_bits(to_bits(magnitude) | (to_bits(sign) & 0x80000000u));
}
// NaN stays NaN: it compares false, so it is never replaced.
INLINE Vector clamp(Vector v, float low, float high) {
    const Vector raised = v < low ? broadcast(low) : v;
    return raised > high ? broadcast(high) : raised;
}
INLINE Vector relu(Vector v) { return v < 0.0f ? Vector{} : v; }

INLINE Vector4 quarter_sum(Vector v) {
    Vector4 part[lanes / 4];
    std::memcpy(part, &v, sizeof v);
    if constexpr (lanes == 16) return (part[0] + part[1]) + (part[2] + part[3]);
    if constexpr (lanes == 8) return part[0] + part[1];
    return part[0];
}

// The sums of the lanes of four vectors.
INLINE Vector4 sums(Vector a, Vector b, Vector c, Vector d) {
    const Vector4 p = quarter_sum(a), q = quarter_sum(b), r = quarter_sum(c), s = quarter_sum(d);
    const Vector4 pq = SHUFFLE4(p, q, 0, 4, 1, 5) + SHUFFLE4(p, q, 2, 6, 3, 7);
    const Vector4 rs = SHUFFLE4(r, s, 0, 4, 1, 5) + SHUFFLE4(r, s, 2, 6, 3, 7);
    return SHUFFLE4(pq, rs, 0, 1, 4, 5) + SHUFFLE4(pq, rs, 2, 3, 6, 7);
}

// Adding it leaves the nearest integer in the low bits of a float.
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

// Sine and cosine; good to |x| of 25 000, where a float32 phase already steps by 0.002. Beyond that
// they are merely within [-1, 1], and NaN where x is infinite.
INLINE Vector sine_and_cosine(Vector x, Vector* cosine) {
    const Vector shifted = x * 0.318309886183790672f + rounding;
    const Vector n = shifted - rounding;
    Vector r = x - n * 3.140625f;  // pi in three parts (Cody and Waite)
    r = r - n * 9.67502593994140625e-4f;
    r = r - n * 1.50995799097837643e-7f;
    r = clamp(r, -1.5707964f, 1.5707964f);
    const Vector t = r * r;
    const Bits odd = to_bits(shifted) << 31;  // sin(x) = (-1)^n sin(r), and so the cosine
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
