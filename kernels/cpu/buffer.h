// Memory for vectors of floats.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace neuralsdf {

// Uninitialised floats at an address that is aligned for every instruction set's vectors.
struct AlignedDelete {
    static constexpr std::align_val_t alignment{64};
    void operator()(float* data) const { ::operator delete(data, alignment); }
};
using Buffer = std::unique_ptr<float[], AlignedDelete>;

inline Buffer make_buffer(std::size_t floats) {
    return Buffer(static_cast<float*>(::operator new(floats * sizeof(float), AlignedDelete::alignment)));
}

// Rounds up to whole cache lines, so that what follows in a buffer is aligned and threads share no line.
inline std::size_t whole_lines(std::size_t floats) { return (floats + 15) / 16 * 16; }

}  // namespace neuralsdf
