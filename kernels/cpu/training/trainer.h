// Weights under way: the loss and its gradient over a batch, and the optimiser's step on every layer.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cpu/program.h"

namespace neuralsdf {

enum class Method { adam, soap };

Method method_named(const std::string& name);

struct Optimizer {
    Method method;
    float beta1, beta2, epsilon;
    int refresh;  // steps from one basis of SOAP to the next
};

// Calls from several threads at once wait for one another.
class Trainer {
  public:
    Trainer(const Kernel& kernel, const py::array& weights, const std::vector<int>& hidden,
            const std::string& activation, const std::string& output, const Optimizer& optimizer);

    py::array_t<float> weights() const;

    // A step for each of `rates` (s,), against the mean |f(x) - d| over the next `batch` of the samples that
    // `order` (up to s batch, int64) chooses from points (n, 3) and targets (n,). Returns the losses (s,).
    py::array_t<double> steps(const py::array& points, const py::array& targets, const py::array& order,
                              std::int64_t batch, const py::array& rates, int threads);

    // Mean |f(x) - d| over points (n, 3) and targets (n,), and its gradient (P,).
    py::tuple loss_gradient(const py::array& points, const py::array& targets, int threads);

  private:
    struct Batch;
    bool add_gradients(const Batch& batch, int threads);
    bool optimise(const Batch& batch, const float* rate, int threads);
    void update_layer(int layer, float rate);
    void make_states();

    mutable std::mutex busy_;  // taken without the GIL, which its holder asks for to hear Ctrl-C; guards what follows
    const Kernel& kernel_;
    const std::unique_ptr<Layout> layout_;
    const Optimizer optimizer_;
    std::vector<float> weights_, gradient_;  // flat
    Buffer packed_;
    std::size_t stride_ = 0;                 // floats from one partition's gradient to the next
    Buffer sums_, workspaces_;
    std::size_t sums_size_ = 0, workspaces_size_ = 0;
    std::vector<double> losses_;             // of the partitions
    std::int64_t steps_ = 0;
    std::vector<float> mean_, square_;       // Adam
    std::vector<SoapShape> shapes_;          // SOAP: layer by layer
    std::vector<Buffer> states_;
};

void bind_training(py::module_& module);

}  // namespace neuralsdf
