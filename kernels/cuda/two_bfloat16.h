// two_bfloat16.h
// Floats as sums of two bfloat16, and tile products in bfloat16 on tensor cores: mma.sync m16n8k16 with float32
// accumulation (Ampere and later). The host implementation computes the same product from the data of the lanes of a
// warp, in the layout that PTX documents ("Matrix Fragments for mma.m16n8k16"), so that host tests detect wrong
// indices.
#pragma once

#include "thread_block.h"

namespace neuralsdf {
namespace gpu {

#ifdef __CUDACC__

// Two floats rounded to bfloat16 in one word; the first in the lower bits.
NEURALSDF_DEVICE unsigned rounded_pair(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

NEURALSDF_DEVICE void load(const float* from, unsigned (&to)[4]) {
    const uint4 v = *reinterpret_cast<const uint4*>(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}

// c += a b for a warp. a(thread): the 4 words of a lane of a 16 x 16 bfloat16 matrix. b(thread): its 2 words of a 16 x
// 8 matrix. c(thread): its 4 floats of a 16 x 8 matrix.
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

// Sums over groups of four neighbouring lanes; all lanes get the result.
template <class Value>
NEURALSDF_DEVICE void sum_of_fours(const Block&, Value value) {
    float& own = value(static_cast<int>(threadIdx.x));
    own += __shfl_xor_sync(0xffffffffu, own, 1);
    own += __shfl_xor_sync(0xffffffffu, own, 2);
}

#else

inline unsigned rounded(unsigned bits) {  // rounds the bits of a float to nearest, ties to even
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;  // NaN
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

// The lower and upper bfloat16 of a word.
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

// Eight floats as pairs of bfloat16: the rounded value and the remainder. Together they keep 16 bits over the range of
// float32.
struct Split {
    unsigned leading[4], rest[4];
};

NEURALSDF_DEVICE void split(float low, float high, unsigned& leading, unsigned& rest) {
    leading = rounded_pair(low, high);
    rest = rounded_pair(low - low_of(leading), high - high_of(leading));
}

}  // namespace gpu
}  // namespace neuralsdf
