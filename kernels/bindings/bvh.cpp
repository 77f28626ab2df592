// The Python side of trees: checks every argument, puts points in Morton order, so that a query starts close to
// the answer of the one before, and spreads blocks of them over threads. Blocks depend on the points alone, so
// results are the same, bit for bit, for any number of threads.
#include "bindings/bvh.h"

#include <pybind11/stl.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "cpu/bvh/build.h"
#include "cpu/isas.h"

namespace neuralsdf {
namespace {

constexpr std::int64_t block = 512;             // points that follow one another in a task
constexpr std::int64_t most_points = 0xffffffff;  // that an order counts
constexpr std::int64_t most_faces = 1 << 29;
constexpr double farthest = 1e15;               // radii of the mesh; squares of that are floats yet
constexpr double most_coordinate = 1e300;       // of a mesh, whose extents must be numbers, too

const double* checked_vectors(const py::array& vectors, const char* name) {
    const double* data = doubles(vectors, name, 2);
    if (vectors.shape(1) != 3) throw py::value_error(std::string(name) + " must have the shape (n, 3)");
    if (vectors.shape(0) > most_points) throw py::value_error(std::string(name) + " are too many");
    for (std::int64_t i = 0; i < 3 * vectors.shape(0); ++i)
        if (!std::isfinite(data[i])) throw py::value_error(std::string(name) + " must be finite");
    return data;
}

std::unique_ptr<OwnedTree> checked_tree(const py::array& vertices, const py::array& faces) {
    const double* v = checked_vectors(vertices, "vertices");
    const auto* f = checked_data<std::int64_t>(faces, "faces", "int64", 2);
    if (faces.shape(1) != 3 || faces.shape(0) < 1) throw py::value_error("faces must have the shape (F, 3), F > 0");
    require(faces.shape(0) < most_faces, "there are too many faces");
    // Both decide where a face goes as the tree is built.
    const std::vector<double> corners(v, v + 3 * vertices.shape(0));
    const std::vector<std::int64_t> indices(f, f + 3 * faces.shape(0));
    for (const double x : corners) require(std::abs(x) < most_coordinate, "vertices must be less than 1e300 from the origin");
    for (const std::int64_t i : indices) require(0 <= i && i < vertices.shape(0), "faces must be indices of vertices");
    const py::gil_scoped_release release;
    return std::make_unique<OwnedTree>(corners.data(), indices.data(), faces.shape(0));
}

std::uint32_t spread(std::uint32_t bits) {  // of ten bits one to every third place
    bits = (bits | bits << 16) & 0x030000ff;
    bits = (bits | bits << 8) & 0x0300f00f;
    bits = (bits | bits << 4) & 0x030c30c3;
    return (bits | bits << 2) & 0x09249249;
}

// The cell of 1024 that a coordinate is in; the first one for NaN.
std::uint32_t cell(double coordinate) { return static_cast<std::uint32_t>(std::min(1023.0, std::max(0.0, coordinate))); }

// Indices of points (n, 3) in Morton order, ten bits an axis.
std::vector<std::uint32_t> morton_order(const double* points, std::int64_t n) {
    double low[3], extent = 0;
    for (int axis = 0; axis < 3; ++axis) {
        double least = std::numeric_limits<double>::infinity(), most = -least;
        for (std::int64_t i = 0; i < n; ++i) {
            least = std::min(least, points[3 * i + axis]);
            most = std::max(most, points[3 * i + axis]);
        }
        low[axis] = least;
        extent = std::max(extent, most - least);
    }
    struct Keyed {
        std::uint32_t key, index;
    };
    const double scale = extent > 0 ? 1023.999 / extent : 0;
    std::vector<Keyed> sorted(n), unsorted(n);
    for (std::int64_t i = 0; i < n; ++i) {
        std::uint32_t key = 0;
        for (int axis = 0; axis < 3; ++axis)
            key |= spread(cell((points[3 * i + axis] - low[axis]) * scale)) << axis;
        sorted[i] = {key, static_cast<std::uint32_t>(i)};
    }
    for (int shift = 0; shift < 30; shift += 10) {  // radix sort
        sorted.swap(unsorted);
        std::int64_t start[1025] = {};
        for (const Keyed& point : unsorted) ++start[(point.key >> shift & 1023) + 1];
        for (int digit = 0; digit < 1024; ++digit) start[digit + 1] += start[digit];
        for (const Keyed& point : unsorted) sorted[start[point.key >> shift & 1023]++] = point;
    }
    std::vector<std::uint32_t> order(n);
    for (std::int64_t i = 0; i < n; ++i) order[i] = sorted[i].index;
    return order;
}

// Never changes once it is made: any number of threads may ask it at once.
class TriangleTree {
  public:
    TriangleTree(const py::array& vertices, const py::array& faces, const std::string& isa)
        : traversal_(kernel_named(isa).traversal), owned_(checked_tree(vertices, faces)) {}

    py::array_t<double> distance(const py::array& points, int threads) const {
        const double* p = checked_points(points, "points");
        py::array_t<double> distance(points.shape(0));
        double* d = distance.mutable_data();
        for_blocks(p, points.shape(0), threads, [&](const std::uint32_t* order, int count) {
            traversal_.closest(tree(), p, order, count, d, nullptr, nullptr);
        });
        return distance;
    }

    py::tuple closest(const py::array& points, int threads) const {
        const double* p = checked_points(points, "points");
        const std::int64_t n = points.shape(0);
        py::array_t<double> distance(n), nearest(std::vector<py::ssize_t>{n, 3});
        py::array_t<std::int64_t> face(n);
        double *d = distance.mutable_data(), *to = nearest.mutable_data();
        std::int64_t* f = face.mutable_data();
        for_blocks(p, n, threads, [&](const std::uint32_t* order, int count) {
            traversal_.closest(tree(), p, order, count, d, f, to);
        });
        return py::make_tuple(distance, face, nearest);
    }

