// loss.h
// The loss of the paper's equation 7, mean |f - d|, and its gradient with respect to the weights. Every warp processes
// tiles of points in a fixed order: the forward pass, which stores pre-activations in global memory (they stay in the
// L2 cache), then the backward pass. Each warp sums its gradients in its own vector. A second kernel adds these in
// order, so the result is deterministic.
#pragma once

#include "network.h"

namespace neuralsdf {
namespace gpu {

struct Loss {
    Network network;
    const float* points;   // (count, 3)
    const float* targets;  // (count,)
    float* kept;           // (warps of all blocks, depth, 2048): pre-activations
    float* gradients;      // (warps of all blocks, size of the packed weights): sums, to be divided by count
    float* losses;         // (warps of all blocks,): sums of |f - d|
    long long count;
};

struct GradientSum {
    const float* gradients;  // (rows, size)
    float* sum;              // (size,)
    int rows, size;
};

// The shared memory of a warp: activations, and the derivatives of the loss with respect to a layer's pre-activations,
// both [neuron][column], with padded rows to avoid bank conflicts between lanes that read neighbouring rows; and the
// derivatives with respect to the network's output.
template <int W>
struct Training {
    static constexpr int columns = Tile<W>::columns, stride = columns + 4;
    static constexpr int tile_size = W * stride, size = 2 * tile_size + stride;
    float *activations, *deltas, *errors;
    float *kept, *gradient;
    int lane;
    NEURALSDF_DEVICE Training(const Block& block, const Loss& a, int thread) : lane(thread % warp_threads) {
        const int warp = thread / warp_threads;
        activations = block.shared + weights_size<W>(a.network) + warp * size;
        deltas = activations + tile_size;
        errors = deltas + tile_size;
        const long long row = static_cast<long long>(block.index()) * (block.threads() / warp_threads) + warp;
        kept = a.kept + row * a.network.depth * (W * columns);
        gradient = a.gradients + row * (layer_begin<W>(a.network.depth) + Tile<W>::output_size);
    }
};

// Adds `value` to the sum of earlier tiles, or starts the sum.
NEURALSDF_DEVICE void add_or_set(float* to, float value, bool begins) { *to = begins ? value : *to + value; }

template <int W>
NEURALSDF_DEVICE float dot_columns(const float* x, const float* y) {
    float sum = 0.0f;
    NEURALSDF_UNROLL_BY_4 for (int c = 0; c < Tile<W>::columns; c += 4) {
        float a[4], b[4];
        load(x + c, a);
        load(y + c, b);
        NEURALSDF_UNROLL for (int i = 0; i < 4; ++i) sum = multiply_add(a[i], b[i], sum);
    }
    return sum;
}

template <int W>
NEURALSDF_DEVICE float sum_columns(const float* x) {
    float sum = 0.0f;
    NEURALSDF_UNROLL_BY_4 for (int c = 0; c < Tile<W>::columns; c += 4) {
        float a[4];
        load(x + c, a);
        sum += (a[0] + a[1]) + (a[2] + a[3]);
    }
    return sum;
}

// Calls `function(neuron, column)` for all groups of four neighbouring columns of a lane.
template <int W, class Function>
NEURALSDF_DEVICE void for_quads(int lane, Function function) {
    NEURALSDF_ROLLED for (int i = lane; i < W * Tile<W>::quads; i += warp_threads)
        function(i / Tile<W>::quads, i % Tile<W>::quads * 4);
}

template <int W>
NEURALSDF_DEVICE void store_sums(const Place<W>& place, const Sums& sums, int stride, float* to) {
    to += place.output * stride + place.column;
    NEURALSDF_UNROLL for (int o = 0; o < 8; ++o)
        NEURALSDF_UNROLL for (int half = 0; half < 2; ++half) {
            float quad[4];
            NEURALSDF_UNROLL for (int c = 0; c < 4; ++c) quad[c] = sums.of[o][4 * half + c];
            store(to + place.output_of(o) * stride + place.column_of(4 * half), quad);
        }
}

template <int W>
NEURALSDF_DEVICE void load_points(const Loss& a, long long first, const Training<W>& at) {
    for (int c = at.lane; c < at.columns; c += warp_threads) {
        const long long point = first + c < a.count ? first + c : a.count - 1;
        NEURALSDF_UNROLL for (int i = 0; i < 3; ++i) at.activations[i * at.stride + c] = a.points[3 * point + i];
    }
}

// Computes the gradient of a hidden layer's kernel [W][W], activations times deltas, in blocks of 32 by 32. Every lane
// sums up to 8 by 4 entries.
template <int W>
NEURALSDF_DEVICE void kernel_gradient(const Training<W>& at, float* gradient, bool begins) {
    constexpr int piece = W < 32 ? W : 32, inputs = piece / 4, outputs = piece / 8;
    const int input = at.lane / 8, output = at.lane % 8;
    NEURALSDF_ROLLED for (int corner = 0; corner < W / piece * (W / piece); ++corner) {
        const int row = corner / (W / piece) * piece + input, column = corner % (W / piece) * piece + output;
        const float* x = at.activations + row * at.stride;
        const float* delta = at.deltas + column * at.stride;
        float sums[inputs][outputs] = {};
        NEURALSDF_ROLLED for (int c = 0; c < at.columns; c += 4) {
            float d[outputs][4];
            NEURALSDF_UNROLL for (int o = 0; o < outputs; ++o) load(delta + o * 8 * at.stride + c, d[o]);
            NEURALSDF_UNROLL for (int i = 0; i < inputs; ++i) {
                float y[4];
                load(x + i * 4 * at.stride + c, y);
                NEURALSDF_UNROLL for (int o = 0; o < outputs; ++o)
                    NEURALSDF_UNROLL for (int k = 0; k < 4; ++k)
                        sums[i][o] = multiply_add(y[k], d[o][k], sums[i][o]);
            }
        }
        NEURALSDF_UNROLL for (int i = 0; i < inputs; ++i)
            NEURALSDF_UNROLL for (int o = 0; o < outputs; ++o)
                add_or_set(gradient + (row + 4 * i) * W + column + 8 * o, sums[i][o], begins);
    }
}

// Backward pass through a hidden layer's kernel: sums of kernel times delta over its outputs.
template <int W>
NEURALSDF_DEVICE void multiply_back(const Place<W>& place, const Training<W>& at, const float* kernel, Sums& sums) {
    NEURALSDF_UNROLL for (int i = 0; i < 8; ++i)
        NEURALSDF_UNROLL for (int c = 0; c < 8; ++c) sums.of[i][c] = 0.0f;
    const float* delta = at.deltas + place.column;
    kernel += place.output * W;
    NEURALSDF_ROLLED for (int o = 0; o < W; o += 4) {
        float weight[8][4];
        NEURALSDF_UNROLL for (int i = 0; i < 8; ++i) load(kernel + place.output_of(i) * W + o, weight[i]);
        NEURALSDF_UNROLL for (int k = 0; k < 4; ++k) {
            float column[2][4];
            NEURALSDF_UNROLL for (int half = 0; half < 2; ++half)
                load(delta + (o + k) * at.stride + half * (at.columns / 2), column[half]);
            NEURALSDF_UNROLL for (int i = 0; i < 8; ++i)
                NEURALSDF_UNROLL for (int c = 0; c < 8; ++c)
                    sums.of[i][c] = multiply_add(column[c / 4][c % 4], weight[i][k], sums.of[i][c]);
        }
    }
}

// Forward pass through the hidden layers; stores the pre-activations.
template <int W>
NEURALSDF_DEVICE void forward(const Block& block, const Loss& a, long long first) {
    constexpr int stride = Training<W>::stride, columns = Training<W>::columns;
    const auto begin = [&](int thread) { return first + thread / warp_threads * columns; };
    block.each_in_warps([&](int thread) { load_points<W>(a, begin(thread), Training<W>(block, a, thread)); });
    PerThread<Sums> sums;
    NEURALSDF_ROLLED for (int layer = 0; layer < a.network.depth; ++layer) {
        const float* weights = layer_weights<W>(block, a.network, layer);
        block.each_in_warps([&](int thread) {
            const Training<W> at(block, a, thread);
            const Place<W> place(thread);
            if (layer == 0)
                layer_sums<W, points_alone, 3, stride>(place, at.activations, weights, sums[thread]);
            else
                layer_sums<W, points_alone, W, stride>(place, at.activations, weights, sums[thread]);
        });
        block.each_in_warps([&](int thread) {
            const Training<W> at(block, a, thread);
            const Place<W> place(thread);
            store_sums<W>(place, sums[thread], columns, at.kept + layer * (W * columns));
            finish_layer<W, points_alone, stride, 8>(a.network, a.network.widths[layer], place, sums[thread],
                                                  at.activations);
        });
    }
}

// Forward and backward pass of the output layer: the errors, its gradient, and the deltas of the last hidden layer.
template <int W>
NEURALSDF_DEVICE void turn(const Block& block, const Loss& a, long long first, bool begins, PerThread<float>& loss) {
    constexpr int stride = Training<W>::stride, columns = Training<W>::columns;
    const float* weights = layer_weights<W>(block, a.network, a.network.depth);
    block.each_in_warps([&](int thread) {
        const Training<W> at(block, a, thread);
        if (at.lane >= Tile<W>::quads) return;
        const long long point = first + thread / warp_threads * columns + 4 * at.lane;
        float y[4], error[4];
        output_layer<W, points_alone, stride>(a.network.output, at.activations + 4 * at.lane, weights, y);
        NEURALSDF_UNROLL for (int c = 0; c < 4; ++c) {
            error[c] = 0.0f;
            if (point + c >= a.count) continue;
            const float off = y[c] - a.targets[point + c];
            loss[thread] = loss[thread] + absolute(off);
            const float sign = off > 0.0f ? 1.0f : off < 0.0f ? -1.0f : off;
            error[c] = a.network.output == tanh_output ? sign * (1.0f - y[c] * y[c]) : sign;
        }
        store(at.errors + 4 * at.lane, error);
    });
    block.each_in_warps([&](int thread) {
        const Training<W> at(block, a, thread);
        float* const gradient = at.gradient + layer_begin<W>(a.network.depth);
        for (int i = at.lane; i < W; i += warp_threads)
            add_or_set(gradient + i, dot_columns<W>(at.activations + i * stride, at.errors), begins);
        if (at.lane < 4) add_or_set(gradient + W + at.lane, at.lane ? 0.0f : sum_columns<W>(at.errors), begins);
        const float* const kept = at.kept + (a.network.depth - 1) * (W * columns);
        for_quads<W>(at.lane, [&](int neuron, int column) {
            float z[4], error[4];
            load(kept + neuron * columns + column, z);
            load(at.errors + column, error);
            NEURALSDF_UNROLL for (int c = 0; c < 4; ++c)
                error[c] *= weights[neuron] * activated(a.network.activation, z[c]).slope;
            store(at.deltas + neuron * stride + column, error);
        });
    });
}

// Backward pass through a hidden layer: its gradient and, except for the first layer, the deltas of the previous layer.
template <int W>
NEURALSDF_DEVICE void back(const Block& block, const Loss& a, long long first, int layer, bool begins) {
    constexpr int stride = Training<W>::stride, columns = Training<W>::columns;
    const int before = (layer - 1) * (W * columns);
    block.each_in_warps([&](int thread) {
        const Training<W> at(block, a, thread);
        if (layer == 0) return load_points<W>(a, first + thread / warp_threads * columns, at);
        for_quads<W>(at.lane, [&](int neuron, int column) {
            float z[4];
            load(at.kept + before + neuron * columns + column, z);
            activate<points_alone>(a.network.activation, z);
            store(at.activations + neuron * stride + column, z);
        });
    });
    block.each_in_warps([&](int thread) {
        const Training<W> at(block, a, thread);
        float* const gradient = at.gradient + layer_begin<W>(layer);
        const int inputs = layer ? W : 3;
        if (layer)
            kernel_gradient<W>(at, gradient, begins);
        else
            for (int i = at.lane; i < 3 * W; i += warp_threads)
                add_or_set(gradient + i,
                           dot_columns<W>(at.activations + i / W * stride, at.deltas + i % W * stride), begins);
        for (int o = at.lane; o < W; o += warp_threads)
            add_or_set(gradient + inputs * W + o, sum_columns<W>(at.deltas + o * stride), begins);
    });
    if (layer == 0) return;
    const float* kernel = layer_weights<W>(block, a.network, layer);
    PerThread<Sums> sums;
    block.each_in_warps([&](int thread) {
        multiply_back<W>(Place<W>(thread), Training<W>(block, a, thread), kernel, sums[thread]);
    });
    block.each_in_warps([&](int thread) {
        store_sums<W>(Place<W>(thread), sums[thread], stride, Training<W>(block, a, thread).deltas);
    });
    block.each_in_warps([&](int thread) {
        const Training<W> at(block, a, thread);
        for_quads<W>(at.lane, [&](int neuron, int column) {
            float z[4], delta[4];
            load(at.kept + before + neuron * columns + column, z);
            load(at.deltas + neuron * stride + column, delta);
            NEURALSDF_UNROLL for (int c = 0; c < 4; ++c) delta[c] *= activated(a.network.activation, z[c]).slope;
            store(at.deltas + neuron * stride + column, delta);
        });
    });
}

// Sums the gradient and loss of every warp over tiles of points. The tiles of a block start at `first`, with the stride
// `step`.
template <int W>
NEURALSDF_DEVICE void sum_tiles(const Block& block, const Loss& a, long long first, long long step) {
    PerThread<float> loss;
    block.each_in_warps([&](int thread) { loss[thread] = 0.0f; });
    for (bool begins = true; first < a.count; first += step, begins = false) {
        forward<W>(block, a, first);
        turn<W>(block, a, first, begins, loss);
        NEURALSDF_ROLLED for (int layer = a.network.depth - 1; layer >= 0; --layer)
            back<W>(block, a, first, layer, begins);
    }
    block.each_in_warps([&](int thread) {
        const Training<W> at(block, a, thread);
        at.deltas[at.lane] = loss[thread];
    });
    block.each_in_warps([&](int thread) {
        const Training<W> at(block, a, thread);
        if (at.lane) return;
        float sum = 0.0f;
        for (int i = 0; i < warp_threads; ++i) sum += at.deltas[i];
        a.losses[block.index() * (block.threads() / warp_threads) + thread / warp_threads] = sum;
    });
}

// Shared memory: the weights, then a `Training` per warp.
template <int W>
NEURALSDF_DEVICE void loss_gradient(const Block& block, const Loss& a) {
    load_resident<W>(block, a.network);
    const long long step = block.threads() / warp_threads * Tile<W>::columns;
    sum_tiles<W>(block, a, block.index() * step, block.count() * step);
}

// Sums the rows in order.
NEURALSDF_DEVICE void sum_gradients(const Block& block, const GradientSum& a) {
    block.each([&](int thread) {
        const int i = block.index() * block.threads() + thread;
        if (i >= a.size) return;
        float sum = 0.0f;
        for (int row = 0; row < a.rows; ++row) sum += a.gradients[static_cast<long long>(row) * a.size + i];
        a.sum[i] = sum;
    });
}

}  // namespace gpu
}  // namespace neuralsdf
