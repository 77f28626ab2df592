#include "kernel_entry.h"
#include "trace.h"

NEURALSDF_ENTRIES(trace, neuralsdf::gpu::Tracing, 256, 2)
NEURALSDF_ENTRIES(soft_shadow, neuralsdf::gpu::Shadow, 256, 2)
