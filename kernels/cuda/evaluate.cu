#include "kernel_entry.h"
#include "evaluate.h"

NEURALSDF_ENTRIES(evaluate, neuralsdf::gpu::Evaluation, 256, 2)
NEURALSDF_ENTRIES(evaluate_many, neuralsdf::gpu::EvaluationOfMany, 256, 2)
NEURALSDF_ENTRIES(evaluate_with_gradient, neuralsdf::gpu::Evaluation, 256, 2)
