// Instruction sets that were compiled and that this processor supports.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels_by_instruction_set.h"

namespace neuralsdf {

// Names of the supported instruction sets, fastest first.
std::vector<std::string> supported_isas();

// The kernels for an instruction set. Throws std::invalid_argument for an unknown or unsupported name.
const Kernel& kernel_named(const std::string& isa);

}  // namespace neuralsdf
