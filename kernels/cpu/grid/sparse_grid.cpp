#include "cpu/grid/sparse_grid.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "cpu/argument_checks.h"
#include "shared/marching_cubes.h"

namespace neuralsdf {
namespace {

constexpr std::int64_t max_side = 1 << 20;   // keys are far below 2^63
constexpr std::int64_t task_size = 1 << 14;  // cells or points per task; takes a few hundred microseconds

std::int64_t tasks(std::int64_t count) { return (count + task_size - 1) / task_size; }

// Throws unless keys (n,) are at least 0 and inside a grid with `side` points per side.
void check_keys(const Key* keys, std::int64_t n, const char* name, std::int64_t side) {
    require(2 <= side && side <= max_side, "a grid must have 2 to 1048576 points per side");
    const Key end = side * side * side;
    if (!std::all_of(keys, keys + n, [=](Key key) { return key >= 0 && key < end; }))
        throw std::invalid_argument(std::string(name) + " must be keys of the grid");
}

void check_ascending_keys(const Key* keys, std::int64_t n, const char* name, std::int64_t side) {
    check_keys(keys, n, name, side);
    if (std::adjacent_find(keys, keys + n, std::greater_equal<Key>()) != keys + n)
        throw std::invalid_argument(std::string(name) + " must be in ascending order");
}

}  // namespace

// -- points ----------------------------------------------------------------------------------------

void ball_points(const Key* keys, std::int64_t n, std::int64_t side, double spacing, double offset, float* points,
                 float* beyond, const Workers& workers) {
    check_keys(keys, n, "keys", side);
    require(spacing > 0 && std::isfinite(spacing * static_cast<double>(side)), "spacing must be positive");
    require(std::isfinite(offset * spacing), "offset must be finite");
    const auto position = [=](std::int64_t subscript) { return (subscript + offset) * spacing - (1 + spacing); };
    run_tasks(tasks(n), workers, [&](int, std::int64_t index, const auto&) {
        for (std::int64_t i = index * task_size; i < std::min(n, (index + 1) * task_size); ++i) {
            const double x[3] = {position(keys[i] / (side * side)), position(keys[i] / side % side),
                                 position(keys[i] % side)};
            const double radius = std::sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2]);
            for (int axis = 0; axis < 3; ++axis)
                points[3 * i + axis] = static_cast<float>(x[axis] / std::max(radius, 1.0));
            beyond[i] = static_cast<float>(radius - 1);
        }
    });
}

// -- corners ---------------------------------------------------------------------------------------

namespace {

// Looks up keys, requested in ascending order, in an ascending array of keys.
class Cursor {
  public:
    Cursor(const Key* keys, std::int64_t count, Key first)
        : keys_(keys), count_(count), at_(std::lower_bound(keys, keys + count, first) - keys) {}

    // The index of a key that is followed by its upper neighbour in z, or -1.
    std::int64_t pair(Key key) {
        while (at_ < count_ && keys_[at_] < key) ++at_;
        return at_ + 1 < count_ && keys_[at_] == key && keys_[at_ + 1] == key + 1 ? at_ : -1;
    }

    // The index of a key, or of the next larger one.
    std::int64_t next(Key key) {
        while (at_ < count_ && keys_[at_] < key) ++at_;
        return at_;
    }

  private:
    const Key* keys_;
    std::int64_t count_, at_;
};

// The number of rows of corners of a cell; each has two corners along z.
constexpr int rows = 4;
Key row_key(int row, std::int64_t side) { return (row >> 1) * side * side + (row & 1) * side; }

}  // namespace

std::vector<Key> corner_keys(const Key* cells, std::int64_t n, std::int64_t side, const Workers& workers) {
    check_ascending_keys(cells, n, "cells", side);
    std::vector<Key> keys;
    run_tasks(n > 0, {1, workers.interrupted}, [&](int, std::int64_t, const auto& stopped) {
        // For each of the eight corners, the keys ascend with the cells. Merge the eight lists.
        constexpr Key none = std::numeric_limits<Key>::max();
        Key offset[2 * rows], head[2 * rows];
        std::int64_t at[2 * rows] = {};
        for (int c = 0; c < 2 * rows; ++c) {
            offset[c] = row_key(c >> 1, side) + (c & 1);
            head[c] = cells[0] + offset[c];
        }
        keys.reserve(n + n / 2);
        for (;;) {
            const Key lowest = *std::min_element(head, head + 2 * rows);
            if (lowest == none || (keys.size() % task_size == 0 && stopped())) return;
            keys.push_back(lowest);
            for (int c = 0; c < 2 * rows; ++c)
                if (head[c] == lowest) head[c] = ++at[c] < n ? cells[at[c]] + offset[c] : none;
        }
    });
    return keys;
}

