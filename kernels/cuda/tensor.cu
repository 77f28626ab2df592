#include "entry.h"
#include "tensor.h"

NEURALSDF_ENTRY(evaluate_tensor_16, evaluate_tensor<16>, neuralsdf::gpu::Evaluation, 256, 2)
NEURALSDF_ENTRY(evaluate_tensor_32, evaluate_tensor<32>, neuralsdf::gpu::Evaluation, 256, 2)
NEURALSDF_ENTRY(evaluate_tensor_64, evaluate_tensor<64>, neuralsdf::gpu::Evaluation, 256, 1)
NEURALSDF_ENTRY(evaluate_tensor_128, evaluate_tensor<128>, neuralsdf::gpu::Evaluation, 256, 1)
