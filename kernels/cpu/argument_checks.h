// Argument checks. The core throws std::invalid_argument (a ValueError in Python) and std::out_of_range (an
// IndexError).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>

namespace neuralsdf {

// Throws std::invalid_argument with this message unless `fits`.
inline void require(bool fits, const char* message) {
    if (!fits) throw std::invalid_argument(message);
}

template <class T>
bool all_finite(const T* data, std::int64_t count) {
    return std::all_of(data, data + count, [](T number) { return std::isfinite(number); });
}

}  // namespace neuralsdf
