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

#include "shared/marching_cubes.h"

namespace neuralsdf {
namespace {

using Key = std::int64_t;
using Keys = py::array_t<Key>;

constexpr std::int64_t max_side = 1 << 20;   // keys have room to spare
constexpr std::int64_t task_size = 1 << 14;  // cells or points: some hundred microseconds

std::int64_t tasks(std::int64_t count) { return (count + task_size - 1) / task_size; }

// Keys (n,) of a lattice with `side` points a side, each from 0 on and below the lattice's end.
const Key* checked_keys(const py::array& keys, const char* name, std::int64_t side) {
    const Key* data = checked_data<Key>(keys, name, "int64", 1);
    if (side < 2 || side > max_side) throw py::value_error("a lattice has 2 to 1048576 points a side");
    const Key end = side * side * side;
    if (!std::all_of(data, data + keys.size(), [=](Key key) { return key >= 0 && key < end; }))
        throw py::value_error(std::string(name) + " must be keys of the lattice");
    return data;
}

const Key* ascending_keys(const py::array& keys, const char* name, std::int64_t side) {
    const Key* data = checked_keys(keys, name, side);
    if (std::adjacent_find(data, data + keys.size(), std::greater_equal<Key>()) != data + keys.size())
        throw py::value_error(std::string(name) + " must ascend");
    return data;
}

// -- points ----------------------------------------------------------------------------------------

py::tuple ball_points(const py::array& keys, std::int64_t side, double spacing, double offset, int threads) {
    const Key* key = checked_keys(keys, "keys", side);
    require(spacing > 0 && std::isfinite(spacing * static_cast<double>(side)), "spacing must be positive");
    require(std::isfinite(offset * spacing), "offset must be finite");
    const std::int64_t n = keys.size();
    py::array_t<float> points(std::vector<py::ssize_t>{n, 3}), beyond(n);
    float* y = points.mutable_data();
    float* excess = beyond.mutable_data();
    const auto position = [=](std::int64_t subscript) { return (subscript + offset) * spacing - (1 + spacing); };
    run_without_gil(tasks(n), threads, 0, [&](float*, std::int64_t index, const auto&) {
        for (std::int64_t i = index * task_size; i < std::min(n, (index + 1) * task_size); ++i) {
            const double x[3] = {position(key[i] / (side * side)), position(key[i] / side % side),
                                 position(key[i] % side)};
            const double radius = std::sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2]);
            for (int axis = 0; axis < 3; ++axis) y[3 * i + axis] = static_cast<float>(x[axis] / std::max(radius, 1.0));
            excess[i] = static_cast<float>(radius - 1);
        }
    });
    return py::make_tuple(points, beyond);
}

// -- corners ---------------------------------------------------------------------------------------

// Finds keys that are asked for in ascending order among ascending ones.
class Cursor {
  public:
    Cursor(const Key* keys, std::int64_t count, Key first)
        : keys_(keys), count_(count), at_(std::lower_bound(keys, keys + count, first) - keys) {}

    // The index of a key that the one above it in z follows, or -1.
    std::int64_t pair(Key key) {
        while (at_ < count_ && keys_[at_] < key) ++at_;
        return at_ + 1 < count_ && keys_[at_] == key && keys_[at_ + 1] == key + 1 ? at_ : -1;
    }

    // The index of a key, or of the next one there is.
    std::int64_t next(Key key) {
        while (at_ < count_ && keys_[at_] < key) ++at_;
        return at_;
    }

  private:
    const Key* keys_;
    std::int64_t count_, at_;
};

// The rows of corners of a cell: two corners in z at each.
constexpr int rows = 4;
Key row_key(int row, std::int64_t side) { return (row >> 1) * side * side + (row & 1) * side; }

