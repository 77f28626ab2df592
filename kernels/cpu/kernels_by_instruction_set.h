// The operations on one block of points: one table of functions per instruction set.
#pragma once

#include "cpu/bvh/traversal.h"
#include "cpu/mesh_space.h"
#include "cpu/mlp/amx_tiles.h"
#include "cpu/mlp/weight_layout.h"
#include "cpu/tape/instructions.h"
#include "cpu/tape/sphere_bvh.h"
#include "cpu/training/soap.h"

namespace neuralsdf {

// The samples of a block, 0 <= count <= block_points: those at the indices `order`, or the first `count` if it is null.
struct Samples {
    const float *points, *targets;
    const std::int64_t* order;
    int count;
};

// `packed`: packed weights. `points`: (count, 3) with 1 <= count <= block_points. `packed` and `workspace` must be
// aligned to 64 bytes.
struct Kernel {
    const char* name;
    int lanes;

    // Computes values (count,). Size of the workspace: evaluate_workspace.
    void (*evaluate)(const Layout&, const float* packed, const float* points, int count, float* values,
                     float* workspace);

    // Computes values (count,) and their gradients (count, 3) with respect to the points. Size of the workspace:
    // gradient_workspace.
    void (*evaluate_with_gradient)(const Layout&, const float* packed, const float* points, int count, float* values,
                                   float* gradients, float* workspace);

    // Returns the sum of |f(x) - d| over the samples `now` and adds its gradient with respect to the weights to
    // `gradient` (gradient_size floats, packed). Size of the workspace: gradient_workspace. The samples `next` are
    // prefetched meanwhile: the samples of a batch are scattered in memory, and cache misses would cost up to a tenth
    // of the run time.
    double (*add_loss_gradient)(const Layout&, const float* packed, const Samples& now, const Samples& next,
                                float* gradient, float* workspace);

    // As above, but adds only the gradient with respect to the hidden biases (hidden_biases_size floats).
    double (*add_bias_gradient)(const Layout&, const float* packed, const Samples& now, const Samples& next,
                                float* gradient, float* workspace);

    // Performs `rounds` multiply-adds in registers only; returns the number of floating-point operations. Benchmarks
    // use its speed as the peak of a core.
    double (*peak)(std::int64_t rounds);

    const Soap& soap;
    const TapeKernel& tape;
    const BallSearch& balls;
    const Traversal& traversal;
    const PlacementKernel& placement;
    const Tiles* tiles;  // null if there are none
};

extern const Kernel kernel_baseline, kernel_avx2, kernel_avx512;

}  // namespace neuralsdf
