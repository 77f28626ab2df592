// block.h
// A block of threads as the kernels see it, on the GPU and on the host. A kernel is a sequence of phases: in
// each every thread runs the same function with its number, and the threads of a warp (or of the block) wait for
// each other at its end. Threads of one phase never read what another of them writes, so the host may run them
// one after the other, in any order: it runs the same algorithm, the same indices and the same shared memory.
#pragma once

#ifdef __CUDACC__
#define NEURALSDF_DEVICE __device__ __forceinline__
#define NEURALSDF_APART __device__ __noinline__
#define NEURALSDF_UNROLL _Pragma("unroll")
#define NEURALSDF_UNROLL_BY_4 _Pragma("unroll 4")
#define NEURALSDF_ROLLED _Pragma("unroll 1")
#else
#include <cmath>
#include <cstring>
#include <vector>
#define NEURALSDF_DEVICE inline
#define NEURALSDF_APART inline
#define NEURALSDF_UNROLL
#define NEURALSDF_UNROLL_BY_4
#define NEURALSDF_ROLLED
#endif

namespace neuralsdf {
namespace gpu {

constexpr int warp_threads = 32;

#ifdef __CUDACC__

// What a thread keeps from phase to phase: in registers.
template <class T>
struct PerThread {
    T own;
    NEURALSDF_DEVICE T& operator[](int) { return own; }
};

class Block {
  public:
    NEURALSDF_DEVICE explicit Block(float* shared) : shared(shared) {}

    float* const shared;  // aligned to 16 bytes
    NEURALSDF_DEVICE int index() const { return static_cast<int>(blockIdx.x); }
    NEURALSDF_DEVICE int count() const { return static_cast<int>(gridDim.x); }
    NEURALSDF_DEVICE int threads() const { return static_cast<int>(blockDim.x); }

    // A phase at whose end the block's threads wait for each other.
    template <class Function>
    NEURALSDF_DEVICE void each(Function function) const {
        function(static_cast<int>(threadIdx.x));
        __syncthreads();
    }

    // A phase at whose end only the threads of each warp wait for each other.
    template <class Function>
    NEURALSDF_DEVICE void each_in_warps(Function function) const {
        function(static_cast<int>(threadIdx.x));
        __syncwarp();
    }

    // A phase at whose end nobody waits: it reads nothing that another thread wrote since the last wait, and what it
    // writes is for itself.
    template <class Function>
    NEURALSDF_DEVICE void each_alone(Function function) const {
        function(static_cast<int>(threadIdx.x));
    }

    // Whether the flag of any thread of the warp is set, or of the block. On the host always of the block: warps
    // go on in step there.
    NEURALSDF_DEVICE bool any(PerThread<bool>& flag, bool in_block) const {
        return in_block ? __syncthreads_or(flag.own) : __any_sync(0xffffffffu, flag.own);
    }

    // The counts of the lanes before each thread's in its warp, summed; and of the whole warp.
    NEURALSDF_DEVICE void sum_before(PerThread<int>& count, PerThread<int>& before, PerThread<int>& total) const {
        const int lane = static_cast<int>(threadIdx.x) % warp_threads;
        int sum = count.own;
        NEURALSDF_UNROLL for (int step = 1; step < warp_threads; step *= 2) {
            const int other = __shfl_up_sync(0xffffffffu, sum, step);
            if (lane >= step) sum += other;
        }
        before.own = sum - count.own;
        total.own = __shfl_sync(0xffffffffu, sum, warp_threads - 1);
    }

    // Takes `wanted` numbers a thread from a counter that all blocks share; `first` is the first of each thread's.
    NEURALSDF_DEVICE void take(unsigned long long* counter, PerThread<int>& wanted,
                               PerThread<unsigned long long>& first) const {
        PerThread<int> before, total;
        sum_before(wanted, before, total);
        unsigned long long begin = 0;
        if (threadIdx.x % warp_threads == 0 && total.own)
            begin = atomicAdd(counter, static_cast<unsigned long long>(total.own));
        first.own = __shfl_sync(0xffffffffu, begin, 0) + before.own;
    }

    NEURALSDF_DEVICE void add(unsigned long long* counter, unsigned long long value) const { atomicAdd(counter, value); }
};

using Four = float4;

NEURALSDF_DEVICE unsigned bits_of(float x) { return __float_as_uint(x); }
NEURALSDF_DEVICE float float_of(unsigned bits) { return __uint_as_float(bits); }

#else

constexpr int host_threads = 256;  // the largest block

template <class T>
struct PerThread {
    std::vector<T> of = std::vector<T>(host_threads);
    typename std::vector<T>::reference operator[](int thread) { return of[thread]; }
};

class Block {
  public:
    // Threads run in rising order, or falling: results must not depend on it.
    Block(float* shared, int index, int count, int threads, bool falling)
        : shared(shared), index_(index), count_(count), threads_(threads), falling_(falling) {}

    float* const shared;
    int index() const { return index_; }
    int count() const { return count_; }
    int threads() const { return threads_; }

    template <class Function>
    void each(Function function) const {
        for (int i = 0; i < threads_; ++i) function(falling_ ? threads_ - 1 - i : i);
    }

    template <class Function>
    void each_in_warps(Function function) const {
        each(function);
    }

    template <class Function>
    void each_alone(Function function) const {
        each(function);
    }

    bool any(PerThread<bool>& flag, bool) const {
        bool result = false;
        each([&](int thread) { result = result || flag[thread]; });
        return result;
    }

    void sum_before(PerThread<int>& count, PerThread<int>& before, PerThread<int>& total) const {
        for (int warp = 0; warp < threads_; warp += warp_threads) {
            int sum = 0;
            for (int thread = warp; thread < warp + warp_threads; ++thread) {
                before[thread] = sum;
                sum += count[thread];
            }
            for (int thread = warp; thread < warp + warp_threads; ++thread) total[thread] = sum;
        }
    }

    void take(unsigned long long* counter, PerThread<int>& wanted, PerThread<unsigned long long>& first) const {
        each([&](int thread) {
            first[thread] = *counter;
            *counter += wanted[thread];
        });
    }

    void add(unsigned long long* counter, unsigned long long value) const { *counter += value; }

  private:
    const int index_, count_, threads_;
    const bool falling_;
};

struct alignas(16) Four {
    float x, y, z, w;
};

inline unsigned bits_of(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float float_of(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

#endif

// Four neighbouring floats at a multiple of 16 bytes.
NEURALSDF_DEVICE void load(const float* from, float (&to)[4]) {
    const Four v = *reinterpret_cast<const Four*>(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}

NEURALSDF_DEVICE void store(float* to, const float (&from)[4]) {
    Four v;
    v.x = from[0], v.y = from[1], v.z = from[2], v.w = from[3];
    *reinterpret_cast<Four*>(to) = v;
}

}  // namespace gpu
}  // namespace neuralsdf
