// Ray marching through any field that is evaluated in blocks of points: sphere tracing (Hart 1996) and soft shadows.
// The reference, which also explains the method, is neuralsdf/backends/reference/sphere_tracing.py.
#pragma once

#include <cstdint>
#include <functional>

namespace neuralsdf {

// Computes values (count,) at points (count, 3), 1 <= count <= the requested batch.
using Evaluate = std::function<void(const float* points, int count, float* values)>;
using Stopped = std::function<bool()>;

struct Rays {
    const float* begin;       // (n, 3), t = 0
    const float* directions;  // (n, 3)
    const float* ends;        // (n,) t
};

struct Tracing {
    const bool* at_ball;  // (n,) whether a ray starts on the ball
    const float* steps;   // safe steps for levels from 0 to `max_level`
    int levels;
    bool even;  // all steps are equal: values are not distances
    float max_level, touch_depth, root_tolerance;
    int max_steps, root_steps;
    // Results (n,).
    bool* hit;
    float* t;
    bool* unresolved;
    bool* buried;
};

struct SoftShadow {
    float first, min_step, max_step;
    int steps;
    float sharpness, dark;
    float* share;  // result (n,)
};

// Maximum number of steps of a ray.
constexpr int max_ray_steps = 65535;

// Rays per task: enough that blocks are full most of the time.
constexpr std::int64_t task_rays = 8192;

// Process rays `first` to `last`, at most task_rays, until stopped, with up to `batch` rays at a time. Return the
// number of evaluations.
std::int64_t trace(const Rays& rays, const Tracing& tracing, std::int64_t first, std::int64_t last, int batch,
                   const Evaluate& evaluate, const Stopped& stopped);
std::int64_t soft_shadow(const Rays& rays, const SoftShadow& cone, std::int64_t first, std::int64_t last, int batch,
                         const Evaluate& evaluate, const Stopped& stopped);

}  // namespace neuralsdf
