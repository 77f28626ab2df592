#include "kernel_entry.h"
#include "loss.h"

NEURALSDF_ENTRIES(loss_gradient, neuralsdf::gpu::Loss, 128, 3)
NEURALSDF_ENTRY(sum_gradients, sum_gradients, neuralsdf::gpu::GradientSum, 256, 1)
