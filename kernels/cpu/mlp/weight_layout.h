// The memory layout of a network for the kernels: its layers, and the offsets of their weights and activations. All
// types are plain data, so that code that is compiled per instruction set shares no inline function with other code.
#pragma once

#include <cstddef>
#include <cstdint>

namespace neuralsdf {

enum class Activation { relu, sine, softplus, silu, elu, tanh };
enum class Output { tanh, linear };

// Points that are evaluated together. Their activations stay in the L1 and L2 caches. A multiple of every tile height
// in evaluate_and_differentiate.cpp.
constexpr int block_points = 96;

constexpr int max_layers = 256;  // as in network.py
constexpr int max_width = 8192;
constexpr std::int64_t max_weights = std::int64_t(1) << 28;

// A hidden layer. A vector has neighbouring outputs of one point. A panel has `panel` outputs (one or two vectors), and
// widths are padded to whole panels. Offsets are in floats.
struct Layer {
    int inputs, outputs;
    int padded_inputs, padded_outputs;
    std::size_t flat;         // offset in the flat weights: kernel (inputs, outputs), then bias (outputs)
    std::size_t weights;      // packed: [output panel][padded input][lane]
    std::size_t bias;         // packed: [padded output]
    std::size_t transposed;   // packed: [input panel][padded output][lane], for the backward pass
    std::size_t activations;  // workspace: [output panel][point][lane]
    std::size_t tiles;        // packed, if the layout is tiled: see amx_tiles.cpp
    std::size_t hidden_bias;  // in a gradient of hidden biases: [padded output]
};

struct Layout {
    Activation activation;
    Output output;
    int panel;  // lanes
    int depth;  // hidden layers
    bool is_padded;
    bool tiled;  // whether it is also packed for tile multiplications
    Layer layers[max_layers];
    std::size_t flat_output, output_weights, output_bias;
    std::size_t flat_size;           // number of weights P
    std::size_t gradient_size;       // packed gradient: as packed weights without the transposed ones
    std::size_t hidden_biases_size;  // gradient of hidden biases
    std::size_t packed_size;
    std::size_t activations_size;  // of all layers, for one block
    std::size_t widest;            // activations of the widest layer, for one block
};

// Computes the layout of a network for vectors of `lanes` floats. A panel has one or two vectors, whichever pads less.
// Widths must be within the bounds above. `tiles`: whether tile multiplications are supported. They are used for ReLU
// networks if panels of two vectors do not pad too much.
void make_layout(Layout& layout, const int* hidden, int depth, Activation activation, Output output, int lanes,
                 bool tiles);

// Packs flat weights. `packed` must have room for packed_size floats. Unless `both_ways`, data that only the backward
// pass needs is omitted.
void pack(const Layout& layout, const float* flat, float* packed, bool both_ways);

// Packs one layer; the output layer has the number `depth`. Padding is not changed.
void pack_layer(const Layout& layout, int layer, const float* flat, float* packed, bool both_ways);

// Unpacks one layer of a packed gradient, times `factor`, into the flat gradient.
void unpack_layer(const Layout& layout, int layer, const float* packed, float factor, float* flat);

// End offset of a layer in a packed gradient, which is the start of the next layer.
std::size_t packed_end(const Layout& layout, int layer);

// Size of the workspace of one thread, in floats.
std::size_t evaluate_workspace(const Layout& layout);
std::size_t gradient_workspace(const Layout& layout);

}  // namespace neuralsdf
