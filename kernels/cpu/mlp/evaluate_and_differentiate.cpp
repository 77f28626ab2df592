// The operations on one block of points. Compiled once per instruction set; NEURALSDF_KERNEL is its name.
//
// A block is evaluated layer by layer, so that activations stay in the cache. Activations are stored in panels, [panel
// of outputs][point][lane]; weights likewise, [panel of outputs][input][lane]. The inner loop keeps a tile of a few
// points times one panel in registers. For each input it multiplies one weight vector by one scalar per point, without
// horizontal sums or shuffles.
#include "cpu/kernels_by_instruction_set.h"
#include "cpu/mlp/loss.h"
#include "cpu/simd.h"

#include <type_traits>

namespace neuralsdf {
namespace {

// The shape of the register tiles for panels of V vectors: as many accumulators as fit in the registers, besides V
// weight vectors and a scalar.
template <int V>
struct Tile {
    static constexpr int panel = V * lanes;
    static constexpr int points = registers == 32 ? (V == 2 ? 12 : 16) : (V == 2 ? 6 : 12);
    // The rows of a block are padded to a multiple of this: whole tiles, and multiples of four for the output layer.
    static constexpr int rows = points % 4 ? 2 * points : points;
    static_assert(block_points % rows == 0 && rows % 4 == 0, "a block is whole tiles");
    // Inputs in a tile of the weight gradient: the inputs of a panel, divided evenly.
    static constexpr int inputs_at_most = points < panel ? points : panel;
    static constexpr int input_tiles = (panel + inputs_at_most - 1) / inputs_at_most;
    static constexpr int inputs = (panel + input_tiles - 1) / input_tiles;
    static constexpr int last_inputs = panel - (input_tiles - 1) * inputs;
};

constexpr int round_up(int count, int multiple) { return (count + multiple - 1) / multiple * multiple; }

// Computes the sums over all inputs for a tile of points and passes them to `finish(point, vector, sum)`. `x` has the
// inputs as [panel][point][lane] with a stride of Stride floats between points. Sums start at `start`. Inputs is int,
// or an integral constant if the width is known.
template <int V, int Stride, class Inputs, class Finish>
INLINE void tile(const float* x, Inputs inputs, const float* weights, const Vector (&start)[V], Finish finish) {
    constexpr int P = Tile<V>::points, panel = Tile<V>::panel;
    // The last inputs are processed point by point, so that the stores of `finish` are interleaved with the sums. If
    // all stores came at the end, they would fill the store buffer and delay the next tile.
    constexpr int last = std::is_same<Inputs, int>::value || registers < 32 ? 0 : 2;
    Vector sum[P][V];
    UNROLL_FOR (int p = 0; p < P; ++p)
        UNROLL_FOR (int v = 0; v < V; ++v) sum[p][v] = start[v];
    const auto add = [&sum](const float* scalars, const float* weight) __attribute__((always_inline)) {
        Vector w[V];
        UNROLL_FOR (int v = 0; v < V; ++v) w[v] = load(weight + v * lanes);
        UNROLL_FOR (int p = 0; p < P; ++p) {
            const float scalar = scalars[p * Stride];
            UNROLL_FOR (int v = 0; v < V; ++v) sum[p][v] += w[v] * scalar;
        }
    };
    int left = inputs;
    for (; left > panel; left -= panel, x += block_points * Stride, weights += panel * panel)
        UNROLL_FOR_BY_4 (int i = 0; i < panel; ++i) add(x + i, weights + i * panel);
    UNROLL_FOR_BY_4 (int i = 0; i < left - last; ++i) add(x + i, weights + i * panel);
    x += left - last;
    weights += (left - last) * panel;
    Vector w[last + 1][V];
    UNROLL_FOR (int i = 0; i < last; ++i)
        UNROLL_FOR (int v = 0; v < V; ++v) w[i][v] = load(weights + i * panel + v * lanes);
    UNROLL_FOR (int p = 0; p < P; ++p) {
        UNROLL_FOR (int i = 0; i < last; ++i)
            UNROLL_FOR (int v = 0; v < V; ++v) sum[p][v] += w[i][v] * x[p * Stride + i];
        UNROLL_FOR (int v = 0; v < V; ++v) finish(p, v, sum[p][v]);
    }
}

// Calls `function` with the width, as a compile-time constant for common widths.
template <class Function>
INLINE void with_constant(int width, Function function) {
    switch (width) {
        case 16: return function(std::integral_constant<int, 16>());
        case 32: return function(std::integral_constant<int, 32>());
        case 64: return function(std::integral_constant<int, 64>());
        case 128: return function(std::integral_constant<int, 128>());
        default: return function(width);
    }
}

// y = x W + b for `rows` points, rectified for ReLU.
template <int V, int Stride, bool Rectify, class Inputs>
INLINE void dense_layer(const Layer& layer, const float* packed, const float* x, int rows, float* y, Inputs inputs) {
    constexpr int P = Tile<V>::points, panel = Tile<V>::panel;
    const float* weights = packed + layer.weights;
    const float* bias = packed + layer.bias;
    for (int first = 0; first < layer.padded_outputs; first += panel) {
        Vector start[V];
        UNROLL_FOR (int v = 0; v < V; ++v) start[v] = load(bias + v * lanes);
        for (int b = 0; b < rows; b += P) {
            float* to = y + b * panel;
            tile<V, Stride>(x + b * Stride, inputs, weights, start, [to](int p, int v, Vector sum) {
                store(to + p * panel + v * lanes, Rectify ? relu(sum) : sum);
            });
        }
        weights += std::size_t(layer.padded_inputs) * panel;
        bias += panel;
        y += block_points * panel;
    }
}

template <int V, bool Rectify>
NOINLINE void dense(const Layer& layer, const float* packed, const float* x, int rows, float* y) {
    with_constant(layer.inputs, [&](auto inputs) __attribute__((always_inline)) {
        dense_layer<V, Tile<V>::panel, Rectify>(layer, packed, x, rows, y, inputs);
    });
}

// The first layer. Its inputs are points, not panels.
template <int V, bool Rectify>
NOINLINE void dense_first(const Layer& layer, const float* packed, const float* x, int rows, float* y) {
    dense_layer<V, 3, Rectify>(layer, packed, x, rows, y, std::integral_constant<int, 3>());
}

// The backward pass of a layer: previous = (delta W^T) * slope. The slope is read from `slopes` or, for ReLU
// (FromActivation), is 1 where the activation is positive and 0 elsewhere.
template <int V, bool FromActivation>
NOINLINE void back(const Layer& layer, const float* packed, const float* delta, const float* slopes, int rows,
                   float* previous) {
    constexpr int P = Tile<V>::points, panel = Tile<V>::panel;
    const float* weights = packed + layer.transposed;
    const Vector start[V] = {};
    with_constant(layer.outputs, [&](auto outputs) __attribute__((always_inline)) {
        for (int first = 0; first < layer.padded_inputs; first += panel) {
            for (int b = 0; b < rows; b += P) {
                const float* slope = slopes + b * panel;
                float* to = previous + b * panel;
                tile<V, panel>(delta + b * panel, outputs, weights, start, [=](int p, int v, Vector sum) {
                    const int at = p * panel + v * lanes;
                    const Vector s = load(slope + at);
                    store(to + at, FromActivation ? (s <= 0.0f ? Vector{} : sum) : sum * s);
                });
            }
            weights += std::size_t(layer.padded_outputs) * panel;
            slopes += block_points * panel;
            previous += block_points * panel;
        }
    });
}

// gradient[input][lane] += sum over points of x[point][input] * delta[point][lane], for K inputs. If Bias, bias[lane]
// += the sum of delta, as for an additional input that is always 1.
template <int V, int Stride, int K, bool Bias>
INLINE void weight_tile(const float* x, const float* delta, int rows, float* gradient, float* bias) {
    constexpr int panel = Tile<V>::panel;
    Vector sum[K][V], bias_sum[V];
    UNROLL_FOR (int k = 0; k < K; ++k)
        UNROLL_FOR (int v = 0; v < V; ++v) sum[k][v] = load(gradient + k * panel + v * lanes);
    UNROLL_FOR (int v = 0; v < V; ++v) bias_sum[v] = Bias ? load(bias + v * lanes) : Vector{};
    for (int b = 0; b < rows; b += 4, x += 4 * Stride, delta += 4 * panel)
        UNROLL_FOR (int p = 0; p < 4; ++p) {
            Vector d[V];
            UNROLL_FOR (int v = 0; v < V; ++v) d[v] = load(delta + p * panel + v * lanes);
            UNROLL_FOR (int k = 0; k < K; ++k) {
                const float scalar = x[p * Stride + k];
                UNROLL_FOR (int v = 0; v < V; ++v) sum[k][v] += d[v] * scalar;
            }
            if (Bias)
                UNROLL_FOR (int v = 0; v < V; ++v) bias_sum[v] += d[v];
        }
    UNROLL_FOR (int k = 0; k < K; ++k)
        UNROLL_FOR (int v = 0; v < V; ++v) store(gradient + k * panel + v * lanes, sum[k][v]);
    if (Bias)
        UNROLL_FOR (int v = 0; v < V; ++v) store(bias + v * lanes, bias_sum[v]);
}

// Adds x^T delta to a layer's weight gradient, and the sums of delta to its bias gradient.
template <int V>
NOINLINE void add_weight_gradient(const Layer& layer, const float* x, const float* delta, int rows, float* gradient) {
    using T = Tile<V>;
    constexpr int panel = T::panel;
    float* weights = gradient + layer.weights;
    float* bias = gradient + layer.bias;
    for (int first = 0; first < layer.padded_outputs; first += panel) {
        const float* from = x;
        for (int i = 0; i < layer.padded_inputs; i += panel, from += block_points * panel) {
            for (int k = 0; k < T::input_tiles - 1; ++k, weights += T::inputs * panel)
                weight_tile<V, panel, T::inputs, false>(from + k * T::inputs, delta, rows, weights, nullptr);
            const float* last = from + (T::input_tiles - 1) * T::inputs;
            i == 0 ? weight_tile<V, panel, T::last_inputs, true>(last, delta, rows, weights, bias)
                   : weight_tile<V, panel, T::last_inputs, false>(last, delta, rows, weights, nullptr);
            weights += T::last_inputs * panel;
        }
        bias += panel;
        delta += block_points * panel;
    }
}

// As above for the first layer.
template <int V>
NOINLINE void add_first_gradient(const Layer& layer, const float* x, const float* delta, int rows, float* gradient) {
    constexpr int panel = Tile<V>::panel;
    float* weights = gradient + layer.weights;
    float* bias = gradient + layer.bias;
    for (int first = 0; first < layer.padded_outputs; first += panel) {
        weight_tile<V, 3, 3, true>(x, delta, rows, weights, bias);
        weights += 3 * panel;
        bias += panel;
        delta += block_points * panel;
    }
}

// Adds the sums of delta over the points to a layer's bias gradient.
template <int V>
NOINLINE void add_bias_gradient(const Layer& layer, const float* delta, int rows, float* gradient) {
    constexpr int panel = Tile<V>::panel;
    for (int first = 0; first < layer.padded_outputs; first += panel, delta += block_points * panel) {
        Vector sum[4][V] = {};  // four sums, so that additions do not depend on the previous one
        for (int b = 0; b < rows; b += 4)
            UNROLL_FOR (int p = 0; p < 4; ++p)
                UNROLL_FOR (int v = 0; v < V; ++v) sum[p][v] += load(delta + (b + p) * panel + v * lanes);
        UNROLL_FOR (int v = 0; v < V; ++v) {
            float* g = gradient + first + v * lanes;
            store(g, load(g) + ((sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v])));
        }
    }
}

// The smooth activation functions: they return the value at z and write the derivative unless `slope` is null.

INLINE Vector sigmoid_and_exp(Vector x, Vector* e) {
    *e = exp(-absolute(x));
    return (x < 0.0f ? *e : broadcast(1.0f)) / (*e + 1.0f);
}

struct Sine {  // sin(30 z)
    static INLINE Vector apply(Vector z, Vector* slope) {
        Vector cosine;
        const Vector sine = sine_and_cosine(z * 30.0f, slope ? &cosine : nullptr);
        if (slope) *slope = cosine * 30.0f;
        return sine;
    }
};

struct Softplus {  // log(1 + exp(100 z)) / 100
    static INLINE Vector apply(Vector z, Vector* slope) {
        Vector e;
        const Vector sigmoid = sigmoid_and_exp(z * 100.0f, &e);
        if (slope) *slope = sigmoid;
        return relu(z) + log1p_unit(e) * 0.01f;
    }
};

struct Silu {  // z sigmoid(z)
    static INLINE Vector apply(Vector z, Vector* slope) {
        Vector e;
        const Vector sigmoid = sigmoid_and_exp(z, &e);
        if (slope) *slope = sigmoid + z * sigmoid * (1.0f - sigmoid);
        return z * sigmoid;
    }
};

struct Elu {  // z for z > 0, otherwise exp(z) - 1
    static INLINE Vector apply(Vector z, Vector* slope) {
        const Vector low = expm1(z);
        if (slope) *slope = z > 0.0f ? broadcast(1.0f) : low + 1.0f;
        return z > 0.0f ? z : low;
    }
};

struct Tanh {
    static INLINE Vector apply(Vector z, Vector* slope) {
        const Vector y = tanh(z);
        if (slope) *slope = 1.0f - y * y;
        return y;
    }
};

// Applies a smooth activation in place to a layer's z; writes its derivatives unless `slopes` is null.
template <int V, class Function>
NOINLINE void activate(int padded_outputs, int rows, float* z, float* slopes) {
    constexpr int panel = Tile<V>::panel;
    for (int first = 0; first < padded_outputs; first += panel, z += block_points * panel) {
        if (slopes) {
            for (int i = 0; i < rows * panel; i += lanes) {
                Vector slope;
                store(z + i, Function::apply(load(z + i), &slope));
                store(slopes + i, slope);
            }
            slopes += block_points * panel;
        } else {
            for (int i = 0; i < rows * panel; i += lanes) store(z + i, Function::apply(load(z + i), nullptr));
        }
    }
}

// Zeroes the lanes beyond `width`. Their weights are zero, but zero times infinity is NaN.
template <int V>
NOINLINE void clear_padding(int width, int rows, float* activations) {
    constexpr int panel = Tile<V>::panel;
    if (width % panel == 0) return;
    activations += std::size_t(width / panel) * block_points * panel;
    for (int b = 0; b < rows; ++b, activations += panel)
        for (int i = width % panel; i < panel; ++i) activations[i] = 0.0f;
}

// The forward and backward pass of one block of points.
template <int V>
struct Block {
    static constexpr int panel = Tile<V>::panel;

