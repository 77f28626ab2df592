// bvh.h
// Queries of a BVH of triangles (shared/bvh.h), one thread per query: closest point, winding number, first hit. As in
// traversal.cpp, boxes and far fields are float32, triangles float64.
#pragma once

#include "../shared/bvh.h"
#include "thread_block.h"

namespace neuralsdf {
namespace gpu {

// Points are (n, 3) in mesh space. The `count` points whose indices are in `order` are queried; results are written to
// the same indices. Neighbours in the order, which form a warp, should be close to each other in space.
struct Queries {
    const double* points;
    const std::uint32_t* order;
    std::int64_t count;
};

struct ClosestPoint {
    Tree tree;
    Queries queries;
    double* distance;    // (n,)
    std::int64_t* face;  // (n,); if null, `nearest` is null, too
    double* nearest;     // (n, 3)
};

struct WindingNumber {
    Tree tree;
    Queries queries;
    double* winding;  // (n,)
    double accuracy;
};

struct FirstHit {
    Tree tree;
    Queries queries;           // the origins
    const double* directions;  // (n, 3)
    double* length;            // (n,), infinity for a miss
    std::int64_t* face;        // (n,), -1 for a miss
};

// Calls `answer` with the index of every queried point.
template <class Answer>
NEURALSDF_DEVICE void each_query(const Block& block, const Queries& queries, Answer answer) {
    block.each([&](int thread) {
        const std::int64_t i = static_cast<std::int64_t>(block.index()) * block.threads() + thread;
        if (i < queries.count) answer(static_cast<std::int64_t>(queries.order[i]));
    });
}

// -- traversal ------------------------------------------------------------------------------------------------

// An ordered list of children of a node, three bits per child, the first in the lowest bits; a one bit marks the end.
class Lanes {
  public:
    NEURALSDF_DEVICE void put_first(unsigned lane) { packed_ = packed_ << 3 | lane; }
    NEURALSDF_DEVICE int take_first() {
        const unsigned lane = packed_ & 7;
        packed_ >>= 3;
        return static_cast<int>(lane);
    }
    NEURALSDF_DEVICE bool empty() const { return packed_ == 1; }

  private:
    unsigned packed_ = 1;
};

// The path from the root to the current node of a traversal: its nodes and their remaining children. One entry per
// level rather than per child keeps the stack of a thread small (Ylitie, Karras and Laine 2017).
class Path {
  public:
    NEURALSDF_DEVICE bool empty() const { return size_ == 0; }

    NEURALSDF_DEVICE void enter(std::int32_t node, Lanes lanes) {
        if (lanes.empty()) return;
        nodes_[size_] = node;
        lanes_[size_] = lanes;
        ++size_;
    }

    // Returns the node of the next child, and its lane. A node is removed with its last child, so a path is never
    // longer than the depth of the tree.
    NEURALSDF_DEVICE std::int32_t next(int& lane) {
        const int top = size_ - 1;
        Lanes lanes = lanes_[top];
        lane = lanes.take_first();
        lanes_[top] = lanes;
        if (lanes.empty()) --size_;
        return nodes_[top];
    }

  private:
    int size_ = 0;
    std::int32_t nodes_[deepest];
    Lanes lanes_[deepest];
};

NEURALSDF_DEVICE void sort_pair(unsigned& a, unsigned& b) {
    const unsigned low = a < b ? a : b, high = a < b ? b : a;
    a = low, b = high;
}

// Batcher's sorting network.
NEURALSDF_DEVICE void sort(unsigned (&keys)[fan_out]) {
    NEURALSDF_UNROLL for (int i = 0; i < 8; i += 2) sort_pair(keys[i], keys[i + 1]);
    NEURALSDF_UNROLL for (int i = 0; i < 8; i += 4) sort_pair(keys[i], keys[i + 2]), sort_pair(keys[i + 1], keys[i + 3]);
    sort_pair(keys[1], keys[2]), sort_pair(keys[5], keys[6]);
    NEURALSDF_UNROLL for (int i = 0; i < 4; ++i) sort_pair(keys[i], keys[i + 4]);
    sort_pair(keys[2], keys[4]), sort_pair(keys[3], keys[5]);
    NEURALSDF_UNROLL for (int i = 1; i < 7; i += 2) sort_pair(keys[i], keys[i + 1]);
}

// Children of a node that intersect the region, nearest first.
template <class Region>
NEURALSDF_DEVICE Lanes met(const Node& node, const Region& region) {
    constexpr unsigned none = 0xffffffffu;
    unsigned keys[fan_out];
    NEURALSDF_UNROLL for (int half = 0; half < fan_out; half += 4) {
        float low[3][4], high[3][4];
        NEURALSDF_UNROLL for (int axis = 0; axis < 3; ++axis) {
            load(node.low[axis] + half, low[axis]);
            load(node.high[axis] + half, high[axis]);
        }
        NEURALSDF_UNROLL for (int i = 0; i < 4; ++i) {
            const float corners[2][3] = {{low[0][i], low[1][i], low[2][i]}, {high[0][i], high[1][i], high[2][i]}};
            float distance;
            const bool meets = region.meets(corners[0], corners[1], distance) && half + i < node.count;
            // The bits of non-negative floats have the same order as the floats. The lane replaces the lowest bits.
            keys[half + i] = meets ? (bits_of(distance) & ~7u) | static_cast<unsigned>(half + i) : none;
        }
    }
    sort(keys);
    Lanes lanes;
    NEURALSDF_UNROLL for (int i = fan_out - 1; i >= 0; --i)
        if (keys[i] != none) lanes.put_first(keys[i] & 7);
    return lanes;
}

// The next packet in a region, which may have shrunk; -1 if there is none. All threads of a warp return with a packet,
// which reduces divergence (Aila and Laine 2009).
template <class Region>
NEURALSDF_DEVICE std::int32_t next_packet(const Node* nodes, const Region& region, Path& path) {
    while (!path.empty()) {
        int lane;
        const Node& node = nodes[path.next(lane)];
        const float low[3] = {node.low[0][lane], node.low[1][lane], node.low[2][lane]};
        const float high[3] = {node.high[0][lane], node.high[1][lane], node.high[2][lane]};
        float distance;
        if (!region.meets(low, high, distance)) continue;
        const std::int32_t child = node.child[lane];
        if (child < 0) return ~child;
        path.enter(child, met(nodes[child], region));
    }
    return -1;
}

// -- closest point --------------------------------------------------------------------------------------------

// The ball around a point with the distance to the closest triangle so far.
struct Ball {
    float centre[3];
    float squared_radius;

