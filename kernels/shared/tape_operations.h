// The operations of a tape (neuralsdf/program/tape_format.py describes them,
// neuralsdf/backends/reference/tape_interpreter.py is the reference). Nothing allocates, throws or needs more than the
// C math library, so that CUDA kernels can include this file.
//
// T is a number, or a vector of numbers that are processed lane by lane: a CUDA kernel has one point per thread, the
// C++ core a vector of points. Gradients are computed together with the values; if they are not stored, the compiler
// removes the computation. NaN stays NaN.
#pragma once

#include <float.h>
#include <math.h>

#include <cstdint>

#ifndef HOST_DEVICE
#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__ __forceinline__
#else
#define HOST_DEVICE inline __attribute__((always_inline))
#endif
#endif

namespace neuralsdf {

// clang-format off
enum class Op : std::int32_t {  // as Op in program/tape_format.py
    sphere = 0, box, rounded_box, cylinder, capsule, cone, torus, plane, ellipsoid,
    field = 32, nearest,
    unite = 40, intersect, subtract, blend,
    negate = 50, offset, wall, displace,
    enter_fold = 60, leave_fold, enter_repeat, leave_repeat, enter_twist, leave_twist,
};
// clang-format on

struct Instruction {
    Op op;
    std::int32_t out, a, b;
    std::int32_t parameters;  // index of the first one
};

// Whether an instruction evaluates networks or fields, which `carry_out` does not handle.
HOST_DEVICE bool asks(Op op) { return op == Op::field || op == Op::nearest; }

constexpr int frame_size = 13;  // M row by row, t, s

// Blends with a smaller radius are sharp, to avoid a division by zero.
constexpr float sharp = 1e-30f;

// Newton steps for the closest point of an ellipsoid.
constexpr int ellipsoid_steps = 12;

// The following is compiled for several instruction sets and must not be merged by the linker.
namespace {

// -- elementary functions of numbers; those of vectors are in simd.h --------------------------------------------------

HOST_DEVICE float absolute(float x) { return fabsf(x); }
HOST_DEVICE float square_root(float x) { return sqrtf(x); }
HOST_DEVICE float rounded_up(float x) { return ceilf(x); }
HOST_DEVICE float with_sign_of(float magnitude, float sign) { return copysignf(magnitude, sign); }
HOST_DEVICE float sine_and_cosine(float x, float* cosine) {
    *cosine = cosf(x);
    return sinf(x);
}

template <class T>
HOST_DEVICE T constant(float x) {
    return T{} + x;
}
template <class T>
HOST_DEVICE T at_least(T x, float low) {
    return x < low ? constant<T>(low) : x;
}
template <class T>
HOST_DEVICE T at_most(T x, float high) {
    return x > high ? constant<T>(high) : x;
}
template <class T>
HOST_DEVICE T between(T x, float low, float high) {
    return at_most(at_least(x, low), high);
}
template <class T>
HOST_DEVICE T greater(T a, T b) {
    return ((a > b) | (a != a)) ? a : b;
}
template <class T>
HOST_DEVICE T lesser(T a, T b) {
    return ((a < b) | (a != a)) ? a : b;
}
template <class T>
HOST_DEVICE T reciprocal(T x) {  // of a length >= 0; finite for zero
    return 1.0f / at_least(x, FLT_MIN);
}

// -- points and samples -----------------------------------------------------------------------------------------------

template <class T, int N = 3>
struct Point {
    T of[N];
    HOST_DEVICE T& operator[](int i) { return of[i]; }
    HOST_DEVICE const T& operator[](int i) const { return of[i]; }
};

template <class T, int N = 3>
struct Sample {
    T value;
    Point<T, N> gradient;
};

template <class T, int N>
HOST_DEVICE Point<T, N> operator+(Point<T, N> a, const Point<T, N>& b) {
    for (int i = 0; i < N; ++i) a[i] += b[i];
    return a;
}
template <class T, int N>
HOST_DEVICE Point<T, N> operator-(Point<T, N> a, const Point<T, N>& b) {
    for (int i = 0; i < N; ++i) a[i] -= b[i];
    return a;
}
template <class T, int N, class Factor>
HOST_DEVICE Point<T, N> operator*(Point<T, N> a, const Factor& factor) {
    for (int i = 0; i < N; ++i) a[i] *= factor;
    return a;
}
template <class T, int N>
HOST_DEVICE T dot(const Point<T, N>& a, const Point<T, N>& b) {
    T sum = a[0] * b[0];
    for (int i = 1; i < N; ++i) sum += a[i] * b[i];
    return sum;
}
template <class T>
HOST_DEVICE T dot(const Point<T>& a, const float* b) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}
template <class T, int N>
HOST_DEVICE T length(const Point<T, N>& p) {
    return square_root(dot(p, p));
}
template <class Mask, class T, int N>
HOST_DEVICE Point<T, N> chosen(const Mask& first, const Point<T, N>& a, const Point<T, N>& b) {
    Point<T, N> either;
    for (int i = 0; i < N; ++i) either[i] = first ? a[i] : b[i];
    return either;
}
template <class T>
HOST_DEVICE Point<T> vector_of(const float* numbers) {
    return {constant<T>(numbers[0]), constant<T>(numbers[1]), constant<T>(numbers[2])};
}

// Transforms a point into a frame: q = M p + t.
template <class T>
HOST_DEVICE Point<T> moved(const Point<T>& p, const float* frame) {
    Point<T> q;
    for (int i = 0; i < 3; ++i) q[i] = dot(p, frame + 3 * i) + frame[9 + i];
    return q;
}

// Transforms a sample from the space of q to that of p. The gradient becomes s M^T g.
template <class T>
HOST_DEVICE Sample<T> returned(const Sample<T>& sample, const float* frame) {
    Sample<T> back;
    back.value = sample.value * frame[12];
    const Point<T> g = sample.gradient * frame[12];
    for (int i = 0; i < 3; ++i) back.gradient[i] = g[0] * frame[i] + g[1] * frame[3 + i] + g[2] * frame[6 + i];
    return back;
}

// -- solids: parameters as in neuralsdf/program/primitive_distances.py
// ---------------------------------------------------------

template <class T, int N>
HOST_DEVICE Sample<T, N> ball(const Point<T, N>& p, float radius) {
    const T distance = length(p);
    return {distance - radius, p * reciprocal(distance)};
}

// A box in any dimension; `half` are half its side lengths.
template <class T, int N>
HOST_DEVICE Sample<T, N> orthotope(const Point<T, N>& p, const float (&half)[N]) {
    Point<T, N> excess, outer, gradient;
    for (int i = 0; i < N; ++i) {
        excess[i] = absolute(p[i]) - half[i];
        outer[i] = at_least(excess[i], 0.0f);
    }
    T deepest = excess[0];
    for (int i = 1; i < N; ++i) deepest = greater(deepest, excess[i]);
    const T distance = length(outer), inverse = reciprocal(distance);
    T unclaimed = constant<T>(1.0f);  // inside, the first of the nearest sides determines the gradient
    for (int i = 0; i < N; ++i) {
        const T side = excess[i] == deepest ? unclaimed : T{};
        unclaimed -= side;
        gradient[i] = with_sign_of(deepest > 0.0f ? outer[i] * inverse : side, p[i]);
    }
    return {distance + at_most(deepest, 0.0f), gradient};
}

template <class T>
HOST_DEVICE Sample<T> box(const Point<T>& p, const float* sides, float radius) {
    const float half[3] = {0.5f * sides[0] - radius, 0.5f * sides[1] - radius, 0.5f * sides[2] - radius};
    Sample<T> inner = orthotope(p, half);
    inner.value -= radius;
    return inner;
}

template <class T>
HOST_DEVICE Sample<T> capsule(Point<T> p, float radius, float height) {
    p[2] -= between(p[2], -0.5f * height, 0.5f * height);
    return ball(p, radius);
}

template <class T>
HOST_DEVICE Sample<T> plane(const Point<T>& p, const float* normal) {
    return {dot(p, normal), vector_of<T>(normal)};
}

// Maps a point to (distance from the z axis, z), the half-plane of a solid of revolution.
template <class T>
HOST_DEVICE Point<T, 2> flattened(const Point<T>& p) {
    return {square_root(p[0] * p[0] + p[1] * p[1]), p[2]};
}
template <class T>
HOST_DEVICE Sample<T> revolved(const Sample<T, 2>& flat, const Point<T>& p) {
    const T radial = flat.gradient[0] * reciprocal(flattened(p)[0]);
    return {flat.value, {p[0] * radial, p[1] * radial, flat.gradient[1]}};
}

template <class T>
HOST_DEVICE Sample<T> cylinder(const Point<T>& p, float radius, float height) {
    const float half[2] = {radius, 0.5f * height};
    return revolved(orthotope(flattened(p), half), p);
}

template <class T>
HOST_DEVICE Sample<T> torus(const Point<T>& p, float major, float minor) {
    Point<T, 2> from_ring = flattened(p);
    from_ring[0] -= major;
    return revolved(ball(from_ring, minor), p);
}

// The convex region of the half-plane x >= 0 that is bounded by an open, counter-clockwise outline.
template <class T, int Corners>
HOST_DEVICE Sample<T, 2> convex(const Point<T, 2>& p, const float (&outline)[Corners][2]) {
    T value = constant<T>(INFINITY), deepest = constant<T>(-INFINITY);
    Point<T, 2> gradient = {};
    for (int corner = 0; corner + 1 < Corners; ++corner) {
        const float* start = outline[corner];
        const float along[2] = {outline[corner + 1][0] - start[0], outline[corner + 1][1] - start[1]};
        const float squared = along[0] * along[0] + along[1] * along[1];
        if (squared < FLT_MIN) continue;  // skip degenerate edges, such as the tip of a cone
        const float size = sqrtf(squared);
        const Point<T, 2> edge = {constant<T>(along[0]), constant<T>(along[1])};
        const Point<T, 2> normal = {constant<T>(along[1] / size), constant<T>(-along[0] / size)};
        const Point<T, 2> from_start = {p[0] - start[0], p[1] - start[1]};
        const T height = dot(normal, from_start);
        const Point<T, 2> offset = from_start - edge * between(dot(edge, from_start) / squared, 0.0f, 1.0f);
        const T distance = length(offset);
        // On the edge itself the offset is dominated by rounding and has no direction.
        const T side = height < 0.0f ? constant<T>(-1.0f) : constant<T>(1.0f);
        const Point<T, 2> away =
            chosen(distance < 16 * FLT_EPSILON * size, normal * side, offset * reciprocal(distance));
        const auto farther = distance >= value;
        gradient = chosen(farther, gradient, away);
        value = farther ? value : distance;
        deepest = greater(deepest, height);
    }
    const T sign = deepest < 0.0f ? constant<T>(-1.0f) : constant<T>(1.0f);
    return {value * sign, gradient * sign};
}

template <class T>
HOST_DEVICE Sample<T> cone(const Point<T>& p, float bottom, float height, float top) {
    const float half = 0.5f * height;
    const float outline[4][2] = {{0, -half}, {bottom, -half}, {top, half}, {0, half}};
    return revolved(convex(flattened(p), outline), p);
}

// Newton's method, as described in program/primitive_distances.py.
template <class T>
HOST_DEVICE Sample<T> ellipsoid(const Point<T>& p, const float* half_axes) {
    const float scale = greater(half_axes[0], greater(half_axes[1], half_axes[2]));
    const float axes[3] = {half_axes[0] / scale, half_axes[1] / scale, half_axes[2] / scale};
    const float smallest = lesser(axes[0], lesser(axes[1], axes[2])), smallest_squared = smallest * smallest;
    float above[3];
    Point<T> place, product, inverse;
    for (int i = 0; i < 3; ++i) {
        above[i] = axes[i] * axes[i] - smallest_squared;
        // On a plane of symmetry the term of the shortest axis would be 0 / 0.
        place[i] = at_least(absolute(p[i]) * (1.0f / scale), 1e-12f);
        product[i] = place[i] * axes[i];
    }
    T s = product[0] - above[0];  // the largest s at which one term is 1; the other terms are at most 1 there
    for (int i = 1; i < 3; ++i) s = greater(s, product[i] - above[i]);
    for (int step = 0; step < ellipsoid_steps; ++step) {
        T sum = constant<T>(-1.0f), slope = T{};
        for (int i = 0; i < 3; ++i) {
            inverse[i] = 1.0f / (s + above[i]);
            const T term = product[i] * inverse[i], square = term * term;
            sum += square;
            slope += square * inverse[i];
        }
        s += sum / (2.0f * slope);
    }
    Point<T> normal, offset;
    for (int i = 0; i < 3; ++i) {
        const T component = place[i] / (s + above[i]);  // the closest point is its product with the squared axis
        normal[i] = with_sign_of(component, p[i]);
        offset[i] = place[i] - component * (axes[i] * axes[i]);
    }
    const T distance = length(offset) * scale;
    return {s < smallest_squared ? -distance : distance, normal * reciprocal(length(normal))};
}

// -- values -----------------------------------------------------------------------------------------------------------

template <class T>
HOST_DEVICE Sample<T> negated(const Sample<T>& a) {
    return {-a.value, a.gradient * -1.0f};
}

template <class T>
HOST_DEVICE Sample<T> blended(const Sample<T>& a, const Sample<T>& b, const T& weight) {
    return {a.value + (b.value - a.value) * weight, a.gradient + (b.gradient - a.gradient) * weight};
}

// The minimum; with a radius, a quadratic blend that is smaller where the values differ by less than the radius.
template <class T>
HOST_DEVICE Sample<T> united(const Sample<T>& a, const Sample<T>& b, float radius) {
    if (radius < sharp) {
        const auto first = (a.value <= b.value) | (a.value != a.value);
        return {first ? a.value : b.value, chosen(first, a.gradient, b.gradient)};
    }
    const T weight = between(0.5f + (b.value - a.value) * (0.5f / radius), 0.0f, 1.0f);
    Sample<T> smooth = blended(b, a, weight);
    smooth.value -= radius * weight * (1.0f - weight);
    return smooth;
}

template <class T>
HOST_DEVICE Sample<T> sum(const Sample<T>& a, const Sample<T>& b) {
    return {a.value + b.value, a.gradient + b.gradient};
}

// The wall from `outer` outside of the surface to `inner` inside of it.
template <class T>
HOST_DEVICE Sample<T> wall(const Sample<T>& a, float outer, float inner) {
    const T middle = a.value + 0.5f * (inner - outer);
    const T side = with_sign_of(constant<T>(1.0f), middle);
    return {absolute(middle) - 0.5f * (inner + outer), a.gradient * side};
}

template <class T>
HOST_DEVICE Sample<T> waves(const Point<T>& q, float amplitude, float frequency) {
    Point<T> sine, cosine;
    for (int i = 0; i < 3; ++i) sine[i] = sine_and_cosine(q[i] * frequency, &cosine[i]);
    const T xy = sine[0] * sine[1];
    const Point<T> slope = {cosine[0] * sine[1] * sine[2], cosine[1] * sine[2] * sine[0], cosine[2] * xy};
    return {amplitude * (xy * sine[2]), slope * (amplitude * frequency)};
}

// -- space ------------------------------------------------------------------------------------------------------------

// Reflects points behind the plane with this normal.
template <class T>
HOST_DEVICE Point<T> folded(const Point<T>& q, const float* normal) {
    return q - vector_of<T>(normal) * (2.0f * at_most(dot(q, normal), 0.0f));
}
template <class T>
HOST_DEVICE Sample<T> unfolded(const Sample<T>& inner, const Point<T>& q, const float* normal) {
    const T along = dot(q, normal) < 0.0f ? dot(inner.gradient, normal) : T{};
    return {inner.value, inner.gradient - vector_of<T>(normal) * (2.0f * along)};
}

// Maps points to the space of one of the repeated copies. Parameters, each for three axes: spacing, maximum index,
// middle, number of copies around the point, and index among these.
template <class T>
HOST_DEVICE Point<T> repeated(Point<T> q, const float* numbers) {
    for (int axis = 0; axis < 3; ++axis) {
        const float spacing = numbers[axis], max_index = numbers[3 + axis], middle = numbers[6 + axis];
        const float around = numbers[9 + axis], index = numbers[12 + axis];
        if (spacing == 0) continue;
        T first = rounded_up((q[axis] - middle) * (1.0f / spacing) - 0.5f * around);
        if (max_index >= 0) first = between(first, 0.0f, max_index + 1.0f - around);
        q[axis] -= (first + index) * spacing;
    }
    return q;
}

// Maps points to the untwisted space. Points beyond the radius are moved to the cylinder around the axis.
template <class T>
HOST_DEVICE Point<T> untwisted(const Point<T>& q, float turn, float radius) {
    const T nearer = radius / at_least(square_root(q[0] * q[0] + q[1] * q[1]), radius);
    const T x = q[0] * nearer, y = q[1] * nearer;
    T cosine;
    const T sine = sine_and_cosine(q[2] * turn, &cosine);
    return {x * cosine + y * sine, y * cosine - x * sine, q[2]};
}

// Transforms a sample out of a twist. Outside of the cylinder, at a distance `excess`, the value is extended like that
// of a network outside of its ball.
template <class T>
HOST_DEVICE Sample<T> twisted(const Sample<T>& inner, const Point<T>& q, float turn, float radius) {
    const T distance = square_root(q[0] * q[0] + q[1] * q[1]);
    const T excess = at_least(distance - radius, 0.0f), positive = at_least(inner.value, 0.0f);
    const auto beyond = excess > 0.0f;
    const T value = beyond ? square_root(excess * excess + positive * positive) : inner.value;
    T cosine;
    const T sine = sine_and_cosine(q[2] * turn, &cosine);
    const Point<T>& g = inner.gradient;
    const Point<T> at = untwisted(q, turn, radius);
    const Point<T> gradient = {g[0] * cosine - g[1] * sine, g[0] * sine + g[1] * cosine,
                               g[2] - turn * (at[0] * g[1] - at[1] * g[0])};
    // Perpendicular to the axis only the component around the cylinder remains, reduced with the distance.
    const T inverse = reciprocal(distance), x = q[0] * inverse, y = q[1] * inverse;
    const T outwards = x * gradient[0] + y * gradient[1];
    const T nearer = radius / at_least(distance, radius);
    const Point<T> outside = {positive * (gradient[0] - outwards * x) * nearer + excess * x,
                              positive * (gradient[1] - outwards * y) * nearer + excess * y, positive * gradient[2]};
    return {value, chosen(beyond, outside * reciprocal(value), gradient)};
}

// -- networks outside of their balls: as in neuralsdf/backends/value_outside_ball.py
// ------------------------------------------

// The closest point of the unit ball and the distance to it.
template <class T>
struct InBall {
    Point<T> nearest;
    T excess;
};
template <class T>
HOST_DEVICE InBall<T> into_ball(const Point<T>& q) {
    const T distance = length(q);
    return {q * (1.0f / at_least(distance, 1.0f)), at_least(distance - 1.0f, 0.0f)};
}

// Extends a network's sample at that point to the outside of the ball.
template <class T>
HOST_DEVICE Sample<T> extended(const Sample<T>& inner, const InBall<T>& place) {
    const auto beyond = place.excess > 0.0f;
    const T positive = at_least(inner.value, 0.0f);
    const T value = square_root(place.excess * place.excess + positive * positive);
    const Point<T>& radial = place.nearest;  // on the unit sphere, so it is also the outward normal
    const T outwards = dot(inner.gradient, radial);
    const Point<T> tangential = (inner.gradient - radial * outwards) * (positive / (1.0f + place.excess));
    const Point<T> outside = (radial * place.excess + tangential) * reciprocal(value);
    return {beyond ? value : inner.value, chosen(beyond, outside, inner.gradient)};
}

// -- instructions -----------------------------------------------------------------------------------------------------

template <class T>
HOST_DEVICE Sample<T> solid(Op op, const Point<T>& q, const float* numbers) {
    switch (op) {
        case Op::sphere: return ball(q, numbers[0]);
        case Op::box: return box(q, numbers, 0.0f);
        case Op::rounded_box: return box(q, numbers, numbers[3]);
        case Op::cylinder: return cylinder(q, numbers[0], numbers[1]);
        case Op::capsule: return capsule(q, numbers[0], numbers[1]);
        case Op::cone: return cone(q, numbers[0], numbers[1], numbers[2]);
        case Op::torus: return torus(q, numbers[0], numbers[1]);
        case Op::plane: return plane(q, numbers);
        default: return ellipsoid(q, numbers);
    }
}

template <class T>
HOST_DEVICE Sample<T> combined(Op op, const Sample<T>& a, const Sample<T>& b, float number) {
    switch (op) {
        case Op::unite: return united(a, b, number);
        case Op::intersect: return negated(united(negated(a), negated(b), number));
        case Op::subtract: return negated(united(negated(a), b, number));
        default: return blended(a, b, constant<T>(number));
    }
}

template <class T>
HOST_DEVICE Sample<T> changed(Op op, const Sample<T>& a, const float* numbers) {
    switch (op) {
        case Op::negate: return negated(a);
        case Op::offset: return {a.value - numbers[0], a.gradient};
        default: return wall(a, numbers[0], numbers[1]);
    }
}

template <class T>
HOST_DEVICE Point<T> entered(Op op, const Point<T>& q, const float* numbers) {
    switch (op) {
        case Op::enter_fold: return folded(q, numbers);
        case Op::enter_repeat: return repeated(q, numbers);
        default: return untwisted(q, numbers[0], numbers[1]);
    }
}

template <class T>
HOST_DEVICE Sample<T> left(Op op, const Sample<T>& a, const Point<T>& q, const float* numbers) {
    switch (op) {
        case Op::leave_fold: return unfolded(a, q, numbers);
        case Op::leave_repeat: return a;
        default: return twisted(a, q, numbers[0], numbers[1]);
    }
}

// Executes an instruction that does not evaluate networks or fields. `registers` has `point(i)`, `value(i)` (a sample),
// `set_point(i, point)` and `set_value(i, sample)`.
template <class Registers>
HOST_DEVICE void carry_out(const Instruction& i, const float* parameters, Registers& registers) {
    const float *numbers = parameters + i.parameters, *own = numbers + frame_size;
    switch (i.op) {
        case Op::sphere:
        case Op::box:
        case Op::rounded_box:
        case Op::cylinder:
        case Op::capsule:
        case Op::cone:
        case Op::torus:
        case Op::plane:
        case Op::ellipsoid:
            registers.set_value(i.out, returned(solid(i.op, moved(registers.point(i.a), numbers), own), numbers));
            break;
        case Op::unite:
        case Op::intersect:
        case Op::subtract:
        case Op::blend:
            registers.set_value(i.out, combined(i.op, registers.value(i.a), registers.value(i.b), numbers[0]));
            break;
        case Op::negate:
        case Op::offset:
        case Op::wall: registers.set_value(i.out, changed(i.op, registers.value(i.a), numbers)); break;
        case Op::displace: {
            const auto added = returned(waves(moved(registers.point(i.b), numbers), own[0], own[1]), numbers);
            registers.set_value(i.out, sum(registers.value(i.a), added));
            break;
        }
        case Op::enter_fold:
        case Op::enter_repeat:
        case Op::enter_twist:
            registers.set_point(i.out, entered(i.op, moved(registers.point(i.a), numbers), own));
            break;
        case Op::leave_fold:
        case Op::leave_repeat:
        case Op::leave_twist: {
            const auto q = moved(registers.point(i.b), numbers);
            registers.set_value(i.out, returned(left(i.op, registers.value(i.a), q, own), numbers));
            break;
        }
        case Op::field:
        case Op::nearest: break;
    }
}

}  // namespace
}  // namespace neuralsdf
