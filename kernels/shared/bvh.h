// A bounding volume hierarchy of triangles, and the geometry of one triangle: what any device needs to ask
// for closest points, winding numbers and ray hits. Nothing here allocates, throws or uses the standard
// library, so that a GPU's kernels can include it.
//
// The tree holds the mesh moved by -origin and multiplied by `scale`, a power of two, so that it fits in the
// unit ball: there float32 boxes and absolute tolerances mean the same for every mesh.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__ __forceinline__
#else
#define HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace neuralsdf {

constexpr int fan_out = 8;  // children of a node
constexpr int packet = 4;   // triangles of a leaf

// Levels of nodes, at most: below `most_levels` parts are halved by number, and 2^29 triangles are leaves then
// after 27 more. Of each level seven children wait at once, and in the last all eight.
constexpr int most_levels = 60;
constexpr int deepest = most_levels + 28;
constexpr int most_entries = deepest * (fan_out - 1) + 1;

// Boxes are this much too large on each side: more than the rounding of boxes, points and rays to float32
// within two radii. Farther away the rounding is small against the distance.
constexpr float box_margin = 4.76837158e-7f;  // 2^-21

// Up to eight boxes. Those beyond `count` are inverted, so that nothing is ever in them.
struct alignas(64) Node {
    float low[3][fan_out], high[3][fan_out];
    std::int32_t child[fan_out];  // of a node its index, of a packet ~index
    std::int32_t count;
};

// Up to four triangles. Lanes without one repeat the first corner of the last one.
struct alignas(32) Packet {
    double corner[3][3][packet];  // corner, axis, triangle
    std::int32_t face[packet];    // as the mesh numbers them
};

// What the children of a node contribute to the winding number at a point far from them: the solid angle's
// Taylor series about their centres (Barill et al. 2018), whose terms are harmonic, so that the moments are
// symmetric and have no trace. They are divided by 4 pi; beyond `count` they are zero.
struct alignas(64) Expansion {
    float centre[3][fan_out];
    float squared_radius[fan_out];  // of the centre's ball around the child's box
    float dipole[3][fan_out];
    float quadrupole[6][fan_out];  // xx yy zz xy xz yz
    float octupole[10][fan_out];   // xxx yyy zzz xxy xxz xyy yyz xzz yzz xyz
};

struct Tree {
    const Node* nodes;  // the first is the root
    const Expansion* expansions;
    const Packet* packets;
    double origin[3], scale;
};

