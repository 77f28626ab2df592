#include "cpu/program.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "cpu/argument_checks.h"

namespace neuralsdf {
namespace {

void check_rays(const Rays& rays, std::int64_t n) {
    require(all_finite(rays.begin, 3 * n), "begin must be finite");
    require(all_finite(rays.directions, 3 * n), "directions must be finite");
    // Rays that miss the ball end at -infinity.
    require(std::all_of(rays.ends, rays.ends + n, [](float t) { return t < std::numeric_limits<float>::infinity(); }),
            "ends must be less than infinity");
}

bool is_step_count(int steps) { return 1 <= steps && steps <= max_ray_steps; }
bool is_positive(float number) { return number > 0 && std::isfinite(number); }
bool is_not_negative(float number) { return number >= 0 && std::isfinite(number); }

}  // namespace

Placement placement_by(const double* m, double scale) {
    require(all_finite(m, 16), "matrix must be finite");
    require(scale > 0 && std::isfinite(scale), "scale must be positive");
    Placement placement{{}, {m[3], m[7], m[11]}, scale};
    for (int i = 0; i < 9; ++i) placement.rotation[i] = m[i / 3 * 4 + i % 3] / scale;
    return placement;
}

void Program::evaluate(const float* points, std::int64_t n, float* values, const Workers& workers) const {
    run_blocks(n, batch(), workers, evaluate_size(),
               [&](std::int64_t at, int count, float* workspace, const Stopped& stopped) {
        evaluate_block(points + 3 * at, count, values + at, workspace, stopped);
    });
}

void Program::distance(const double* points, std::int64_t n, const Placement& placement, double* distances,
                       bool* outside, const Workers& workers) const {
    const std::size_t room = whole_lines((batch() + round_points - 1) / round_points * round_points);
    const bool to_ball = in_ball();
    run_blocks(n, batch(), workers, 5 * room + evaluate_size(),
               [&](std::int64_t at, int count, float* workspace, const Stopped& stopped) {
        float *local = workspace, *excess = local + 3 * room, *values = excess + room;
        kernel_.placement.enter(placement, points + 3 * at, count, to_ball, local, excess);
        evaluate_block(local, count, values, values + room, stopped);
        kernel_.placement.leave(placement, values, excess, count, distances + at, outside + at);
    });
}

void Program::evaluate_with_gradient(const float* points, std::int64_t n, float* values, float* gradients,
                                     const Workers& workers) const {
    run_blocks(n, batch(), workers, gradient_size(),
               [&](std::int64_t at, int count, float* workspace, const Stopped& stopped) {
        gradient_block(points + 3 * at, count, values + at, gradients + 3 * at, workspace, stopped);
    });
}

template <class March>
std::int64_t Program::march_rays(std::int64_t count, float factor, const Workers& workers, const March& march) const {
    const std::int64_t tasks = (count + task_rays - 1) / task_rays;
    std::vector<std::int64_t> evaluations(tasks);
    run_with_workspaces(tasks, workers, evaluate_size(),
                        [&](float* workspace, std::int64_t index, const Stopped& stopped) {
        const std::int64_t first = index * task_rays;
        const auto evaluate = [&](const float* points, int n, float* values) {
            evaluate_block(points, n, values, workspace, stopped);
            for (int i = 0; i < n; ++i) values[i] *= factor;
        };
        evaluations[index] = march(first, std::min(first + task_rays, count), batch(), evaluate, stopped);
    });
    return std::accumulate(evaluations.begin(), evaluations.end(), std::int64_t(0));
}

std::int64_t Program::trace(const Rays& rays, std::int64_t n, Tracing tracing, const Workers& workers) const {
    check_rays(rays, n);
    const int levels = tracing.levels;
    require(2 <= levels && levels <= 1 << 24, "steps must have 2 to 2^24 levels");
    require(std::all_of(tracing.steps, tracing.steps + levels, is_not_negative),
            "steps must be finite and not negative");
    // This quotient is also used to find a level.
    require(is_positive(tracing.max_level) && is_positive((levels - 1) / tracing.max_level),
            "max_level must be positive, and not tiny");
    require(is_not_negative(tracing.touch_depth), "touch_depth must be finite and not negative");
    require(is_not_negative(tracing.root_tolerance), "root_tolerance must be finite and not negative");
    require(is_step_count(tracing.max_steps), "max_steps must be 1 to 65535");
    require(is_step_count(tracing.root_steps), "root_steps must be 1 to 65535");
    for (bool* mask : {tracing.hit, tracing.unresolved, tracing.buried}) std::fill_n(mask, n, false);
    std::fill_n(tracing.t, n, 0.0f);
    tracing.even = !(tracing.steps[0] < tracing.steps[levels - 1]);
    return march_rays(n, 1, workers, [&](auto first, auto last, const auto&... how) {
        return neuralsdf::trace(rays, tracing, first, last, how...);
    });
}

std::int64_t Program::soft_shadow(const Rays& rays, std::int64_t n, const SoftShadow& cone,
                                  const Workers& workers) const {
    check_rays(rays, n);
    require(is_positive(cone.first), "first must be positive");
    require(is_positive(cone.min_step) && is_positive(cone.max_step) && cone.min_step <= cone.max_step,
            "min_step and max_step must be positive, in this order");
    require(is_step_count(cone.steps), "steps must be 1 to 65535");
    require(is_positive(cone.sharpness), "sharpness must be positive");
    require(std::isfinite(cone.dark), "dark must be finite");
    std::fill_n(cone.share, n, 1.0f);
    return march_rays(n, 1 / steepest(), workers, [&](auto from, auto last, const auto&... how) {
        return neuralsdf::soft_shadow(rays, cone, from, last, how...);
    });
}

}  // namespace neuralsdf
