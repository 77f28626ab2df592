// Queries of a mesh: distances, winding numbers and rays. Points are sorted in Morton order, so that a query starts
// close to the answer of the one before, and blocks of them are spread over threads.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/bvh/build.h"
#include "cpu/bvh/traversal.h"
#include "cpu/workers.h"

namespace neuralsdf {

// Indices of points (n, 3) in Morton order, ten bits an axis. Throws std::invalid_argument unless they are finite.
std::vector<std::uint32_t> morton_order(const double* points, std::int64_t n);

// Immutable: any number of threads may query it at once. Queries throw std::invalid_argument if points are not finite
// or farther than 1e15 radii from the mesh.
class TriangleBvh {
  public:
    // Vertices (vertex_count, 3) and faces (face_count, 3), which are copied. Throws std::invalid_argument if a vertex
    // is not finite or beyond 1e300, if there is no face or an index is out of range.
    TriangleBvh(const Traversal& traversal, const double* vertices, std::int64_t vertex_count,
                const std::int64_t* faces, std::int64_t face_count);

    // Distances (n,) to points (n, 3).
    void distance(const double* points, std::int64_t n, double* distances, const Workers& workers) const;

    // Distances (n,), closest faces (n,), of equally close ones the first, and closest points (n, 3).
    void closest(const double* points, std::int64_t n, double* distances, std::int64_t* faces, double* nearest,
                 const Workers& workers) const;

    // Winding numbers (n,) to the first accuracy, and again to the next one where ||w| - 1/2| < band.
    void winding_number(const double* points, std::int64_t n, const std::vector<Refinement>& refinements,
                        double* windings, const Workers& workers) const;

    // Lengths (n,) of rays up to the first triangle, in units of their directions' lengths, infinite for none; and its
    // face (n,), of equally far ones the first, -1 for none.
    void first_hit(const double* origins, const double* directions, std::int64_t n, double* lengths,
                   std::int64_t* faces, const Workers& workers) const;

    const OwnedTree& owned() const { return owned_; }

  private:
    const Tree& tree() const { return owned_.view(); }
    void check_points(const double* points, std::int64_t n, const char* name) const;

    const Traversal& traversal_;
    const OwnedTree owned_;
};

}  // namespace neuralsdf