// What follows is compiled for several instruction sets and must not be merged. T is a number or a vector of
// numbers, of which each lane is computed by itself.
namespace {

template <class T>
struct Vector3 {
    T x, y, z;
};

HOST_DEVICE Vector3<double> inner(const Tree& tree, const double* point) {
    return {(point[0] - tree.origin[0]) * tree.scale, (point[1] - tree.origin[1]) * tree.scale,
            (point[2] - tree.origin[2]) * tree.scale};
}
HOST_DEVICE Vector3<double> corner(const Packet& packet, int k, int lane) {
    return {packet.corner[k][0][lane], packet.corner[k][1][lane], packet.corner[k][2][lane]};
}

template <class T>
HOST_DEVICE Vector3<T> operator-(Vector3<T> a, Vector3<T> b) {
    return {a.x - b.x, a.y - b.y, a.z - b.z};
}
template <class T>
HOST_DEVICE Vector3<T> operator*(Vector3<T> a, T s) {
    return {a.x * s, a.y * s, a.z * s};
}
template <class T>
HOST_DEVICE T dot(Vector3<T> a, Vector3<T> b) {
    return a.x * b.x + a.y * b.y + a.z * b.z;
}
template <class T>
HOST_DEVICE Vector3<T> cross(Vector3<T> a, Vector3<T> b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
template <class Mask, class T>
HOST_DEVICE Vector3<T> select(Mask mask, Vector3<T> a, Vector3<T> b) {
    return {mask ? a.x : b.x, mask ? a.y : b.y, mask ? a.z : b.z};
}
template <class T>
HOST_DEVICE T larger(T a, T b) {
    return a > b ? a : b;
}
template <class T>
HOST_DEVICE T magnitude(T a) {
    return a > T{} ? a : -a;
}

// The vector to a point from the closest point of an edge that starts `offset` away from it.
template <class T>
HOST_DEVICE Vector3<T> from_edge(Vector3<T> offset, Vector3<T> edge) {
    T along = dot(offset, edge) / dot(edge, edge);
    along = along > T{} ? along : T{};  // also where the edge has no length: NaN compares false
    along = along < T{} + 1.0 ? along : T{} + 1.0;
    return offset - edge * along;
}

// The vector to point p from the closest point of the triangle abc, which may have no area.
template <class T>
HOST_DEVICE Vector3<T> from_triangle(Vector3<T> p, Vector3<T> a, Vector3<T> b, Vector3<T> c) {
    const Vector3<T> ab = b - a, ac = c - a, ap = p - a, normal = cross(ab, ac);
    const T area = dot(normal, normal), v = dot(cross(ap, ac), normal), w = dot(cross(ab, ap), normal);
    const Vector3<T> from_ab = from_edge(ap, ab), from_ac = from_edge(ap, ac), from_bc = from_edge(p - b, c - b);
    const T to_ab = dot(from_ab, from_ab), to_ac = dot(from_ac, from_ac), to_bc = dot(from_bc, from_bc);
    Vector3<T> nearest = select(to_ac < to_ab, from_ac, from_ab);
    nearest = select(to_bc < (to_ac < to_ab ? to_ac : to_ab), from_bc, nearest);
    // A triangle thinner than 1e-10 of its length is its edges: its normal is noise.
    const auto above = (v > T{}) & (w > T{}) & (v + w < area) & (area > dot(ab, ab) * dot(ac, ac) * 1e-20);
    return select(above, normal * (dot(ap, normal) / area), nearest);
}

// A complex number whose argument is half the solid angle of the triangle abc as seen from the origin, positive
// from behind (van Oosterom and Strackee 1983).
template <class T, class Root>
HOST_DEVICE void half_solid_angle(Vector3<T> a, Vector3<T> b, Vector3<T> c, const Root& square_root, T& real,
                                  T& imaginary) {
    const T la = square_root(dot(a, a)), lb = square_root(dot(b, b)), lc = square_root(dot(c, c));
    real = la * lb * lc + dot(a, b) * lc + dot(b, c) * la + dot(c, a) * lb;
    imaginary = dot(a, cross(b - a, c - a));
}

// A sum of angles in (-pi, pi], each the argument of a complex number: one arc tangent in the end is enough.
template <class T>
struct AngleSum {
    T real, imaginary, turns;

    HOST_DEVICE void add(T re, T im) {
        const T none = T{}, one = T{} + 1.0;
        const T product_re = real * re - imaginary * im, product_im = real * im + imaginary * re;
        const T size = magnitude(product_re) + magnitude(product_im);
        turns += ((imaginary >= none) & (im >= none) & (product_im < none)) ? one : none;
        turns -= ((imaginary < none) & (im < none) & (product_im >= none)) ? one : none;
        // Zero is a point on an edge or a corner, where the angle is anything.
        real = size > none ? product_re / size : real;
        imaginary = size > none ? product_im / size : imaginary;
    }
};

// The far field of children at offsets (x, y, z), `squared` long, from the point to their centres. `row` gives the
// expansion's rows of moments, from the first of the dipole on.
template <class T, class Row, class Root>
HOST_DEVICE T far_field(const Row& row, T x, T y, T z, T squared, const Root& square_root) {
    const T dipole = row(0) * x + row(1) * y + row(2) * z;
    const T xx = x * x, yy = y * y, zz = z * z, xy = x * y;
    const T quadrupole = row(3) * xx + row(4) * yy + row(5) * zz + row(6) * xy + (row(7) * x + row(8) * y) * z;
    const T octupole = xx * (row(9) * x + row(12) * y + row(13) * z) + yy * (row(10) * y + row(14) * x + row(15) * z) +
                       zz * (row(11) * z + row(16) * x + row(17) * y) + row(18) * xy * z;
    const T inverse = 1.0f / squared;
    return (dipole + (quadrupole + octupole * inverse) * inverse) * inverse * square_root(inverse);
}

// Length of a ray up to the unit cube, or `miss`: what starts far away is moved there, where float32 is good.
HOST_DEVICE double approach(Vector3<double> from, const double* direction, double miss) {
    const double origin[3] = {from.x, from.y, from.z};
    double first = 0, last = miss;
    for (int axis = 0; axis < 3; ++axis) {
        const double d = direction[axis];
        if (d == 0) {
            if (magnitude(origin[axis]) > 1.01) return miss;
            continue;
        }
        const double a = (-1.01 - origin[axis]) / d, b = (1.01 - origin[axis]) / d;
        first = larger(first, a < b ? a : b);
        const double leave = larger(a, b);
        last = leave < last ? leave : last;
    }
    return first <= last ? first : miss;
}

// A component of a direction that may be divided by: a ray within a face of a box has no 0 * infinity.
HOST_DEVICE double divisible(double d) { return magnitude(d) > 1e-20 ? d : (d < 0 ? -1e-20 : 1e-20); }

// A ray, sheared so that it runs along the third axis (Woop, Benthin and Wald 2013): triangles that share an
// edge see the same projection of it, so no ray slips between them.
struct ShearedRay {
    int x, y, z;  // axes; z is the one that the direction is longest in
    double shear_x, shear_y, scale_z;
};

HOST_DEVICE ShearedRay sheared(const double direction[3]) {
    const double dx = magnitude(direction[0]), dy = magnitude(direction[1]), dz = magnitude(direction[2]);
    const int z = dx > dy ? (dx > dz ? 0 : 2) : (dy > dz ? 1 : 2), x = (z + 1) % 3, y = (z + 2) % 3;
    return {x, y, z, direction[x] / direction[z], direction[y] / direction[z], 1 / direction[z]};
}

// Whether a point is on the inner side of an edge, seen along a ray, as a weight of the third corner. `slack`
// covers its rounding, which the two triangles of an edge may round differently.
template <class T>
HOST_DEVICE T edge_side(T ax, T ay, T bx, T by, T& slack) {
    const T p = ax * by, q = ay * bx;
    slack = (magnitude(p) + magnitude(q)) * 4.4408920985006262e-16;
    return p - q;
}

// Length of a sheared ray up to the triangle abc, given relative to its origin with the axes permuted; `miss`
// for none.
template <class T>
HOST_DEVICE T ray_triangle(const ShearedRay& ray, Vector3<T> a, Vector3<T> b, Vector3<T> c, T miss) {
    const T ax = a.x - a.z * ray.shear_x, ay = a.y - a.z * ray.shear_y;
    const T bx = b.x - b.z * ray.shear_x, by = b.y - b.z * ray.shear_y;
    const T cx = c.x - c.z * ray.shear_x, cy = c.y - c.z * ray.shear_y;
    T slack_u, slack_v, slack_w;
    T u = edge_side(cx, cy, bx, by, slack_u), v = edge_side(ax, ay, cx, cy, slack_v);
    T w = edge_side(bx, by, ax, ay, slack_w);
    const T sign = u + v + w < T{} ? T{} - 1.0 : T{} + 1.0;
    u *= sign, v *= sign, w *= sign;
    const auto hit = (u >= -slack_u) & (v >= -slack_v) & (w >= -slack_w);
    u = larger(u, T{}), v = larger(v, T{}), w = larger(w, T{});
    const T sum = u + v + w, length = (u * a.z + v * b.z + w * c.z) / sum * ray.scale_z;
    return (hit & (sum > T{}) & (length >= T{})) ? length : miss;
}

}  // namespace
}  // namespace neuralsdf
