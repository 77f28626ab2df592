// The interface of everything that the kernels evaluate, compiled for one instruction set: a network
// (mlp/network_program.h) or a tape (tape/tape_program.h).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "cpu/kernels_by_instruction_set.h"
#include "cpu/parallel_for.h"
#include "cpu/trace/sphere_tracing.h"

namespace neuralsdf {

constexpr std::int64_t blocks_in_a_task = 10;
constexpr std::int64_t task_points = blocks_in_a_task * block_points;

// Calls `block(first, count)` for consecutive blocks of at most `most` points from `first` to `last`, until stopped.
template <class Stopped, class Block>
void for_blocks(std::int64_t first, std::int64_t last, const Stopped& stopped, const Block& block,
                int most = block_points) {
    for (; first < last && !stopped(); first += most)
        block(first, static_cast<int>(std::min<std::int64_t>(most, last - first)));
}

// Calls `block(first, count, workspace, stopped)` for all blocks of at most `most` points, on several threads.
template <class Block>
void run_blocks(std::int64_t points, int most, const Workers& workers, std::size_t workspace_size, const Block& block) {
    const std::int64_t a_task = std::max<std::int64_t>(task_points, most);
    run_with_workspaces((points + a_task - 1) / a_task, workers, workspace_size,
                        [&](float* workspace, std::int64_t index, const Stopped& stopped) {
        const auto in_workspace = [&](std::int64_t at, int count) { block(at, count, workspace, stopped); };
        for_blocks(index * a_task, std::min((index + 1) * a_task, points), stopped, in_workspace, most);
    });
}

// The placement for a row-major matrix (4, 4) that maps model space to mesh space and scales lengths by `scale`. Throws
// std::invalid_argument unless both are finite and the scale is positive.
Placement placement_by(const double* matrix, double scale);

// Evaluates a field at points. Immutable: several threads may use it at the same time.
class Program {
  public:
    virtual ~Program() = default;

    // Computes values (n,) at points (n, 3).
    void evaluate(const float* points, std::int64_t n, float* values, const Workers& workers) const;

    // Computes values (n,) and gradients (n, 3) at points (n, 3).
    void evaluate_with_gradient(const float* points, std::int64_t n, float* values, float* gradients,
                                const Workers& workers) const;

    // Computes values (n,) in mesh units at points (n, 3) in mesh space, and which points are outside the unit ball
    // (n,).
    void distance(const double* points, std::int64_t n, const Placement& placement, double* distances, bool* outside,
                  const Workers& workers) const;

    // Finds the first surface along rays (n,) that start outside. Writes the results to the arrays of `tracing` and
    // returns the number of evaluations. `tracing.even` is computed from the steps. Throws std::invalid_argument if a
    // parameter is out of range.
    std::int64_t trace(const Rays& rays, std::int64_t n, Tracing tracing, const Workers& workers) const;

    // Computes the fraction of light that reaches the origins of rays (n,): writes `cone.share`, returns the number of
    // evaluations.
    std::int64_t soft_shadow(const Rays& rays, std::int64_t n, const SoftShadow& cone, const Workers& workers) const;

  protected:
    explicit Program(const Kernel& kernel) : kernel_(kernel) {}

    // Workspace of a thread in floats, for values alone and with gradients. Called before threads start; may throw if
    // the program cannot be evaluated.
    virtual std::size_t evaluate_size() const = 0;
    virtual std::size_t gradient_size() const = 0;

    // Maximum number of points that are evaluated together.
    virtual int batch() const { return block_points; }

    // Computes values (count,), and gradients (count, 3), at 1 <= count <= batch() points. Results are undefined if
    // stopped.
    virtual void evaluate_block(const float* points, int count, float* values, float* workspace,
                                const Stopped& stopped) const = 0;
    virtual void gradient_block(const float* points, int count, float* values, float* gradients, float* workspace,
                                const Stopped& stopped) const = 0;

    // Whether it is defined in the unit ball only, and extended outside.
    virtual bool in_ball() const { return false; }

    const Kernel& kernel_;

    // Lipschitz constant of the values. Shadows use values divided by it.
    virtual float steepest() const { return 1; }

  private:
    // Calls `march(first, last, batch, evaluate, stopped)` for tasks of rays and returns the sum of its results, the
    // numbers of evaluations. The values that `evaluate` returns are multiplied by `factor`.
    template <class March>
    std::int64_t march_rays(std::int64_t count, float factor, const Workers& workers, const March& march) const;
};

}  // namespace neuralsdf
