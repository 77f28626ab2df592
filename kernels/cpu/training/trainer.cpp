#include "cpu/training/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace neuralsdf {

Method method_named(const std::string& name) {
    if (name == "adam") return Method::adam;
    if (name == "soap") return Method::soap;
    throw py::value_error("unknown optimizer " + name);
}

namespace {

// Points whose gradients are summed in one buffer: two blocks, but no more than 64 buffers or 64 MiB of them.
std::int64_t partition_points(std::int64_t points, const Layout& layout) {
    const auto buffers = static_cast<std::int64_t>((std::size_t(1) << 24) / layout.gradient_size);
    const std::int64_t most = std::max<std::int64_t>(1, std::min<std::int64_t>(64, buffers));
    const std::int64_t blocks = (points + block_points - 1) / block_points;
    return std::max<std::int64_t>(2, (blocks + most - 1) / most) * block_points;
}

struct Extent {
    std::size_t begin;
    int rows, columns;  // kernel and bias
};

// A layer in the flat vector; the output layer has the number `depth`.
Extent extent(const Layout& layout, int l) {
    if (l == layout.depth) return {layout.flat_output, layout.layers[l - 1].outputs + 1, 1};
    return {layout.layers[l].flat, layout.layers[l].inputs + 1, layout.layers[l].outputs};
}

}  // namespace

// Samples 0 <= i < count of a batch, chosen by `order` where there is one.
struct Trainer::Batch {
    const float *points, *targets;
    const std::int64_t* order;
    std::int64_t count, partition;
    std::int64_t ahead;  // samples from its first on, those of later batches included

    std::int64_t partitions() const { return (count + partition - 1) / partition; }

    // Those from `first` on that make a block and do not reach `last`.
    Samples block(std::int64_t first, std::int64_t last) const {
        const int size = static_cast<int>(std::max<std::int64_t>(0, std::min<std::int64_t>(block_points, last - first)));
        return order ? Samples{points, targets, order + first, size}
                     : Samples{points + 3 * first, targets + first, nullptr, size};
    }
};

Trainer::Trainer(const Kernel& kernel, const py::array& weights, const std::vector<int>& hidden,
                 const std::string& activation, const std::string& output, const Optimizer& optimizer)
    : kernel_(kernel),
      layout_(checked_layout(kernel, weights, hidden, activation, output)),
      optimizer_(optimizer),
      weights_(layout_->flat_size),
      gradient_(layout_->flat_size),
      packed_(packed_weights(*layout_, weights, true)),
      stride_(whole_lines(layout_->gradient_size)) {
    std::copy_n(static_cast<const float*>(weights.data()), weights_.size(), weights_.begin());
    for (int l = 1; l < layout_->depth; ++l) pack_tiles(kernel, *layout_, l, packed_.get());
    const auto is_share = [](float beta) { return 0 <= beta && beta < 1; };
    require(is_share(optimizer.beta1) && is_share(optimizer.beta2), "beta1 and beta2 must be at least 0 and less than 1");
    require(optimizer.epsilon >= 0 && std::isfinite(optimizer.epsilon), "epsilon must be finite and not negative");
    require(optimizer.refresh >= 1, "refresh must be at least 1");
}

py::array_t<float> Trainer::weights() const {
    std::vector<float> weights;
    {
        const py::gil_scoped_release release;
        const std::lock_guard<std::mutex> alone(busy_);
        weights = weights_;
    }
    return py::array_t<float>(static_cast<py::ssize_t>(weights.size()), weights.data());
}

// Sums of the gradients of every partition; false if interrupted.
bool Trainer::add_gradients(const Batch& batch, int threads) {
    const std::int64_t partitions = batch.partitions();
    threads = useful_threads(threads, partitions);
    const std::size_t workspace = whole_lines(gradient_workspace(*layout_));
    if (workspaces_size_ < workspace * threads) workspaces_ = make_buffer(workspaces_size_ = workspace * threads);
    const std::size_t sums = stride_ * std::max<std::int64_t>(1, partitions);
    if (sums_size_ < sums) sums_ = make_buffer(sums_size_ = sums);
    losses_.assign(partitions, 0.0);
    const auto add_loss_gradient = layout_->tiled ? kernel_.tiles->add_loss_gradient : kernel_.add_loss_gradient;
    if (partitions == 0) std::memset(sums_.get(), 0, sizeof(float) * stride_);
    return run_job(partitions, threads, [&](int slot, std::int64_t index, const auto& stopped) {
        float* sum = sums_.get() + stride_ * index;
        std::memset(sum, 0, sizeof(float) * stride_);
        const std::int64_t first = index * batch.partition, last = std::min(first + batch.partition, batch.count);
        for_blocks(first, last, stopped, [&](std::int64_t at, int count) {
            // Partitions are taken in turn, so this thread's next is about as many on as there are threads.
            const std::int64_t beyond = std::min(first + threads * batch.partition, batch.count);
            const Samples next = batch.block(at + count < last ? at + count : beyond, batch.ahead);
            losses_[index] += add_loss_gradient(*layout_, packed_.get(), batch.block(at, last), next, sum,
                                                workspaces_.get() + workspace * slot);
        });
    });
}

