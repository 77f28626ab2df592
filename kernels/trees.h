// trees.h
// The Python side of trees.
#pragma once

#include "python.h"

namespace neuralsdf {

void bind_trees(py::module_& module);

}  // namespace neuralsdf
