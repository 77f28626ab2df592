// core.cpp
// The Python side of the C++ core: checks every argument, chooses the kernels for this processor, and
// spreads blocks of points over threads. Points are split in a way that depends on their number alone, so
// results are the same, bit for bit, for any number of threads.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "kernel.h"
#include "pool.h"

namespace py = pybind11;

namespace neuralsdf {
namespace {

// Tables that were compiled and that this processor runs, fastest first.
std::vector<const Kernel*> supported_kernels() {
    std::vector<const Kernel*> kernels;
#ifdef NEURALSDF_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        kernels.push_back(&kernel_avx512);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) kernels.push_back(&kernel_avx2);
#endif
    kernels.push_back(&kernel_baseline);
    return kernels;
}

std::vector<std::string> supported_isas() {
    std::vector<std::string> names;
    for (const Kernel* kernel : supported_kernels()) names.emplace_back(kernel->name);
    return names;
}

Activation activation_named(const std::string& name) {
    static const char* const names[] = {"relu", "sine", "softplus", "silu", "elu", "tanh"};
    for (int i = 0; i < 6; ++i)
        if (name == names[i]) return static_cast<Activation>(i);
    throw py::value_error("unknown activation " + name);
}

Output output_named(const std::string& name) {
    if (name == "tanh") return Output::tanh;
    if (name == "linear") return Output::linear;
    throw py::value_error("unknown output " + name);
}

// A C-contiguous, aligned float32 array of `dimensions`, or an error that names it.
const float* floats(const py::array& array, const char* name, int dimensions) {
    const bool fits = array.dtype().equal(py::dtype::of<float>()) && array.ndim() == dimensions &&
                      (array.flags() & py::array::c_style) &&
                      (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_);
    if (!fits)
        throw py::value_error(std::string(name) + " must be a C-contiguous float32 array of " +
                              std::to_string(dimensions) + " dimension" + (dimensions == 1 ? "" : "s"));
    return static_cast<const float*>(array.data());
}

const float* checked_points(const py::array& points) {
    const float* data = floats(points, "points", 2);
    if (points.shape(1) != 3) throw py::value_error("points must have the shape (n, 3)");
    return data;
}

// Floats, uninitialised, at an address aligned for every vector.
struct AlignedDelete {
    static constexpr std::align_val_t alignment{64};
    void operator()(float* data) const { ::operator delete(data, alignment); }
};
using Buffer = std::unique_ptr<float[], AlignedDelete>;

Buffer make_buffer(std::size_t floats) {
    return Buffer(static_cast<float*>(::operator new(floats * sizeof(float), AlignedDelete::alignment)));
}

// Whole cache lines, so that what follows in a buffer is aligned and threads share no line.
std::size_t whole_lines(std::size_t floats) { return (floats + 15) / 16 * 16; }

// True, with a Python exception set, if the user pressed Ctrl-C.
bool interrupted() {
    const py::gil_scoped_acquire gil;
    return PyErr_CheckSignals() != 0;
}

// Runs `task(workspace, index, stopped)` for index < count without the GIL, each thread with a workspace of its own.
template <class Task>
void run_without_gil(std::int64_t count, int threads, std::size_t workspace_size, const Task& task) {
    threads = static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>({threads, count, 1024})));
    const std::size_t stride = whole_lines(workspace_size);
    const Buffer workspaces = make_buffer(stride * threads);
    bool finished;
    {
        const py::gil_scoped_release release;
        Job* running = nullptr;
        const std::function<void(int, std::int64_t)> work = [&](int slot, std::int64_t index) {
            task(workspaces.get() + stride * slot, index, [&] { return running->stopped(slot); });
        };
        const std::function<bool()> poll = interrupted;
        Job job(count, work, poll);
        running = &job;
        finished = job.run(threads);
    }
    if (!finished) throw py::error_already_set();
}

// Calls `block(first, count)` for the blocks of points from `first` to `last`, until stopped.
template <class Stopped, class Block>
void for_blocks(std::int64_t first, std::int64_t last, const Stopped& stopped, const Block& block) {
    for (; first < last && !stopped(); first += block_points)
        block(first, static_cast<int>(std::min<std::int64_t>(block_points, last - first)));
}

