// The loss at a block of samples, for all ways to differentiate a network. Internal linkage, as simd.h has it.
#pragma once

#include "cpu/kernel_table.h"
#include "cpu/simd.h"

namespace neuralsdf {
namespace {

// Copies the samples' points (count, 3) and targets (count,).
INLINE void gather(const Samples& samples, float* points, float* targets) {
    for (int b = 0; b < samples.count; ++b) {
        const std::int64_t sample = samples.order ? samples.order[b] : b;
        std::memcpy(points + 3 * b, samples.points + 3 * sample, sizeof(float) * 3);
        targets[b] = samples.targets[sample];
    }
}

// Asks for a share of the samples: all at once, they would wait for each other.
INLINE void fetch_share(const Samples& samples, int share, int shares) {
    for (int b = samples.count * share / shares; b < samples.count * (share + 1) / shares; ++b) {
        const std::int64_t sample = samples.order ? samples.order[b] : b;
        __builtin_prefetch(samples.points + 3 * sample, 0, 2);  // into the L2 cache
        __builtin_prefetch(samples.targets + sample, 0, 2);
    }
}

// The sum of |values - targets| (count,). `slopes` (block_points,), those of the output layer, become its
// derivatives by what that layer puts out: zero from `count` on.
INLINE double absolute_errors(const float* values, const float* targets, int count, float* slopes) {
    alignas(64) float errors[block_points];
    for (int b = 0; b < count; ++b) errors[b] = values[b] - targets[b];
    for (int b = count; b < block_points; ++b) errors[b] = slopes[b] = 0;
    Vector sum = {};
    for (int b = 0; b < count; b += lanes) {
        const Vector error = load(errors + b);
        const Vector sign = error > 0.0f ? broadcast(1.0f) : error < 0.0f ? broadcast(-1.0f) : error;  // NaN for NaN
        sum += absolute(error);
        store(slopes + b, load(slopes + b) * sign);
    }
    double loss = 0;
    for (int i = 0; i < lanes; ++i) loss += sum[i];
    return loss;
}

}  // namespace
}  // namespace neuralsdf
