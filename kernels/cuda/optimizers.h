// optimizers.h
// A step of Adam or of SOAP (Vyas et al. 2024: Adam in the eigenbasis of Shampoo's preconditioner) on the packed
// weights of one network, as defined in neuralsdf/backends/reference/optimizer_steps.py. In SOAP each warp processes
// one layer at a time, with all its matrices of at most 33 by 33 (at width 32) in the warp's shared memory. The zeros
// of the padding stay zero.
#pragma once

#include "activation_functions.h"

namespace neuralsdf {
namespace gpu {

enum Method { soap, adam };  // as OPTIMIZERS in optimizer_settings.py

struct Optimiser {
    int method;
    int refresh;                       // number of steps between updates of the eigenbases
    float mean_share, square_share;    // 1 - beta1, 1 - beta2
    float epsilon;
};

// Parameters that change from step to step.
struct Update {
    float rate;
    float mean_correction, square_correction;  // 1 / (1 - beta^steps)
    bool first, refresh;
};

#ifdef __CUDACC__
#define NEURALSDF_CALLED __device__ __noinline__
NEURALSDF_DEVICE float square_root(float x) { return sqrtf(x); }
#else
#define NEURALSDF_CALLED inline
NEURALSDF_DEVICE float square_root(float x) { return std::sqrt(x); }
#endif

struct Matrix {
    float* at;
    int row, column;  // strides between rows and between columns, in floats
    NEURALSDF_DEVICE float& operator()(int i, int j) const { return at[i * row + j * column]; }
    NEURALSDF_DEVICE Matrix transposed() const { return {at, column, row}; }
};

// C (rows, columns) = A (rows, depth) B (depth, columns), computed by the lanes of a warp in tiles of 7 by 6, so 33 by
// 33 is one tile per lane. Indices beyond the last row or column are clamped.
NEURALSDF_CALLED void product(int lane, int rows, int columns, int depth, Matrix a, Matrix b, Matrix c) {
    constexpr int high = 7, wide = 6;
    const int down = (rows + high - 1) / high, across = (columns + wide - 1) / wide;
    NEURALSDF_ROLLED for (int tile = lane; tile < down * across; tile += warp_threads) {
        const int i = tile / across, j = tile % across;
        int left[high], right[wide];
        NEURALSDF_UNROLL for (int y = 0; y < high; ++y) {
            const int row = i + y * down;
            left[y] = (row < rows ? row : rows - 1) * a.row;
        }
        NEURALSDF_UNROLL for (int x = 0; x < wide; ++x) {
            const int column = j + x * across;
            right[x] = (column < columns ? column : columns - 1) * b.column;
        }
        float sums[high][wide] = {};
        NEURALSDF_ROLLED for (int k = 0; k < depth; ++k) {
            float weight[wide];
            NEURALSDF_UNROLL for (int x = 0; x < wide; ++x) weight[x] = b.at[right[x] + k * b.row];
            NEURALSDF_UNROLL for (int y = 0; y < high; ++y) {
                const float value = a.at[left[y] + k * a.column];
                NEURALSDF_UNROLL for (int x = 0; x < wide; ++x) sums[y][x] = multiply_add(value, weight[x], sums[y][x]);
            }
        }
        NEURALSDF_UNROLL for (int y = 0; y < high; ++y)
            NEURALSDF_UNROLL for (int x = 0; x < wide; ++x)
                if (i + y * down < rows && j + x * across < columns) c(i + y * down, j + x * across) = sums[y][x];
    }
}

// `write(i, j, read(i, j))` for the entries of a lane in a matrix. Several reads are issued before the first write, to
// hide the memory latency.
template <class Read, class Write>
NEURALSDF_DEVICE void for_entries(int lane, int rows, int columns, Read read, Write write) {
    constexpr int together = 8;
    NEURALSDF_ROLLED for (int j = lane; j < columns; j += warp_threads)
        NEURALSDF_ROLLED for (int i = 0; i < rows; i += together) {
            decltype(read(0, 0)) values[together];
            NEURALSDF_UNROLL for (int t = 0; t < together; ++t)
                if (i + t < rows) values[t] = read(i + t, j);
            NEURALSDF_UNROLL for (int t = 0; t < together; ++t)
                if (i + t < rows) write(i + t, j, values[t]);
        }
}

NEURALSDF_CALLED void copy_entries(int lane, int rows, int columns, Matrix from, Matrix to) {
    for_entries(lane, rows, columns, [&](int i, int j) { return from(i, j); },
                [&](int i, int j, float value) { to(i, j) = value; });
}

// mean += fraction (value - mean)
NEURALSDF_CALLED void follow(int lane, int rows, int columns, float fraction, Matrix value, Matrix mean) {
    for_entries(lane, rows, columns, [&](int i, int j) { return mean(i, j); },
                [&](int i, int j, float m) { mean(i, j) = m + fraction * (value(i, j) - m); });
}

struct Moments {
    float mean, square;
    NEURALSDF_DEVICE void follow(const Optimiser& o, float gradient) {
        mean += o.mean_share * (gradient - mean);
        square += o.square_share * (gradient * gradient - square);
    }
    NEURALSDF_DEVICE float direction(const Optimiser& o, const Update& u) const {
        return mean * u.mean_correction / (square_root(square * u.square_correction) + o.epsilon);
    }
};

// The gradient with respect to a packed weight: the sum over the warps of the block, in order, divided by the number of
// points.
struct Gradient {
    const float* rows;  // (warps, size)
    int warps, size;
    float points;
    NEURALSDF_DEVICE float operator()(int i) const {
        float sum = 0.0f;
        for (int warp = 0; warp < warps; ++warp) sum += rows[warp * size + i];
        return sum / points;
    }
};

// The data that a step updates. State for Adam: the running means of the gradient and of its square, each in the layout
// of the weights.
struct Shape {
    Gradient gradient;
    float *weights, *state;
    int width, depth;     // padded width and depth of the network
    float* scratch;       // scratch memory of SOAP for the first warp
    int scratch_stride;   // stride between warps
};

NEURALSDF_DEVICE void adam_step(const Block& block, const Optimiser& o, const Update& u, const Shape& shape) {
    const int size = shape.gradient.size;
    block.each([&](int thread) {
        for (int i = thread; i < size; i += block.threads()) {
            Moments moments = {u.first ? 0.0f : shape.state[i], u.first ? 0.0f : shape.state[size + i]};
            moments.follow(o, shape.gradient(i));
            shape.state[i] = moments.mean;
            shape.state[size + i] = moments.square;
            shape.weights[i] -= u.rate * moments.direction(o, u);
        }
    });
}

// Size of a layer's state in floats: L, Q_L, R, Q_R, and the means of the gradient and of its square.
NEURALSDF_DEVICE int soap_state_size(int rows, int columns) {
    return 2 * (rows * rows + columns * columns + rows * columns);
}

// Size of a warp's scratch memory in floats: four matrices with rows of odd length, to avoid bank conflicts.
NEURALSDF_DEVICE int soap_scratch_size(int width) { return 4 * (width + 1) * (width + 1); }

// A layer as a (rows, columns) matrix, kernel and bias, for a lane. `exists` is false for surplus warps.
struct SoapLayer {
    int lane, layer, rows, columns;
    bool exists;
    Matrix weights;
    Matrix g, product, basis, turn;  // scratch
    Matrix left, left_basis, right, right_basis, mean, square;

