// Traverses a tree for one point at a time, with vector operations on the eight boxes of a node in float32 and on the
// four triangles of a packet in float64. Compiled once per instruction set, with internal linkage throughout.
#include "cpu/bvh/traversal.h"

#include <cmath>
#include <limits>

#include "cpu/simd.h"

namespace neuralsdf {
namespace {

typedef double Double4 __attribute__((vector_size(32)));
typedef std::int64_t Mask4 __attribute__((vector_size(32)));
typedef std::int32_t Mask8 __attribute__((vector_size(32)));
typedef float Float8 __attribute__((vector_size(32)));

INLINE Double4 root(Double4 v) {
#ifdef __AVX__
    return _mm256_sqrt_pd(v);
#else
    return Double4{std::sqrt(v[0]), std::sqrt(v[1]), std::sqrt(v[2]), std::sqrt(v[3])};
#endif
}
INLINE Float8 root(Float8 v) {
#ifdef __AVX__
    return _mm256_sqrt_ps(v);
#else
    Float8 roots;
    for (int i = 0; i < 8; ++i) roots[i] = std::sqrt(v[i]);
    return roots;
#endif
}

// One bit per lane.
INLINE unsigned bits(Mask8 mask) {
#ifdef __AVX__
    return static_cast<unsigned>(_mm256_movemask_ps(reinterpret_cast<__m256>(mask)));
#else
    unsigned found = 0;
    for (int i = 0; i < 8; ++i) found |= mask[i] ? 1u << i : 0u;
    return found;
#endif
}
INLINE unsigned bits(Mask4 mask) {
#ifdef __AVX__
    return static_cast<unsigned>(_mm256_movemask_pd(reinterpret_cast<__m256d>(mask)));
#else
    unsigned found = 0;
    for (int i = 0; i < 4; ++i) found |= mask[i] ? 1u << i : 0u;
    return found;
#endif
}

INLINE Float8 eight(const float* from) { return *reinterpret_cast<const Float8*>(from); }
INLINE Double4 four(const double* from) { return *reinterpret_cast<const Double4*>(from); }

INLINE Vector3<Double4> broadcast(Vector3<double> v) { return {Double4{} + v.x, Double4{} + v.y, Double4{} + v.z}; }
INLINE Vector3<Double4> corner(const Packet& packet, int k) {
    return {four(packet.corner[k][0]), four(packet.corner[k][1]), four(packet.corner[k][2])};
}

// Children that may contain the result, with their distances; the nearest is on top.
class Stack {
  public:
    struct Entry {
        float distance;
        std::int32_t child;
    };

    INLINE bool empty() const { return size_ == 0; }
    INLINE Entry pop() { return entries_[--size_]; }

    INLINE void push(const Node& node, Float8 distances, unsigned chosen) {
        const int base = size_;
        for (; chosen; chosen &= chosen - 1) {
            const int lane = __builtin_ctz(chosen);
            const Entry entry{distances[lane], node.child[lane]};
            int at = size_++;
            for (; at > base && entries_[at - 1].distance < entry.distance; --at) entries_[at] = entries_[at - 1];
            entries_[at] = entry;
        }
    }

