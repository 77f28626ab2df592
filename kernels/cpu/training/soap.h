// The state of SOAP (Vyas et al. 2024) for one layer: Adam in the eigenbasis of Shampoo's preconditioner.
#pragma once

#include <cstddef>
#include <cstdint>

namespace neuralsdf {

// A layer's kernel and bias as one (rows, columns) matrix G, rows = inputs + 1. Matrices are row-major, their rows
// padded by zeros to whole vectors.
struct SoapShape {
    int rows, columns;
    int padded_rows, padded_columns;  // floats from row to row of a (., rows) and of a (., columns) matrix
};

struct SoapRates {
    float rate, beta, epsilon;
    float correction;  // 1 - beta^steps
    bool first;        // both eigenbases begin as the identity
    bool refresh;      // whether the eigenbases follow after this step
};

struct Soap {
    SoapShape (*shape)(int rows, int columns);

    // Floats of one layer's state, all zero before the first step.
    std::size_t (*state_size)(const SoapShape&);

    // One step: updates `weights` (rows, columns), dense, against a `gradient` of the same shape.
    void (*step)(const SoapShape&, const SoapRates&, const float* gradient, float* weights, float* state);
};

extern const Soap soap_baseline, soap_avx2, soap_avx512;

}  // namespace neuralsdf
