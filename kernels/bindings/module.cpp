// The Python module. Each file of this folder binds a part of it; this file binds the class `Core`. The bindings check
// dtypes and shapes and release the GIL. The core checks values.
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/arrays.h"
#include "cpu/instruction_sets.h"
#include "cpu/tape/tape_program.h"
#include "cpu/training/bias_loss.h"
#include "cpu/training/trainer.h"

namespace neuralsdf {
namespace {

const float* checked_weights(const Array<float>& weights) { return checked_data(weights, "weights", 1); }

// The kernels of one instruction set.
class Core {
  public:
    explicit Core(const std::string& isa) : kernel_(kernel_named(isa)) {}

    std::string isa() const { return kernel_.name; }

    double peak(std::int64_t rounds) const {
        require(0 <= rounds && rounds <= std::int64_t(1) << 32, "rounds must be 0 to 2^32");
        return kernel_.peak(rounds);
    }

    std::shared_ptr<NetworkProgram> compile(const Array<float>& weights, const std::vector<int>& hidden,
                                            const std::string& activation, const std::string& output,
                                            bool by_tiles) const {
        const float* w = checked_weights(weights);
        return std::make_shared<NetworkProgram>(kernel_, architecture(hidden, activation, output), w, weights.shape(0),
                                                by_tiles);
    }

    std::shared_ptr<TapeProgram> assemble(const Array<std::int32_t>& code, const Array<double>& parameters,
                                          const std::vector<std::optional<std::shared_ptr<NetworkProgram>>>& leaves,
                                          int points, int values, float lipschitz) const {
        const std::int32_t* instructions = checked_data(code, "code", 2);
        const double* numbers = checked_data(parameters, "parameters", 1);
        require(code.shape(1) == 5, "code must have the shape (m, 5)");
        std::vector<std::shared_ptr<const NetworkProgram>> networks;
        for (const auto& leaf : leaves) networks.push_back(leaf.value_or(nullptr));
        return std::make_shared<TapeProgram>(
            kernel_, std::vector<std::int32_t>(instructions, instructions + code.size()),
            std::vector<double>(numbers, numbers + parameters.size()), std::move(networks), points, values, lipschitz);
    }

    Array<float> evaluate_many(const Array<float>& weights, const std::vector<int>& hidden,
                               const std::string& activation, const std::string& output, const Array<float>& points,
                               int threads) const {
        const float *w = checked_data(weights, "weights", 2), *x = checked_vectors(points, "points");
        const std::int64_t n = weights.shape(0), m = points.shape(0);
        const Architecture networks = architecture(hidden, activation, output);
        checked_layout(kernel_, networks, weights.shape(1));  // before memory is allocated
        Array<float> values = new_array<float>({n, m});
        float* y = data_of(values);
        without_gil(
            [&] { neuralsdf::evaluate_many(kernel_, networks, w, n, weights.shape(1), x, m, y, workers_of(threads)); });
        return values;
    }

    std::tuple<double, Array<float>> loss_gradient(const Array<float>& weights, const std::vector<int>& hidden,
                                                   const std::string& activation, const std::string& output,
                                                   const Array<float>& points, const Array<float>& targets,
                                                   int threads) const {
        const float* w = checked_weights(weights);
        const Optimizer none{Method::adam, 0, 0, 0, 1};
        Trainer trainer(kernel_, architecture(hidden, activation, output), w, weights.shape(0), none);
        const float *x = checked_vectors(points, "points"), *d = checked_data(targets, "targets", 1);
        const std::int64_t n = points.shape(0);
        require(targets.shape(0) == n, "targets must have the shape (n,), one for each point");
        Array<float> gradient = new_array<float>({weights.shape(0)});
        float* g = data_of(gradient);
        const double loss = without_gil([&] { return trainer.loss_gradient(x, d, n, g, workers_of(threads)); });
        return {loss, gradient};
    }

    std::unique_ptr<BiasLoss> bias_loss(const Array<float>& weights, const std::vector<int>& hidden,
                                        const std::string& activation, const std::string& output) const {
        const float* w = checked_weights(weights);
        return std::make_unique<BiasLoss>(kernel_, architecture(hidden, activation, output), w, weights.shape(0));
    }

    std::unique_ptr<Trainer> trainer(const Array<float>& weights, const std::vector<int>& hidden,
                                     const std::string& activation, const std::string& output,
                                     const std::string& optimizer, float beta1, float beta2, float epsilon,
                                     int refresh) const {
        const float* w = checked_weights(weights);
        return std::make_unique<Trainer>(kernel_, architecture(hidden, activation, output), w, weights.shape(0),
                                         Optimizer{method_named(optimizer), beta1, beta2, epsilon, refresh});
    }

  private:
    static Architecture architecture(const std::vector<int>& hidden, const std::string& activation,
                                     const std::string& output) {
        return {hidden, activation_named(activation), output_named(output)};
    }

    const Kernel& kernel_;
};

}  // namespace
}  // namespace neuralsdf

PYBIND11_MODULE(_core, module) {
    namespace py = pybind11;
    using neuralsdf::Core;
    module.doc() =
        "The C++ core. Arrays must be C-contiguous and are not converted: a wrong dtype raises ValueError or "
        "TypeError.";
    module.def("supported_isas", &neuralsdf::supported_isas,
               "Instruction sets that this processor supports, fastest first.");
    neuralsdf::bind_programs(module);
    neuralsdf::bind_trainer(module);
    neuralsdf::bind_bvh(module);
    neuralsdf::bind_sparse_grid(module);
    py::class_<Core>(module, "Core", "The kernels compiled for one instruction set.")
        .def(py::init<std::string>(), py::arg("isa"))
        .def_property_readonly("isa", &Core::isa)
        .def("peak", &Core::peak, "Runs multiply-adds in registers; returns the number of operations.",
             py::arg("rounds"))
        .def("compile", &Core::compile,
             "A network from flat weights (P,). by_tiles: use bfloat16 tiles, if the instruction set supports them for "
             "these layers.",
             py::arg("weights"), py::arg("hidden"), py::arg("activation"), py::arg("output"),
             py::arg("by_tiles") = false)
        .def("assemble", &Core::assemble,
             "A tape from code (m, 5) and parameters (k,). Leaves are networks, or None for fields that the caller "
             "evaluates.",
             py::arg("code"), py::arg("parameters"), py::arg("leaves"), py::arg("points"), py::arg("values"),
             py::arg("lipschitz"))
        .def("evaluate_many", &Core::evaluate_many,
             "Values (n, m) of n networks with flat weights (n, P) at the same points (m, 3).", py::arg("weights"),
             py::arg("hidden"), py::arg("activation"), py::arg("output"), py::arg("points"), py::arg("threads"))
        .def("loss_gradient", &Core::loss_gradient,
             "Mean |f(x) - d| over points (n, 3) and targets (n,), and its gradient (P,) with respect to the weights.",
             py::arg("weights"), py::arg("hidden"), py::arg("activation"), py::arg("output"), py::arg("points"),
             py::arg("targets"), py::arg("threads"))
        .def("bias_loss", &Core::bias_loss,
             "The loss of a network with flat weights (P,), of which the hidden biases vary.", py::arg("weights"),
             py::arg("hidden"), py::arg("activation"), py::arg("output"))
        .def("trainer", &Core::trainer, "A trainer that starts from flat weights (P,).", py::arg("weights"),
             py::arg("hidden"), py::arg("activation"), py::arg("output"), py::arg("optimizer"), py::arg("beta1"),
             py::arg("beta2"), py::arg("epsilon"), py::arg("refresh"));
}
