#include "entry.h"
#include "peak.h"

NEURALSDF_ENTRY(peak, peak, neuralsdf::gpu::Peak, 256, 4)
