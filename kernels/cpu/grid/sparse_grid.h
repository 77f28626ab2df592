// What extraction does on a sparse lattice besides evaluating: points of lattice points, corners of cells, marching
// cubes. A lattice point (i, j, k) has the key (i side + j) side + k, a cell that of its lowest corner; keys ascend.
#pragma once

#include "bindings/arrays.h"

namespace neuralsdf {

void bind_lattice(py::module_& module);

}  // namespace neuralsdf