    NEURALSDF_DEVICE SoapLayer(const Block& block, const Shape& shape, int round, int thread)
        : lane(thread % warp_threads) {
        const int warp = thread / warp_threads, width = shape.width;
        layer = round * (block.threads() / warp_threads) + warp;
        exists = layer <= shape.depth;
        rows = layer ? width + 1 : 4;
        columns = layer == shape.depth ? 1 : width;
        weights = {shape.weights + (layer ? 4 * width + (layer - 1) * width * (width + 1) : 0), columns, 1};
        float* const scratch = shape.scratch + static_cast<long long>(warp) * shape.scratch_stride;
        const int matrix = (width + 1) * (width + 1), rr = rows * rows, cc = columns * columns;
        g = {scratch, width + 1, 1};
        product = {scratch + matrix, width + 1, 1};
        basis = {scratch + 2 * matrix, width + 1, 1};
        turn = {scratch + 3 * matrix, width + 1, 1};
        float* const state =
            shape.state + (layer ? soap_state_size(4, width) + (layer - 1) * soap_state_size(width + 1, width) : 0);
        left = {state, rows, 1};
        left_basis = {state + rr, rows, 1};
        right = {state + 2 * rr, columns, 1};
        right_basis = {state + 2 * rr + cc, columns, 1};
        mean = {state + 2 * (rr + cc), columns, 1};
        square = {state + 2 * (rr + cc) + rows * columns, columns, 1};
    }
};

// One round of SOAP: the warps process one layer each.
class SoapRound {
  public:
    using Layer = SoapLayer;

