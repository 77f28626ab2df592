// activation_functions.h
// Elementary functions for networks, accurate to a few units in the last place, and the activation functions. The
// arithmetic is the same on the GPU and on the host (and, lane by lane, in simd.h). NaN gives NaN.
#pragma once

#include "thread_block.h"

namespace neuralsdf {
namespace gpu {

enum Activation { relu, sine, softplus, silu, elu, hyperbolic };  // as ACTIVATIONS in network.py
enum Output { tanh_output, linear_output };                       // as OUTPUTS

#ifdef __CUDACC__
NEURALSDF_DEVICE float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
NEURALSDF_DEVICE float two_to_the(int n) { return __int_as_float((n + 127) << 23); }
NEURALSDF_DEVICE float absolute(float x) { return fabsf(x); }
NEURALSDF_DEVICE float rounded(float x) { return rintf(x); }
NEURALSDF_DEVICE float rectified(float z) {  // fmaxf would turn NaN into 0
    float y;
    asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(y) : "f"(z));
    return y;
}
#else
NEURALSDF_DEVICE float multiply_add(float a, float b, float c) { return a * b + c; }
NEURALSDF_DEVICE float two_to_the(int n) { return std::ldexp(1.0f, n); }
NEURALSDF_DEVICE float absolute(float x) { return std::fabs(x); }
NEURALSDF_DEVICE float rounded(float x) { return std::nearbyint(x); }
NEURALSDF_DEVICE float rectified(float z) { return z < 0.0f ? 0.0f : z; }
#endif

NEURALSDF_DEVICE float clamp(float x, float low, float high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

struct Power {
    float scale;     // 2^n
    float mantissa;  // e^(x - n ln 2) - 1
};

NEURALSDF_DEVICE Power split_exponential(float x) {
    x = clamp(x, -87.0f, 88.0f);
    const float n = rounded(x * 1.44269504088896341f);
    const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;  // ln 2 in two parts (Cody and Waite)
    float p = multiply_add(r, 1.0f / 5040, 1.0f / 720);
    p = multiply_add(p, r, 1.0f / 120);
    p = multiply_add(p, r, 1.0f / 24);
    p = multiply_add(p, r, 1.0f / 6);
    p = multiply_add(p, r, 0.5f);
    const bool number = x == x;  // a NaN has no exponent; it is kept in the mantissa
    return {two_to_the(number ? static_cast<int>(n) : 0), multiply_add(r * r, p, r)};
}

NEURALSDF_DEVICE float exponential(float x) {
    const Power e = split_exponential(x);
    return multiply_add(e.scale, e.mantissa, e.scale);
}

NEURALSDF_DEVICE float exponential_minus_1(float x) {
    const Power e = split_exponential(x);
    return multiply_add(e.scale, e.mantissa, e.scale - 1.0f);
}

NEURALSDF_DEVICE float hyperbolic_tangent(float x) {
    const float e = exponential_minus_1(-2.0f * absolute(x));
    const float y = -e / (e + 2.0f);
    return x < 0.0f ? -y : y;
}

// log(1 + u) for 0 <= u <= 1, by 2 artanh(u / (2 + u)).
NEURALSDF_DEVICE float logarithm_of_1_plus(float u) {
    const float s = u / (u + 2.0f), t = s * s;
    float p = multiply_add(t, 1.0f / 13, 1.0f / 11);
    p = multiply_add(p, t, 1.0f / 9);
    p = multiply_add(p, t, 1.0f / 7);
    p = multiply_add(p, t, 1.0f / 5);
    p = multiply_add(p, t, 1.0f / 3);
    return 2.0f * multiply_add(s * t, p, s);
}

// Sine and cosine, accurate for |x| up to 25 000, where the spacing of float32 is already 0.002.
NEURALSDF_DEVICE float sine_and_cosine(float x, float& cosine) {
    const float n = rounded(x * 0.318309886183790672f);
    float r = x - n * 3.140625f;  // pi in three parts (Cody and Waite)
    r = r - n * 9.67502593994140625e-4f;
    r = r - n * 1.50995799097837643e-7f;
    r = clamp(r, -1.5707964f, 1.5707964f);
    const float t = r * r;
    // sin(x) = (-1)^n sin(r), and likewise for the cosine. The sign is arbitrary if n is too large for a parity.
    const float half = n * 0.5f, sign = half == rounded(half) ? 1.0f : -1.0f;
    float s = multiply_add(t, -1.0f / 39916800, 1.0f / 362880);
    s = multiply_add(s, t, -1.0f / 5040);
    s = multiply_add(s, t, 1.0f / 120);
    s = multiply_add(s, t, -1.0f / 6);
    float c = multiply_add(t, 1.0f / 479001600, -1.0f / 3628800);
    c = multiply_add(c, t, 1.0f / 40320);
    c = multiply_add(c, t, -1.0f / 720);
    c = multiply_add(c, t, 1.0f / 24);
    c = multiply_add(c, t, -0.5f);
    cosine = sign * multiply_add(c, t, 1.0f);
    return sign * multiply_add(r * t, s, r);
}

struct Sigmoid {
    float value;
    float exponential;  // e^-|x|
};

NEURALSDF_DEVICE Sigmoid sigmoid(float x) {
    const float e = exponential(-absolute(x));
    return {(x < 0.0f ? e : 1.0f) / (1.0f + e), e};
}

struct Activated {
    float value, slope;
};

NEURALSDF_DEVICE Activated activated(int activation, float z) {
    switch (activation) {
        case sine: {
            float cosine;
            const float value = sine_and_cosine(30.0f * z, cosine);
            return {value, 30.0f * cosine};
        }
        case softplus: {  // log(1 + exp(100 z)) / 100
            const Sigmoid s = sigmoid(100.0f * z);
            return {rectified(z) + 0.01f * logarithm_of_1_plus(s.exponential), s.value};
        }
        case silu: {  // z sigmoid(z)
            const float s = sigmoid(z).value;
            return {z * s, multiply_add(z * s, 1.0f - s, s)};
        }
        case elu: {  // z for z > 0, otherwise exp(z) - 1
            const float low = exponential_minus_1(z);
            return z > 0.0f ? Activated{z, 1.0f} : Activated{low, low + 1.0f};
        }
        case hyperbolic: {
            const float y = hyperbolic_tangent(z);
            return {y, 1.0f - y * y};
        }
        default: return {rectified(z), z > 0.0f ? 1.0f : 0.0f};
    }
}

}  // namespace gpu
}  // namespace neuralsdf
