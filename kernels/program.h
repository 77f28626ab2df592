// program.h
// What the kernels evaluate, packed once for one instruction set: a network now, a tape of operations when
// there are trees to evaluate.
#pragma once

#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernel.h"
#include "python.h"
#include "trace.h"

namespace neuralsdf {

// Points (n, 3), checked.
const float* checked_points(const py::array& points);

// The layout of the network that `weights` (P,), or of all networks that `weights` (n, P), belong to; raises
// ValueError if they do not fit, or are not sane.
std::unique_ptr<Layout> checked_layout(const Kernel& kernel, const py::array& weights, const std::vector<int>& hidden,
                                       const std::string& activation, const std::string& output, int dimensions = 1);

Buffer packed_weights(const Layout& layout, const py::array& weights, bool both_ways);

constexpr std::int64_t blocks_in_a_task = 10;
constexpr std::int64_t task_points = blocks_in_a_task * block_points;

// Calls `block(first, count)` for the blocks of points from `first` to `last`, until stopped.
template <class Stopped, class Block>
void for_blocks(std::int64_t first, std::int64_t last, const Stopped& stopped, const Block& block) {
    for (; first < last && !stopped(); first += block_points)
        block(first, static_cast<int>(std::min<std::int64_t>(block_points, last - first)));
}

// Never changes once it is made: any number of threads may use it at once.
class Program {
  public:
    Program(const Kernel& kernel, const py::array& weights, const std::vector<int>& hidden,
            const std::string& activation, const std::string& output);

    // Values (n,) at points (n, 3).
    py::array_t<float> evaluate(const py::array& points, int threads) const;

    // Values (n,) and gradients (n, 3) at points (n, 3).
    py::tuple evaluate_with_gradient(const py::array& points, int threads) const;

    // The first surface from outside along rays, as `Program.trace` of neuralsdf.backends: hit, t, unresolved,
    // buried (n,) each, and the number of evaluations.
    py::tuple trace(const py::array& begin, const py::array& directions, const py::array& ends,
                    const py::array& at_ball, const py::array& steps, float max_level, float touch_depth,
                    int max_steps, float root_tolerance, int root_steps, int threads) const;

    // Light that reaches the beginnings of rays, as `Program.soft_shadow`: share (n,), number of evaluations.
    py::tuple soft_shadow(const py::array& begin, const py::array& directions, const py::array& ends, float first,
                          float least_step, float greatest_step, int steps, float sharpness, float dark,
                          int threads) const;

  private:
    // Calls `march(first, last, evaluate, stopped)`, which returns its evaluations, for tasks of rays; their sum.
    template <class March>
    std::int64_t march_rays(std::int64_t count, int threads, const March& march) const;

    // Values at 1 <= count <= block_points points; the workspace is evaluate_workspace's.
    void evaluate_block(const float* points, int count, float* values, float* workspace) const {
        kernel_.evaluate(*layout_, packed_.get(), points, count, values, workspace);
    }

    const Kernel& kernel_;
    const std::unique_ptr<Layout> layout_;
    const Buffer packed_;
};

// Values (n, m) of n networks with `weights` (n, P) at the same points (m, 3), those of `Program::evaluate`.
py::array_t<float> evaluate_many(const Kernel& kernel, const py::array& weights, const std::vector<int>& hidden,
                                 const std::string& activation, const std::string& output, const py::array& points,
                                 int threads);

void bind_program(py::module_& module);

}  // namespace neuralsdf
