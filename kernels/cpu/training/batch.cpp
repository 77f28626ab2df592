#include "cpu/training/batch.h"

#include <cstring>

namespace neuralsdf {

// Number of points per partition. Two blocks, but larger if there would be more than 64 gradients or 64 MiB of them.
std::int64_t PartitionSums::partition_points(std::int64_t count) const {
    const auto buffers = static_cast<std::int64_t>((std::size_t(1) << 24) / size_);
    const std::int64_t most = std::max<std::int64_t>(1, std::min<std::int64_t>(64, buffers));
    const std::int64_t blocks = (count + block_points - 1) / block_points;
    return std::max<std::int64_t>(2, (blocks + most - 1) / most) * block_points;
}

void PartitionSums::compute(const float* packed, const Batch& batch, const Workers& workers) {
    const std::int64_t partition = partition_points(batch.count);
    const std::int64_t partitions = (batch.count + partition - 1) / partition;
    const int threads = useful_threads(workers.threads, partitions);
    const std::size_t workspace = whole_lines(gradient_workspace(layout_));
    if (workspaces_size_ < workspace * threads) workspaces_ = make_buffer(workspaces_size_ = workspace * threads);
    const std::size_t sums = stride_ * std::max<std::int64_t>(1, partitions);
    if (sums_size_ < sums) sums_ = make_buffer(sums_size_ = sums);
    losses_.assign(partitions, 0.0);
    if (partitions == 0) std::memset(sums_.get(), 0, sizeof(float) * stride_);
    run_tasks(partitions, {threads, workers.interrupted}, [&](int slot, std::int64_t index, const auto& stopped) {
        float* sum = sums_.get() + stride_ * index;
        std::memset(sum, 0, sizeof(float) * stride_);
        const std::int64_t first = index * partition, last = std::min(first + partition, batch.count);
        for_blocks(first, last, stopped, [&](std::int64_t at, int count) {
            // Threads take partitions in turn, so the next one of this thread is about `threads` partitions later.
            const std::int64_t beyond = std::min(first + threads * partition, batch.count);
            const Samples next = batch.block(at + count < last ? at + count : beyond, batch.ahead);
            losses_[index] +=
                add_(layout_, packed, batch.block(at, last), next, sum, workspaces_.get() + workspace * slot);
        });
    });
}

float* PartitionSums::total(std::size_t begin, std::size_t end) {
    float* sum = sums_.get();
    for (std::size_t p = 1; p < losses_.size(); ++p) {
        const float* from = sum + stride_ * p;
        for (std::size_t i = begin; i < end; ++i) sum[i] += from[i];
    }
    return sum;
}

double PartitionSums::loss() const {
    double loss = 0;
    for (const double part : losses_) loss += part;
    return loss;
}

}  // namespace neuralsdf
