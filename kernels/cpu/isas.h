// The instruction sets that were compiled and that this processor runs.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernel_table.h"

namespace neuralsdf {

// Their names, fastest first.
std::vector<std::string> supported_isas();

// The kernels of one. Throws std::invalid_argument for another name.
const Kernel& kernel_named(const std::string& isa);

}  // namespace neuralsdf
