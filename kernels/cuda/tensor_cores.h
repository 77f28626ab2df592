// tensor_cores.h
// Evaluates networks on tensor cores. Weights and activations are sums of two bfloat16 (two_bfloat16.h). A product is
// computed as three products: (a + a') (w + w') without a' w'. This keeps 16 bits and never overflows, at a third of
// the rate of the tensor cores.
//
// A warp evaluates 16 or 32 points through all layers in its registers. The accumulators of a lane after one layer are
// exactly the inputs that it needs for the next one, with a permuted order of features: of every 16 features, lane l of
// a group of four has features 4 l to 4 l + 3, as columns 2 l, 2 l + 1 of the first 8 and of the second 8.
//
// Packed weights have the format and size of network.h, except for the kernels of hidden layers: for every 16 outputs
// and every 16 inputs, the rounded values of each lane (4 words), then the remainders. neuralsdf/backends/cuda packs
// them.
#pragma once

#include "two_bfloat16.h"
#include "evaluate.h"

namespace neuralsdf {
namespace gpu {

// 16 points by 16 features. A lane has 4 features f of points g and g + 8, g = lane / 4, at [f / 2][2 row + f % 2].
struct Square {
    float of[2][4];
};

NEURALSDF_DEVICE float& feature(Square& square, int row, int f) { return square.of[f / 2][2 * row + f % 2]; }

// The data of a lane for the points that its warp evaluates.
template <int W>
struct Lane {
    static constexpr int tiles = W > 64 ? 1 : 2, blocks = W / 16;  // tiles of 16 points, blocks of 16 features
    static constexpr int points = 16 * tiles, rows = 2 * tiles;    // points of the warp; rows of the lane, g + 8 row

    Square sums[tiles][blocks];   // accumulators of a layer, then its activations
    Split inputs[tiles][blocks];  // of a layer
    float y[rows];

