// Networks by units that multiply tiles of bfloat16 and sum in float32: Intel's AMX.
//
// A float is split into two bfloat16, but for 2^-17 of it, and a product of two floats is three of tiles: that of the
// two lesser parts is left out. So values differ from float32's by some 1e-5 of the largest terms in them, and take
// a third of the time.
#pragma once

#include "cpu/mlp/weight_layout.h"

namespace neuralsdf {

struct Samples;

// For layouts that are `tiled`; arguments are those of the functions of the same names in kernel_table.h.
struct Tiles {
    // Packs one hidden layer but the first, of what `neuralsdf::pack_layer` has packed both ways.
    void (*pack_layer)(const Layout&, int layer, float* packed);

    void (*evaluate)(const Layout&, const float* packed, const float* points, int count, float* values,
                     float* workspace);
    double (*add_loss_gradient)(const Layout&, const float* packed, const Samples& now, const Samples& next,
                                float* gradient, float* workspace);
};

extern const Tiles tiles_amx;

// Whether the processor has them and the system lets this process use them, which it is asked for.
bool has_amx();

}  // namespace neuralsdf
