// tape_host.cpp
// Runs tape_operations.h like a GPU thread: one point at a time, with its own registers. test_tape.py compiles
// it for the CPU and, if nvcc is available, with nvcc, to check that a kernel can include the header.
#include "shared/tape_operations.h"

using namespace neuralsdf;

#ifndef __CUDACC__
#define __global__ extern "C"
#endif

namespace {

constexpr int most = 16;

struct Registers {
    Point<float> points[most];
    Sample<float> values[most];

    HOST_DEVICE const Point<float>& point(int i) const { return points[i]; }
    HOST_DEVICE const Sample<float>& value(int i) const { return values[i]; }
    HOST_DEVICE void set_point(int i, const Point<float>& p) { points[i] = p; }
    HOST_DEVICE void set_value(int i, const Sample<float>& s) { values[i] = s; }
};

}  // namespace

// Computes value and gradient (4,) of a tape of `size` instructions without fields at a point (3,).
__global__ void evaluate(const Instruction* code, int size, const float* parameters, const float* point,
                         float* sample) {
    Registers registers;
    registers.points[0] = {{point[0], point[1], point[2]}};
    for (int i = 0; i < size; ++i) carry_out(code[i], parameters, registers);
    sample[0] = registers.values[0].value;
    for (int i = 0; i < 3; ++i) sample[1 + i] = registers.values[0].gradient[i];
}

// Extends a field's sample (4,) in the unit ball to a point (3,) outside.
__global__ void extend(const float* point, float* sample) {
    const InBall<float> place = into_ball(Point<float>{{point[0], point[1], point[2]}});
    const Sample<float> beyond = extended(Sample<float>{sample[0], {{sample[1], sample[2], sample[3]}}}, place);
    sample[0] = beyond.value;
    for (int i = 0; i < 3; ++i) sample[1 + i] = beyond.gradient[i];
}
