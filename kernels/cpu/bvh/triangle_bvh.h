// Queries of a mesh: distances, winding numbers and ray intersections. Points are sorted in Morton order, so that each
// query starts close to the result of the previous one. Blocks of points are distributed over threads.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/bvh/build.h"
#include "cpu/bvh/traversal.h"
#include "cpu/parallel_for.h"

namespace neuralsdf {

// Indices of points (n, 3) in Morton order, ten bits per axis. Throws std::invalid_argument unless the points are
// finite.
std::vector<std::uint32_t> morton_order(const double* points, std::int64_t n);

// Immutable: several threads may query it at the same time. Queries throw std::invalid_argument if points are not
// finite or farther than 1e15 radii from the mesh.
class TriangleBvh {
  public:
    // Copies vertices (vertex_count, 3) and faces (face_count, 3). Throws std::invalid_argument if a vertex is not
    // finite or beyond 1e300, if there are no faces, or if an index is out of range.
    TriangleBvh(const Traversal& traversal, const double* vertices, std::int64_t vertex_count,
                const std::int64_t* faces, std::int64_t face_count);

    // Computes distances (n,) to points (n, 3).
    void distance(const double* points, std::int64_t n, double* distances, const Workers& workers) const;

    // Computes distances (n,), closest faces (n,), the lowest index on ties, and closest points (n, 3).
    void closest(const double* points, std::int64_t n, double* distances, std::int64_t* faces, double* nearest,
                 const Workers& workers) const;

    // Computes winding numbers (n,) with the first accuracy, and again with the next one if ||w| - 1/2| < band.
    void winding_number(const double* points, std::int64_t n, const std::vector<Refinement>& refinements,
                        double* windings, const Workers& workers) const;

    // Computes the ray parameters (n,) of the first hits, in units of the direction's length, infinity for a miss; and
    // the faces (n,) hit, the lowest index on ties, -1 for a miss.
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
