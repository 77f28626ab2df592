// tape.h
// Evaluates a tape (neuralsdf/program/tape_format.py). Every thread has one point and its own registers. All threads of
// a block execute the same instruction, so that they evaluate a network together, as in evaluate.h. The operations are
// in tape_operations.h.
//
// All networks are padded to the width of the widest one and are loaded into shared memory one layer at a time, so a
// tape may have any number of networks.
#pragma once

#include "../shared/tape_operations.h"
#include "trace.h"

namespace neuralsdf {
namespace gpu {

struct Tape {
    const Instruction* code;
    const float* parameters;
    const Network* networks;  // none of them is resident
    int size;                 // instructions
};

// Maximum number of registers per thread, as POINTS and VALUES in backends/cuda/tape.py.
constexpr int most_points = 8, most_values = 24;

namespace {  // as in tape_operations.h

// In local memory, because register indices are not known at compile time.
template <bool Slopes>
struct Registers {
    Point<float> points[most_points];
    float values[most_values][Slopes ? 4 : 1];

    HOST_DEVICE const Point<float>& point(int i) const { return points[i]; }
    HOST_DEVICE void set_point(int i, const Point<float>& p) { points[i] = p; }
    HOST_DEVICE Sample<float> value(int i) const {
        Sample<float> sample = {values[i][0], {}};
        if constexpr (Slopes)
            NEURALSDF_UNROLL for (int k = 0; k < 3; ++k) sample.gradient[k] = values[i][1 + k];
        return sample;
    }
    HOST_DEVICE void set_value(int i, const Sample<float>& sample) {
        values[i][0] = sample.value;
        if constexpr (Slopes)
            NEURALSDF_UNROLL for (int k = 0; k < 3; ++k) values[i][1 + k] = sample.gradient[k];
    }
};

// Not inlined, because the code of all operations is long.
template <bool Slopes>
NEURALSDF_APART void carry_out_alone(const Instruction& i, const float* parameters, Registers<Slopes>& registers) {
    carry_out(i, parameters, registers);
}

// Evaluates the network, whose number follows a frame, at point register `from` of every thread, for as many threads at
// a time as a warp's tile has columns. `finish(thread, sample)` receives the results. The evaluation points are
// recomputed rather than stored, because the evaluation needs all registers.
template <int W, bool Slopes, class Finish>
NEURALSDF_DEVICE void ask(const Block& block, const Tape& tape, const float* frame, int from, float* tiles,
                          PerThread<Registers<Slopes>>& registers, Finish finish) {
    constexpr int stride = Tile<W>::columns, columns = Slopes ? 4 : 1;  // columns per point
    constexpr int at_once = stride / columns < warp_threads ? stride / columns : warp_threads;
    const Network& network = tape.networks[static_cast<int>(frame[frame_size])];
    const auto place = [&](int thread) { return into_ball(moved(registers[thread].point(from), frame)); };
    const auto own = [&](int thread) { return tile_of<W>(tiles, thread) + thread % at_once * columns; };
    NEURALSDF_ROLLED for (int first = 0; first < warp_threads; first += at_once) {
        const auto has_turn = [&](int thread) { return thread % warp_threads / at_once * at_once == first; };
        block.each_in_warps([&](int thread) {
            if (!has_turn(thread)) return;
            const Point<float> at = place(thread).nearest;
            NEURALSDF_UNROLL for (int i = 0; i < 3; ++i) {
                float* const x = own(thread) + i * stride;
                x[0] = at[i];
                NEURALSDF_UNROLL for (int c = 1; c < columns; ++c) x[c] = c == i + 1 ? 1.0f : 0.0f;
            }
        });
        evaluate_tiles<W, Slopes ? points_with_tangents : points_alone>(
            block, network, tiles, [](int) { return at_once * columns; },
            [&](int thread, int quad, const float (&y)[4]) {
                store(tile_of<W>(tiles, thread) + 4 * quad, y);  // overwrites only this quad
            });
        block.each_in_warps([&](int thread) {
            if (!has_turn(thread)) return;
            const float* const y = own(thread);
            Sample<float> sample = {y[0], {}};
            NEURALSDF_UNROLL for (int c = 1; c < columns; ++c) sample.gradient[c - 1] = y[c];
            finish(thread, returned(extended(sample, place(thread)), frame));
        });
    }
}

// A lower bound, with a margin for rounding, of the distance of a point to the ball of a network in a frame; -infinity
// inside.
NEURALSDF_DEVICE float beyond_ball(const Point<float>& p, const float* frame) {
    constexpr float rounding = 2e-6f;  // as in backends/reference/tape_interpreter.py
    const float shift = fabsf(frame[9]) + fabsf(frame[10]) + fabsf(frame[11]);
    const float outside = (length(moved(p, frame)) * (1.0f - rounding) - 1.0f - rounding * shift) * frame[12];
    return outside > 0.0f ? outside : -INFINITY;
}

// The minimum of `count` networks, each with a frame and a number. Outside of its ball, the value of a network is at
// least the distance to the ball. If that exceeds the current minimum of every thread in use, the network is not
// evaluated.
template <int W, bool Slopes, class InUse>
NEURALSDF_DEVICE void ask_nearest(const Block& block, const Tape& tape, const Instruction& i, int count, InUse in_use,
                                  float* tiles, PerThread<Registers<Slopes>>& registers) {
    block.each_alone([&](int thread) { registers[thread].set_value(i.out, {INFINITY, {}}); });
    const float* frame = tape.parameters + i.parameters;
    NEURALSDF_ROLLED for (int k = 0; k < count; ++k, frame += frame_size + 1) {
        PerThread<bool> near;
        block.each_alone([&](int thread) {
            const Registers<Slopes>& own = registers[thread];
            near[thread] = in_use(thread) && !(beyond_ball(own.point(i.a), frame) > own.value(i.out).value);
        });
        if (!block.any(near, true)) continue;
        ask<W>(block, tape, frame, i.a, tiles, registers, [&](int thread, const Sample<float>& sample) {
            if (!near[thread]) return;  // other threads requested the evaluation
            const bool nearer = sample.value < registers[thread].value(i.out).value;
            // NaN is kept, because no value is less than NaN.
            if (nearer || sample.value != sample.value) registers[thread].set_value(i.out, sample);
        });
    }
}

// Executes all instructions for the threads in use, from points in register 0 to values in register 0.
template <int W, bool Slopes, class InUse>
NEURALSDF_DEVICE void run(const Block& block, const Tape& tape, InUse in_use, float* tiles,
                          PerThread<Registers<Slopes>>& registers) {
    NEURALSDF_ROLLED for (int at = 0; at < tape.size; ++at) {
        const Instruction i = tape.code[at];
        if (asks(i.op))  // a field is `nearest` with one network
            ask_nearest<W>(block, tape, i, i.op == Op::nearest ? i.b : 1, in_use, tiles, registers);
        else
            block.each_alone([&](int thread) { carry_out_alone(i, tape.parameters, registers[thread]); });
    }
}

// Shared memory: the weights of a layer, then one tile per warp.
template <int W, bool Slopes>
NEURALSDF_DEVICE void evaluate_points(const Block& block, const EvaluationOf<Tape>& a) {
    float* const tiles = block.shared + Tile<W>::layer_size;
    PerThread<Registers<Slopes>> registers;
    const long long step = block.threads();
    for (long long first = block.index() * step; first < a.count; first += block.count() * step) {
        const auto in_use = [&](int thread) { return first + thread < a.count; };
        block.each_alone([&](int thread) {
            NEURALSDF_UNROLL for (int i = 0; i < 3; ++i)
                registers[thread].points[0][i] = in_use(thread) ? a.points[3 * (first + thread) + i] : 0.0f;
        });
        run<W>(block, a.field, in_use, tiles, registers);
        block.each_alone([&](int thread) {
            if (!in_use(thread)) return;
            const long long at = first + thread;
            const Sample<float> sample = registers[thread].value(0);
            a.values[at] = sample.value;
            if (Slopes)
                NEURALSDF_UNROLL for (int i = 0; i < 3; ++i) a.gradients[3 * at + i] = sample.gradient[i];
        });
    }
}

template <int W>
NEURALSDF_DEVICE void evaluate_tape(const Block& block, const EvaluationOf<Tape>& a) {
    evaluate_points<W, false>(block, a);
}

template <int W>
NEURALSDF_DEVICE void evaluate_with_gradient_tape(const Block& block, const EvaluationOf<Tape>& a) {
    evaluate_points<W, true>(block, a);
}

// Values for march_rays: one ray per lane.
template <int W>
struct ByTape {
    static constexpr int columns = warp_threads, values = 0;

