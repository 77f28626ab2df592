// trace.h
// Ray marching through a network or a tape: sphere tracing (Hart 1996) and soft shadows. The reference, which also
// explains the method, is neuralsdf/backends/reference/sphere_tracing.py. There is one persistent kernel. A warp has as
// many rays as its tile has columns. Each iteration evaluates all of them together and advances each, whether it is
// marching or refining a root. A ray that ends is replaced immediately, so that the tile stays full while rays are
// left. The last rays, a few in ten thousand that need ten times as many iterations, are moved to the front of their
// tiles, where a float32 iteration is faster the fewer rays are left.
//
// On tensor cores the field differs by less than its surface error. Brackets and roots are those of that field.
#pragma once

#include "tensor_cores.h"

namespace neuralsdf {
namespace gpu {

struct Rays {
    const float* begin;       // (count, 3), t = 0
    const float* directions;  // (count, 3)
    const float* ends;        // (count,) t
    unsigned long long* counters;  // the next ray, and the number of evaluations; both start at zero
    long long count;          // less than 2^31
};

enum Flag : unsigned char { hit = 1, unresolved = 2, buried = 4 };

template <class Field>
struct TracingOf {
    Field field;
    Rays rays;
    const unsigned char* at_ball;  // (count,) whether a ray starts on the ball
    const float* steps;            // safe steps for levels from 0 to max_level
    float* t;                      // (count,) t of the surface, or 0
    unsigned char* flags;          // (count,) enum Flag
    float max_level, levels_a_unit, touch_depth, root_tolerance;
    int levels;                    // number of `steps`, at least 2
    int max_steps, root_steps;     // less than 2^16

    struct Ray {
        int index;               // negative for none
        float at;                // t of the next evaluation
        float low, low_value;    // the last t outside the solid, or the root's lower bracket, and its value
        float high, high_value;  // the root's upper bracket
        unsigned turns : 16, flags : 8, outside : 1, rooting : 1;
        unsigned kept_low : 1, kept_high : 1;  // which end of the bracket the last iteration kept
    };

    NEURALSDF_DEVICE bool start(Ray& ray) const {
        ray.turns = 0;
        ray.at = 0.0f;
        ray.flags = 0;
        ray.outside = ray.rooting = ray.kept_low = ray.kept_high = 0;
        return true;
    }

    NEURALSDF_DEVICE void advance(Ray& ray, float value) const { ray.rooting ? root(ray, value) : march(ray, value); }

    NEURALSDF_DEVICE void march(Ray& ray, float value) const {
        const bool inside = value < 0.0f;
        if (ray.turns == 0 && at_ball[ray.index]) {
            ray.outside = value >= -touch_depth;
            if (inside && !ray.outside) ray.flags = buried;
        }
        if (!(absolute(value) <= 3.402823466e38f)) return end(ray, ray.flags | unresolved, 0.0f);
        if (inside && ray.outside) {  // after a ray has been outside the solid, a negative value is a hit
            if (ray.at == 0.0f) return end(ray, ray.flags | hit, 0.0f);
            ray.rooting = 1;
            ray.turns = 0;
            ray.high = ray.at;
            ray.high_value = value;
            return guess(ray);
        }
        ray.outside = ray.outside || !inside;
        ray.low = ray.at;
        ray.low_value = value;
        ray.at += safe_step(absolute(value));
        if (!(ray.at < rays.ends[ray.index])) return end(ray, ray.flags, 0.0f);
        if (++ray.turns == max_steps) end(ray, ray.flags | unresolved, 0.0f);
    }

    NEURALSDF_DEVICE float safe_step(float distance) const {
        const float level = (distance < max_level ? distance : max_level) * levels_a_unit;
        const int below = static_cast<int>(level) < levels - 2 ? static_cast<int>(level) : levels - 2;
        return multiply_add(level - static_cast<float>(below), steps[below + 1] - steps[below], steps[below]);
    }

    // Regula falsi with Illinois weights. Every fourth iteration bisects, for discontinuous fields.
    NEURALSDF_DEVICE void root(Ray& ray, float value) const {
        if (value < 0.0f) {
            ray.high = ray.at;
            ray.high_value = value;
            if (ray.kept_low) ray.low_value *= 0.5f;  // Illinois: halve the value of an end that was kept twice
        } else {
            ray.low = ray.at;
            ray.low_value = value;
            if (ray.kept_high) ray.high_value *= 0.5f;
        }
        ray.kept_low = value < 0.0f;
        ray.kept_high = !ray.kept_low;
        const bool on = absolute(value) > root_tolerance && ray.high - ray.low > root_tolerance;
        if (!on || ++ray.turns == root_steps) return end(ray, ray.flags | hit, ray.at);
        guess(ray);
    }