    const Layout& layout;
    const float* packed;
    int count, rows;
    float* activations;  // of all layers; two alternating buffers without a backward pass
    float* slopes;       // of all layers; null for ReLU and without a backward pass
    float *delta, *previous;
    alignas(64) float points[3 * block_points];
    alignas(64) float values[block_points];         // f
    alignas(64) float output_slopes[block_points];  // df/dz of the output layer

    Block(const Layout& layout, const float* packed, const float* from, int count, float* workspace, bool returns)
        : layout(layout), packed(packed), count(count), rows(round_up(count, Tile<V>::rows)) {
        std::memcpy(points, from, sizeof(float) * 3 * count);
        std::memset(points + 3 * count, 0, sizeof(float) * 3 * (rows - count));
        const bool sloped = returns && layout.activation != Activation::relu;
        activations = workspace;
        slopes = sloped ? workspace + layout.activations_size : nullptr;
        delta = workspace + (sloped ? 2 : 1) * layout.activations_size;
        previous = delta + layout.widest;
        const float* last = forward(returns);
        output(last);
    }

    // Evaluates all hidden layers; returns the activations of the last one.
    INLINE float* forward(bool keep) {
        const float* x = points;
        float* y = nullptr;
        for (int l = 0; l < layout.depth; ++l, x = y) {
            const Layer& layer = layout.layers[l];
            y = activations + (keep ? layer.activations : l % 2 * layout.widest);
            if (layout.activation == Activation::relu) {
                (l ? dense<V, true> : dense_first<V, true>)(layer, packed, x, rows, y);
            } else {
                (l ? dense<V, false> : dense_first<V, false>)(layer, packed, x, rows, y);
                apply_activation(layer.padded_outputs, y, slopes ? slopes + layer.activations : nullptr);
            }
        }
        clear_padding<V>(layout.layers[layout.depth - 1].outputs, rows, y);
        return y;
    }