    static NEURALSDF_DEVICE int weights_size(const Tape&) { return Tile<W>::layer_size; }
    static NEURALSDF_DEVICE int tile_size(const Tape&) { return W * Tile<W>::columns; }
    static NEURALSDF_DEVICE bool in_step(const Tape&) { return true; }
    static NEURALSDF_DEVICE void load(const Block&, const Tape&) {}

    template <class InUse>
    static NEURALSDF_DEVICE void evaluate(const Block& block, const Tape& tape, float* tiles, InUse columns_in_use) {
        PerThread<Registers<false>> registers;
        const auto own = [&](int thread) { return tile_of<W>(tiles, thread) + thread % warp_threads; };
        const auto in_use = [&](int thread) { return thread % warp_threads < columns_in_use(thread); };
        block.each_in_warps([&](int thread) {
            NEURALSDF_UNROLL for (int i = 0; i < 3; ++i)
                registers[thread].points[0][i] = own(thread)[i * columns];
        });
        run<W>(block, tape, in_use, tiles, registers);
        block.each_in_warps([&](int thread) { own(thread)[values * columns] = registers[thread].value(0).value; });
    }
};

template <int W>
NEURALSDF_DEVICE void trace_tape(const Block& block, const TracingOf<Tape>& a) {
    march_rays<ByTape<W>>(block, a);
}

template <int W>
NEURALSDF_DEVICE void soft_shadow_tape(const Block& block, const ShadowOf<Tape>& a) {
    march_rays<ByTape<W>>(block, a);
}

}  // namespace
}  // namespace gpu
}  // namespace neuralsdf
