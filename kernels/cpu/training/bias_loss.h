// The loss of a network whose hidden biases change while its other weights are fixed, and its gradient with respect to
// these biases. It costs two thirds of a gradient with respect to all weights.
#pragma once

#include <memory>
#include <mutex>

#include "cpu/training/batch.h"

namespace neuralsdf {

// Thread-safe: concurrent calls are serialised.
class BiasLoss {
  public:
    // `weights` (count,): as in NetworkProgram.
    BiasLoss(const Kernel& kernel, const Architecture& architecture, const float* weights, std::int64_t count);

    // Number of biases of all hidden layers.
    std::int64_t size() const;

    // Returns the mean |f(x) - d| over points (n, 3) and targets (n,) with these hidden biases (size,), and writes its
    // gradient (size,) with respect to them.
    double gradient(const float* biases, const float* points, const float* targets, std::int64_t n, float* gradient,
                    const Workers& workers);

  private:
    std::mutex busy_;  // guards the members below
    const std::unique_ptr<Layout> layout_;
    const Buffer packed_;
    PartitionSums sums_;
};

}  // namespace neuralsdf