    INLINE void apply_activation(int padded_outputs, float* z, float* slope) {
        switch (layout.activation) {
            case Activation::relu: break;
            case Activation::sine: return activate<V, Sine>(padded_outputs, rows, z, slope);
            case Activation::softplus: return activate<V, Softplus>(padded_outputs, rows, z, slope);
            case Activation::silu: return activate<V, Silu>(padded_outputs, rows, z, slope);
            case Activation::elu: return activate<V, Elu>(padded_outputs, rows, z, slope);
            case Activation::tanh: return activate<V, Tanh>(padded_outputs, rows, z, slope);
        }
    }

    INLINE void output(const float* last) {
        const float* weights = packed + layout.output_weights;
        const int width = layout.layers[layout.depth - 1].padded_outputs;
        for (int b = 0; b < rows; b += 4) {
            Vector sum[4] = {};
            const float* x = last + b * panel;
            for (int first = 0; first < width; first += panel, x += block_points * panel)
                UNROLL_FOR (int v = 0; v < V; ++v) {
                    const Vector w = load(weights + first + v * lanes);
                    UNROLL_FOR (int p = 0; p < 4; ++p) sum[p] += w * load(x + p * panel + v * lanes);
                }
            *reinterpret_cast<Vector4*>(values + b) = sums(sum[0], sum[1], sum[2], sum[3]) + packed[layout.output_bias];
        }
        const bool bounded = layout.output == Output::tanh;
        for (int b = 0; b < block_points; b += lanes) {
            if (b >= rows) break;
            const Vector y = bounded ? tanh(load(values + b)) : load(values + b);
            store(values + b, y);
            store(output_slopes + b, bounded ? 1.0f - y * y : broadcast(1.0f));
        }
    }