    static constexpr int size = 8 * tiles * blocks;
    NEURALSDF_DEVICE float& sum(int i) { return sums[i / 8 / blocks][i / 8 % blocks].of[i / 4 % 2][i % 4]; }
};

template <int W, class Point>
NEURALSDF_DEVICE void first_layer(const float* weights, int thread, Point point, Lane<W>& lane) {
    float x[Lane<W>::rows][3];
    NEURALSDF_UNROLL for (int row = 0; row < Lane<W>::rows; ++row)
        point(thread, thread % warp_threads / 4 + 8 * row, x[row]);
    NEURALSDF_UNROLL for (int block = 0; block < Lane<W>::blocks; ++block) {
        const float* const own = weights + 16 * block + thread % 4 * 4;
        float kernel[3][4], bias[4];
        NEURALSDF_UNROLL for (int i = 0; i < 3; ++i) load(own + i * W, kernel[i]);
        load(own + 3 * W, bias);
        NEURALSDF_UNROLL for (int row = 0; row < Lane<W>::rows; ++row)
            NEURALSDF_UNROLL for (int f = 0; f < 4; ++f) {
                float sum = bias[f];
                NEURALSDF_UNROLL for (int i = 0; i < 3; ++i) sum = multiply_add(x[row][i], kernel[i][f], sum);
                feature(lane.sums[row / 2][block], row % 2, f) = sum;
            }
    }
}

// Converts activations to the inputs of the next layer, and initialises the accumulators with its biases (W,).
template <int W>
NEURALSDF_DEVICE void begin_layer(const float* biases, int thread, Lane<W>& lane) {
    NEURALSDF_UNROLL for (int block = 0; block < Lane<W>::blocks; ++block) {
        float bias[4];
        load(biases + 16 * block + thread % 4 * 4, bias);
        NEURALSDF_UNROLL for (int tile = 0; tile < Lane<W>::tiles; ++tile) {
            Square& square = lane.sums[tile][block];
            Split& input = lane.inputs[tile][block];
            NEURALSDF_UNROLL for (int i = 0; i < 4; ++i) {
                const int row = i % 2, f = i / 2 * 2;
                split(feature(square, row, f), feature(square, row, f + 1), input.leading[i], input.rest[i]);
            }
            NEURALSDF_UNROLL for (int row = 0; row < 2; ++row)
                NEURALSDF_UNROLL for (int f = 0; f < 4; ++f) feature(square, row, f) = bias[f];
        }
    }
}

// Applies the activation function. ReLU is applied in registers; other functions in a loop over the warp's scratch
// memory, `Lane<W>::size` floats per lane, which keeps the code short.
template <int W>
NEURALSDF_DEVICE void activate(int activation, float* scratch, int thread, Lane<W>& lane) {
    constexpr int size = Lane<W>::size;
    if (activation == relu) {
        NEURALSDF_UNROLL for (int i = 0; i < size; ++i) lane.sum(i) = rectified(lane.sum(i));
        return;
    }
    scratch += thread % warp_threads;
    NEURALSDF_UNROLL for (int i = 0; i < size; ++i) scratch[i * warp_threads] = lane.sum(i);
    NEURALSDF_ROLLED for (int i = 0; i < size; ++i) {
        float& z = scratch[i * warp_threads];
        z = activated(activation, z).value;
    }
    NEURALSDF_UNROLL for (int i = 0; i < size; ++i) lane.sum(i) = scratch[i * warp_threads];
}

// Adds the product of the inputs and the kernel of a layer.
template <int W>
NEURALSDF_DEVICE void multiply(const Block& block, const float* kernel, PerThread<Lane<W>>& lanes) {
    PerThread<Split> weights;
    NEURALSDF_UNROLL for (int to = 0; to < Lane<W>::blocks; ++to)
        NEURALSDF_UNROLL for (int from = 0; from < Lane<W>::blocks; ++from) {
            block.each_alone([&](int thread) {
                const float* const at = kernel + 256 * (to * Lane<W>::blocks + from) + 4 * (thread % warp_threads);
                load(at, weights[thread].leading);
                load(at + 4 * warp_threads, weights[thread].rest);
            });
            const auto product = [&](unsigned(Split::*a)[4], unsigned(Split::*w)[4]) {
                NEURALSDF_UNROLL for (int tile = 0; tile < Lane<W>::tiles; ++tile)
                    NEURALSDF_UNROLL for (int column = 0; column < 2; ++column)
                        multiply_tiles(
                            block, [&](int thread) -> auto& { return lanes[thread].inputs[tile][from].*a; },
                            [&](int thread) { return weights[thread].*w + 2 * column; },
                            [&](int thread) -> auto& { return lanes[thread].sums[tile][to].of[column]; });
            };
            product(&Split::rest, &Split::leading);
            product(&Split::leading, &Split::rest);
            product(&Split::leading, &Split::leading);
        }
}

// Computes the partial sums of a lane for the output layer.
template <int W>
NEURALSDF_DEVICE void output_part(const float* weights, int thread, Lane<W>& lane) {
    NEURALSDF_UNROLL for (int row = 0; row < Lane<W>::rows; ++row) lane.y[row] = 0.0f;
    NEURALSDF_UNROLL for (int block = 0; block < Lane<W>::blocks; ++block) {
        float weight[4];
        load(weights + 16 * block + thread % 4 * 4, weight);
        NEURALSDF_UNROLL for (int row = 0; row < Lane<W>::rows; ++row)
            NEURALSDF_UNROLL for (int f = 0; f < 4; ++f)
                lane.y[row] = multiply_add(feature(lane.sums[row / 2][block], row % 2, f), weight[f], lane.y[row]);
    }
}

// Evaluates `Lane<W>::points` points per warp. `point(thread, row, x)` writes the coordinates of a point; four lanes
// request each. `finish(thread, row, y)` receives its value, in one lane. `scratch(thread)` is the scratch memory of
// the warp, one float per point and feature; unused for ReLU. All threads of the block must call this unless the
// weights are resident, otherwise all threads of a warp.
template <int W, class Scratch, class Point, class Finish>
NEURALSDF_DEVICE void evaluate_in_registers(const Block& block, const Network& network, Scratch scratch, Point point,
                                            Finish finish) {
    PerThread<Lane<W>> lanes;
    const float* weights = layer_weights<W>(block, network, 0);
    block.each_alone([&](int thread) {
        first_layer<W>(weights, thread, point, lanes[thread]);
        activate<W>(network.activation, scratch(thread), thread, lanes[thread]);
    });
    NEURALSDF_ROLLED for (int layer = 1; layer < network.depth; ++layer) {
        weights = layer_weights<W>(block, network, layer);
        block.each_alone([&](int thread) { begin_layer<W>(weights + W * W, thread, lanes[thread]); });
        multiply<W>(block, weights, lanes);
        block.each_alone(
            [&](int thread) { activate<W>(network.activation, scratch(thread), thread, lanes[thread]); });
    }
    weights = layer_weights<W>(block, network, network.depth);
    block.each_alone([&](int thread) { output_part<W>(weights, thread, lanes[thread]); });
    NEURALSDF_UNROLL for (int row = 0; row < Lane<W>::rows; ++row)
        sum_of_fours(block, [&](int thread) -> auto& { return lanes[thread].y[row]; });
    block.each_alone([&](int thread) {  // one of the four lanes that have the value of a row passes it on
        const int own = thread % 4;
        if (own >= Lane<W>::rows) return;
        float y = weights[W];
        NEURALSDF_UNROLL for (int row = 0; row < Lane<W>::rows; ++row) y += row == own ? lanes[thread].y[row] : 0.0f;
        if (network.output == tanh_output) y = hyperbolic_tangent(y);
        finish(thread, thread % warp_threads / 4 + 8 * own, y);
    });
}

// Shared memory: the weights, then the scratch memory of each warp.
template <int W>
NEURALSDF_DEVICE void evaluate_tensor(const Block& block, const Evaluation& a) {
    constexpr int points = Lane<W>::points;
    float* const scratch = block.shared + weights_size<W>(a.field);
    load_resident<W>(block, a.field);
    const long long step = block.threads() / warp_threads * points;  // points per block
    for (long long first = block.index() * step; first < a.count; first += block.count() * step) {
        const auto place = [&](int thread, int row) { return first + thread / warp_threads * points + row; };
        evaluate_in_registers<W>(
            block, a.field, [&](int thread) { return scratch + thread / warp_threads * (W * points); },
            [&](int thread, int row, float(&x)[3]) {
                const long long at = place(thread, row);
                NEURALSDF_UNROLL for (int i = 0; i < 3; ++i) x[i] = at < a.count ? a.points[3 * at + i] : 0.0f;
            },
            [&](int thread, int row, float y) {
                const long long at = place(thread, row);
                if (at < a.count) a.values[at] = y;
            });
    }
}

}  // namespace gpu
}  // namespace neuralsdf
