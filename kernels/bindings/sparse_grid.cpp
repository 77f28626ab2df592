#include "cpu/grid/sparse_grid.h"

#include <tuple>

#include "bindings/arrays.h"

namespace neuralsdf {
namespace {

using Keys = Array<Key>;

std::tuple<Array<float>, Array<float>> ball_points_of(const Keys& keys, std::int64_t side, double spacing,
                                                      double offset, int threads) {
    const Key* key = checked_data(keys, "keys", 1);
    const std::int64_t n = keys.size();
    Array<float> points = new_array<float>({n, 3}), beyond = new_array<float>({n});
    float *y = data_of(points), *excess = data_of(beyond);
    without_gil([&] { ball_points(key, n, side, spacing, offset, y, excess, workers_of(threads)); });
    return {points, beyond};
}

Keys corner_keys_of(const Keys& cells, std::int64_t side) {
    const Key* cell = checked_data(cells, "cells", 1);
    std::vector<Key> keys = without_gil([&] { return corner_keys(cell, cells.size(), side, workers_of(1)); });
    const auto count = static_cast<py::ssize_t>(keys.size());
    return array_of(std::move(keys), {count});
}

SparseGrid grid_of(const Keys& cells, const Keys& keys, const Array<float>& values, std::int64_t side) {
    const Key *cell = checked_data(cells, "cells", 1), *key = checked_data(keys, "keys", 1);
    const float* value = checked_data(values, "values", 1);
    require(values.size() == keys.size(), "values must have the shape (n,), one for each key");
    return {cell, cells.size(), key, value, keys.size(), side};
}

Array<std::uint8_t> cell_codes_of(const Keys& cells, const Keys& keys, const Array<float>& values, std::int64_t side,
                                  int threads) {
    const SparseGrid grid = grid_of(cells, keys, values, side);
    Array<std::uint8_t> codes = new_array<std::uint8_t>({cells.size()});
    std::uint8_t* code = data_of(codes);
    without_gil([&] { cell_codes(grid, code, workers_of(threads)); });
    return codes;
}

std::tuple<Array<double>, Array<std::int64_t>> marching_cubes_of(const Keys& cells, const Keys& keys,
                                                                 const Array<float>& values, std::int64_t side,
                                                                 double margin, int threads) {
    const SparseGrid grid = grid_of(cells, keys, values, side);
    Surface surface = without_gil([&] { return marching_cubes(grid, margin, workers_of(threads)); });
    const auto vertices = static_cast<py::ssize_t>(surface.vertices.size() / 3);
    const auto faces = static_cast<py::ssize_t>(surface.faces.size() / 3);
    return {array_of(std::move(surface.vertices), {vertices, 3}), array_of(std::move(surface.faces), {faces, 3})};
}

std::tuple<Array<std::int64_t>, std::int64_t> connected_faces_of(const Array<std::int64_t>& faces,
                                                                 std::int64_t vertex_count) {
    const std::int64_t* face = checked_vectors(faces, "faces");
    const std::int64_t n = faces.shape(0);
    Array<std::int64_t> labels = new_array<std::int64_t>({n});
    std::int64_t* label = data_of(labels);
    const std::int64_t count =
        without_gil([&] { return connected_faces(face, n, vertex_count, label, workers_of(1)); });
    return {labels, count};
}

}  // namespace

void bind_sparse_grid(py::module_& module) {
    module.def(
        "ball_points", ball_points_of,
        "Closest points (n, 3) of the unit ball to grid points, and the distances (n,) of the grid points to the ball; "
        "negative inside.",
        py::arg("keys"), py::arg("side"), py::arg("spacing"), py::arg("offset"), py::arg("threads"));
    module.def("corner_keys", corner_keys_of, "Unique keys of all corners of cells, ascending.", py::arg("cells"),
               py::arg("side"));
    module.def("cell_codes", cell_codes_of, "One code per cell, with a bit set for each corner that is inside.",
               py::arg("cells"), py::arg("keys"), py::arg("values"), py::arg("side"), py::arg("threads"));
    module.def("connected_faces", connected_faces_of,
               "Component label (F,) of each of faces (F, 3), and the number of components.", py::arg("faces"),
               py::arg("vertex_count"));
    module.def("marching_cubes", marching_cubes_of,
               "Vertices (V, 3) in units of the grid and faces (F, 3) of the surface in cells.", py::arg("cells"),
               py::arg("keys"), py::arg("values"), py::arg("side"), py::arg("margin"), py::arg("threads"));
}

}  // namespace neuralsdf
