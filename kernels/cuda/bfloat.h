// bfloat.h
// Floats as sums of two bfloat16, and products of tiles of bfloat16 on tensor cores: mma.sync m16n8k16, summed in
// float32, from Ampere on. On the host the same product is taken of what the lanes of a warp hold, by the layout that
// PTX documents ("Matrix Fragments for mma.m16n8k16"), so that an index that is wrong is wrong there too.
#pragma once

#include "block.h"

namespace neuralsdf {
namespace gpu {

#ifdef __CUDACC__

// Two floats rounded to bfloat16, in a word; the first in its lower bits.
NEURALSDF_DEVICE unsigned rounded_pair(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

NEURALSDF_DEVICE void load(const float* from, unsigned (&to)[4]) {
    const uint4 v = *reinterpret_cast<const uint4*>(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}

// c += a b of a warp: a(thread) are the 4 words that a lane holds of 16 x 16 bfloat16, b(thread) the 2 of 16 x 8,
// c(thread) the 4 floats of 16 x 8.
template <class A, class B, class C>
NEURALSDF_DEVICE void multiply_tiles(const Block&, A a, B b, C c) {
    const int thread = static_cast<int>(threadIdx.x);
    const unsigned(&left)[4] = a(thread);
    const unsigned* right = b(thread);
    float(&sums)[4] = c(thread);
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
}

// The sum over every four neighbouring lanes, in all of them.
template <class Value>
NEURALSDF_DEVICE void sum_of_fours(const Block&, Value value) {
    float& own = value(static_cast<int>(threadIdx.x));
    own += __shfl_xor_sync(0xffffffffu, own, 1);
    own += __shfl_xor_sync(0xffffffffu, own, 2);
}

#else

inline unsigned rounded(unsigned bits) {  // a float's, to nearest, ties to even
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;  // what is no number
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

inline unsigned rounded_pair(float low, float high) { return rounded(bits_of(low)) | rounded(bits_of(high)) << 16; }

inline void load(const float* from, unsigned (&to)[4]) {
    for (int i = 0; i < 4; ++i) to[i] = bits_of(from[i]);
}

template <class Value>
void sum_of_fours(const Block& block, Value value) {
    for (int four = 0; four < block.threads(); four += 4) {
        const float sum = (value(four) + value(four + 1)) + (value(four + 2) + value(four + 3));
        for (int thread = four; thread < four + 4; ++thread) value(thread) = sum;
    }
}

#endif

// The two bfloat16 of a word.
NEURALSDF_DEVICE float low_of(unsigned pair) { return float_of(pair << 16); }
NEURALSDF_DEVICE float high_of(unsigned pair) { return float_of(pair & 0xffff0000u); }

#ifndef __CUDACC__

template <class A, class B, class C>
void multiply_tiles(const Block& block, A a, B b, C c) {
    for (int warp = 0; warp < block.threads(); warp += warp_threads) {
        float left[16][16], right[16][8];
        for (int lane = 0; lane < warp_threads; ++lane) {
            const int group = lane / 4, pair = 2 * (lane % 4);
            for (int i = 0; i < 4; ++i) {
                float* const to = &left[group + 8 * (i % 2)][pair + 8 * (i / 2)];
                to[0] = low_of(a(warp + lane)[i]);
                to[1] = high_of(a(warp + lane)[i]);
            }
            for (int i = 0; i < 2; ++i) {
                right[pair + 8 * i][group] = low_of(b(warp + lane)[i]);
                right[pair + 8 * i + 1][group] = high_of(b(warp + lane)[i]);
            }
        }
        for (int lane = 0; lane < warp_threads; ++lane)
            for (int i = 0; i < 4; ++i) {
                const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
                float& sum = c(warp + lane)[i];
                for (int k = 0; k < 16; ++k) sum += left[row][k] * right[k][column];
            }
    }
}

#endif

// Eight floats as pairs of bfloat16: rounded, and what rounding left of them. Together they keep 16 bits, over all of
// float32's range.
struct Split {
    unsigned leading[4], rest[4];
};

NEURALSDF_DEVICE void split(float low, float high, unsigned& leading, unsigned& rest) {
    leading = rounded_pair(low, high);
    rest = rounded_pair(low - low_of(leading), high - high_of(leading));
}

}  // namespace gpu
}  // namespace neuralsdf
