// trees.h
// The Python side of trees.
#pragma once

#include <string>
#include <vector>

#include "python.h"

namespace neuralsdf {

// Instruction sets that this processor runs, fastest first.
std::vector<std::string> supported_isas();

void bind_trees(py::module_& module);

}  // namespace neuralsdf