    const float* layer_slopes(const Layer& layer) const {
        return slopes ? slopes + layer.activations : activations + layer.activations;
    }

    // Computes delta, the derivative with respect to the last hidden layer's z, from the derivatives `by_output` with
    // respect to the output layer's z. Adds the output layer's weight gradient unless `gradient` is null.
    template <bool FromActivation>
    NOINLINE void back_from_output(const float* by_output, float* gradient) {
        const Layer& last = layout.layers[layout.depth - 1];
        const float* x = activations + last.activations;
        const float* slope = layer_slopes(last);
        float* to = delta;
        const std::size_t beyond = block_points * panel;
        for (int first = 0; first < last.padded_outputs; first += panel, x += beyond, slope += beyond, to += beyond) {
            Vector w[V], sum[4][V] = {};  // four sums, so that additions do not depend on the previous one
            UNROLL_FOR (int v = 0; v < V; ++v) w[v] = load(packed + layout.output_weights + first + v * lanes);
            for (int b = 0; b < rows; b += 4)
                UNROLL_FOR (int p = 0; p < 4; ++p)
                    UNROLL_FOR (int v = 0; v < V; ++v) {
                        const int at = (b + p) * panel + v * lanes;
                        const Vector s = load(slope + at), d = w[v] * by_output[b + p];
                        store(to + at, FromActivation ? (s <= 0.0f ? Vector{} : d) : d * s);
                        if (gradient) sum[p][v] += load(x + at) * by_output[b + p];
                    }
            if (!gradient) continue;
            UNROLL_FOR (int v = 0; v < V; ++v) {
                float* g = gradient + layout.output_weights + first + v * lanes;
                store(g, load(g) + ((sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v])));
            }
        }
        if (gradient) {
            float sum = 0;
            for (int b = 0; b < rows; ++b) sum += by_output[b];
            gradient[layout.output_bias] += sum;
        }
    }