    py::array_t<double> winding_number(const py::array& points,
                                       const std::vector<std::pair<double, double>>& refinements, int threads) const {
        const double* p = checked_points(points, "points");
        std::vector<Refinement> steps;
        for (const auto& [accuracy, band] : refinements) {
            require(accuracy >= 0 && std::isfinite(accuracy), "an accuracy must be finite and not negative");
            require(!std::isnan(band), "a band of an accuracy must be a number");
            steps.push_back({accuracy, band});
        }
        if (steps.empty()) throw py::value_error("one accuracy at least is needed");
        py::array_t<double> winding(points.shape(0));
        double* w = winding.mutable_data();
        for_blocks(p, points.shape(0), threads, [&](const std::uint32_t* order, int count) {
            traversal_.winding_number(tree(), p, order, count, steps.data(), static_cast<int>(steps.size()), w);
        });
        return winding;
    }

    py::array_t<double> first_hit(const py::array& origins, const py::array& directions, int threads) const {
        const double* o = checked_points(origins, "origins");
        const double* d = checked_vectors(directions, "directions");
        if (origins.shape(0) != directions.shape(0)) throw py::value_error("each origin needs one direction");
        py::array_t<double> length(origins.shape(0));
        double* t = length.mutable_data();
        for_blocks(o, origins.shape(0), threads, [&](const std::uint32_t* order, int count) {
            traversal_.first_hit(tree(), o, d, order, count, t);
        });
        return length;
    }

    const OwnedTree& owned() const { return *owned_; }

  private:
    const Tree& tree() const { return owned_->view(); }

    const double* checked_points(const py::array& points, const char* name) const {
        const double* p = checked_vectors(points, name);
        const Tree& t = tree();
        for (std::int64_t i = 0; i < 3 * points.shape(0); ++i)
            if (!(std::abs(p[i] - t.origin[i % 3]) * t.scale < farthest))
                throw py::value_error(std::string(name) + " must lie within 1e15 radii of the mesh");
        return p;
    }

    template <class Task>
    static void for_blocks(const double* points, std::int64_t n, int threads, const Task& task) {
        std::vector<std::uint32_t> order;
        {
            const py::gil_scoped_release release;
            order = morton_order(points, n);
        }
        run_without_gil((n + block - 1) / block, threads, 0, [&](float*, std::int64_t index, const auto&) {
            task(order.data() + index * block, static_cast<int>(std::min(block, n - index * block)));
        });
    }

    const Traversal& traversal_;
    const std::unique_ptr<OwnedTree> owned_;
};

// The bytes (n, size) of an array of structs of the tree `self`, not copied, for reading only.
template <class T>
py::array bytes_of(const py::object& self, const std::vector<T>& of) {
    const std::vector<py::ssize_t> shape{static_cast<py::ssize_t>(of.size()), sizeof(T)};
    py::array bytes(py::dtype::of<std::uint8_t>(), shape, of.data(), self);
    bytes.attr("setflags")(py::arg("write") = false);
    return bytes;
}

py::array_t<std::uint32_t> ordered(const py::array& points) {
    const double* p = checked_vectors(points, "points");
    std::vector<std::uint32_t> order;
    {
        const py::gil_scoped_release release;
        order = morton_order(p, points.shape(0));
    }
    return py::array_t<std::uint32_t>(static_cast<py::ssize_t>(order.size()), order.data());
}

}  // namespace

void bind_trees(py::module_& module) {
    py::class_<TriangleTree>(module, "TriangleTree", "Triangles that answer for distances, winding numbers and rays.")
        .def(py::init<const py::array&, const py::array&, const std::string&>(), py::arg("vertices"),
             py::arg("faces"), py::arg("isa"))
        .def("distance", &TriangleTree::distance, "Distances (n,) to points (n, 3).", py::arg("points"),
             py::arg("threads"))
        .def("closest", &TriangleTree::closest,
             "Distances (n,) to points (n, 3), closest faces (n,), of equally close ones the first, and closest points (n, 3).",
             py::arg("points"), py::arg("threads"))
        .def("winding_number", &TriangleTree::winding_number,
             "Winding numbers w (n,) at points (n, 3) to the first accuracy, again to the next where ||w| - 1/2| < band.",
             py::arg("points"), py::arg("refinements"), py::arg("threads"))
        .def("first_hit", &TriangleTree::first_hit,
             "Lengths (n,) of rays up to the first triangle, in units of their directions' lengths; inf for none.",
             py::arg("origins"), py::arg("directions"), py::arg("threads"))
        .def_property_readonly("nodes", [](const py::object& self) {
            return bytes_of(self, self.cast<const TriangleTree&>().owned().nodes());
        }, "The structs Node of bvh.h as bytes (n, size), read-only and not copied.")
        .def_property_readonly("expansions", [](const py::object& self) {
            return bytes_of(self, self.cast<const TriangleTree&>().owned().expansions());
        }, "The structs Expansion, one a node, likewise.")
        .def_property_readonly("packets", [](const py::object& self) {
            return bytes_of(self, self.cast<const TriangleTree&>().owned().packets());
        }, "The structs Packet, likewise.")
        .def_property_readonly("origin", [](const TriangleTree& self) {
            return py::array_t<double>(3, self.owned().view().origin);
        }, "What the tree's triangles were moved by, (3,), before they were multiplied by `scale`.")
        .def_property_readonly("scale", [](const TriangleTree& self) { return self.owned().view().scale; });
    module.def("morton_order", ordered, "Indices (n,), uint32, of points (n, 3) in Morton order, ten bits an axis.",
               py::arg("points"));
}

}  // namespace neuralsdf