  private:
    int size_ = 0;
    Entry entries_[most_entries];
};

// -- closest point --------------------------------------------------------------------------------------------

struct Closest {
    double squared;
    std::int32_t face, packet, lane;
};

INLINE void visit(const Packet* packets, std::int32_t index, Vector3<Double4> p, Closest& best) {
    const Packet& triangles = packets[index];
    const Vector3<Double4> away = from_triangle(p, corner(triangles, 0), corner(triangles, 1), corner(triangles, 2));
    const Double4 squared = dot(away, away);
    for (unsigned closer = bits(Mask4(squared <= Double4{} + best.squared)); closer; closer &= closer - 1) {
        const int lane = __builtin_ctz(closer);
        // On ties the lowest face index wins, so that the result does not depend on the start of the search.
        if (squared[lane] < best.squared || (squared[lane] == best.squared && triangles.face[lane] < best.face))
            best = {squared[lane], triangles.face[lane], index, lane};
    }
}

// Squared distances are compared with a tolerance for float32 rounding, so that ties are found.
INLINE float bound(const Closest& best) { return static_cast<float>(best.squared) * 1.000002f + 1e-30f; }

// `best` is the closest triangle of packet `start` on entry, and of the tree on return.
INLINE void search(const Tree& tree, Vector3<double> point, Closest& best, std::int32_t start, Stack& stack) {
    const Vector3<Double4> p = broadcast(point);
    const Float8 x = Float8{} + static_cast<float>(point.x), y = Float8{} + static_cast<float>(point.y),
                 z = Float8{} + static_cast<float>(point.z), zero{};
    const auto enter = [&](const Node& node) {
        const Float8 dx = larger(larger(eight(node.low[0]) - x, x - eight(node.high[0])), zero);
        const Float8 dy = larger(larger(eight(node.low[1]) - y, y - eight(node.high[1])), zero);
        const Float8 dz = larger(larger(eight(node.low[2]) - z, z - eight(node.high[2])), zero);
        const Float8 squared = dx * dx + dy * dy + dz * dz;
        stack.push(node, squared, bits(Mask8(squared < Float8{} + bound(best))));
    };
    enter(tree.nodes[0]);
    while (!stack.empty()) {
        const Stack::Entry next = stack.pop();
        if (!(next.distance < bound(best))) continue;
        if (next.child >= 0)
            enter(tree.nodes[next.child]);
        else if (~next.child != start)
            visit(tree.packets, ~next.child, p, best);
    }
}

void closest(const Tree& tree, const double* points, const std::uint32_t* order, int count, double* distance,
             std::int64_t* face, double* nearest) {
    Stack stack;
    std::int32_t start = 0;
    for (int i = 0; i < count; ++i) {
        const std::size_t at = order[i];
        const Vector3<double> point = inner(tree, points + 3 * at);
        Closest best{std::numeric_limits<double>::infinity(), 0, 0, 0};
        visit(tree.packets, start, broadcast(point), best);  // start with the result of the previous point
        search(tree, point, best, start, stack);
        start = best.packet;
        distance[at] = std::sqrt(best.squared) / tree.scale;
        if (face) face[at] = best.face;
        if (nearest) {
            const Packet& found = tree.packets[best.packet];
            const Vector3<double> away = from_triangle(point, corner(found, 0, best.lane), corner(found, 1, best.lane),
                                                       corner(found, 2, best.lane));
            nearest[3 * at] = points[3 * at] - away.x / tree.scale;
            nearest[3 * at + 1] = points[3 * at + 1] - away.y / tree.scale;
            nearest[3 * at + 2] = points[3 * at + 2] - away.z / tree.scale;
        }
    }
}

// -- winding number -------------------------------------------------------------------------------------------

INLINE double winding_at(const Tree& tree, Vector3<double> point, double accuracy, std::int32_t* stack) {
    const Vector3<Double4> p = broadcast(point);
    const Float8 x = Float8{} + static_cast<float>(point.x), y = Float8{} + static_cast<float>(point.y),
                 z = Float8{} + static_cast<float>(point.z);
    const float criterion = static_cast<float>(accuracy * accuracy);
    Float8 far{};
    AngleSum<Double4> near{Double4{} + 1.0, Double4{}, Double4{}};
    int size = 0;
    stack[size++] = 0;
    while (size > 0) {
        const std::int32_t at = stack[--size];
        if (at >= 0) {
            const Node& node = tree.nodes[at];
            const Expansion& e = tree.expansions[at];
            const Float8 dx = eight(e.centre[0]) - x, dy = eight(e.centre[1]) - y, dz = eight(e.centre[2]) - z;
            const Float8 squared = larger(dx * dx + dy * dy + dz * dz, Float8{} + 1e-30f);
            const Mask8 is_far = squared > eight(e.squared_radius) * criterion;
            const Float8 field = far_field([&](int row) { return eight(e.dipole[0] + fan_out * row); }, dx, dy, dz,
                                           squared, [](Float8 v) { return root(v); });
            far += is_far ? field : Float8{};
            for (unsigned close = ~bits(is_far) & ((1u << node.count) - 1); close; close &= close - 1)
                stack[size++] = node.child[__builtin_ctz(close)];
        } else {
            const Packet& triangles = tree.packets[~at];
            Double4 real, imaginary;
            half_solid_angle(corner(triangles, 0) - p, corner(triangles, 1) - p, corner(triangles, 2) - p,
                             [](Double4 v) { return root(v); }, real, imaginary);
            near.add(real, imaginary);
        }
    }
    AngleSum<double> sum{1, 0, 0};
    double winding = 0;
    for (int lane = 0; lane < packet; ++lane) {
        sum.add(near.real[lane], near.imaginary[lane]);
        winding += near.turns[lane];
    }
    for (int lane = 0; lane < fan_out; ++lane) winding += far[lane];
    return winding + sum.turns + std::atan2(sum.imaginary, sum.real) / (2 * M_PI);
}

void winding_number(const Tree& tree, const double* points, const std::uint32_t* order, int count,
                    const Refinement* refinements, int refinement_count, double* winding) {
    std::int32_t stack[most_entries];
    for (int i = 0; i < count; ++i) {
        const std::size_t at = order[i];
        const Vector3<double> point = inner(tree, points + 3 * at);
        for (int r = 0; r < refinement_count; ++r) {
            winding[at] = winding_at(tree, point, refinements[r].accuracy, stack);
            if (!(std::abs(std::abs(winding[at]) - 0.5) < refinements[r].band)) break;
        }
    }
}

// -- rays -----------------------------------------------------------------------------------------------------

struct RayBoxes {
    Float8 origin[3], inverse[3];

