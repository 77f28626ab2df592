// A bounding volume hierarchy (BVH) of triangles, and the geometry of one triangle: everything that CPU and GPU code
// needs for closest points, winding numbers and ray intersections. Nothing allocates, throws or uses the standard
// library, so that CUDA kernels can include this file.
//
// The tree stores the mesh translated by -origin and multiplied by `scale`, a power of two, so that it fits into the
// unit ball. There float32 boxes and absolute tolerances are equally suitable for every mesh.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__ __forceinline__
#else
#define HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace neuralsdf {

constexpr int fan_out = 8;  // children per node
constexpr int packet = 4;   // triangles per leaf

// Maximum depth. Below `most_levels` parts are split at the median, so 2^29 triangles need at most 27 more levels. A
// traversal stack has at most seven waiting children per level, and eight in the last level.
constexpr int most_levels = 60;
constexpr int deepest = most_levels + 28;
constexpr int most_entries = deepest * (fan_out - 1) + 1;

// Boxes are enlarged by this margin on each side. It exceeds the float32 rounding of boxes, points and rays within two
// radii. Farther away the rounding error is small relative to the distance.
constexpr float box_margin = 4.76837158e-7f;  // 2^-21

// Up to eight boxes. Boxes beyond `count` are inverted, so that they contain nothing.
struct alignas(64) Node {
    float low[3][fan_out], high[3][fan_out];
    std::int32_t child[fan_out];  // index of a node, or ~index of a packet
    std::int32_t count;
};

// Up to four triangles. Unused lanes repeat the first corner of the last triangle.
struct alignas(32) Packet {
    double corner[3][3][packet];  // corner, axis, triangle
    std::int32_t face[packet];    // face indices of the mesh
};

// The far field of the children of a node: the Taylor series of the solid angle about their centres (Barill et al.
// 2018). The terms are harmonic, so the moments are symmetric and traceless. They are divided by 4 pi; beyond `count`
// they are zero.
struct alignas(64) Expansion {
    float centre[3][fan_out];
    float squared_radius[fan_out];  // bounding ball of the child's box about the centre
    float dipole[3][fan_out];
    float quadrupole[6][fan_out];  // xx yy zz xy xz yz
    float octupole[10][fan_out];   // xxx yyy zzz xxy xxz xyy yyz xzz yzz xyz
};

struct Tree {
    const Node* nodes;  // the first one is the root
    const Expansion* expansions;
    const Packet* packets;
    double origin[3], scale;
};

// The following is compiled for several instruction sets and must not be merged by the linker. T is a number, or a
// vector of numbers that are processed lane by lane.
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

// The vector from the closest point of an edge to a point; `offset` is the vector from the start of the edge to the
// point.
template <class T>
HOST_DEVICE Vector3<T> from_edge(Vector3<T> offset, Vector3<T> edge) {
    T along = dot(offset, edge) / dot(edge, edge);
    along = along > T{} ? along : T{};  // also if the edge has length 0: NaN compares false
    along = along < T{} + 1.0 ? along : T{} + 1.0;
    return offset - edge * along;
}

// The vector from the closest point of the triangle abc to the point p. The triangle may be degenerate.
template <class T>
HOST_DEVICE Vector3<T> from_triangle(Vector3<T> p, Vector3<T> a, Vector3<T> b, Vector3<T> c) {
    const Vector3<T> ab = b - a, ac = c - a, ap = p - a, normal = cross(ab, ac);
    const T area = dot(normal, normal), v = dot(cross(ap, ac), normal), w = dot(cross(ab, ap), normal);
    const Vector3<T> from_ab = from_edge(ap, ab), from_ac = from_edge(ap, ac), from_bc = from_edge(p - b, c - b);
    const T to_ab = dot(from_ab, from_ab), to_ac = dot(from_ac, from_ac), to_bc = dot(from_bc, from_bc);
    Vector3<T> nearest = select(to_ac < to_ab, from_ac, from_ab);
    nearest = select(to_bc < (to_ac < to_ab ? to_ac : to_ab), from_bc, nearest);
    // A triangle thinner than 1e-10 of its length is treated as its edges, because its normal is dominated by rounding.
    const auto above = (v > T{}) & (w > T{}) & (v + w < area) & (area > dot(ab, ab) * dot(ac, ac) * 1e-20);
    return select(above, normal * (dot(ap, normal) / area), nearest);
}

// Computes a complex number whose argument is half the solid angle of the triangle abc as seen from the origin,
// positive from behind (van Oosterom and Strackee 1983).
template <class T, class Root>
HOST_DEVICE void half_solid_angle(Vector3<T> a, Vector3<T> b, Vector3<T> c, const Root& square_root, T& real,
                                  T& imaginary) {
    const T la = square_root(dot(a, a)), lb = square_root(dot(b, b)), lc = square_root(dot(c, c));
    real = la * lb * lc + dot(a, b) * lc + dot(b, c) * la + dot(c, a) * lb;
    imaginary = dot(a, cross(b - a, c - a));
}

// A sum of angles in (-pi, pi], each given as the argument of a complex number, which needs only one arctangent at the
// end.
template <class T>
struct AngleSum {
    T real, imaginary, turns;

    HOST_DEVICE void add(T re, T im) {
        const T none = T{}, one = T{} + 1.0;
        const T product_re = real * re - imaginary * im, product_im = real * im + imaginary * re;
        const T size = magnitude(product_re) + magnitude(product_im);
        turns += ((imaginary >= none) & (im >= none) & (product_im < none)) ? one : none;
        turns -= ((imaginary < none) & (im < none) & (product_im >= none)) ? one : none;
        // Zero: the point is on an edge or a corner, where the angle is arbitrary.
        real = size > none ? product_re / size : real;
        imaginary = size > none ? product_im / size : imaginary;
    }
};

// The far field of children with centres at offsets (x, y, z) from the point; `squared` is the squared length of the
// offsets. `row` returns the rows of moments of the expansion, starting with the dipole.
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

// The ray parameter at which a ray enters the unit cube, or `miss`. Distant origins are moved there, where float32 is
// accurate.
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

// A component of a direction, bounded away from zero: rays within a face of a box then give no 0 * infinity.
HOST_DEVICE double divisible(double d) { return magnitude(d) > 1e-20 ? d : (d < 0 ? -1e-20 : 1e-20); }

// A ray, sheared to the third axis (Woop, Benthin and Wald 2013). Triangles that share an edge have the same projection
// of it, so rays cannot pass between them.
struct ShearedRay {
    int x, y, z;  // axes; z is the dominant axis of the direction
    double shear_x, shear_y, scale_z;
};

HOST_DEVICE ShearedRay sheared(const double direction[3]) {
    const double dx = magnitude(direction[0]), dy = magnitude(direction[1]), dz = magnitude(direction[2]);
    const int z = dx > dy ? (dx > dz ? 0 : 2) : (dy > dz ? 1 : 2), x = (z + 1) % 3, y = (z + 2) % 3;
    return {x, y, z, direction[x] / direction[z], direction[y] / direction[z], 1 / direction[z]};
}

// Signed edge function along a ray: the weight of the third corner, positive on the inner side. `slack` bounds its
// rounding error, which may differ between the two triangles of an edge.
template <class T>
HOST_DEVICE T edge_side(T ax, T ay, T bx, T by, T& slack) {
    const T p = ax * by, q = ay * bx;
    slack = (magnitude(p) + magnitude(q)) * 4.4408920985006262e-16;
    return p - q;
}

// The ray parameter at which a sheared ray hits the triangle abc, given relative to the ray's origin with permuted
// axes; `miss` if it does not.
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
