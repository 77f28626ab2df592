#include "shared/marching_cubes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "cpu/grid/sparse_grid.h"
#include "doctest/doctest.h"
#include "random.h"

using namespace neuralsdf;

namespace {

using Segment = std::pair<int, int>;  // from one edge to another

bool inside(int code, int corner) { return code >> corner & 1; }

int other_end(int edge) {
    for (int corner = 0; corner < 8; ++corner) {
        int at[3] = {corner_x(edge_corner(edge)), corner_y(edge_corner(edge)), corner_z(edge_corner(edge))};
        ++at[edge_axis(edge)];
        if (corner_x(corner) == at[0] && corner_y(corner) == at[1] && corner_z(corner) == at[2]) return corner;
    }
    return -1;
}

// Whether an edge is in the face of the cell with coordinate `axis` equal to `side`.
bool on_face(int edge, int axis, int side) {
    const int corner = edge_corner(edge), at[3] = {corner_x(corner), corner_y(corner), corner_z(corner)};
    return edge_axis(edge) != axis && at[axis] == side;
}

// The opposite edge of the cell along an axis.
int across(int edge, int axis) {
    for (int other = 0; other < 12; ++other) {
        const int a = edge_corner(edge), b = edge_corner(other);
        int from[3] = {corner_x(a), corner_y(a), corner_z(a)};
        const int to[3] = {corner_x(b), corner_y(b), corner_z(b)};
        from[axis] = 1 - from[axis];
        if (edge_axis(edge) == edge_axis(other) && std::equal(from, from + 3, to)) return other;
    }
    return -1;
}

// Directed sides of the triangles of a case that are not shared, in reverse, with another triangle.
std::multiset<Segment> boundary(int code) {
    std::multiset<Segment> open;
    for (const char* t = case_triangles(static_cast<std::uint8_t>(code)); *t; t += 3)
        for (int k = 0; k < 3; ++k) {
            const Segment side{edge_of_digit(t[k]), edge_of_digit(t[(k + 1) % 3])};
            const auto reverse = open.find({side.second, side.first});
            if (reverse != open.end())
                open.erase(reverse);
            else
                open.insert(side);
        }
    return open;
}

struct Grid {
    std::int64_t side;
    std::vector<Key> cells, keys;
    std::vector<float> values;

    template <class Value>
    Grid(std::int64_t side, const Value& value) : side(side) {
        for (Key key = 0; key < side * side * side; ++key) {
            const Key i = key / (side * side), j = key / side % side, k = key % side;
            keys.push_back(key);
            values.push_back(value(i, j, k));
            if (i + 1 < side && j + 1 < side && k + 1 < side) cells.push_back(key);
        }
    }
    SparseGrid view() const {
        return {cells.data(),  static_cast<std::int64_t>(cells.size()), keys.data(),
                values.data(), static_cast<std::int64_t>(keys.size()),  side};
    }
};

// Whether each directed side of the faces occurs exactly once, and once in reverse.
bool is_closed(const Surface& surface) {
    std::map<std::pair<Key, Key>, int> sides;
    for (std::size_t i = 0; i < surface.faces.size(); i += 3)
        for (std::size_t k = 0; k < 3; ++k) ++sides[{surface.faces[i + k], surface.faces[i + (k + 1) % 3]}];
    return std::all_of(sides.begin(), sides.end(), [&](const auto& side) {
        const auto reverse = sides.find({side.first.second, side.first.first});
        return side.second == 1 && reverse != sides.end() && reverse->second == 1;
    });
}

double volume(const Surface& s) {
    double sum = 0;
    for (std::size_t i = 0; i < s.faces.size(); i += 3) {
        const double *a = &s.vertices[3 * static_cast<std::size_t>(s.faces[i])],
                     *b = &s.vertices[3 * static_cast<std::size_t>(s.faces[i + 1])],
                     *c = &s.vertices[3 * static_cast<std::size_t>(s.faces[i + 2])];
        sum += a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2]) +
               a[2] * (b[0] * c[1] - b[1] * c[0]);
    }
    return sum / 6;
}

}  // namespace

TEST_SUITE_BEGIN("marching_cubes");

