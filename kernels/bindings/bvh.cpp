#include <pybind11/stl.h>

#include <memory>
#include <tuple>

#include "bindings/arrays.h"
#include "cpu/bvh/triangle_bvh.h"
#include "cpu/instruction_sets.h"

namespace neuralsdf {
namespace {

std::unique_ptr<TriangleBvh> build(const Array<double>& vertices, const Array<std::int64_t>& faces,
                                   const std::string& isa) {
    const double* v = checked_vectors(vertices, "vertices");
    const std::int64_t* f = checked_data(faces, "faces", 2);
    require(faces.shape(1) == 3, "faces must have the shape (F, 3), F > 0");
    const Traversal& traversal = kernel_named(isa).traversal;
    return without_gil(
        [&] { return std::make_unique<TriangleBvh>(traversal, v, vertices.shape(0), f, faces.shape(0)); });
}

Array<double> distance(const TriangleBvh& bvh, const Array<double>& points, int threads) {
    const double* p = checked_vectors(points, "points");
    const std::int64_t n = points.shape(0);
    Array<double> distances = new_array<double>({n});
    double* d = data_of(distances);
    without_gil([&] { bvh.distance(p, n, d, workers_of(threads)); });
    return distances;
}

std::tuple<Array<double>, Array<std::int64_t>, Array<double>> closest(const TriangleBvh& bvh,
                                                                      const Array<double>& points, int threads) {
    const double* p = checked_vectors(points, "points");
    const std::int64_t n = points.shape(0);
    Array<double> distances = new_array<double>({n}), nearest = new_array<double>({n, 3});
    Array<std::int64_t> faces = new_array<std::int64_t>({n});
    double *d = data_of(distances), *to = data_of(nearest);
    std::int64_t* f = data_of(faces);
    without_gil([&] { bvh.closest(p, n, d, f, to, workers_of(threads)); });
    return {distances, faces, nearest};
}

Array<double> winding_number(const TriangleBvh& bvh, const Array<double>& points,
                             const std::vector<std::pair<double, double>>& refinements, int threads) {
    const double* p = checked_vectors(points, "points");
    const std::int64_t n = points.shape(0);
    std::vector<Refinement> steps;
    for (const auto& [accuracy, band] : refinements) steps.push_back({accuracy, band});
    Array<double> windings = new_array<double>({n});
    double* w = data_of(windings);
    without_gil([&] { bvh.winding_number(p, n, steps, w, workers_of(threads)); });
    return windings;
}

std::tuple<Array<double>, Array<std::int64_t>> first_hit(const TriangleBvh& bvh, const Array<double>& origins,
                                                         const Array<double>& directions, int threads) {
    const double *o = checked_vectors(origins, "origins"), *d = checked_vectors(directions, "directions");
    require(origins.shape(0) == directions.shape(0), "each origin needs one direction");
    const std::int64_t n = origins.shape(0);
    Array<double> lengths = new_array<double>({n});
    Array<std::int64_t> faces = new_array<std::int64_t>({n});
    double* t = data_of(lengths);
    std::int64_t* f = data_of(faces);
    without_gil([&] { bvh.first_hit(o, d, n, t, f, workers_of(threads)); });
    return {lengths, faces};
}

// A read-only view of structs as bytes (n, size). They belong to `self` and are not copied.
template <class T>
Array<std::uint8_t> bytes_of(const py::object& self, const std::vector<T>& structs) {
    const std::vector<py::ssize_t> shape{static_cast<py::ssize_t>(structs.size()), sizeof(T)};
    Array<std::uint8_t> bytes(py::dtype::of<std::uint8_t>(), shape, structs.data(), self);
    bytes.attr("setflags")(py::arg("write") = false);
    return bytes;
}

const OwnedTree& owned(const py::object& self) { return self.cast<const TriangleBvh&>().owned(); }

Array<std::uint32_t> sorted(const Array<double>& points) {
    const double* p = checked_vectors(points, "points");
    std::vector<std::uint32_t> order = without_gil([&] { return morton_order(p, points.shape(0)); });
    return array_of(std::move(order), {points.shape(0)});
}

}  // namespace

void bind_bvh(py::module_& module) {
    py::class_<TriangleBvh>(module, "TriangleBVH",
                            "A triangle mesh with a BVH, for distances, winding numbers and ray intersections.")
        .def(py::init(&build), py::arg("vertices"), py::arg("faces"), py::arg("isa"))
        .def("distance", distance, "Distances (n,) to points (n, 3).", py::arg("points"), py::arg("threads"))
        .def(
            "closest", closest,
            "Distances (n,) to points (n, 3), closest faces (n,), the lowest index on ties, and closest points (n, 3).",
            py::arg("points"), py::arg("threads"))
        .def("winding_number", winding_number,
             "Winding numbers w (n,) at points (n, 3) with the first accuracy, and again with the next one if "
             "||w| - 1/2| < band.",
             py::arg("points"), py::arg("refinements"), py::arg("threads"))
        .def("first_hit", first_hit,
             "Ray parameters (n,) of the first hits, in units of the direction's length, inf for a miss; and the faces "
             "(n,) hit, the lowest index on ties, -1 for a miss.",
             py::arg("origins"), py::arg("directions"), py::arg("threads"))
        .def_property_readonly("nodes", [](const py::object& self) { return bytes_of(self, owned(self).nodes()); },
                               "The structs Node of bvh.h as bytes (n, size), read-only and not copied.")
        .def_property_readonly("expansions",
                               [](const py::object& self) { return bytes_of(self, owned(self).expansions()); },
                               "The structs Expansion, one per node, as bytes.")
        .def_property_readonly("packets", [](const py::object& self) { return bytes_of(self, owned(self).packets()); },
                               "The structs Packet as bytes.")
        .def_property_readonly("origin",
                               [](const TriangleBvh& bvh) {
        const auto& origin = bvh.owned().view().origin;
        return array_of(std::vector<double>(origin, origin + 3), {3});
    }, "Origin (3,) that is subtracted from the vertices before they are multiplied by `scale`.")
        .def_property_readonly("scale", [](const TriangleBvh& bvh) { return bvh.owned().view().scale; });
    module.def("morton_order", sorted, "Indices (n,) of points (n, 3) in Morton order, ten bits per axis.",
               py::arg("points"));
}

}  // namespace neuralsdf
