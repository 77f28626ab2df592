#include "cpu/instruction_sets.h"

#include <stdexcept>

namespace neuralsdf {
namespace {

#ifdef NEURALSDF_AMX
// The AVX-512 kernels with AMX tiles.
const Kernel& kernel_amx() {
    static const Kernel kernel = [] {
        Kernel with_tiles = kernel_avx512;
        with_tiles.name = "amx";
        with_tiles.tiles = &tiles_amx;
        return with_tiles;
    }();
    return kernel;
}
#endif

std::vector<const Kernel*> supported_kernels() {
    std::vector<const Kernel*> kernels;
#ifdef NEURALSDF_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
#ifdef NEURALSDF_AMX
        static const bool usable = has_amx();
        if (usable) kernels.push_back(&kernel_amx());
#endif
        kernels.push_back(&kernel_avx512);
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) kernels.push_back(&kernel_avx2);
#endif
    kernels.push_back(&kernel_baseline);
    return kernels;
}

}  // namespace

std::vector<std::string> supported_isas() {
    std::vector<std::string> names;
    for (const Kernel* kernel : supported_kernels()) names.emplace_back(kernel->name);
    return names;
}

const Kernel& kernel_named(const std::string& isa) {
    for (const Kernel* kernel : supported_kernels())
        if (isa == kernel->name) return *kernel;
    throw std::invalid_argument("this processor does not support " + isa);
}

}  // namespace neuralsdf
