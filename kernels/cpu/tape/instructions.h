// The instructions of a tape on a block of points: one table of functions per instruction set. Registers are stored in
// a workspace, coordinate by coordinate for all points.
#pragma once

namespace neuralsdf {

struct Instruction;  // tape_operations.h

struct TapeBlock {
    int count, width;  // number of points, and the same rounded up to whole vectors
    bool slopes;       // whether values have gradients
    float* points;     // [register][coordinate][point]
    float* values;     // [register][value, and coordinates of the gradient][point]
};

struct TapeKernel {
    // Loads points (count, 3) into point register 0.
    void (*load)(const TapeBlock&, const float* points);

    // Executes the instructions from `first` to `last`, but stops at an instruction that evaluates networks or fields;
    // returns its position.
    const Instruction* (*run)(const TapeBlock&, const float* parameters, const Instruction* first,
                              const Instruction* last);

    // Computes the points (count, 3) at which an instruction evaluates its field. `in_ball` moves them to the closest
    // point of the unit ball.
    void (*enter_field)(const TapeBlock&, const float* parameters, const Instruction&, bool in_ball, float* points);

    // Writes the values (width,) and gradients (width, 3) of the field to the instruction's register. With `in_ball`
    // they are extended outside the ball.
    void (*leave_field)(const TapeBlock&, const float* parameters, const Instruction&, bool in_ball,
                        const float* values, const float* gradients);

    // Stores value register 0: values (count,) and gradients (count, 3).
    void (*store)(const TapeBlock&, float* values, float* gradients);
};

extern const TapeKernel tape_baseline, tape_avx2, tape_avx512;

}  // namespace neuralsdf
