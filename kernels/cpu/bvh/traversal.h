// The queries of a tree on one block of points, as a table of functions for each instruction set.
#pragma once

#include "shared/bvh.h"

namespace neuralsdf {

// A winding number w is asked for at `accuracy`, and again at the next one where ||w| - 1/2| < band.
struct Refinement {
    double accuracy, band;
};

// Points are (n, 3) in the mesh's own space; a block is the `count` of them whose indices are in `order`, and
// answers go to the same indices. Neighbours in the order should be neighbours in space.
struct Traversal {
    // Distances (n,) and, unless they are null, faces (n,) and closest points (n, 3).
    void (*closest)(const Tree&, const double* points, const std::uint32_t* order, int count, double* distance,
                    std::int64_t* face, double* nearest);

    void (*winding_number)(const Tree&, const double* points, const std::uint32_t* order, int count,
                           const Refinement* refinements, int refinement_count, double* winding);

    // Lengths (n,) of rays up to their first hits, infinite for none, and the faces (n,) hit, -1 for none.
    void (*first_hit)(const Tree&, const double* origins, const double* directions, const std::uint32_t* order,
                      int count, double* length, std::int64_t* face);
};

extern const Traversal traversal_baseline, traversal_avx2, traversal_avx512;

}  // namespace neuralsdf