TEST_CASE("each case has a vertex on exactly the edges whose ends differ") {
    for (int code = 0; code < 256; ++code) {
        std::set<int> used, crossed;
        for (const char* t = case_triangles(static_cast<std::uint8_t>(code)); *t; ++t) used.insert(edge_of_digit(*t));
        for (int edge = 0; edge < 12; ++edge)
            if (inside(code, edge_corner(edge)) != inside(code, other_end(edge))) crossed.insert(edge);
        CHECK(used == crossed);
        CHECK(std::strlen(case_triangles(static_cast<std::uint8_t>(code))) % 3 == 0);
    }
}

TEST_CASE("the triangles of a case end on the cell's faces only") {
    for (int code = 0; code < 256; ++code)
        for (const auto& [from, to] : boundary(code)) {
            int faces = 0;
            for (int axis = 0; axis < 3; ++axis)
                for (int side = 0; side < 2; ++side) faces += on_face(from, axis, side) && on_face(to, axis, side);
            CHECK(faces == 1);
        }
}

TEST_CASE("adjacent cells have the same segments on their common face, in opposite directions") {
    for (int axis = 0; axis < 3; ++axis)
        for (int code = 0; code < 256; ++code)
            for (int next = 0; next < 256; ++next) {
                bool agree = true;
                for (int edge = 0; edge < 12; ++edge)
                    if (on_face(edge, axis, 1))
                        for (const int end : {0, 1}) {
                            const int there = across(edge, axis);
                            agree &= inside(code, end ? other_end(edge) : edge_corner(edge)) ==
                                     inside(next, end ? other_end(there) : edge_corner(there));
                        }
                if (!agree) continue;
                std::multiset<Segment> here, there;
                for (const auto& [from, to] : boundary(code))
                    if (on_face(from, axis, 1) && on_face(to, axis, 1))
                        here.insert({across(from, axis), across(to, axis)});
                for (const auto& [from, to] : boundary(next))
                    if (on_face(from, axis, 0) && on_face(to, axis, 0)) there.insert({to, from});
                REQUIRE(here == there);
            }
}

TEST_CASE("a crossing is the linear zero, kept away from both ends") {
    CHECK(crossing(-1, 3, 0) == doctest::Approx(0.25));
    CHECK(crossing(3, -1, 0) == doctest::Approx(0.75));
    CHECK(crossing(-1e-9f, 1, 0.1) == 0.1);
    CHECK(crossing(1, -1e-9f, 0.1) == 0.9);
    CHECK(crossing(0.0f, -1, 0.01) == 0.01);
}

TEST_CASE("the surface of random values that are positive at the border is closed and has a positive volume") {
    Random random(5);
    for (int trial = 0; trial < 20; ++trial) {
        const std::int64_t side = 8;
        const Grid grid(side, [&](Key i, Key j, Key k) {
            const bool border = std::min({i, j, k}) == 0 || std::max({i, j, k}) == side - 1;
            const double value = random.uniform(-1, 1);
            return static_cast<float>(border ? std::abs(value) + 0.01 : value);
        });
        const Surface surface = marching_cubes(grid.view(), 1e-3, Workers{2, {}});
        CHECK(is_closed(surface));
        CHECK(volume(surface) > 0);
    }
}

TEST_CASE("the surface of a ball is closed, has genus 0, and encloses the volume of the ball") {
    const double radius = 9.3;
    const Grid grid(24, [&](Key i, Key j, Key k) {
        const double x = i - 11.5, y = j - 11.5, z = k - 11.5;
        return static_cast<float>(std::sqrt(x * x + y * y + z * z) - radius);
    });
    const Surface surface = marching_cubes(grid.view(), 0, Workers{});
    CHECK(is_closed(surface));
    const auto vertices = static_cast<std::int64_t>(surface.vertices.size() / 3),
               faces = static_cast<std::int64_t>(surface.faces.size() / 3);
    CHECK(vertices - 3 * faces / 2 + faces == 2);  // Euler's formula
    CHECK(volume(surface) == doctest::Approx(4.0 / 3 * 3.14159265358979 * radius * radius * radius).epsilon(0.01));
    for (std::size_t i = 0; i < surface.vertices.size(); i += 3) {
        double squared = 0;
        for (std::size_t k = 0; k < 3; ++k)
            squared += (surface.vertices[i + k] - 11.5) * (surface.vertices[i + k] - 11.5);
        CHECK(std::abs(std::sqrt(squared) - radius) < 0.03);
    }
    std::vector<std::int64_t> labels(static_cast<std::size_t>(faces));
    CHECK(connected_faces(surface.faces.data(), faces, vertices, labels.data(), Workers{}) == 1);
}

TEST_SUITE_END();
