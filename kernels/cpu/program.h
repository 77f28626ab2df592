// What the kernels evaluate, made ready once for one instruction set: a network, or a tape (tape_program.h).
#pragma once

#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cpu/kernel_table.h"
#include "bindings/arrays.h"
#include "cpu/trace/sphere_tracing.h"

namespace neuralsdf {

// Points (n, 3), checked.
const float* checked_points(const py::array& points);

// The layout of the network that `weights` (P,), or of all networks that `weights` (n, P), belong to; raises
// ValueError if they do not fit, or are not sane.
std::unique_ptr<Layout> checked_layout(const Kernel& kernel, const py::array& weights, const std::vector<int>& hidden,
                                       const std::string& activation, const std::string& output, int dimensions = 1);

Buffer packed_weights(const Layout& layout, const py::array& weights, bool both_ways);

// Packs a layer for the kernel's tiles, too, where they do it.
void pack_tiles(const Kernel& kernel, const Layout& layout, int layer, float* packed);

constexpr std::int64_t blocks_in_a_task = 10;
constexpr std::int64_t task_points = blocks_in_a_task * block_points;

// Calls `block(first, count)` for the blocks of at most `most` points from `first` to `last`, until stopped.
template <class Stopped, class Block>
void for_blocks(std::int64_t first, std::int64_t last, const Stopped& stopped, const Block& block,
                int most = block_points) {
    for (; first < last && !stopped(); first += most)
        block(first, static_cast<int>(std::min<std::int64_t>(most, last - first)));
}

// Calls `block(first, count, workspace, stopped)` for all blocks of at most `most` of `points` points, on several
// threads.
template <class Block>
void run_blocks(std::int64_t points, int most, int threads, std::size_t workspace_size, const Block& block) {
    const std::int64_t a_task = std::max<std::int64_t>(task_points, most);
    run_without_gil((points + a_task - 1) / a_task, threads, workspace_size,
                    [&](float* workspace, std::int64_t index, const Stopped& stopped) {
        const auto in_workspace = [&](std::int64_t at, int count) { block(at, count, workspace, stopped); };
        for_blocks(index * a_task, std::min((index + 1) * a_task, points), stopped, in_workspace, most);
    });
}

// What gives values at points. Never changes once it is made: any number of threads may use it at once.
class Program {
  public:
    virtual ~Program() = default;

    // Values (n,) at points (n, 3).
    py::array_t<float> evaluate(const py::array& points, int threads) const;

    // Values (n,) and gradients (n, 3) at points (n, 3).
    py::tuple evaluate_with_gradient(const py::array& points, int threads) const;

    // Values (n,) float64 in mesh units at points (n, 3) float64 of mesh space, and which of them are outside of the
    // ball (n,): `Program.distance` of neuralsdf.backends. matrix (4, 4) maps model space to mesh space, times `scale`.
    py::tuple distance(const py::array& points, const py::array& matrix, double scale, int threads) const;

    // The first surface from outside along rays, as `Program.trace` of neuralsdf.backends: hit, t, unresolved,
    // buried (n,) each, and the number of evaluations.
    py::tuple trace(const py::array& begin, const py::array& directions, const py::array& ends,
                    const py::array& at_ball, const py::array& steps, float max_level, float touch_depth,
                    int max_steps, float root_tolerance, int root_steps, int threads) const;

    // Light that reaches the beginnings of rays, as `Program.soft_shadow`: share (n,), number of evaluations.
    py::tuple soft_shadow(const py::array& begin, const py::array& directions, const py::array& ends, float first,
                          float least_step, float greatest_step, int steps, float sharpness, float dark,
                          int threads) const;

  protected:
    explicit Program(const Kernel& kernel) : kernel_(kernel) {}

    // Floats of a thread's workspace, for values alone and with gradients; asked before threads begin, so that it may
    // raise what keeps them from it.
    virtual std::size_t evaluate_size() const = 0;
    virtual std::size_t gradient_size() const = 0;

    // Points that are evaluated together, at most.
    virtual int batch() const { return block_points; }

    // Values (count,), and gradients (count, 3), at 1 <= count <= batch() points; if stopped, any numbers.
    virtual void evaluate_block(const float* points, int count, float* values, float* workspace,
                                const Stopped& stopped) const = 0;
    virtual void gradient_block(const float* points, int count, float* values, float* gradients, float* workspace,
                                const Stopped& stopped) const = 0;

    // Whether it means something in the unit ball alone, and is extended from there.
    virtual bool in_ball() const { return false; }

    const Kernel& kernel_;

    // Slope of a distance in this one's values: shadows go by values over it.
    virtual float steepest() const { return 1; }

  private:
    // Calls `march(first, last, evaluate, stopped)`, which returns its evaluations, for tasks of rays; their sum.
    // What it evaluates are values times `factor`.
    template <class March>
    std::int64_t march_rays(std::int64_t count, float factor, int threads, const March& march) const;
};

// A network, its weights packed. by_tiles: whether the kernel's tiles evaluate it, where there are any for its layers.
class NetworkProgram : public Program {
  public:
    NetworkProgram(const Kernel& kernel, const py::array& weights, const std::vector<int>& hidden,
                   const std::string& activation, const std::string& output, bool by_tiles);

    bool by_tiles() const { return by_tiles_; }

    bool in_ball() const override { return true; }
    std::size_t evaluate_size() const override { return evaluate_workspace(*layout_); }
    std::size_t gradient_size() const override { return gradient_workspace(*layout_); }
    void evaluate_block(const float* points, int count, float* values, float* workspace,
                        const Stopped&) const override {
        evaluation()(*layout_, packed_.get(), points, count, values, workspace);
    }
    void gradient_block(const float* points, int count, float* values, float* gradients, float* workspace,
                        const Stopped&) const override {
        kernel_.evaluate_with_gradient(*layout_, packed_.get(), points, count, values, gradients, workspace);
    }

    const Kernel& kernel() const { return kernel_; }
    const Layout& layout() const { return *layout_; }
    const float* packed() const { return packed_.get(); }
    decltype(Kernel::evaluate) evaluation() const { return by_tiles_ ? kernel_.tiles->evaluate : kernel_.evaluate; }

  private:
    const std::unique_ptr<Layout> layout_;
    const Buffer packed_;
    const bool by_tiles_;
};

// Values (n, m) of n networks with `weights` (n, P) at the same points (m, 3), those of `Program::evaluate`.
py::array_t<float> evaluate_many(const Kernel& kernel, const py::array& weights, const std::vector<int>& hidden,
                                 const std::string& activation, const std::string& output, const py::array& points,
                                 int threads);

void bind_program(py::module_& module);

}  // namespace neuralsdf