constexpr std::int64_t blocks_in_a_task = 10;
constexpr std::int64_t task_points = blocks_in_a_task * block_points;

// Points whose gradients are summed in one buffer: some 500, but no more than 64 buffers or 64 MiB of them.
std::int64_t partition_points(std::int64_t points, const Layout& layout) {
    const auto buffers = static_cast<std::int64_t>((std::size_t(1) << 24) / layout.gradient_size);
    const std::int64_t most = std::max<std::int64_t>(1, std::min<std::int64_t>(64, buffers));
    const std::int64_t blocks = (points + block_points - 1) / block_points;
    return std::max<std::int64_t>(5, (blocks + most - 1) / most) * block_points;
}

// The kernels of one instruction set.
class Core {
  public:
    explicit Core(const std::string& isa) {
        for (const Kernel* kernel : supported_kernels())
            if (isa == kernel->name) kernel_ = kernel;
        if (!kernel_) throw py::value_error("this processor does not run " + isa);
    }

    std::string isa() const { return kernel_->name; }

    double peak(std::int64_t rounds) const { return kernel_->peak(rounds); }

    py::array_t<float> evaluate(const py::array& weights, const std::vector<int>& hidden, const std::string& activation,
                                const std::string& output, const py::array& points, int threads) const {
        const auto layout = checked_layout(weights, hidden, activation, output);
        const float* x = checked_points(points);
        const std::int64_t n = points.shape(0);
        const Buffer packed = packed_weights(*layout, weights, false);
        py::array_t<float> values(n);
        float* y = values.mutable_data();
        run_without_gil(tasks(n), threads, evaluate_workspace(*layout),
                        [&](float* workspace, std::int64_t index, const auto& stopped) {
            const std::int64_t first = index * task_points;
            for_blocks(first, std::min(first + task_points, n), stopped, [&](std::int64_t at, int count) {
                kernel_->evaluate(*layout, packed.get(), x + 3 * at, count, y + at, workspace);
            });
        });
        return values;
    }

    py::tuple evaluate_with_gradient(const py::array& weights, const std::vector<int>& hidden,
                                     const std::string& activation, const std::string& output, const py::array& points,
                                     int threads) const {
        const auto layout = checked_layout(weights, hidden, activation, output);
        const float* x = checked_points(points);
        const std::int64_t n = points.shape(0);
        const Buffer packed = packed_weights(*layout, weights, true);
        py::array_t<float> values(n);
        py::array_t<float> gradients(std::vector<py::ssize_t>{n, 3});
        float* y = values.mutable_data();
        float* g = gradients.mutable_data();
        run_without_gil(tasks(n), threads, gradient_workspace(*layout),
                        [&](float* workspace, std::int64_t index, const auto& stopped) {
            const std::int64_t first = index * task_points;
            for_blocks(first, std::min(first + task_points, n), stopped, [&](std::int64_t at, int count) {
                kernel_->evaluate_with_gradient(*layout, packed.get(), x + 3 * at, count, y + at, g + 3 * at, workspace);
            });
        });
        return py::make_tuple(values, gradients);
    }