    RayBoxes(const double* from, const double* direction) {
        for (int axis = 0; axis < 3; ++axis) {
            origin[axis] = Float8{} + static_cast<float>(from[axis]);
            inverse[axis] = Float8{} + static_cast<float>(1 / divisible(direction[axis]));
        }
    }

    // Ray parameters at which the ray enters the eight boxes; `hit`: the boxes that it enters before `length`.
    INLINE Float8 enter(const Node& node, float length, unsigned& hit) const {
        Float8 first{}, last = Float8{} + length;
        for (int axis = 0; axis < 3; ++axis) {
            const Float8 a = (eight(node.low[axis]) - origin[axis]) * inverse[axis];
            const Float8 b = (eight(node.high[axis]) - origin[axis]) * inverse[axis];
            first = larger(first, a < b ? a : b);
            const Float8 leave = (a < b ? b : a) * 1.000001f;
            last = leave < last ? leave : last;
        }
        hit = bits(Mask8(first * 0.999999f <= last)) & ((1u << node.count) - 1);
        return first;
    }
};

struct Hit {
    double length = std::numeric_limits<double>::infinity();
    std::int32_t face = -1;
};

// The first triangle along a ray whose direction has a maximum norm of 1. On ties the lowest face index wins.
INLINE Hit hit_by(const Tree& tree, Vector3<double> from, const double* direction, Stack& stack) {
    const double infinity = std::numeric_limits<double>::infinity();
    Hit best;
    const double skipped = approach(from, direction, infinity);
    if (!(skipped < infinity)) return best;
    const double origin[3] = {from.x + skipped * direction[0], from.y + skipped * direction[1],
                              from.z + skipped * direction[2]};
    const ShearedRay ray = sheared(direction);
    const Vector3<Double4> o = broadcast(Vector3<double>{origin[ray.x], origin[ray.y], origin[ray.z]});
    const RayBoxes boxes(origin, direction);
    const auto enter = [&](const Node& node) {
        unsigned hit;
        const Float8 distance = boxes.enter(node, static_cast<float>(best.length) * 1.000001f, hit);
        stack.push(node, distance, hit);
    };
    enter(tree.nodes[0]);
    while (!stack.empty()) {
        const Stack::Entry next = stack.pop();
        if (next.distance * 0.999999f > static_cast<float>(best.length)) continue;
        if (next.child >= 0) {
            enter(tree.nodes[next.child]);
            continue;
        }
        const Packet& triangles = tree.packets[~next.child];
        Vector3<Double4> corners[3];
        for (int k = 0; k < 3; ++k)
            corners[k] = Vector3<Double4>{four(triangles.corner[k][ray.x]), four(triangles.corner[k][ray.y]),
                                          four(triangles.corner[k][ray.z])} -
                         o;
        const Double4 lengths = ray_triangle(ray, corners[0], corners[1], corners[2], Double4{} + infinity);
        for (int lane = 0; lane < packet; ++lane) {
            const double length = lengths[lane];
            const std::int32_t face = triangles.face[lane];
            if (length < best.length || (length == best.length && face < best.face)) best = {length, face};
        }
    }
    best.length += skipped;
    return best;
}

void first_hit(const Tree& tree, const double* origins, const double* directions, const std::uint32_t* order, int count,
               double* length, std::int64_t* face) {
    Stack stack;
    for (int i = 0; i < count; ++i) {
        const std::size_t at = order[i];
        const double* d = directions + 3 * at;
        const double size = std::fmax(std::abs(d[0]), std::fmax(std::abs(d[1]), std::abs(d[2])));
        Hit hit;
        if (size > 0) {
            const double unit[3] = {d[0] / size, d[1] / size, d[2] / size};
            hit = hit_by(tree, inner(tree, origins + 3 * at), unit, stack);
            hit.length = hit.length / size / tree.scale;
        }
        length[at] = hit.length;
        face[at] = hit.face;
    }
}

}  // namespace

#define TABLE(isa) const Traversal traversal_##isa = {closest, winding_number, first_hit};
#define EXPAND(isa) TABLE(isa)
EXPAND(NEURALSDF_KERNEL)

}  // namespace neuralsdf
