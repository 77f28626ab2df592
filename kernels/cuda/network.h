// network.h
// Evaluates a fully connected network on tiles of points. A warp has a tile of `columns` points (or their tangents) in
// shared memory, [input][column]. A layer is a product of that tile and the layer's weights, also in shared memory,
// [input][output]. Every lane accumulates 8 columns by 8 outputs in registers, with four 16-byte loads for 64
// multiply-adds per input, as in a matrix product. The outputs then overwrite the inputs, so that a tile passes through
// all layers on the same multiprocessor.
//
// Widths are padded with zeros to W. A tile has 8 kB for every W.
#pragma once

#include "activation_functions.h"

namespace neuralsdf {
namespace gpu {

// Packed weights, with the padded width W: kernel [3][W] and bias [W] of the first layer; kernel [W][W] and bias [W] of
// every other hidden layer; kernel [W], bias and three zeros of the output layer.
struct Network {
    const float* weights;
    const int* widths;  // widths of the hidden layers before padding
    int depth;          // hidden layers
    int activation;     // enum Activation
    int output;         // enum Output
    int resident;       // whether all weights are in shared memory, or one layer at a time
};

template <int W>
struct Tile {
    static constexpr int columns = 2048 / W, quads = columns / 4;
    static constexpr int first_size = 4 * W, layer_size = W * (W + 1), output_size = W + 4;
};

// Offset of the weights of a layer in the packed weights.
template <int W>
NEURALSDF_DEVICE int layer_begin(int layer) {
    return layer ? Tile<W>::first_size + (layer - 1) * Tile<W>::layer_size : 0;
}

// Size of the weights in shared memory, in floats.
template <int W>
NEURALSDF_DEVICE int weights_size(const Network& network) {
    return network.resident ? layer_begin<W>(network.depth) + Tile<W>::output_size : Tile<W>::layer_size;
}

NEURALSDF_DEVICE void copy(const Block& block, const float* from, int size, float* to) {
    block.each([&](int thread) {
        for (int i = 4 * thread; i < size; i += 4 * block.threads()) {
            float four[4];
            load(from + i, four);
            store(to + i, four);
        }
    });
}

// Loads all weights if they are resident. Must be called first.
template <int W>
NEURALSDF_DEVICE void load_resident(const Block& block, const Network& network) {
    if (network.resident) copy(block, network.weights, weights_size<W>(network), block.shared);
}

// The weights of a layer (`depth`: the output layer) in shared memory. Unless they are resident, this loads them and
// synchronises the block, so all threads must call it.
template <int W>
NEURALSDF_DEVICE const float* layer_weights(const Block& block, const Network& network, int layer) {
    const int begin = layer_begin<W>(layer);
    if (network.resident) return block.shared + begin;
    const int size = layer == network.depth ? Tile<W>::output_size : layer ? Tile<W>::layer_size : Tile<W>::first_size;
    block.each([](int) {});  // wait until no thread reads the previous layer
    copy(block, network.weights + begin, size, block.shared);
    return block.shared;
}

// The 8 columns by 8 outputs of a thread: two groups of four each, half a tile apart, so that the lanes of a warp read
// from neighbouring banks.
template <int W>
struct Place {
    int warp, column, output;
    NEURALSDF_DEVICE explicit Place(int thread)
        : warp(thread / warp_threads),
          column(thread % warp_threads / (W / 8) * 4),
          output(thread % warp_threads % (W / 8) * 4) {}
    static NEURALSDF_DEVICE int column_of(int i) { return i / 4 * (Tile<W>::columns / 2) + i % 4; }
    static NEURALSDF_DEVICE int output_of(int i) { return i / 4 * (W / 2) + i % 4; }
};

struct Sums {
    float of[8][8];  // [output][column]
};

// How many of its 8 columns a lane computes: all, the first four, or one. This halves the time for a tile whose second
// half is unused, and reduces it further if at most an eighth is used.
template <int W>
NEURALSDF_DEVICE int share_of(int columns_in_use) {
    return columns_in_use > Tile<W>::columns / 2 ? 8 : columns_in_use > Tile<W>::columns / 8 ? 4 : 1;
}

// The first column of a lane.
template <int W, int Share>
NEURALSDF_DEVICE int first_column(const Place<W>& place) {
    return Share == 1 ? place.column / 4 : place.column;
}

// Adds the product of the columns of a tile and the kernel of a layer.
template <int W, int Inputs, int Stride, int Share>
NEURALSDF_DEVICE void multiply(const Place<W>& place, const float* x, const float* kernel, Sums& sums) {
    x += first_column<W, Share>(place);
    kernel += place.output;
    NEURALSDF_UNROLL_BY_4 for (int i = 0; i < Inputs; ++i, x += Stride, kernel += W) {
        float column[2][4], weight[2][4];
        load(kernel, weight[0]);
        load(kernel + W / 2, weight[1]);
        if (Share == 1) column[0][0] = x[0];
        if (Share >= 4) load(x, column[0]);
        if (Share == 8) load(x + Tile<W>::columns / 2, column[1]);
        NEURALSDF_UNROLL for (int o = 0; o < 8; ++o)
            NEURALSDF_UNROLL for (int c = 0; c < Share; ++c)
                sums.of[o][c] = multiply_add(column[c / 4][c % 4], weight[o / 4][o % 4], sums.of[o][c]);
    }
}

// The contents of the columns of a tile: points; or, for each point, the point and its derivatives with respect to x, y
// and z.
enum Columns { points_alone, points_with_tangents };

template <Columns Kind>
NEURALSDF_DEVICE void activate(int activation, float (&quad)[4]) {
    if (Kind == points_with_tangents) {
        const Activated y = activated(activation, quad[0]);
        quad[0] = y.value;
        NEURALSDF_UNROLL for (int c = 1; c < 4; ++c) quad[c] *= y.slope;
    } else {
        NEURALSDF_UNROLL for (int c = 0; c < 4; ++c) quad[c] = activated(activation, quad[c]).value;
    }
}

// Writes the activations of a thread's accumulators to the tile of its warp. ReLU is applied in registers. Other
// functions, and the zeros of the padding, are applied in a loop over the tile, which keeps the code short.
template <int W, Columns Kind, int Stride, int Share>
NEURALSDF_DEVICE void finish_layer(const Network& network, int width, const Place<W>& place, const Sums& sums,
                                   float* tile) {
    constexpr int halves = Share / 4;
    float* to = tile + place.output * Stride + place.column;
    const bool plain = network.activation == relu;
    NEURALSDF_UNROLL for (int o = 0; o < 8; ++o)
        NEURALSDF_UNROLL for (int half = 0; half < halves; ++half) {
            float quad[4];
            NEURALSDF_UNROLL for (int c = 0; c < 4; ++c) quad[c] = sums.of[o][4 * half + c];
            if (plain) activate<Kind>(relu, quad);
            store(to + place.output_of(o) * Stride + place.column_of(4 * half), quad);
        }
    if (plain && width == W) return;
    NEURALSDF_ROLLED for (int i = 0; i < 8 * halves; ++i) {
        const int output = place.output_of(i / halves);
        float* at = to + output * Stride + place.column_of(4 * (i % halves));
        float quad[4];
        load(at, quad);
        if (!plain) activate<Kind>(network.activation, quad);
        if (place.output + output >= width)  // 0 times infinity is NaN
            NEURALSDF_UNROLL for (int c = 0; c < 4; ++c) quad[c] = 0.0f;
        store(at, quad);
    }
}

// As above for one column.
template <int W, int Stride>
NEURALSDF_DEVICE void finish_column(const Network& network, int width, const Place<W>& place, const Sums& sums,
                                    float* tile) {
    float* to = tile + place.output * Stride + first_column<W, 1>(place);
    NEURALSDF_UNROLL for (int o = 0; o < 8; ++o) {
        const float z = sums.of[o][0];
        to[place.output_of(o) * Stride] = network.activation == relu ? rectified(z) : z;
    }
    if (network.activation == relu && width == W) return;
    NEURALSDF_ROLLED for (int o = 0; o < 8; ++o) {
        float& z = to[place.output_of(o) * Stride];
        if (network.activation != relu) z = activated(network.activation, z).value;
        if (place.output + place.output_of(o) >= width) z = 0.0f;
    }
}

// Computes the pre-activations of a hidden layer.
template <int W, Columns Kind, int Inputs, int Stride, int Share = 8>
NEURALSDF_DEVICE void layer_sums(const Place<W>& place, const float* tile, const float* weights, Sums& sums) {
    float bias[2][4];
    load(weights + Inputs * W + place.output, bias[0]);
    load(weights + Inputs * W + place.output + W / 2, bias[1]);
    NEURALSDF_UNROLL for (int o = 0; o < 8; ++o)
        NEURALSDF_UNROLL for (int c = 0; c < Share; ++c)
            sums.of[o][c] = Kind == points_alone || c % 4 == 0 ? bias[o / 4][o % 4] : 0.0f;
    multiply<W, Inputs, Stride, Share>(place, tile, weights, sums);
}

template <int W, Columns Kind, int Stride, int Share>
NEURALSDF_DEVICE void any_layer_sums(int layer, const Place<W>& place, const float* tile, const float* weights,
                                     Sums& sums) {
    if (layer == 0)
        layer_sums<W, Kind, 3, Stride, Share>(place, tile, weights, sums);
    else
        layer_sums<W, Kind, W, Stride, Share>(place, tile, weights, sums);
}

// Evaluates the output layer for four columns.
template <int W, Columns Kind, int Stride>
NEURALSDF_DEVICE void output_layer(int output, const float* x, const float* weights, float (&y)[4]) {
    NEURALSDF_UNROLL for (int c = 0; c < 4; ++c) y[c] = Kind == points_alone || c == 0 ? weights[W] : 0.0f;
    NEURALSDF_UNROLL_BY_4 for (int i = 0; i < W; ++i) {
        float quad[4];
        load(x + i * Stride, quad);
        NEURALSDF_UNROLL for (int c = 0; c < 4; ++c) y[c] = multiply_add(quad[c], weights[i], y[c]);
    }
    if (output == tanh_output) activate<Kind>(hyperbolic, y);
}

// The tile of a thread's warp; `tiles`: the first tile.
template <int W>
NEURALSDF_DEVICE float* tile_of(float* tiles, int thread) {
    return tiles + thread / warp_threads * (W * Tile<W>::columns);
}

// Evaluates all layers for points in the first three rows of the tiles. `in_use(thread)` is the number of columns in
// use, from the first one, of the tile of the thread's warp. `finish(thread, quad, y)` receives the values (4,) of four
// columns. All threads of the block must call this unless the weights are resident, otherwise all threads of a warp.
template <int W, Columns Kind, class InUse, class Finish>
NEURALSDF_DEVICE void evaluate_tiles(const Block& block, const Network& network, float* tiles, InUse in_use,
                                     Finish finish) {
    constexpr int stride = Tile<W>::columns;
    PerThread<Sums> sums;
    NEURALSDF_ROLLED for (int layer = 0; layer < network.depth; ++layer) {
        const float* weights = layer_weights<W>(block, network, layer);
        block.each_in_warps([&](int thread) {
            const Place<W> place(thread);
            const float* tile = tile_of<W>(tiles, thread);
            switch (share_of<W>(in_use(thread))) {
                case 8: return any_layer_sums<W, Kind, stride, 8>(layer, place, tile, weights, sums[thread]);
                case 4: return any_layer_sums<W, Kind, stride, 4>(layer, place, tile, weights, sums[thread]);
                default: any_layer_sums<W, Kind, stride, 1>(layer, place, tile, weights, sums[thread]);
            }
        });
        block.each_in_warps([&](int thread) {
            const Place<W> place(thread);
            float* tile = tile_of<W>(tiles, thread);
            const int width = network.widths[layer];
            switch (share_of<W>(in_use(thread))) {
                case 8: return finish_layer<W, Kind, stride, 8>(network, width, place, sums[thread], tile);
                case 4: return finish_layer<W, Kind, stride, 4>(network, width, place, sums[thread], tile);
                default: finish_column<W, stride>(network, width, place, sums[thread], tile);
            }
        });
    }
    const float* weights = layer_weights<W>(block, network, network.depth);
    block.each_in_warps([&](int thread) {
        const int quad = thread % warp_threads;
        if (quad >= Tile<W>::quads || 4 * quad >= in_use(thread)) return;
        float y[4];
        output_layer<W, Kind, stride>(network.output, tile_of<W>(tiles, thread) + 4 * quad, weights, y);
        finish(thread, quad, y);
    });
}

}  // namespace gpu
}  // namespace neuralsdf