    NEURALSDF_DEVICE SoapRound(const Block& block, const Optimiser& o, const Update& u, const Shape& shape, int round)
        : block_(block), o_(o), u_(u), shape_(shape), round_(round) {}

    NEURALSDF_DEVICE void step() const {
        if (u_.first) begin();
        phase([&](const Layer& l) {
            const int first = static_cast<int>(l.weights.at - shape_.weights);
            for_entries(l.lane, l.rows, l.columns,
                        [&](int i, int j) { return shape_.gradient(first + i * l.columns + j); },
                        [&](int i, int j, float value) { l.g(i, j) = value; });
        });
        phase([](const Layer& l) {
            gpu::product(l.lane, l.rows, l.rows, l.columns, l.g, l.g.transposed(), l.product);
            gpu::product(l.lane, l.columns, l.columns, l.rows, l.g.transposed(), l.g, l.turn);
            copy_entries(l.lane, l.rows, l.rows, l.left_basis, l.basis);
        });
        phase([&](const Layer& l) {
            follow(l.lane, l.rows, l.rows, o_.square_share, l.product, l.left);
            follow(l.lane, l.columns, l.columns, o_.square_share, l.turn, l.right);
        });
        phase([](const Layer& l) {  // transform to the eigenbasis
            gpu::product(l.lane, l.rows, l.columns, l.rows, l.basis.transposed(), l.g, l.product);
        });
        phase([](const Layer& l) { copy_entries(l.lane, l.columns, l.columns, l.right_basis, l.basis); });
        phase([](const Layer& l) {
            gpu::product(l.lane, l.rows, l.columns, l.columns, l.product, l.basis, l.turn);
        });
        phase([&](const Layer& l) {
            for_entries(l.lane, l.rows, l.columns,
                        [&](int i, int j) { return Moments{l.mean(i, j), l.square(i, j)}; },
                        [&](int i, int j, Moments moments) {
                            moments.follow(o_, l.turn(i, j));
                            l.mean(i, j) = moments.mean;
                            l.square(i, j) = moments.square;
                            l.turn(i, j) = moments.direction(o_, u_);
                        });
        });
        phase([](const Layer& l) {  // transform back
            gpu::product(l.lane, l.rows, l.columns, l.columns, l.turn, l.basis.transposed(), l.product);
        });
        phase([](const Layer& l) { copy_entries(l.lane, l.rows, l.rows, l.left_basis, l.basis); });
        phase([](const Layer& l) {
            gpu::product(l.lane, l.rows, l.columns, l.rows, l.basis, l.product, l.turn);
        });
        phase([&](const Layer& l) {
            for_entries(l.lane, l.rows, l.columns, [&](int i, int j) { return l.weights(i, j); },
                        [&](int i, int j, float w) { l.weights(i, j) = w - u_.rate * l.turn(i, j); });
        });
        if (u_.refresh) refresh();
    }

  private:
    // Runs a phase and synchronises the threads of each warp only.
    template <class Function>
    NEURALSDF_DEVICE void phase(Function function) const {
        block_.each_in_warps([&](int thread) {
            const Layer layer(block_, shape_, round_, thread);
            if (layer.exists) function(layer);
        });
    }

    // Initialises the means to zero and the eigenbases to the identity.
    NEURALSDF_DEVICE void begin() const {
        phase([](const Layer& l) {
            const auto fill = [&](int size, Matrix means, Matrix basis) {
                for_entries(l.lane, size, size, [](int i, int j) { return i == j ? 1.0f : 0.0f; },
                            [&](int i, int j, float value) { means(i, j) = 0.0f, basis(i, j) = value; });
            };
            fill(l.rows, l.left, l.left_basis);
            fill(l.columns, l.right, l.right_basis);
            for_entries(l.lane, l.rows, l.columns, [](int, int) { return 0.0f; },
                        [&](int i, int j, float zero) { l.mean(i, j) = l.square(i, j) = zero; });
        });
    }

