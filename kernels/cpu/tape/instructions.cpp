// Executes the instructions of a tape for one vector of points at a time. Compiled once per instruction set;
// NEURALSDF_KERNEL is its name.
#include "cpu/tape/instructions.h"

#include <cstring>

#include "cpu/simd.h"
// Included after the vector functions, so that the templates find them.
#include "shared/tape_operations.h"

namespace neuralsdf {
namespace {

// Vector without the attributes that templates ignore.
typedef float Lanes __attribute__((vector_size(sizeof(Vector))));

// The registers of one vector of points of a block.
template <bool Slopes>
struct Registers {
    static constexpr int rows = Slopes ? 4 : 1;  // rows per value
    const TapeBlock& block;
    int at;

    INLINE float* point_row(int i, int row) const { return block.points + std::size_t(3 * i + row) * block.width + at; }
    INLINE float* value_row(int i, int row) const {
        return block.values + (std::size_t(i) * rows + row) * block.width + at;
    }

    INLINE Point<Lanes> point(int i) const {
        return {load(point_row(i, 0)), load(point_row(i, 1)), load(point_row(i, 2))};
    }
    INLINE void set_point(int i, const Point<Lanes>& p) const {
        for (int row = 0; row < 3; ++row) store(point_row(i, row), p[row]);
    }
    INLINE Sample<Lanes> value(int i) const {
        Sample<Lanes> sample = {load(value_row(i, 0)), {}};
        if (Slopes)
            for (int row = 0; row < 3; ++row) sample.gradient[row] = load(value_row(i, row + 1));
        return sample;
    }
    INLINE void set_value(int i, const Sample<Lanes>& sample) const {
        store(value_row(i, 0), sample.value);
        if (Slopes)
            for (int row = 0; row < 3; ++row) store(value_row(i, row + 1), sample.gradient[row]);
    }
};

// Calls `visit(registers)` for each vector of a block.
template <bool Slopes, class Visit>
INLINE void for_vectors(const TapeBlock& block, const Visit& visit) {
    Registers<Slopes> registers{block, 0};
    for (; registers.at < block.width; registers.at += lanes) visit(registers);
}

template <bool Slopes>
const Instruction* carry_out_all(const TapeBlock& block, const float* parameters, const Instruction* first,
                                 const Instruction* last) {
    for (; first < last && !asks(first->op); ++first)
        for_vectors<Slopes>(
            block, [&](auto& registers) __attribute__((always_inline)) { carry_out(*first, parameters, registers); });
    return first;
}

const Instruction* run(const TapeBlock& block, const float* parameters, const Instruction* first,
                       const Instruction* last) {
    return (block.slopes ? carry_out_all<true> : carry_out_all<false>)(block, parameters, first, last);
}

void load_points(const TapeBlock& block, const float* points) {
    for (int i = 0; i < block.width; ++i) {
        const float* p = points + 3 * (i < block.count ? i : block.count - 1);
        for (int row = 0; row < 3; ++row) block.points[row * block.width + i] = p[row];
    }
}

void enter_field(const TapeBlock& block, const float* parameters, const Instruction& i, bool in_ball, float* points) {
    for_vectors<false>(block, [&](auto& registers) {
        Point<Lanes> q = moved(registers.point(i.a), parameters + i.parameters);
        if (in_ball) q = into_ball(q).nearest;
        const int left = block.count - registers.at;
        for (int lane = 0; lane < (left < lanes ? left : lanes); ++lane)
            for (int row = 0; row < 3; ++row) points[3 * (registers.at + lane) + row] = q[row][lane];
    });
}

template <bool Slopes>
void leave(const TapeBlock& block, const float* parameters, const Instruction& asking, bool in_ball,
           const float* values, const float* gradients) {
    const float* frame = parameters + asking.parameters;
    for_vectors<Slopes>(block, [&](auto& registers) {
        Sample<Lanes> sample = {load(values + registers.at), {}};
        if (Slopes)
            for (int i = 0; i < 3 * lanes; ++i) sample.gradient[i % 3][i / 3] = gradients[3 * registers.at + i];
        if (in_ball) sample = extended(sample, into_ball(moved(registers.point(asking.a), frame)));
        registers.set_value(asking.out, returned(sample, frame));
    });
}

void leave_field(const TapeBlock& block, const float* parameters, const Instruction& i, bool in_ball,
                 const float* values, const float* gradients) {
    (block.slopes ? leave<true> : leave<false>)(block, parameters, i, in_ball, values, gradients);
}

void store_values(const TapeBlock& block, float* values, float* gradients) {
    std::memcpy(values, block.values, sizeof(float) * block.count);
    if (block.slopes)
        for (int i = 0; i < block.count; ++i)
            for (int row = 0; row < 3; ++row) gradients[3 * i + row] = block.values[(row + 1) * block.width + i];
}

}  // namespace

#define TABLE(isa) const TapeKernel tape_##isa = {load_points, run, enter_field, leave_field, store_values};
#define EXPAND(isa) TABLE(isa)
EXPAND(NEURALSDF_KERNEL)

}  // namespace neuralsdf
