// cuda_host.cpp
// The CUDA kernels on the host: runs a launch block by block, from the headers that nvcc compiles. cuda_host.py
// builds it and loads it with ctypes.
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "bvh.h"
#include "evaluate.h"
#include "fit.h"
#include "loss.h"
#include "peak_rate.h"
#include "sparse_grid.h"
#include "tape.h"
#include "tensor_cores.h"
#include "trace.h"

using namespace neuralsdf::gpu;

namespace {

template <class Arguments>
using Kernel = void (*)(const Block&, const Arguments&);

constexpr std::size_t guard = 64;  // floats behind the shared memory that a kernel must not touch

template <class Arguments>
bool run(Kernel<Arguments> kernel, int blocks, int threads, std::size_t shared_bytes, const void* arguments,
         bool falling) {
    Arguments a;
    std::memcpy(&a, arguments, sizeof a);
    const std::size_t size = shared_bytes / sizeof(float);
    std::vector<Four> memory((size + guard) / 4 + 1);
    float* shared = &memory[0].x;
    for (int block = 0; block < blocks; ++block) {
        for (std::size_t i = 0; i < size + guard; ++i) shared[i] = std::numeric_limits<float>::quiet_NaN();
        kernel(Block(shared, block, blocks, threads, falling), a);
        for (std::size_t i = size; i < size + guard; ++i)
            if (shared[i] == shared[i]) return false;
    }
    return true;
}

struct Launch {
    std::string name;
    int blocks, threads;
    std::size_t shared_bytes;
    const void* arguments;
    std::size_t arguments_bytes;
    bool falling;

    // 0: not this one; 1: ran; 2: wrote behind its shared memory; 3: the arguments are of another size.
    template <class Arguments>
    int as(const std::string& entry, Kernel<Arguments> kernel) const {
        if (name != entry) return 0;
        if (arguments_bytes != sizeof(Arguments)) return 3;
        return run(kernel, blocks, threads, shared_bytes, arguments, falling) ? 1 : 2;
    }

    template <int W>
    int of_width() const {
        const std::string width = "_" + std::to_string(W);
        int result = as<Evaluation>("evaluate" + width, evaluate<W>);
        if (!result) result = as<EvaluationOfMany>("evaluate_many" + width, evaluate_many<W>);
        if (!result) result = as<Evaluation>("evaluate_with_gradient" + width, evaluate_with_gradient<W>);
        if (!result) result = as<Evaluation>("evaluate_tensor" + width, evaluate_tensor<W>);
        if (!result) result = as<Tracing>("trace" + width, trace<W>);
        if (!result) result = as<Tracing>("trace_tensor" + width, trace_tensor<W>);
        if (!result) result = as<Shadow>("soft_shadow" + width, soft_shadow<W>);
        if (!result) result = as<Shadow>("soft_shadow_tensor" + width, soft_shadow_tensor<W>);
        if (!result) result = as<EvaluationOf<Tape>>("evaluate_tape" + width, evaluate_tape<W>);
        if (!result)
            result = as<EvaluationOf<Tape>>("evaluate_with_gradient_tape" + width, evaluate_with_gradient_tape<W>);
        if (!result) result = as<TracingOf<Tape>>("trace_tape" + width, trace_tape<W>);
        if (!result) result = as<ShadowOf<Tape>>("soft_shadow_tape" + width, soft_shadow_tape<W>);
        if (!result) result = as<Loss>("loss_gradient" + width, loss_gradient<W>);
        return result;
    }

