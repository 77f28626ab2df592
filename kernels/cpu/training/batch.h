// The samples of a batch, and sums over them. A batch is divided into partitions that depend only on its size, so that
// sums are bitwise equal for any number of threads.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/mlp/network_program.h"

namespace neuralsdf {

// Samples 0 <= i < count of points and targets, selected by `order` unless it is null.
struct Batch {
    const float *points, *targets;
    const std::int64_t* order;
    std::int64_t count;
    std::int64_t ahead;  // number of samples from the first one, including later batches

    // The samples from `first`, at most a block and before `last`.
    Samples block(std::int64_t first, std::int64_t last) const {
        const int size =
            static_cast<int>(std::max<std::int64_t>(0, std::min<std::int64_t>(block_points, last - first)));
        return order ? Samples{points, targets, order + first, size}
                     : Samples{points + 3 * first, targets + first, nullptr, size};
    }
};

// The loss of a batch and its gradient, summed over each partition.
class PartitionSums {
  public:
    // Adds a block's gradient, as `Kernel::add_loss_gradient` does.
    using AddGradient = decltype(Kernel::add_loss_gradient);

    // size: of a gradient, in floats.
    PartitionSums(const Layout& layout, AddGradient add, std::size_t size)
        : layout_(layout), add_(add), size_(size), stride_(whole_lines(size)) {}

    // Computes the sums with packed weights. There is at least one partition, also for an empty batch.
    void compute(const float* packed, const Batch& batch, const Workers& workers);

    // Adds the gradients of all partitions from `begin` to `end`, in order, to that of the first; returns the latter.
    float* total(std::size_t begin, std::size_t end);

    // The loss of all partitions.
    double loss() const;

  private:
    std::int64_t partition_points(std::int64_t count) const;

    const Layout& layout_;
    const AddGradient add_;
    const std::size_t size_, stride_;
    Buffer sums_, workspaces_;
    std::size_t sums_size_ = 0, workspaces_size_ = 0;
    std::vector<double> losses_;  // per partition
};

}  // namespace neuralsdf