    NEURALSDF_DEVICE void guess(Ray& ray) const {
        const float fraction = ray.turns % 4 == 3 ? 0.5f : ray.low_value / (ray.low_value - ray.high_value);
        ray.at = ray.low + (ray.high - ray.low) * fraction;
    }

    NEURALSDF_DEVICE void end(Ray& ray, int with, float at) const {
        t[ray.index] = at;
        flags[ray.index] = static_cast<unsigned char>(with);
        ray.index = -1;
    }
};

template <class Field>
struct ShadowOf {
    Field field;
    Rays rays;
    float* share;  // (count,)
    float first, min_step, max_step, sharpness, dark;
    float scale;  // factor of values: the inverse of the field's Lipschitz constant
    int max_steps;

    struct Ray {
        int index, turns;
        float at, light, unused;
    };

    NEURALSDF_DEVICE bool start(Ray& ray) const {
        ray.turns = 0;
        ray.at = first;
        ray.light = 1.0f;
        return goes_on(ray);
    }

    NEURALSDF_DEVICE void advance(Ray& ray, float value) const {
        value *= scale;
        float seen = sharpness * value / ray.at;
        seen = seen < 0.0f ? 0.0f : seen;
        ray.light = ray.light < seen ? ray.light : seen;
        ray.at += clamp(value, min_step, max_step);
        ++ray.turns;
        goes_on(ray);
    }

    // Returns whether there is another iteration; ends the ray if not.
    NEURALSDF_DEVICE bool goes_on(Ray& ray) const {
        if (ray.turns < max_steps && ray.at < rays.ends[ray.index] && ray.light > dark) return true;
        share[ray.index] = ray.light;
        ray.index = -1;
        return false;
    }
};

using Tracing = TracingOf<Network>;
using Shadow = ShadowOf<Network>;

// Handles a network's weights in shared memory.
template <int W>
struct Weights {
    static NEURALSDF_DEVICE int weights_size(const Network& network) { return gpu::weights_size<W>(network); }
    static NEURALSDF_DEVICE void load(const Block& block, const Network& network) { load_resident<W>(block, network); }
    static NEURALSDF_DEVICE bool in_step(const Network& network) { return !network.resident; }
};

// Evaluates the field in float32. The tile of a warp has `columns` points with coordinates in its first three rows; at
// least the first `in_use(thread)` are evaluated. `values` is the row of the tile that receives the values.
template <int W>
struct InFloat32 : Weights<W> {
    static constexpr int columns = Tile<W>::columns, values = 0;

    static NEURALSDF_DEVICE int tile_size(const Network&) { return W * columns; }

    template <class InUse>
    static NEURALSDF_DEVICE void evaluate(const Block& block, const Network& network, float* tiles, InUse in_use) {
        evaluate_tiles<W, points_alone>(block, network, tiles, in_use,
                                        [&](int thread, int quad, const float (&y)[4]) {
                                            store(tile_of<W>(tiles, thread) + 4 * quad, y);  // overwrites only this quad
                                        });
    }
};

// Evaluates the field on tensor cores. The four rows of a tile are followed by the scratch memory of its warp, if the
// activation needs it.
template <int W>
struct ByTensorCores : Weights<W> {
    static constexpr int columns = Lane<W>::points, values = 3;

    static NEURALSDF_DEVICE int tile_size(const Network& network) {
        return 4 * columns + (network.activation == relu ? 0 : W * columns);
    }

