// Flushes denormal numbers (below 1.2e-38) to zero, because processors compute with them about a hundred times slower.
#pragma once

#include <cstdint>

#ifdef __SSE2__
#include <xmmintrin.h>
#endif

namespace neuralsdf {

// Enables flush-to-zero for the current thread during its lifetime. Without it, the moments of weights whose gradient
// is zero decay to denormal numbers, and an untrusted file may contain only such numbers.
class WithoutDenormals {
  public:
    WithoutDenormals() : before_(mode()) { set_mode(before_ | flush); }
    ~WithoutDenormals() { set_mode(before_); }
    WithoutDenormals(const WithoutDenormals&) = delete;
    WithoutDenormals& operator=(const WithoutDenormals&) = delete;

  private:
#if defined(__SSE2__)
    static constexpr std::uint64_t flush = 1 << 15 | 1 << 6;  // results, and operands
    static std::uint64_t mode() { return _mm_getcsr(); }
    static void set_mode(std::uint64_t mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
    static constexpr std::uint64_t flush = 1 << 24;
    static std::uint64_t mode() {
        std::uint64_t mode;
        __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
        return mode;
    }
    static void set_mode(std::uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#else
    static constexpr std::uint64_t flush = 0;
    static std::uint64_t mode() { return 0; }
    static void set_mode(std::uint64_t) {}
#endif
    const std::uint64_t before_;
};

}  // namespace neuralsdf
