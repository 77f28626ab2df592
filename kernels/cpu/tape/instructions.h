// The instructions of a tape on a block of points, as a table of functions for each instruction set. Registers lie in
// a workspace, a coordinate of all points at a time.
#pragma once

namespace neuralsdf {

struct Instruction;  // operations.h

struct TapeBlock {
    int count, width;  // points, and with those that fill up the last vector
    bool slopes;       // whether values have gradients
    float* points;     // [register][coordinate][point]
    float* values;     // [register][value, and coordinates of the gradient][point]
};

struct TapeKernel {
    // Points (count, 3) into point register 0.
    void (*load)(const TapeBlock&, const float* points);

    // Carries out the instructions from `first` to `last`, but stops before one that asks networks or
    // fields; returns where.
    const Instruction* (*run)(const TapeBlock&, const float* parameters, const Instruction* first,
                              const Instruction* last);

    // The points (count, 3) at which an instruction asks its field; `in_ball` moves them to the nearest of its ball.
    void (*enter_field)(const TapeBlock&, const float* parameters, const Instruction&, bool in_ball, float* points);

    // What the field answers, values (width,) and gradients (width, 3), into the instruction's register; where it was
    // asked in its ball, extended beyond.
    void (*leave_field)(const TapeBlock&, const float* parameters, const Instruction&, bool in_ball,
                        const float* values, const float* gradients);

    // Value register 0: values (count,) and gradients (count, 3).
    void (*store)(const TapeBlock&, float* values, float* gradients);
};

extern const TapeKernel tape_baseline, tape_avx2, tape_avx512;

}  // namespace neuralsdf
