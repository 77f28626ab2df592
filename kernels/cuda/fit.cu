#include "kernel_entry.h"
#include "fit.h"

NEURALSDF_ENTRY(fit, fit, neuralsdf::gpu::Fit, 128, 2)
