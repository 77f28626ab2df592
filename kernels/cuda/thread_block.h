// thread_block.h
// The interface of a block of threads for the kernels, on the GPU and on the host. A kernel is a sequence of phases. In
// each phase every thread runs the same function with its number, and the threads of a warp (or of the block)
// synchronise at its end. Threads in a phase never read data that other threads write in the same phase. So the host
// can run the threads one after the other, in any order, with the same algorithm, indices and shared memory.
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

// Data of a thread that persists between phases: in registers.
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

    // Runs a phase and synchronises the threads of the block.
    template <class Function>
    NEURALSDF_DEVICE void each(Function function) const {
        function(static_cast<int>(threadIdx.x));
        __syncthreads();
    }

    // Runs a phase and synchronises the threads of each warp only.
    template <class Function>
    NEURALSDF_DEVICE void each_in_warps(Function function) const {
        function(static_cast<int>(threadIdx.x));
        __syncwarp();
    }

    // Runs a phase without synchronisation. It must not read data that other threads have written since the last
    // synchronisation, and its results are for the same thread only.
    template <class Function>
    NEURALSDF_DEVICE void each_alone(Function function) const {
        function(static_cast<int>(threadIdx.x));
    }

    // Whether the flag of any thread of the warp, or of the block, is set. On the host always of the block, because
    // warps run in lockstep there.
    NEURALSDF_DEVICE bool any(PerThread<bool>& flag, bool in_block) const {
        return in_block ? __syncthreads_or(flag.own) : __any_sync(0xffffffffu, flag.own);
    }

    // Computes the sum of the counts of the preceding lanes in the warp, and of the whole warp.
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

    // Reserves `wanted` consecutive numbers per thread from a counter that all blocks share; `first` is the first
    // number of each thread.
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

constexpr int host_threads = 256;  // maximum block size

template <class T>
struct PerThread {
    std::vector<T> of = std::vector<T>(host_threads);
    typename std::vector<T>::reference operator[](int thread) { return of[thread]; }
};

class Block {
  public:
    // Threads run in ascending or descending order; results must not depend on it.
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

// Load and store four consecutive floats, aligned to 16 bytes.
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
