// evaluate.h
// Evaluates a network at points, with or without gradients with respect to the points. Gradients use forward mode, with
// three tangents per point. This costs four evaluations, compared with a little over two for reverse mode, but stores
// no activations, so any depth and any activation use the same shared memory.
#pragma once

#include "network.h"

namespace neuralsdf {
namespace gpu {

// Arguments for the evaluation of a network or a tape.
template <class Field>
struct EvaluationOf {
    Field field;
    const float* points;  // (count, 3)
    float* values;        // (count,)
    float* gradients;     // (count, 3), or unused
    long long count;
};

using Evaluation = EvaluationOf<Network>;

// Arguments for the evaluation of many networks of the same architecture at the same points.
struct EvaluationOfMany {
    Network network;  // with the weights of the first network
    const float* points;  // (count, 3)
    float* values;        // (shapes, count)
    long long count;
    int size;    // size of the packed weights of a network
    int blocks;  // consecutive blocks per shape
};

// Evaluates every `of`-th block of points, starting with block `part`. Shared memory: the weights, then one tile per
// warp.
template <int W>
NEURALSDF_DEVICE void evaluate_part(const Block& block, const Evaluation& a, int part, int of) {
    constexpr int columns = Tile<W>::columns;
    float* const tiles = block.shared + weights_size<W>(a.field);
    load_resident<W>(block, a.field);
    const long long step = block.threads() / warp_threads * columns;  // points per block
    for (long long first = part * step; first < a.count; first += of * step) {
        const auto begin = [&](int thread) { return first + thread / warp_threads * columns; };
        block.each_in_warps([&](int thread) {
            float* const tile = tile_of<W>(tiles, thread);
            for (int c = thread % warp_threads; c < columns; c += warp_threads) {
                const long long at = begin(thread) + c;
                NEURALSDF_UNROLL for (int i = 0; i < 3; ++i)
                    tile[i * columns + c] = at < a.count ? a.points[3 * at + i] : 0.0f;
            }
        });
        const auto all = [](int) { return columns; };
        evaluate_tiles<W, points_alone>(block, a.field, tiles, all, [&](int thread, int quad, const float (&y)[4]) {
            const long long at = begin(thread) + 4 * quad;
            NEURALSDF_UNROLL for (int c = 0; c < 4; ++c)
                if (at + c < a.count) a.values[at + c] = y[c];
        });
    }
}

template <int W>
NEURALSDF_DEVICE void evaluate(const Block& block, const Evaluation& a) {
    evaluate_part<W>(block, a, block.index(), block.count());
}

template <int W>
NEURALSDF_DEVICE void evaluate_many(const Block& block, const EvaluationOfMany& a) {
    const int shape = block.index() / a.blocks;
    Evaluation own = {a.network, a.points, a.values + shape * a.count, nullptr, a.count};
    own.field.weights += static_cast<long long>(shape) * a.size;
    evaluate_part<W>(block, own, block.index() % a.blocks, a.blocks);
}

template <int W>
NEURALSDF_DEVICE void evaluate_with_gradient(const Block& block, const Evaluation& a) {
    constexpr int columns = Tile<W>::columns, quads = Tile<W>::quads;
    float* const tiles = block.shared + weights_size<W>(a.field);
    load_resident<W>(block, a.field);
    const long long step = block.threads() / warp_threads * quads;
    for (long long first = block.index() * step; first < a.count; first += block.count() * step) {
        const auto begin = [&](int thread) { return first + thread / warp_threads * quads; };
        block.each_in_warps([&](int thread) {
            float* const tile = tile_of<W>(tiles, thread);
            for (int c = thread % warp_threads; c < columns; c += warp_threads) {
                const long long at = begin(thread) + c / 4;
                NEURALSDF_UNROLL for (int i = 0; i < 3; ++i)
                    tile[i * columns + c] = c % 4                ? (c % 4 == i + 1 ? 1.0f : 0.0f)
                                            : at < a.count ? a.points[3 * at + i]
                                                           : 0.0f;
            }
        });
        const auto all = [](int) { return columns; };
        evaluate_tiles<W, points_with_tangents>(
            block, a.field, tiles, all, [&](int thread, int quad, const float (&y)[4]) {
                const long long at = begin(thread) + quad;
                if (at >= a.count) return;
                a.values[at] = y[0];
                NEURALSDF_UNROLL for (int c = 1; c < 4; ++c) a.gradients[3 * at + c - 1] = y[c];
            });
    }
}

}  // namespace gpu
}  // namespace neuralsdf
