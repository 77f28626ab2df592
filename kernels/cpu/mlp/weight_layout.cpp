#include "cpu/mlp/weight_layout.h"

#include <algorithm>
#include <cstring>

namespace neuralsdf {
namespace {

int padded(int width, int panel) { return (width + panel - 1) / panel * panel; }

// Number of multiply-adds of the padded layers; determines the size of a panel.
std::int64_t padded_cost(const int* hidden, int depth, int panel) {
    std::int64_t cost = 0;
    for (int l = 1; l < depth; ++l) cost += std::int64_t(hidden[l - 1]) * padded(hidden[l], panel);
    return cost + padded(hidden[0], panel);
}

// Whether tiles, which multiply whole panels, pay in spite of the padding: they are two to three times as fast.
bool tiles_pay(const int* hidden, int depth, int panel) {
    std::int64_t exact = 3 * hidden[0], by_tiles = 3 * padded(hidden[0], panel);
    for (int l = 1; l < depth; ++l) {
        exact += std::int64_t(hidden[l - 1]) * hidden[l];
        by_tiles += std::int64_t(padded(hidden[l - 1], panel)) * padded(hidden[l], panel);
    }
    return 2 * by_tiles <= 3 * exact;
}

}  // namespace

void make_layout(Layout& layout, const int* hidden, int depth, Activation activation, Output output, int lanes,
                 bool tiles) {
    layout.tiled = tiles && activation == Activation::relu && tiles_pay(hidden, depth, 2 * lanes);
    const bool one_vector = !layout.tiled && padded_cost(hidden, depth, lanes) < padded_cost(hidden, depth, 2 * lanes);
    layout.activation = activation;
    layout.output = output;
    layout.panel = one_vector ? lanes : 2 * lanes;
    layout.depth = depth;
    layout.is_padded = false;

    std::size_t flat = 0, packed = 0, activations = 0, hidden_biases = 0, widest = 0;
    for (int l = 0; l < depth; ++l) {
        Layer& layer = layout.layers[l];
        layer.inputs = l ? hidden[l - 1] : 3;
        layer.outputs = hidden[l];
        layer.padded_inputs = l ? padded(layer.inputs, layout.panel) : 3;
        layer.padded_outputs = padded(layer.outputs, layout.panel);
        layout.is_padded |= layer.padded_outputs != layer.outputs;
        layer.flat = flat;
        layer.weights = packed;
        layer.bias = packed + std::size_t(layer.padded_inputs) * layer.padded_outputs;
        layer.activations = activations;
        layer.hidden_bias = hidden_biases;
        flat += std::size_t(layer.inputs + 1) * layer.outputs;
        packed = layer.bias + layer.padded_outputs;
        activations += std::size_t(layer.padded_outputs) * block_points;
        hidden_biases += layer.padded_outputs;
        widest = std::max(widest, std::size_t(layer.padded_outputs) * block_points);
    }
    const Layer& last = layout.layers[depth - 1];
    layout.flat_output = flat;
    layout.output_weights = packed;
    layout.output_bias = packed + last.padded_outputs;
    layout.flat_size = flat + last.outputs + 1;
    layout.gradient_size = packed = layout.output_bias + lanes;
    for (int l = 1; l < depth; ++l) {
        Layer& layer = layout.layers[l];
        layer.transposed = packed;
        packed += std::size_t(layer.padded_inputs) * layer.padded_outputs;
    }
    for (int l = 1; l < depth && layout.tiled; ++l) {
        Layer& layer = layout.layers[l];
        layer.tiles = packed = (packed + 15) / 16 * 16;                         // aligned to 64 bytes
        packed += 2 * std::size_t(layer.padded_inputs) * layer.padded_outputs;  // for both directions
    }
    layout.packed_size = packed;
    layout.activations_size = activations;
    layout.hidden_biases_size = hidden_biases;
    layout.widest = widest;
}

void pack_layer(const Layout& layout, int l, const float* flat, float* packed, bool both_ways) {
    if (l == layout.depth) {
        const int last = layout.layers[l - 1].outputs;
        std::copy_n(flat + layout.flat_output, last, packed + layout.output_weights);
        packed[layout.output_bias] = flat[layout.flat_output + last];
        return;
    }
    const int panel = layout.panel;
    const Layer& layer = layout.layers[l];
    const float* kernel = flat + layer.flat;
    float* forward = packed + layer.weights;
    for (int first = 0; first < layer.outputs; first += panel, forward += std::size_t(layer.padded_inputs) * panel) {
        const int count = std::min(panel, layer.outputs - first);
        for (int i = 0; i < layer.inputs; ++i)
            for (int o = 0; o < count; ++o)
                forward[std::size_t(i) * panel + o] = kernel[std::size_t(i) * layer.outputs + first + o];
    }
    std::copy_n(kernel + std::size_t(layer.inputs) * layer.outputs, layer.outputs, packed + layer.bias);
    if (l == 0 || !both_ways) return;
    float* backward = packed + layer.transposed;
    for (int first = 0; first < layer.inputs; first += panel, backward += std::size_t(layer.padded_outputs) * panel) {
        const int count = std::min(panel, layer.inputs - first);
        for (int o = 0; o < layer.outputs; ++o)
            for (int i = 0; i < count; ++i)
                backward[std::size_t(o) * panel + i] = kernel[std::size_t(first + i) * layer.outputs + o];
    }
}

void pack(const Layout& layout, const float* flat, float* packed, bool both_ways) {
    if (layout.is_padded)
        std::memset(packed, 0, (both_ways ? layout.packed_size : layout.gradient_size) * sizeof(float));
    for (int l = 0; l <= layout.depth; ++l) pack_layer(layout, l, flat, packed, both_ways);
}

void unpack_layer(const Layout& layout, int l, const float* packed, float factor, float* flat) {
    const auto scaled = [factor](const float* from, int count, float* to) {
        for (int i = 0; i < count; ++i) to[i] = from[i] * factor;
    };
    if (l == layout.depth) {
        const int last = layout.layers[l - 1].outputs;
        scaled(packed + layout.output_weights, last, flat + layout.flat_output);
        scaled(packed + layout.output_bias, 1, flat + layout.flat_output + last);
        return;
    }
    const int panel = layout.panel;
    const Layer& layer = layout.layers[l];
    float* kernel = flat + layer.flat;
    const float* forward = packed + layer.weights;
    for (int first = 0; first < layer.outputs; first += panel, forward += std::size_t(layer.padded_inputs) * panel)
        for (int i = 0; i < layer.inputs; ++i)
            scaled(forward + std::size_t(i) * panel, std::min(panel, layer.outputs - first),
                   kernel + std::size_t(i) * layer.outputs + first);
    scaled(packed + layer.bias, layer.outputs, kernel + std::size_t(layer.inputs) * layer.outputs);
}

std::size_t packed_end(const Layout& layout, int l) {
    return l == layout.depth       ? layout.gradient_size
           : l + 1 == layout.depth ? layout.output_weights
                                   : layout.layers[l + 1].weights;
}

std::size_t evaluate_workspace(const Layout& layout) { return 2 * layout.widest; }

std::size_t gradient_workspace(const Layout& layout) {
    if (layout.tiled)  // plus one bit per activation
        return layout.activations_size + layout.activations_size / layout.panel + 3 * layout.widest;
    const std::size_t kept = layout.activation == Activation::relu ? 1 : 2;  // activations and their derivatives
    return kept * layout.activations_size + 2 * layout.widest;
}

}  // namespace neuralsdf
