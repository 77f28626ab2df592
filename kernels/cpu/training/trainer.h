// Fits a network: the loss and its gradient over a batch, and the optimizer step of every layer.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cpu/training/batch.h"

namespace neuralsdf {

enum class Method { adam, soap };

// Throws std::invalid_argument for an unknown name.
Method method_named(const std::string& name);

struct Optimizer {
    Method method;
    float beta1, beta2, epsilon;
    int refresh;  // SOAP: number of steps between updates of the eigenbases
};

// Thread-safe: concurrent calls are serialised.
class Trainer {
  public:
    // `weights` (count,): as in NetworkProgram. Throws std::invalid_argument if their number does not match the
    // architecture, or an option of the optimizer is out of range.
    Trainer(const Kernel& kernel, const Architecture& architecture, const float* weights, std::int64_t count,
            const Optimizer& optimizer);

    // Returns a copy of the current weights.
    std::vector<float> weights() const;

    // Performs one step per learning rate, `rates` (steps,), on the mean |f(x) - d| over the next `batch` samples of
    // `order`, indices into points (n, 3) and targets (n,). Writes the losses (steps,). Throws std::out_of_range if
    // `order` has an index outside 0 .. n - 1.
    void steps(const float* points, const float* targets, std::int64_t n, const std::vector<std::int64_t>& order,
               std::int64_t batch, const float* rates, std::int64_t steps, double* losses, const Workers& workers);

    // Returns the mean |f(x) - d| over points (n, 3) and targets (n,), and writes its gradient (count,).
    double loss_gradient(const float* points, const float* targets, std::int64_t n, float* gradient,
                         const Workers& workers);

  private:
    void optimise(const Batch& batch, const float* rate, const Workers& workers);
    void update_layer(int layer, float rate);
    void make_states();

    mutable std::mutex busy_;  // guards the members below
    const Kernel& kernel_;
    const std::unique_ptr<Layout> layout_;
    const Optimizer optimizer_;
    std::vector<float> weights_, gradient_;  // flat
    Buffer packed_;
    PartitionSums sums_;
    std::int64_t steps_ = 0;
    std::vector<float> mean_, square_;  // Adam
    std::vector<SoapShape> shapes_;     // SOAP, per layer
    std::vector<Buffer> states_;
};

}  // namespace neuralsdf
