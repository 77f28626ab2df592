// kernel_entry.h
// Defines a kernel entry point that the driver finds by name. It has one argument, a struct. `threads` is the maximum
// number of threads per block, and `blocks` the minimum number of blocks per multiprocessor (see __launch_bounds__).
#pragma once

#include "thread_block.h"

#define NEURALSDF_ENTRY(name, kernel, Arguments, threads, blocks)                          \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(Arguments a) {      \
        extern __shared__ float4 shared[];                                                 \
        neuralsdf::gpu::kernel(neuralsdf::gpu::Block(reinterpret_cast<float*>(shared)), a); \
    }

// Defines the entry points for all padded network widths.
#define NEURALSDF_ENTRIES(kernel, Arguments, threads, blocks)                  \
    NEURALSDF_ENTRY(kernel##_16, kernel<16>, Arguments, threads, blocks)       \
    NEURALSDF_ENTRY(kernel##_32, kernel<32>, Arguments, threads, blocks)       \
    NEURALSDF_ENTRY(kernel##_64, kernel<64>, Arguments, threads, blocks)       \
    NEURALSDF_ENTRY(kernel##_128, kernel<128>, Arguments, threads, blocks)
