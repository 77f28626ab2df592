// Queries of a tree for one block of points: one table of functions per instruction set.
#pragma once

#include "shared/bvh.h"

namespace neuralsdf {

// A winding number w is computed with `accuracy`, and again with the next refinement if ||w| - 1/2| < band.
struct Refinement {
    double accuracy, band;
};

// Points are (n, 3) in mesh space. A block consists of the `count` points whose indices are in `order`; results are
// written to the same indices. Neighbours in `order` should be close to each other in space.
struct Traversal {
    // Computes distances (n,) and, unless null, faces (n,) and closest points (n, 3).
    void (*closest)(const Tree&, const double* points, const std::uint32_t* order, int count, double* distance,
                    std::int64_t* face, double* nearest);

    void (*winding_number)(const Tree&, const double* points, const std::uint32_t* order, int count,
                           const Refinement* refinements, int refinement_count, double* winding);

    // Computes the ray parameters (n,) of the first hits, infinity for a miss, and the faces (n,) hit, -1 for a miss.
    void (*first_hit)(const Tree&, const double* origins, const double* directions, const std::uint32_t* order,
                      int count, double* length, std::int64_t* face);
};

extern const Traversal traversal_baseline, traversal_avx2, traversal_avx512;

}  // namespace neuralsdf