    template <class InUse>
    static NEURALSDF_DEVICE void evaluate(const Block& block, const Network& network, float* tiles, InUse) {
        const int size = tile_size(network);
        const auto tile = [&](int thread) { return tiles + thread / warp_threads * size; };
        evaluate_in_registers<W>(
            block, network, [&](int thread) { return tile(thread) + 4 * columns; },
            [&](int thread, int row, float(&x)[3]) {
                NEURALSDF_UNROLL for (int i = 0; i < 3; ++i) x[i] = tile(thread)[i * columns + row];
            },
            [&](int thread, int row, float y) { tile(thread)[values * columns + row] = y; });
        block.each_in_warps([](int) {});  // wait for the values
    }
};

// The rays of a lane while they are moved to the front.
template <int Columns, class Ray>
struct Held {
    static constexpr int most = (Columns + warp_threads - 1) / warp_threads;
    Ray rays[most];
};

// Shared memory: the weights, then one tile per warp, then the rays of one tile per warp.
template <class Values, class March>
NEURALSDF_DEVICE void march_rays(const Block& block, const March& a) {
    constexpr int columns = Values::columns;
    using Ray = typename March::Ray;
    // Avoids bank conflicts between lanes that read a member of neighbouring rays.
    static_assert(sizeof(Ray) % 8 == 4, "an odd number of words");
    const int tile_size = Values::tile_size(a.field);
    float* const tiles = block.shared + Values::weights_size(a.field);
    Ray* const all = reinterpret_cast<Ray*>(tiles + block.threads() / warp_threads * tile_size);
    const auto tile_of = [&](int thread) { return tiles + thread / warp_threads * tile_size; };
    const auto rays_of = [&](int thread) { return all + thread / warp_threads * columns; };
    const auto count = static_cast<unsigned long long>(a.rays.count);

    PerThread<int> wanted, before, in_progress, in_use;
    PerThread<unsigned long long> next, evaluations;
    PerThread<bool> open, live;  // whether rays are left; whether the warp continues
    PerThread<Held<columns, Ray>> held;
    block.each_in_warps([&](int thread) {
        open[thread] = thread % warp_threads < columns;
        evaluations[thread] = 0;
        for (int c = thread % warp_threads; c < columns; c += warp_threads) rays_of(thread)[c].index = -1;
    });
    Values::load(block, a.field);
    for (;;) {
        // Move active rays to the front of their warp's tile.
        block.each_in_warps([&](int thread) {
            int here = 0;
            NEURALSDF_UNROLL for (int i = 0; i < Held<columns, Ray>::most; ++i) {
                const int c = thread % warp_threads + i * warp_threads;
                held[thread].rays[i].index = -1;
                if (c < columns) held[thread].rays[i] = rays_of(thread)[c];
                here += held[thread].rays[i].index >= 0;
            }
            wanted[thread] = here;
        });
        block.sum_before(wanted, before, in_progress);
        block.each_in_warps([&](int thread) {
            int to = before[thread];
            NEURALSDF_UNROLL for (int i = 0; i < Held<columns, Ray>::most; ++i)
                if (held[thread].rays[i].index >= 0) rays_of(thread)[to++] = held[thread].rays[i];
            int free = 0;
            for (int c = thread % warp_threads; c < columns; c += warp_threads) {
                if (c < in_progress[thread]) continue;
                rays_of(thread)[c].index = -1;
                ++free;
            }
            wanted[thread] = open[thread] ? free : 0;
        });
        block.take(a.rays.counters, wanted, next);
        // Start new rays in the free columns, and write all points.
        block.each_in_warps([&](int thread) {
            float* const tile = tile_of(thread);
            int started = 0;
            for (int c = thread % warp_threads; c < columns; c += warp_threads) {
                Ray& ray = rays_of(thread)[c];
                while (ray.index < 0 && wanted[thread] > 0) {
                    open[thread] = next[thread] < count;
                    if (!open[thread]) break;
                    ray.index = static_cast<int>(next[thread]++);
                    wanted[thread] = wanted[thread] - 1;
                    started += a.start(ray);
                }
                const bool here = ray.index >= 0;
                NEURALSDF_UNROLL for (int i = 0; i < 3; ++i) {
                    const long long at = 3LL * ray.index + i;
                    tile[i * columns + c] = here ? multiply_add(ray.at, a.rays.directions[at], a.rays.begin[at]) : 0.0f;
                }
            }
            wanted[thread] = started;
            live[thread] = started || in_progress[thread] || open[thread];
        });
        if (!block.any(live, Values::in_step(a.field))) break;
        block.sum_before(wanted, before, in_use);
        block.each_in_warps([&](int thread) {
            // New rays may be anywhere after the active ones; without new rays, only the front is in use.
            in_use[thread] = in_use[thread] ? columns : in_progress[thread];
        });
        Values::evaluate(block, a.field, tiles, [&](int thread) { return in_use[thread]; });
        block.each_in_warps([&](int thread) {
            const float* const values = tile_of(thread) + Values::values * columns;
            for (int c = thread % warp_threads; c < columns; c += warp_threads) {
                Ray& ray = rays_of(thread)[c];
                if (ray.index < 0) continue;
                a.advance(ray, values[c]);
                evaluations[thread] = evaluations[thread] + 1;
            }
        });
    }
    block.each_in_warps([&](int thread) { block.add(a.rays.counters + 1, evaluations[thread]); });
}

template <int W>
NEURALSDF_DEVICE void trace(const Block& block, const Tracing& a) {
    march_rays<InFloat32<W>>(block, a);
}

template <int W>
NEURALSDF_DEVICE void trace_tensor(const Block& block, const Tracing& a) {
    march_rays<ByTensorCores<W>>(block, a);
}

template <int W>
NEURALSDF_DEVICE void soft_shadow(const Block& block, const Shadow& a) {
    march_rays<InFloat32<W>>(block, a);
}

template <int W>
NEURALSDF_DEVICE void soft_shadow_tensor(const Block& block, const Shadow& a) {
    march_rays<ByTensorCores<W>>(block, a);
}

}  // namespace gpu
}  // namespace neuralsdf