namespace {

// A grid with checked arrays.
struct CheckedGrid : SparseGrid {
    explicit CheckedGrid(const SparseGrid& grid) : SparseGrid(grid) {
        check_ascending_keys(cells, cell_count, "cells", side);
        check_ascending_keys(keys, count, "keys", side);
    }

    // Calls `visit(cell, first)` for all cells, with the index of the lower corner of each row of the cell.
    template <class Visit>
    void for_cells(const Workers& workers, const Visit& visit) const {
        std::atomic<bool> complete{true};
        run_tasks(tasks(cell_count), workers, [&](int, std::int64_t index, const auto&) {
            const std::int64_t begin = index * task_size, end = std::min(cell_count, begin + task_size);
            std::vector<Cursor> cursors;
            for (int row = 0; row < rows; ++row) cursors.emplace_back(keys, count, cells[begin] + row_key(row, side));
            for (std::int64_t cell = begin; cell < end; ++cell) {
                std::int64_t first[rows];
                for (int row = 0; row < rows; ++row) {
                    first[row] = cursors[row].pair(cells[cell] + row_key(row, side));
                    if (first[row] < 0) {
                        complete = false;
                        return;
                    }
                }
                visit(cell, first);
            }
        });
        if (!complete) throw std::invalid_argument("keys must contain the corners of all cells");
    }

    // The code of a cell: a bit for each corner that is inside.
    std::uint8_t code(const std::int64_t* first) const {
        int code = 0;
        for (int corner = 0; corner < 8; ++corner) code |= (values[corner_index(first, corner)] < 0) << corner;
        return static_cast<std::uint8_t>(code);
    }

    static std::int64_t corner_index(const std::int64_t* first, int corner) {
        return first[2 * corner_x(corner) + corner_y(corner)] + corner_z(corner);
    }
};

}  // namespace

void cell_codes(const SparseGrid& unchecked, std::uint8_t* codes, const Workers& workers) {
    const CheckedGrid grid(unchecked);
    grid.for_cells(workers, [&](std::int64_t cell, const std::int64_t* first) { codes[cell] = grid.code(first); });
}

// -- marching cubes --------------------------------------------------------------------------------

namespace {

// Numbers the vertices. A vertex is identified by its edge, and vertices are numbered in the order of the lower ends of
// the edges.
class Vertices {
  public:
    explicit Vertices(const CheckedGrid& grid) : grid_(grid), axes_(grid.count), first_(grid.count + 1) {}

    void add(std::int64_t point, int axis) { axes_[point] |= 1 << axis; }

    std::int64_t number() {
        for (std::int64_t i = 0; i < grid_.count; ++i) first_[i + 1] = first_[i] + below(i, 3);
        return first_.back();
    }

    std::int64_t vertex(std::int64_t point, int axis) const { return first_[point] + below(point, axis); }

    // Writes positions (n, 3) in units of the grid.
    void place(double* positions, double margin, const Workers& workers) const {
        const CheckedGrid& l = grid_;
        run_tasks(tasks(l.count), workers, [&](int, std::int64_t index, const auto&) {
            const std::int64_t begin = index * task_size, end = std::min(l.count, begin + task_size);
            const Key strides[3] = {l.side * l.side, l.side, 1};
            Cursor ends[3] = {{l.keys, l.count, l.keys[begin] + strides[0]},
                              {l.keys, l.count, l.keys[begin] + strides[1]},
                              {l.keys, l.count, l.keys[begin] + strides[2]}};
            double* position = positions + 3 * first_[begin];
            for (std::int64_t i = begin; i < end; ++i) {
                const Key key = l.keys[i];
                for (int axis = 0; axis < 3; ++axis) {
                    if (!(axes_[i] >> axis & 1)) continue;
                    position[0] = static_cast<double>(key / strides[0]);
                    position[1] = static_cast<double>(key / strides[1] % l.side);
                    position[2] = static_cast<double>(key % l.side);
                    const std::int64_t end_index = std::min(ends[axis].next(key + strides[axis]), l.count - 1);
                    position[axis] += crossing(l.values[i], l.values[end_index], margin);
                    position += 3;
                }
            }
        });
    }

