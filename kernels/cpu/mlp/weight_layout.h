// What a network looks like to the kernels: its layers, and where their weights and activations lie
// in memory. Everything here is plain data, so that the code compiled for one instruction set shares
// no inline function with the rest.
#pragma once

#include <cstddef>
#include <cstdint>

namespace neuralsdf {

enum class Activation { relu, sine, softplus, silu, elu, tanh };
enum class Output { tanh, linear };

// Points that go through all layers together: their activations stay in the L1 and L2 caches.
// A multiple of every tile height in evaluate_and_differentiate.cpp.
constexpr int block_points = 96;

constexpr int max_layers = 256;  // as network.py
constexpr int max_width = 8192;
constexpr std::int64_t max_weights = std::int64_t(1) << 28;

// A hidden layer. Vectors hold neighbouring outputs of one point; `panel` of them (one or two
// vectors) make a panel, and widths are padded to whole panels. Offsets count floats.
struct Layer {
    int inputs, outputs;
    int padded_inputs, padded_outputs;
    std::size_t flat;         // in the flat vector: kernel (inputs, outputs), then bias (outputs)
    std::size_t weights;      // packed: [output panel][padded input][lane]
    std::size_t bias;         // packed: [padded output]
    std::size_t transposed;   // packed: [input panel][padded output][lane], for the way back
    std::size_t activations;  // workspace: [output panel][point][lane]
    std::size_t tiles;        // packed, where the layout is tiled: see amx_tiles.cpp
};

struct Layout {
    Activation activation;
    Output output;
    int panel;  // lanes
    int depth;  // hidden layers
    bool is_padded;
    bool tiled;  // whether it is packed for tile multiplications, too
    Layer layers[max_layers];
    std::size_t flat_output, output_weights, output_bias;
    std::size_t flat_size;      // weights P
    std::size_t gradient_size;  // packed gradient: as the packed weights, without the transposed ones
    std::size_t packed_size;
    std::size_t activations_size;  // of all layers, for one block
    std::size_t widest;            // activations of the widest layer, for one block
};

// The layout of a network for vectors of `lanes` floats; a panel is the one or two vectors that pad least.
// Widths must be within the bounds above. `tiles`: whether there are tile multiplications, which are for ReLU layers
// of whole panels of two vectors.
void make_layout(Layout& layout, const int* hidden, int depth, Activation activation, Output output, int lanes,
                 bool tiles);

// The flat vector, packed. `packed` has room for packed_size floats; unless `both_ways`, what only the way back
// needs is left out.
void pack(const Layout& layout, const float* flat, float* packed, bool both_ways);

// One layer of it; the output layer has the number `depth`. Padding is left as it is.
void pack_layer(const Layout& layout, int layer, const float* flat, float* packed, bool both_ways);

// One layer of a packed gradient times `factor`, flat.
void unpack_layer(const Layout& layout, int layer, const float* packed, float factor, float* flat);

// Where a layer ends in a packed gradient: the start of the next.
std::size_t packed_end(const Layout& layout, int layer);

// Workspaces of one thread, in floats.
std::size_t evaluate_workspace(const Layout& layout);
std::size_t gradient_workspace(const Layout& layout);

}  // namespace neuralsdf