Keys corner_keys(const py::array& cells, std::int64_t side) {
    const Key* cell = ascending_keys(cells, "cells", side);
    const std::int64_t n = cells.size();
    std::vector<Key> keys;
    run_without_gil(n > 0, 1, 0, [&](float*, std::int64_t, const auto& stopped) {
        // The keys of each of the eight corners ascend with the cells: merge them.
        constexpr Key none = std::numeric_limits<Key>::max();
        Key offset[2 * rows], head[2 * rows];
        std::int64_t at[2 * rows] = {};
        for (int c = 0; c < 2 * rows; ++c) {
            offset[c] = row_key(c >> 1, side) + (c & 1);
            head[c] = cell[0] + offset[c];
        }
        keys.reserve(n + n / 2);
        for (;;) {
            const Key least = *std::min_element(head, head + 2 * rows);
            if (least == none || (keys.size() % task_size == 0 && stopped())) return;
            keys.push_back(least);
            for (int c = 0; c < 2 * rows; ++c)
                if (head[c] == least) head[c] = ++at[c] < n ? cell[at[c]] + offset[c] : none;
        }
    });
    return Keys(static_cast<py::ssize_t>(keys.size()), keys.data());
}

// Cells and the lattice points around them, with values.
struct Lattice {
    Lattice(const py::array& cells, const py::array& keys, const py::array& values, std::int64_t side)
        : cells(ascending_keys(cells, "cells", side)),
          keys(ascending_keys(keys, "keys", side)),
          values(floats(values, "values", 1)),
          cell_count(cells.size()),
          count(keys.size()),
          side(side) {
        if (values.size() != count) throw py::value_error("values must have the shape (n,), one for each key");
    }

