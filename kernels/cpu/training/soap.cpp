// A step of SOAP on one layer. Compiled once per instruction set; NEURALSDF_KERNEL is its name.
//
// L = E[G G^T] and R = E[G^T G] are running means. At every refresh their eigenvectors, the columns of Q_L and Q_R, are
// updated by one step of orthogonal iteration (Q <- the Q of the QR decomposition of L Q). Adam runs on Q_L^T G Q_R.
// All matrices are small, so the products below stay in the L1 cache.
#include "cpu/training/soap.h"

#include "cpu/simd.h"

namespace neuralsdf {
namespace {

// The matrices of a state. `_t`: eigenvectors as rows.
struct State {
    float *left, *left_basis, *left_basis_t;     // (rows, rows)
    float *right, *right_basis, *right_basis_t;  // (columns, columns)
    float *mean, *square;                        // (rows, columns), in the eigenbasis
    float *g, *product, *direction;              // (rows, columns)
    float* g_t;                                  // (columns, rows)
    float *scratch, *turn;                       // square matrices of the larger dimension
    float* factors;                              // factors of the reflections

    std::size_t size = 0;  // total size in floats

    State(const SoapShape& s, float* state) {
        const auto take = [this, state](std::size_t floats) {
            size += floats;
            return state ? state + size - floats : nullptr;
        };
        const std::size_t rr = std::size_t(s.rows) * s.padded_rows, cc = std::size_t(s.columns) * s.padded_columns;
        const std::size_t rc = std::size_t(s.rows) * s.padded_columns, cr = std::size_t(s.columns) * s.padded_rows;
        const std::size_t longest = rr > cc ? rr : cc;
        left = take(rr), left_basis = take(rr), left_basis_t = take(rr);
        right = take(cc), right_basis = take(cc), right_basis_t = take(cc);
        mean = take(rc), square = take(rc), g = take(rc), product = take(rc), direction = take(rc);
        g_t = take(cr);
        scratch = take(longest), turn = take(longest);
        factors = take(s.padded_rows > s.padded_columns ? s.padded_rows : s.padded_columns);
    }
};

// C = A B for R rows and V vectors of columns.
template <int R, int V>
INLINE void product_tile(int depth, const float* a, int a_stride, const float* b, int b_stride, float* c,
                         int c_stride) {
    Vector sum[R][V] = {};
    for (int k = 0; k < depth; ++k) {
        Vector row[V];
        UNROLL_FOR (int v = 0; v < V; ++v) row[v] = load(b + std::size_t(k) * b_stride + v * lanes);
        UNROLL_FOR (int r = 0; r < R; ++r) {
            const float scalar = a[std::size_t(r) * a_stride + k];
            UNROLL_FOR (int v = 0; v < V; ++v) sum[r][v] += row[v] * scalar;
        }
    }
    UNROLL_FOR (int r = 0; r < R; ++r)
        UNROLL_FOR (int v = 0; v < V; ++v) store(c + std::size_t(r) * c_stride + v * lanes, sum[r][v]);
}

template <int R>
INLINE void product_rows(int columns, int depth, const float* a, int a_stride, const float* b, int stride, float* c) {
    int j = 0;
    for (; j + 2 * lanes <= columns; j += 2 * lanes)
        product_tile<R, 2>(depth, a, a_stride, b + j, stride, c + j, stride);
    if (j < columns) product_tile<R, 1>(depth, a, a_stride, b + j, stride, c + j, stride);
}

// C (rows, columns) = A (rows, depth) B (depth, columns). `columns` is padded; it is the row stride of B and C.
NOINLINE void multiply(int rows, int columns, int depth, const float* a, int a_stride, const float* b, float* c) {
    int i = 0;
    const auto at = [&](int row) { return a + std::size_t(row) * a_stride; };
    for (; i + 6 <= rows; i += 6)
        product_rows<6>(columns, depth, at(i), a_stride, b, columns, c + std::size_t(i) * columns);
    for (; i + 3 <= rows; i += 3)
        product_rows<3>(columns, depth, at(i), a_stride, b, columns, c + std::size_t(i) * columns);
    for (; i < rows; ++i) product_rows<1>(columns, depth, at(i), a_stride, b, columns, c + std::size_t(i) * columns);
}

void transpose(int rows, int columns, const float* from, int from_stride, float* to, int to_stride) {
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) to[std::size_t(j) * to_stride + i] = from[std::size_t(i) * from_stride + j];
}

// mean += (1 - beta) (value - mean)
void follow(std::size_t size, float beta, const float* value, float* mean) {
    for (std::size_t i = 0; i < size; i += lanes) {
        const Vector m = load(mean + i);
        store(mean + i, m + (1 - beta) * (load(value + i) - m));
    }
}

// Applies the reflection 1 + factor v v^T to R rows, which start at `rows`. v is zero before `first`. Four sums over
// lanes cost little more than one.
template <int R>
INLINE void reflect_rows(int first, int stride, const float* v, float factor, float* rows) {
    Vector sum[4] = {};
    for (int i = first; i < stride; i += lanes)
        UNROLL_FOR (int r = 0; r < R; ++r) sum[r] += load(v + i) * load(rows + std::size_t(r) * stride + i);
    const Vector4 along = sums(sum[0], sum[1], sum[2], sum[3]) * factor;
    for (int i = first; i < stride; i += lanes)
        UNROLL_FOR (int r = 0; r < R; ++r) {
            float* row = rows + std::size_t(r) * stride + i;
            store(row, load(row) + load(v + i) * along[r]);
        }
}

INLINE void reflect(int count, int first, int stride, const float* v, float factor, float* rows) {
    int j = 0;
    for (; j + 4 <= count; j += 4) reflect_rows<4>(first, stride, v, factor, rows + std::size_t(j) * stride);
    for (; j < count; ++j) reflect_rows<1>(first, stride, v, factor, rows + std::size_t(j) * stride);
}

// Computes the reflector v, zero before k, that maps a row to the axis k; returns the factor of v v^T.
INLINE float make_reflector(int k, int first, int stride, const float* row, float* v) {
    for (int i = first; i < stride; i += lanes) store(v + i, load(row + i));
    for (int i = first; i < k; ++i) v[i] = 0;
    Vector magnitudes = {}, squares = {};
    for (int i = first; i < stride; i += lanes) {
        const Vector m = absolute(load(v + i));
        magnitudes = m > magnitudes ? m : magnitudes;
    }
    float largest = 0;
    for (int i = 0; i < lanes; ++i) largest = magnitudes[i] > largest ? magnitudes[i] : largest;
    // Squares of smaller entries would underflow. Such a row is treated as zero and not reflected.
    if (!(largest > 1e-30f)) return 0;
    for (int i = first; i < stride; i += lanes) {
        const Vector scaled = load(v + i) * (1 / largest);
        squares += scaled * scaled;
        store(v + i, scaled);
    }
    const float norm = __builtin_sqrtf(sums(squares, Vector{}, Vector{}, Vector{})[0]);
    const float along = v[k] < 0 ? -v[k] : v[k];
    v[k] += v[k] < 0 ? -norm : norm;
    return -1 / (norm * (norm + along));  // -2 / |v|^2
}

// Replaces rows (n, n), the transpose of a matrix A = Q R, by Q^T. Householder's method gives an orthogonal Q for any
// A, even if it is rank-deficient. `scratch` stores the reflectors.
NOINLINE void orthogonalise(int n, int stride, float* rows, float* scratch, float* factors) {
    for (int k = 0; k < n; ++k) {
        const int first = k / lanes * lanes;
        float *row = rows + std::size_t(k) * stride, *v = scratch + std::size_t(k) * stride;
        factors[k] = make_reflector(k, first, stride, row, v);
        if (factors[k] != 0) reflect(n - k - 1, first, stride, v, factors[k], row + stride);
    }
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < stride; ++j) rows[std::size_t(i) * stride + j] = i == j ? 1.0f : 0.0f;
    for (int k = n - 1; k >= 0; --k) {
        const std::size_t at = std::size_t(k) * stride;
        if (factors[k] != 0) reflect(n - k, k / lanes * lanes, stride, scratch + at, factors[k], rows + at);
    }
}

