// SOAP (Vyas et al. 2024) for one layer: Adam in the eigenbasis of Shampoo's preconditioner.
#pragma once

#include <cstddef>
#include <cstdint>

namespace neuralsdf {

// The kernel and bias of a layer as one (rows, columns) matrix G, rows = inputs + 1. Matrices are row-major; their rows
// are padded with zeros to whole vectors.
struct SoapShape {
    int rows, columns;
    int padded_rows, padded_columns;  // row strides, in floats, of matrices with `rows` and with `columns` columns
};

struct SoapRates {
    float rate, beta, epsilon;
    float correction;  // 1 - beta^steps
    bool first;        // first step: the eigenbases are initialised to the identity
    bool refresh;      // whether to update the eigenbases after this step
};

struct Soap {
    SoapShape (*shape)(int rows, int columns);

    // Size of the state of a layer in floats. It must be zero before the first step.
    std::size_t (*state_size)(const SoapShape&);

    // Performs one step: updates `weights` (rows, columns), dense, with a `gradient` of the same shape.
    void (*step)(const SoapShape&, const SoapRates&, const float* gradient, float* weights, float* state);
};

extern const Soap soap_baseline, soap_avx2, soap_avx512;

}  // namespace neuralsdf