    // Calls `visit(cell, first)` for cells, with the index of the lower corner of each of the cell's rows.
    template <class Visit>
    void for_cells(int threads, const Visit& visit) const {
        std::atomic<bool> complete{true};
        run_without_gil(tasks(cell_count), threads, 0, [&](float*, std::int64_t index, const auto&) {
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
        if (!complete) throw py::value_error("keys must hold the corners of all cells");
    }

    // A bit for each corner of a cell that is inside.
    std::uint8_t code(const std::int64_t* first) const {
        int code = 0;
        for (int corner = 0; corner < 8; ++corner) code |= (values[corner_index(first, corner)] < 0) << corner;
        return static_cast<std::uint8_t>(code);
    }

    static std::int64_t corner_index(const std::int64_t* first, int corner) {
        return first[2 * corner_x(corner) + corner_y(corner)] + corner_z(corner);
    }

    const Key* cells;
    const Key* keys;
    const float* values;
    std::int64_t cell_count, count, side;
};

py::array_t<std::uint8_t> cell_codes(const py::array& cells, const py::array& keys, const py::array& values,
                                     std::int64_t side, int threads) {
    const Lattice lattice(cells, keys, values, side);
    py::array_t<std::uint8_t> codes(lattice.cell_count);
    std::uint8_t* code = codes.mutable_data();
    lattice.for_cells(threads, [&](std::int64_t cell, const std::int64_t* first) { code[cell] = lattice.code(first); });
    return codes;
}

// -- marching cubes --------------------------------------------------------------------------------

// Vertices are known by their edges, and numbered in the order of the edges' lower ends.
class Vertices {
  public:
    explicit Vertices(const Lattice& lattice) : lattice_(lattice), axes_(lattice.count), first_(lattice.count + 1) {}

    void add(std::int64_t point, int axis) { axes_[point] |= 1 << axis; }

    std::int64_t number() {
        for (std::int64_t i = 0; i < lattice_.count; ++i) first_[i + 1] = first_[i] + below(i, 3);
        return first_.back();
    }

    std::int64_t vertex(std::int64_t point, int axis) const { return first_[point] + below(point, axis); }

    // Writes positions (n, 3) in units of the lattice.
    void place(double* positions, double margin, int threads) const {
        const Lattice& l = lattice_;
        run_without_gil(tasks(l.count), threads, 0, [&](float*, std::int64_t index, const auto&) {
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
    // How many edges along the first `axis` axes rise from a point with a vertex on them.
    int below(std::int64_t point, int axis) const {
        const int bits = axes_[point];
        return (bits & 1 & -(axis > 0)) + (bits >> 1 & 1 & -(axis > 1)) + (bits >> 2 & 1 & -(axis > 2));
    }

    const Lattice& lattice_;
    std::vector<std::uint8_t> axes_;  // a bit for each axis along which an edge holds a vertex
    std::vector<std::uint32_t> first_;
};

py::tuple marching_cubes(const py::array& cells, const py::array& keys, const py::array& values, std::int64_t side,
                         double margin, int threads) {
    const Lattice lattice(cells, keys, values, side);
    if (lattice.count > std::numeric_limits<std::int32_t>::max())  // a vertex has a number below 2^32
        throw py::value_error("there are too many keys");
    require(0 <= margin && margin <= 0.5, "margin must be 0 to 0.5");
    Vertices numbered(lattice);
    std::vector<std::uint8_t> codes(lattice.cell_count);  // read once: they decide how many faces there are
    std::vector<std::int64_t> corners(tasks(lattice.cell_count) + 1);  // of triangles before each task's
    lattice.for_cells(1, [&](std::int64_t cell, const std::int64_t* first) {
        const char* edges = case_triangles(codes[cell] = lattice.code(first));
        corners[cell / task_size + 1] += std::strlen(edges);
        for (; *edges; ++edges) {
            const int edge = edge_of_digit(*edges);
            numbered.add(Lattice::corner_index(first, edge_corner(edge)), edge_axis(edge));
        }
    });
    for (std::size_t task = 1; task < corners.size(); ++task) corners[task] += corners[task - 1];

    py::array_t<double> vertices(std::vector<py::ssize_t>{numbered.number(), 3});
    numbered.place(vertices.mutable_data(), margin, threads);
    py::array_t<std::int64_t> faces(std::vector<py::ssize_t>{corners.back() / 3, 3});
    std::int64_t* const face = faces.mutable_data();
    lattice.for_cells(threads, [&](std::int64_t cell, const std::int64_t* first) {
        std::int64_t& at = corners[cell / task_size];
        for (const char* edges = case_triangles(codes[cell]); *edges; ++edges) {
            const int edge = edge_of_digit(*edges);
            face[at++] = numbered.vertex(Lattice::corner_index(first, edge_corner(edge)), edge_axis(edge));
        }
    });
    return py::make_tuple(vertices, faces);
}

// -- connected surfaces ----------------------------------------------------------------------------

// The number (F,) of the connected surface that each face belongs to, in the order of their first faces, and how
// many there are. Faces are connected where they share a vertex.
py::tuple connected_faces(const py::array& faces, std::int64_t vertex_count) {
    const Key* face = checked_data<Key>(faces, "faces", "int64", 2);
    if (faces.shape(1) != 3) throw py::value_error("faces must have the shape (n, 3)");
    if (vertex_count < 0 || vertex_count > std::numeric_limits<std::int32_t>::max())
        throw py::value_error("there are too many vertices");
    const std::int64_t n = faces.shape(0);
    if (!std::all_of(face, face + 3 * n, [=](Key vertex) { return vertex >= 0 && vertex < vertex_count; }))
        throw py::value_error("faces must name vertices");
    py::array_t<std::int64_t> labels(n);
    std::int64_t* label = labels.mutable_data();
    std::int64_t count = 0;
    run_without_gil(n > 0, 1, 0, [&](float*, std::int64_t, const auto&) {
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
            label[i] = own;
        }
    });
    return py::make_tuple(labels, count);
}

}  // namespace

void bind_lattice(py::module_& module) {
    module.def("ball_points", &ball_points,
               "Points (n, 3) of the ball nearest to lattice points, and how far those lie beyond the ball (n,).",
               py::arg("keys"), py::arg("side"), py::arg("spacing"), py::arg("offset"), py::arg("threads"));
    module.def("corner_keys", &corner_keys, "Keys of all corners of cells, ascending, each once.", py::arg("cells"),
               py::arg("side"));
    module.def("cell_codes", &cell_codes, "For each cell, a bit for each corner that is inside.", py::arg("cells"),
               py::arg("keys"), py::arg("values"), py::arg("side"), py::arg("threads"));
    module.def("connected_faces", &connected_faces,
               "The connected surface (F,) of each of faces (F, 3), and how many there are.", py::arg("faces"),
               py::arg("vertex_count"));
    module.def("marching_cubes", &marching_cubes,
               "Vertices (V, 3) in units of the lattice, and faces (F, 3), of the surface in cells.", py::arg("cells"),
               py::arg("keys"), py::arg("values"), py::arg("side"), py::arg("margin"), py::arg("threads"));
}

}  // namespace neuralsdf
