// The Python side of the C++ core: checks every argument, chooses the kernels for this processor, and
// spreads blocks of points over threads. Points are split in a way that depends on their number alone, so
// results are the same, bit for bit, for any number of threads.
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "cpu/isas.h"
#include "cpu/grid/sparse_grid.h"
#include "cpu/program.h"
#include "cpu/tape/tape_program.h"
#include "cpu/training/trainer.h"
#include "bindings/bvh.h"

namespace neuralsdf {
namespace {

// The kernels of one instruction set.
class Core {
  public:
    explicit Core(const std::string& isa) : kernel_(kernel_named(isa)) {}

    std::string isa() const { return kernel_.name; }

    double peak(std::int64_t rounds) const {
        require(0 <= rounds && rounds <= std::int64_t(1) << 32, "rounds must be 0 to 2^32");
        return kernel_.peak(rounds);
    }

    std::shared_ptr<NetworkProgram> compile(const py::array& weights, const std::vector<int>& hidden,
                                            const std::string& activation, const std::string& output,
                                            bool by_tiles) const {
        return std::make_shared<NetworkProgram>(kernel_, weights, hidden, activation, output, by_tiles);
    }

    std::shared_ptr<TapeProgram> assemble(const py::array& code, const py::array& parameters,
                                          std::vector<std::shared_ptr<NetworkProgram>> leaves, int points, int values,
                                          float lipschitz) const {
        return std::make_shared<TapeProgram>(kernel_, code, parameters, std::move(leaves), points, values, lipschitz);
    }

    py::array_t<float> evaluate_many(const py::array& weights, const std::vector<int>& hidden,
                                     const std::string& activation, const std::string& output,
                                     const py::array& points, int threads) const {
        return neuralsdf::evaluate_many(kernel_, weights, hidden, activation, output, points, threads);
    }

    py::tuple loss_gradient(const py::array& weights, const std::vector<int>& hidden, const std::string& activation,
                            const std::string& output, const py::array& points, const py::array& targets,
                            int threads) const {
        const Optimizer none{Method::adam, 0, 0, 0, 1};
        return Trainer(kernel_, weights, hidden, activation, output, none).loss_gradient(points, targets, threads);
    }

    std::unique_ptr<Trainer> trainer(const py::array& weights, const std::vector<int>& hidden,
                                     const std::string& activation, const std::string& output,
                                     const std::string& optimizer, float beta1, float beta2, float epsilon,
                                     int refresh) const {
        return std::make_unique<Trainer>(kernel_, weights, hidden, activation, output,
                                         Optimizer{method_named(optimizer), beta1, beta2, epsilon, refresh});
    }

  private:
    const Kernel& kernel_;
};

}  // namespace

}  // namespace neuralsdf

namespace py = pybind11;

PYBIND11_MODULE(_core, module) {
    using neuralsdf::Core;
    module.doc() = "The C++ core: networks evaluated and differentiated on the CPU.";
    module.def("supported_isas", &neuralsdf::supported_isas, "Instruction sets that this processor runs, fastest first.");
    neuralsdf::bind_program(module);
    neuralsdf::bind_tape(module);
    neuralsdf::bind_training(module);
    neuralsdf::bind_trees(module);
    neuralsdf::bind_lattice(module);
    py::class_<Core>(module, "Core", "The kernels compiled for one instruction set.")
        .def(py::init<std::string>(), py::arg("isa"))
        .def_property_readonly("isa", &Core::isa)
        .def("peak", &Core::peak, "Runs multiply-adds in registers and returns how many operations they were.",
             py::arg("rounds"))
        .def("compile", &Core::compile,
             "The network with these flat weights (P,), ready to be evaluated: where `by_tiles`, by multiplications of "
             "bfloat16 tiles if this instruction set has them for such layers.",
             py::arg("weights"), py::arg("hidden"), py::arg("activation"), py::arg("output"),
             py::arg("by_tiles") = false)
        .def("assemble", &Core::assemble,
             "The tape with this code (m, 5) and parameters (k,), ready to be evaluated. Its leaves are networks, or "
             "None for fields that are asked outside of it.",
             py::arg("code"), py::arg("parameters"), py::arg("leaves"), py::arg("points"), py::arg("values"),
             py::arg("lipschitz"))
        .def("evaluate_many", &Core::evaluate_many,
             "Values (n, m) of n networks with these flat weights (n, P) at the same points (m, 3).",
             py::arg("weights"), py::arg("hidden"), py::arg("activation"), py::arg("output"), py::arg("points"),
             py::arg("threads"))
        .def("loss_gradient", &Core::loss_gradient,
             "Mean |f(x) - d| over points (n, 3) and targets (n,), and its gradient (P,) by the weights.",
             py::arg("weights"), py::arg("hidden"), py::arg("activation"), py::arg("output"), py::arg("points"),
             py::arg("targets"), py::arg("threads"))
        .def("trainer", &Core::trainer, "The network with these flat weights (P,), to be trained.", py::arg("weights"),
             py::arg("hidden"), py::arg("activation"), py::arg("output"), py::arg("optimizer"), py::arg("beta1"),
             py::arg("beta2"), py::arg("epsilon"), py::arg("refresh"));
}
