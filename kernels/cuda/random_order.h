// random_order.h
// A random permutation of 0 .. count - 1 that is computed rather than stored. It is a bijection of the numbers below
// the next power of two, by rounds of additions, multiplications by odd numbers and xor-shifts, all of which are
// invertible. Results that are out of range are permuted again until they are in range (cycle walking, Black and
// Rogaway 2002). neuralsdf/backends/batched_networks.py computes the same permutation.
#pragma once

#include "thread_block.h"

namespace neuralsdf {
namespace gpu {

// A hash: all bits of the result depend on all bits of x (the constants are from Wellons, "lowbias32").
NEURALSDF_DEVICE unsigned mixed(unsigned x) {
    x = (x ^ (x >> 16)) * 0x21f0aaadu;
    x = (x ^ (x >> 15)) * 0xd35a2d97u;
    return x ^ (x >> 15);
}

class Order {
  public:
    NEURALSDF_DEVICE Order(unsigned count, unsigned seed, unsigned epoch) : count_(count), bits_(1) {
        while (bits_ < 31 && (1u << bits_) < count) ++bits_;
        const unsigned key = mixed(seed + mixed(epoch));
        NEURALSDF_UNROLL for (int i = 0; i < rounds; ++i) {
            added_[i] = mixed(key + 2 * i);
            factors_[i] = mixed(key + 2 * i + 1) | 1u;
        }
    }

    // The number at index `place`; both are below count.
    NEURALSDF_DEVICE unsigned operator()(unsigned place) const {
        const unsigned mask = (1u << bits_) - 1, half = (bits_ + 1) / 2;
        do {
            NEURALSDF_UNROLL for (int i = 0; i < rounds; ++i) {
                place = (place + added_[i]) * factors_[i] & mask;
                place ^= place >> half;
            }
        } while (place >= count_);
        return place;
    }

  private:
    static constexpr int rounds = 5;
    const unsigned count_;
    unsigned bits_, added_[rounds], factors_[rounds];
};

}  // namespace gpu
}  // namespace neuralsdf
