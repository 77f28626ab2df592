#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "cpu/bvh/triangle_bvh.h"
#include "cpu/instruction_sets.h"
#include "doctest/doctest.h"
#include "random.h"

using namespace neuralsdf;

namespace {

struct V {
    double x, y, z;
};
V operator-(V a, V b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
V operator+(V a, V b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
V operator*(V a, double s) { return {a.x * s, a.y * s, a.z * s}; }
double dot(V a, V b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
V cross(V a, V b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }
double length(V a) { return std::sqrt(dot(a, a)); }

struct Mesh {
    std::vector<double> vertices;
    std::vector<std::int64_t> faces;

    std::int64_t vertex_count() const { return static_cast<std::int64_t>(vertices.size() / 3); }
    std::int64_t face_count() const { return static_cast<std::int64_t>(faces.size() / 3); }
    V corner(std::int64_t face, int k) const {
        const double* v = &vertices[3 * static_cast<std::size_t>(faces[static_cast<std::size_t>(3 * face + k)])];
        return {v[0], v[1], v[2]};
    }
};

// Random triangles of many sizes, some of them degenerate.
Mesh soup(Random& random, int count) {
    Mesh mesh;
    for (int f = 0; f < count; ++f) {
        const double size = std::pow(10, random.uniform(-3, 0));
        const V centre{random.uniform(-1, 1), random.uniform(-1, 1), random.uniform(-1, 1)};
        V first{};
        for (int k = 0; k < 3; ++k) {
            V corner = centre + V{random.uniform(-1, 1), random.uniform(-1, 1), random.uniform(-1, 1)} * size;
            if (k == 0) first = corner;
            if (k == 2 && f % 10 == 0) corner = first;
            mesh.vertices.insert(mesh.vertices.end(), {corner.x, corner.y, corner.z});
            mesh.faces.push_back(3 * f + k);
        }
    }
    return mesh;
}

// A sphere of radius 1 with 8 * 4^n faces, oriented outward.
Mesh sphere(int rounds) {
    Mesh mesh{{1, 0, 0, -1, 0, 0, 0, 1, 0, 0, -1, 0, 0, 0, 1, 0, 0, -1},
              {0, 2, 4, 2, 1, 4, 1, 3, 4, 3, 0, 4, 2, 0, 5, 1, 2, 5, 3, 1, 5, 0, 3, 5}};
    for (int round = 0; round < rounds; ++round) {
        Mesh finer{mesh.vertices, {}};
        for (std::int64_t f = 0; f < mesh.face_count(); ++f) {
            std::int64_t middle[3];
            for (int k = 0; k < 3; ++k) {
                const V sum = mesh.corner(f, k) + mesh.corner(f, (k + 1) % 3), on = sum * (1 / length(sum));
                middle[k] = finer.vertex_count();
                finer.vertices.insert(finer.vertices.end(), {on.x, on.y, on.z});
            }
            const std::int64_t* c = &mesh.faces[static_cast<std::size_t>(3 * f)];
            finer.faces.insert(finer.faces.end(), {c[0], middle[0], middle[2], middle[0], c[1], middle[1], middle[2],
                                                   middle[1], c[2], middle[0], middle[1], middle[2]});
        }
        mesh = finer;
    }
    return mesh;
}

// The closest point of a segment.
V closest_on_segment(V p, V a, V b) {
    const double squared = dot(b - a, b - a), t = squared > 0 ? dot(p - a, b - a) / squared : 0;
    return a + (b - a) * std::min(1.0, std::max(0.0, t));
}

// The distance of a point to a triangle: to its plane if the projection is inside, otherwise to its edges.
double brute_distance(V p, V a, V b, V c) {
    double least = std::numeric_limits<double>::infinity();
    const V corners[3] = {a, b, c}, normal = cross(b - a, c - a);
    bool above = dot(normal, normal) > 1e-24;
    for (int k = 0; k < 3; ++k) {
        const V from = corners[k], to = corners[(k + 1) % 3];
        least = std::min(least, length(p - closest_on_segment(p, from, to)));
        above &= dot(cross(to - from, p - from), normal) > 0;
    }
    return above ? std::min(least, std::abs(dot(p - a, normal)) / length(normal)) : least;
}

double brute_winding(const Mesh& mesh, V p) {
    double sum = 0;
    for (std::int64_t f = 0; f < mesh.face_count(); ++f) {
        const V a = mesh.corner(f, 0) - p, b = mesh.corner(f, 1) - p, c = mesh.corner(f, 2) - p;
        const double la = length(a), lb = length(b), lc = length(c);
        sum += 2 * std::atan2(dot(a, cross(b, c)), la * lb * lc + dot(a, b) * lc + dot(b, c) * la + dot(c, a) * lb);
    }
    return sum / (4 * 3.14159265358979323846);
}

// The Moeller-Trumbore ray-triangle intersection.
struct BruteHit {
    double length = std::numeric_limits<double>::infinity();
    std::int64_t face = -1;
};

BruteHit brute_hit(const Mesh& mesh, V o, V d) {
    BruteHit first;
    for (std::int64_t f = 0; f < mesh.face_count(); ++f) {
        const V a = mesh.corner(f, 0), e1 = mesh.corner(f, 1) - a, e2 = mesh.corner(f, 2) - a, h = cross(d, e2);
        const double determinant = dot(e1, h);
        if (determinant == 0) continue;
        const V s = o - a, q = cross(s, e1);
        const double u = dot(s, h) / determinant, v = dot(d, q) / determinant, t = dot(e2, q) / determinant;
        if (u >= 0 && v >= 0 && u + v <= 1 && t >= 0 && t < first.length) first = {t, f};
    }
    return first;
}

TriangleBvh bvh_of(const Mesh& mesh, const std::string& isa) {
    return TriangleBvh(kernel_named(isa).traversal, mesh.vertices.data(), mesh.vertex_count(), mesh.faces.data(),
                       mesh.face_count());
}

V at(const std::vector<double>& points, std::size_t i) { return {points[3 * i], points[3 * i + 1], points[3 * i + 2]}; }

}  // namespace

TEST_SUITE_BEGIN("bvh");

TEST_CASE("distances and closest points agree with a brute-force search") {
    Random random(6);
    constexpr std::size_t n = 300;
    for (const int faces : {1, 3, 8, 9, 200, 1500}) {
        const Mesh mesh = soup(random, faces);
        const std::vector<double> points = random.uniform<double>(3 * n, -2, 2);
        for (const std::string& isa : supported_isas()) {
            const TriangleBvh bvh = bvh_of(mesh, isa);
            std::vector<double> distances(n), again(n), nearest(3 * n);
            std::vector<std::int64_t> closest(n);
            bvh.closest(points.data(), n, distances.data(), closest.data(), nearest.data(), Workers{2, {}});
            bvh.distance(points.data(), n, again.data(), Workers{});
            CHECK(again == distances);
            for (std::size_t i = 0; i < n; ++i) {
                const V p = at(points, i), on = at(nearest, i);
                double least = std::numeric_limits<double>::infinity();
                for (std::int64_t f = 0; f < mesh.face_count(); ++f)
                    least = std::min(least, brute_distance(p, mesh.corner(f, 0), mesh.corner(f, 1), mesh.corner(f, 2)));
                const std::int64_t f = closest[i];
                REQUIRE(f >= 0);
                REQUIRE(f < mesh.face_count());
                CHECK(std::abs(distances[i] - least) < 1e-9);
                CHECK(std::abs(length(p - on) - least) < 1e-9);
                CHECK(brute_distance(on, mesh.corner(f, 0), mesh.corner(f, 1), mesh.corner(f, 2)) < 1e-9);
            }
        }
    }
}

TEST_CASE("on ties the closest face has the lowest index") {
    Mesh mesh = sphere(2);
    const auto once = mesh.faces;
    mesh.faces.insert(mesh.faces.end(), once.begin(), once.end());
    Random random(7);
    const std::vector<double> points = random.uniform<double>(3 * 200, -1.5, 1.5);
    for (const std::string& isa : supported_isas()) {
        std::vector<double> distances(200), nearest(600);
        std::vector<std::int64_t> faces(200);
        bvh_of(mesh, isa).closest(points.data(), 200, distances.data(), faces.data(), nearest.data(), Workers{});
        for (const std::int64_t face : faces) CHECK(face < static_cast<std::int64_t>(once.size() / 3));
    }
}

TEST_CASE("winding numbers agree with the sum of solid angles: 1 inside a closed surface and 0 outside") {
    Random random(8);
    constexpr std::size_t n = 200;
    const std::vector<double> points = random.uniform<double>(3 * n, -2, 2);
    for (const Mesh& mesh : {sphere(4), soup(random, 700)})
        for (const std::string& isa : supported_isas()) {
            std::vector<double> rough(n), fine(n);
            const TriangleBvh bvh = bvh_of(mesh, isa);
            bvh.winding_number(points.data(), n, {{2, 0}}, rough.data(), Workers{2, {}});
            bvh.winding_number(points.data(), n, {{6, 0}}, fine.data(), Workers{});
            double rough_error = 0, fine_error = 0;
            for (std::size_t i = 0; i < n; ++i) {
                const double exact = brute_winding(mesh, at(points, i));
                rough_error = std::max(rough_error, std::abs(rough[i] - exact));
                fine_error = std::max(fine_error, std::abs(fine[i] - exact));
            }
            CHECK(rough_error < 0.02);
            CHECK(fine_error < 5e-4);
        }
    std::vector<double> windings(n);
    bvh_of(sphere(4), "baseline").winding_number(points.data(), n, {{2, 0}}, windings.data(), Workers{});
    for (std::size_t i = 0; i < n; ++i) {
        const double radius = length(at(points, i));
        if (std::abs(radius - 1) > 0.01) CHECK(std::abs(windings[i] - (radius < 1 ? 1 : 0)) < 0.02);
    }
}

TEST_CASE("first hits agree with a brute-force search") {
    Random random(9);
    constexpr std::size_t n = 300;
    for (const Mesh& mesh : {sphere(3), soup(random, 900)}) {
        const std::vector<double> origins = random.uniform<double>(3 * n, -2, 2),
                                  directions = random.uniform<double>(3 * n, -1, 1);
        for (const std::string& isa : supported_isas()) {
            std::vector<double> lengths(n);
            std::vector<std::int64_t> faces(n);
            bvh_of(mesh, isa).first_hit(origins.data(), directions.data(), static_cast<std::int64_t>(n), lengths.data(),
                                        faces.data(), Workers{2, {}});
            int hits = 0;
            for (std::size_t i = 0; i < n; ++i) {
                const BruteHit expected = brute_hit(mesh, at(origins, i), at(directions, i));
                hits += std::isfinite(expected.length);
                CHECK(std::isfinite(lengths[i]) == std::isfinite(expected.length));
                CHECK(faces[i] == expected.face);
                if (std::isfinite(expected.length)) CHECK(lengths[i] == doctest::Approx(expected.length).epsilon(1e-9));
            }
            CHECK(hits > 20);
        }
    }
}

TEST_CASE("the Morton order is a permutation, and neighbours in it are close") {
    Random random(10);
    for (const std::int64_t n : {0, 1, 2, 5000}) {
        const std::vector<double> points = random.uniform<double>(static_cast<std::size_t>(3 * n), 0, 1);
        std::vector<std::uint32_t> order = morton_order(points.data(), n);
        double along = 0, unsorted = 0;
        for (std::size_t i = 1; i < order.size(); ++i) {
            along += length(at(points, order[i]) - at(points, order[i - 1]));
            unsorted += length(at(points, i) - at(points, i - 1));
        }
        if (n > 2) CHECK(along < 0.2 * unsorted);
        std::sort(order.begin(), order.end());
        std::vector<std::uint32_t> all(static_cast<std::size_t>(n));
        std::iota(all.begin(), all.end(), 0u);
        CHECK(order == all);
    }
}

TEST_CASE("meshes and points out of range are rejected") {
    const Mesh good = sphere(1);
    const auto refused = [](const Mesh& mesh) { CHECK_THROWS_AS(bvh_of(mesh, "baseline"), std::invalid_argument); };
    for (const double bad : {double(NAN), double(INFINITY), 1e301}) {
        Mesh mesh = good;
        mesh.vertices[4] = bad;
        refused(mesh);
    }
    for (const std::int64_t bad : {std::int64_t(-1), good.vertex_count(), std::int64_t(1) << 62}) {
        Mesh mesh = good;
        mesh.faces[5] = bad;
        refused(mesh);
    }
    refused({good.vertices, {}});
    const TriangleBvh bvh = bvh_of(good, "baseline");
    for (const double bad : {double(NAN), double(INFINITY), 1e16}) {
        const double point[3] = {0, bad, 0};
        double distance;
        CHECK_THROWS_AS(bvh.distance(point, 1, &distance, Workers{}), std::invalid_argument);
    }
}

TEST_SUITE_END();
