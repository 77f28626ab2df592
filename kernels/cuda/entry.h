// entry.h
// A kernel as the driver finds it: by name, with one argument, a struct. `threads` and `blocks` are the most threads
// it is launched with, and the blocks of so many that a multiprocessor should hold.
#pragma once

#include "block.h"

#define NEURALSDF_ENTRY(name, kernel, Arguments, threads, blocks)                          \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(Arguments a) {      \
        extern __shared__ float4 shared[];                                                 \
        neuralsdf::gpu::kernel(neuralsdf::gpu::Block(reinterpret_cast<float*>(shared)), a); \
    }

// The same for every width that networks are padded to.
#define NEURALSDF_ENTRIES(kernel, Arguments, threads, blocks)                  \
    NEURALSDF_ENTRY(kernel##_16, kernel<16>, Arguments, threads, blocks)       \
    NEURALSDF_ENTRY(kernel##_32, kernel<32>, Arguments, threads, blocks)       \
    NEURALSDF_ENTRY(kernel##_64, kernel<64>, Arguments, threads, blocks)       \
    NEURALSDF_ENTRY(kernel##_128, kernel<128>, Arguments, threads, blocks)
