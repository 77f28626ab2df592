#include "cpu/training/bias_loss.h"

namespace neuralsdf {

BiasLoss::BiasLoss(const Kernel& kernel, const Architecture& architecture, const float* weights, std::int64_t count)
    : layout_(checked_layout(kernel, architecture, count)),
      packed_(packed_weights(*layout_, weights, true)),
      sums_(*layout_, layout_->tiled ? kernel.tiles->add_bias_gradient : kernel.add_bias_gradient,
            layout_->hidden_biases_size) {
    for (int l = 1; l < layout_->depth; ++l) pack_tiles(kernel, *layout_, l, packed_.get());
}

std::int64_t BiasLoss::size() const {
    std::int64_t size = 0;
    for (int l = 0; l < layout_->depth; ++l) size += layout_->layers[l].outputs;
    return size;
}

double BiasLoss::gradient(const float* biases, const float* points, const float* targets, std::int64_t n,
                          float* gradient, const Workers& workers) {
    const std::lock_guard<std::mutex> alone(busy_);
    for (int l = 0; l < layout_->depth; ++l) {
        const Layer& layer = layout_->layers[l];
        std::copy_n(biases, layer.outputs, packed_.get() + layer.bias);
        biases += layer.outputs;
    }
    sums_.compute(packed_.get(), {points, targets, nullptr, n, n}, workers);
    const auto count = static_cast<double>(std::max<std::int64_t>(1, n));
    const float* sum = sums_.total(0, layout_->hidden_biases_size);
    for (int l = 0; l < layout_->depth; ++l) {
        const Layer& layer = layout_->layers[l];
        for (int i = 0; i < layer.outputs; ++i) *gradient++ = sum[layer.hidden_bias + i] / static_cast<float>(count);
    }
    return sums_.loss() / count;
}

}  // namespace neuralsdf