    NEURALSDF_DEVICE bool meets(const float (&low)[3], const float (&high)[3], float& squared) const {
        float away[3];
        NEURALSDF_UNROLL for (int axis = 0; axis < 3; ++axis)
            away[axis] = larger(larger(low[axis] - centre[axis], centre[axis] - high[axis]), 0.0f);
        squared = away[0] * away[0] + away[1] * away[1] + away[2] * away[2];
        return squared < squared_radius;
    }
};

namespace {

struct Closest {
    double squared;
    std::int32_t face;
    Vector3<double> away;  // from the triangle to the point
};

}  // namespace

NEURALSDF_DEVICE Closest closest_to(const Tree& tree, Vector3<double> point) {
    Closest best{INFINITY, 0, {}};
    Ball ball{{static_cast<float>(point.x), static_cast<float>(point.y), static_cast<float>(point.z)}, INFINITY};
    Path path;
    path.enter(0, met(tree.nodes[0], ball));
    for (std::int32_t at; (at = next_packet(tree.nodes, ball, path)) >= 0;) {
        const Packet& triangles = tree.packets[at];
        NEURALSDF_ROLLED for (int lane = 0; lane < packet; ++lane) {
            const Vector3<double> away =
                from_triangle(point, corner(triangles, 0, lane), corner(triangles, 1, lane), corner(triangles, 2, lane));
            const double squared = dot(away, away);
            const std::int32_t face = triangles.face[lane];
            // On ties the lowest face index wins, so that the result does not depend on the order of the search.
            if (squared < best.squared || (squared == best.squared && face < best.face)) best = {squared, face, away};
        }
        // With a tolerance for float32 rounding, so that ties are found.
        ball.squared_radius = static_cast<float>(best.squared) * 1.000002f + 1e-30f;
    }
    return best;
}

NEURALSDF_DEVICE void closest_point(const Block& block, const ClosestPoint& a) {
    each_query(block, a.queries, [&](std::int64_t at) {
        const double* const point = a.queries.points + 3 * at;
        const Closest best = closest_to(a.tree, inner(a.tree, point));
        a.distance[at] = sqrt(best.squared) / a.tree.scale;
        if (!a.face) return;
        a.face[at] = best.face;
        a.nearest[3 * at] = point[0] - best.away.x / a.tree.scale;
        a.nearest[3 * at + 1] = point[1] - best.away.y / a.tree.scale;
        a.nearest[3 * at + 2] = point[2] - best.away.z / a.tree.scale;
    });
}

// -- winding number -------------------------------------------------------------------------------------------

// Adds the far fields of the distant children of a node to `far`; returns the other children.
NEURALSDF_DEVICE Lanes add_far(const Expansion& e, int count, const float (&point)[3], float criterion, double& far) {
    Lanes close;
    float sum = 0.0f;
    NEURALSDF_ROLLED for (int lane = 0; lane < count; ++lane) {
        const float x = e.centre[0][lane] - point[0], y = e.centre[1][lane] - point[1], z = e.centre[2][lane] - point[2];
        const float squared = larger(x * x + y * y + z * z, 1e-30f);
        if (squared > e.squared_radius[lane] * criterion)
            sum += far_field([&](int row) { return (e.dipole[0] + fan_out * row)[lane]; }, x, y, z, squared,
                             [](float v) { return sqrtf(v); });
        else
            close.put_first(static_cast<unsigned>(lane));
    }
    far += sum;
    return close;
}

NEURALSDF_DEVICE double winding_at(const Tree& tree, Vector3<double> point, double accuracy) {
    const float position[3] = {static_cast<float>(point.x), static_cast<float>(point.y), static_cast<float>(point.z)};
    const float criterion = static_cast<float>(accuracy * accuracy);
    double far = 0;
    AngleSum<double> near{1, 0, 0};
    Path path;
    path.enter(0, add_far(tree.expansions[0], tree.nodes[0].count, position, criterion, far));
    while (!path.empty()) {
        int lane;
        const std::int32_t at = path.next(lane), child = tree.nodes[at].child[lane];
        if (child >= 0) {
            path.enter(child, add_far(tree.expansions[child], tree.nodes[child].count, position, criterion, far));
            continue;
        }
        const Packet& triangles = tree.packets[~child];
        NEURALSDF_ROLLED for (int i = 0; i < packet; ++i) {
            double real, imaginary;
            half_solid_angle(corner(triangles, 0, i) - point, corner(triangles, 1, i) - point,
                             corner(triangles, 2, i) - point, [](double v) { return sqrt(v); }, real, imaginary);
            near.add(real, imaginary);
        }
    }
    return far + near.turns + atan2(near.imaginary, near.real) * 0.15915494309189535;  // / 2 pi
}

NEURALSDF_DEVICE void winding_number(const Block& block, const WindingNumber& a) {
    each_query(block, a.queries, [&](std::int64_t at) {
        a.winding[at] = winding_at(a.tree, inner(a.tree, a.queries.points + 3 * at), a.accuracy);
    });
}

// -- rays -----------------------------------------------------------------------------------------------------

// A ray up to its first hit so far.
struct Segment {
    float origin[3], inverse[3];
    float length;