// Sums the partitions' gradients in their order and, layer by layer and if there is a `rate`, lets the optimiser
// follow; false if interrupted.
bool Trainer::optimise(const Batch& batch, const float* rate, int threads) {
    const std::int64_t partitions = batch.partitions();
    const float factor = 1 / static_cast<float>(std::max<std::int64_t>(1, batch.count));
    return run_job(layout_->depth + 1, threads, [&](int, std::int64_t index, const auto&) {
        const int l = static_cast<int>(index);
        const std::size_t begin = l ? packed_end(*layout_, l - 1) : 0, end = packed_end(*layout_, l);
        float* sum = sums_.get();
        for (std::int64_t p = 1; p < partitions; ++p) {
            const float* from = sum + stride_ * p;
            for (std::size_t i = begin; i < end; ++i) sum[i] += from[i];
        }
        unpack_layer(*layout_, l, sum, factor, gradient_.data());
        if (!rate) return;
        update_layer(l, *rate);
        pack_layer(*layout_, l, weights_.data(), packed_.get(), true);
        pack_tiles(kernel_, *layout_, l, packed_.get());
    });
}

// The optimiser's state, before its first step.
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
    const auto correction = [this](float beta) { return static_cast<float>(1 - std::pow(double(beta), double(steps_))); };
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

py::array_t<double> Trainer::steps(const py::array& points, const py::array& targets, const py::array& order,
                                   std::int64_t batch, const py::array& rates, int threads) {
    const float *x = checked_points(points), *d = floats(targets, "targets", 1), *rate = floats(rates, "rates", 1);
    const auto* indices = checked_data<std::int64_t>(order, "order", "int64", 1);
    const std::int64_t n = points.shape(0), chosen_count = order.shape(0), steps = rates.shape(0);
    require(targets.shape(0) == n, "targets must have the shape (n,), one for each point");
    // A quotient does not overflow.
    require(batch >= 1 && chosen_count >= 1 && (chosen_count - 1) / batch + 1 == steps,
            "order must have a batch for each of the rates");
    require(all_finite(rate, steps), "rates must be finite");
    const std::vector<std::int64_t> chosen(indices, indices + chosen_count);
    for (const std::int64_t index : chosen)
        if (index < 0 || index >= n) throw py::index_error("order chooses a sample that is not there");

    py::array_t<double> losses(steps);
    double* loss = losses.mutable_data();
    bool finished = true;
    {
        const py::gil_scoped_release release;
        const std::lock_guard<std::mutex> alone(busy_);
        make_states();
        for (std::int64_t s = 0; s < steps && finished; ++s) {
            const std::int64_t first = s * batch, count = std::min(batch, chosen_count - first);
            const Batch now{x, d, chosen.data() + first, count, partition_points(count, *layout_), chosen_count - first};
            ++steps_;
            finished = add_gradients(now, threads) && optimise(now, rate + s, threads);
            loss[s] = 0;
            for (const double part : losses_) loss[s] += part;
            loss[s] /= static_cast<double>(count);
        }
    }
    if (!finished) throw py::error_already_set();
    return losses;
}

py::tuple Trainer::loss_gradient(const py::array& points, const py::array& targets, int threads) {
    const float *x = checked_points(points), *d = floats(targets, "targets", 1);
    const std::int64_t n = points.shape(0);
    if (targets.shape(0) != n) throw py::value_error("targets must have the shape (n,), one for each point");
    const Batch all{x, d, nullptr, n, partition_points(n, *layout_), n};
    bool finished;
    {
        const py::gil_scoped_release release;
        finished = add_gradients(all, threads) && optimise(all, nullptr, threads);
    }
    if (!finished) throw py::error_already_set();
    double loss = 0;
    for (const double part : losses_) loss += part;
    return py::make_tuple(loss / static_cast<double>(std::max<std::int64_t>(1, n)),
                          py::array_t<float>(static_cast<py::ssize_t>(gradient_.size()), gradient_.data()));
}

void bind_training(py::module_& module) {
    py::class_<Trainer>(module, "Trainer", "Weights under way, and their optimiser.")
        .def_property_readonly("weights", &Trainer::weights, "A copy of the weights (P,) as they are.")
        .def("steps", &Trainer::steps,
             "A step for each of rates (s,) on the next `batch` samples of `order` (up to s batch,) out of points (n, 3) "
             "and targets (n,); returns the losses (s,).",
             py::arg("points"), py::arg("targets"), py::arg("order"), py::arg("batch"), py::arg("rates"),
             py::arg("threads"));
}

}  // namespace neuralsdf
