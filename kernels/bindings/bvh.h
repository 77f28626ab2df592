// The Python side of trees.
#pragma once

#include "bindings/arrays.h"

namespace neuralsdf {

void bind_trees(py::module_& module);

}  // namespace neuralsdf
