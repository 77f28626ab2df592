// Conversion between mesh space and the model space of a field: one table of functions per instruction set.
#pragma once

namespace neuralsdf {

// x = scale * R y + centre maps a point y in model space to x in mesh space. R is orthogonal, row-major.
struct Placement {
    double rotation[9], centre[3], scale;
};

// Points that are processed together. Output arrays must have room for a multiple of this number.
constexpr int round_points = 16;

struct PlacementKernel {
    // Transforms points (count, 3) from mesh space to model space, `local` (count, 3). Points that are not finite, or
    // at least 1e18 from the origin of model space (float32 cannot hold their square), become NaN. If `in_ball`,
    // `local` is the closest point of the unit ball and `excess` (count,) the distance to the ball: 0 inside, NaN for
    // NaN. Otherwise `excess` is 0.
    void (*enter)(const Placement&, const double* points, int count, bool in_ball, float* local, float* excess);

    // Computes distances (count,) in mesh units from values in model space, extended outside the ball as in
    // neuralsdf/backends/value_outside_ball.py, and whether each point is outside.
    void (*leave)(const Placement&, const float* values, const float* excess, int count, double* distances,
                  bool* outside);
};

extern const PlacementKernel placement_baseline, placement_avx2, placement_avx512;

}  // namespace neuralsdf
