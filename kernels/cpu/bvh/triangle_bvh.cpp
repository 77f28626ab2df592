#include "cpu/bvh/triangle_bvh.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "cpu/argument_checks.h"

namespace neuralsdf {
namespace {

constexpr std::int64_t block = 512;               // consecutive points of a task
constexpr std::int64_t most_points = 0xffffffff;  // limit of the index type
constexpr std::int64_t most_faces = 1 << 29;
constexpr double farthest = 1e15;          // radii of the mesh; its square is still finite in float32
constexpr double most_coordinate = 1e300;  // so that the extents of a mesh are finite, too

void check_vectors(const double* vectors, std::int64_t n, const char* name) {
    if (n > most_points) throw std::invalid_argument(std::string(name) + ": too many");
    if (!all_finite(vectors, 3 * n)) throw std::invalid_argument(std::string(name) + " must be finite");
}

OwnedTree checked_tree(const double* vertices, std::int64_t vertex_count, const std::int64_t* faces,
                       std::int64_t face_count) {
    check_vectors(vertices, vertex_count, "vertices");
    require(face_count >= 1, "faces must have the shape (F, 3), F > 0");
    require(face_count < most_faces, "too many faces");
    // Copied before they are checked, because another thread could change them during the build.
    const std::vector<double> corners(vertices, vertices + 3 * vertex_count);
    const std::vector<std::int64_t> indices(faces, faces + 3 * face_count);
    for (const double x : corners)
        require(std::abs(x) < most_coordinate, "vertices must be less than 1e300 from the origin");
    for (const std::int64_t i : indices) require(0 <= i && i < vertex_count, "a vertex index in faces is out of range");
    return OwnedTree(corners.data(), indices.data(), face_count);
}

std::uint32_t spread(std::uint32_t bits) {  // spreads ten bits to every third position
    bits = (bits | bits << 16) & 0x030000ff;
    bits = (bits | bits << 8) & 0x0300f00f;
    bits = (bits | bits << 4) & 0x030c30c3;
    return (bits | bits << 2) & 0x09249249;
}

// Index of the cell, 0 to 1023, of a coordinate; 0 for NaN.
std::uint32_t cell(double coordinate) {
    return static_cast<std::uint32_t>(std::min(1023.0, std::max(0.0, coordinate)));
}

template <class Task>
void for_blocks(const double* points, std::int64_t n, const Workers& workers, const Task& task) {
    const std::vector<std::uint32_t> order = morton_order(points, n);
    run_tasks((n + block - 1) / block, workers, [&](int, std::int64_t index, const auto&) {
        task(order.data() + index * block, static_cast<int>(std::min(block, n - index * block)));
    });
}

}  // namespace

std::vector<std::uint32_t> morton_order(const double* points, std::int64_t n) {
    check_vectors(points, n, "points");
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
        for (int axis = 0; axis < 3; ++axis) key |= spread(cell((points[3 * i + axis] - low[axis]) * scale)) << axis;
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

TriangleBvh::TriangleBvh(const Traversal& traversal, const double* vertices, std::int64_t vertex_count,
                         const std::int64_t* faces, std::int64_t face_count)
    : traversal_(traversal), owned_(checked_tree(vertices, vertex_count, faces, face_count)) {}

void TriangleBvh::check_points(const double* points, std::int64_t n, const char* name) const {
    check_vectors(points, n, name);
    const Tree& t = tree();
    for (std::int64_t i = 0; i < 3 * n; ++i)
        if (!(std::abs(points[i] - t.origin[i % 3]) * t.scale < farthest))
            throw std::invalid_argument(std::string(name) + " must lie within 1e15 radii of the mesh");
}

void TriangleBvh::distance(const double* points, std::int64_t n, double* distances, const Workers& workers) const {
    closest(points, n, distances, nullptr, nullptr, workers);
}

void TriangleBvh::closest(const double* points, std::int64_t n, double* distances, std::int64_t* faces, double* nearest,
                          const Workers& workers) const {
    check_points(points, n, "points");
    for_blocks(points, n, workers, [&](const std::uint32_t* order, int count) {
        traversal_.closest(tree(), points, order, count, distances, faces, nearest);
    });
}

void TriangleBvh::winding_number(const double* points, std::int64_t n, const std::vector<Refinement>& refinements,
                                 double* windings, const Workers& workers) const {
    check_points(points, n, "points");
    for (const auto& [accuracy, band] : refinements) {
        require(accuracy >= 0 && std::isfinite(accuracy), "an accuracy must be finite and not negative");
        require(!std::isnan(band), "a band must not be NaN");
    }
    require(!refinements.empty(), "at least one accuracy is required");
    for_blocks(points, n, workers, [&](const std::uint32_t* order, int count) {
        traversal_.winding_number(tree(), points, order, count, refinements.data(),
                                  static_cast<int>(refinements.size()), windings);
    });
}

void TriangleBvh::first_hit(const double* origins, const double* directions, std::int64_t n, double* lengths,
                            std::int64_t* faces, const Workers& workers) const {
    check_points(origins, n, "origins");
    check_vectors(directions, n, "directions");
    for_blocks(origins, n, workers, [&](const std::uint32_t* order, int count) {
        traversal_.first_hit(tree(), origins, directions, order, count, lengths, faces);
    });
}

}  // namespace neuralsdf
