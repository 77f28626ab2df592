// From mesh space into a field's model space and back: a table of functions for each instruction set.
#pragma once

namespace neuralsdf {

// x = scale * R y + centre maps y of model space to x of mesh space; R is orthogonal, row-major.
struct Placement {
    double rotation[9], centre[3], scale;
};

// Points that are computed side by side: what functions write has room for whole rounds of them.
constexpr int round_points = 16;

struct PlacementKernel {
    // Points (count, 3) of mesh space in model space, `local` (count, 3); NaN for those that are not finite or more
    // than 1e18 away, which float32 cannot square. Where `in_ball`, the nearest points of the unit ball, and how far
    // those are, `excess` (count,), 0 in the ball; NaN for NaN. Otherwise that is 0.
    void (*enter)(const Placement&, const double* points, int count, bool in_ball, float* local, float* excess);

    // Distances (count,) in mesh units from values in model space, extended beyond the ball as
    // neuralsdf/backends/extension.py does; and whether each point is beyond it.
    void (*leave)(const Placement&, const float* values, const float* excess, int count, double* distances,
                  bool* outside);
};

extern const PlacementKernel placement_baseline, placement_avx2, placement_avx512;

}  // namespace neuralsdf
