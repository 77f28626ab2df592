// Rays marched through whatever gives values at a block of points: sphere tracing (Hart 1996) and soft shadows.
// The same as neuralsdf/backends/marching.py, which is the reference and says why.
#pragma once

#include <cstdint>
#include <functional>

namespace neuralsdf {

// Values (count,) at points (count, 3), 1 <= count <= the batch that it is asked for.
using Evaluate = std::function<void(const float* points, int count, float* values)>;
using Stopped = std::function<bool()>;

struct Rays {
    const float* begin;       // (n, 3), t = 0
    const float* directions;  // (n, 3)
    const float* ends;        // (n,) t
};

struct Tracing {
    const bool* at_ball;  // (n,) whether a ray begins on the ball
    const float* steps;   // safe steps from level 0 to `max_level`
    int levels;
    bool even;  // all steps are the same: the values are no lengths
    float max_level, touch_depth, root_tolerance;
    int max_steps, root_steps;
    // Results (n,).
    bool* hit;
    float* t;
    bool* unresolved;
    bool* buried;
};

struct SoftShadow {
    float first, least_step, greatest_step;
    int steps;
    float sharpness, dark;
    float* share;  // result (n,)
};

// Steps of a ray, at most: more would be a walk that gets nowhere.
constexpr int max_ray_steps = 65535;

// Rays of one task: enough that blocks are full for most of it.
constexpr std::int64_t task_rays = 8192;

// Rays `first` to `last`, at most task_rays of them, until stopped, up to `batch` of them at once; returns the
// number of evaluations.
std::int64_t trace(const Rays& rays, const Tracing& tracing, std::int64_t first, std::int64_t last, int batch,
                   const Evaluate& evaluate, const Stopped& stopped);
std::int64_t soft_shadow(const Rays& rays, const SoftShadow& cone, std::int64_t first, std::int64_t last, int batch,
                         const Evaluate& evaluate, const Stopped& stopped);

}  // namespace neuralsdf
