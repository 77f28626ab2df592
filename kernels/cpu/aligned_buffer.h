// Aligned memory for vectors of floats.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace neuralsdf {

// An uninitialised array of floats, aligned for the vectors of every instruction set.
struct AlignedDelete {
    static constexpr std::align_val_t alignment{64};
    void operator()(float* data) const { ::operator delete(data, alignment); }
};
using Buffer = std::unique_ptr<float[], AlignedDelete>;

inline Buffer make_buffer(std::size_t floats) {
    return Buffer(static_cast<float*>(::operator new(floats * sizeof(float), AlignedDelete::alignment)));
}

// Rounds up to whole cache lines, so that subsequent data in a buffer is aligned and threads do not share cache lines.
inline std::size_t whole_lines(std::size_t floats) { return (floats + 15) / 16 * 16; }

}  // namespace neuralsdf