    py::tuple loss_gradient(const py::array& weights, const std::vector<int>& hidden, const std::string& activation,
                            const std::string& output, const py::array& points, const py::array& targets,
                            int threads) const {
        const auto layout = checked_layout(weights, hidden, activation, output);
        const float* x = checked_points(points);
        const float* d = floats(targets, "targets", 1);
        const std::int64_t n = points.shape(0);
        if (targets.shape(0) != n) throw py::value_error("targets must have the shape (n,), one for each point");
        const Buffer packed = packed_weights(*layout, weights, true);
        py::array_t<float> gradient(static_cast<py::ssize_t>(layout->flat_size));

        const std::int64_t size = partition_points(n, *layout), partitions = (n + size - 1) / size;
        const std::size_t stride = whole_lines(layout->gradient_size);
        const Buffer sums = make_buffer(stride * std::max<std::int64_t>(1, partitions));
        std::memset(sums.get(), 0, sizeof(float) * stride);
        std::vector<double> losses(partitions);
        run_without_gil(partitions, threads, gradient_workspace(*layout),
                        [&](float* workspace, std::int64_t index, const auto& stopped) {
            float* sum = sums.get() + stride * index;
            std::memset(sum, 0, sizeof(float) * stride);
            for_blocks(index * size, std::min((index + 1) * size, n), stopped, [&](std::int64_t at, int count) {
                losses[index] += kernel_->add_loss_gradient(*layout, packed.get(), x + 3 * at, d + at, count, sum, workspace);
            });
        });

        double loss = 0;
        for (std::int64_t p = 0; p < partitions; ++p) {
            loss += losses[p];
            const float* from = sums.get() + stride * p;
            if (p > 0)
                for (std::size_t i = 0; i < layout->gradient_size; ++i) sums.get()[i] += from[i];
        }
        const auto count = static_cast<double>(std::max<std::int64_t>(1, n));
        unpack_gradient(*layout, sums.get(), static_cast<float>(1 / count), gradient.mutable_data());
        return py::make_tuple(loss / count, gradient);
    }

  private:
    static std::int64_t tasks(std::int64_t points) { return (points + task_points - 1) / task_points; }

    std::unique_ptr<Layout> checked_layout(const py::array& weights, const std::vector<int>& hidden,
                                           const std::string& activation, const std::string& output) const {
        if (hidden.empty() || hidden.size() > max_layers) throw py::value_error("1 to 256 hidden layers are possible");
        std::int64_t expected = 0, inputs = 3;
        for (const int width : hidden) {
            if (width < 1 || width > max_width) throw py::value_error("a hidden layer is 1 to 8192 wide");
            expected += (inputs + 1) * width;
            inputs = width;
        }
        expected += inputs + 1;
        if (expected > max_weights) throw py::value_error("the network has too many weights");
        floats(weights, "weights", 1);
        if (weights.shape(0) != expected)
            throw py::value_error("the network has " + std::to_string(expected) + " weights, not " +
                                  std::to_string(weights.shape(0)));
        auto layout = std::unique_ptr<Layout>(new Layout);  // not zeroed: it has room for 256 layers
        make_layout(*layout, hidden.data(), static_cast<int>(hidden.size()), activation_named(activation),
                    output_named(output), kernel_->lanes);
        return layout;
    }

    static Buffer packed_weights(const Layout& layout, const py::array& weights, bool both_ways) {
        Buffer packed = make_buffer(layout.packed_size);
        pack(layout, static_cast<const float*>(weights.data()), packed.get(), both_ways);
        return packed;
    }

    const Kernel* kernel_ = nullptr;
};

}  // namespace
}  // namespace neuralsdf

PYBIND11_MODULE(_core, module) {
    using neuralsdf::Core;
    module.doc() = "The C++ core: networks evaluated and differentiated on the CPU.";
    module.def("supported_isas", &neuralsdf::supported_isas, "Instruction sets that this processor runs, fastest first.");
    py::class_<Core>(module, "Core", "The kernels compiled for one instruction set.")
        .def(py::init<std::string>(), py::arg("isa"))
        .def_property_readonly("isa", &Core::isa)
        .def("peak", &Core::peak, "Runs multiply-adds in registers and returns how many operations they were.",
             py::arg("rounds"))
        .def("evaluate", &Core::evaluate, "Values (n,) at points (n, 3).", py::arg("weights"), py::arg("hidden"),
             py::arg("activation"), py::arg("output"), py::arg("points"), py::arg("threads"))
        .def("evaluate_with_gradient", &Core::evaluate_with_gradient,
             "Values (n,) and gradients (n, 3) at points (n, 3).", py::arg("weights"), py::arg("hidden"),
             py::arg("activation"), py::arg("output"), py::arg("points"), py::arg("threads"))
        .def("loss_gradient", &Core::loss_gradient,
             "Mean |f(x) - d| over points (n, 3) and targets (n,), and its gradient (P,) by the weights.",
             py::arg("weights"), py::arg("hidden"), py::arg("activation"), py::arg("output"), py::arg("points"),
             py::arg("targets"), py::arg("threads"));
}
