// Evaluates networks with tile multiplications in bfloat16 with float32 accumulation (Intel AMX).
//
// Each float is split into two bfloat16 with a relative error of 2^-17, and a product of floats is computed as three
// products of tiles; the product of the two low parts is omitted. So values differ from float32 by about 1e-5 of the
// largest terms, at a third of the run time.
#pragma once

#include "cpu/mlp/weight_layout.h"

namespace neuralsdf {

struct Samples;

// For layouts with `tiled`. The arguments are those of the functions of the same names in kernels_by_instruction_set.h.
struct Tiles {
    // Packs one hidden layer, except the first, from weights that `neuralsdf::pack_layer` has packed for both
    // directions.
    void (*pack_layer)(const Layout&, int layer, float* packed);

    void (*evaluate)(const Layout&, const float* packed, const float* points, int count, float* values,
                     float* workspace);
    double (*add_loss_gradient)(const Layout&, const float* packed, const Samples& now, const Samples& next,
                                float* gradient, float* workspace);
    double (*add_bias_gradient)(const Layout&, const float* packed, const Samples& now, const Samples& next,
                                float* gradient, float* workspace);
};

extern const Tiles tiles_amx;

// Whether the processor supports AMX and the system grants its use to this process. Requests the permission.
bool has_amx();

}  // namespace neuralsdf
