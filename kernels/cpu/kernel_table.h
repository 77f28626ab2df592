// The operations on one block of points, as a table of functions for each instruction set.
#pragma once

#include "cpu/bvh/traversal.h"
#include "cpu/mlp/amx_tiles.h"
#include "cpu/mlp/weight_layout.h"
#include "cpu/placement.h"
#include "cpu/tape/instructions.h"
#include "cpu/tape/sphere_bvh.h"
#include "cpu/training/soap.h"

namespace neuralsdf {

// Samples of a block, 0 <= count <= block_points of them: those that `order` chooses, or the first ones if it is null.
struct Samples {
    const float *points, *targets;
    const std::int64_t* order;
    int count;
};

// `packed` are packed weights, `points` (count, 3) with 1 <= count <= block_points; `packed` and
// `workspace` are aligned to 64 bytes.
struct Kernel {
    const char* name;
    int lanes;

    // Values (count,); the workspace is evaluate_workspace's.
    void (*evaluate)(const Layout&, const float* packed, const float* points, int count, float* values,
                     float* workspace);

    // Values (count,) and their gradients (count, 3) by the points; the workspace is gradient_workspace's.
    void (*evaluate_with_gradient)(const Layout&, const float* packed, const float* points, int count, float* values,
                                   float* gradients, float* workspace);

    // Returns the sum of |f(x) - d| over the samples `now` and adds its gradient by the weights to `gradient`
    // (gradient_size floats, packed); the workspace is gradient_workspace's. Meanwhile the samples `next` are fetched:
    // those of a batch are anywhere in memory, and to wait for each would take as long as a tenth of the work.
    double (*add_loss_gradient)(const Layout&, const float* packed, const Samples& now, const Samples& next,
                                float* gradient, float* workspace);

    // Multiplies and adds in registers alone, `rounds` times; returns the floating-point operations done. What
    // they take is the peak of a core, against which benchmarks hold the rest.
    double (*peak)(std::int64_t rounds);

    const Soap& soap;
    const TapeKernel& tape;
    const BallSearch& balls;
    const Traversal& traversal;
    const PlacementKernel& placement;
    const Tiles* tiles;  // null where there are none
};

extern const Kernel kernel_baseline, kernel_avx2, kernel_avx512;

}  // namespace neuralsdf
