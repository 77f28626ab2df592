// Compiled once per instruction set; NEURALSDF_KERNEL is its name. Loops over a group of points have a constant trip
// count and independent iterations, so that the compiler vectorises them.
#include "cpu/mesh_space.h"

#include <cstring>

namespace neuralsdf {
namespace {

constexpr double farthest = 1e18;

void enter_round(const Placement& p, const double* points, bool in_ball, float* local, float* excess) {
    double offset[3][round_points];
    for (int i = 0; i < round_points; ++i)
        for (int axis = 0; axis < 3; ++axis)
            offset[axis][i] = (points[3 * i + axis] - p.centre[axis]) / p.scale;  // as in similarity_transform.py
    float q[3][round_points];
    for (int axis = 0; axis < 3; ++axis) {
        const double* r = p.rotation + axis;
        for (int i = 0; i < round_points; ++i) {
            const double x = offset[0][i] * r[0] + offset[1][i] * r[3] + offset[2][i] * r[6];
            const float rounded = static_cast<float>(x);  // unconditionally: a branch would prevent vectorisation
            q[axis][i] = __builtin_fabs(x) < farthest ? rounded : __builtin_nanf("");
        }
    }
    const float ball = in_ball ? 1 : __builtin_inff();
    for (int i = 0; i < round_points; ++i) {
        const float radius = __builtin_sqrtf(q[0][i] * q[0][i] + q[1][i] * q[1][i] + q[2][i] * q[2][i]);
        const float divisor = radius <= ball ? 1 : radius;  // NaN in one coordinate makes all coordinates NaN
        const float factor = 1 / divisor;
        excess[i] = divisor - 1;
        for (int axis = 0; axis < 3; ++axis) q[axis][i] *= factor;
    }
    for (int i = 0; i < round_points; ++i)
        for (int axis = 0; axis < 3; ++axis) local[3 * i + axis] = q[axis][i];
}

void enter(const Placement& p, const double* points, int count, bool in_ball, float* local, float* excess) {
    int first = 0;
    for (; first + round_points <= count; first += round_points)
        enter_round(p, points + 3 * first, in_ball, local + 3 * first, excess + first);
    if (first == count) return;
    double last[3 * round_points] = {};
    std::memcpy(last, points + 3 * first, sizeof(double) * 3 * (count - first));
    enter_round(p, last, in_ball, local + 3 * first, excess + first);
}

void leave(const Placement& p, const float* __restrict values, const float* __restrict excess, int count,
           double* __restrict distances, bool* __restrict outside) {
    for (int i = 0; i < count; ++i) {
        const float value = values[i], beyond = excess[i], positive = value < 0 ? 0 : value;
        const float extended = __builtin_sqrtf(beyond * beyond + positive * positive);
        distances[i] = static_cast<double>(beyond > 0 ? extended : value) * p.scale;
    }
    for (int i = 0; i < count; ++i) outside[i] = excess[i] > 0;
}

}  // namespace

#define TABLE(isa) const PlacementKernel placement_##isa = {enter, leave};
#define EXPAND(isa) TABLE(isa)
EXPAND(NEURALSDF_KERNEL)

}  // namespace neuralsdf