    int of_lattice() const {
        int result = as<BallPoints>("ball_points", ball_points);
        if (!result) result = as<BallValues>("solid_values", solid_values);
        if (!result) result = as<BallValues>("mark_holding", mark_holding);
        if (!result) result = as<Scan>("scan_sums", scan_sums);
        if (!result) result = as<Scan>("scan_tiles", scan_tiles);
        if (!result) result = as<Scan>("scan_counts", scan_counts);
        if (!result) result = as<Selection>("select_keys", select_keys);
        if (!result) result = as<Union>("mark_fresh", mark_fresh);
        if (!result) result = as<Union>("unite", unite);
        if (!result) result = as<Crossed>("mark_crossed", mark_crossed);
        if (!result) result = as<Missed>("count_missed", count_missed);
        if (!result) result = as<Missed>("list_missed", list_missed);
        if (!result) result = as<MarchingCubes>("mark_vertices", mark_vertices);
        if (!result) result = as<MarchingCubes>("place_vertices", place_vertices);
        if (!result) result = as<MarchingCubes>("write_faces", write_faces);
        return result;
    }
};

}  // namespace

extern "C" int launch(const char* name, int blocks, int threads, std::size_t shared_bytes, const void* arguments,
                      std::size_t arguments_bytes, int falling) {
    const Launch call{name, blocks, threads, shared_bytes, arguments, arguments_bytes, falling != 0};
    int result = call.of_width<16>();
    if (!result) result = call.of_width<32>();
    if (!result) result = call.of_width<64>();
    if (!result) result = call.of_width<128>();
    if (!result) result = call.as<GradientSum>("sum_gradients", sum_gradients);
    if (!result) result = call.as<Fit>("fit", fit);
    if (!result) result = call.as<Peak>("peak", peak);
    if (!result) result = call.as<ClosestPoint>("closest_point", closest_point);
    if (!result) result = call.as<WindingNumber>("winding_number", winding_number);
    if (!result) result = call.as<FirstHit>("first_hit", first_hit);
    if (!result) result = call.of_lattice();
    return result;
}

// Floats rounded to bfloat16, and their sums with the rounded remainders.
extern "C" void split_and_add(const float* values, int count, float* leading, float* sums) {
    for (int i = 0; i + 1 < count; i += 2) {
        unsigned first, rest;
        split(values[i], values[i + 1], first, rest);
        leading[i] = low_of(first);
        leading[i + 1] = high_of(first);
        sums[i] = leading[i] + low_of(rest);
        sums[i + 1] = leading[i + 1] + high_of(rest);
    }
}

// The samples in the order of an epoch.
extern "C" void sample_order(unsigned count, unsigned seed, unsigned epoch, unsigned* places) {
    const Order order(count, seed, epoch);
    for (unsigned i = 0; i < count; ++i) places[i] = order(i);
}

// Floats of SOAP's state of one network, and of Adam's.
extern "C" int state_size(int width, int depth, int method) {
    if (method == soap)
        return soap_state_size(4, width) + (depth - 1) * soap_state_size(width + 1, width) +
               soap_state_size(width + 1, 1);
    return 2 * ((4 + (depth - 1) * (width + 1)) * width + width + 4);
}

// Only the optimizer: a step against each of `gradients` (steps, size), of packed weights (size,), by 4 warps.
extern "C" void optimise(int width, int depth, const Optimiser* optimiser, const Step* schedule, int steps, int size,
                         const float* gradients, float* weights, float* state, int falling) {
    constexpr int warps = 4;
    std::vector<float> rows(std::size_t(warps) * size);
    std::vector<float> scratch(std::size_t(warps) * soap_scratch_size(width));
    const Block block(nullptr, 0, 1, warps * warp_threads, falling != 0);
    const Shape shape = {{rows.data(), warps, size, 1.0f}, weights, state, width, depth, scratch.data(),
                         soap_scratch_size(width)};
    for (int i = 0; i < steps; ++i) {
        for (int j = 0; j < warps * size; ++j) rows[j] = 0.25f * gradients[std::size_t(i) * size + j % size];
        const Step& s = schedule[i];
        const Update update = {s.rate, s.mean_correction, s.square_correction, i == 0,
                               (i + 1) % optimiser->refresh == 0};
        if (optimiser->method == soap)
            soap_step(block, *optimiser, update, shape);
        else
            adam_step(block, *optimiser, update, shape);
    }
}
