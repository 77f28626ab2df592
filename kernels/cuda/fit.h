// fit.h
// Fits networks, one block per shape. A launch performs some steps for every shape, each with its own weights, samples
// and optimizer state, which stay in global memory between launches. The samples of a step are computed from the seed
// (random_order.h).
#pragma once

#include "loss.h"
#include "optimizers.h"
#include "random_order.h"

namespace neuralsdf {
namespace gpu {

struct Step {
    float rate, mean_correction, square_correction;  // as in Update
};

struct Fit {
    Network network;         // its weights are set per shape
    int width;               // width of all hidden layers, padded: 16, 32 or 64
    Optimiser optimiser;
    const float* points;     // (shapes, samples, 3)
    const float* distances;  // (shapes, samples)
    const Step* schedule;    // (steps,)
    float* weights;          // (shapes, size of the packed weights)
    float* state;            // (shapes, state_size)
    float* losses;           // (shapes, steps): mean |f - d| of every step
    float* batches;          // (blocks, batch, 4): the points of a step, then their distances
    float* kept;             // as in Loss
    float* gradients;        // as in Loss
    float* sums;             // (warps of all blocks,): `losses` of Loss
    float* scratch;          // scratch memory of SoapLayer
    int shapes, samples;
    int batch;               // samples per step, at most `samples`
    int before, steps;       // steps of previous launches, and of this one
    int state_size;          // floats
    unsigned seed;
};

// Selects the samples of a step: the next ones in the order of the epoch. Samples left over at the end of an epoch are
// skipped.
NEURALSDF_DEVICE void choose_batch(const Block& block, const Fit& a, int shape, int step, float* batch) {
    const int steps_an_epoch = a.samples / a.batch, epoch = step / steps_an_epoch;
    const int first = (step - epoch * steps_an_epoch) * a.batch;
    const float* const points = a.points + 3ll * shape * a.samples;
    const float* const distances = a.distances + static_cast<long long>(shape) * a.samples;
    block.each([&](int thread) {
        const Order order(a.samples, a.seed, epoch);
        for (int i = thread; i < a.batch; i += block.threads()) {
            const long long at = order(first + i);
            NEURALSDF_UNROLL for (int c = 0; c < 3; ++c) batch[3 * i + c] = points[3 * at + c];
            batch[3 * a.batch + i] = distances[at];
        }
    });
}

// The data that the optimizer updates. Its scratch memory is in the tiles of the warps, if they are large enough.
template <int W>
NEURALSDF_DEVICE Shape shape_of(const Block& block, const Fit& a, int index) {
    const int warps = block.threads() / warp_threads, first_warp = block.index() * warps;
    const int size = layer_begin<W>(a.network.depth) + Tile<W>::output_size, scratch_size = soap_scratch_size(W);
    const bool in_tiles = scratch_size <= Training<W>::size;
    Shape shape;
    shape.gradient = {a.gradients + static_cast<long long>(first_warp) * size, warps, size, static_cast<float>(a.batch)};
    shape.weights = a.weights + static_cast<long long>(index) * size;
    shape.state = a.state + static_cast<long long>(index) * a.state_size;
    shape.width = W, shape.depth = a.network.depth;
    shape.scratch = in_tiles ? block.shared + weights_size<W>(a.network)
                             : a.scratch + static_cast<long long>(first_warp) * scratch_size;
    shape.scratch_stride = in_tiles ? Training<W>::size : scratch_size;
    return shape;
}

// Computes the gradients of a step per warp. Shared memory: the weights, then a `Training` per warp.
template <int W>
NEURALSDF_CALLED void sum_batch(Block block, Loss loss) {
    load_resident<W>(block, loss.network);
    sum_tiles<W>(block, loss, 0, block.threads() / warp_threads * Tile<W>::columns);
}

// Calls the function for the width at run time. There is one kernel for all widths, so that the optimizer is compiled
// only once.
#define NEURALSDF_OF_WIDTH(width, function, ...)   \
    switch (width) {                               \
        case 16: function<16>(__VA_ARGS__); break; \
        case 32: function<32>(__VA_ARGS__); break; \
        case 64: function<64>(__VA_ARGS__); break; \
    }

NEURALSDF_DEVICE void fit_shape(const Block& block, const Fit& a, int index) {
    Shape shape;
    NEURALSDF_OF_WIDTH(a.width, shape = shape_of, block, a, index)
    const int warps = shape.gradient.warps;
    float* const batch = a.batches + 4ll * block.index() * a.batch;
    Loss loss = {a.network, batch, batch + 3 * a.batch, a.kept, a.gradients, a.sums, a.batch};
    loss.network.weights = shape.weights;
    NEURALSDF_ROLLED for (int i = 0; i < a.steps; ++i) {
        const int step = a.before + i;
        choose_batch(block, a, index, step, batch);
        NEURALSDF_OF_WIDTH(a.width, sum_batch, block, loss)
        block.each([](int) {});  // wait until all warps have written their sums
        const Step& s = a.schedule[i];
        const Update update = {s.rate, s.mean_correction, s.square_correction, step == 0,
                               (step + 1) % a.optimiser.refresh == 0};
        if (a.optimiser.method == adam)
            adam_step(block, a.optimiser, update, shape);
        else
            soap_step(block, a.optimiser, update, shape);
        block.each([&](int thread) {
            if (thread) return;
            float sum = 0.0f;
            for (int warp = 0; warp < warps; ++warp) sum += a.sums[block.index() * warps + warp];
            a.losses[static_cast<long long>(index) * a.steps + i] = sum / static_cast<float>(a.batch);
        });
    }
}

NEURALSDF_DEVICE void fit(const Block& block, const Fit& a) {
    NEURALSDF_ROLLED for (int shape = block.index(); shape < a.shapes; shape += block.count())
        fit_shape(block, a, shape);
}

}  // namespace gpu
}  // namespace neuralsdf