    // The complete backward pass. The result, the derivatives with respect to the first layer's z, is in delta. Adds to
    // the gradients with respect to all weights and to the hidden biases, and prefetches `next`, unless they are null.
    INLINE void backward(const float* by_output, float* gradient, float* hidden_biases, const Samples* next) {
        const bool rectified = !slopes;
        rectified ? back_from_output<true>(by_output, gradient) : back_from_output<false>(by_output, gradient);
        for (int l = layout.depth - 1; l > 0; --l) {
            const Layer &layer = layout.layers[l], &below = layout.layers[l - 1];
            if (next) prefetch_part(*next, layout.depth - 1 - l, layout.depth - 1);
            if (gradient) add_weight_gradient<V>(layer, activations + below.activations, delta, rows, gradient);
            if (hidden_biases) add_bias_gradient<V>(layer, delta, rows, hidden_biases + layer.hidden_bias);
            const float* slope = layer_slopes(below);
            rectified ? back<V, true>(layer, packed, delta, slope, rows, previous)
                      : back<V, false>(layer, packed, delta, slope, rows, previous);
            float* const swapped = delta;
            delta = previous;
            previous = swapped;
        }
        if (gradient) add_first_gradient<V>(layout.layers[0], points, delta, rows, gradient);
        if (hidden_biases) add_bias_gradient<V>(layout.layers[0], delta, rows, hidden_biases);
    }

