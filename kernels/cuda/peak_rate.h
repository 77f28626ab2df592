// peak_rate.h
// Multiply-adds in registers only: the peak of the multiprocessors, to which benchmarks compare other kernels.
#pragma once

#include "activation_functions.h"

namespace neuralsdf {
namespace gpu {

struct Peak {
    float* results;  // (threads of all blocks,)
    int rounds;
};

constexpr int chains = 32;  // per thread; a round performs one multiply-add per chain

NEURALSDF_DEVICE void peak(const Block& block, const Peak& a) {
    block.each([&](int thread) {
        float sums[chains];
        NEURALSDF_UNROLL for (int i = 0; i < chains; ++i) sums[i] = static_cast<float>(thread + i);
        const float factor = 1.0f / (2.0f + static_cast<float>(a.rounds));  // unknown to the compiler
        NEURALSDF_UNROLL_BY_4 for (int round = 0; round < a.rounds; ++round)
            NEURALSDF_UNROLL for (int i = 0; i < chains; ++i) sums[i] = multiply_add(sums[i], factor, factor);
        float sum = 0.0f;
        NEURALSDF_UNROLL for (int i = 0; i < chains; ++i) sum += sums[i];
        a.results[block.index() * block.threads() + thread] = sum;
    });
}

}  // namespace gpu
}  // namespace neuralsdf
