// Implements amx_tiles.h with Intel AMX, which has eight registers for tiles of 16 rows of 64 bytes each.
//
// Points are processed in groups of 32, and features in panels of 32; both are two tiles wide. In a product A B of
// tiles, a row of A has consecutive bfloat16 of the summed index. B has pairs of them, one above the other. The order
// of the summed index is arbitrary: word r of a row of A, and row r of B, have the elements r and r + 16 of a panel or
// a group. This order costs two instructions for two vectors.
//
// In the forward pass rows are features, z = W^T x; in the backward pass rows are points, delta' = delta W^T. With this
// choice each step produces its results in the layout that the next step and the weight gradient (the product of both
// over the points) read. Only the bit masks of positive activations are transposed.
#include "cpu/mlp/amx_tiles.h"

#ifdef NEURALSDF_AMX

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu/kernels_by_instruction_set.h"
#include "cpu/mlp/loss.h"
#include "cpu/simd.h"

#include <type_traits>

namespace neuralsdf {
namespace {

constexpr int panel = 2 * lanes, group = 2 * lanes;
constexpr int groups_of_block = block_points / group;
static_assert(lanes == 16 && block_points % group == 0, "a block is whole groups");

constexpr int tile_floats = 256;
// The tiles of a panel of a group, high and low parts: [tile][high, low].
constexpr int both = 2 * tile_floats, panel_floats = 2 * both;
// Words of the bit mask of a group: 32 features at 32 points, or transposed.
constexpr int bit_words = 32;

constexpr std::uint32_t upper_half = 0xffff0000u;

// -- tile registers ------------------------------------------------------------------------------------

struct alignas(64) Configuration {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr Configuration configuration;

// Configures the tile registers during its lifetime.
struct TileRegisters {
    TileRegisters() { _tile_loadconfig(&configuration); }
    ~TileRegisters() { _tile_release(); }
};

// Registers 0 to 3 are accumulators [tile of A][tile of B]. These functions load and store rows that are `stride`
// floats apart.
INLINE void load_sums(const float* from, const float* second_row, const float* second_column, const float* last,
                      int stride) {
    _tile_loadd(0, from, 4 * stride);
    _tile_loadd(1, second_column, 4 * stride);
    _tile_loadd(2, second_row, 4 * stride);
    _tile_loadd(3, last, 4 * stride);
}

INLINE void store_sums(float* to, float* second_row, float* second_column, float* last, int stride) {
    _tile_stored(0, to, 4 * stride);
    _tile_stored(1, second_column, 4 * stride);
    _tile_stored(2, second_row, 4 * stride);
    _tile_stored(3, last, 4 * stride);
}

INLINE void clear_sums() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

// Compiler barrier: completes preceding stores, because the compiler does not know that tile loads read memory.
INLINE void settle() { __asm__ volatile("" ::: "memory"); }

INLINE void add_each_product() {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

// Adds A B of a panel, or of a group, to the accumulators. Between the products it calls `other(part)` for three parts
// of other work, because the tile unit and the vector units run in parallel.
template <class Other>
INLINE void add_products(const float* a, const float* b, const Other& other) {
    _tile_loadd(4, a, 64);
    _tile_loadd(5, a + both, 64);
    _tile_loadd(6, b, 64);
    _tile_loadd(7, b + both, 64);
    add_each_product();
    other(std::integral_constant<int, 0>());
    _tile_loadd(6, b + tile_floats, 64);
    _tile_loadd(7, b + both + tile_floats, 64);
    add_each_product();
    other(std::integral_constant<int, 1>());
    _tile_loadd(4, a + tile_floats, 64);
    _tile_loadd(5, a + both + tile_floats, 64);
    _tile_loadd(6, b, 64);
    _tile_loadd(7, b + both, 64);
    add_each_product();
    other(std::integral_constant<int, 2>());
}

INLINE void nothing(int) {}

// -- splitting into bfloat16 -----------------------------------------------------------------------------

INLINE void store_bits(float* to, Bits bits) { *reinterpret_cast<Bits*>(to) = bits; }

// The upper halves of two vectors, the first one in the lower half of the result.
INLINE Bits paired(Bits first, Bits second) { return first >> 16 | (second & upper_half); }

// Splits rows r and r + 16 of a panel; v[i][j] has the lanes from 16 j of row r + 16 i. Pairs within a row go to row r
// of tile i of `along`. Pairs across both rows go to row r of tile j of `across`.
template <bool Along, bool Across>
INLINE void split(const Vector (&v)[2][2], int r, float* along, float* across) {
    Bits leading[2][2], rest[2][2];
    UNROLL_FOR (int i = 0; i < 2; ++i)
        UNROLL_FOR (int j = 0; j < 2; ++j) {
            leading[i][j] = to_bits(v[i][j]) & upper_half;
            rest[i][j] = to_bits(v[i][j] - from_bits(leading[i][j])) + 0x8000u;  // rounded
        }
    UNROLL_FOR (int k = 0; k < 2; ++k) {
        const int at = k * both + r * lanes;
        if (Along) {
            store_bits(along + at, paired(leading[k][0], leading[k][1]));
            store_bits(along + at + tile_floats, paired(rest[k][0], rest[k][1]));
        }
        if (Across) {
            store_bits(across + at, paired(leading[0][k], leading[1][k]));
            store_bits(across + at + tile_floats, paired(rest[0][k], rest[1][k]));
        }
    }
}

// -- bits ----------------------------------------------------------------------------------------------

INLINE std::uint32_t positive(Vector low, Vector high) {
    const auto bits = [](Vector v) { return std::uint32_t(_mm512_cmp_ps_mask(v, Vector{}, _CMP_NLE_UQ)); };
    return bits(low) | bits(high) << 16;
}

// Byte permutations that arrange a 32 x 32 bit matrix as 8 x 8 blocks of 8 contiguous bytes each, and back.
struct alignas(64) Blocks {
    std::uint8_t of_half[64];  // from one half of the rows
    std::uint8_t back[2][64];  // to each half, from the blocks of both halves
    std::uint8_t identity[64];
    constexpr Blocks() : of_half{}, back{}, identity{} {
        for (int block = 0; block < 8; ++block)
            for (int q = 0; q < 8; ++q) {
                of_half[8 * block + q] = std::uint8_t((8 * (block / 4) + 7 - q) * 4 + block % 4);  // reversed rows
                identity[8 * block + q] = std::uint8_t(1 << q);
            }
        for (int row = 0; row < 32; ++row)
            for (int byte = 0; byte < 4; ++byte)
                back[row / 16][row % 16 * 4 + byte] =
                    std::uint8_t(byte / 2 * 64 + (byte % 2 * 4 + row / 8) * 8 + row % 8);
    }
};
constexpr Blocks blocks;

// Transposes a bit matrix with one word per row.
INLINE void transpose_bits(const std::uint32_t* rows, std::uint32_t* columns) {
    const __m512i gather = _mm512_load_si512(blocks.of_half), identity = _mm512_load_si512(blocks.identity);
    __m512i half[2];
    UNROLL_FOR (int i = 0; i < 2; ++i)
        half[i] = _mm512_gf2p8affine_epi64_epi8(identity,
                                                _mm512_permutexvar_epi8(gather, _mm512_loadu_si512(rows + 16 * i)), 0);
    UNROLL_FOR (int i = 0; i < 2; ++i)
        _mm512_storeu_si512(columns + 16 * i,
                            _mm512_permutex2var_epi8(half[0], _mm512_load_si512(blocks.back[i]), half[1]));
}

INLINE Vector chosen(std::uint32_t bits, Vector v) { return _mm512_maskz_mov_ps(static_cast<__mmask16>(bits), v); }

// -- a network -----------------------------------------------------------------------------------------

int panels(int padded_width) { return padded_width / panel; }
int input_panels(const Layer& layer) { return panels(layer.padded_inputs); }
int output_panels(const Layer& layer) { return panels(layer.padded_outputs); }

// Offset of the packed weights from an input panel to an output panel of a layer, as A for the forward pass. The
// weights for the backward pass, as B, follow all of those.
std::size_t forth_at(const Layer& layer, int input, int output) {
    return layer.tiles + std::size_t(output * input_panels(layer) + input) * panel_floats;
}
std::size_t back_at(const Layer& layer, int input, int output) {
    return forth_at(layer, input, output_panels(layer) + output);
}

void pack_layer(const Layout& layout, int l, float* packed) {
    const Layer& layer = layout.layers[l];
    for (int input = 0; input < input_panels(layer); ++input)
        for (int output = 0; output < output_panels(layer); ++output) {
            const float* weights =
                packed + layer.transposed + std::size_t(input * layer.padded_outputs + output * panel) * panel;
            for (int r = 0; r < lanes; ++r) {
                Vector v[2][2];  // outputs r and r + 16
                UNROLL_FOR (int i = 0; i < 2; ++i)
                    UNROLL_FOR (int j = 0; j < 2; ++j) v[i][j] = load(weights + (r + i * lanes) * panel + j * lanes);
                split<true, true>(v, r, packed + forth_at(layer, input, output),
                                  packed + back_at(layer, input, output));
            }
        }
}

// -- work on the rows of a panel of a group: `add` does some of it, `end` the rest --------------------------------

// Reads stored accumulators: the lanes from 16 j of row r + 16 i.
struct Stored {
    const float* sums;
    INLINE Vector operator()(int r, int i, int j) const { return load(sums + (2 * i + j) * tile_floats + r * lanes); }
};

// What a pass over a block computes: values; also the gradient with respect to the hidden biases; or that with respect
// to all weights.
enum class Pass { values, biases, weights };

// Computes activations from z, the products without bias, of features at points. Writes as_b for the next layer, as_a
// for the weight gradient, and the mask of positive activations for the backward pass.
template <Pass P, class Z>
struct Activation {
    Z z;
    const float* bias;
    float *as_b, *as_a;
    std::uint32_t* positives;
    alignas(64) std::uint32_t bits[bit_words];

    template <int From, int To>
    INLINE void add() {
        UNROLL_FOR (int r = From; r < To; ++r) {
            Vector v[2][2];
            UNROLL_FOR (int i = 0; i < 2; ++i) {
                UNROLL_FOR (int j = 0; j < 2; ++j) v[i][j] = relu(z(r, i, j) + bias[r + i * lanes]);
                if (P != Pass::values) bits[i * lanes + r] = positive(v[i][0], v[i][1]);
            }
            split<P == Pass::weights, true>(v, r, as_a, as_b);
        }
    }
    INLINE void end() {
        if (P != Pass::values) transpose_bits(bits, positives);
    }
};

// As above for the last hidden layer. Also accumulates the single output of the next layer. Stores the activations as
// floats for the weight gradient.
template <Pass P, class Z>
struct LastActivation {
    Z z;
    const float *bias, *weights;
    float *values, *kept;
    std::uint32_t* positives;
    Vector sum[2][2];
    alignas(64) std::uint32_t bits[bit_words];

    template <int From, int To>
    INLINE void add() {
        UNROLL_FOR (int r = From; r < To; ++r)
            UNROLL_FOR (int i = 0; i < 2; ++i) {
                Vector v[2];
                UNROLL_FOR (int j = 0; j < 2; ++j) {
                    v[j] = relu(z(r, i, j) + bias[r + i * lanes]);
                    sum[i][j] += v[j] * weights[i * lanes + r];
                    if (P == Pass::weights) store(kept + ((i * lanes + r) * 2 + j) * lanes, v[j]);
                }
                if (P != Pass::values) bits[i * lanes + r] = positive(v[0], v[1]);
            }
    }
    INLINE void end() {
        UNROLL_FOR (int j = 0; j < 2; ++j)
            store(values + j * lanes, load(values + j * lanes) + (sum[0][j] + sum[1][j]));
        if (P != Pass::values) transpose_bits(bits, positives);
    }
};

// Adds sums over points for the features from 16 j; the two halves of the points are separate.
INLINE void add_to(float* to, const Vector (&sum)[2][2]) {
    UNROLL_FOR (int j = 0; j < 2; ++j) store(to + j * lanes, load(to + j * lanes) + (sum[0][j] + sum[1][j]));
}

// Computes delta, the derivatives with respect to z, from those with respect to activations. Writes as_a for the layer
// below and as_b for the weight gradient; adds their sum to the bias gradient.
template <Pass P, class ByX>
struct Delta {
    ByX by_x;
    const std::uint32_t* positives;
    float *as_a, *as_b, *bias;
    Vector sum[2][2];

    template <int From, int To>
    INLINE void add() {
        UNROLL_FOR (int r = From; r < To; ++r) {
            Vector v[2][2];
            UNROLL_FOR (int i = 0; i < 2; ++i)
                UNROLL_FOR (int j = 0; j < 2; ++j) {
                    v[i][j] = chosen(positives[r + i * lanes] >> (16 * j), by_x(r, i, j));
                    sum[i][j] += v[i][j];
                }
            split<true, P == Pass::weights>(v, r, as_a, as_b);
        }
    }
    INLINE void end() { add_to(bias, sum); }
};

// As above for the first layer. Also accumulates its weight gradient, because its inputs are the coordinates of the
// points.
template <Pass P, class ByX>
struct FirstDelta {
    ByX by_x;
    const std::uint32_t* positives;
    const float* coordinates;  // [coordinate][block_points]
    float *weights, *bias;
    Vector sum[4][2][2];  // times the coordinates, and times 1

    template <int From, int To>
    INLINE void add() {
        UNROLL_FOR (int r = From; r < To; ++r)
            UNROLL_FOR (int i = 0; i < 2; ++i)
                UNROLL_FOR (int j = 0; j < 2; ++j) {
                    const Vector d = chosen(positives[r + i * lanes] >> (16 * j), by_x(r, i, j));
                    if (P == Pass::weights)
                        UNROLL_FOR (int k = 0; k < 3; ++k)
                            sum[k][i][j] += d * coordinates[k * block_points + r + i * lanes];
                    sum[3][i][j] += d;
                }
    }
    INLINE void end() {
        for (int k = 0; k < 3 && P == Pass::weights; ++k) add_to(weights + k * panel, sum[k]);
        add_to(bias, sum[3]);
    }
};

template <class Rows>
INLINE void finish(Rows rows) {
    rows.template add<0, 16>();
    rows.end();
}

// The forward pass of one block of points and, unless P is `values`, the backward pass.
template <Pass P>
struct Block {
    const Layout& layout;
    const float* packed;
    const int groups, last;  // layer
    // Activations [panel][group] of all layers in the layout of the weight gradient; as floats for the last layer.
    float* kept;
    // Two alternating buffers [panel][group] in the layout that the next layer reads: x in the forward pass, delta in
    // the backward pass.
    float* turns[2];
    float* deltas;             // delta [panel][group] in the layout of the weight gradient
    std::uint32_t* positives;  // [panel][group][point] of all layers
    alignas(64) float points[3][block_points];
    alignas(64) float values[block_points] = {};    // f
    alignas(64) float output_slopes[block_points];  // df/dz of the output layer
    alignas(64) float sums[2][panel_floats];        // stored accumulators [tile][tile]

    Block(const Layout& layout, const float* packed, const float* from, int count, float* workspace)
        : layout(layout), packed(packed), groups((count + group - 1) / group), last(layout.depth - 1) {
        kept = workspace;
        turns[0] = workspace + (P == Pass::weights ? layout.activations_size : 0);
        // A layer of a single panel overwrites its input, group by group.
        turns[1] = turns[0] + (layout.widest > panel * block_points ? layout.widest : 0);
        deltas = turns[1] + layout.widest;
        positives = reinterpret_cast<std::uint32_t*>(deltas + layout.widest);
        for (int b = 0; b < groups * group; ++b)
            for (int i = 0; i < 3; ++i) points[i][b] = b < count ? from[3 * b + i] : 0.0f;
        forth();
    }

    INLINE const float* bias_of(int l, int p) const { return packed + layout.layers[l].bias + p * panel; }
    static INLINE std::size_t place(int p, int g) { return std::size_t(p * groups_of_block + g); }
    INLINE float* kept_of(int l, int p, int g) const {
        return kept + layout.layers[l].activations + place(p, g) * panel_floats;
    }
    INLINE float* turn_of(int l, int p, int g) const { return turns[l % 2] + place(p, g) * panel_floats; }
    INLINE float* delta_of(int p, int g) const { return deltas + place(p, g) * panel_floats; }
    INLINE std::uint32_t* positive_of(int l, int p, int g) const {
        return positives + layout.layers[l].activations / panel + place(p, g) * bit_words;
    }

    // Computes the sums of all panels and groups with `multiply(p, g, other)`. `rows(p, g, sums)` returns the work on a
    // sum, which is executed while the next sum is computed.
    template <class Multiply, class Rows>
    INLINE void each(int count, const Multiply& multiply, const Rows& rows) {
        const auto sum = [&](int k, const auto& other) __attribute__((always_inline)) {
            settle();
            multiply(k / groups, k % groups, other);
            float* to = sums[k % 2];
            store_sums(to, to + 2 * tile_floats, to + tile_floats, to + 3 * tile_floats, lanes);
        };
        const int jobs = count * groups;
        sum(0, nothing);
        for (int k = 0; k + 1 < jobs; ++k) {
            auto now = rows(k / groups, k % groups, Stored{sums[k % 2]});
            sum(k + 1, [&](auto part)
                           __attribute__((always_inline)) { now.template add<16 * part / 3, 16 * (part + 1) / 3>(); });
            now.end();
        }
        finish(rows((jobs - 1) / groups, (jobs - 1) % groups, Stored{sums[(jobs - 1) % 2]}));
    }

    // Forward pass: all layers and the values.
    INLINE void forth() {
        last ? first_layer([&](int p, int g, auto z) { return activation(0, p, g, z); })
             : first_layer([&](int p, int g, auto z) { return last_activation(p, g, z); });
        for (int l = 1; l <= last; ++l) {
            const Layer& layer = layout.layers[l];
            const auto multiply = [&](int p, int g, const auto& other) __attribute__((always_inline)) {
                clear_sums();
                add_products(packed + forth_at(layer, 0, p), turn_of(l - 1, 0, g), other);
                for (int i = 1; i < input_panels(layer); ++i)
                    add_products(packed + forth_at(layer, i, p), turn_of(l - 1, i, g), nothing);
            };
            if (l < last)
                each(output_panels(layer), multiply, [&](int p, int g, Stored z) { return activation(l, p, g, z); });
            else
                each(output_panels(layer), multiply, [&](int p, int g, Stored z) { return last_activation(p, g, z); });
        }
        const bool bounded = layout.output == Output::tanh;
        for (int b = 0; b < groups * group; b += lanes) {
            const Vector z = load(values + b) + packed[layout.output_bias], y = bounded ? tanh(z) : z;
            store(values + b, y);
            store(output_slopes + b, bounded ? 1.0f - y * y : broadcast(1.0f));
        }
    }

    template <class Z>
    INLINE Activation<P, Z> activation(int l, int p, int g, Z z) const {
        return {z,
                bias_of(l, p),
                turn_of(l, p, g),
                P == Pass::weights ? kept_of(l, p, g) : nullptr,
                P != Pass::values ? positive_of(l, p, g) : nullptr,
                {}};
    }
    template <class Z>
    INLINE LastActivation<P, Z> last_activation(int p, int g, Z z) {
        return {z,
                bias_of(last, p),
                packed + layout.output_weights + p * panel,
                values + g * group,
                P == Pass::weights ? kept_of(last, p, g) : nullptr,
                P != Pass::values ? positive_of(last, p, g) : nullptr,
                {},
                {}};
    }

    template <class Rows>
    INLINE void first_layer(const Rows& rows) {
        const Layer& layer = layout.layers[0];
        for (int p = 0; p < output_panels(layer); ++p) {
            const float* weights = packed + layer.weights + p * 3 * panel;
            for (int g = 0; g < groups; ++g) {
                Vector x[3][2];
                UNROLL_FOR (int i = 0; i < 3; ++i)
                    UNROLL_FOR (int j = 0; j < 2; ++j) x[i][j] = load(points[i] + g * group + j * lanes);
                finish(rows(p, g, [&](int r, int i, int j) __attribute__((always_inline)) {
                    const float* w = weights + i * lanes + r;
                    return x[0][j] * w[0] + (x[1][j] * w[panel] + x[2][j] * w[2 * panel]);
                }));
            }
        }
    }

    // Backward pass for the derivatives `by_output` with respect to the output layer's z. Adds to the gradient and
    // prefetches `next`.
    INLINE void back(const float* by_output, const Samples& next, float* gradient) {
        if (P == Pass::weights) add_output_gradient(by_output, gradient);
        const auto top = [&](const auto& rows) __attribute__((always_inline)) {
            for (int p = 0; p < output_panels(layout.layers[last]); ++p) {
                const float* weights = packed + layout.output_weights + p * panel;
                const Vector w[2] = {load(weights), load(weights + lanes)};
                for (int g = 0; g < groups; ++g) {
                    const float* by = by_output + g * group;
                    finish(rows(p, g, [&](int r, int i, int j) __attribute__((always_inline)) {
                        return w[j] * by[r + i * lanes];
                    }));
                }
            }
        };
        last ? top([&](int p, int g, auto by_x) { return delta(last, p, g, gradient, by_x); })
             : top([&](int p, int g, auto by_x) { return first_delta(p, g, gradient, by_x); });
        for (int l = last; l > 0; --l) {
            const Layer& layer = layout.layers[l];
            prefetch_part(next, last - l, last);
            if (P == Pass::weights) add_weight_gradient(l, gradient);
            const auto multiply = [&](int p, int g, const auto& other) __attribute__((always_inline)) {
                clear_sums();
                add_products(turn_of(l, 0, g), packed + back_at(layer, p, 0), other);
                for (int o = 1; o < output_panels(layer); ++o)
                    add_products(turn_of(l, o, g), packed + back_at(layer, p, o), nothing);
            };
            if (l > 1)
                each(input_panels(layer), multiply,
                     [&](int p, int g, Stored by_x) { return delta(l - 1, p, g, gradient, by_x); });
            else
                each(input_panels(layer), multiply,
                     [&](int p, int g, Stored by_x) { return first_delta(p, g, gradient, by_x); });
        }
    }

    template <class ByX>
    INLINE Delta<P, ByX> delta(int l, int p, int g, float* gradient, ByX by_x) const {
        return {by_x, positive_of(l, p, g), turn_of(l, p, g), delta_of(p, g), bias_gradient(l, p, gradient), {}};
    }
    template <class ByX>
    INLINE FirstDelta<P, ByX> first_delta(int p, int g, float* gradient, ByX by_x) const {
        const Layer& layer = layout.layers[0];
        return {by_x,
                positive_of(0, p, g),
                points[0] + g * group,
                gradient + layer.weights + p * 3 * panel,
                bias_gradient(0, p, gradient),
                {}};
    }

    INLINE float* bias_gradient(int l, int p, float* gradient) const {
        const Layer& layer = layout.layers[l];
        return gradient + (P == Pass::weights ? layer.bias : layer.hidden_bias) + p * panel;
    }

    INLINE void add_output_gradient(const float* by_output, float* gradient) {
        for (int p = 0; p < output_panels(layout.layers[last]); ++p)
            for (int f = 0; f < panel; f += 4) {
                Vector sum[4] = {};
                for (int g = 0; g < groups; ++g)
                    UNROLL_FOR (int j = 0; j < 2; ++j) {
                        const Vector by = load(by_output + g * group + j * lanes);
                        const float* x = kept_of(last, p, g) + (2 * f + j) * lanes;
                        UNROLL_FOR (int k = 0; k < 4; ++k) sum[k] += by * load(x + 2 * k * lanes);
                    }
                auto* const to = reinterpret_cast<Vector4*>(gradient + layout.output_weights + p * panel + f);
                *to += neuralsdf::sums(sum[0], sum[1], sum[2], sum[3]);
            }
        for (int b = 0; b < groups * group; ++b) gradient[layout.output_bias] += by_output[b];
    }

    // Adds x^T delta, with x of the layer below and delta of this layer.
    INLINE void add_weight_gradient(int l, float* gradient) {
        const Layer& layer = layout.layers[l];
        settle();
        for (int o = 0; o < output_panels(layer); ++o)
            for (int i = 0; i < input_panels(layer); ++i) {
                float* const to = gradient + layer.weights + std::size_t(o * layer.padded_inputs + i * panel) * panel;
                float* const second = to + lanes * panel;
                load_sums(to, second, to + lanes, second + lanes, panel);
                for (int g = 0; g < groups; ++g) add_products(kept_of(l - 1, i, g), delta_of(o, g), nothing);
                store_sums(to, second, to + lanes, second + lanes, panel);
            }
    }
};

void evaluate(const Layout& layout, const float* packed, const float* points, int count, float* values,
              float* workspace) {
    const TileRegisters registers;
    const Block<Pass::values> block(layout, packed, points, count, workspace);
    std::memcpy(values, block.values, sizeof(float) * count);
}

template <Pass P>
double add_gradient(const Layout& layout, const float* packed, const Samples& now, const Samples& next, float* gradient,
                    float* workspace) {
    const TileRegisters registers;
    float points[3 * block_points], targets[block_points];
    gather(now, points, targets);
    Block<P> block(layout, packed, points, now.count, workspace);
    const double loss = absolute_errors(block.values, targets, now.count, block.output_slopes);
    block.back(block.output_slopes, next, gradient);
    return loss;
}

}  // namespace

const Tiles tiles_amx = {pack_layer, evaluate, add_gradient<Pass::weights>, add_gradient<Pass::biases>};

bool has_amx() {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    constexpr unsigned vbmi_gfni = 1 << 1 | 1 << 8, bf16_tile = 1 << 22 | 1 << 24;  // AVX512-VBMI, GFNI; AMX
    if ((c & vbmi_gfni) != vbmi_gfni || (d & bf16_tile) != bf16_tile) return false;
    constexpr int request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, request, tile_data) == 0;
}

}  // namespace neuralsdf

#endif
