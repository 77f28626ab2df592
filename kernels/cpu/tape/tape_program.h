// A tape (neuralsdf/tape.py), checked once: what evaluates it reads no register before it is written, and nothing
// out of bounds.
#pragma once

#include <memory>
#include <vector>

#include "cpu/tape/network_union.h"
#include "shared/operations.h"
#include "cpu/program.h"

namespace neuralsdf {

// Leaves are networks, or null for fields that only Python can ask. Where there are such, it asks them itself at
// `field_points`, and `evaluate_fields` takes their answers; the first dimension (f,) of both are the instructions
// that ask such a field, in the order of the code.
class TapeProgram : public Program {
  public:
    // code (m, 5) int32, parameters (k,) float64; points, values: registers. Raises ValueError for a tape that makes
    // no sense.
    TapeProgram(const Kernel& kernel, const py::array& code, const py::array& parameters,
                std::vector<std::shared_ptr<NetworkProgram>> leaves, int points, int values, float lipschitz);

    // Where fields are asked (f, n, 3), of points (n, 3).
    py::array_t<float> field_points(const py::array& points, int threads) const;

    // Values (n,) at points (n, 3), by the values (f, n) of fields.
    py::array_t<float> evaluate_fields(const py::array& points, const py::array& values, int threads) const;

    // Values (n,) and gradients (n, 3), by the values (f, n) and gradients (f, n, 3) of fields.
    py::tuple evaluate_fields_with_gradient(const py::array& points, const py::array& values,
                                            const py::array& gradients, int threads) const;

  private:
    // What fields answered at all points, of which a block's begin at `first`.
    struct Answers {
        const float *values, *gradients;
        std::int64_t points, first;
    };

    Answers checked_answers(const py::array& points, const py::array& values) const;
    int batch() const override { return nearest_.empty() ? block_points : Nearest::batch_points; }
    std::size_t evaluate_size() const override;
    std::size_t gradient_size() const override;
    void evaluate_block(const float* points, int count, float* values, float* workspace,
                        const Stopped& stopped) const override;
    void gradient_block(const float* points, int count, float* values, float* gradients, float* workspace,
                        const Stopped& stopped) const override;
    float steepest() const override { return lipschitz_; }

    // Points that have room in the registers of a workspace, and its floats.
    int room(bool slopes) const;
    std::size_t registers_size(bool slopes) const;
    std::size_t size(bool slopes) const;

    // Calls `part(block, first, scratch)` for parts of some points, small enough for the registers.
    template <class Part>
    void in_parts(const float* points, int count, bool slopes, float* workspace, const Stopped& stopped,
                  const Part& part) const;

    // Values and, unless they are null, gradients at up to batch() points.
    void run(const float* points, int count, float* values, float* gradients, float* workspace,
             const Stopped& stopped, const Answers& answers) const;
    void run_part(const TapeBlock& block, const Answers& answers, float* scratch, const Stopped& stopped) const;
    void ask(const Instruction& i, const TapeBlock& block, const Answers& answers, std::int64_t field, float* scratch,
             const Stopped& stopped) const;
    void ask_nearest(const Instruction& i, const TapeBlock& block, float* scratch) const;

    const std::vector<std::shared_ptr<NetworkProgram>> leaves_;
    std::vector<Instruction> code_;  // of one that asks a field, `b` is the leaf; of `nearest`, one of nearest_
    std::vector<Nearest> nearest_;
    const std::vector<float> parameters_;
    const std::vector<Instruction> places_;  // those that lead to fields of Python's
    const std::int64_t fields_;              // how many ask those
    const int points_, values_;              // registers
    const float lipschitz_;
};

void bind_tape(py::module_& module);

}  // namespace neuralsdf
