#include "cpu/training/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/argument_checks.h"

namespace neuralsdf {

Method method_named(const std::string& name) {
    if (name == "adam") return Method::adam;
    if (name == "soap") return Method::soap;
    throw std::invalid_argument("unknown optimizer " + name);
}

namespace {

struct Extent {
    std::size_t begin;
    int rows, columns;  // kernel and bias
};

// The range of a layer in the flat weights; the output layer has the number `depth`.
Extent extent(const Layout& layout, int l) {
    if (l == layout.depth) return {layout.flat_output, layout.layers[l - 1].outputs + 1, 1};
    return {layout.layers[l].flat, layout.layers[l].inputs + 1, layout.layers[l].outputs};
}

}  // namespace

Trainer::Trainer(const Kernel& kernel, const Architecture& architecture, const float* weights, std::int64_t count,
                 const Optimizer& optimizer)
    : kernel_(kernel),
      layout_(checked_layout(kernel, architecture, count)),
      optimizer_(optimizer),
      weights_(weights, weights + count),
      gradient_(layout_->flat_size),
      packed_(packed_weights(*layout_, weights, true)),
      sums_(*layout_, layout_->tiled ? kernel.tiles->add_loss_gradient : kernel.add_loss_gradient,
            layout_->gradient_size) {
    for (int l = 1; l < layout_->depth; ++l) pack_tiles(kernel, *layout_, l, packed_.get());
    const auto is_decay_rate = [](float beta) { return 0 <= beta && beta < 1; };
    require(is_decay_rate(optimizer.beta1) && is_decay_rate(optimizer.beta2),
            "beta1 and beta2 must be at least 0 and less than 1");
    require(optimizer.epsilon >= 0 && std::isfinite(optimizer.epsilon), "epsilon must be finite and not negative");
    require(optimizer.refresh >= 1, "refresh must be at least 1");
}

std::vector<float> Trainer::weights() const {
    const std::lock_guard<std::mutex> alone(busy_);
    return weights_;
}

// Sums the gradients of the partitions in order, layer by layer. If `rate` is not null, the optimizer then performs a
// step.
void Trainer::optimise(const Batch& batch, const float* rate, const Workers& workers) {
    const float factor = 1 / static_cast<float>(std::max<std::int64_t>(1, batch.count));
    run_tasks(layout_->depth + 1, workers, [&](int, std::int64_t index, const auto&) {
        const int l = static_cast<int>(index);
        const std::size_t begin = l ? packed_end(*layout_, l - 1) : 0, end = packed_end(*layout_, l);
        unpack_layer(*layout_, l, sums_.total(begin, end), factor, gradient_.data());
        if (!rate) return;
        update_layer(l, *rate);
        pack_layer(*layout_, l, weights_.data(), packed_.get(), true);
        pack_tiles(kernel_, *layout_, l, packed_.get());
    });
}

// Allocates the state of the optimizer before the first step.
void Trainer::make_states() {
    if (optimizer_.method == Method::adam) {
        mean_.resize(weights_.size()), square_.resize(weights_.size());
    } else if (shapes_.empty()) {
        for (int l = 0; l <= layout_->depth; ++l) {
            const Extent layer = extent(*layout_, l);
            shapes_.push_back(kernel_.soap.shape(layer.rows, layer.columns));
            const std::size_t size = kernel_.soap.state_size(shapes_.back());
            states_.push_back(make_buffer(size));
            std::memset(states_.back().get(), 0, sizeof(float) * size);
        }
    }
}

void Trainer::update_layer(int l, float rate) {
    const Extent layer = extent(*layout_, l);
    const float* gradient = gradient_.data() + layer.begin;
    float* weights = weights_.data() + layer.begin;
    const auto correction = [this](float beta) {
        return static_cast<float>(1 - std::pow(double(beta), double(steps_)));
    };
    const auto [method, beta1, beta2, epsilon, refresh] = optimizer_;
    if (method == Method::soap) {
        const SoapRates rates{rate, beta2, epsilon, correction(beta2), steps_ == 1, steps_ % refresh == 0};
        return kernel_.soap.step(shapes_[l], rates, gradient, weights, states_[l].get());
    }
    float *mean = mean_.data() + layer.begin, *square = square_.data() + layer.begin;
    const float mean_scale = 1 / correction(beta1), square_scale = 1 / correction(beta2);
    for (std::size_t i = 0; i < std::size_t(layer.rows) * layer.columns; ++i) {
        mean[i] += (1 - beta1) * (gradient[i] - mean[i]);
        square[i] += (1 - beta2) * (gradient[i] * gradient[i] - square[i]);
        weights[i] -= rate * (mean[i] * mean_scale) / (std::sqrt(square[i] * square_scale) + epsilon);
    }
}

void Trainer::steps(const float* points, const float* targets, std::int64_t n, const std::vector<std::int64_t>& order,
                    std::int64_t batch, const float* rates, std::int64_t steps, double* losses,
                    const Workers& workers) {
    const auto chosen = static_cast<std::int64_t>(order.size());
    // A quotient, because the product could overflow.
    require(batch >= 1 && chosen >= 1 && (chosen - 1) / batch + 1 == steps, "order must have one batch per rate");
    require(all_finite(rates, steps), "rates must be finite");
    for (const std::int64_t index : order)
        if (index < 0 || index >= n) throw std::out_of_range("order has an index that is out of range");
    const std::lock_guard<std::mutex> alone(busy_);
    make_states();
    for (std::int64_t s = 0; s < steps; ++s) {
        const std::int64_t first = s * batch, count = std::min(batch, chosen - first);
        const Batch now{points, targets, order.data() + first, count, chosen - first};
        ++steps_;
        sums_.compute(packed_.get(), now, workers);
        optimise(now, rates + s, workers);
        losses[s] = sums_.loss() / static_cast<double>(count);
    }
}

double Trainer::loss_gradient(const float* points, const float* targets, std::int64_t n, float* gradient,
                              const Workers& workers) {
    const Batch all{points, targets, nullptr, n, n};
    const std::lock_guard<std::mutex> alone(busy_);
    sums_.compute(packed_.get(), all, workers);
    optimise(all, nullptr, workers);
    std::copy(gradient_.begin(), gradient_.end(), gradient);
    return sums_.loss() / static_cast<double>(std::max<std::int64_t>(1, n));
}

}  // namespace neuralsdf
