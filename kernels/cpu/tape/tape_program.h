// A tape (neuralsdf/program/tape_format.py). It is validated once, so that evaluation reads no register before it is
// written, and nothing out of bounds.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/mlp/network_program.h"
#include "cpu/tape/network_union.h"
#include "shared/tape_operations.h"

namespace neuralsdf {

// Leaves are networks, or null for fields that only the caller can evaluate. In the latter case, the caller evaluates
// the fields at `field_points` and passes the results to `evaluate_fields`. The first dimension (f,) of both is the
// instructions that use such a field, in the order of the code; f = `field_count()`.
class TapeProgram : public Program {
  public:
    // code (m, 5): instructions, row by row. parameters (k,). points, values: numbers of registers. Throws
    // std::invalid_argument if the tape is invalid.
    TapeProgram(const Kernel& kernel, const std::vector<std::int32_t>& code, const std::vector<double>& parameters,
                std::vector<std::shared_ptr<const NetworkProgram>> leaves, int points, int values, float lipschitz);

    std::int64_t field_count() const { return fields_; }

    // Computes the points (f, n, 3) at which fields must be evaluated, for points (n, 3).
    void field_points(const float* points, std::int64_t n, float* places, const Workers& workers) const;

    // Computes values (n,) at points (n, 3) from the values (f, n) of fields.
    void evaluate_fields(const float* points, std::int64_t n, const float* field_values, float* values,
                         const Workers& workers) const;

    // Computes values (n,) and gradients (n, 3) from the values (f, n) and gradients (f, n, 3) of fields.
    void evaluate_fields_with_gradient(const float* points, std::int64_t n, const float* field_values,
                                       const float* field_gradients, float* values, float* gradients,
                                       const Workers& workers) const;

  private:
    // The values and gradients of fields at all points; those of a block start at index `first`.
    struct Answers {
        const float *values, *gradients;
        std::int64_t points, first;
    };

    int batch() const override { return nearest_.empty() ? block_points : Nearest::batch_points; }
    std::size_t evaluate_size() const override;
    std::size_t gradient_size() const override;
    void evaluate_block(const float* points, int count, float* values, float* workspace,
                        const Stopped& stopped) const override;
    void gradient_block(const float* points, int count, float* values, float* gradients, float* workspace,
                        const Stopped& stopped) const override;
    float steepest() const override { return lipschitz_; }

    // Number of points that fit in the registers of a workspace, and its size in floats.
    int room(bool slopes) const;
    std::size_t registers_size(bool slopes) const;
    std::size_t size(bool slopes) const;

    // Calls `part(block, first, scratch)` for parts of the points that fit in the registers.
    template <class Part>
    void in_parts(const float* points, int count, bool slopes, float* workspace, const Stopped& stopped,
                  const Part& part) const;

    // Computes values and, unless null, gradients at up to batch() points.
    void run(const float* points, int count, float* values, float* gradients, float* workspace, const Stopped& stopped,
             const Answers& answers) const;
    void run_part(const TapeBlock& block, const Answers& answers, float* scratch, const Stopped& stopped) const;
    void ask(const Instruction& i, const TapeBlock& block, const Answers& answers, std::int64_t field, float* scratch,
             const Stopped& stopped) const;
    void ask_nearest(const Instruction& i, const TapeBlock& block, float* scratch) const;

    const std::vector<std::shared_ptr<const NetworkProgram>> leaves_;
    std::vector<Instruction> code_;  // `b` of a field instruction is the leaf; of `nearest`, the index in nearest_
    std::vector<Nearest> nearest_;
    const std::vector<float> parameters_;
    const std::vector<Instruction> places_;  // instructions needed for the points of the caller's fields
    const std::int64_t fields_;              // number of field instructions of the caller
    const int points_, values_;              // registers
    const float lipschitz_;
};

}  // namespace neuralsdf