    // One step of orthogonal iteration for the eigenvectors of L and R: Q becomes the Q of the QR decomposition of L Q.
    // The mean gradient is transformed to the new basis.
    NEURALSDF_DEVICE void refresh() const {
        phase([](const Layer& l) {  // (L Q)^T, as L is symmetric; `basis` still has the old basis
            gpu::product(l.lane, l.rows, l.rows, l.rows, l.basis.transposed(), l.left, l.turn);
        });
        orthogonalise([](const Layer& l) { return l.rows; }, [](const Layer& l) { return l.g; });
        phase([](const Layer& l) {
            gpu::product(l.lane, l.rows, l.rows, l.rows, l.turn, l.basis, l.product);
            copy_entries(l.lane, l.rows, l.rows, l.turn.transposed(), l.left_basis);
        });
        phase([](const Layer& l) {
            gpu::product(l.lane, l.rows, l.columns, l.rows, l.product, l.mean, l.g);
            copy_entries(l.lane, l.columns, l.columns, l.right_basis, l.basis);
        });
        phase([](const Layer& l) {
            gpu::product(l.lane, l.columns, l.columns, l.columns, l.basis.transposed(), l.right, l.turn);
        });
        orthogonalise([](const Layer& l) { return l.columns; }, [](const Layer& l) { return l.product; });
        phase([](const Layer& l) {
            gpu::product(l.lane, l.columns, l.columns, l.columns, l.turn, l.basis, l.product);
            copy_entries(l.lane, l.columns, l.columns, l.turn.transposed(), l.right_basis);
        });
        phase([](const Layer& l) {
            gpu::product(l.lane, l.rows, l.columns, l.columns, l.g, l.product.transposed(), l.mean);
        });
    }

    // Replaces the rows of `turn`, the transpose of a square matrix A = Q R, by Q^T. Householder's method gives an
    // orthogonal Q for any A, even if it is rank-deficient. The reflectors, of length sqrt(2) or 0, are stored in the
    // rows of `reflectors`.
    template <class Size, class Reflectors>
    NEURALSDF_DEVICE void orthogonalise(Size size, Reflectors reflectors) const {
        NEURALSDF_ROLLED for (int k = 0; k <= shape_.width; ++k) {
            phase([&](const Layer& l) {
                if (k < size(l)) reflector(l.lane, k, size(l), &l.turn(k, 0), &reflectors(l)(k, 0));
            });
            phase([&](const Layer& l) {
                if (k >= size(l)) return;
                for (int j = k + 1 + l.lane; j < size(l); j += warp_threads)
                    reflect(k, size(l), &reflectors(l)(k, 0), &l.turn(j, 0));
            });
        }
        phase([&](const Layer& l) {  // Q e_j: the reflections in reverse order; those after j do not change it
            const int n = size(l);
            for (int j = l.lane; j < n; j += warp_threads) {
                float* const row = &l.turn(j, 0);
                for (int i = 0; i < n; ++i) row[i] = i == j ? 1.0f : 0.0f;
                for (int k = j; k >= 0; --k) reflect(k, n, &reflectors(l)(k, 0), row);
            }
        });
    }

    // Computes v such that x - v (v . x) is zero after entry k. Squares of very small entries would underflow, so such
    // a vector is treated as zero and not reflected.
    static NEURALSDF_CALLED void reflector(int lane, int k, int n, const float* x, float* v) {
        float largest = 0.0f;
        for (int i = k; i < n; ++i) largest = absolute(x[i]) > largest ? absolute(x[i]) : largest;
        const bool any = largest > 1e-30f;
        const float scale = any ? 1.0f / largest : 0.0f;
        float squares = 0.0f;
        for (int i = k; i < n; ++i) squares = multiply_add(x[i] * scale, x[i] * scale, squares);
        const float norm = square_root(squares), head = x[k] * scale;
        const float factor = any ? 1.0f / square_root(norm * (norm + absolute(head))) : 0.0f;
        for (int i = k + lane; i < n; i += warp_threads)
            v[i] = factor * (i > k ? x[i] * scale : head < 0.0f ? head - norm : head + norm);
    }

    // x -= v (v . x), except for the first k entries.
    static NEURALSDF_CALLED void reflect(int k, int n, const float* v, float* x) {
        float sum = 0.0f;
        for (int i = k; i < n; ++i) sum = multiply_add(v[i], x[i], sum);
        for (int i = k; i < n; ++i) x[i] = multiply_add(-sum, v[i], x[i]);
    }

    const Block& block_;
    const Optimiser& o_;
    const Update& u_;
    const Shape& shape_;
    const int round_;
};

NEURALSDF_DEVICE void soap_step(const Block& block, const Optimiser& o, const Update& u, const Shape& shape) {
    const int warps = block.threads() / warp_threads;
    NEURALSDF_ROLLED for (int round = 0; round * warps <= shape.depth; ++round)
        SoapRound(block, o, u, shape, round).step();
}

}  // namespace gpu
}  // namespace neuralsdf
