// The loss of a block of samples, shared by all implementations of the backward pass. Internal linkage, as in simd.h.
#pragma once

#include "cpu/kernels_by_instruction_set.h"
#include "cpu/simd.h"

namespace neuralsdf {
namespace {

// Copies the points (count, 3) and targets (count,) of samples.
INLINE void gather(const Samples& samples, float* points, float* targets) {
    for (int b = 0; b < samples.count; ++b) {
        const std::int64_t sample = samples.order ? samples.order[b] : b;
        std::memcpy(points + 3 * b, samples.points + 3 * sample, sizeof(float) * 3);
        targets[b] = samples.targets[sample];
    }
}

// Prefetches part number `part` of `parts` of the samples. Prefetching all samples at once would stall.
INLINE void prefetch_part(const Samples& samples, int part, int parts) {
    for (int b = samples.count * part / parts; b < samples.count * (part + 1) / parts; ++b) {
        const std::int64_t sample = samples.order ? samples.order[b] : b;
        __builtin_prefetch(samples.points + 3 * sample, 0, 2);  // into the L2 cache
        __builtin_prefetch(samples.targets + sample, 0, 2);
    }
}

// Returns the sum of |values - targets| (count,). Multiplies `slopes` (block_points,), the derivatives of the output
// activation, by the sign of the errors, which gives the derivatives with respect to the output layer's z; sets them to
// 0 from `count` on.
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