  private:
    // The number of edges with a vertex that start at a point along the first `axis` axes.
    int below(std::int64_t point, int axis) const {
        const int bits = axes_[point];
        return (bits & 1 & -(axis > 0)) + (bits >> 1 & 1 & -(axis > 1)) + (bits >> 2 & 1 & -(axis > 2));
    }

    const CheckedGrid& grid_;
    std::vector<std::uint8_t> axes_;  // a bit for each axis along which the edge has a vertex
    std::vector<std::uint32_t> first_;
};

}  // namespace

Surface marching_cubes(const SparseGrid& unchecked, double margin, const Workers& workers) {
    const CheckedGrid grid(unchecked);
    // Vertex numbers must be below 2^32.
    require(grid.count <= std::numeric_limits<std::int32_t>::max(), "too many keys");
    require(0 <= margin && margin <= 0.5, "margin must be 0 to 0.5");
    Vertices numbered(grid);
    std::vector<std::uint8_t> codes(grid.cell_count);               // read once; the number of faces depends on them
    std::vector<std::int64_t> corners(tasks(grid.cell_count) + 1);  // offset of each task's triangles
    grid.for_cells({1, workers.interrupted}, [&](std::int64_t cell, const std::int64_t* first) {
        const char* edges = case_triangles(codes[cell] = grid.code(first));
        corners[cell / task_size + 1] += std::strlen(edges);
        for (; *edges; ++edges) {
            const int edge = edge_of_digit(*edges);
            numbered.add(CheckedGrid::corner_index(first, edge_corner(edge)), edge_axis(edge));
        }
    });
    for (std::size_t task = 1; task < corners.size(); ++task) corners[task] += corners[task - 1];

    Surface surface;
    surface.vertices.resize(3 * numbered.number());
    numbered.place(surface.vertices.data(), margin, workers);
    surface.faces.resize(corners.back());
    grid.for_cells(workers, [&](std::int64_t cell, const std::int64_t* first) {
        std::int64_t& at = corners[cell / task_size];
        for (const char* edges = case_triangles(codes[cell]); *edges; ++edges) {
            const int edge = edge_of_digit(*edges);
            surface.faces[at++] = numbered.vertex(CheckedGrid::corner_index(first, edge_corner(edge)), edge_axis(edge));
        }
    });
    return surface;
}

// -- connected surfaces ----------------------------------------------------------------------------

std::int64_t connected_faces(const std::int64_t* faces, std::int64_t n, std::int64_t vertex_count, std::int64_t* labels,
                             const Workers& workers) {
    require(0 <= vertex_count && vertex_count <= std::numeric_limits<std::int32_t>::max(), "too many vertices");
    // Copied, because another thread could change an index after it is checked.
    const std::vector<std::int64_t> face(faces, faces + 3 * n);
    require(std::all_of(face.begin(), face.end(), [=](Key vertex) { return vertex >= 0 && vertex < vertex_count; }),
            "a vertex index in faces is out of range");
    std::int64_t count = 0;
    run_tasks(n > 0, {1, workers.interrupted}, [&](int, std::int64_t, const auto&) {
        std::vector<std::int32_t> parent(vertex_count), number(vertex_count, -1);
        for (std::int64_t i = 0; i < vertex_count; ++i) parent[i] = static_cast<std::int32_t>(i);
        const auto root = [&](std::int64_t vertex) {
            auto at = static_cast<std::int32_t>(vertex);
            while (parent[at] != at) at = parent[at] = parent[parent[at]];
            return at;
        };
        for (std::int64_t i = 0; i < n; ++i)
            for (int corner = 1; corner < 3; ++corner) {
                const std::int32_t a = root(face[3 * i]), b = root(face[3 * i + corner]);
                parent[std::max(a, b)] = std::min(a, b);
            }
        for (std::int64_t i = 0; i < n; ++i) {
            std::int32_t& own = number[root(face[3 * i])];
            if (own < 0) own = static_cast<std::int32_t>(count++);
            labels[i] = own;
        }
    });
    return count;
}

}  // namespace neuralsdf
