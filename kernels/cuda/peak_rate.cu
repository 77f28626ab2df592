#include "kernel_entry.h"
#include "peak_rate.h"

NEURALSDF_ENTRY(peak, peak, neuralsdf::gpu::Peak, 256, 4)
