#include "kernel_entry.h"
#include "trace.h"

// Entry points for all widths. The registers of the wider ones allow only one block per multiprocessor.
#define NEURALSDF_TENSOR_ENTRIES(kernel, Arguments)             \
    NEURALSDF_ENTRY(kernel##_16, kernel<16>, Arguments, 256, 2) \
    NEURALSDF_ENTRY(kernel##_32, kernel<32>, Arguments, 256, 2) \
    NEURALSDF_ENTRY(kernel##_64, kernel<64>, Arguments, 256, 1) \
    NEURALSDF_ENTRY(kernel##_128, kernel<128>, Arguments, 256, 1)

NEURALSDF_TENSOR_ENTRIES(evaluate_tensor, neuralsdf::gpu::Evaluation)
NEURALSDF_TENSOR_ENTRIES(trace_tensor, neuralsdf::gpu::Tracing)
NEURALSDF_TENSOR_ENTRIES(soft_shadow_tensor, neuralsdf::gpu::Shadow)