// One step of orthogonal iteration for the eigenvectors of `matrix` (n, n). On return, `scratch` has the product of the
// new basis^T and the old basis, which transforms vectors from the old to the new basis.
void refresh_basis(int n, int stride, const float* matrix, float* basis, float* basis_t, float* scratch, float* turn,
                   float* factors) {
    multiply(n, stride, n, basis_t, stride, matrix, turn);  // (M Q)^T: M is symmetric
    orthogonalise(n, stride, turn, scratch, factors);
    multiply(n, stride, n, turn, stride, basis, scratch);
    __builtin_memcpy(basis_t, turn, sizeof(float) * n * stride);
    transpose(n, n, basis_t, stride, basis, stride);
}

void step(const SoapShape& s, const SoapRates& rates, const float* gradient, float* weights, float* state) {
    const State soap(s, state);
    const int r = s.rows, c = s.columns, rp = s.padded_rows, cp = s.padded_columns;
    const std::size_t size = std::size_t(r) * cp;
    if (rates.first) {
        for (int i = 0; i < r; ++i)
            soap.left_basis[std::size_t(i) * rp + i] = soap.left_basis_t[std::size_t(i) * rp + i] = 1;
        for (int i = 0; i < c; ++i)
            soap.right_basis[std::size_t(i) * cp + i] = soap.right_basis_t[std::size_t(i) * cp + i] = 1;
    }
    for (int i = 0; i < r; ++i)
        __builtin_memcpy(soap.g + std::size_t(i) * cp, gradient + std::size_t(i) * c, sizeof(float) * c);
    transpose(r, c, soap.g, cp, soap.g_t, rp);
    multiply(r, rp, c, soap.g, cp, soap.g_t, soap.scratch);
    follow(std::size_t(r) * rp, rates.beta, soap.scratch, soap.left);
    multiply(c, cp, r, soap.g_t, rp, soap.g, soap.scratch);
    follow(std::size_t(c) * cp, rates.beta, soap.scratch, soap.right);

    multiply(r, cp, r, soap.left_basis_t, rp, soap.g, soap.product);
    multiply(r, cp, c, soap.product, cp, soap.right_basis, soap.direction);
    const float scale = 1 / rates.correction;
    for (std::size_t i = 0; i < size; i += lanes) {
        const Vector g = load(soap.direction + i);
        const Vector mean = load(soap.mean + i) + (1 - rates.beta) * (g - load(soap.mean + i));
        const Vector square = load(soap.square + i) + (1 - rates.beta) * (g * g - load(soap.square + i));
        store(soap.mean + i, mean);
        store(soap.square + i, square);
        store(soap.direction + i, mean * scale / (square_root(square * scale) + rates.epsilon));
    }
    multiply(r, cp, r, soap.left_basis, rp, soap.direction, soap.product);
    multiply(r, cp, c, soap.product, cp, soap.right_basis_t, soap.direction);
    for (int i = 0; i < r; ++i)
        for (int j = 0; j < c; ++j)
            weights[std::size_t(i) * c + j] -= rates.rate * soap.direction[std::size_t(i) * cp + j];

    if (!rates.refresh) return;
    refresh_basis(r, rp, soap.left, soap.left_basis, soap.left_basis_t, soap.scratch, soap.turn, soap.factors);
    multiply(r, cp, r, soap.scratch, rp, soap.mean, soap.product);
    refresh_basis(c, cp, soap.right, soap.right_basis, soap.right_basis_t, soap.scratch, soap.turn, soap.factors);
    transpose(c, c, soap.scratch, cp, soap.turn, cp);
    multiply(r, cp, c, soap.product, cp, soap.turn, soap.mean);
}

SoapShape shape(int rows, int columns) {
    const auto padded = [](int count) { return (count + lanes - 1) / lanes * lanes; };
    return {rows, columns, padded(rows), padded(columns)};
}

std::size_t state_size(const SoapShape& s) { return State(s, nullptr).size; }

}  // namespace

#define TABLE(isa) const Soap soap_##isa = {shape, state_size, step};
#define EXPAND(isa) TABLE(isa)
EXPAND(NEURALSDF_KERNEL)

}  // namespace neuralsdf
