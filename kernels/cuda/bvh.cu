#include "kernel_entry.h"
#include "bvh.h"

NEURALSDF_ENTRY(closest_point, closest_point, neuralsdf::gpu::ClosestPoint, 128, 4)
NEURALSDF_ENTRY(winding_number, winding_number, neuralsdf::gpu::WindingNumber, 128, 4)
NEURALSDF_ENTRY(first_hit, first_hit, neuralsdf::gpu::FirstHit, 128, 4)
