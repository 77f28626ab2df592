#include "kernel_entry.h"
#include "tape.h"

NEURALSDF_ENTRIES(evaluate_tape, neuralsdf::gpu::EvaluationOf<neuralsdf::gpu::Tape>, 256, 2)
NEURALSDF_ENTRIES(evaluate_with_gradient_tape, neuralsdf::gpu::EvaluationOf<neuralsdf::gpu::Tape>, 256, 2)
NEURALSDF_ENTRIES(trace_tape, neuralsdf::gpu::TracingOf<neuralsdf::gpu::Tape>, 256, 2)
NEURALSDF_ENTRIES(soft_shadow_tape, neuralsdf::gpu::ShadowOf<neuralsdf::gpu::Tape>, 256, 2)
