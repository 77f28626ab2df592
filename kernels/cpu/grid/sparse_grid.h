// Surface extraction on a sparse grid, except for the evaluation of the field: positions of grid points, corners of
// cells, marching cubes. A grid point (i, j, k) has the key (i side + j) side + k; a cell has the key of its lowest
// corner. Keys are in ascending order. All functions throw std::invalid_argument if an argument is out of range.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/parallel_for.h"

namespace neuralsdf {

using Key = std::int64_t;

// Computes the closest points (n, 3) of the unit ball to grid points, and the distances (n,) of the grid points to the
// ball, negative inside. The grid points are shifted by `offset`, in units of the spacing.
void ball_points(const Key* keys, std::int64_t n, std::int64_t side, double spacing, double offset, float* points,
                 float* beyond, const Workers& workers);

// Unique keys of all corners of cells (n,), ascending.
std::vector<Key> corner_keys(const Key* cells, std::int64_t n, std::int64_t side, const Workers& workers);

// Cells (cell_count,), and the keys and values of the grid points around them (count,).
struct SparseGrid {
    const Key* cells;
    std::int64_t cell_count;
    const Key* keys;
    const float* values;
    std::int64_t count;
    std::int64_t side;
};

// Computes one code per cell, codes (cell_count,), with a bit set for each corner that is inside.
void cell_codes(const SparseGrid& grid, std::uint8_t* codes, const Workers& workers);

struct Surface {
    std::vector<double> vertices;     // (V, 3), in units of the grid
    std::vector<std::int64_t> faces;  // (F, 3)
};

// The surface in the cells. Vertices are at least the fraction `margin` of an edge away from its ends.
Surface marching_cubes(const SparseGrid& grid, double margin, const Workers& workers);

// Labels the connected components of faces (n, 3) in the order of their first faces; returns their number. Faces are
// connected if they share a vertex.
std::int64_t connected_faces(const std::int64_t* faces, std::int64_t n, std::int64_t vertex_count, std::int64_t* labels,
                             const Workers& workers);

}  // namespace neuralsdf