    // `enters`: the ray parameter at which the ray enters the box.
    NEURALSDF_DEVICE bool meets(const float (&low)[3], const float (&high)[3], float& enters) const {
        float leaves = length;
        enters = 0.0f;
        NEURALSDF_UNROLL for (int axis = 0; axis < 3; ++axis) {
            const float a = (low[axis] - origin[axis]) * inverse[axis], b = (high[axis] - origin[axis]) * inverse[axis];
            enters = larger(a < b ? a : b, enters);
            const float leave = (a < b ? b : a) * 1.000001f;
            leaves = leave < leaves ? leave : leaves;
        }
        return enters * 0.999999f <= leaves;
    }
};

NEURALSDF_DEVICE double component(const Packet& packet, int k, int axis, int lane) {
    return packet.corner[k][axis][lane];
}

namespace {

struct Hit {
    double length;
    std::int32_t face;
};

}  // namespace

// The first triangle along a ray whose direction has a maximum norm of 1. On ties the lowest face index wins.
NEURALSDF_DEVICE Hit hit_by(const Tree& tree, Vector3<double> from, const double (&direction)[3]) {
    Hit best{INFINITY, -1};
    const double skipped = approach(from, direction, INFINITY);
    if (!(skipped < INFINITY)) return best;
    const double origin[3] = {from.x + skipped * direction[0], from.y + skipped * direction[1],
                              from.z + skipped * direction[2]};
    const ShearedRay ray = sheared(direction);
    const Vector3<double> o{origin[ray.x], origin[ray.y], origin[ray.z]};
    Segment segment;
    segment.length = INFINITY;
    NEURALSDF_UNROLL for (int axis = 0; axis < 3; ++axis) {
        segment.origin[axis] = static_cast<float>(origin[axis]);
        segment.inverse[axis] = static_cast<float>(1 / divisible(direction[axis]));
    }
    Path path;
    path.enter(0, met(tree.nodes[0], segment));
    for (std::int32_t at; (at = next_packet(tree.nodes, segment, path)) >= 0;) {
        const Packet& triangles = tree.packets[at];
        NEURALSDF_ROLLED for (int lane = 0; lane < packet; ++lane) {
            Vector3<double> corners[3];
            NEURALSDF_UNROLL for (int k = 0; k < 3; ++k)
                corners[k] = Vector3<double>{component(triangles, k, ray.x, lane), component(triangles, k, ray.y, lane),
                                             component(triangles, k, ray.z, lane)} - o;
            const double length = ray_triangle<double>(ray, corners[0], corners[1], corners[2], INFINITY);
            const std::int32_t face = triangles.face[lane];
            if (length < best.length || (length == best.length && face < best.face)) best = {length, face};
        }
        segment.length = static_cast<float>(best.length) * 1.000001f;
    }
    best.length += skipped;
    return best;
}

NEURALSDF_DEVICE void first_hit(const Block& block, const FirstHit& a) {
    each_query(block, a.queries, [&](std::int64_t at) {
        const double* const d = a.directions + 3 * at;
        const double size = larger(larger(magnitude(d[0]), magnitude(d[1])), magnitude(d[2]));
        a.length[at] = INFINITY;
        a.face[at] = -1;
        if (!(size > 0)) return;
        const double unit[3] = {d[0] / size, d[1] / size, d[2] / size};
        const Hit hit = hit_by(a.tree, inner(a.tree, a.queries.points + 3 * at), unit);
        a.length[at] = hit.length / size / a.tree.scale;
        a.face[at] = hit.face;
    });
}

}  // namespace gpu
}  // namespace neuralsdf