    // Computes the derivatives with respect to the points: delta times the first layer's weights.
    INLINE void input_gradients(float* gradients) {
        const Layer& layer = layout.layers[0];
        clear_padding<V>(layer.outputs, rows, delta);
        alignas(64) float all[3 * block_points];
        for (int b = 0; b < rows; b += 4) {
            Vector sum[12] = {};  // x, y and z of four points
            const float* d = delta + b * panel;
            const float* weights = packed + layer.weights;
            for (int first = 0; first < layer.padded_outputs;
                 first += panel, d += block_points * panel, weights += 3 * panel)
                UNROLL_FOR (int v = 0; v < V; ++v)
                    UNROLL_FOR (int i = 0; i < 3; ++i) {
                        const Vector w = load(weights + i * panel + v * lanes);
                        UNROLL_FOR (int p = 0; p < 4; ++p) sum[3 * p + i] += w * load(d + p * panel + v * lanes);
                    }
            UNROLL_FOR (int i = 0; i < 12; i += 4)
                *reinterpret_cast<Vector4*>(all + 3 * b + i) = sums(sum[i], sum[i + 1], sum[i + 2], sum[i + 3]);
        }
        std::memcpy(gradients, all, sizeof(float) * 3 * count);
    }
};

template <int V>
void evaluate_block(const Layout& layout, const float* packed, const float* points, int count, float* values,
                    float* workspace) {
    const Block<V> block(layout, packed, points, count, workspace, false);
    std::memcpy(values, block.values, sizeof(float) * count);
}

template <int V>
void gradient_block(const Layout& layout, const float* packed, const float* points, int count, float* values,
                    float* gradients, float* workspace) {
    Block<V> block(layout, packed, points, count, workspace, true);
    std::memcpy(values, block.values, sizeof(float) * count);
    block.backward(block.output_slopes, nullptr, nullptr, nullptr);
    block.input_gradients(gradients);
}

// `gradient` or `hidden_biases` is null.
template <int V>
double loss_block(const Layout& layout, const float* packed, const Samples& now, const Samples& next, float* gradient,
                  float* hidden_biases, float* workspace) {
    float points[3 * block_points], targets[block_points];
    gather(now, points, targets);
    Block<V> block(layout, packed, points, now.count, workspace, true);
    const double loss = absolute_errors(block.values, targets, now.count, block.output_slopes);
    block.backward(block.output_slopes, gradient, hidden_biases, &next);
    return loss;
}

void evaluate(const Layout& layout, const float* packed, const float* points, int count, float* values,
              float* workspace) {
    (layout.panel == lanes ? evaluate_block<1> : evaluate_block<2>)(layout, packed, points, count, values, workspace);
}

void evaluate_with_gradient(const Layout& layout, const float* packed, const float* points, int count, float* values,
                            float* gradients, float* workspace) {
    (layout.panel == lanes ? gradient_block<1> : gradient_block<2>)(layout, packed, points, count, values, gradients,
                                                                    workspace);
}

double add_loss_gradient(const Layout& layout, const float* packed, const Samples& now, const Samples& next,
                         float* gradient, float* workspace) {
    return (layout.panel == lanes ? loss_block<1> : loss_block<2>)(layout, packed, now, next, gradient, nullptr,
                                                                   workspace);
}

double add_bias_gradient(const Layout& layout, const float* packed, const Samples& now, const Samples& next,
                         float* gradient, float* workspace) {
    return (layout.panel == lanes ? loss_block<1> : loss_block<2>)(layout, packed, now, next, nullptr, gradient,
                                                                   workspace);
}

double peak(std::int64_t rounds) {
    constexpr int count = registers - 4;  // enough to hide the latency
    Vector sum[count];
    UNROLL_FOR (int i = 0; i < count; ++i) sum[i] = broadcast(static_cast<float>(i));
    const Vector factor = broadcast(0.999f), term = broadcast(0.001f);
    for (std::int64_t r = 0; r < rounds; ++r)
        UNROLL_FOR (int i = 0; i < count; ++i) sum[i] = sum[i] * factor + term;
    UNROLL_FOR (int i = 1; i < count; ++i) sum[0] += sum[i];
    volatile float used = sum[0][0];  // prevents the compiler from removing the loop
    static_cast<void>(used);
    return 2.0 * lanes * count * static_cast<double>(rounds);
}

}  // namespace

#define NAME_OF(table) #table
#define TABLE(isa)                                       \
    const Kernel kernel_##isa = {NAME_OF(isa),           \
                                 lanes,                  \
                                 evaluate,               \
                                 evaluate_with_gradient, \
                                 add_loss_gradient,      \
                                 add_bias_gradient,      \
                                 peak,                   \
                                 soap_##isa,             \
                                 tape_##isa,             \
                                 balls_##isa,            \
                                 traversal_##isa,        \
                                 placement_##isa,        \
                                 nullptr};
#define EXPAND(isa) TABLE(isa)
EXPAND(NEURALSDF_KERNEL)

}  // namespace neuralsdf
