// Extraction on a sparse grid, besides evaluating the field: positions of grid points, corners of cells, marching
// cubes. A grid point (i, j, k) has the key (i side + j) side + k, a cell that of its lowest corner; keys ascend. All
// functions throw std::invalid_argument if an argument is out of range.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/workers.h"

namespace neuralsdf {

using Key = std::int64_t;

// Points (n, 3) of the unit ball nearest to grid points, and how far those lie beyond the ball (n,). `offset` is that
// of the points from the grid's, in units of the spacing.
void ball_points(const Key* keys, std::int64_t n, std::int64_t side, double spacing, double offset, float* points,
                 float* beyond, const Workers& workers);

// Keys of all corners of cells (n,), ascending, each once.
std::vector<Key> corner_keys(const Key* cells, std::int64_t n, std::int64_t side, const Workers& workers);

// Cells (cell_count,) and the grid points around them (count,), with values.
struct SparseGrid {
    const Key* cells;
    std::int64_t cell_count;
    const Key* keys;
    const float* values;
    std::int64_t count;
    std::int64_t side;
};

// A bit for each corner that is inside, for each cell: codes (cell_count,).
void cell_codes(const SparseGrid& grid, std::uint8_t* codes, const Workers& workers);

struct Surface {
    std::vector<double> vertices;     // (V, 3), in units of the grid
    std::vector<std::int64_t> faces;  // (F, 3)
};

// The surface in the cells. Vertices keep at least `margin` of an edge from its ends.
Surface marching_cubes(const SparseGrid& grid, double margin, const Workers& workers);

// The connected surface of each of faces (n, 3), numbered in the order of their first faces; returns how many there
// are. Faces are connected if they share a vertex.
std::int64_t connected_faces(const std::int64_t* faces, std::int64_t n, std::int64_t vertex_count, std::int64_t* labels,
                             const Workers& workers);

}  // namespace neuralsdf
