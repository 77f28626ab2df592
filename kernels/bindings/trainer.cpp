#include "cpu/training/trainer.h"

#include "cpu/training/bias_loss.h"

#include <tuple>

#include "bindings/arrays.h"

namespace neuralsdf {
namespace {

Array<float> weights(const Trainer& trainer) {
    std::vector<float> copy = without_gil([&] { return trainer.weights(); });
    const auto count = static_cast<py::ssize_t>(copy.size());
    return array_of(std::move(copy), {count});
}

Array<double> steps(Trainer& trainer, const Array<float>& points, const Array<float>& targets,
                    const Array<std::int64_t>& order, std::int64_t batch, const Array<float>& rates, int threads) {
    const float *x = checked_vectors(points, "points"), *d = checked_data(targets, "targets", 1);
    const std::int64_t* indices = checked_data(order, "order", 1);
    const float* rate = checked_data(rates, "rates", 1);
    const std::int64_t n = points.shape(0), count = rates.shape(0);
    require(targets.shape(0) == n, "targets must have the shape (n,), one for each point");
    const std::vector<std::int64_t> chosen(indices, indices + order.shape(0));
    Array<double> losses = new_array<double>({count});
    double* loss = data_of(losses);
    without_gil([&] { trainer.steps(x, d, n, chosen, batch, rate, count, loss, workers_of(threads)); });
    return losses;
}

std::tuple<double, Array<float>> bias_gradient(BiasLoss& loss, const Array<float>& biases, const Array<float>& points,
                                               const Array<float>& targets, int threads) {
    const float *b = checked_data(biases, "biases", 1), *x = checked_vectors(points, "points");
    const float* d = checked_data(targets, "targets", 1);
    const std::int64_t n = points.shape(0);
    require(biases.shape(0) == loss.size(), "biases must have the shape (b,), one for each hidden neuron");
    require(targets.shape(0) == n, "targets must have the shape (n,), one for each point");
    Array<float> gradient = new_array<float>({loss.size()});
    float* g = data_of(gradient);
    const double mean = without_gil([&] { return loss.gradient(b, x, d, n, g, workers_of(threads)); });
    return {mean, gradient};
}

}  // namespace

void bind_trainer(py::module_& module) {
    py::class_<BiasLoss>(module, "BiasLoss", "The loss of a network with given hidden biases.")
        .def("gradient", bias_gradient,
             "Mean |f(x) - d| over points (n, 3) and targets (n,) with these hidden biases (b,), and its gradient (b,) "
             "with respect to them.",
             py::arg("biases"), py::arg("points"), py::arg("targets"), py::arg("threads"));
    py::class_<Trainer>(module, "Trainer", "Fits a network: its weights and the state of the optimizer.")
        .def_property_readonly("weights", weights, "A copy of the current weights (P,).")
        .def(
            "steps", steps,
            "Take one step per learning rate (s,). Each uses the next `batch` samples of `order` (at most s * batch,), "
            "indices into points (n, 3) and targets (n,). Returns the losses (s,).",
            py::arg("points"), py::arg("targets"), py::arg("order"), py::arg("batch"), py::arg("rates"),
            py::arg("threads"));
}

}  // namespace neuralsdf
